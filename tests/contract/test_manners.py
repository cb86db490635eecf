"""What every back end promises beside the optimum: limits, interruption, repeatability, starts, progress, options."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qpm_opt.backends
from qpm_opt import (
    AssignmentProblem,
    InvalidInputError,
    NoSolutionError,
    Progress,
    SolutionStatus,
    Termination,
    UnsupportedError,
    solve_assignment,
    verify,
)
from qpm_opt.backends import BACKENDS, load_backend

from .conftest import NAMES
from .oracle import optimum, random_problem


def hard_problem(n_classes: int = 40, n_features: int = 120, seed: int = 3) -> AssignmentProblem:
    """Too hard to be proven optimal in seconds by the plain model."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n_classes, 8)) @ rng.normal(size=(8, n_features)) + 0.3 * rng.normal(
        size=(n_classes, n_features)
    )
    r = np.triu(np.where(rng.random((n_features, n_features)) < 0.3, rng.random((n_features, n_features)), 0.0), 1)
    return AssignmentProblem(A / np.abs(A).max(), 20.0 * (r + r.T), n_select=15, n_per_class=4)


def _interrupting(after: int) -> Callable[[Progress], None]:
    calls = 0

    def progress(_state: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls >= after:
            raise KeyboardInterrupt

    return progress


# -- the registry --------------------------------------------------------------------------------------------------


def test_every_back_end_module_is_registered_and_under_contract() -> None:
    folder = Path(qpm_opt.backends.__file__).parent
    found = {
        path.parent.name if path.stem == "__init__" else path.stem
        for path in [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
        if "def solve(problem: AssignmentProblem" in path.read_text() or "CAPABILITIES = Capab" in path.read_text()
    }
    found -= {"base"}
    assert found == {spec.module.rpartition(".")[2] for spec in BACKENDS.values()}
    assert set(BACKENDS) <= set(NAMES)


def test_capabilities_are_documented(solver: str) -> None:
    can = load_backend(solver).CAPABILITIES
    assert load_backend(solver).version()
    for name, option in can.options.items():
        assert name.isidentifier()
        assert option.meaning


# -- limits --------------------------------------------------------------------------------------------------------


def test_time_limit_with_an_incumbent(solver: str) -> None:
    problem = hard_problem()
    start = None
    if load_backend(solver).CAPABILITIES.warm_start:
        start = solve_assignment(problem, solver="local_search", restarts=1, patience=1)
    began = time.perf_counter()
    options: dict[str, Any] = {"restarts": 10_000} if solver == "local_search" else {}
    result = solve_assignment(problem, solver=solver, time_limit=2.0, mip_gap=0.0, start=start, **options)
    took = time.perf_counter() - began
    assert took < 4.0  # solvers look at the clock now and then, on a machine that is shared
    if result.termination is Termination.OPTIMAL:
        pytest.skip(f"{solver} is too fast for this test: {took:.1f} s")
    assert result.termination is Termination.TIME_LIMIT
    if start is not None:
        assert result.status is SolutionStatus.FEASIBLE
        assert verify(problem, result).ok
        assert result.objective >= start.objective


def test_time_limit_without_an_incumbent(solver: str) -> None:
    """A limit so short that nothing is found: no values are made up."""
    problem = hard_problem(100, 400)
    result = solve_assignment(problem, solver=solver, time_limit=1e-3)
    assert result.termination is Termination.TIME_LIMIT
    assert result.runtime < 3.0
    if result.solution is not None:  # a greedy set may come for free
        assert verify(problem, result).ok
        return
    assert result.status is SolutionStatus.NONE
    assert result.gap is None
    for name in ("selected", "weights", "objective", "terms"):
        with pytest.raises(NoSolutionError, match="time limit"):
            getattr(result, name)
    assert "none" in repr(result)


def test_no_time_limit(solver: str) -> None:
    small = random_problem(0)
    result = solve_assignment(AssignmentProblem(**small.arguments()), solver=solver, time_limit=None)
    assert result.objective == pytest.approx(optimum(small))


def test_gap_is_honoured(solver: str) -> None:
    can = load_backend(solver).CAPABILITIES
    if not can.gap:
        pytest.skip(f"{solver} declares that it has no gap")
    problem = hard_problem(25, 90)
    start = solve_assignment(problem, solver="local_search") if can.warm_start else None
    # Within 60 % after a few seconds, within 0.01 % after minutes.
    result = solve_assignment(problem, solver=solver, mip_gap=0.6, time_limit=60.0, start=start)
    assert (result.status, result.termination) == (SolutionStatus.OPTIMAL, Termination.OPTIMAL)
    assert result.gap is not None
    assert 1e-4 < result.gap <= 0.6


# -- interruption --------------------------------------------------------------------------------------------------


def test_an_interruption_from_progress_keeps_the_best(solver: str) -> None:
    can = load_backend(solver).CAPABILITIES
    if not can.progress:
        pytest.skip(f"{solver} declares that it reports between rounds only")
    problem = hard_problem()
    start = solve_assignment(problem, solver="local_search", restarts=1, patience=1)
    began = time.perf_counter()
    result = solve_assignment(problem, solver=solver, time_limit=100.0, start=start, progress=_interrupting(3))
    assert result.termination is Termination.INTERRUPTED
    assert time.perf_counter() - began < 20.0
    assert verify(problem, result).ok
    assert result.objective >= start.objective


_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from tests.contract.test_manners import hard_problem
from qpm_opt import solve_assignment
problem = hard_problem()
start = solve_assignment(problem, solver="local_search", restarts=1, patience=1)
print("ready", flush=True)
result = solve_assignment(problem, solver=sys.argv[1], time_limit=100.0, mip_gap=0.0, start=start, **eval(sys.argv[2]))
print(result.termination.value, result.objective >= start.objective, flush=True)
"""


def test_ctrl_c_keeps_the_best(solver: str) -> None:
    can = load_backend(solver).CAPABILITIES
    if not (can.interrupt and can.warm_start):
        pytest.skip(f"{solver} declares that it notices Ctrl-C between rounds only")
    options = {"restarts": 100_000} if solver == "local_search" else {}
    with subprocess.Popen(
        [sys.executable, "-c", _CTRL_C, solver, repr(options)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(2.0)
        process.send_signal(signal.SIGINT)
        began = time.perf_counter()
        out, _ = process.communicate(timeout=60)
    assert out == "interrupted True\n"
    assert time.perf_counter() - began < 15.0
    assert process.returncode == 0


# -- repeatability -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_result(solver: str) -> None:
    can = load_backend(solver).CAPABILITIES
    if not can.deterministic:
        pytest.skip(f"{solver} does not promise it")
    problem = hard_problem(8, 20)
    settings: dict[str, Any] = {"threads": 1} if can.threads else {}
    if can.proves_optimality:
        settings["mip_gap"] = 0.02
    first, second = (solve_assignment(problem, solver=solver, seed=7, time_limit=None, **settings) for _ in range(2))
    assert first.selected.tolist() == second.selected.tolist()
    assert first.weights.tolist() == second.weights.tolist()
    assert (first.objective, first.bound) == (second.objective, second.bound)


def test_two_threads_do_as_well_as_one(solver: str) -> None:
    """And the number may change within one process, which HiGHS by itself refuses."""
    small = random_problem(5)
    problem, best = AssignmentProblem(**small.arguments()), optimum(small)
    if not load_backend(solver).CAPABILITIES.threads:
        with pytest.raises(UnsupportedError, match=r"'threads'.*use one of .*cpsat"):
            solve_assignment(problem, solver=solver, threads=2)
        return
    for threads in (1, 2, 1):
        assert solve_assignment(problem, solver=solver, threads=threads).objective == pytest.approx(best)


# -- starts --------------------------------------------------------------------------------------------------------


def test_a_start_is_kept_or_refused(solver: str) -> None:
    problem = hard_problem(100, 400)
    good = solve_assignment(problem, solver="local_search", restarts=1)
    if not load_backend(solver).CAPABILITIES.warm_start:
        with pytest.raises(UnsupportedError, match=r"'start'"):
            solve_assignment(problem, solver=solver, start=good)
        return
    result = solve_assignment(problem, solver=solver, start=good, time_limit=1e-3)
    assert result.objective >= good.objective
    assert result.trace[0].objective == pytest.approx(good.objective)


def test_highs_and_cp_sat_take_the_start_as_their_first_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from inside the solver: the first thing it reports is as good as the start, which it cannot find so fast."""
    from qpm_opt.backends.search_log import SearchLog

    problem = hard_problem()
    start = solve_assignment(problem, solver="local_search")
    for solver, message in (("pyomo", "HiGHS"), ("cpsat", "CP-SAT")):
        offered: list[float] = []
        offer = SearchLog.offer

        def watching(
            log: SearchLog,
            selected: Any,
            weights: Any,
            text: str = "",
            *,
            offer: Any = offer,
            message: str = message,
            offered: list[float] = offered,
        ) -> bool:
            if text == message:
                offered.append(log.problem.terms(np.sort(selected), weights[:, np.argsort(selected)]).total)
            return bool(offer(log, selected, weights, text))

        with monkeypatch.context() as patch:
            patch.setattr(SearchLog, "offer", watching)
            solve_assignment(problem, solver=solver, start=start, time_limit=4.0, threads=2)
        assert offered, f"{solver} reported no solution"
        assert offered[0] == pytest.approx(start.objective, rel=1e-6), solver


def test_a_start_with_features_that_are_gone_is_repaired(solver: str) -> None:
    if not load_backend(solver).CAPABILITIES.warm_start:
        pytest.skip(f"{solver} takes no start")
    problem = hard_problem(12, 30)
    good = solve_assignment(problem, solver="local_search")
    banned = good.selected[:2].tolist()
    steered = AssignmentProblem(
        problem.class_similarity, problem.redundancy, n_select=15, n_per_class=4, excluded_features=banned
    )
    result = solve_assignment(steered, solver=solver, start=good, time_limit=10.0)
    assert verify(steered, result).ok
    assert not set(banned) & set(result.selected.tolist())


# -- progress and options ------------------------------------------------------------------------------------------


def test_progress_and_trace_only_improve(solver: str) -> None:
    problem = hard_problem(15, 50)
    states: list[Progress] = []
    result = solve_assignment(problem, solver=solver, time_limit=2.0, progress=states.append)
    assert states
    for points in ([*states], [*result.trace]):
        times = [point.time for point in points]
        objectives = [point.objective for point in points if point.objective is not None]
        bounds = [point.bound for point in points if point.bound is not None]
        assert times == sorted(times)
        assert objectives == sorted(objectives)
        assert bounds == sorted(bounds, reverse=True)
    assert result.trace[-1].objective == result.objective
    assert result.trace[-1].bound == result.bound
    assert result.runtime >= result.trace[-1].time


def test_unknown_options_are_refused_by_name(solver: str) -> None:
    small = random_problem(0).arguments()
    problem = AssignmentProblem(**small)
    with pytest.raises(InvalidInputError, match=r"no option 'time_limt'\. Did you mean 'time_limit'"):
        solve_assignment(problem, solver=solver, time_limt=3)
    if "native_options" in load_backend(solver).CAPABILITIES.options:
        with pytest.raises(InvalidInputError, match="must be a mapping"):
            solve_assignment(problem, solver=solver, native_options=3)


@pytest.mark.parametrize(
    ("solver_name", "wrong", "message"),
    [
        ("pyomo", {"mip_rel_gp": 0.1}, "HiGHS has no option 'mip_rel_gp'"),
        ("pyomo", {"mip_rel_gap": "x"}, "HiGHS does not take 'x' for its option 'mip_rel_gap'"),
        ("pyomo", {"objective_bound": 5.0}, "'objective_bound' of HiGHS would make its bound a false one"),
        ("cpsat", {"num_workers": -5}, "CP-SAT does not take the 'native_options'"),
        ("cpsat", {"num_worker": 2}, "CP-SAT has no parameter 'num_worker'.*'num_workers'"),
        ("cpsat", {"num_workers": "x"}, "CP-SAT does not take 'x' for its parameter 'num_workers'"),
    ],
)
def test_native_options_are_checked(solver_name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        solve_assignment(AssignmentProblem(**random_problem(0).arguments()), solver=solver_name, native_options=wrong)


@pytest.mark.parametrize(
    ("solver_name", "native"), [("pyomo", {"mip_heuristic_effort": 0.2}), ("cpsat", {"linearization_level": 2})]
)
def test_native_options_are_passed_on(solver_name: str, native: dict[str, Any]) -> None:
    small = random_problem(5)
    result = solve_assignment(AssignmentProblem(**small.arguments()), solver=solver_name, native_options=native)
    assert result.objective == pytest.approx(optimum(small))


@pytest.mark.parametrize(
    ("solver_name", "limits"), [("pyomo", {"mip_max_nodes": 0}), ("cpsat", {"stop_after_first_solution": True})]
)
def test_a_limit_of_the_solver_itself_keeps_the_incumbent(solver_name: str, limits: dict[str, Any]) -> None:
    result = solve_assignment(hard_problem(25, 90), solver=solver_name, native_options=limits, time_limit=60.0)
    assert result.termination is Termination.SOLVER_LIMIT
    assert result.status is SolutionStatus.FEASIBLE


@pytest.mark.parametrize("solver_name", sorted(BACKENDS))
def test_searches_in_several_threads_do_not_disturb_each_other(solver_name: str) -> None:
    small = [found for found in map(random_problem, range(12)) if optimum(found) is not None][:4]
    problems = [AssignmentProblem(**found.arguments()) for found in small]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns at nearly every line
    try:
        with ThreadPoolExecutor(4) as pool:
            found = [*pool.map(partial(solve_assignment, solver=solver_name, time_limit=60.0), problems * 2)]
    finally:
        sys.setswitchinterval(interval)
    for problem, result in zip(problems * 2, found, strict=True):
        assert verify(problem, result).ok
    if load_backend(solver_name).CAPABILITIES.proves_optimality:
        assert [result.objective for result in found] == pytest.approx([optimum(problem) for problem in small] * 2)


def test_no_stray_output(solver: str, capfd: pytest.CaptureFixture[str]) -> None:
    solve_assignment(AssignmentProblem(**random_problem(5).arguments()), solver=solver)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_nothing_is_left_in_the_working_folder(solver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    solve_assignment(AssignmentProblem(**random_problem(5).arguments()), solver=solver)
    assert list(tmp_path.iterdir()) == []
