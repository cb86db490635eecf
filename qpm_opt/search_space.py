"""The problem as the searches see it: only features that may be kept, values in objective units, locks folded in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.problem import AssignmentProblem
from qpm_opt.selection import best_weights

__all__ = ["SearchSpace", "largest"]


_MOST_KNOWN_BYTES = 50_000_000


def largest(worth: FloatArray, count: int) -> IntArray:
    """The sorted positions of the `count` largest entries, the first ones among equals."""
    return np.sort(np.argsort(-worth, kind="stable")[:count])


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Arrays over the n candidate features; positions in them are called local.

    A required pair is taken out: its value goes into `constant`, its place out of `budgets`. What is left of it, and
    every forbidden pair, gets the value −`barrier`, so low that no better solution uses it.

    Attributes:
        problem: The problem itself.
        features: (n,) positions of the candidates in the problem.
        values: (n_classes, n) σA, −barrier where locked.
        penalties: (n, n) dense symmetric penalties.
        bias: (n,) bias.
        budgets: (n_classes,) features that a class still takes besides its required ones.
        forced: (n,) bool, candidates that every solution keeps.
        constant: Value of the required pairs.
        barrier: Larger than any difference between two objectives.
    """

    problem: AssignmentProblem
    features: IntArray
    values: FloatArray
    penalties: FloatArray
    bias: FloatArray
    budgets: IntArray
    forced: npt.NDArray[np.bool_]
    constant: float
    barrier: float
    _known: dict[bytes, npt.NDArray[np.bool_] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: AssignmentProblem) -> SearchSpace:
        """The search space of a problem."""
        features = problem.candidates
        values = problem.scale * problem.class_similarity[:, features]
        penalties = problem.redundancy[features][:, features].toarray()
        bias = problem.feature_bias[features]
        required = problem.required_mask[:, features]
        constant = float(values[required].sum())
        locked = required | problem.forbidden_mask[:, features]
        values[locked] = 0.0
        spread = (
            2.0 * float(np.abs(values).max()) * float(problem.n_per_class.sum())
            + float(penalties.max(initial=0.0)) * problem.n_select**2
            + 2.0 * float(np.abs(bias).sum())
        )
        barrier = 4.0 * spread if spread > 0.0 else 1.0
        values[locked] = -barrier
        return cls(
            problem=problem,
            features=features,
            values=values,
            penalties=penalties,
            bias=bias,
            budgets=problem.n_per_class - required.sum(axis=1),
            forced=np.isin(features, problem.forced_features),
            constant=constant,
            barrier=barrier,
        )

    @property
    def n_select(self) -> int:
        """How many features to keep."""
        return self.problem.n_select

    @cached_property
    def required(self) -> npt.NDArray[np.bool_]:
        """(n_classes, n) bool: required pairs."""
        return self.problem.required_mask[:, self.features]

    def restricted(self, kept: npt.NDArray[np.bool_], forced: npt.NDArray[np.bool_]) -> SearchSpace:
        """The space of some of its features.

        Args:
            kept: (n,) bool, features that stay.
            forced: (n,) bool, those that every solution keeps from now on; all of them stay.
        """
        return replace(
            self,
            features=self.features[kept],
            values=np.ascontiguousarray(self.values[:, kept]),
            penalties=np.ascontiguousarray(self.penalties[np.ix_(kept, kept)]),
            bias=self.bias[kept],
            forced=forced[kept],
        )

    def to_local(self, selected: IntArray) -> IntArray:
        """Local positions of features of the problem that are candidates; others are left out."""
        return np.flatnonzero(np.isin(self.features, selected))

    def relaxed_value(self, chosen: IntArray) -> float:
        """Objective of a set of local features when classes may coincide; an upper bound on `exact`."""
        inside = -np.sort(-self.values[:, chosen], axis=1)
        kept = np.arange(len(chosen)) < self.budgets[:, None]
        return self.constant + float(inside[kept].sum()) + self.set_value(chosen)

    def set_value(self, chosen: IntArray) -> float:
        """Z_R + Z_B of a set of local features."""
        return float(self.bias[chosen].sum()) - 0.5 * float(self.penalties[np.ix_(chosen, chosen)].sum())

    def exact(self, chosen: IntArray) -> tuple[float, npt.NDArray[np.bool_] | None]:
        """Objective of a set of local features with uniqueness, and W; minus infinity and None where it admits none."""
        selected = self.features[chosen]
        weights = self._best_weights(selected)
        if weights is None:
            return -np.inf, None
        similarity = self.problem.scale * float(self.problem.class_similarity[:, selected][weights].sum())
        return similarity + self.set_value(chosen), weights

    def _best_weights(self, selected: IntArray) -> npt.NDArray[np.bool_] | None:
        """`best_weights`, remembered: searches come back to sets, most of all where there are few."""
        key = selected.tobytes()
        try:  # several threads may ask, and clear
            return self._known[key]
        except KeyError:
            pass
        weights = best_weights(self.problem, selected)
        if len(self._known) * self.problem.n_classes * self.n_select >= _MOST_KNOWN_BYTES:
            self._known.clear()
        self._known[key] = weights
        return weights
