"""One solver on one instance in a process of its own: what it found when, and what it cost."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.instances import load_instance
from qpm_opt import Assignment, AssignmentProblem, solve_assignment
from qpm_opt._storage import write_text
from qpm_opt.backends import backend_version
from qpm_opt.errors import QPMError
from qpm_opt.search_space import SearchSpace
from qpm_opt.solution import relative_gap
from qpm_opt.swap_search import greedy_set

__all__ = ["FAILED", "SOLVERS", "Run", "measure", "measure_into", "unavailable"]

SOLVERS = ("decomposition", "pyomo", "cpsat", "pyomo:scip", "pyomo:gurobi", "local_search", "greedy")
"""Ours and its peers: HiGHS, CP-SAT, SCIP and Gurobi on the plain model, the search without proof, and greedy."""

_GRACE = 180.0
"""Seconds beyond the limit after which a process that builds its model too slowly is ended."""

_FAREWELL = 10.0
"""Seconds that a process has to clean up after its answer."""

FAILED = "failed"
_MARGIN = 1e-12


Trace = list[tuple[float, float | None, float | None]]
"""(time, objective, bound)."""


@dataclass(frozen=True)
class Run:
    """A finished run; times are seconds, memory is in MB, what did not happen is None."""

    instance: str
    n_classes: int
    n_features: int
    n_select: int
    penalised_share: float
    solver: str
    version: str
    seed: int
    time_limit: float
    termination: str
    first: float | None = None
    to_1_percent: float | None = None
    to_0_1_percent: float | None = None
    to_proof: float | None = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    runtime: float | None = None
    peak_memory: float | None = None
    machine: str = ""
    trace: Trace = field(default_factory=list)

    def gap_at(self, seconds: float) -> float | None:
        """The gap that was reached by then."""
        gaps = [gap for moment, gap in self.gaps() if moment <= seconds]
        return gaps[-1] if gaps else None

    def gaps(self) -> list[tuple[float, float]]:
        """(time, gap) from the first gap on."""
        return _gaps(self.trace)

    def save(self, folder: Path) -> None:
        """Write the run, its trace included, to a JSON file of its own."""
        write_text(_file_of(folder, self.instance, self.solver, self.seed), json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read a run."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**stored, "trace": [tuple(point) for point in stored["trace"]]})


def _file_of(folder: Path, instance: str, solver: str, seed: int) -> Path:
    return folder / f"{Path(instance).name}--{solver}--{seed}.json".replace(":", "_").replace("%", "pc")


def unavailable(solver: str) -> str | None:
    """Why a solver cannot be run here, None where it can."""
    if solver == "greedy":
        return None
    try:
        backend_version(solver)
    except QPMError as error:
        return str(error)
    return None


def measure_into(
    folder: Path,
    instance: str,
    solver: str,
    seed: int,
    time_limit: float,
    threads: int | None = None,
    *,
    resume: bool = False,
) -> Run:
    """Measure and save, or, to resume, load what has been saved of the same solver, version, limit and kind of machine.

    That the code has not changed since under the same version is for the caller to know.
    """
    path = _file_of(folder, instance, solver, seed)
    if resume and path.exists():
        run = Run.load(path)
        asked = (instance, time_limit, _version(solver), _machine())
        same = (run.instance, run.time_limit, run.version, run.machine) == asked
        if same and run.termination != FAILED:
            return run
    run = measure(instance, solver, seed, time_limit, threads)
    run.save(folder)
    return run


def measure(instance: str, solver: str, seed: int, time_limit: float, threads: int | None = None) -> Run:
    """Run a solver in a fresh process, which is ended when it does not keep its time."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sending, instance, solver, seed, time_limit, threads))
    process.start()
    sending.close()
    header: dict[str, Any] = {}
    trace: Trace = []
    outcome: dict[str, Any] | None = None
    try:
        header = receiving.recv()  # The instance is made before the clock starts, which takes as long as it takes.
        end = time.monotonic() + time_limit + _GRACE
        while outcome is None and receiving.poll(max(0.0, end - time.monotonic())):
            message = receiving.recv()
            if isinstance(message, dict):
                outcome = message
            elif message[0] <= time_limit:
                trace.append(message)
        if outcome is None:
            outcome = {"termination": "ended from outside", **_reached(trace)}
        else:
            process.join(_FAREWELL)
    except EOFError:
        outcome = {"termination": FAILED, **_reached(trace)}
    process.terminate()
    process.join()
    unknown = {"n_classes": 0, "n_features": 0, "n_select": 0, "penalised_share": 0.0, "version": ""}
    return Run(
        **{
            "instance": instance,
            "solver": solver,
            "seed": seed,
            "time_limit": time_limit,
            "machine": _machine(),
            **(header or unknown),
            **outcome,
        }
    )


def _work(sending: Connection, instance: str, solver: str, seed: int, time_limit: float, threads: int | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    problem = load_instance(instance)
    sending.send(
        {
            "n_classes": problem.n_classes,
            "n_features": problem.n_features,
            "n_select": problem.n_select,
            "penalised_share": problem.penalised_share,
            "version": _version(solver),
        }
    )
    if solver == "greedy":
        sending.send(_greedy(problem))
        return
    try:
        result = solve_assignment(
            problem,
            solver=solver,
            seed=seed,
            threads=threads,
            time_limit=time_limit,
            progress=lambda now: sending.send((now.time, now.objective, now.bound)),
        )
    except (QPMError, MemoryError) as error:
        sending.send({"termination": f"{type(error).__name__}: {error}"[:200]})
        return
    sending.send(_summary(result))


def _version(solver: str) -> str:
    return backend_version("local_search" if solver == "greedy" else solver)


def _end_with_parent() -> None:
    """A run that nobody waits for any more would go on to its time limit, beside whatever is measured next."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _summary(result: Assignment) -> dict[str, Any]:
    trace = [(point.time, point.objective, point.bound) for point in result.trace]
    return {
        **_reached(trace),
        "termination": result.termination.value,
        "objective": None if result.solution is None else result.objective,
        "bound": result.bound,
        "gap": result.gap,
        "runtime": result.runtime,
        "peak_memory": _peak_memory(),
    }


def _reached(trace: Trace) -> dict[str, Any]:
    """When a run came how far, by what it told on its way."""
    gaps = _gaps(trace)

    def reached(gap: float) -> float | None:
        return next((moment for moment, value in gaps if value <= gap * (1.0 + _MARGIN)), None)

    return {
        "first": next((moment for moment, objective, _ in trace if objective is not None), None),
        "to_1_percent": reached(1e-2),
        "to_0_1_percent": reached(1e-3),
        "to_proof": reached(1e-4),
        "objective": trace[-1][1] if trace else None,
        "bound": trace[-1][2] if trace else None,
        "gap": gaps[-1][1] if gaps else None,
        "trace": trace,
    }


def _gaps(trace: Trace) -> list[tuple[float, float]]:
    gaps = [(moment, relative_gap(objective, bound)) for moment, objective, bound in trace]
    return [(moment, gap) for moment, gap in gaps if gap is not None]


def _greedy(problem: AssignmentProblem) -> dict[str, Any]:
    """The set that greedy choice builds, with the best assignment in it."""
    begin = time.perf_counter()
    space = SearchSpace.of(problem)
    objective, weights = space.exact(greedy_set(space))
    seconds = time.perf_counter() - begin
    if weights is None:
        return {"termination": "no solution", "runtime": seconds, "peak_memory": _peak_memory()}
    return {
        "termination": "search finished",
        "first": seconds,
        "objective": objective,
        "runtime": seconds,
        "peak_memory": _peak_memory(),
        "trace": [(seconds, objective, None)],
    }


def _peak_memory() -> float:
    """MB of this process at its peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


@lru_cache(maxsize=1)
def _machine() -> str:
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = f"{len(names)} x {names[0]}" if names else ""
    return model or f"{platform.machine()} {platform.system()}"
