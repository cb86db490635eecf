"""Every back end against the true optimum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qpm_opt import (
    Assignment,
    AssignmentProblem,
    InfeasibleProblemError,
    SolutionStatus,
    Termination,
    solve_assignment,
    verify,
)
from qpm_opt.backends import load_backend

from .oracle import SmallProblem, optimum, random_problem

REFERENCE = Path(__file__).parents[1] / "data"
N_RANDOM = 200
"""Random problems, of which 135 have a solution; the rest is refused at construction, which is checked too."""

N_STARTED = 40
"""The same for solvers that are started as programs, which takes ten times as long; all of them with -m slow."""


def _room(value: float) -> float:
    return 1e-6 * (1.0 + abs(value))


def _check(problem: AssignmentProblem, best: float | None, solver: str) -> Assignment:
    exact = load_backend(solver).CAPABILITIES.proves_optimality
    result = solve_assignment(problem, solver=solver, time_limit=60.0)
    if best is None:
        assert result.solution is None
        assert result.status is SolutionStatus.NONE
        assert result.termination is (Termination.INFEASIBLE if exact else Termination.SEARCH_FINISHED)
        return result
    assert verify(problem, result).ok
    assert result.objective <= best + _room(best)
    if result.bound is not None:
        assert result.bound >= best - 1e-7 * (1.0 + abs(best))
    if exact:
        assert result.objective >= best - _room(best)
        assert (result.status, result.termination) == (SolutionStatus.OPTIMAL, Termination.OPTIMAL)
        assert result.gap == pytest.approx(0.0, abs=1e-6)
    return result


def _agree_with_the_oracle(solver: str, seeds: range) -> None:
    solved = found = 0
    for seed in seeds:
        small = random_problem(seed)
        best = optimum(small)
        try:
            problem = AssignmentProblem(**small.arguments())
        except InfeasibleProblemError:
            assert best is None, f"random problem {seed} was refused, but its optimum is {best}"
            continue
        result = _check(problem, best, solver)
        if best is not None:
            solved += 1
            found += result.objective >= best - _room(best)
    assert solved >= 0.6 * len(seeds)
    # A heuristic need not find every optimum, but on problems this small nearly all.
    assert found >= 0.97 * solved


def test_random_problems(solver: str) -> None:
    _agree_with_the_oracle(solver, range(N_STARTED if ":" in solver else N_RANDOM))


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e6])
def test_the_unit_of_the_objective_does_not_matter(solver: str, factor: float) -> None:
    """Solvers have absolute tolerances, which small coefficients would slip under."""
    for seed in range(12):
        small = random_problem(seed)
        best = optimum(small)
        if best is None:
            continue
        small.A, small.penalties, small.bias = (part * factor for part in (small.A, small.penalties, small.bias))
        result = solve_assignment(AssignmentProblem(**small.arguments()), solver=solver)
        assert result.objective == pytest.approx(best * factor, rel=1e-6, abs=1e-9 * factor)
        assert result.bound >= (best - 1e-9 * abs(best)) * factor
        if load_backend(solver).CAPABILITIES.proves_optimality:
            assert result.status is SolutionStatus.OPTIMAL


@pytest.mark.slow
def test_many_random_problems(solver: str) -> None:
    _agree_with_the_oracle(solver, range(1_000, 1_300 if ":" in solver else 3_000))


def test_the_random_problems_are_of_every_kind() -> None:
    problems = [random_problem(seed) for seed in range(N_RANDOM)]
    kinds = {
        "negative values": lambda p: (p.A < 0).all(),
        "ties everywhere": lambda p: len(np.unique(p.A)) == 1,
        "no penalties": lambda p: not p.penalties.any(),
        "dense penalties": lambda p: np.count_nonzero(p.penalties) == p.A.shape[1] * (p.A.shape[1] - 1),
        "uneven budgets": lambda p: len(set(p.n_per_class)) > 1,
        "required features": lambda p: p.required_features,
        "excluded features": lambda p: p.excluded_features,
        "required pairs": lambda p: p.required_pairs,
        "forbidden pairs": lambda p: p.forbidden_pairs,
    }
    for name, is_of_kind in kinds.items():
        count = sum(bool(is_of_kind(problem)) for problem in problems if optimum(problem) is not None)
        assert count >= 8, f"only {count} with {name}"


@pytest.mark.parametrize(("name", "best"), [("qp_0", 326.67168), ("qp_1", 223.89545)])
def test_reference_problems(solver: str, name: str, best: float) -> None:
    data = np.load(REFERENCE / f"{name}.npz")
    upper = np.triu(data["penalty"], 1)
    small = SmallProblem(
        A=data["A"],
        penalties=upper + upper.T,
        bias=data["bias"],
        n_select=int(data["n_features"]),
        n_per_class=[int(data["n_per_class"])] * len(data["A"]),
    )
    assert optimum(small) == pytest.approx(best, abs=1e-5)
    result = solve_assignment(AssignmentProblem(**small.arguments()), solver=solver)
    assert result.objective == pytest.approx(best, abs=1e-5)
    assert result.objective > float(data["Z"])  # what the published loop ends with


def test_a_crowd_of_equal_classes(solver: str) -> None:
    """All classes want the same set: uniqueness decides everything."""
    A = np.tile(np.linspace(1.0, 0.4, 5), (6, 1))
    small = SmallProblem(A, np.zeros((5, 5)), np.zeros(5), 4, [2] * 6)
    problem = AssignmentProblem(**small.arguments())
    result = _check(problem, optimum(small), solver)
    assert len({row.tobytes() for row in result.weights}) == 6


def infeasible_problem() -> AssignmentProblem:
    """Passes every check at construction: no class or budget alone is in contradiction, only all classes together.

    Classes 0 to 2 may use one feature each, all different; class 3 needs both of the others: that is one too many.
    """
    allowed = [{0}, {1}, {2}, {3, 4}]
    forbidden = [(c, f) for c in range(4) for f in range(5) if f not in allowed[c]]
    return AssignmentProblem(np.ones((4, 5)), n_select=4, n_per_class=[1, 1, 1, 2], forbidden_pairs=forbidden)


def test_infeasible(solver: str) -> None:
    try:
        problem = infeasible_problem()
    except InfeasibleProblemError:
        pytest.fail("the construction has learned to see this; find another infeasible problem for this test")
    _check(problem, None, solver)


@pytest.mark.slow
def test_fuzz_of_two_thousand_problems() -> None:
    """All options mixed: the decomposition, the plain model and enumeration agree on optimum and infeasibility."""
    for solver in ("decomposition", "pyomo"):
        _agree_with_the_oracle(solver, range(10_000, 12_000))
