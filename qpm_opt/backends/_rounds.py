"""Lazy uniqueness for general-purpose solvers: solve, look for classes that coincide, forbid that, solve again.

For classes c that all took the set T of k features, the group row Σ_{c∈D} Σ_{f∈T} W[c,f] ≤ k|D| − (|D| − 1) forbids
that for the group D. Here it is added disaggregated, with one indicator z[c] for each class of that budget::

    Σ_{f∈T} W[c,f] ≤ k − 1 + z[c],   Σ_c z[c] ≤ 1,   z ≥ 0

Summing the rows of any group gives its group row, so one T is settled once and for all, and as every round adds at
least one T, the rounds end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import IntArray
from qpm_opt.backends.base import Request
from qpm_opt.backends.search_log import SearchLog
from qpm_opt.problem import AssignmentProblem
from qpm_opt.search_space import SearchSpace
from qpm_opt.selection import best_weights
from qpm_opt.solution import Termination
from qpm_opt.swap_search import greedy_set

__all__ = ["Relaxation", "RoundResult", "offer_greedy_start", "solve_in_rounds"]

TOY_PAIRS = 2_000
"""Problems of up to this many (class, feature) pairs are solved to the end whatever `mip_gap` is: it costs nothing."""


@dataclass(frozen=True)
class RoundResult:
    """What one solve of the model without some uniqueness rows gave.

    Attributes:
        termination: OPTIMAL, TIME_LIMIT, INTERRUPTED or INFEASIBLE.
        weights: (n_classes, n_features) bool, of the model's solution, or None.
        selected: (n_select,) features of that solution, or None.
        bound: Proven bound on the model's, and so on the problem's, objective, or None.
    """

    termination: Termination
    selected: IntArray | None = None
    weights: npt.NDArray[np.bool_] | None = None
    bound: float | None = None


class Relaxation(Protocol):
    """A model of the problem to which uniqueness rows can be added."""

    def forbid_sharing(self, features: tuple[int, ...], classes: list[int]) -> None:
        """Let at most one of the classes have exactly this set of features."""

    def solve(self, log: SearchLog, mip_gap: float) -> RoundResult:
        """Solve it within the log's remaining time, starting from the log's incumbent if there is one."""


def offer_greedy_start(problem: AssignmentProblem, log: SearchLog) -> None:
    """Without a start, begin with a greedy set, so that the result is seldom empty-handed."""
    if log.best is None and log.remaining() > 0.0:
        space = SearchSpace.of(problem)
        selected = space.features[greedy_set(space)]
        weights = best_weights(problem, selected)
        if weights is not None:
            log.offer(selected, weights, "greedy start")


def solve_in_rounds(
    relaxation: Relaxation, problem: AssignmentProblem, request: Request, log: SearchLog
) -> Termination:
    """Solve the problem with uniqueness through a relaxation that learns it where it is violated."""
    mip_gap = 0.0 if problem.class_similarity.size <= TOY_PAIRS else request.mip_gap
    number = 0
    while True:
        number += 1
        result = relaxation.solve(log, mip_gap)
        if result.termination is Termination.INFEASIBLE:
            return Termination.INFEASIBLE
        if result.bound is not None:
            log.tighten(result.bound, f"bound of round {number}")
        if result.selected is None or result.weights is None:
            return result.termination
        weights = best_weights(problem, result.selected)
        if weights is not None:
            log.offer(result.selected, weights, f"solution of round {number}")
        shared = Counter(tuple(np.flatnonzero(row).tolist()) for row in result.weights)
        shared_sets = [features for features, count in shared.items() if count > 1]
        gap = log.gap
        if gap is not None and gap <= request.mip_gap and (mip_gap > 0.0 or not shared_sets):
            return Termination.OPTIMAL
        if result.termination is not Termination.OPTIMAL:
            return result.termination
        if not shared_sets:
            return Termination.OPTIMAL
        for features in shared_sets:
            classes = np.flatnonzero(problem.n_per_class == len(features)).tolist()
            relaxation.forbid_sharing(features, classes)
        log.report(f"round {number}: {len(shared_sets)} feature sets shared by several classes, forbidden now")
