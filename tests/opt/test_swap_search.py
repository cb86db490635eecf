"""The swap search and its arithmetic, against values computed from scratch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.generator import generate_problem_data
from qpm_opt import AssignmentProblem, InfeasibleProblemError, penalties_from_similarity, solve_assignment, verify
from qpm_opt.relaxation import penalty_free_bound
from qpm_opt.search_space import SearchSpace
from qpm_opt.swap_search import climb, greedy_set, random_set, swap_gains
from tests.contract.oracle import optimum, random_problem


def _space(seed: int) -> SearchSpace:
    try:
        return SearchSpace.of(AssignmentProblem(**random_problem(seed).arguments()))
    except InfeasibleProblemError:
        assume(False)
        raise


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31))
def test_gains_are_the_differences_of_values(seed: int) -> None:
    space = _space(seed)
    chosen = random_set(space, np.random.default_rng(seed))
    gains = swap_gains(space, chosen)
    before = space.relaxed_value(chosen)
    for place, out in enumerate(chosen):
        for into in range(len(space.features)):
            if into in chosen or space.forced[out]:
                assert gains[place, into] == -np.inf
                continue
            changed = np.sort(np.append(np.delete(chosen, place), into))
            assert gains[place, into] == pytest.approx(
                space.relaxed_value(changed) - before, abs=1e-7 * (1 + space.barrier)
            )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
def test_the_relaxed_value_is_never_below_the_exact_one(seed: int) -> None:
    space = _space(seed)
    chosen = random_set(space, np.random.default_rng(seed))
    exact, _ = space.exact(chosen)
    assert space.relaxed_value(chosen) >= exact - 1e-9 * (1 + space.barrier)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
def test_sets_have_the_right_size_and_the_forced_features(seed: int) -> None:
    space = _space(seed)
    rng = np.random.default_rng(seed)
    start = rng.choice(len(space.features), int(rng.integers(0, space.n_select + 1)), replace=False)
    for chosen in (greedy_set(space), greedy_set(space, np.sort(start)), random_set(space, rng)):
        assert len(np.unique(chosen)) == space.n_select
        assert space.forced[chosen].sum() == space.forced.sum()
    climbed = climb(space, random_set(space, rng), lambda: True)
    assert space.forced[climbed].sum() == space.forced.sum()
    # At the end no exchange is left that gains.
    assert swap_gains(space, climbed).max() <= 1e-6 * (1 + space.barrier)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_the_bound_is_valid_after_any_number_of_steps(seed: int, iterations: int) -> None:
    space = _space(seed)
    best = optimum(random_problem(seed))
    assume(best is not None)
    assert penalty_free_bound(space, iterations=iterations).bound >= best - 1e-9 * (1 + abs(best))


def test_the_bound_is_tight_without_penalties() -> None:
    A = generate_problem_data(60, 300, seed=1).class_similarity
    problem = AssignmentProblem(A, n_select=20, n_per_class=4)
    result = solve_assignment(problem, solver="local_search")
    assert result.gap < 0.01


def test_large_instance_is_solved_with_uniqueness_in_seconds() -> None:
    """200 classes, 2,048 features: the size of the fine-grained data sets of the paper."""
    data = generate_problem_data(200, 2048, seed=0)
    problem = AssignmentProblem(
        data.class_similarity,
        penalties_from_similarity(data.redundancy_similarity, threshold="turan"),
        data.feature_bias,
    )
    result = solve_assignment(problem, solver="local_search", time_limit=10.0)
    assert verify(problem, result).ok
    assert result.runtime < 10.5
    assert len({row.tobytes() for row in result.weights}) == 200
    # Each class's best features in the set coincide for some: uniqueness had something to do.
    chosen = problem.class_similarity[:, result.selected]
    free = {tuple(np.sort(np.argsort(-row)[:5])) for row in chosen}
    assert len(free) < 200
