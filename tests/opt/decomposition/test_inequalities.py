"""Triangle and larger inequalities: what they charge, on which side they err, and that they tighten the bound."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpm_opt.backends.decomposition.charges import Charges
from qpm_opt.backends.decomposition.quadric import QuadricInequalities
from qpm_opt.backends.decomposition.triangles import Triangles

Inequalities = Triangles | QuadricInequalities
both = pytest.mark.parametrize("kind", [Triangles, QuadricInequalities])


def _pairs(n: int, seed: int) -> np.ndarray:
    """A symmetric matrix that violates inequalities, with the features on its diagonal."""
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(0.0, 1.0, (n, n))
    return (matrix + matrix.T) / 2.0


def _point(x: float, pairs: float, n: int) -> np.ndarray:
    """So much of each of n features, and so much of each pair."""
    return np.full((n, n), pairs) + (x - pairs) * np.eye(n)


def _change(charges: Charges, pairs: np.ndarray) -> float:
    """What is charged at X = `pairs`, as a change of the objective."""
    x = pairs.diagonal()
    quadratic = float((charges.penalties * pairs).sum())
    return float(charges.constant + charges.bias @ x - 0.5 * quadratic)


@both
@given(seed=st.integers(0, 10_000))
def test_no_set_of_features_gains_by_what_is_charged(kind: type[Inequalities], seed: int) -> None:
    n = 8
    pairs = _pairs(n, seed)
    inequalities = kind()
    inequalities.separate(pairs)
    inequalities.ascend(pairs, penalty=2.0)
    charges = inequalities.charges(n)
    assert len(inequalities)
    assert _change(charges, pairs) < 0.0
    for size in range(n + 1):
        for chosen in combinations(range(n), size):
            x = np.isin(np.arange(n), chosen).astype(float)
            assert _change(charges, np.outer(x, x)) >= -1e-9  # the bound goes up by it, never down: valid for every set


def test_a_point_that_violates_triangles_is_charged() -> None:
    pairs = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])  # 2 and 3 both go with 1, yet never together
    triangles = Triangles()
    triangles.separate(pairs)
    for _ in range(3):
        triangles.ascend(pairs, penalty=1.0)
    assert _change(triangles.charges(3), pairs) < -0.1


@pytest.mark.parametrize("n", [5, 7])
def test_halves_of_an_odd_number_of_features_satisfy_triangles_and_violate_larger_inequalities(n: int) -> None:
    pairs = _point(0.5, (n - 2) / (4 * (n - 1)), n)  # n/2 features whenever one looks: their number does not vary
    triangles, larger = Triangles(), QuadricInequalities()
    triangles.separate(pairs)
    larger.separate(pairs)
    assert len(triangles) == 0
    for _ in range(200):
        larger.ascend(pairs, penalty=1.0)
    assert _change(larger.charges(n), pairs) < -0.1


@both
def test_what_is_satisfied_again_is_forgotten(kind: type[Inequalities]) -> None:
    inequalities = kind()
    inequalities.separate(_pairs(6, 0))
    found = len(inequalities)
    satisfied = _point(0.5, 0.25, 6)
    for _ in range(100):
        inequalities.ascend(satisfied, penalty=1.0)
    inequalities.separate(satisfied)
    assert found > 0
    assert len(inequalities) == 0


@both
def test_what_is_known_is_not_added_again(kind: type[Inequalities]) -> None:
    inequalities = kind()
    pairs = _pairs(7, 3)
    inequalities.separate(pairs)
    found = len(inequalities)
    inequalities.ascend(pairs, penalty=1.0)
    inequalities.separate(pairs)
    assert len(inequalities) == found


@both
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_features_have_none_or_few(kind: type[Inequalities], n: int) -> None:
    inequalities = kind()
    inequalities.separate(_pairs(n, 1))
    inequalities.ascend(_pairs(n, 1), penalty=1.0)
    assert inequalities.charges(n).penalties.shape == (n, n)
