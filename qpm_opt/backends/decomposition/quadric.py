"""Inequalities of the Boolean quadric polytope for the semidefinite bound, charged to its objective.

For whole numbers b_f and β, b·s − β and b·s − β − 1 are never of opposite sign, so that

    ½ (b·s − β)(b·s − β − 1) ≥ 0,    lifted    Σ_{i<j} b_i b_j X_ij + Σ_i ½ (b_i² − (2β + 1) b_i) x_i + ½ β(β + 1) ≥ 0

(Boros and Hammer 1993). With b = ±1 on three features these are the triangle inequalities, which `triangles` knows by
enumeration; here are those of four and more. They cut where b·x is no whole number and X lets b·s vary less than it
then must, so sums that hardly vary are built up, one feature at a time.

A multiplier λ ≥ 0 on each moves into the penalties, the bias and the constant, so any multipliers leave the bound
valid. They follow the violation in small steps while the iteration goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.charges import Charges
from qpm_opt.search_space import largest

__all__ = ["QuadricInequalities"]

BoolArray = npt.NDArray[np.bool_]

_STEP = 3.3
_SINGLE = 2.0 / 3.0
"""Step of a multiplier in units of the penalty parameter, divided by how many inequalities share its pairs and, for
less, its single features: x_i stands in three places of Y and gives way less than X_ij, which stands in two.

Where only pairs are counted and sums are large (30 classes of a real data set) single features weigh most, and the
multipliers and the iteration drive each other apart.
"""

_SMALLEST, _LARGEST = 4, 7
"""Features in an inequality. Those of eight and nine add nothing."""

_LEAST_VIOLATION = 0.01
_LEAST_OPEN = 0.02
_FEATURES = 256
"""So many features take part: those of which nearest to one half is kept, and more than `_LEAST_OPEN` kept and left."""

_BREADTH = 4
"""So many continuations of each sum of one and of two features are followed, and one of each larger sum."""

_MOST = 4000


class QuadricInequalities:
    """The inequalities in use and their multipliers, over the positions of features in a matrix X (n, n)."""

    def __init__(self) -> None:
        self._members: IntArray = np.zeros((0, _LARGEST), dtype=np.int64)
        self._signs: FloatArray = np.zeros((0, _LARGEST))  # b of the members, 0 where there are fewer
        self._below: FloatArray = np.zeros(0)  # β
        self._multipliers: FloatArray = np.zeros(0)
        self._steps: FloatArray = np.zeros(0)

    def __len__(self) -> int:
        return len(self._multipliers)

    def ascend(self, pairs: npt.NDArray[np.floating], penalty: float) -> None:
        """A step of the multipliers by the violation at X = `pairs`, `penalty` being the penalty parameter."""
        square = pairs[self._members[:, :, None], self._members[:, None, :]]
        spread = np.einsum("qi,qij,qj->q", self._signs, square, self._signs)
        mean = np.einsum("qi,qii->q", self._signs, square)
        slack = 0.5 * (spread - (2.0 * self._below + 1.0) * mean + self._below * (self._below + 1.0))
        self._multipliers = np.maximum(self._multipliers - penalty * self._steps * slack, 0.0)

    def separate(self, pairs: npt.NDArray[np.floating]) -> None:
        """Forget inequalities without a multiplier and add the most violated ones at X = `pairs`."""
        self._retain(self._multipliers > 0.0)
        members, signs, below = _violated(pairs)
        known = set(map(_key, self._members, self._signs, self._below))
        fresh = [q for q in range(len(below)) if _key(members[q], signs[q], below[q]) not in known]
        fresh = fresh[: max(0, _MOST - len(self))]
        self._members = np.concatenate([self._members, members[fresh]])
        self._signs = np.concatenate([self._signs, signs[fresh]])
        self._below = np.concatenate([self._below, below[fresh]])
        self._multipliers = np.concatenate([self._multipliers, np.zeros(len(fresh))])
        first, second, sign = self._sides()
        sharing = np.zeros(pairs.shape)
        np.add.at(sharing, (first, second), np.abs(sign))
        sharing += sharing.T
        own, singles = np.abs(self._own()), np.zeros(len(pairs))
        np.add.at(singles, self._members, own)
        shared = (sharing[first, second] * np.abs(sign)).sum(axis=1)
        shared += _SINGLE * (singles[self._members] * own).sum(axis=1)
        self._steps = _STEP / np.maximum(shared, 1.0)

    def renumber(self, places: IntArray) -> None:
        """Features have left: those that stay have new `places` (n,), the others −1."""
        self._members = np.where(self._signs != 0.0, places[self._members], 0)
        self._retain(np.asarray((self._members >= 0).all(axis=1)))

    def charges(self, n: int) -> Charges:
        """What the present multipliers add to the penalties, the bias and the constant of n features."""
        amount, below = self._multipliers, self._below
        penalties, bias = np.zeros((n, n)), np.zeros(n)
        first, second, sign = self._sides()
        np.add.at(penalties, (first, second), -amount[:, None] * sign)
        np.add.at(bias, self._members, amount[:, None] * self._own())
        return Charges(penalties + penalties.T, bias, 0.5 * float(amount @ (below * (below + 1.0))))

    def _retain(self, keep: BoolArray) -> None:
        self._members, self._signs, self._below = self._members[keep], self._signs[keep], self._below[keep]
        self._multipliers, self._steps = self._multipliers[keep], self._steps[keep]

    def _own(self) -> FloatArray:
        """(m, members) the factor of x of each member."""
        own: FloatArray = 0.5 * (self._signs**2 - (2.0 * self._below + 1.0)[:, None] * self._signs)
        return own

    def _sides(self) -> tuple[IntArray, IntArray, FloatArray]:
        """(m, pairs) the two features of each pair of members, and the product of their b."""
        one, other = np.triu_indices(_LARGEST, 1)
        return self._members[:, one], self._members[:, other], self._signs[:, one] * self._signs[:, other]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums b·s under the covariance X − x xᵀ: a row each.

    Attributes:
        signs: (m, n) b.
        image: (m, n) b times the covariance.
        variance: (m,) of the sums.
        mean: (m,) b·x.
    """

    signs: FloatArray
    image: FloatArray
    variance: FloatArray
    mean: FloatArray

    def violation(self) -> FloatArray:
        """(m,) of the inequality with the best β for each."""
        return _violation(self.variance, self.mean)

    def extended(self, covariance: FloatArray, x: FloatArray, breadth: int) -> _Sums:
        """Each with one more feature, added or taken away: the `breadth` ways that are most violated."""
        own, ways = covariance.diagonal(), np.array([1.0, -1.0])[:, None]
        variance = self.variance[:, None, None] + own + 2.0 * ways * self.image[:, None, :]
        promise = _violation(variance, self.mean[:, None, None] + ways * x)
        promise = np.where(self.signs[:, None, :] == 0.0, promise, -np.inf).reshape(len(self.mean), -1)
        best = np.argpartition(-promise, breadth - 1, axis=1)[:, :breadth]
        row, place = np.nonzero(np.take_along_axis(promise, best, axis=1) > -np.inf)
        feature = best[row, place] % len(x)
        sign = np.where(best[row, place] < len(x), 1.0, -1.0)
        signs = self.signs[row]
        signs[np.arange(len(row)), feature] = sign
        # b and −b say the same: the first feature of each counts positively.
        turned = np.take_along_axis(signs, (signs != 0.0).argmax(axis=1)[:, None], axis=1)
        once = np.unique((signs * turned).astype(np.int8), axis=0, return_index=True)[1]
        row, feature, sign = row[once], feature[once], sign[once]
        return _Sums(
            signs[once],
            self.image[row] + sign[:, None] * covariance[feature],
            self.variance[row] + own[feature] + 2.0 * sign * self.image[row, feature],
            self.mean[row] + sign * x[feature],
        )


def _violation(variance: FloatArray, mean: FloatArray) -> FloatArray:
    part = mean - np.floor(mean)
    violation: FloatArray = 0.5 * (part * (1.0 - part) - variance)
    return violation


def _violated(pairs: npt.NDArray[np.floating]) -> tuple[IntArray, FloatArray, FloatArray]:
    """Members, signs and β of violated inequalities, the most violated first."""
    everything = np.asarray(pairs.diagonal(), dtype=np.float64)
    open_part = np.minimum(everything, 1.0 - everything)
    used = np.sort(largest(open_part, _FEATURES))
    used = used[open_part[used] > _LEAST_OPEN]
    members: list[IntArray] = [np.zeros((0, _LARGEST), dtype=np.int64)]
    signs: list[FloatArray] = [np.zeros((0, _LARGEST))]
    below, violation = [np.zeros(0)], [np.zeros(0)]
    if len(used) >= _SMALLEST:
        x = everything[used]
        covariance = np.asarray(pairs[np.ix_(used, used)], dtype=np.float64) - np.outer(x, x)
        sums = _Sums(np.eye(len(used)), covariance, covariance.diagonal(), x)
        for size in range(2, min(_LARGEST, len(used)) + 1):
            sums = sums.extended(covariance, x, _BREADTH if size <= 3 else 1)
            amount = sums.violation()
            violated = np.flatnonzero(amount > _LEAST_VIOLATION) if size >= _SMALLEST else np.zeros(0, dtype=np.int64)
            place = np.nonzero(sums.signs[violated])[1].reshape(-1, size)
            room = ((0, 0), (0, _LARGEST - size))
            members.append(np.pad(used[place], room))
            signs.append(np.pad(np.take_along_axis(sums.signs[violated], place, axis=1), room))
            below.append(np.floor(sums.mean[violated]))
            violation.append(amount[violated])
    order = np.argsort(-np.concatenate(violation), kind="stable")
    return np.concatenate(members)[order], np.concatenate(signs)[order], np.concatenate(below)[order]


def _key(members: IntArray, signs: FloatArray, below: float) -> tuple[float, ...]:
    """The same for all ways to write an inequality: with b, or with −b and −β − 1."""
    turned = float(signs[0])
    beginning = below if turned > 0.0 else -below - 1.0
    return (*members.tolist(), *(signs * turned).tolist(), float(beginning))
