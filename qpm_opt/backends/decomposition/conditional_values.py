"""Class values seen from each kept feature: what single features leave open and pairs of them know.

K features are kept, so Σ s_i = K and T(s) = (1/K) Σ_i s_i T(s); and where i is kept, thresholds t^i of its own will do:

    T(s) ≤ (1/K) Σ_i [ Σ_c k_c t^i_c s_i + Σ_f V^i_f s_i s_f ],        V^i_f = Σ_c max(0, a_cf − t^i_c),

with s_i s_f lifted to X. Equal thresholds give the line of `class_values` again. Two features that look alike, each
kept by half, let it take the one for some classes and the other for others; seen from either the other is not there.

Only features of which a good part is kept have thresholds of their own. All others share those of the line, and what is
gained enters the objective as a change of penalties and bias.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.charges import Charges
from qpm_opt.backends.decomposition.class_values import ClassValues

__all__ = ["ConditionalValues", "shares_of_others"]

_LEAST_KEPT = 0.05
_LEAST_TO_STAY = 0.02
"""How much of a feature is kept from which on it gets, and has, thresholds of its own: to lose them is a jolt."""

_LOOKED_AT = 10000
"""Pairs of a feature and a class whose thresholds follow in one iteration."""

_PACE = 0.1
"""Share of the way to its best place that a threshold goes in one iteration, on average."""

_LONGEST_STEP = 0.5
_EMPTY = 1e-6


class ConditionalValues:
    """Thresholds of some features, which are positions in a working set.

    Args:
        n_select: K, the features to choose.
        n_classes: Number of classes.
    """

    def __init__(self, n_select: int, n_classes: int) -> None:
        self._k = n_select
        self._rows: IntArray = np.zeros(0, dtype=np.int64)
        self._thresholds: FloatArray = np.zeros((0, n_classes))
        self._weights: FloatArray = np.ones(n_classes)
        self._worth: FloatArray = np.zeros((0, 0))
        self._next = 0

    @property
    def features(self) -> IntArray:
        """Those with thresholds of their own."""
        return self._rows

    def choose(self, x: FloatArray, thresholds: FloatArray, values: ClassValues) -> None:
        """Give own thresholds to the features that are kept by a good part; they begin at the common ones."""
        least = np.full(len(x), _LEAST_KEPT)
        least[self._rows] = _LEAST_TO_STAY
        rows = np.flatnonzero(x > least)
        chosen = np.tile(thresholds, (len(rows), 1))
        known, place = np.isin(rows, self._rows), np.searchsorted(self._rows, rows)
        chosen[known] = self._thresholds[place[known]]
        self._rows, self._thresholds, self._next = rows, chosen, 0
        self._worth = self._worth_at(values, chosen)

    def weigh(self, weights: FloatArray) -> None:
        """Bound only so much of each class's value (n_classes,)."""
        self._weights = weights
        self._worth = np.zeros((0, 0))

    def renumber(self, places: IntArray, n_select: int) -> None:
        """Features have left: those that stay have new `places` (n,), the others −1; `n_select` are still to choose."""
        stay = places[self._rows] >= 0
        self._rows, self._thresholds = places[self._rows[stay]], self._thresholds[stay]
        self._k, self._worth, self._next = n_select, np.zeros((0, 0)), 0

    def follow(self, x: FloatArray, pairs: npt.NDArray[np.floating], values: ClassValues, pace: float = 1.0) -> None:
        """Let the thresholds of some features follow X = `pairs` (n, n), those of the next ones at the next call.

        Args:
            x: (n,) how much of each feature is kept.
            pairs: (n, n) how much of each pair is.
            values: Of the n features, and of those that are kept in any case behind them.
            pace: How fast, in units of the full pace.
        """
        n, count = len(x), len(self._rows)
        if not count:
            return
        worth = self._worth_of(values)
        mine = (self._next + np.arange(min(count, max(1, _LOOKED_AT // len(values.budgets))))) % count
        self._next = int(mine[-1] + 1) % count
        rows = self._rows[mine]
        kept = np.ones((len(rows), values.values.shape[1]), dtype=np.float32)
        kept[:, :n] = shares_of_others(pairs[rows], x[rows], rows, self._k - 1)
        kept[np.arange(len(rows)), rows] = 1.0
        near = self._thresholds[mine]
        filled = np.cumsum(kept[:, values.order[:, : values.depth(near)]], axis=2)
        step = min(_LONGEST_STEP, pace * _PACE * count / len(mine))
        self._thresholds[mine] += step * (values.nearest_thresholds(filled, near) - near)
        worth[mine] = self._worth_at(values, self._thresholds[mine])

    def at(
        self, x: FloatArray, pairs: npt.NDArray[np.floating], thresholds: FloatArray, values: ClassValues
    ) -> FloatArray:
        """(n_classes,) the bounds on the class values at X = `pairs`, whole ones, with the common `thresholds`."""
        forced = np.ones(values.values.shape[1] - len(x))
        depth, budgets = values.depth(np.vstack([thresholds, self._thresholds])), values.budgets
        top, ranked = values.order[:, :depth], values.ranked[:, :depth]
        common = np.maximum(ranked - thresholds[:, None], 0.0)
        gained = np.zeros(len(budgets))
        for i, own in zip(self._rows.tolist(), self._thresholds, strict=True):
            together = np.concatenate([pairs[i], x[i] * forced])[top]
            gained += x[i] * budgets * (own - thresholds)
            gained += ((np.maximum(ranked - own[:, None], 0.0) - common) * together).sum(axis=1)
        return values.at(np.concatenate([x, forced]), thresholds) + gained / self._k

    def charges(self, thresholds: FloatArray, values: ClassValues, n: int) -> Charges:
        """What the own thresholds change of the line of the common ones, over n features.

        Args:
            thresholds: (n_classes,) the common ones.
            values: As in `follow`.
            n: Number of features, without those that are kept in any case.
        """
        gain, bias = np.zeros((n, n)), np.zeros(n)
        if len(self._rows):
            more = (self._worth_of(values) - self._common_worth(values.values, thresholds)) / self._k
            gain[self._rows] = more[:, :n]
            own = (self._thresholds - thresholds) @ (self._weights * values.budgets)
            bias[self._rows] = own / self._k + more[:, n:].sum(axis=1)
        return Charges.of_gain(gain, bias, 0.0)

    def beyond(self, thresholds: FloatArray, values: ClassValues, features: IntArray) -> FloatArray:
        """(len(features), len(self.features)) what is to be added to the penalties of pairs with others of `values`."""
        common = self._common_worth(values.values[:, features], thresholds)
        charged: FloatArray = -(self._worth_at(values, self._thresholds)[:, features] - common).T / self._k
        return charged

    def _worth_of(self, values: ClassValues) -> FloatArray:
        """What is kept of V (rows, n), anew where the working set has grown."""
        if self._worth.shape[1] != values.values.shape[1]:
            self._worth = self._worth_at(values, self._thresholds)
        return self._worth

    def _common_worth(self, values: FloatArray, thresholds: FloatArray) -> FloatArray:
        """(n,) sum of max(0, a − t) over the classes by their weights, for the common thresholds."""
        worth: FloatArray = self._weights @ np.maximum(values - thresholds[:, None], 0.0)
        return worth

    def _worth_at(self, values: ClassValues, thresholds: FloatArray) -> FloatArray:
        """(rows, n) the same for each row of thresholds (rows, n_classes)."""
        total = np.zeros((len(thresholds), values.values.shape[1]))
        if not len(thresholds):
            return total
        # Most values lie below all thresholds of their class.
        counts = (values.ranked > thresholds.min(axis=0)[:, None]).sum(axis=1).tolist()
        classes = zip(values.order, values.ranked, thresholds.T, counts, self._weights.tolist(), strict=True)
        for order, ranked, own, count, weight in classes:
            total[:, order[:count]] += weight * np.maximum(ranked[:count] - own[:, None], 0.0)
        return total


def shares_of_others(
    together: npt.NDArray[np.floating], much: FloatArray, features: IntArray, total: int
) -> FloatArray:
    """How much is kept of each other feature in a case of each of `features`: `total` of them, none of itself.

    Args:
        together: (rows, n) how much of every feature is kept in that case.
        much: (rows,) how much the case makes up.
        features: (rows,) the feature of each row.
        total: How many others are kept.
    """
    shares: FloatArray = np.clip(together / np.maximum(much, _EMPTY)[:, None], 0.0, 1.0)
    shares[np.arange(len(features)), features] = 0.0
    shares *= (total / np.maximum(shares.sum(axis=1), _EMPTY))[:, None]
    return np.minimum(shares, 1.0, out=shares)
