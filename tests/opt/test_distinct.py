"""Uniqueness given the kept features, against enumeration."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from qpm_opt.distinct import distinct_sets


def _enumerated(values: np.ndarray, budgets: np.ndarray, required: np.ndarray, forbidden: np.ndarray) -> float | None:
    """The largest total value of distinct sets, by trying all sets of all rows in one assignment problem."""
    sets: dict[tuple[int, ...], int] = {}
    entries = []
    for row, budget in enumerate(budgets):
        for chosen in combinations(range(values.shape[1]), int(budget)):
            inside = np.isin(np.arange(values.shape[1]), chosen)
            if (required[row] & ~inside).any() or (forbidden[row] & inside).any():
                continue
            entries.append((row, sets.setdefault(chosen, len(sets)), values[row, list(chosen)].sum()))
    worth = np.full((len(values), len(sets)), -np.inf)
    for row, column, value in entries:
        worth[row, column] = value
    try:
        rows, columns = linear_sum_assignment(worth, maximize=True)
    except ValueError:
        return None
    return None if len(rows) < len(values) else float(worth[rows, columns].sum())


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_classes=st.integers(1, 8),
    n_columns=st.integers(1, 6),
    kind=st.sampled_from(["real", "ties", "equal", "alike"]),
    uneven=st.booleans(),
    locks=st.booleans(),
)
def test_agrees_with_enumeration(
    seed: int, n_classes: int, n_columns: int, kind: str, uneven: bool, locks: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "real": rng.normal(size=(n_classes, n_columns)),
        "ties": rng.integers(0, 3, (n_classes, n_columns)).astype(float),
        "equal": np.ones((n_classes, n_columns)),
        "alike": np.tile(rng.normal(size=n_columns), (n_classes, 1)) + 1e-3 * rng.normal(size=(n_classes, n_columns)),
    }[kind]
    budgets = (
        rng.integers(1, n_columns + 1, n_classes) if uneven else np.full(n_classes, rng.integers(1, n_columns + 1))
    )
    required = locks & (rng.random(values.shape) < 0.1)
    forbidden = locks & (rng.random(values.shape) < 0.15) & ~required
    best = _enumerated(values, budgets, required, forbidden)
    found = distinct_sets(values, budgets, np.stack([required, forbidden]) if locks else None)
    if best is None:
        assert found is None
        return
    assert found is not None
    assert found.sum(axis=1).tolist() == budgets.tolist()
    assert len({row.tobytes() for row in found}) == n_classes
    assert (found | ~required).all()
    assert not (found & forbidden).any()
    assert (values * found).sum() == pytest.approx(best, abs=1e-9)


def test_without_collisions_every_class_keeps_its_best() -> None:
    values = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert distinct_sets(values, np.array([2, 2])).tolist() == [[True, True, False], [False, True, True]]


def test_a_thousand_equal_classes_take_seconds() -> None:
    """The worst case: all classes collide, with each other and with whatever they evade to."""
    values = np.tile(np.linspace(1.0, 0.1, 50), (1000, 1))
    began = time.perf_counter()
    found = distinct_sets(values, np.full(1000, 5))
    assert time.perf_counter() - began < 60.0  # 5 s on a core of its own
    assert found is not None
    assert len({row.tobytes() for row in found}) == 1000
    # All classes alike: the best is the thousand best sets, whoever gets which.
    sums = np.sort([values[0, list(chosen)].sum() for chosen in combinations(range(30), 5)])[::-1]
    assert (values * found).sum() == pytest.approx(sums[:1000].sum(), abs=1e-8)


@pytest.mark.parametrize("scale", [1e-20, 1e-14, 1e-3, 1e12])
def test_the_scale_of_the_values_does_not_matter(scale: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = np.linspace(1.0, 0.4, 6) + 0.01 * rng.random((8, 6))
        values[::2, 1] = -1e9  # for these classes, too, the rest still counts
        budgets = np.full(8, 3)
        found = distinct_sets(values * scale, budgets)
        every = list(combinations(range(6), 3))
        worth = np.array([[values[c, list(columns)].sum() for columns in every] for c in range(8)])
        worth = np.maximum(worth, -100.0)  # so that the oracle keeps its digits
        rows, columns = linear_sum_assignment(worth, maximize=True)
        assert values[found].sum() == pytest.approx(worth[rows, columns].sum(), rel=1e-12)
