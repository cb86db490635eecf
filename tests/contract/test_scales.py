"""Every back end on numbers of all sizes, alone and mixed: no false optimum, no false bound."""

from __future__ import annotations

import numpy as np
import pytest

from qpm_opt import AssignmentProblem, InfeasibleProblemError, SolutionStatus, Termination, solve_assignment, verify
from qpm_opt.backends import load_backend

from .oracle import SmallProblem, mixed_scales_problem, optimum, random_problem

N_MIXED = 60
N_OTHERS = 20
"""The same for all but the solver that is the default."""

ROOM = 1e-9
"""Relative to the optimum: all that rounding may take."""


def _solves(small: SmallProblem, solver: str) -> bool | None:
    """Check a result against enumeration; says whether it is optimal, None where the problem has no solution."""
    best = optimum(small, mixed_scales=True)
    try:
        problem = AssignmentProblem(**small.arguments())
    except InfeasibleProblemError:
        assert best is None
        return None
    exact = load_backend(solver).CAPABILITIES.proves_optimality
    result = solve_assignment(problem, solver=solver, time_limit=60.0)
    if best is None:
        assert result.solution is None
        assert result.termination is (Termination.INFEASIBLE if exact else Termination.SEARCH_FINISHED)
        return None
    assert verify(problem, result).ok
    room = ROOM * abs(best)
    assert result.objective <= best + room
    assert result.bound is None or result.bound >= best - room
    found = result.objective >= best - room
    assert found or result.status is not SolutionStatus.OPTIMAL, f"false optimum {result.objective} of {best}"
    assert found or not exact
    return found


def _all_solved(solver: str, seeds: range) -> None:
    found = [_solves(mixed_scales_problem(seed), solver) for seed in seeds]
    solved = [one for one in found if one is not None]
    assert len(solved) >= 0.6 * len(seeds)
    assert sum(solved) >= 0.95 * len(solved)


def test_mixed_scales(solver: str) -> None:
    _all_solved(solver, range(N_MIXED if solver == "decomposition" else N_OTHERS))


@pytest.mark.slow
def test_many_mixed_scales(solver: str) -> None:
    _all_solved(solver, range(1_000, 1_100 if ":" in solver else 2_000))


@pytest.mark.parametrize("scale", [1e-20, 1e-14, 1e-9, 1e12])
def test_scales(solver: str, scale: float) -> None:
    for seed in range(4):
        small = random_problem(seed)
        small.A, small.penalties, small.bias = (part * scale for part in (small.A, small.penalties, small.bias))
        _solves(small, solver)


@pytest.mark.parametrize("never", [-1e6, -1e7, -1e9])
def test_entries_that_are_never_to_be_used(solver: str, never: float) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        A = rng.random((4, 7))
        A[rng.random((4, 7)) < 0.2] = never
        small = SmallProblem(A, np.zeros((7, 7)), np.zeros(7), 5, [3] * 4, contrastive_pairs=[(0, 1, 2)])
        assert _solves(small, solver)


def test_crowds_of_equal_classes_at_any_scale(solver: str) -> None:
    """Uniqueness alone decides, by differences that are small against nothing but the numbers themselves."""
    rng = np.random.default_rng(5)
    for scale in (1e-20, 1e-14, 1.0):
        A = (np.linspace(1.0, 0.4, 5) + 0.01 * rng.random((4, 5))) * scale
        assert _solves(SmallProblem(A, np.zeros((5, 5)), np.zeros(5), 4, [3] * 4), solver)
