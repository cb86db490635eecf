"""An upper bound without penalties and without uniqueness, by Lagrangian relaxation of the class budgets.

For any thresholds t, a class gains at most k t + Σ_f max(0, A[c,f] − t) s_f from kept features s: its k best exceed t
by no more than the positive parts. Summed over classes this is linear in s, so the best s takes the n_select features
of the largest φ_f = b_f + Σ_c max(0, A[c,f] − t_c). Penalties only lower the objective, and uniqueness only forbids, so
the result bounds the whole problem from above whatever t is; a subgradient method looks for a good t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.search_space import SearchSpace, largest

__all__ = ["PenaltyFreeBound", "penalty_free_bound"]

_SLACK = 1e-9
"""Relative amount by which the bound is rounded up, far above the rounding error of its sums."""


@dataclass(frozen=True, eq=False)
class PenaltyFreeBound:
    """A bound and the multipliers that prove it.

    Attributes:
        bound: Upper bound on the objective of every assignment, rounded up.
        thresholds: (n_classes,) t.
        without: (n,) bound on assignments that do not keep a feature.
        including: (n,) bound on assignments that keep it.
    """

    bound: float
    thresholds: FloatArray
    without: FloatArray
    including: FloatArray


def penalty_free_bound(
    space: SearchSpace,
    start: IntArray | None = None,
    *,
    iterations: int = 150,
    keep_going: Callable[[], bool] = lambda: True,
) -> PenaltyFreeBound:
    """Upper bound on the objective of every assignment.

    Args:
        space: The problem.
        start: Local features whose thresholds to start from; the best features by bias and total value by default.
        iterations: Subgradient steps.
        keep_going: Asked before each step.
    """
    thresholds = _thresholds(space, _some_features(space) if start is None else start)
    best = np.inf
    best_thresholds = thresholds
    step, stalled = 1.0, 0
    for _ in range(iterations):
        bound, slope = _bound(space, thresholds)
        if bound < best - 1e-6 * abs(best) if np.isfinite(best) else True:
            best, best_thresholds, stalled = bound, thresholds, 0
        else:
            if bound < best:
                best, best_thresholds = bound, thresholds
            stalled += 1
            if stalled >= 5:
                step, stalled, thresholds = step / 2, 0, best_thresholds
                bound, slope = _bound(space, thresholds)
        length = float(slope @ slope)
        if length == 0.0 or step < 1e-3 or not keep_going():
            break
        target = best - 0.01 * abs(best)
        thresholds = thresholds - step * (bound - target) / length * slope
    return _with_exchanges(space, best + _SLACK * _size(space, best_thresholds), best_thresholds)


def _with_exchanges(space: SearchSpace, bound: float, thresholds: FloatArray) -> PenaltyFreeBound:
    """Add what the bound becomes when one feature has to leave the best ones, or has to join them."""
    worth = space.bias + np.maximum(space.values - thresholds[:, None], 0.0).sum(axis=0)
    ranked = np.where(space.forced, np.inf, worth)
    order = np.argsort(-ranked, kind="stable")
    last, rest = worth[order[space.n_select - 1]], order[space.n_select :]
    following = worth[rest[0]] if len(rest) else -np.inf
    without, including = np.full(len(worth), bound), np.full(len(worth), bound)
    inside = order[: space.n_select]
    inside = inside[~space.forced[inside]]
    without[inside] = bound - worth[inside] + following
    including[rest] = bound + worth[rest] - last if len(inside) else -np.inf
    return PenaltyFreeBound(bound, thresholds, without, including)


def _some_features(space: SearchSpace) -> IntArray:
    worth = space.bias + np.maximum(space.values, 0.0).sum(axis=0)
    worth[space.forced] = np.inf
    return largest(worth, space.n_select)


def _thresholds(space: SearchSpace, chosen: IntArray) -> FloatArray:
    """The value of each class's last feature among the chosen ones."""
    inside = -np.sort(-space.values[:, chosen], axis=1)
    last = inside[np.arange(len(inside)), np.maximum(space.budgets, 1) - 1]
    return np.asarray(np.where(last <= -space.barrier, space.values.max(axis=1), last), dtype=np.float64)


def _size(space: SearchSpace, thresholds: FloatArray) -> float:
    """How large the numbers are that the bound is summed up from."""
    worth = np.abs(space.bias) + np.maximum(space.values - thresholds[:, None], 0.0).sum(axis=0)
    largest = np.partition(worth, len(worth) - space.n_select)[len(worth) - space.n_select :]
    return abs(space.constant) + float(space.budgets @ np.abs(thresholds)) + float(largest.sum())


def _bound(space: SearchSpace, thresholds: FloatArray) -> tuple[float, FloatArray]:
    """The bound for given thresholds, and its subgradient in them."""
    worth = space.bias + np.maximum(space.values - thresholds[:, None], 0.0).sum(axis=0)
    ranked = np.where(space.forced, np.inf, worth)
    chosen = np.argpartition(-ranked, space.n_select - 1)[: space.n_select]
    bound = space.constant + float(space.budgets @ thresholds) + float(worth[chosen].sum())
    slope = space.budgets - (space.values[:, chosen] > thresholds[:, None]).sum(axis=1)
    return bound, np.asarray(slope, dtype=np.float64)
