"""The bound of the master holds whatever multipliers it is made from."""

from __future__ import annotations

import numpy as np
import pytest

from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.cuts import CliqueCut, LinearCut
from qpm_opt.backends.decomposition.master import Master
from qpm_opt.search_space import SearchSpace

from .problems import optimum, small_space


def _master(space: SearchSpace) -> Master:
    classes = ClassValues.of(space.values, space.budgets)
    master = Master(space, np.stack([np.full(6, -1e4), np.full(6, 1e4)]))
    x = np.full(len(space.features), space.n_select / len(space.features))
    for t in (classes.thresholds(x), np.zeros(6)):
        slopes = classes.slopes(t)
        everything = np.arange(len(space.features))
        master.add_linear([LinearCut(np.array([c]), float(2 * t[c]), everything, slopes[c]) for c in range(6)])
    linked = np.argwhere(np.triu(space.penalties > 0, 1))
    master.add_cliques([CliqueCut(pair, 1) for pair in linked])
    return master


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_is_valid(seed: int) -> None:
    space = small_space(seed)
    point = _master(space).solve(-np.inf, 10.0)
    assert point.solved
    assert point.bound >= optimum(space) - 1e-9 * abs(point.bound)


@pytest.mark.parametrize("seed", range(4))
def test_any_multipliers_give_a_valid_bound(seed: int) -> None:
    space = small_space(seed)
    master = _master(space)
    best = optimum(space)
    rng = np.random.default_rng(seed)
    for size in (1e-9, 1.0, 1e6):
        duals = size * rng.normal(size=master.n_rows)
        bound, _ = master._safe_bound(duals)
        assert bound >= best


def test_reduced_costs_tell_what_a_feature_is_worth() -> None:
    space = small_space(1)
    master = _master(space)
    point = master.solve(-np.inf, 10.0)
    out = int(np.argmin(point.x))
    lower, upper = np.zeros(9), np.ones(9)
    lower[out] = 1.0
    master.set_range(lower, upper)
    assert master.solve(-np.inf, 10.0).bound <= point.bound - abs(point.reduced[out]) + 1e-6


def test_an_impossible_range_is_infeasible() -> None:
    space = small_space(1)
    master = _master(space)
    master.set_range(np.zeros(9), np.zeros(9))
    assert not master.solve(-np.inf, 10.0).feasible


def test_purging_keeps_the_bound() -> None:
    space = small_space(2)
    master = _master(space)
    before = master.solve(-np.inf, 10.0).bound
    slack = [LinearCut(np.array([c % 6]), 1e5, np.zeros(0, np.int64), np.zeros(0)) for c in range(300)]
    master.add_linear(slack)
    for _ in range(14):
        master.solve(-np.inf, 10.0)
    rows = master.n_rows
    master.purge()
    assert master.n_rows < rows - 250
    assert master.solve(-np.inf, 10.0).bound == pytest.approx(before, rel=1e-6)
