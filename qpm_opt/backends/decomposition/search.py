"""What is done when: find, bound, fix, cut, bound again, branch.

Every switch depends on counts and values, never on the clock, so a run repeats to the bit unless it hits its time
limit.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends._rounds import TOY_PAIRS
from qpm_opt.backends.base import Request
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.master import Point
from qpm_opt.backends.decomposition.semidefinite import CHOSEN_EVERY, SemidefiniteBound
from qpm_opt.backends.decomposition.tree import BranchAndCut
from qpm_opt.backends.search_log import SearchLog
from qpm_opt.problem import AssignmentProblem
from qpm_opt.relaxation import penalty_free_bound
from qpm_opt.search_space import SearchSpace, largest
from qpm_opt.solution import Termination, relative_gap
from qpm_opt.swap_search import Found, climb, greedy_set, random_set, shaken_set, swap_gains, tabu_search

__all__ = ["Search"]

_TYPICAL_OBJECTIVE = 1e3
_EXACT = 1e-9
"""Relative difference of objectives that rounding explains: where a proof to the end is asked for, it stops here."""

_PATIENCE = 30
_STALE_RESTARTS = 6
_STALE_BEFORE_TREE = 24
"""Searches in vain after which the tree begins. One in 20 to 40 finds the best set, and the tree is small with it."""

_SEARCHES = 3
_SELDOM = 6
"""So many searches are made after a certificate; after so many certificates in vain, they wait for as many others."""

_DOUBT = 0.02
_CORE = 5
_SEMIDEFINITE_CORE = 8
"""Searches guided by a relaxation exchange this many times n_select features: those that it promises most of.

More where the semidefinite bound promises, which tells good features apart less sharply.
"""

_LEAST_SHRINKAGE = 0.85
_SMALL_GAP = 0.01
"""Gap after the first rounds of cuts up to which the root is cut to its end."""

_TREE_GAP = 0.005
"""Gap up to which the tree is the better way; above it the semidefinite bound goes further."""

_WORKING = 8
"""The semidefinite bound begins with this many times n_select features, those that the incumbent would exchange."""

_PROOF_STEPS = 3.0
"""A certificate takes about as long as this many iterations, until one has been timed."""

_CERTIFICATES_WATCHED = 6
_LEAST_FALL = 0.02
"""The semidefinite bound is left when six certificates closed less than this share of the gap."""

_FAR_BEHIND = 1.25
_WATCHED_ALONE = 12
_LEAST_FALL_ALONE = 0.01
"""The same where the gap of the cutting planes is `_FAR_BEHIND` times as large, so that nothing better is to be had."""

_TRIAL_ROUNDS = 10
"""Cutting planes go on if as many rounds again, at the pace of the last ones, promise `_SMALL_GAP`."""

_NODES_A_ROUND = 50


class Search:
    """The state of one solve."""

    def __init__(self, problem: AssignmentProblem, request: Request, log: SearchLog) -> None:
        self._request, self._log = request, log
        space = SearchSpace.of(problem)
        self._everything = space.scaled(_unit(space))
        self._rng = np.random.default_rng(request.seed)
        exact = problem.class_similarity.size <= TOY_PAIRS
        self._gap = _EXACT if exact else max(request.mip_gap, _EXACT)
        self._best: Found | None = None  # of local features of the whole space
        n = len(space.features)
        self._kept, self._forced = np.ones(n, dtype=bool), space.forced.copy()
        self._guide = np.zeros(0)  # (n,) fractional features of the last relaxation; none yet
        self._core = np.arange(n)  # features that it gives the largest bounds with
        self._excluded = -np.inf  # bound on all that features left out or forced since then would have given

    # -- the plan ------------------------------------------------------------------------------------------------------

    def run(self) -> Termination:
        """Everything, in order."""
        tree = self._shrunk_tree(self._first_thresholds())
        if tree is not None and not self._is_done() and self._worth_a_semidefinite_bound(tree):
            self._semidefinite(tree.bound)
            if self._kept.sum() < len(tree.space.features):
                tree = self._shrunk_tree(tree.thresholds)
        if tree is not None:
            self._search_core_often()
        if tree is not None and not self._is_done():
            self._branch(tree)
        return self._verdict()

    def _first_thresholds(self) -> FloatArray:
        """A good solution, the bound without penalties, and the thresholds that prove it."""
        space = self._everything
        start = None if self._request.start is None else space.to_local(self._request.start)
        chosen = greedy_set(space, start)
        self._offer_set(chosen, "greedy start")
        chosen = self._climb_and_search(chosen)
        free = penalty_free_bound(space, chosen, keep_going=self._keep_going)
        self._tighten(free.bound, "bound without penalties")
        self._fix(free.without, free.including)
        return free.thresholds

    def _shrunk_tree(self, thresholds: FloatArray) -> BranchAndCut | None:
        """A tree with a cut root, made anew while that fixes many features; None where nothing is left to do."""
        while not self._is_done():
            tree = self._rooted(thresholds)
            if tree is None:
                return None
            thresholds = tree.thresholds
            many = self._kept.sum() <= _LEAST_SHRINKAGE * len(tree.space.features)
            if not many or self._relative(tree.bound) > _SMALL_GAP:
                return tree
        return None

    def _verdict(self) -> Termination:
        log = self._log
        if log.remaining() <= 0.0 and not self._is_closed():
            return Termination.TIME_LIMIT
        return Termination.OPTIMAL if log.best is not None else Termination.INFEASIBLE

    def _rooted(self, thresholds: FloatArray) -> BranchAndCut | None:
        """A tree over the features that are left, its root cut; None where that settles it."""
        if self._forced.sum() > self._everything.n_select or self._kept.sum() < self._everything.n_select:
            self._tighten(-np.inf, "proof")
            return None
        kept = np.flatnonzero(self._kept)
        space = self._everything.restricted(self._kept, self._forced)
        tree = BranchAndCut(
            space,
            ClassValues.of(space.values, space.budgets),
            thresholds,
            incumbent=self._objective,
            tolerance=self._tolerance,
            on_set=lambda selected: self._offer_set(self._everything.to_local(selected), "from the linear program"),
            on_rounding=lambda selected: self._climb(self._everything.to_local(selected)),
            seconds_left=self._log.remaining,
            on_step=lambda bound: self._step(bound, f"cutting planes, {tree.nodes} nodes"),
        )
        point = self._cut_root(tree)
        self._excluded = max(self._excluded, tree.closed)
        if point is None:
            self._tighten(tree.bound, "proof")
            return None
        self._take_guide(kept, point.x, -np.abs(point.reduced), _CORE)
        self._restart()
        self._tighten(tree.bound, "cutting planes")
        self._kept[kept[tree.upper < 0.5]] = False
        self._forced[kept[tree.lower > 0.5]] = True
        return tree

    def _cut_root(self, tree: BranchAndCut) -> Point | None:
        """Cut the root to the end where that goes well, and no further than it takes to see that it does not."""
        point = tree.root(1)
        gap = self._relative(tree.bound)
        promised = 0.0
        while point is not None and point.solved and promised <= _SMALL_GAP < gap:
            before = gap
            point = tree.root(_TRIAL_ROUNDS)
            gap = self._relative(tree.bound)
            promised = gap * gap / before
        return tree.root() if point is not None and gap <= _SMALL_GAP else point

    def _worth_a_semidefinite_bound(self, tree: BranchAndCut) -> bool:
        return self._relative(tree.bound) > _TREE_GAP and bool(tree.space.penalties.any())

    def _semidefinite(self, cutting_planes: float) -> None:
        """Iterate on the semidefinite bound as long as it pays, which is longer where cutting planes lag behind."""
        if self._best is None:
            return
        kept = np.flatnonzero(self._kept)
        space = self._everything.restricted(self._kept, self._forced)
        if not space.n_select > space.forced.sum():
            return
        local = np.flatnonzero(np.isin(kept, self._best.chosen))
        promise = swap_gains(space, local).max(axis=0)
        working = np.isin(np.arange(len(kept)), largest(promise, _WORKING * space.n_select))
        iteration = SemidefiniteBound(space, ClassValues.of(space.values, space.budgets), local, working)
        bounds: list[float] = []
        step = proof = 0.0
        stale = 0
        while not self._is_done():
            begin = self._log.elapsed()
            iteration.step()
            step = max(step, self._log.elapsed() - begin)
            self._step(math.inf, f"semidefinite bound, iteration {iteration.iterations}")
            # Before the time runs out, what has been iterated so far is turned into a bound.
            last = self._log.remaining() < 1.2 * (step + max(proof, _PROOF_STEPS * step))
            if iteration.iterations % CHOSEN_EVERY and not last:
                continue
            begin = self._log.elapsed()
            certificate = iteration.certificate()
            proof = max(proof, self._log.elapsed() - begin)
            self._tighten(certificate.bound, "semidefinite bound")
            if last:
                return
            without, including = np.full(len(self._kept), np.inf), np.full(len(self._kept), np.inf)
            without[kept], including[kept] = certificate.without, certificate.including
            self._fix(without, including)
            self._take_guide(kept, iteration.x, certificate.including, _SEMIDEFINITE_CORE)
            # Searches that have found nothing for long take their time from the bound.
            if stale < _STALE_RESTARTS or len(bounds) % _SELDOM == _SELDOM - 1:
                before = self._objective()
                for _ in range(_SEARCHES):
                    self._search_core()
                if len(bounds) % 3 == 2:
                    self._restart()
                stale = 0 if self._objective() > before else stale + 1
            bounds.append(certificate.bound)
            left = max(min(bounds) - self._objective(), 0.0)
            lagging = cutting_planes - self._objective() > _FAR_BEHIND * left
            watched, least = (_WATCHED_ALONE, _LEAST_FALL_ALONE) if lagging else (_CERTIFICATES_WATCHED, _LEAST_FALL)
            if len(bounds) > watched and min(bounds[:-watched]) - min(bounds) < least * left:
                break

    def _branch(self, tree: BranchAndCut) -> None:
        finished = tree.root() is None
        self._tighten(tree.bound, "branch and cut")
        while not finished and not self._is_done():
            finished = tree.run(node_limit=_NODES_A_ROUND)
            self._tighten(tree.bound, "branch and cut")
            if not finished and not self._is_done():
                self._restart()

    # -- solutions -----------------------------------------------------------------------------------------------------

    def _offer_set(self, chosen: IntArray, message: str) -> float:
        value, weights = self._everything.exact(chosen)
        if weights is not None:
            self._keep_best(Found(chosen, value, weights), message)
        return value

    def _keep_best(self, found: Found, message: str = "swap search") -> None:
        if self._best is None or found.value > self._best.value:
            self._best = found
            self._log.offer(self._everything.features[found.chosen], found.weights, message)

    def _climb(self, chosen: IntArray) -> IntArray:
        chosen = climb(self._everything, chosen, self._keep_going)
        self._offer_set(chosen, "swap search")
        return chosen

    def _climb_and_search(self, chosen: IntArray, core: IntArray | None = None) -> IntArray:
        """Tabu search from a local optimum, both among the features of `core`, of which `chosen` are positions."""
        space = self._everything
        if core is None:
            core = np.arange(len(space.features))
        else:
            inside = np.isin(np.arange(len(space.features)), core)
            space = space.restricted(inside, space.forced)
        chosen = climb(space, chosen, self._keep_going)
        self._offer_set(core[chosen], "swap search")
        found = tabu_search(
            space,
            chosen,
            self._rng,
            patience=_PATIENCE,
            keep_going=self._keep_going,
            on_improvement=lambda found: self._keep_best(replace(found, chosen=core[found.chosen])),
        )
        return core[chosen if found is None else found.chosen]

    def _restart(self) -> None:
        self._log.report("swap search")
        draw = self._rng.random()
        if len(self._guide) and draw < 0.6:
            self._search_core()
        elif self._best is None or draw < 0.7:
            self._climb_and_search(random_set(self._everything, self._rng))
        else:
            self._climb_and_search(shaken_set(self._everything, self._best.chosen, self._rng))

    def _search_core(self) -> None:
        """Search among the features of the core, from a set drawn by how much of each a relaxation has."""
        space, core = self._everything, self._core
        x = self._guide[core]
        likely = np.log(x + _DOUBT) - np.log(1.0 - x + _DOUBT) + self._rng.gumbel(size=len(x))
        likely[space.forced[core]] = np.inf
        self._climb_and_search(largest(likely, space.n_select), core)

    def _search_core_often(self) -> None:
        """Restart in the core until that has not helped for long."""
        stale = 0
        while len(self._guide) and stale < _STALE_BEFORE_TREE and not self._is_done():
            before = self._objective()
            self._search_core()
            stale = 0 if self._objective() > before else stale + 1

    def _take_guide(self, kept: IntArray, x: FloatArray, promise: FloatArray, core: int) -> None:
        """Let searches start near a relaxation's solution, and stay among the features that promise most."""
        space = self._everything
        self._guide = np.zeros(len(space.features))
        self._guide[kept] = np.clip(x, 0.0, 1.0)
        promise = np.where(x > 0.5, np.inf, promise)
        self._core = np.union1d(kept[largest(promise, core * space.n_select)], np.flatnonzero(space.forced))
        self._climb(kept[largest(x, space.n_select)])

    # -- bounds --------------------------------------------------------------------------------------------------------

    def _objective(self) -> float:
        return -np.inf if self._best is None else self._best.value

    def _tolerance(self) -> float:
        return 0.0 if self._best is None else self._gap * abs(self._best.value)

    def _relative(self, bound: float) -> float:
        gap = None if self._best is None else relative_gap(self._best.value, bound)
        return np.inf if gap is None else gap

    def _tighten(self, bound: float, message: str) -> None:
        """What is left of the problem is bounded by `bound`; what was left out by what it was left out for."""
        bound = max(bound, self._excluded, self._objective())
        self._log.tighten(bound / self._everything.unit, message)

    def _fix(self, without: FloatArray, including: FloatArray) -> None:
        """Drop and force features by what bounds say of solutions without and with them."""
        limit = self._objective() + self._tolerance()
        forced, dropped = self._kept & ~self._forced & (without < limit), self._kept & (including < limit)
        self._excluded = max([self._excluded, *without[forced], *including[dropped]])
        self._forced |= forced
        self._kept &= ~dropped

    def _step(self, bound: float, message: str) -> None:
        self._tighten(bound, message)
        self._log.report_now_and_then(message)

    def _keep_going(self) -> bool:
        return self._log.remaining() > 0.0

    def _is_closed(self) -> bool:
        log = self._log
        return (
            self._best is not None
            and log.bound is not None
            and log.bound * self._everything.unit <= self._objective() + self._tolerance()
        )

    def _is_done(self) -> bool:
        return not self._keep_going() or self._is_closed()


def _unit(space: SearchSpace) -> float:
    """Factor that brings objectives to a familiar size."""
    allowed = np.where(space.values > -space.barrier, space.values, 0.0)
    top = -np.sort(-np.abs(allowed), axis=1)
    kept = np.arange(top.shape[1]) < space.budgets[:, None]
    bias = np.sort(np.abs(space.bias))[-space.n_select :]
    size = float(top[kept].sum()) + float(bias.sum()) + abs(space.constant)
    return 1.0 if size == 0.0 else 2.0 ** round(math.log2(_TYPICAL_OBJECTIVE / size))
