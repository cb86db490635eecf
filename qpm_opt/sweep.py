"""A grid over the sizes of the problem, to choose n_select and n_per_class by.

Every point of the grid is solved in a process of its own, starting from the nearest point that is finished, and stored
at once, so a sweep that is stopped goes on where it was. With a Dask scheduler the processes are those of its cluster.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qpm_opt import _storage
from qpm_opt._validation import items, positive_number, whole_number
from qpm_opt.api import solve_assignment
from qpm_opt.errors import BackendUnavailableError, InfeasibleProblemError, InvalidInputError, QPMError
from qpm_opt.problem import AssignmentProblem
from qpm_opt.redundancy import penalties_from_similarity, share_threshold
from qpm_opt.search_space import SearchSpace
from qpm_opt.solution import Assignment
from qpm_opt.swap_search import climb

__all__ = ["SweepPoint", "sweep"]

logger = logging.getLogger(__name__)

_AS_GIVEN = "given"
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class SweepPoint:
    """One point of the grid; what could not be had is None.

    Attributes:
        n_select: Features kept.
        n_per_class: Features of a class.
        penalised: Which pairs are penalised: "given", "threshold", "turan", or a share such as "5%".
        penalised_share: Share of all pairs that it comes to.
        objective: Z_A + Z_R + Z_B.
        bound: Proven bound.
        gap: Relative gap.
        similarity: Z_A.
        lost_to_redundancy: What Z_A could be more if redundant features could be kept for nothing.
        lost_to_uniqueness: What Z_A could be more, with the same features kept, if classes could be alike.
        redundancy: Z_R.
        bias: Z_B.
        seconds: Runtime.
        status: Of the result, or why there is none.
    """

    n_select: int
    n_per_class: int
    penalised: str
    penalised_share: float | None = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    similarity: float | None = None
    lost_to_redundancy: float | None = None
    lost_to_uniqueness: float | None = None
    redundancy: float | None = None
    bias: float | None = None
    seconds: float | None = None
    status: str = "open"

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"select{self.n_select}-class{self.n_per_class}-{self.penalised.replace('%', 'pc')}"


def sweep(
    problem: AssignmentProblem,
    folder: str | os.PathLike[str],
    *,
    n_select: Sequence[int],
    n_per_class: Sequence[int],
    penalised: Sequence[str] = (_AS_GIVEN,),
    similarity: Any = None,
    solver: str = "auto",
    time_limit: float = 60.0,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[int, int, SweepPoint], Any] | None = None,
) -> pd.DataFrame:
    """Solve a problem for every combination of sizes.

    Args:
        problem: The problem, whose own sizes do not matter.
        folder: Where points are stored: `points/*.npz` (assignments), `sweep.csv` (the table) and `sweep.json`. Points
            that it holds already are not solved again.
        n_select: Numbers of kept features.
        n_per_class: Numbers of features of a class.
        penalised: Which pairs are penalised: "given" as in `problem`, and, with `similarity`, "threshold", "turan", or
            shares such as "5%".
        similarity: R, (n_features, n_features), from which penalties are made.
        solver: See `solve_assignment`.
        time_limit: Seconds for each point.
        seed: Seed of each point.
        workers: Points solved at a time on this machine; by default one for every two processors.
        scheduler: Address of a Dask scheduler, whose cluster is used instead of this machine.
        progress: Called with the number of finished points, of all points, and the point just finished.

    Returns:
        One row for each point with the fields of `SweepPoint`, in the order of the grid.

    Raises:
        InvalidInputError: An argument is wrong, or the folder holds the sweep of another problem.
        BackendUnavailableError: A scheduler is given, but Dask is not installed or not reached.
    """
    grid = _grid(n_select, n_per_class, penalised, has_similarity=similarity is not None)
    positive_number("time_limit", time_limit)
    out = Path(folder)
    settings = {"solver": solver, "time_limit": float(time_limit), "seed": whole_number("seed", seed, least=0)}
    mark = {"problem": _fingerprint(problem, similarity), **settings}
    finished = _opened(out, mark)
    with _executor(workers, scheduler) as executor:
        waiting = [point for point in grid if point.name not in finished]
        running: dict[Future[tuple[SweepPoint, Assignment | None]], SweepPoint] = {}
        width = _width(workers) if scheduler is None else max(1, len(waiting))
        try:
            while waiting or running:
                while waiting and len(running) < width:
                    point = waiting.pop(0)
                    start = _nearest_start(out, finished, point)
                    task = executor.submit(_solve_point, problem, similarity, point, settings, start)
                    running[task] = point
                for task in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[task]
                    point, assignment = task.result()
                    if assignment is not None:
                        assignment.save(out / "points" / f"{point.name}.npz")
                    finished[point.name] = point
                    table = _write(out, mark, grid, finished)
                    if progress is not None:
                        progress(len(table), len(grid), point)
        except BaseException:
            for task in running:
                task.cancel()
            raise
    return _write(out, mark, grid, finished)


def _grid(
    n_select: Sequence[int], n_per_class: Sequence[int], penalised: Sequence[str], *, has_similarity: bool
) -> list[SweepPoint]:
    sizes = [
        [whole_number(name, value, least=1) for value in items(name, values, "whole numbers")]
        for name, values in (("n_select", n_select), ("n_per_class", n_per_class))
    ]
    kinds = [str(kind) for kind in items("penalised", penalised, "'given', 'threshold', 'turan' or shares like '5%'")]
    for name, values in (("n_select", sizes[0]), ("n_per_class", sizes[1]), ("penalised", kinds)):
        if not values or len(set(values)) < len(values):
            raise InvalidInputError(f"The '{name}' parameter must hold different values, at least one. Got {values}.")
    for kind in kinds:
        if kind not in (_AS_GIVEN, "threshold", "turan"):
            _share(kind)
        if kind != _AS_GIVEN and not has_similarity:
            raise InvalidInputError(
                f"The 'penalised' value {kind!r} needs the 'similarity' parameter, from which penalties are made."
            )
    return [SweepPoint(select, own, kind) for kind in kinds for select, own in product(*sizes)]


def _share(kind: str) -> float:
    try:
        share = float(kind.removesuffix("%")) / 100.0
    except ValueError:
        share = -1.0
    if not kind.endswith("%") or not 0.0 < share < 1.0:
        raise InvalidInputError(
            f"The 'penalised' parameter must hold 'given', 'threshold', 'turan' or shares like '5%'. Got {kind!r}."
        )
    return share


def _opened(out: Path, mark: dict[str, Any]) -> dict[str, SweepPoint]:
    """The points that the folder holds already, also those of another grid; refuses the folder of another sweep."""
    stored = out / "sweep.json"
    try:
        (out / "points").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"The 'folder' parameter must be a folder to write to. Got {str(out)!r}.") from error
    if not stored.exists():
        return {}
    try:
        content = json.loads(stored.read_text(encoding="utf-8"))
        known = [SweepPoint(**point) for point in content["points"]]
        different = [name for name, value in mark.items() if content["settings"].get(name) != value]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInputError(f"The file {str(stored)!r} is damaged; delete the folder to begin anew.") from error
    if different:
        raise InvalidInputError(
            f"The 'folder' parameter must be a new folder or hold the same sweep. Got {str(out)!r}, whose "
            f"{different[0]} is another one."
        )
    return {point.name: point for point in known}


def _fingerprint(problem: AssignmentProblem, similarity: Any) -> str:
    digest = hashlib.sha256()
    arrays = [problem.class_similarity, problem.redundancy.data, problem.redundancy.indices, problem.feature_bias]
    arrays += [problem.required_features, problem.excluded_features]
    arrays += [problem.required_pairs, problem.forbidden_pairs, problem.contrastive_pairs]
    if similarity is not None:
        arrays.append(np.asarray(similarity, dtype=np.float64))
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _width(workers: int | None) -> int:
    if workers is None:
        return max(1, (os.cpu_count() or 1) // 2)
    return whole_number("workers", workers, least=1)


@contextmanager
def _executor(workers: int | None, scheduler: str | None) -> Iterator[Executor]:
    if scheduler is None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads of solvers half-alive
        with ProcessPoolExecutor(_width(workers), mp_context=context) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise BackendUnavailableError('A Dask scheduler needs distributed: pip install "qpm[dask]".') from error
    try:
        client = Client(scheduler, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise BackendUnavailableError(f"There is no Dask scheduler at {scheduler!r}: {error}.") from error
    with client:
        yield client.get_executor(pure=False)  # type: ignore[no-untyped-call]


def _nearest_start(out: Path, finished: dict[str, SweepPoint], point: SweepPoint) -> Assignment | None:
    """The result of the solved point that differs least, kept features first."""
    solved = [other for other in finished.values() if other.objective is not None]
    if not solved:
        return None
    nearest = min(
        solved,
        key=lambda other: (
            abs(np.log(other.n_select / point.n_select)),
            other.penalised != point.penalised,
            abs(other.n_per_class - point.n_per_class),
        ),
    )
    try:
        return Assignment.load(out / "points" / f"{nearest.name}.npz")
    except QPMError:  # a start is a help, not a need
        return None


def _solve_point(
    base: AssignmentProblem,
    similarity: Any,
    point: SweepPoint,
    settings: dict[str, Any],
    start: Assignment | None,
) -> tuple[SweepPoint, Assignment | None]:
    """Solve one point; runs in another process."""
    try:
        problem = _problem_at(base, similarity, point)
        result = solve_assignment(problem, start=start, **settings)
    except InfeasibleProblemError as error:
        return replace(point, status=f"infeasible: {error}"), None
    except QPMError as error:
        return replace(point, status=f"failed: {error}"), None
    share = problem.penalised_share
    if result.solution is None:
        return replace(point, penalised_share=share, seconds=result.runtime, status=result.termination.value), None
    space = SearchSpace.of(problem)
    chosen = space.to_local(result.selected)
    own = space.relaxed_value(chosen) - space.set_value(chosen)
    # What could be had if redundancy cost nothing: the same search without penalties, from here.
    careless = replace(space, penalties=np.zeros_like(space.penalties), bias=np.zeros_like(space.bias))
    most = careless.relaxed_value(climb(careless, chosen, lambda: True))
    terms = result.terms
    return (
        replace(
            point,
            penalised_share=share,
            objective=result.objective,
            bound=result.bound,
            gap=result.gap,
            similarity=terms.similarity,
            lost_to_redundancy=most - own,
            lost_to_uniqueness=own - terms.similarity,
            redundancy=terms.redundancy,
            bias=terms.bias,
            seconds=result.runtime,
            status=result.status.value,
        ),
        result,
    )


def _problem_at(base: AssignmentProblem, similarity: Any, point: SweepPoint) -> AssignmentProblem:
    if point.penalised == _AS_GIVEN:
        return base.replaced(n_select=point.n_select, n_per_class=point.n_per_class)
    threshold: Any = {"threshold": None, "turan": "turan"}.get(point.penalised)
    if point.penalised not in ("threshold", "turan"):
        threshold = share_threshold(similarity, _share(point.penalised))
    penalties = penalties_from_similarity(similarity, n_select=point.n_select, threshold=threshold)
    return base.replaced(redundancy=penalties, n_select=point.n_select, n_per_class=point.n_per_class)


def _write(out: Path, mark: dict[str, Any], grid: list[SweepPoint], finished: dict[str, SweepPoint]) -> pd.DataFrame:
    """Store what is finished; the table holds what the grid asks for."""
    points = [asdict(point) for point in finished.values()]
    _storage.write_text(out / "sweep.json", json.dumps({"settings": mark, "points": points}))
    known = [asdict(finished[point.name]) for point in grid if point.name in finished]
    table = pd.DataFrame(known, columns=list(SweepPoint.__dataclass_fields__))
    _storage.write_text(out / "sweep.csv", table.to_csv(index=False))
    return table
