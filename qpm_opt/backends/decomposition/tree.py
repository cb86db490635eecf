"""Branch and cut on the kept features.

Cuts are valid everywhere and shared by all nodes; a node is a pair of ranges for s. The node of the largest bound is
taken first and followed downwards, so that the linear program changes little from one solve to the next. A feature that
is whole in every remaining solution by its reduced cost is fixed. Where the features of a node are whole, the set is
valued exactly, with uniqueness; if the class values of the master still promise more, the set is cut off.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.cuts import CliqueCut, LinearCut, clique_cuts
from qpm_opt.backends.decomposition.master import Master, Point
from qpm_opt.backends.decomposition.overlaps import class_kinds, overlaps_at
from qpm_opt.backends.decomposition.uniqueness import price_collisions, priced_cuts
from qpm_opt.search_space import SearchSpace, largest

__all__ = ["BranchAndCut", "Node", "Surroundings"]

_WHOLE = 1e-6
_ROOT_ROUNDS = 400
_NODE_ROUNDS = 2
_LEAST_PROGRESS = 2e-3
_CLIQUES_A_ROUND = 150
_PATIENCE = 6
_CANDIDATES = 16
_RELIABLE = 4
_PROBE_ITERATIONS = 60
_STALE_CANDIDATES = 6
_LEAST_SHRINKAGE = 0.85
_ROUND_EVERY = 5
"""Rounds of the root, and nodes, after which the master's features are rounded and searched from."""


@dataclass(frozen=True)
class Surroundings:
    """What a tree asks for, and whom it tells.

    Attributes:
        incumbent: Returns the objective of the best known solution.
        tolerance: Returns by how much a bound may exceed that and still settle what it bounds.
        on_set: Told of every set of features (of the problem) at which the master is whole; values it exactly.
        on_rounding: Told now and then of the features that the master has most of, to start a search from.
        seconds_left: Asked before every linear program.
        on_step: Called after every linear program with the bound; may raise to stop.
    """

    incumbent: Callable[[], float]
    tolerance: Callable[[], float]
    on_set: Callable[[IntArray], object]
    on_rounding: Callable[[IntArray], object]
    seconds_left: Callable[[], float]
    on_step: Callable[[float], None]


@dataclass(order=True)
class Node:
    """A part of the tree: what lies between two bounds on the features, and a bound on all of it."""

    sort_key: float
    number: int
    bound: float = field(compare=False)
    lower: FloatArray = field(compare=False)
    upper: FloatArray = field(compare=False)


class BranchAndCut:
    """The search; `bound` is valid at any time.

    Args:
        space: The problem.
        classes: Its class values.
        thresholds: (n_classes,) thresholds of the first class cuts.
        around: What it asks for, and whom it tells.

    Attributes:
        seen: (2, 2, n) by how much the bound fell, for each unit, where features were rounded down and up: sum and
            number of times.
    """

    def __init__(self, space: SearchSpace, classes: ClassValues, thresholds: FloatArray, around: Surroundings) -> None:
        self.space, self.classes = space, classes
        self.around = around
        n = len(space.features)
        least = np.where(space.values > -space.barrier, space.values, np.inf).min(axis=1)
        budgets = space.budgets
        top = np.where(np.arange(n) < budgets[:, None], classes.ranked, 0.0).sum(axis=1)
        low = np.where(budgets > 0, budgets * np.where(np.isfinite(least), least, 0.0), 0.0)
        self.master = Master(space, np.stack([np.minimum(low, top), top]))
        self.master.add_linear(self._class_cuts(np.arange(len(budgets)), thresholds))
        self.master.add_linear(_covers(space))
        self._kinds = class_kinds(space)
        self.lower, self.upper = space.forced.astype(np.float64), np.ones(n)
        self.bound = np.inf
        self.thresholds = thresholds
        self.nodes = 0
        self._root: Point | None = None
        self._open: list[Node] = []
        self._closed = -np.inf
        self._serial = 0
        self.seen = np.zeros((2, 2, n))
        self._valued: set[bytes] = set()
        self._searched: set[bytes] = set()

    @property
    def closed(self) -> float:
        """Bound on all solutions that fixed features and finished nodes have been left out for."""
        return self._closed

    def split(self, around: Surroundings) -> BranchAndCut:
        """A tree without nodes over the same features, with a linear program of its own, for another thread."""
        other = copy(self)
        other.around = around
        other.master = self.master.copy()
        other._open = []
        other._valued, other._searched = set(), set()
        other.seen = self.seen.copy()
        other.nodes = 0
        return other

    @property
    def open(self) -> list[Node]:
        """The open nodes."""
        return list(self._open)

    def take_over(self, nodes: list[Node]) -> None:
        """Go on with these nodes instead of the open ones; the bound is theirs from now on."""
        self._open = list(nodes)
        heapq.heapify(self._open)
        self.bound = np.inf
        self._update_bound()

    # -- the root ------------------------------------------------------------------------------------------------------

    def root(self, rounds: int = _ROOT_ROUNDS) -> Point | None:
        """Solve and cut the root until cuts move the bound no more; None where the problem is settled by that."""
        self._open.clear()
        self.master.set_range(self.lower, self.upper)
        point = self._cut(rounds, root=True)
        if point is None:
            self._finish()
            return None
        self.thresholds = self.classes.thresholds(point.x)
        self._root = point
        self._push(point.bound, self.lower, self.upper)
        self._update_bound()
        return point

    # -- the tree ------------------------------------------------------------------------------------------------------

    def run(self, node_limit: int | None = None) -> bool:
        """Search until the tree is empty (True) or the time or the number of nodes runs out (False)."""
        limit = np.inf if node_limit is None else self.nodes + node_limit
        while self._open:
            if self.around.seconds_left() <= 0.0 or self.nodes >= limit:
                return False
            node: Node | None = heapq.heappop(self._open)
            while node is not None:
                node = self._process(node)
                if node is not None and (self.around.seconds_left() <= 0.0 or self.nodes >= limit):
                    heapq.heappush(self._open, node)
                    node = None
                self._update_bound(node)
        self._finish()
        return True

    def shrink(self) -> None:
        """Leave out the features that the root fixes to 0 now that a better solution is known, if they are many."""
        if self._root is None:
            return
        self._fix_for_good(self._root)
        kept = self.upper > 0.5
        if kept.sum() > _LEAST_SHRINKAGE * len(kept):
            return
        self.master.keep_features(kept)
        self.space = self.space.restricted(kept, self.space.forced)
        self.classes = ClassValues.of(self.space.values, self.space.budgets)
        self.lower, self.upper = self.lower[kept], self.upper[kept]
        self.seen = self.seen[:, :, kept]
        self._root = replace(self._root, x=self._root.x[kept], reduced=self._root.reduced[kept])
        nodes = [node for node in self._open if not (node.lower > 0.5)[~kept].any()]
        for node in nodes:
            node.lower, node.upper = node.lower[kept], node.upper[kept]
        heapq.heapify(nodes)
        self._open = nodes

    def _process(self, node: Node) -> Node | None:
        """Bound a node and branch on it; returns the child to go on with."""
        if self._closes(node.bound):
            return None
        self.nodes += 1
        lower, upper = np.maximum(node.lower, self.lower), np.minimum(node.upper, self.upper)
        if (lower > upper).any():
            return None
        self.master.set_range(lower, upper)
        point = self._cut(_NODE_ROUNDS, root=False, bound=node.bound)
        if point is None:
            return None
        bound = min(point.bound, node.bound)
        if not point.solved:
            self._push(bound, node.lower, node.upper)
            return None
        if self.nodes % _ROUND_EVERY == 0:
            self._round(point)
        lower, upper = self._fixed(point, lower, upper)
        free = np.flatnonzero((point.x > _WHOLE) & (point.x < 1.0 - _WHOLE) & (lower < upper))
        if not len(free):  # whole features that the cuts cannot settle: go on by splitting them
            free = np.flatnonzero((lower < upper) & (point.x > 0.5))
            if not len(free):  # the only set that is left, which has been valued
                return None
        branch, low_bound, high_bound = self._branching_feature(point, free, bound)
        children = []
        for value in (1.0, 0.0):
            low, high = lower.copy(), upper.copy()
            low[branch] = high[branch] = value
            self._serial += 1
            child_bound = min(bound, high_bound if value else low_bound)
            if self._closes(child_bound):
                continue
            children.append(Node(-child_bound, self._serial, child_bound, low, high))
        children.sort(key=lambda child: child.sort_key)
        for child in children[1:]:
            heapq.heappush(self._open, child)
        return children[0] if children else None

    def _branching_feature(self, point: Point, free: IntArray, bound: float) -> tuple[int, float, float]:
        """The feature whose two values promise the largest fall of the bound, and the bounds known for them."""
        x = point.x[free]
        guess = np.stack([x, 1.0 - x]) * self._mean_fall(free)
        order = np.argsort(-np.minimum(guess[0], guess[1]), kind="stable")[:_CANDIDATES]
        cutoff = self.around.incumbent() + self.around.tolerance()
        best, best_score = (int(free[order[0]]), bound, bound), -np.inf
        stale = 0
        for index in order.tolist():
            f = int(free[index])
            if self.seen[1, :, f].min() >= _RELIABLE:
                falls, bounds = guess[:, index], (bound, bound)
            else:
                bounds = self.master.probe(f, cutoff, _PROBE_ITERATIONS, self.around.seconds_left())
                falls = np.maximum(bound - np.maximum(bounds, cutoff), 0.0)
                distance = np.array([x[index], 1.0 - x[index]])
                self.seen[0, :, f] += falls / np.maximum(distance, 1e-3)
                self.seen[1, :, f] += 1
            score = float(np.maximum(falls, 1e-7).prod())
            stale += 1
            if score > best_score:
                best, best_score, stale = (f, *bounds), score, 0
            if stale >= _STALE_CANDIDATES:
                break
        return best

    def _mean_fall(self, free: IntArray) -> FloatArray:
        """(2, len(free)) fall of the bound for each unit by which a feature is rounded down or up, as seen so far."""
        falls, tries = self.seen
        known = tries > 0
        typical = falls[known].sum() / tries[known].sum() if known.any() else 1.0
        return np.where(known, falls / np.maximum(tries, 1), typical)[:, free]

    # -- cutting -------------------------------------------------------------------------------------------------------

    def _cut(self, rounds: int, *, root: bool, bound: float = np.inf) -> Point | None:
        """Solve and cut; None where nothing better than the incumbent is left under the current ranges."""
        history: list[float] = []
        round_number = 0
        while True:
            round_number += 1
            point = self.master.solve(self.around.incumbent() + self.around.tolerance(), self.around.seconds_left())
            if not point.feasible:
                return None
            bound = min(bound, point.bound)
            if root:
                self._fix_for_good(point)
                self.bound = min(self.bound, max(bound, self._closed))
            self.around.on_step(self.bound)
            if self._closes(bound):
                return None
            if not point.solved:
                return point
            history.append(bound)
            whole = bool((np.minimum(point.x, 1.0 - point.x) <= _WHOLE).all())
            if whole:
                self._value(np.flatnonzero(point.x > 0.5))
            elif root and round_number % _ROUND_EVERY == 0:
                self._round(point)
            stalled = len(history) > _PATIENCE and history[-_PATIENCE] - history[-1] < _LEAST_PROGRESS * max(
                history[-1] - self.around.incumbent(), 1e-9
            )
            if not whole and (stalled or round_number >= rounds):
                return point
            cuts = self._violated_class_cuts(point)
            if len(cuts) <= 2 or round_number % 3 == 0:
                cuts += self._violated(point, self._priced_cuts(point))
            cuts += self._violated(point, self._overlap_cuts(point))
            cliques = self._violated_clique_cuts(point, 1e-6 if whole else 1e-3)
            if not cuts and not cliques:
                if not whole:
                    return point
                if self._closes(bound):
                    return None
                self._exclude(np.flatnonzero(point.x > 0.5))
                continue
            if round_number >= rounds:
                return point
            self.master.add_linear(cuts)
            self.master.add_cliques(cliques)
            self.master.purge()

    def _violated_clique_cuts(self, point: Point, least: float) -> list[CliqueCut]:
        used = np.flatnonzero(point.x > _WHOLE)
        used = used[np.argsort(-point.x[used], kind="stable")]
        return clique_cuts(
            used,
            point.x[used],
            self.master.pair_values(used),
            self.space.penalties[np.ix_(used, used)] > 0.0,
            most=_CLIQUES_A_ROUND,
            least_violation=least,
        )

    def _violated_class_cuts(self, point: Point) -> list[LinearCut]:
        thresholds = self.classes.thresholds(point.x)
        excess = point.theta - self.classes.at(point.x, thresholds)
        least = 1e-7 * max(1.0, abs(self.around.incumbent())) / len(excess) * 50
        violated = np.flatnonzero(excess > least)
        return self._class_cuts(violated, thresholds)

    def _priced_cuts(self, point: Point) -> list[LinearCut]:
        return priced_cuts(self.space, price_collisions(self.space, self.classes, point.x), point.x)

    def _overlap_cuts(self, point: Point) -> list[LinearCut]:
        found = overlaps_at(self.space, self.classes, self._kinds, point.x)
        return [overlap.cut(self.classes) for overlap in found]

    def _violated(self, point: Point, cuts: list[LinearCut]) -> list[LinearCut]:
        least = 1e-6 * max(1.0, abs(self.around.incumbent()))
        return [cut for cut in cuts if float(point.theta[cut.classes].sum()) > cut.at(point.x) + least]

    def _class_cuts(self, classes: IntArray, thresholds: FloatArray) -> list[LinearCut]:
        constants = self.classes.budgets * thresholds
        slopes = self.classes.slopes(thresholds)
        return [LinearCut.of(np.array([c]), float(constants[c]), slopes[c]) for c in classes.tolist()]

    # -- sets ----------------------------------------------------------------------------------------------------------

    def _value(self, chosen: IntArray) -> None:
        key = self.space.features[chosen].tobytes()
        if key not in self._valued:
            self._valued.add(key)
            self.around.on_set(self.space.features[chosen])

    def _round(self, point: Point) -> None:
        chosen = largest(point.x, self.space.n_select)
        key = self.space.features[chosen].tobytes()
        if key not in self._searched:
            self._searched.add(key)
            self.around.on_rounding(self.space.features[chosen])

    def _exclude(self, chosen: IntArray) -> None:
        """Cut off a set, after making sure of its exact value."""
        self.around.on_set(self.space.features[chosen])
        self.master.add_linear(
            [LinearCut(np.zeros(0, dtype=np.int64), float(len(chosen) - 1), chosen, np.full(len(chosen), -1.0))]
        )

    # -- bounds --------------------------------------------------------------------------------------------------------

    def _closes(self, bound: float) -> bool:
        """Whether a bound settles what it bounds; the bound of everything that is settled is kept."""
        settled = bound <= self.around.incumbent() + self.around.tolerance()
        if settled:
            self._closed = max(self._closed, bound)
        return settled

    def _push(self, bound: float, lower: FloatArray, upper: FloatArray) -> None:
        self._serial += 1
        heapq.heappush(self._open, Node(-bound, self._serial, bound, lower, upper))

    def _update_bound(self, current: Node | None = None) -> None:
        bounds = [self._closed, *(node.bound for node in self._open[:1])]
        if current is not None:
            bounds.append(current.bound)
        self.bound = min(self.bound, max(bounds))

    def _finish(self) -> None:
        self.bound = min(self.bound, max(self._closed, self.around.incumbent()))

    def _fixed(self, point: Point, lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Ranges without the features' values that cannot lead to a better solution, by their reduced costs."""
        spare = point.bound - (self.around.incumbent() + self.around.tolerance())
        lower, upper = lower.copy(), upper.copy()
        # `bound` has every feature at its better end: at the other end it falls by the reduced cost.
        change = np.abs(point.reduced)
        moved = (lower < upper) & (change > spare)
        if moved.any():
            self._closed = max(self._closed, point.bound - float(change[moved].min()))
            up = moved & (point.reduced > 0.0)
            lower[up] = 1.0
            upper[moved & ~up] = 0.0
        return lower, upper

    def _fix_for_good(self, point: Point) -> None:
        lower, upper = self._fixed(point, self.lower, self.upper)
        if (lower != self.lower).any() or (upper != self.upper).any():
            self.lower, self.upper = lower, upper
            self.master.set_range(lower, upper)


def _covers(space: SearchSpace) -> list[LinearCut]:
    """Enough kept features for every class that may not use all of them: 0 ≤ −k + Σ_{allowed} s."""
    allowed = space.values > -space.barrier
    nobody = np.zeros(0, dtype=np.int64)
    kinds = {(int(k), row.tobytes()): row for k, row in zip(space.budgets, allowed, strict=True) if not row.all()}
    return [
        LinearCut(nobody, -float(k), np.flatnonzero(row), np.ones(int(row.sum())))
        for (k, _), row in kinds.items()
        if k > 0
    ]
