"""`solve_assignment` itself: choice of the back end, refusals, and that what comes back is checked."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import numpy as np
import pytest

from qpm_opt import (
    AssignmentProblem,
    BackendUnavailableError,
    InvalidInputError,
    SolverError,
    backend_names,
    solve_assignment,
)
from qpm_opt.api import pick_solver
from qpm_opt.backends import BACKENDS, BackendSpec, local_search
from qpm_opt.solution import Termination

A = np.random.default_rng(0).random((5, 9))
SIZES: dict[str, Any] = {"n_select": 4, "n_per_class": 2}


def test_auto_picks_by_size_and_says_what(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="qpm_opt"):
        assert solve_assignment(A, **SIZES).solver == "pyomo"
    assert "solver='auto' picked 'pyomo' for 5 × 9" in caplog.text
    large = AssignmentProblem(np.random.default_rng(0).random((200, 600)))
    assert pick_solver(large) == "decomposition"


def test_a_problem_and_arrays_give_the_same() -> None:
    problem = AssignmentProblem(A, **SIZES, excluded_features=[3])
    first = solve_assignment(problem)
    second = solve_assignment(A, **SIZES, excluded_features=[3])
    assert first.to_dict()["weights"] == second.to_dict()["weights"]


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"redundancy": np.zeros((9, 9))}, "redundancy"),
        ({"feature_bias": np.zeros(9)}, "feature_bias"),
        ({"n_select": 3}, "n_select"),
        ({"n_per_class": 3}, "n_per_class"),
        ({"excluded_features": [1]}, "excluded_features"),
    ],
)
def test_nothing_about_the_problem_beside_a_problem(extra: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{name}' parameter must not be given beside an AssignmentProblem"):
        solve_assignment(AssignmentProblem(A, **SIZES), **extra)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "gurobi"}, r"'solver' parameter must name a back end\. Got 'gurobi'\. Did you mean 'pyomo:gurobi'"),
        ({"solver": "cp_sat"}, r"'cp_sat'\. Did you mean 'cpsat'"),
        ({"solver": "cpsat:x"}, r"Got 'cpsat:x'"),
        ({"solver": "pyomo:"}, r"Got 'pyomo:'"),
        ({"time_limit": 0}, r"'time_limit'.*above 0"),
        ({"time_limit": "long"}, r"'time_limit'.*number.*'long'"),
        ({"time_limit": float("nan")}, r"'time_limit'.*finite"),
        ({"time_limit": 10**400}, r"'time_limit'.*number"),
        ({"mip_gap": -1}, r"'mip_gap'.*0 or more"),
        ({"seed": -1}, r"'seed'.*at least 0"),
        ({"seed": 0.5}, r"'seed'.*whole number"),
        ({"threads": 0}, r"'threads'.*at least 1"),
        ({"threads": 1_000_000}, r"'threads'.*at most 1024"),
        ({"progress": 5}, r"'progress'.*function"),
        ({"start": 5}, r"'start'.*list of features"),
        ({"solver": "pyomo", "native_options": {5: 1}}, r"'native_options'.*mapping of names"),
        ({"solver": "pyomo", "native_options": {"threads": [1]}}, r"HiGHS does not take \[1\]"),
        ({"solver": "cpsat", "native_options": {"subsolvers": 5}}, r"CP-SAT does not take 5"),
        ({"upper_bound": "x"}, r"'upper_bound'.*a number"),
        ({"upper_bound": float("nan")}, r"'upper_bound'.*finite"),
        ({"start": [9]}, r"'start'.*between 0 and 8\. Got 9"),
        ({"solver": "local_search", "restarts": 0}, r"'restarts'.*at least 1"),
        ({"solver": "local_search", "restarts": "x"}, r"'restarts'.*whole number"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        solve_assignment(A, **SIZES, **settings)


def test_a_start_of_another_size_is_refused() -> None:
    other = solve_assignment(A[:, :6], **SIZES)
    with pytest.raises(InvalidInputError, match=r"'start'.*same 9 features. Got one of 6"):
        solve_assignment(A, **SIZES, start=other)


def test_a_known_bound_ends_the_search_where_it_is_met_and_is_refused_where_it_is_wrong() -> None:
    problem = AssignmentProblem(np.random.default_rng(1).random((30, 60)), n_select=12, n_per_class=3)
    best = solve_assignment(problem, solver="decomposition")
    assert best.termination is Termination.OPTIMAL
    locked = problem.replaced(required_features=best.selected[:2])
    known = solve_assignment(locked, solver="local_search", start=best, upper_bound=best.bound)
    assert known.termination is Termination.OPTIMAL  # which this back end cannot prove by itself
    assert known.bound == best.bound
    loose = solve_assignment(locked, solver="decomposition", upper_bound=2 * best.objective)
    assert loose.objective == pytest.approx(best.objective)
    assert loose.bound is not None
    assert loose.bound < 1.001 * best.objective
    with pytest.raises(InvalidInputError, match=r"'upper_bound' parameter must be no less .* there is one of"):
        solve_assignment(locked, start=best, upper_bound=0.9 * best.objective)


def test_an_uninstalled_solver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "cloud", BackendSpec("nowhere", {"no_such_package": "no-such-package"}, ""))
    with pytest.raises(BackendUnavailableError, match="pip install no-such-package") as caught:
        solve_assignment(A, **SIZES, solver="cloud")
    assert isinstance(caught.value, ImportError)
    assert "cloud" in backend_names()


def test_a_back_end_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def bounding_too_low(problem: Any, request: Any, log: Any) -> Termination:
        from qpm_opt.selection import best_weights

        selected = np.arange(problem.n_select)
        log.offer(selected, best_weights(problem, selected))
        log.tighten(-1e9)
        return Termination.SEARCH_FINISHED

    monkeypatch.setattr(local_search, "solve", bounding_too_low)
    with pytest.raises(SolverError, match=r"returned an invalid result.*\n.*\n.*lies below the objective"):
        solve_assignment(A, **SIZES, solver="local_search")


def test_libraries_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    solve_assignment(A, **SIZES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "given", [{"n_select": 50}, {"n_per_class": 5}, {"n_select": np.int64(50)}, {"n_per_class": [5]}]
)
def test_sizes_beside_a_problem_are_refused_even_if_they_are_the_defaults(given: dict[str, Any]) -> None:
    problem = AssignmentProblem(np.eye(6), n_select=6, n_per_class=1)
    with pytest.raises(InvalidInputError, match=rf"'{next(iter(given))}' parameter must not be given beside"):
        solve_assignment(problem, **given)


def test_the_signature_says_what_the_defaults_are() -> None:
    parameters = inspect.signature(solve_assignment).parameters
    assert (parameters["n_select"].default, parameters["n_per_class"].default) == (50, 5)
    assert "n_select: 'int' = 50, n_per_class: 'Any' = 5" in str(inspect.signature(solve_assignment))
