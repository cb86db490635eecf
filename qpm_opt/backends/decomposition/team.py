"""Branch and cut on several threads.

Every thread has a tree of its own: the same features, its own linear program, a share of the open nodes. They work in
rounds of a fixed number of nodes and know nothing of each other in between, so that a run repeats for the same number
of threads. After each round the open nodes, from the best one on, are dealt out anew, and solutions and what has been
seen of branching are shared. Before that, while searches still find better sets, one thread searches and the other
branches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from types import TracebackType

from qpm_opt.backends.decomposition.set_search import SetSearch
from qpm_opt.backends.decomposition.tree import BranchAndCut, Surroundings

__all__ = ["Team"]

_STALE_BEFORE_TREE = 24
"""Searches in vain after which all threads branch; one in 20 to 40 finds the best set, with which the tree is small."""

_SEARCHES_BESIDE, _NODES_BESIDE = 6, 8
"""What two threads do in one round while one of them searches: about the same time."""

_NODES_A_ROUND = 100
"""Nodes of each tree in a round, after which one search is made."""


class Team:
    """A context within which the threads live; `work` in it until it is `finished`.

    Args:
        tree: The tree, its root cut.
        sets: The search for sets of the calling thread.
        n_threads: Number of threads, the calling one included.
        around: What is around a tree whose solutions go to the given search.
        on_step: Told of the bound and the number of nodes after every linear program of the calling thread.
    """

    def __init__(
        self,
        tree: BranchAndCut,
        sets: SetSearch,
        n_threads: int,
        around: Callable[[SetSearch], Surroundings],
        on_step: Callable[[float, int], None],
    ) -> None:
        self._stop = Event()
        self._sets, self._around = sets, around
        self._others = [sets.fork(lambda: not self._stop.is_set()) for _ in range(n_threads - 1)]
        self._threads = ThreadPoolExecutor(max(1, n_threads - 1))
        self._trees = [tree]
        self._bound = tree.bound
        self._stale = 0
        self._branches = False
        tree.around = replace(tree.around, on_step=lambda _: on_step(self.bound, self.nodes))

    def __enter__(self) -> Team:
        """Nothing happens yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop all threads, at their next linear program at the latest."""
        self._stop.set()
        self._threads.shutdown()

    @property
    def bound(self) -> float:
        """Upper bound on all but the best set of the calling thread, valid at any time."""
        left = max(tree.bound for tree in self._trees)
        # A tree's bound leaves out what its thread has found, which only the end of the round makes known. It is asked
        # for after the bounds: it is there before they fall below it.
        found = max((sets.objective for sets in self._others), default=-math.inf)
        return min(self._bound, max(left, found))

    @property
    def nodes(self) -> int:
        """Nodes of all trees so far."""
        return sum(tree.nodes for tree in self._trees)

    @property
    def finished(self) -> bool:
        """Whether no node is left open."""
        return not any(tree.open for tree in self._trees)

    def work(self) -> None:
        """One round."""
        searching = self._sets.is_guided and self._stale < _STALE_BEFORE_TREE
        if self._branches:
            self._sets.restart()
        for sets in self._others:
            sets.learn(self._sets)
        for tree in self._trees:
            tree.shrink()
        if searching:
            self._search_beside()
        else:
            self._branch()
        for sets in self._others:
            self._sets.learn(sets)
        self._bound = self.bound

    def _search_beside(self) -> None:
        if self._others:
            searching = self._threads.submit(_search_often, self._others[0])
            self._trees[0].run(_NODES_BESIDE)
            found = searching.result()
        else:
            found = _search_often(self._sets)
        self._stale = 0 if found else self._stale + _SEARCHES_BESIDE

    def _branch(self) -> None:
        if not self._branches:
            self._branches = True
            self._trees += [self._trees[0].split(self._around(sets)) for sets in self._others]
        nodes = sorted(node for tree in self._trees for node in tree.open)
        for place, tree in enumerate(self._trees):
            tree.take_over(nodes[place :: len(self._trees)])
        before = self._trees[0].seen.copy()
        running = [self._threads.submit(tree.run, _NODES_A_ROUND) for tree in self._trees[1:]]
        self._trees[0].run(_NODES_A_ROUND)
        for future in running:
            future.result()
        everything = before + sum(tree.seen - before for tree in self._trees)
        for tree in self._trees:
            tree.seen = everything.copy()


def _search_often(sets: SetSearch) -> bool:
    """Whether one of some searches found a better set."""
    return sum(sets.search_core() for _ in range(_SEARCHES_BESIDE)) > 0
