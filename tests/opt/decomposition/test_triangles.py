"""Triangle inequalities: what they charge, on which side they err, and that they tighten the bound."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpm_opt.backends.decomposition.triangles import Triangles


def _pairs(n: int, seed: int) -> np.ndarray:
    """A symmetric matrix that violates triangle inequalities, with the features on its diagonal."""
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(0.0, 1.0, (n, n))
    return (matrix + matrix.T) / 2.0


@given(seed=st.integers(0, 10_000))
def test_no_set_of_features_gains_by_what_is_charged(seed: int) -> None:
    n = 7
    pairs = _pairs(n, seed)
    triangles = Triangles()
    triangles.separate(pairs)
    triangles.ascend(pairs, penalty=2.0)
    charges = triangles.charges(n)
    assert len(triangles)
    for size in range(n + 1):
        for chosen in combinations(range(n), size):
            x = np.isin(np.arange(n), chosen).astype(float)
            charged = charges.constant + charges.bias @ x - 0.5 * x @ charges.penalties @ x
            assert charged >= -1e-9  # the bound goes up by it, never down: valid for every set


def test_a_point_that_violates_them_is_charged() -> None:
    pairs = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])  # 2 and 3 both go with 1, yet never together
    triangles = Triangles()
    triangles.separate(pairs)
    for _ in range(3):
        triangles.ascend(pairs, penalty=1.0)
    charges = triangles.charges(3)
    change = charges.constant + charges.bias @ pairs.diagonal()
    change -= 0.5 * float((charges.penalties * pairs).sum())
    assert change < -0.1


def test_what_is_satisfied_again_is_forgotten() -> None:
    triangles = Triangles()
    triangles.separate(_pairs(6, 0))
    found = len(triangles)
    satisfied = np.outer(np.full(6, 0.5), np.full(6, 0.5)) + 0.25 * np.eye(6)
    for _ in range(100):
        triangles.ascend(satisfied, penalty=1.0)
    triangles.separate(satisfied)
    assert found > 0
    assert len(triangles) == 0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_features_have_none_or_few(n: int) -> None:
    triangles = Triangles()
    triangles.separate(_pairs(n, 1))
    triangles.ascend(_pairs(n, 1), penalty=1.0)
    assert triangles.charges(n).penalties.shape == (n, n)
