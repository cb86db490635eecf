"""Class values with and without one feature: what look-alike features at one half leave open.

A feature d is kept or it is not, so that a class with budget k and values a gains at most

    s_d [ k t⁺ + Σ_f max(0, a_f − t⁺) s_f ] + (1 − s_d) [ k t⁻ + Σ_f max(0, a_f − t⁻) s_f ]

for any thresholds t⁺ and t⁻, with s_d s_f lifted to X. Each class has some features d, its options, and averages of
such bounds bound too: weight goes to the options that bound best at present, what they leave stays with the bound that
the class had before. All move slowly: a point that one option cuts off soon finds another place, and what counts is the
average that leaves none. What is gained enters the objective as a change of penalties, bias and constant.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.charges import Charges
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.conditional_values import shares_of_others

__all__ = ["Disjunctions"]

_OPTIONS = 3
_LEAST_OPEN = 0.03
"""A feature is an option where more than this of it is kept, and left."""

_CANDIDATES = 30
"""Features of each class, from its best onwards, that are looked at."""

_LIGHT = 0.02
"""An option gives way to a better one when it has no more weight than this."""

_PACE = 0.05
"""Share of the way to its best place that a threshold goes in an iteration, at full pace. Ten times as fast, thresholds
and the iteration drive each other apart.
"""

_PACE_OF_WEIGHTS = 0.2
"""Share of all weight that goes to the best options at a time, at full pace."""

_EMPTY = 1e-6

BoolArray = npt.NDArray[np.bool_]
Pairs = npt.NDArray[np.floating]


class Disjunctions:
    """Options of all classes, which are positions in a working set.

    Args:
        n_select: K, the features to choose.
        n_classes: Number of classes.
    """

    def __init__(self, n_select: int, n_classes: int) -> None:
        self._k = n_select
        shape = (n_classes, _OPTIONS)
        self._options: IntArray = np.zeros(shape, dtype=np.int64)
        self._known: BoolArray = np.zeros(shape, dtype=bool)
        self._kept: FloatArray = np.zeros(shape)  # t⁺
        self._left: FloatArray = np.zeros(shape)  # t⁻
        self._weights: FloatArray = np.zeros(shape)
        self._turn = 0

    @property
    def rest(self) -> FloatArray:
        """(n_classes,) the weight that stays with the bound of before."""
        rest: FloatArray = 1.0 - self._weights.sum(axis=1)
        return rest

    def choose(self, x: FloatArray, pairs: Pairs, values: ClassValues) -> None:
        """One more option for each class that gains by it and has one to spare.

        Args:
            x: (n,) how much of each feature is kept.
            pairs: (n, n) how much of each pair is.
            values: Of the n features, and of those that are kept in any case behind them.
        """
        common = values.thresholds(_extended(x[None], values)[0])
        best = self._best_candidates(x, pairs, values, values.depth(common))
        place = np.where(self._known, self._weights, -1.0).argmin(axis=1)
        chosen = (best >= 0) & (self._weights[np.arange(len(best)), place] <= _LIGHT)
        where = np.flatnonzero(chosen), place[chosen]
        self._options[where], self._known[where], self._weights[where] = best[chosen], True, 0.0
        self._kept[where] = self._left[where] = common[chosen]
        for option in range(_OPTIONS):
            self._approach(option, (chosen & (place == option)).astype(np.float64), x, pairs, values)

    def renumber(self, places: IntArray, n_select: int) -> None:
        """Features have left: those that stay have new `places` (n,), the others −1; `n_select` are still to choose."""
        self._known &= places[self._options] >= 0
        self._options = np.where(self._known, places[self._options], 0)
        self._weights[~self._known] = 0.0
        self._k = n_select

    def follow(self, x: FloatArray, pairs: Pairs, values: ClassValues, pace: float) -> None:
        """Let the thresholds of one option of each class follow X = `pairs`, those of the next one at the next call.

        Args:
            x: (n,) as in `choose`.
            pairs: (n, n) as in `choose`.
            values: As in `choose`.
            pace: How fast, in units of the full pace.
        """
        self._turn = (self._turn + 1) % _OPTIONS
        step = np.full(len(self._options), min(1.0, _OPTIONS * _PACE * pace))
        self._approach(self._turn, step, x, pairs, values)

    def _best_candidates(self, x: FloatArray, pairs: Pairs, values: ClassValues, depth: int) -> IntArray:
        """(n_classes,) the feature that would be the best further option of each class, −1 where none gains."""
        is_open = np.minimum(x, 1.0 - x) > _LEAST_OPEN
        candidates = np.flatnonzero(is_open)
        everything, top = _extended(x[None], values)[0], values.order[:, :depth]
        classes, plain = np.arange(len(top)), values.gained(everything[top])
        best, best_gain = np.full(len(top), -1), np.full(len(top), _EMPTY)
        if not len(candidates):
            return best
        shares = self._shares(candidates, x, pairs, values)
        counts = np.cumsum(np.append(is_open, np.zeros(len(everything) - len(x), dtype=bool))[top], axis=1)
        for number in range(1, min(_CANDIDATES, int(counts.max())) + 1):
            d = top[classes, np.minimum((counts < number).sum(axis=1), depth - 1)]
            usable = (counts[:, -1] >= number) & ~((self._options == d[:, None]) & self._known).any(axis=1)
            d = np.where(usable, d, candidates[0])
            row = np.searchsorted(candidates, d)[:, None]
            kept, left = (values.gained(share[row, top]) for share in shares)
            gain = np.where(usable, plain - x[d] * kept - (1.0 - x[d]) * left, -np.inf)
            best, best_gain = np.where(gain > best_gain, d, best), np.maximum(gain, best_gain)
        return best

    def _approach(self, option: int, step: FloatArray, x: FloatArray, pairs: Pairs, values: ClassValues) -> None:
        """Move the thresholds of an option by `step` (n_classes,), a share of the way to their best places."""
        classes = np.flatnonzero(self._known[:, option] & (step > 0.0))
        if not len(classes):
            return
        used, row = np.unique(self._options[classes, option], return_inverse=True)
        some = values.of_some(classes)
        for thresholds, share in zip((self._kept, self._left), self._shares(used, x, pairs, values), strict=True):
            near = thresholds[classes, option]
            filled = np.cumsum(share[row[:, None], some.order[:, : some.depth(near)]], axis=1)
            thresholds[classes, option] += step[classes] * (some.nearest_thresholds(filled, near) - near)

    def weigh(self, x: FloatArray, pairs: Pairs, values: ClassValues, before: FloatArray, pace: float) -> None:
        """Move weight to what bounds a class best at X, an option or the bound of `before` (n_classes,)."""
        bounds = np.column_stack([*(self._at(option, x, pairs, values) for option in range(_OPTIONS)), before])
        best = bounds.argmin(axis=1)
        share = min(1.0, _PACE_OF_WEIGHTS * pace)
        self._weights *= 1.0 - share
        moved = np.flatnonzero(best < _OPTIONS)
        self._weights[moved, best[moved]] += share

    def charges(self, thresholds: FloatArray, values: ClassValues, n: int) -> Charges:
        """What the options change of the line of `thresholds`, over n features.

        Args:
            thresholds: (n_classes,) of the line that all classes are charged with.
            values: As in `choose`.
            n: Number of features, without those that are kept in any case.
        """
        linear, gain = self.slopes(thresholds, values.values, n)
        bias, constant = linear[:n] + gain[:, n:].sum(axis=1), float(linear[n:].sum())
        for d, weight, kept, left in self._each_option():
            amount = weight * values.budgets
            bias += np.bincount(d, weights=amount * (kept - left), minlength=n)
            constant += float(amount @ (left - thresholds))
        return Charges.of_gain(gain[:, :n], bias, constant)

    def slopes(self, thresholds: FloatArray, values: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
        """What the options add to the worth of features with `values` (n_classes, m), on their own and with others.

        Returns:
            (m,) of each feature by itself, and (n, m) where it is kept with a feature of the working set.
        """
        plain = np.maximum(values - thresholds[:, None], 0.0)
        linear, gain = np.zeros(values.shape[1]), np.zeros((n, values.shape[1]))
        for d, weight, kept, left in self._each_option():
            some = np.flatnonzero(weight)
            without = np.maximum(values[some] - left[some, None], 0.0)
            more = np.maximum(values[some] - kept[some, None], 0.0) - without
            linear += weight[some] @ (without - plain[some])
            gain += sparse.csr_array((weight[some], (d[some], np.arange(len(some)))), shape=(n, len(some))) @ more
        return linear, gain

    def _each_option(self) -> list[tuple[IntArray, FloatArray, FloatArray, FloatArray]]:
        """Feature, weight and thresholds t⁺, t⁻ of all classes, option by option."""
        return list(zip(self._options.T, self._weights.T, self._kept.T, self._left.T, strict=True))

    def _at(self, option: int, x: FloatArray, pairs: Pairs, values: ClassValues) -> FloatArray:
        """(n_classes,) the bounds of one option at X, infinite for classes without it."""
        d, kept, left = self._options[:, option], self._kept[:, option], self._left[:, option]
        together = _extended(np.asarray(pairs[d], dtype=np.float64), values, x[d])
        apart = _extended(x[None], values) - together
        bound = values.budgets * (kept * x[d] + left * (1.0 - x[d]))
        bound += (np.maximum(values.values - kept[:, None], 0.0) * together).sum(axis=1)
        bound += (np.maximum(values.values - left[:, None], 0.0) * apart).sum(axis=1)
        return np.where(self._known[:, option], bound, np.inf)

    def _shares(
        self, features: IntArray, x: FloatArray, pairs: Pairs, values: ClassValues
    ) -> tuple[FloatArray, FloatArray]:
        """(features, n and those kept anyway) of all, how much is kept where each feature is, and where it is not."""
        together, much = np.asarray(pairs[features], dtype=np.float64), x[features]
        kept = shares_of_others(together, much, features, self._k - 1)
        kept[np.arange(len(features)), features] = 1.0
        left = shares_of_others(x - together, 1.0 - much, features, self._k)
        return _extended(kept, values), _extended(left, values)


def _extended(shares: FloatArray, values: ClassValues, forced: float | FloatArray = 1.0) -> FloatArray:
    """Rows over n features, extended by those of `values` that are kept in any case: so much of each."""
    missing = values.values.shape[1] - shares.shape[1]
    behind = np.broadcast_to(np.reshape(forced, (-1, 1)), (len(shares), missing))
    return np.concatenate([shares, behind], axis=1)
