"""Search for k indices whose pairs all have small values: a k-clique at the lowest threshold that has one.

A set whose pairs have values of at most m is a clique in the graph of the pairs up to m. Two searches share the work:
a tabu search that swaps members of a k-set until no pair exceeds m, and on small graphs branch and bound with a
colouring bound, which can also prove that there is no such set. Neither looks at the clock: results depend on the
input and the seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["DispersedSet", "find_clique", "find_dispersed_set"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

MOVES = 100_000
"""Swaps in all: some 2.5 s at 2,048 indices. A swap costs 20 to 25 µs, mostly the overhead of NumPy calls."""

PROBE_MOVES = 1_500
"""Swaps at one threshold of the opening bisection: where a clique is easily had, a few hundred find it."""

RUN_MOVES = 10_000
"""Swaps in one run of the closing descent."""

EXACT_VERTICES = 160
"""Branch and bound is tried on graphs of at most so many vertices, those of too small a degree not counted."""

EXACT_NODES = 6_000
"""Nodes of the branch and bound, at most."""


@dataclass(frozen=True)
class DispersedSet:
    """A k-set and the largest value among its pairs.

    Attributes:
        members: Sorted indices, (k,) int64.
        largest: The largest value of a pair of members; 0 for a single member.
        proven: Whether it is proven that every k-set has a pair of at least this value.
    """

    members: IntArray
    largest: float
    proven: bool


def find_dispersed_set(values: FloatArray, k: int, *, seed: int = 0, moves: int = MOVES) -> DispersedSet:
    """Find k indices whose largest pair value is as small as possible.

    Args:
        values: (n, n) float64, symmetric, not negative, zero diagonal.
        k: Size of the set, 1 ≤ k ≤ n.
        seed: Of tie-breaking and restarts; equal seeds give equal sets.
        moves: Budget of swaps of the tabu search.

    Returns:
        The best set found, and whether it is proven to be a best one.
    """
    n = len(values)
    if k in (1, n):
        members = np.arange(k, dtype=np.int64)
        return DispersedSet(members, _largest_pair(values, members), True)
    levels = np.unique(values[np.triu_indices(n, 1)])
    descent = _Descent(values, levels, k, np.random.default_rng(seed), moves)
    descent.bisect()
    proven = descent.improve_exactly()
    if not proven:
        descent.step_down()
    return DispersedSet(np.sort(descent.best), float(levels[descent.high]), proven or descent.high == 0)


class _Descent:
    """The best set so far, and the ways to lower its level.

    Values are handled as indices into their sorted distinct `levels`: a search at level i allows pairs of at most
    `levels[i]`. `high` is the level of the set in hand; at `low` a short run has failed, which proves nothing.
    """

    def __init__(self, values: FloatArray, levels: FloatArray, k: int, rng: np.random.Generator, moves: int) -> None:
        self.values = values
        self.levels = levels
        self.k = k
        self.rng = rng
        self.moves = moves
        self.low = -1
        self.high = len(levels) - 1
        self._accept(_greedy_set(values, k, 0.0))

    def bisect(self) -> None:
        """Bracket the lowest level within reach by short runs."""
        width = max(1, len(self.levels) // 1000)
        budget = min(PROBE_MOVES, 25 * len(self.values))
        while self.high - self.low > width and self.moves > 0:
            level = (self.low + self.high) // 2
            if not self._try(level, _greedy_set(self.values, self.k, float(self.levels[level])), budget):
                self.low = level

    def improve_exactly(self) -> bool:
        """Lower the level by branch and bound while the graph is small; return whether that proved the set best."""
        nodes = EXACT_NODES
        while self.high > 0:
            found, spent, complete = find_clique(self.values <= self.levels[self.high - 1], self.k, nodes)
            nodes -= spent
            if found is None:
                return complete
            self._accept(found)
        return True

    def step_down(self) -> None:
        """Spend what is left of the moves just below the best set, in steps that narrow after each failure."""
        step = max(1, (self.high - self.low) // 2)
        failures = 0
        while self.moves > 0 and self.high > 0:
            level = max(0, self.high - step)
            if failures % 3 == 0:
                start = self.best
            elif failures % 3 == 1:
                start = self.rng.choice(len(self.values), self.k, replace=False)
            else:
                start = _greedy_set(self.values, self.k, float(self.levels[level]))
            if not self._try(level, start, RUN_MOVES):
                step = max(1, step // 4)
                failures += 1

    def _try(self, level: int, start: IntArray, budget: int) -> bool:
        found, used = _swap_until_clique(
            self.values, float(self.levels[level]), start, min(budget, self.moves), self.rng
        )
        # A start that is a clique already costs a move too, or nothing would bound the number of runs.
        self.moves -= max(1, used)
        if found is not None:
            self._accept(found)
        return found is not None

    def _accept(self, members: IntArray) -> None:
        self.best = members
        self.high = int(np.searchsorted(self.levels, _largest_pair(self.values, members)))
        self.low = min(self.low, self.high - 1)


def _largest_pair(values: FloatArray, members: IntArray) -> float:
    return float(values[np.ix_(members, members)].max())


def _greedy_set(values: FloatArray, k: int, allowed: float) -> IntArray:
    """Add k times the index in conflict with fewest taken ones, and among these with fewest of all."""
    n = len(values)
    order = (values > allowed).sum(axis=1) / (n + 1.0)
    members = np.empty(k, dtype=np.int64)
    for position in range(k):
        members[position] = new = int(order.argmin())
        order += values[new] > allowed
        order[new] = np.inf
    return members


_TABU = 1 << 20
_MEMBER = 1 << 24
_SLOTS = 64


def _swap_until_clique(
    values: FloatArray, allowed: float, start: IntArray, moves: int, rng: np.random.Generator
) -> tuple[IntArray | None, int]:
    """Swap members of a set against others until no pair of it exceeds `allowed`.

    The adaptive multistart tabu search of Wu and Hao for cliques of a given size, seen from the missing edges: out
    goes a member with most conflicts, in comes an outsider with fewest, preferably one in conflict with the leaver,
    since that conflict goes as well. Neither may return for a number of moves that grows with the conflicts left.

    Returns:
        The set (None if the moves ran out) and the number of moves used.
    """
    n, k = len(values), len(start)
    members = start.copy()
    # conflicts[v]: pairs above `allowed` between v and the members; one row added and one removed keep it current.
    conflicts = (values[members] > allowed).sum(axis=0)
    left = int(conflicts[members].sum()) // 2
    barred = np.zeros(n, dtype=np.int64)
    barred[members] = _MEMBER
    locked_until = np.zeros(n, dtype=np.int64)
    release: list[list[int]] = [[] for _ in range(_SLOTS)]
    spread_out = max(k // 40, 6)
    spread_in = max(k // 67, 3)
    draws: list[float] = []
    for move in range(1, moves + 1):
        if left == 0:
            return members, move - 1
        if len(draws) < 3:
            draws = rng.random(4096).tolist()
        slot = move % _SLOTS
        for vertex in release[slot]:
            if barred[vertex] == _TABU:
                barred[vertex] = 0
        release[slot] = []

        outside = conflicts + barred
        entering = (outside == outside.min()).nonzero()[0]
        inside = conflicts[members] - _TABU * (locked_until[members] > move)
        leaving = (inside == inside.max()).nonzero()[0]
        clashing = (values[members[leaving][:, None], entering] > allowed).ravel().nonzero()[0]
        if len(clashing):
            place, into = divmod(int(clashing[int(draws.pop() * len(clashing))]), len(entering))
        else:
            place, into = divmod(int(draws.pop() * len(leaving) * len(entering)), len(entering))
        position = leaving[place]
        old, new = int(members[position]), int(entering[into])

        left += int(conflicts[new]) - int(conflicts[old]) - bool(len(clashing))
        members[position] = new
        conflicts += values[new] > allowed
        conflicts -= values[old] > allowed
        base = min(left, 10)
        barred[old] = _TABU
        barred[new] = _MEMBER
        release[(move + 1 + base + int(draws.pop() * spread_out)) % _SLOTS].append(old)
        locked_until[new] = move + 1 + int(0.6 * base) + int(draws.pop() * spread_in)
    return (members if left == 0 else None), moves


def find_clique(allowed: BoolArray, k: int, nodes: int) -> tuple[IntArray | None, int, bool]:
    """Look for k vertices that are all adjacent, by branch and bound.

    Args:
        allowed: (n, n) bool, symmetric: which pairs are adjacent; the diagonal does not matter.
        k: Number of vertices, at least 2.
        nodes: Budget of nodes.

    Returns:
        A clique or None; the number of nodes used; whether the answer is final (None and True: there is no clique).
    """
    kept = _core(allowed, k - 1)
    if len(kept) < k:
        return None, 0, True
    if len(kept) > EXACT_VERTICES or nodes <= 0:
        return None, 0, False
    graph = allowed[np.ix_(kept, kept)]
    graph[np.diag_indices_from(graph)] = False
    # Bit v of neighbours[u] is set where u and v are adjacent; vertices of high degree get the low bits, which are
    # coloured first.
    kept = kept[np.argsort(-graph.sum(axis=1), kind="stable")]
    graph = allowed[np.ix_(kept, kept)]
    graph[np.diag_indices_from(graph)] = False
    neighbours = [int.from_bytes(np.packbits(row, bitorder="little").tobytes(), "little") for row in graph]
    search = _BranchAndBound(neighbours, k, nodes)
    found = search.run()
    members = None if found is None else kept[np.array(found, dtype=np.int64)]
    return members, search.used, found is not None or search.used <= nodes


def _core(allowed: BoolArray, degree: int) -> IntArray:
    """The vertices that are left once those with fewer than `degree` neighbours left are removed, again and again."""
    alive = np.ones(len(allowed), dtype=bool)
    degrees = allowed.sum(axis=1) - np.diagonal(allowed)
    while True:
        leaving = alive & (degrees < degree)
        if not leaving.any():
            return np.flatnonzero(alive)
        alive &= ~leaving
        degrees -= allowed[leaving].sum(axis=0)


class _BranchAndBound:
    """Depth-first search for a clique of k vertices; a colouring of the candidates bounds what they can still add."""

    def __init__(self, neighbours: list[int], k: int, nodes: int) -> None:
        self.neighbours = neighbours
        self.k = k
        self.nodes = nodes
        self.used = 0

    def run(self) -> list[int] | None:
        return self._extend([], (1 << len(self.neighbours)) - 1)

    def _extend(self, members: list[int], candidates: int) -> list[int] | None:
        self.used += 1
        if self.used > self.nodes:
            return None
        missing = self.k - len(members)
        if missing == 0:
            return members
        # Vertices of one colour are pairwise not adjacent: a clique has at most one of each. Only vertices whose
        # colour is at least `missing` need branching on; the others together are too few colours.
        branch: list[int] = []
        uncoloured = candidates
        colour = 0
        while uncoloured:
            colour += 1
            same = uncoloured
            while same:
                bit = same & -same
                vertex = bit.bit_length() - 1
                uncoloured ^= bit
                same &= ~(self.neighbours[vertex] | bit)
                if colour >= missing:
                    branch.append(vertex)
        for vertex in reversed(branch):
            found = self._extend([*members, vertex], candidates & self.neighbours[vertex])
            if found is not None or self.used > self.nodes:
                return found
            candidates &= ~(1 << vertex)
        return None
