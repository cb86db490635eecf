"""Uniqueness, exactly: the best distinct feature sets of all classes, given the kept features.

Each class would take its best features. Where several classes would take the same set, they are given candidates, their
next-best sets, and an assignment problem over classes and candidates decides. A class in a group of m classes needs no
more than its m best sets: were it given a worse one, one of its m best would be free, because the others occupy at most
m − 1 of them. Groups whose results collide are merged and solved again, so the result is optimal and the work stays
small where few classes collide.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from qpm_opt._validation import FloatArray, IntArray

__all__ = ["distinct_sets"]

BoolArray = npt.NDArray[np.bool_]
ColumnSet = tuple[int, ...]

_DIGITS = 1e3
"""A matching that loses less than the worst set by this factor is found again without such sets."""


def distinct_sets(values: FloatArray, budgets: IntArray, locked: BoolArray | None = None) -> BoolArray | None:
    """Distinct sets of columns, one for each row, of the largest total value.

    Args:
        values: (n_classes, n_select) value of a column for a class.
        budgets: (n_classes,) number of columns that a class takes.
        locked: (2, n_classes, n_select) bool, or None: `locked[0]` marks columns that a class must take (part of its
            budget), `locked[1]` those that it must not take.

    Returns:
        (n_classes, n_select) bool, row sums equal to `budgets`, no two rows alike; None where no such matrix exists.
    """
    required = np.zeros(values.shape, dtype=bool) if locked is None else locked[0]
    closed = required if locked is None else required | locked[1]
    keys = np.where(closed, -np.inf, values)
    free = budgets - required.sum(axis=1)
    if ((~closed).sum(axis=1) < free).any() or (free < 0).any():
        return None

    order = np.argsort(-keys, axis=1, kind="stable")
    rank = np.arange(values.shape[1])
    weights = required.copy()
    np.put_along_axis(weights, order, np.take_along_axis(weights, order, axis=1) | (rank < free[:, None]), axis=1)

    if len({packed.tobytes() for packed in np.packbits(weights, axis=1)}) == len(weights):
        return weights

    columns_of = np.split(np.nonzero(weights)[1], np.cumsum(budgets)[:-1])
    chosen: list[ColumnSet] = [tuple(columns.tolist()) for columns in columns_of]
    group, unsolved = _merged(np.arange(len(weights)), chosen)
    ranking = _Ranking(keys, order, free, required)
    while unsolved:
        for members in unsolved:
            matched = _match(members, ranking)
            if matched is None:
                return None
            for row, columns in zip(members, matched, strict=True):
                chosen[row] = columns
        group, unsolved = _merged(group, chosen)

    distinct = np.zeros_like(weights)
    for row, columns in enumerate(chosen):
        distinct[row, list(columns)] = True
    return distinct


def _merged(group: IntArray, chosen: list[ColumnSet]) -> tuple[IntArray, list[list[int]]]:
    """Merge groups that have been given the same set: (n_classes,) new groups, and the members of those merged."""
    holder: dict[ColumnSet, int] = {}
    first = np.array([holder.setdefault(columns, row) for row, columns in enumerate(chosen)])
    if (group[first] == group).all():
        return group, []
    size = int(group.max()) + 1
    links = sp.coo_array((np.ones(len(group)), (group, group[first])), shape=(size, size))
    _, into = connected_components(links, directed=False)
    merged = into[group]
    return merged, [np.flatnonzero(merged == number).tolist() for number in np.flatnonzero(np.bincount(into) > 1)]


class _Ranking:
    """The sets of each class from best to worst, enumerated as far as asked for."""

    def __init__(self, keys: FloatArray, order: IntArray, free: IntArray, required: BoolArray) -> None:
        self._keys, self._order, self._free, self._required = keys, order, free, required
        self._found: dict[int, list[tuple[float, ColumnSet]]] = {}
        self._shared: dict[tuple[bytes, int], _Subsets] = {}

    def best(self, row: int, count: int) -> list[tuple[float, ColumnSet]]:
        """The `count` best sets of a class as (loss against its best set, columns); fewer where there are fewer."""
        known = self._found.setdefault(row, [])
        if len(known) < count:
            order = self._order[row].tolist()
            own = np.flatnonzero(self._required[row]).tolist()
            known += [
                (loss, tuple(sorted([*own, *(order[position] for position in positions)])))
                for loss, positions in self._subsets(row).between(len(known), count)
            ]
        return known[:count]

    def _subsets(self, row: int) -> _Subsets:
        values = self._keys[row, self._order[row]]
        values = values[np.isfinite(values)]
        size = int(self._free[row])
        # Classes with the same values share one enumeration: ties everywhere must not cost the square of the classes.
        key = (values.tobytes(), size)
        if key not in self._shared:
            self._shared[key] = _Subsets(values.tolist(), size)
        return self._shared[key]


class _Subsets:
    """Subsets of the positions of a descending list by falling sum, enumerated as far as asked for."""

    def __init__(self, values: list[float], size: int) -> None:
        self._rest = _best_subsets(values, size)
        self._known: list[tuple[float, tuple[int, ...]]] = []

    def between(self, begin: int, end: int) -> list[tuple[float, tuple[int, ...]]]:
        """(loss against the best, positions) of those from `begin` up to `end`; fewer where there are fewer."""
        self._known += islice(self._rest, max(0, end - len(self._known)))
        return self._known[begin:end]


def _best_subsets(values: list[float], size: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Subsets of the positions of a descending list by falling sum, as (loss against the best, positions)."""
    start = tuple(range(size))
    heap = [(0.0, start)]
    seen = {start}
    while heap:
        loss, positions = heapq.heappop(heap)
        yield loss, positions
        for slot, place in enumerate(positions):
            following = place + 1
            if following >= len(values) or (slot + 1 < size and positions[slot + 1] == following):
                continue
            moved = (*positions[:slot], following, *positions[slot + 1 :])
            if moved not in seen:
                seen.add(moved)
                heapq.heappush(heap, (loss + values[place] - values[following], moved))


def _match(rows: list[int], ranking: _Ranking) -> list[ColumnSet] | None:
    """Distinct candidate sets for the classes of a group at the least total loss, None where there are too few."""
    candidates = [ranking.best(row, len(rows)) for row in rows]
    number: dict[ColumnSet, int] = {}
    entries = [
        (place, number.setdefault(columns, len(number)), loss)
        for place, listed in enumerate(candidates)
        for loss, columns in listed
    ]
    if len(number) < len(rows):
        return None
    place_of, column_of, losses = (np.array(part) for part in zip(*entries, strict=True))
    while True:
        most = float(losses.max())
        # The matching reads zeros as missing edges: one is added to every cost, which changes every matching alike.
        costs = losses / most + 1.0 if most > 0.0 else np.ones(len(losses))
        edges = sp.csr_array((costs, (place_of, column_of)), shape=(len(rows), len(number)))
        try:
            _, columns = min_weight_full_bipartite_matching(edges)  # of the rows in order
        except ValueError:
            return None
        total = float(losses[columns[place_of] == column_of].sum())
        if total * _DIGITS >= most:
            break
        # No better matching has a set that loses more by itself, and without those what is left shows its digits.
        useful = losses <= total
        place_of, column_of, losses = place_of[useful], column_of[useful], losses[useful]
    sets = list(number)
    return [sets[column] for column in columns]
