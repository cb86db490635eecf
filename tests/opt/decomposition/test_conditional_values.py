"""Thresholds of single features: on which side they err, and that they tell features that look alike apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.conditional_values import ConditionalValues


def _values(rng: np.random.Generator, n_classes: int, n: int) -> ClassValues:
    return ClassValues.of(rng.normal(size=(n_classes, n)), rng.integers(1, 3, n_classes))


def _class_values(values: ClassValues, chosen: tuple[int, ...]) -> float:
    best = -np.sort(-values.values[:, list(chosen)], axis=1)
    return float(sum(row[:budget].sum() for row, budget in zip(best, values.budgets, strict=True)))


@given(seed=st.integers(0, 10_000), k=st.integers(2, 4), always=st.integers(0, 2), outside=st.integers(0, 2))
def test_the_lines_are_above_the_values_of_every_set(seed: int, k: int, always: int, outside: int) -> None:
    """Of k out of n features, the last of them outside of the working set, beside some that are kept in any case."""
    rng = np.random.default_rng(seed)
    n = 6
    everything = _values(rng, 3, n + outside + always)
    inside = np.r_[np.arange(n), n + outside + np.arange(always)]
    values = ClassValues.of(everything.values[:, inside], everything.budgets)
    x = rng.dirichlet(np.ones(n)) * k
    pairs = np.outer(x, x) + rng.uniform(-0.1, 0.1, (n, n))
    common = values.thresholds(np.r_[np.clip(x, 0, 1), np.ones(always)])
    conditional = ConditionalValues(k, 3)
    conditional.choose(x, common, values)
    for _ in range(rng.integers(0, 8)):
        conditional.follow(x, pairs, values)
    common = common + rng.normal(size=3) * rng.integers(0, 2)  # the common ones have gone on since
    charges = conditional.charges(common, values, n)
    beyond = conditional.beyond(common, everything, n + np.arange(outside))
    penalties = np.zeros((n + outside, n + outside))
    penalties[:n, :n] = charges.penalties
    penalties[np.ix_(n + np.arange(outside), conditional.features)] += beyond
    penalties[np.ix_(conditional.features, n + np.arange(outside))] += beyond.T
    bias = np.r_[charges.bias, np.zeros(outside)]
    for chosen in combinations(range(n + outside), k):
        s = np.isin(np.arange(n + outside), chosen).astype(float)
        kept = np.r_[s, np.ones(always)]
        line = float(everything.budgets @ common) + float(everything.worth(common) @ kept)
        line += charges.constant + float(bias @ s) - 0.5 * float(s @ penalties @ s)
        assert line >= _class_values(everything, (*chosen, *(n + outside + np.arange(always)).tolist())) - 1e-9


def test_two_that_look_alike_are_not_taken_as_one_and_a_half() -> None:
    """Of 0 and 1 one is kept, of 2 and 3 too; each class likes one of each, so that halves give both all they like."""
    values = ClassValues.of(np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]), np.array([1, 1]))
    x = np.full(4, 0.5)
    pairs = 0.5 * np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]])  # 0 goes with 2, 1 with 3
    common = values.thresholds(x)
    conditional = ConditionalValues(2, 2)
    conditional.choose(x, common, values)
    for _ in range(200):
        conditional.follow(x, pairs, values)
    charges = conditional.charges(common, values, 4)
    before = float(values.budgets @ common) + float(values.worth(common) @ x)
    after = before + charges.constant + float(charges.bias @ x) - 0.5 * float((charges.penalties * pairs).sum())
    assert before == 2.0
    assert after < 1.05  # one of the two classes has nothing, whichever is kept
