"""Uniqueness in the bound at fractional features: what classes may share.

Two classes that take k features each, and not the same ones, share at most k − 1. In a group G of such classes let
every pair pay β[c,d] ≥ 0 for each feature that both take, and get (k − 1) β[c,d] back. With a threshold t[c] for each
class, and P ⊆ G standing for the classes that take a feature,

    Σ_{c∈G} θ_c ≤ k Σ_c t[c] + (k − 1) Σ_{c<d} β[c,d] + Σ_f s_f h_f,
    h_f = max over P ⊆ G of Σ_{c∈P} (A[c,f] − t[c]) − Σ_{c<d∈P} β[c,d],

for any t and β. The best of these lines at given features has the multipliers of a small linear program in which each
feature is split up by P. Without β it is the sum of the class values; what it is below that is what look-alike classes
lose by having to differ, also where no feature is whole.

The same line comes about when each class of the group has the values min(A[c,f], t[c]), and feature f the bias h_f
more: in this form averages of several lines bound too, whatever their groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import highspy
import numpy as np

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.cuts import LinearCut
from qpm_opt.backends.decomposition.linear_program import Row, add_columns, add_rows, new_solver
from qpm_opt.search_space import SearchSpace

__all__ = ["DistinctValues", "Overlap", "class_kinds", "overlaps_at"]

_UNUSED = 1e-6
_LEAST_EXCESS = 1e-3
_MOST_CLASSES = 5
"""Classes in a group: the number of subsets P doubles with each, and larger groups hardly bound better."""

_NOBODY = -1


@dataclass(frozen=True, eq=False)
class Overlap:
    """A group of classes and the multipliers that bound what they gain together.

    Attributes:
        group: (m,) classes.
        thresholds: (m,) t.
        charges: (m(m − 1)/2,) β of the pairs, in the order of `itertools.combinations`.
    """

    group: IntArray
    thresholds: FloatArray
    charges: FloatArray

    def slopes(self, classes: ClassValues) -> FloatArray:
        """(n,) h."""
        takers, both = _subsets(len(self.group))
        gain = takers @ (classes.values[self.group] - self.thresholds[:, None]) - (both @ self.charges)[:, None]
        return np.asarray(np.maximum(gain.max(axis=0), 0.0))

    def returned(self, classes: ClassValues) -> float:
        """(k − 1) Σ β."""
        return float(classes.budgets[self.group[0]] - 1) * float(self.charges.sum())

    def cut(self, classes: ClassValues) -> LinearCut:
        """The line, as a cut."""
        constant = float(classes.budgets[self.group] @ self.thresholds) + self.returned(classes)
        return LinearCut.of(self.group, constant, self.slopes(classes))


@dataclass(frozen=True, eq=False)
class DistinctValues:
    """Class values, bias and a constant in which overlaps are paid: classes with them need not be told to differ.

    Attributes:
        values: (n_classes, n) value of each feature for each class.
        bias: (n,) bias in addition to the problem's.
        constant: What is to be added.
    """

    values: FloatArray
    bias: FloatArray
    constant: float

    @classmethod
    def of(cls, classes: ClassValues, overlaps: Sequence[Overlap]) -> DistinctValues:
        """With the overlaps, of which no two share a class, paid."""
        values, bias, constant = classes.values.copy(), np.zeros(classes.values.shape[1]), 0.0
        for overlap in overlaps:
            values[overlap.group] = np.minimum(values[overlap.group], overlap.thresholds[:, None])
            bias += overlap.slopes(classes)
            constant += overlap.returned(classes)
        return cls(values, bias, constant)

    def mixed(self, other: DistinctValues, share: float) -> DistinctValues:
        """The average of this and another one, of which it has `share`."""
        return DistinctValues(
            self.values + share * (other.values - self.values),
            self.bias + share * (other.bias - self.bias),
            self.constant + share * (other.constant - self.constant),
        )


def class_kinds(space: SearchSpace) -> IntArray:
    """(n_classes,) a number for each class, the same for those that might take the same features, else negative."""
    required = space.required[:, space.required.any(axis=0)]  # of few features, if of any
    traits = np.concatenate([space.budgets[:, None], required], axis=1)
    kinds = np.unique(traits, axis=0, return_inverse=True)[1].reshape(-1)
    return np.asarray(np.where(space.budgets > 0, kinds, _NOBODY), dtype=np.int64)


def overlaps_at(space: SearchSpace, classes: ClassValues, kinds: IntArray, x: FloatArray) -> list[Overlap]:
    """The groups of classes that would share too much at x, with the best multipliers there.

    Args:
        space: The problem.
        classes: Its class values.
        kinds: (n_classes,) `class_kinds`.
        x: (n,) fractional features.
    """
    return [found for group in _groups(classes, kinds, x) if (found := _best(space, classes, group, x)) is not None]


def _groups(classes: ClassValues, kinds: IntArray, x: FloatArray) -> list[IntArray]:
    """Groups of classes that share more than they may if each takes its best part of x; largest excess first."""
    used = np.flatnonzero(x > _UNUSED)
    taken, room = _taken(classes, x)[:, used], x[used]
    # w_c w_d / x is at least w_c + w_d − x, the least that two classes share at a feature.
    shared = taken / np.sqrt(room)
    possible = shared @ shared.T > classes.budgets[:, None] - 1 + _LEAST_EXCESS
    possible &= (kinds[:, None] == kinds) & (kinds != _NOBODY)
    found: list[tuple[float, int, int]] = []
    for c in np.flatnonzero(possible.any(axis=1)).tolist():
        others, own = c + 1 + np.flatnonzero(possible[c, c + 1 :]), np.flatnonzero(taken[c])
        together = np.maximum(taken[c, own] + taken[np.ix_(others, own)] - room[own], 0.0).sum(axis=1)
        excess = together - (classes.budgets[c] - 1)
        large = excess > _LEAST_EXCESS
        found += [(-amount, c, d) for amount, d in zip(excess[large].tolist(), others[large].tolist(), strict=True)]
    group_of: dict[int, list[int]] = {}
    for _, c, d in sorted(found):
        one, other = group_of.setdefault(c, [c]), group_of.setdefault(d, [d])
        if one is not other and len(one) + len(other) <= _MOST_CLASSES:
            one += other
            group_of.update(dict.fromkeys(other, one))
    groups = {id(group): group for group in group_of.values() if len(group) > 1}
    return [np.array(sorted(group)) for group in groups.values()]


def _taken(classes: ClassValues, x: FloatArray) -> FloatArray:
    """(n_classes, n) what every class takes of each feature at x."""
    taken = np.zeros(classes.order.shape)
    np.put_along_axis(taken, classes.order, classes.taken(x[classes.order]), axis=1)
    return taken


def _best(space: SearchSpace, classes: ClassValues, group: IntArray, x: FloatArray) -> Overlap | None:
    """The multipliers of the linear program at x; None where it has no solution, or the solver finds none."""
    takers, both = _subsets(len(group))
    k = int(classes.budgets[group[0]])
    order = classes.order[group]
    room = x[order]
    # A class never takes features beyond some more units of room, as the others of the group are few.
    near = (np.cumsum(room, axis=1) - room < k + len(group)) & (room > _UNUSED)
    features = np.unique(order[near])
    values = takers @ classes.values[np.ix_(group, features)]  # (subsets, features)
    allowed = values > -0.5 * space.barrier
    solver = new_solver(presolve=False)
    add_columns(solver, -values.ravel(), np.zeros(values.size), np.where(allowed, highspy.kHighsInf, 0.0).ravel())
    columns = np.arange(values.size).reshape(values.shape)
    rows = [_sum_of(columns[has > 0.0], k, least=k) for has in takers.T]
    rows += [_sum_of(columns[has > 0.0], k - 1) for has in both.T]
    rows += [_sum_of(columns[:, place], float(x[f])) for place, f in enumerate(features)]
    add_rows(solver, rows)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    multipliers = -np.array(solver.getSolution().row_dual)[: len(group) + both.shape[1]]
    return Overlap(group, multipliers[: len(group)], np.maximum(multipliers[len(group) :], 0.0))


def _sum_of(columns: IntArray, most: float, least: float = -np.inf) -> Row:
    return Row(least, most, columns.ravel(), np.ones(columns.size))


def _subsets(size: int) -> tuple[FloatArray, FloatArray]:
    """(subsets, size) which of the classes each subset but the empty one has, and (subsets, pairs) which pairs."""
    numbers = np.arange(1, 2**size)
    takers = (numbers[:, None] >> np.arange(size) & 1).astype(np.float64)
    pairs = np.array(list(combinations(range(size), 2)))
    return takers, takers[:, pairs[:, 0]] * takers[:, pairs[:, 1]]
