"""Class values with and without a feature: on which side the bounds err, and that they tell what halves hide."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.conditional_values import ConditionalValues
from qpm_opt.backends.decomposition.disjunctions import Disjunctions


def _class_values(values: ClassValues, chosen: list[int]) -> float:
    best = -np.sort(-values.values[:, chosen], axis=1)
    return float(sum(row[:budget].sum() for row, budget in zip(best, values.budgets, strict=True)))


@given(seed=st.integers(0, 10_000), k=st.integers(2, 4), always=st.integers(0, 2), outside=st.integers(0, 2))
def test_the_bounds_are_above_the_values_of_every_set(seed: int, k: int, always: int, outside: int) -> None:
    """Of k out of n features, the last of them outside of the working set, beside some that are kept in any case.

    What the options leave of each class is bounded by its values seen from kept features.
    """
    rng = np.random.default_rng(seed)
    n, n_classes = 6, 4
    free, forced = n + outside, n + outside + np.arange(always)
    everything = ClassValues.of(rng.normal(size=(n_classes, free + always)), rng.integers(1, 3, n_classes))
    values = ClassValues.of(everything.values[:, np.r_[np.arange(n), forced]], everything.budgets)
    x = rng.dirichlet(np.ones(n)) * k
    pairs = np.outer(x, x) + rng.uniform(-0.1, 0.1, (n, n))
    common = values.thresholds(np.r_[np.clip(x, 0, 1), np.ones(always)])
    options, conditional = Disjunctions(k, n_classes), ConditionalValues(k, n_classes)
    conditional.choose(x, common, values)
    for _ in range(rng.integers(1, 6)):
        options.choose(x, pairs, values)
        options.follow(x, pairs, values, rng.uniform(0.0, 20.0))
        before = conditional.at(x, pairs, common, values) + rng.uniform(0.0, 1.0)
        options.weigh(x, pairs, values, before, rng.uniform(0.0, 20.0))
        x = rng.dirichlet(np.ones(n)) * k
        conditional.follow(x, pairs, values)
    conditional.weigh(options.rest)
    assert (options.rest >= -1e-12).all()
    common = common + rng.normal(size=n_classes) * rng.integers(0, 2)  # the common ones have gone on since
    charges = conditional.charges(common, values, n) + options.charges(common, values, n)
    bias, penalties = np.zeros(free), np.zeros((free, free))
    bias[:n], penalties[:n, :n] = charges.bias, charges.penalties
    linear, gain = options.slopes(common, everything.values[:, n:free], n)
    bias[n:] = linear
    penalties[:n, n:] -= gain
    penalties[np.ix_(conditional.features, n + np.arange(outside))] += conditional.beyond(
        common, everything, n + np.arange(outside)
    ).T
    penalties[n:, :n] = penalties[:n, n:].T
    for chosen in combinations(range(free), k):
        s = np.isin(np.arange(free), chosen).astype(float)
        bound = float(everything.budgets @ common) + float(everything.worth(common) @ np.r_[s, np.ones(always)])
        bound += charges.constant + float(bias @ s) - 0.5 * float(s @ penalties @ s)
        assert bound >= _class_values(everything, [*chosen, *forced.tolist()]) - 1e-9


def test_halves_of_what_goes_together_do_not_fill_a_class() -> None:
    """Sets {0, 1} and {2, 3}, each by half: the class likes 0 and 1, and has two of them or none."""
    values = ClassValues.of(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([1]))
    x = np.full(4, 0.5)
    pairs = 0.5 * np.kron(np.eye(2), np.ones((2, 2)))
    common = values.thresholds(x)
    options = Disjunctions(2, 1)
    for _ in range(200):
        options.choose(x, pairs, values)
        options.follow(x, pairs, values, pace=1.0)
        options.weigh(x, pairs, values, values.at(x, common), pace=1.0)
    charges = options.charges(common, values, 4)
    before = float(values.budgets @ common) + float(values.worth(common) @ x)
    after = before + charges.constant + float(charges.bias @ x) - 0.5 * float((charges.penalties * pairs).sum())
    assert before == 1.0
    assert after < 0.51


def test_without_a_feature_at_a_fraction_there_is_no_option() -> None:
    values = ClassValues.of(np.eye(4), np.ones(4, dtype=np.int64))
    x = np.array([1.0, 1.0, 0.0, 0.0])
    options = Disjunctions(2, 4)
    options.choose(x, np.outer(x, x), values)
    options.follow(x, np.outer(x, x), values, pace=1.0)
    options.weigh(x, np.outer(x, x), values, values.at(x, values.thresholds(x)), pace=1.0)
    assert (options.rest == 1.0).all()
