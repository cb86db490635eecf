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
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from qpm_opt._validation import FloatArray, IntArray

__all__ = ["distinct_sets"]

BoolArray = npt.NDArray[np.bool_]
ColumnSet = tuple[int, ...]


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

    owners: dict[bytes, list[int]] = {}
    for row, packed in enumerate(np.packbits(weights, axis=1)):
        owners.setdefault(packed.tobytes(), []).append(row)
    if len(owners) == len(weights):
        return weights

    ranking = _Ranking(keys, order, free, required)
    groups = list(owners.values())
    taken: dict[int, dict[int, ColumnSet]] = {}
    unsolved = [index for index, members in enumerate(groups) if len(members) > 1]
    holder: dict[ColumnSet, int] = {
        ranking.first(members[0]): index for index, members in enumerate(groups) if len(members) == 1
    }
    while unsolved:
        index = unsolved.pop()
        chosen = _match(groups[index], ranking)
        if chosen is None:
            return None
        rivals = {holder[columns] for columns in chosen.values() if columns in holder}
        if rivals:
            for rival in rivals:
                for columns in [key for key, group in holder.items() if group == rival]:
                    del holder[columns]
                taken.pop(rival, None)
                groups[index] = groups[index] + groups[rival]
            groups[index].sort()
            unsolved.append(index)
            continue
        taken[index] = chosen
        holder.update(dict.fromkeys(chosen.values(), index))

    for chosen in taken.values():
        for row, columns in chosen.items():
            weights[row] = False
            weights[row, list(columns)] = True
    return weights


class _Ranking:
    """The sets of each class from best to worst, enumerated as far as asked for."""

    def __init__(self, keys: FloatArray, order: IntArray, free: IntArray, required: BoolArray) -> None:
        self._keys, self._order, self._free, self._required = keys, order, free, required
        self._found: dict[int, list[tuple[float, ColumnSet]]] = {}
        self._shared: dict[tuple[bytes, int], list[tuple[float, tuple[int, ...]]]] = {}

    def best(self, row: int, count: int) -> list[tuple[float, ColumnSet]]:
        """The `count` best sets of a class as (loss against its best set, columns); fewer where there are fewer."""
        known = self._found.get(row)
        if known is None or len(known) < count:
            order = self._order[row]
            own = np.flatnonzero(self._required[row]).tolist()
            known = self._found[row] = [
                (loss, tuple(sorted([*own, *(int(order[position]) for position in positions)])))
                for loss, positions in self._ranks(row, count)
            ]
        return known[:count]

    def first(self, row: int) -> ColumnSet:
        """The best set of a class."""
        return self.best(row, 1)[0][1]

    def _ranks(self, row: int, count: int) -> list[tuple[float, tuple[int, ...]]]:
        values = self._keys[row, self._order[row]]
        values = values[np.isfinite(values)]
        size = int(self._free[row])
        # Classes with the same values share one enumeration: ties everywhere must not cost the square of the classes.
        key = (values.tobytes(), size)
        if len(self._shared.get(key, ())) < count:
            self._shared[key] = list(islice(_best_subsets(values.tolist(), size), count))
        return self._shared[key]


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


def _match(rows: list[int], ranking: _Ranking) -> dict[int, ColumnSet] | None:
    """Distinct candidate sets for a group of classes at the least total loss, None where there are too few."""
    candidates = [ranking.best(row, len(rows)) for row in rows]
    number: dict[ColumnSet, int] = {}
    entries = [
        (place, number.setdefault(columns, len(number)), loss)
        for place, listed in enumerate(candidates)
        for loss, columns in listed
    ]
    if len(number) < len(rows):
        return None
    place_of, column_of, losses = zip(*entries, strict=True)
    # The matching reads zeros as missing edges: one is added to every cost, which changes every matching alike.
    costs = sp.csr_array((np.array(losses) + 1.0, (place_of, column_of)), shape=(len(rows), len(number)))
    try:
        places, columns = min_weight_full_bipartite_matching(costs)
    except ValueError:
        return None
    sets = list(number)
    return {rows[place]: sets[column] for place, column in zip(places, columns, strict=True)}
