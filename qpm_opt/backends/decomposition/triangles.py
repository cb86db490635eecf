"""Triangle inequalities for the semidefinite bound, charged to its objective.

Of three features of a set, with x_ij = 1 where both i and j are kept,

    x_ij + x_ik − x_jk − x_i ≤ 0,        x_i + x_j + x_k − x_ij − x_ik − x_jk ≤ 1.

A multiplier λ ≥ 0 on each moves into the penalties, the bias and the constant, so any multipliers leave the bound
valid. They follow the violation in small steps while the iteration goes on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.charges import Charges
from qpm_opt.search_space import largest

__all__ = ["Triangles"]

BoolArray = npt.NDArray[np.bool_]

_STEP = 0.7
"""Step of a multiplier in units of the penalty parameter, divided by how many triangles share its sides.

With steps above 1 the multipliers and the iteration can drive each other apart.
"""

_LEAST_VIOLATION = 0.005
_LEAST_SHARE = 0.02
_CORNERS = 256
_MOST = 8000


class Triangles:
    """The inequalities in use and their multipliers, over the positions of features in a matrix X (n, n)."""

    def __init__(self) -> None:
        self._corners: IntArray = np.zeros((0, 3), dtype=np.int64)
        self._covering: BoolArray = np.zeros(0, dtype=bool)  # the second of the two inequalities
        self._multipliers: FloatArray = np.zeros(0)
        self._steps: FloatArray = np.zeros(0)

    def __len__(self) -> int:
        return len(self._multipliers)

    def ascend(self, pairs: npt.NDArray[np.floating], penalty: float) -> None:
        """A step of the multipliers by the violation at X = `pairs`, `penalty` being the penalty parameter."""
        i, j, k = self._corners.T
        across, own = pairs[j, k], pairs[i, i]
        beside = pairs[i, j] + pairs[i, k]
        corners = own + pairs[j, j] + pairs[k, k]
        violation = np.where(self._covering, corners - beside - across - 1.0, beside - across - own)
        self._multipliers = np.maximum(self._multipliers + penalty * self._steps * violation, 0.0)

    def separate(self, pairs: npt.NDArray[np.floating]) -> None:
        """Forget inequalities without a multiplier and add the most violated ones at X = `pairs`."""
        self._retain(self._multipliers > 0.0)
        violation, corners, covering = _violated(pairs)
        known = {(*corner, kind) for corner, kind in zip(self._corners.tolist(), self._covering.tolist(), strict=True)}
        ranked = np.argsort(-violation, kind="stable")[: max(0, _MOST - len(self))]
        fresh = [q for q in ranked.tolist() if (*corners[q].tolist(), bool(covering[q])) not in known]
        self._corners = np.concatenate([self._corners, corners[fresh]])
        self._covering = np.concatenate([self._covering, covering[fresh]])
        self._multipliers = np.concatenate([self._multipliers, np.zeros(len(fresh))])
        sharing = np.zeros(pairs.shape)
        sides = np.sort(self._corners[:, [[0, 1], [0, 2], [1, 2]]], axis=2)
        np.add.at(sharing, (sides[:, :, 0], sides[:, :, 1]), 1.0)
        self._steps = _STEP / sharing[sides[:, :, 0], sides[:, :, 1]].sum(axis=1)

    def renumber(self, places: IntArray) -> None:
        """Features have left: those that stay have new `places` (n,), the others −1."""
        self._corners = places[self._corners]
        self._retain(np.asarray((self._corners >= 0).all(axis=1)))

    def charges(self, n: int) -> Charges:
        """What the present multipliers add to the penalties, the bias and the constant of n features."""
        i, j, k = self._corners.T
        amount, covering = self._multipliers, self._covering
        beside = np.where(covering, -amount, amount)
        penalties, bias = np.zeros((n, n)), np.zeros(n)
        for first, second, charge in ((i, j, beside), (i, k, beside), (j, k, -amount)):
            np.add.at(penalties, (first, second), charge)
        np.add.at(bias, i, beside)
        for corner in (j, k):
            np.add.at(bias, corner[covering], -amount[covering])
        return Charges(penalties + penalties.T, bias, float(amount[covering].sum()))

    def _retain(self, keep: BoolArray) -> None:
        self._corners, self._covering = self._corners[keep], self._covering[keep]
        self._multipliers, self._steps = self._multipliers[keep], self._steps[keep]


def _violated(pairs: npt.NDArray[np.floating]) -> tuple[FloatArray, IntArray, BoolArray]:
    """Violation, corners and kind of all violated inequalities among the features in use."""
    x = np.asarray(pairs.diagonal(), dtype=np.float64)
    used = np.sort(largest(x, _CORNERS))
    used = used[x[used] > _LEAST_SHARE]
    inner, own = np.asarray(pairs[np.ix_(used, used)], dtype=np.float64), x[used]
    violation: list[FloatArray] = [np.zeros(0)]
    corners: list[IntArray] = [np.zeros((0, 3), dtype=np.int64)]
    covering: list[BoolArray] = [np.zeros(0, dtype=bool)]
    upper = np.triu(np.ones_like(inner, dtype=bool), 1)
    for i, row in enumerate(inner):
        beside = row[:, None] + row[None, :] - inner
        others = upper.copy()
        others[i] = others[:, i] = False
        # The second inequality has no order of its corners: only i < j < k is looked at.
        later = upper.copy()
        later[: i + 1] = False
        hanging = beside - own[i]
        spread = own[i] + own[:, None] + own[None, :] - row[:, None] - row[None, :] - inner - 1.0
        for amount, allowed, kind in ((hanging, others, False), (spread, later, True)):
            j, k = np.nonzero(allowed & (amount > _LEAST_VIOLATION))
            violation.append(amount[j, k])
            corners.append(used[np.column_stack([np.full(len(j), i), j, k])])
            covering.append(np.full(len(j), kind))
    return np.concatenate(violation), np.concatenate(corners), np.concatenate(covering)
