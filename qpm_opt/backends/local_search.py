"""Swap search with restarts: a good assignment within seconds at any size, with a bound that ignores penalties."""

from __future__ import annotations

from importlib.metadata import version as package_version

import numpy as np

from qpm_opt.backends.base import Capabilities, Option, Request
from qpm_opt.backends.search_log import SearchLog
from qpm_opt.problem import AssignmentProblem
from qpm_opt.relaxation import penalty_free_bound
from qpm_opt.search_space import SearchSpace
from qpm_opt.solution import Termination
from qpm_opt.swap_search import Found, climb, greedy_set, random_set, shaken_set, tabu_search

__all__ = ["CAPABILITIES", "solve", "version"]

CAPABILITIES = Capabilities(
    proves_optimality=False,
    threads=False,
    options={
        "restarts": Option(4, "searches to run: from the start or greedily, then from random and shaken sets in turn"),
        "patience": Option(60, "tabu moves without improvement after which a search ends"),
    },
)


def version() -> str:
    """Version of this package."""
    return package_version("qpm")


def solve(problem: AssignmentProblem, request: Request, log: SearchLog) -> Termination:
    """Search as often as asked for; stop early at the gap or the time limit."""
    space = SearchSpace.of(problem)
    rng = np.random.default_rng(request.seed)

    def keep_going() -> bool:
        return log.remaining() > 0.0

    def offer(found: Found) -> None:
        log.offer(space.features[found.chosen], found.weights, "swap search")

    best: Found | None = None
    for restart in range(request.options["restarts"]):
        if restart == 0:
            chosen = greedy_set(space, None if request.start is None else space.to_local(request.start))
        elif restart % 2 or best is None:
            chosen = random_set(space, rng)
        else:
            chosen = shaken_set(space, best.chosen, rng)
        log.report(f"search {restart + 1} of {request.options['restarts']}")
        chosen = climb(space, chosen, keep_going)
        found = tabu_search(
            space, chosen, rng, patience=request.options["patience"], keep_going=keep_going, on_improvement=offer
        )
        if found is not None and (best is None or found.value > best.value):
            best = found
        if restart == 0:
            log.tighten(penalty_free_bound(space, chosen, keep_going=keep_going).bound, "bound without penalties")
        if log.gap is not None and log.gap <= request.mip_gap:
            return Termination.OPTIMAL
        if not keep_going():
            return Termination.TIME_LIMIT
    return Termination.SEARCH_FINISHED
