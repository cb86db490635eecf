"""Problems in numbers of a familiar size: the same best assignments, and never less than their true objective."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpm_opt import AssignmentProblem, InfeasibleProblemError
from qpm_opt.conditioning import conditioned
from qpm_opt.selection import best_weights
from tests.contract.oracle import mixed_scales_problem


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_assignment_loses_and_good_ones_gain_nothing(seed: int) -> None:
    try:
        problem = AssignmentProblem(**mixed_scales_problem(seed).arguments())
    except InfeasibleProblemError:
        return
    easier = conditioned(problem)
    known = None if easier.known is None else problem.terms(*easier.known).total
    for chosen in combinations(problem.candidates.tolist(), problem.n_select):
        selected = np.array(chosen)
        if not np.isin(problem.forced_features, selected).all():
            continue
        weights = best_weights(problem, selected)
        if weights is None:
            continue
        terms, now = problem.terms(selected, weights), easier.problem.terms(selected, weights)
        size = abs(terms.similarity) + abs(terms.redundancy) + abs(terms.bias)
        assert now.total >= (terms.total - 1e-12 * size) * easier.unit
        if known is not None and terms.total >= known:
            assert now.total == pytest.approx(terms.total * easier.unit, abs=1e-12 * size * easier.unit)


def test_what_is_hopeless_is_of_the_size_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    A = rng.random((6, 12))
    A[rng.random(A.shape) < 0.2] = -1e9
    bias = np.zeros(12)
    bias[3] = -1e8
    penalties = np.zeros((12, 12))
    penalties[0, 1] = penalties[1, 0] = 1e7
    easier = conditioned(AssignmentProblem(A, penalties, bias, n_select=6, n_per_class=3)).problem
    largest = max(
        float(np.abs(easier.scale * easier.class_similarity).max()),
        float(np.abs(easier.feature_bias).max()),
        float(easier.redundancy.data.max()),
    )
    assert largest < 1e4
    assert easier.candidates.tolist() == list(range(12))


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e12])
def test_ordinary_numbers_are_only_multiplied(scale: float) -> None:
    A = np.random.default_rng(1).random((5, 9)) * scale
    easier = conditioned(AssignmentProblem(A, n_select=4, n_per_class=2))
    assert easier.known is None
    assert np.log2(easier.unit).is_integer()
    assert np.array_equal(easier.problem.class_similarity, A * easier.unit)
    assert 300.0 < easier.problem.scale * np.sort(easier.problem.class_similarity, axis=1)[:, -2:].sum() < 3000.0


def test_a_feature_that_is_alive_stays_alive() -> None:
    A = np.array([[1.0, 0.5, -1e9, 0.0], [0.4, 0.8, -1e9, 0.0], [0.9, 0.7, -1e9, 0.0]])
    problem = AssignmentProblem(A, n_select=3, n_per_class=1)
    assert conditioned(problem).problem.candidates.tolist() == problem.candidates.tolist() == [0, 1, 2]
