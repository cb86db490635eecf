"""What is done when: find, bound, fix, cut, bound again, branch.

Every switch depends on counts and values, never on the clock, so a run repeats to the bit for the same number of
threads, unless it hits its time limit.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np

from qpm_opt._validation import FloatArray
from qpm_opt.backends._rounds import TOY_PAIRS
from qpm_opt.backends.base import Request
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.master import Point
from qpm_opt.backends.decomposition.semidefinite import CHOSEN_EVERY, SemidefiniteBound
from qpm_opt.backends.decomposition.set_search import SetSearch
from qpm_opt.backends.decomposition.team import Team
from qpm_opt.backends.decomposition.tree import BranchAndCut, Surroundings
from qpm_opt.backends.search_log import SearchLog
from qpm_opt.problem import AssignmentProblem
from qpm_opt.processors import available_processors
from qpm_opt.relaxation import penalty_free_bound
from qpm_opt.search_space import SearchSpace, largest
from qpm_opt.solution import Termination, relative_gap
from qpm_opt.swap_search import Found, swap_gains

__all__ = ["Search"]

_EXACT = 1e-9
"""Relative difference of objectives that rounding explains: where a proof to the end is asked for, it stops here."""

_STALE_RESTARTS = 6
_SEARCHES = 3
_SELDOM = 6
"""So many searches are made after a certificate; after so many certificates in vain, they wait for as many others."""

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

_FEW_SETS = 1_000
"""Where no more sets of features are left than these, the tree has seen them all before that bound gets going."""

_WORKING = 8
"""The semidefinite bound begins with this many times n_select features, those that the incumbent would exchange."""

_PROOF_STEPS = 3.0
"""A certificate takes about as long as this many iterations, until one has been timed."""

_CERTIFICATES_WATCHED = 6
_LEAST_FALL = 0.02
"""The semidefinite bound is left when six certificates closed less than this share of the gap."""

_FAR_BEHIND = 1.25
_WATCHED_ALONE = 40
_LEAST_FALL_ALONE = 0.01
"""The same where the gap of the cutting planes is `_FAR_BEHIND` times as large, so that nothing better is to be had."""

_TRIAL_ROUNDS = 10
"""Cutting planes go on if as many rounds again, at the pace of the last ones, promise `_SMALL_GAP`."""

_MOST_THREADS = 4
"""Trees that share the nodes where nobody says how many: each has a linear program of its own."""


class Search:
    """The state of one solve."""

    def __init__(self, problem: AssignmentProblem, request: Request, log: SearchLog) -> None:
        self._request, self._log = request, log
        self._everything = space = SearchSpace.of(problem)
        exact = problem.class_similarity.size <= TOY_PAIRS
        self._gap = _EXACT if exact else max(request.mip_gap, _EXACT)
        self._sets = SetSearch(self._everything, np.random.default_rng(request.seed), self._keep_going, self._log_best)
        n = len(space.features)
        self._threads = min(request.threads or min(_MOST_THREADS, available_processors()), os.cpu_count() or 1)
        self._kept, self._forced = np.ones(n, dtype=bool), space.forced.copy()
        self._excluded = -np.inf  # bound on all that features left out or forced since then would have given

    # -- the plan ------------------------------------------------------------------------------------------------------

    def run(self) -> Termination:
        """Everything, in order."""
        tree = self._shrunk_tree(self._first_thresholds())
        if tree is not None and not self._is_done() and self._worth_a_semidefinite_bound(tree):
            self._semidefinite(tree.bound)
            if self._kept.sum() < len(tree.space.features):
                tree = self._shrunk_tree(tree.thresholds)
        if tree is not None and not self._is_done():
            self._branch(tree)
        return self._verdict()

    def _first_thresholds(self) -> FloatArray:
        """A good solution, the bound without penalties, and the thresholds that prove it."""
        space = self._everything
        start = None if self._request.start is None else space.to_local(self._request.start)
        chosen = self._sets.begin(start)
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
            replace(self._around(self._sets), on_step=lambda bound: self._step(bound, "cutting planes")),
        )
        point = self._cut_root(tree)
        self._excluded = max(self._excluded, tree.closed)
        if point is None:
            self._tighten(tree.bound, "proof")
            return None
        self._sets.take_guide(kept, point.x, -np.abs(point.reduced), _CORE)
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
        n_free, n_forced = len(tree.space.features), int(tree.space.forced.sum())
        few = math.comb(n_free - n_forced, tree.space.n_select - n_forced) <= _FEW_SETS
        return not few and self._relative(tree.bound) > _TREE_GAP and bool(tree.space.penalties.any())

    def _semidefinite(self, cutting_planes: float) -> None:
        """Iterate on the semidefinite bound as long as it pays, which is longer where cutting planes lag behind."""
        best = self._sets.best
        if best is None:
            return
        kept = np.flatnonzero(self._kept)
        space = self._everything.restricted(self._kept, self._forced)
        if not space.n_select > space.forced.sum():
            return
        local = np.flatnonzero(np.isin(kept, best.chosen))
        promise = swap_gains(space, local).max(axis=0)
        working = np.isin(np.arange(len(kept)), largest(promise, _WORKING * space.n_select))
        iteration = SemidefiniteBound(space, ClassValues.of(space.values, space.budgets), local, working)
        bounds: list[float] = []
        step = proof = 0.0
        stale, left_in = 0, self._kept.sum()
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
            if self._kept.sum() <= _LEAST_SHRINKAGE * left_in:
                if not iteration.restrict(self._kept[kept], self._forced[kept]):
                    return
                left_in = self._kept.sum()
            self._sets.take_guide(kept, iteration.x, certificate.including, _SEMIDEFINITE_CORE)
            # Searches that have found nothing for long take their time from the bound.
            if stale < _STALE_RESTARTS or len(bounds) % _SELDOM == _SELDOM - 1:
                before = self._objective()
                for _ in range(_SEARCHES):
                    self._sets.search_core()
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
        tree.root()
        self._tighten(tree.bound, "branch and cut")

        def step(bound: float, nodes: int) -> None:
            self._step(bound, f"cutting planes, {nodes} nodes")

        with Team(tree, self._sets, self._threads, self._around, step) as team:
            while not team.finished and not self._is_done():
                team.work()
                self._tighten(team.bound, "branch and cut")

    def _around(self, sets: SetSearch) -> Surroundings:
        local = self._everything.to_local
        return Surroundings(
            incumbent=lambda: sets.objective,
            tolerance=lambda: self._tolerance_of(sets),
            on_set=lambda selected: sets.offer_set(local(selected), "from the linear program"),
            on_rounding=lambda selected: sets.climb(local(selected)),
            seconds_left=lambda: self._log.remaining() if sets.keep_going() else 0.0,
            on_step=lambda _bound: None,
        )

    # -- solutions -----------------------------------------------------------------------------------------------------

    def _log_best(self, found: Found, message: str) -> None:
        self._log.offer(self._everything.features[found.chosen], found.weights, message)

    def _restart(self) -> None:
        self._log.report("swap search")
        self._sets.restart()

    # -- bounds --------------------------------------------------------------------------------------------------------

    def _objective(self) -> float:
        return self._sets.objective

    def _tolerance(self) -> float:
        return self._tolerance_of(self._sets)

    def _tolerance_of(self, sets: SetSearch) -> float:
        return 0.0 if sets.best is None else self._gap * abs(sets.best.value)

    def _relative(self, bound: float) -> float:
        gap = None if self._sets.best is None else relative_gap(self._sets.best.value, bound)
        return np.inf if gap is None else gap

    def _tighten(self, bound: float, message: str) -> None:
        """What is left of the problem is bounded by `bound`; what was left out by what it was left out for."""
        bound = max(bound, self._excluded, self._objective())
        self._log.tighten(bound, message)

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
            self._sets.best is not None
            and log.bound is not None
            and log.bound * log.unit <= self._objective() + self._tolerance()
        )

    def _is_done(self) -> bool:
        return not self._keep_going() or self._is_closed()
