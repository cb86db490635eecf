"""What classes may share: lines that hold for every set, and that are as low as theory says."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpm_opt import AssignmentProblem
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.overlaps import DistinctValues, Overlap, class_kinds, overlaps_at
from qpm_opt.search_space import SearchSpace

from .problems import indicator, sets_of


def _look_alike(seed: int, *, spread: float = 0.1) -> SearchSpace:
    """Six classes of three kinds that like similar features, with a bias, penalties and locks."""
    rng = np.random.default_rng(seed)
    liked = rng.random((3, 8))[rng.integers(0, 3, 6)]
    penalties = np.triu((rng.random((8, 8)) < 0.3) * rng.random((8, 8)), 1)
    problem = AssignmentProblem(
        liked + spread * rng.random((6, 8)),
        penalties + penalties.T,
        rng.normal(size=8),
        n_select=5,
        n_per_class=[2, 2, 2, 2, 3, 3],
        forbidden_pairs=[(0, 1)] if seed % 2 else [],
        required_pairs=[(1, 2), (2, 2)] if seed % 3 == 0 else [],
    )
    return SearchSpace.of(problem)


def _gains(space: SearchSpace, chosen: np.ndarray) -> np.ndarray | None:
    """What every class gains from a set with uniqueness, without its required pairs."""
    _, weights = space.exact(chosen)
    if weights is None:
        return None
    own = np.where(space.required[:, chosen], 0.0, space.values[:, chosen])
    return np.asarray((own * weights).sum(axis=1))


def _some_features(space: SearchSpace, rng: np.random.Generator) -> np.ndarray:
    """A mixture of a few sets."""
    sets = sets_of(space)
    picked = rng.integers(len(sets), size=rng.integers(1, 4))
    return np.asarray(rng.dirichlet(np.ones(len(picked))) @ [indicator(space, sets[number]) for number in picked])


@given(seed=st.integers(0, 10_000))
def test_every_line_holds_for_every_set(seed: int) -> None:
    space, rng = _look_alike(seed), np.random.default_rng(seed)
    classes, kinds = ClassValues.of(space.values, space.budgets), class_kinds(space)
    overlaps = overlaps_at(space, classes, kinds, _some_features(space, rng))
    alike = [group for group in combinations(range(6), 3) if len(set(kinds[list(group)].tolist())) == 1]
    overlaps += [Overlap(np.array(group), rng.normal(size=3), rng.exponential(0.1, size=3)) for group in alike]
    for chosen in sets_of(space):
        gains = _gains(space, chosen)
        for overlap in overlaps if gains is not None else []:
            assert gains[overlap.group].sum() <= overlap.cut(classes).at(indicator(space, chosen)) + 1e-7


@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0))
def test_averages_of_lines_hold_for_every_set(seed: int, share: float) -> None:
    space, rng = _look_alike(seed), np.random.default_rng(seed)
    classes, kinds = ClassValues.of(space.values, space.budgets), class_kinds(space)
    one, other = (
        DistinctValues.of(classes, overlaps_at(space, classes, kinds, _some_features(space, rng))) for _ in range(2)
    )
    mixed = one.mixed(other, share)
    told = ClassValues.of(mixed.values, space.budgets)
    for chosen in sets_of(space):
        gains = _gains(space, chosen)
        if gains is not None:
            x = indicator(space, chosen)
            line = float(told.at(x, told.thresholds(x)).sum()) + float(mixed.bias @ x) + mixed.constant
            assert gains.sum() <= line + 1e-7


@given(seed=st.integers(0, 10_000), k=st.integers(1, 3))
def test_two_equal_classes_take_one_feature_less_and_one_more(seed: int, k: int) -> None:
    """The best two different sets of k are the best k and those with the last one exchanged for the next: together the
    best k − 1 and the best k + 1, which holds for fractional features as well."""
    rng = np.random.default_rng(seed)
    A = np.tile(rng.random(9), (2, 1))
    space = SearchSpace.of(AssignmentProblem(A, n_select=5, n_per_class=k))
    classes, x = ClassValues.of(space.values, space.budgets), _some_features(space, rng)
    expected = 0.0
    for budget in (k - 1, k + 1):
        alone = ClassValues.of(space.values[:1], np.array([budget]))
        expected += float(alone.at(x, alone.thresholds(x)).sum()) if budget else 0.0
    found = overlaps_at(space, classes, class_kinds(space), x)
    bound = found[0].cut(classes).at(x) if found else float(classes.at(x, classes.thresholds(x)).sum())
    assert bound == pytest.approx(expected, abs=2e-3)  # excesses below a thousandth of a feature are left alone


def test_three_equal_classes_are_charged_most_of_what_they_lose() -> None:
    shares = []
    for seed in range(20):
        A = np.tile(np.random.default_rng(seed).random(8), (3, 1))
        space = SearchSpace.of(AssignmentProblem(A, n_select=5, n_per_class=2))
        classes = ClassValues.of(space.values, space.budgets)
        for chosen in sets_of(space)[::7]:
            x = indicator(space, chosen)
            (found,) = overlaps_at(space, classes, class_kinds(space), x)
            gains = _gains(space, chosen)
            assert gains is not None
            plain, line = float(classes.at(x, classes.thresholds(x)).sum()), found.cut(classes).at(x)
            assert line >= gains.sum() - 1e-6
            shares.append((plain - line) / (plain - gains.sum()))
    assert min(shares) > 0.7
    assert np.median(shares) > 0.999


def test_only_classes_that_might_coincide_are_grouped() -> None:
    A = np.tile(np.linspace(1.0, 0.1, 8), (5, 1))
    problem = AssignmentProblem(A, n_select=5, n_per_class=[2, 2, 3, 2, 2], required_pairs=[(3, 7)])
    space = SearchSpace.of(problem)
    classes = ClassValues.of(space.values, space.budgets)
    kinds = class_kinds(space)
    x = indicator(space, np.array([0, 1, 2, 3, 7]))
    assert [overlap.group.tolist() for overlap in overlaps_at(space, classes, kinds, x)] == [[0, 1, 4]]


def test_ties_everywhere_need_little_memory() -> None:
    """Every two of 300 classes share too much then."""
    space = SearchSpace.of(AssignmentProblem(np.ones((300, 300)), n_select=30, n_per_class=5))
    classes, kinds = ClassValues.of(space.values, space.budgets), class_kinds(space)
    x = np.full(300, 0.1)
    x[:20] = 0.5
    x[20:30] = 0.8
    x *= 30 / x.sum()
    tracemalloc.start()
    overlaps = overlaps_at(space, classes, kinds, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(len(overlap.group) for overlap in overlaps) > 290
    assert peak < 60e6
