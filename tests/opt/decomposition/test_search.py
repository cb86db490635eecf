"""The solver as a whole, beyond what the contract tests ask of every back end."""

from __future__ import annotations

import numpy as np
import pytest

from qpm_opt import AssignmentProblem, SolutionStatus, Termination, solve_assignment, verify
from tests.contract.oracle import optimum, random_problem
from tests.opt.decomposition.problems import generated_problem


@pytest.mark.parametrize("share", [None, 0.05, 0.4])
def test_middling_problems_are_proven_optimal(share: float | None) -> None:
    problem = generated_problem(8, 40, share, n_select=6, n_per_class=2)
    result = solve_assignment(problem, solver="decomposition", time_limit=60.0)
    assert result.status is SolutionStatus.OPTIMAL
    exact = solve_assignment(problem, solver="cpsat", time_limit=60.0, start=result)
    assert exact.objective <= result.objective * (1 + 1.01e-4)


def test_runs_repeat_to_the_bit() -> None:
    problem = generated_problem(8, 50, 0.2, n_select=7, n_per_class=2)
    first, second = (solve_assignment(problem, solver="decomposition", seed=3) for _ in range(2))
    assert first.selected.tolist() == second.selected.tolist()
    assert (first.objective, first.bound) == (second.objective, second.bound)
    assert [point.bound for point in first.trace] == [point.bound for point in second.trace]


def test_a_time_limit_is_kept_and_leaves_a_bound() -> None:
    problem = generated_problem(100, 512, 0.15, n_select=30, n_per_class=5)
    result = solve_assignment(problem, solver="decomposition", time_limit=4.0)
    assert result.termination is Termination.TIME_LIMIT
    assert result.runtime <= 4.0 * 1.05 + 0.3
    assert result.gap is not None
    assert result.gap < 0.2
    assert verify(problem, result).ok


@pytest.mark.parametrize("kind", ["ties", "all equal", "negative", "tiny", "huge", "dense", "mixed sizes"])
def test_adversarial_numbers(kind: str) -> None:
    rng = np.random.default_rng(1)
    A = {
        "ties": rng.integers(0, 3, size=(7, 10)).astype(float),
        "all equal": np.full((7, 10), 0.25),
        "negative": -rng.random((7, 10)),
        "tiny": 1e-6 * rng.normal(size=(7, 10)),
        "huge": 1e6 * rng.normal(size=(7, 10)),
        "dense": rng.normal(size=(7, 10)),
        "mixed sizes": 10.0 ** rng.uniform(-6, 6, size=(7, 10)),
    }[kind]
    upper = np.triu(rng.random((10, 10)) * (1.0 if kind == "dense" else rng.random((10, 10)) < 0.4), 1)
    penalties = (upper + upper.T) * 100.0 * np.abs(A).max()
    problem = AssignmentProblem(A, penalties, n_select=5, n_per_class=2)
    ours = solve_assignment(problem, solver="decomposition", time_limit=60.0)
    assert ours.status is SolutionStatus.OPTIMAL
    other = solve_assignment(problem, solver="cpsat", time_limit=60.0)
    assert ours.objective == pytest.approx(other.objective, rel=1e-6, abs=1e-12)


def test_contrastive_pairs_of_the_closest_classes() -> None:
    problem = generated_problem(20, 80, 0.05, n_select=15, n_per_class=4)
    likeness = np.corrcoef(problem.class_similarity)
    np.fill_diagonal(likeness, -1.0)
    closest = [tuple(sorted(np.unravel_index(at, likeness.shape))) for at in np.argsort(-likeness, axis=None)[:8:2]]
    contrasted = problem.replaced(contrastive_pairs=[(int(c), int(d), 3) for c, d in closest])
    result = solve_assignment(contrasted, solver="decomposition", time_limit=20.0)
    assert verify(contrasted, result).ok
    for c, d in closest:
        assert (result.weights[c] & result.weights[d]).sum() == 3
    free = solve_assignment(problem, solver="decomposition", time_limit=20.0)
    assert free.bound is not None
    assert result.objective <= free.bound + 1e-9


def test_a_set_that_a_search_started_from_is_valued_itself_before_it_is_cut_off() -> None:
    small = random_problem(11_050)
    result = solve_assignment(AssignmentProblem(**small.arguments()), solver="decomposition")
    assert result.objective == pytest.approx(optimum(small))
