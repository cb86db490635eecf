"""Class values and their supporting lines."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from qpm_opt.backends.decomposition.class_values import ClassValues


@given(st.integers(0, 10_000))
def test_the_best_line_is_the_fractional_knapsack(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, budgets = rng.normal(size=(4, 7)), np.array([1, 2, 3, 0])
    x = rng.random(7)
    x *= min(1.0, 3.5 / x.sum())
    x[:3] = 1.0  # at least three units, so that every class can be served
    classes = ClassValues.of(values, budgets)
    best = classes.at(x, classes.thresholds(x))
    for c, budget in enumerate(budgets.tolist()):
        answer = linprog(-values[c], A_eq=np.ones((1, 7)), b_eq=[budget], bounds=list(zip(np.zeros(7), x, strict=True)))
        assert best[c] == np.float64(best[c])
        np.testing.assert_allclose(best[c], -answer.fun, atol=1e-9)


@given(st.integers(0, 10_000))
def test_every_line_lies_above(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = ClassValues.of(rng.normal(size=(5, 8)), np.full(5, 2))
    x = np.clip(rng.random(8) + 0.3, 0.0, 1.0)
    best = classes.at(x, classes.thresholds(x))
    assert (classes.at(x, rng.normal(size=5)) >= best - 1e-9).all()


@given(st.integers(0, 10_000))
def test_changed_values_are_sorted_like_new_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, budgets = rng.integers(0, 4, (5, 8)).astype(float), np.full(5, 2)
    other = np.where(rng.random((5, 1)) < 0.5, values, rng.integers(0, 4, (5, 8)))
    changed, fresh = ClassValues.of(values, budgets).changed(other), ClassValues.of(other, budgets)
    np.testing.assert_array_equal(changed.order, fresh.order)
    np.testing.assert_array_equal(changed.ranked, fresh.ranked)
    np.testing.assert_array_equal(changed.values, other)
