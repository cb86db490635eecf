"""The value of a class as a concave function of the kept features, and its supporting lines.

A class with budget k and values a gains from fractional features x the fractional knapsack

    max { a·w : 0 ≤ w ≤ x, Σ w = k } = min over t of  k t + Σ_f max(0, a_f − t) x_f,

and the best t is the value at which the features, taken from best to worst, add up to k. Every t gives a valid line, so
thresholds are all that cuts and Lagrangian bounds have to agree on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray

__all__ = ["ClassValues"]

_EMPTY = 1e-9
_SLACK = 0.02
"""What adds up to the budget but for so much of a feature adds up to it, where thresholds are to stay near."""


@dataclass(frozen=True, eq=False)
class ClassValues:
    """Values of all classes, sorted once.

    Attributes:
        values: (n_classes, n) value of each feature for each class.
        budgets: (n_classes,) features that a class takes.
        order: (n_classes, n) features of each class from best to worst.
        ranked: (n_classes, n) their values.
    """

    values: FloatArray
    budgets: IntArray
    order: IntArray
    ranked: FloatArray

    @classmethod
    def of(cls, values: FloatArray, budgets: IntArray) -> ClassValues:
        """Sort the values of all classes."""
        order = np.argsort(-values, axis=1, kind="stable")
        return cls(values, budgets, order, np.take_along_axis(values, order, axis=1))

    def changed(self, values: FloatArray) -> ClassValues:
        """With other values, sorted anew for the classes whose values differ."""
        rows = np.flatnonzero((values != self.values).any(axis=1))
        fresh = ClassValues.of(values[rows], self.budgets[rows])
        order, ranked = self.order.copy(), self.ranked.copy()
        order[rows], ranked[rows] = fresh.order, fresh.ranked
        return ClassValues(values, self.budgets, order, ranked)

    def of_some(self, classes: IntArray) -> ClassValues:
        """Those of some classes."""
        return ClassValues(self.values[classes], self.budgets[classes], self.order[classes], self.ranked[classes])

    def thresholds(self, x: FloatArray) -> FloatArray:
        """(n_classes,) the best t of every class at fractional features x (n,)."""
        filled = np.cumsum(x[self.order], axis=1)
        place = (filled < self.budgets[:, None] - _EMPTY).sum(axis=1)
        place = np.minimum(place, self.values.shape[1] - 1)
        chosen: FloatArray = self.ranked[np.arange(len(self.ranked)), place]
        return chosen

    def depth(self, near: FloatArray) -> int:
        """Places of the ranking to look at for new thresholds where those of (..., n_classes) were `near`.

        Twice as far down as they were: where one lies beyond, it gets that far, and farther the next time.
        """
        lowest = near.reshape(-1, near.shape[-1]).min(axis=0)
        above = int((self.ranked >= lowest[:, None]).sum(axis=1).max())
        return min(int(self.values.shape[1]), 2 * above + 2)

    def nearest_thresholds(self, filled: npt.NDArray[np.floating], near: FloatArray) -> FloatArray:
        """(..., n_classes) the best thresholds, of several equally good ones those nearest to `near`.

        Where whole features add up to the budget, all between two values are equally good.

        Args:
            filled: (..., n_classes, depth) how much is kept of the best, the best two, … features of each class.
            near: (..., n_classes) thresholds.
        """
        own, budgets, last = np.arange(len(self.ranked)), self.budgets[:, None], filled.shape[-1] - 1
        high = self.ranked[own, np.minimum((filled < budgets - _SLACK).sum(axis=-1), last)]
        low = self.ranked[own, np.minimum((filled < budgets + _SLACK).sum(axis=-1), last)]
        best: FloatArray = np.clip(near, low, high)
        return best

    def slopes(self, thresholds: FloatArray) -> FloatArray:
        """(n_classes, n) max(0, a − t)."""
        return np.maximum(self.values - thresholds[:, None], 0.0)

    def worth(self, thresholds: FloatArray, features: IntArray | None = None) -> FloatArray:
        """Sum of max(0, a − t) over the classes, of all features (n,) or of some (len(features),)."""
        values = self.values if features is None else self.values[:, features]
        total: FloatArray = np.maximum(values - thresholds[:, None], 0.0).sum(axis=0)
        return total

    def at(self, x: FloatArray, thresholds: FloatArray) -> FloatArray:
        """(n_classes,) the lines of `thresholds` at x; the class values where they are the best ones."""
        line: FloatArray = self.budgets * thresholds + self.slopes(thresholds) @ x
        return line

    def taken(self, room: FloatArray) -> FloatArray:
        """(n_classes, depth) how much of its features each class takes: of its best ones all, until it has enough.

        Args:
            room: (n_classes, depth) how much is kept of the features of each class, from best to worst.
        """
        before = np.cumsum(room, axis=1) - room
        taken: FloatArray = np.clip(self.budgets[:, None] - before, 0.0, room)
        return taken

    def gained(self, room: FloatArray) -> FloatArray:
        """(n_classes,) what they gain by that."""
        gained: FloatArray = (self.taken(room) * self.ranked[:, : room.shape[1]]).sum(axis=1)
        return gained
