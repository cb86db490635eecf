"""The memory of a search: incumbent, bound, trace, clock and progress callback."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import IntArray
from qpm_opt.problem import AssignmentProblem, Terms
from qpm_opt.solution import TracePoint, frozen_solution, relative_gap

__all__ = ["Progress", "SearchLog"]

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Progress:
    """What the progress callback is told.

    Attributes:
        time: Seconds since the start.
        objective: Best objective so far, or None.
        bound: Best proven bound so far, or None.
        message: What is being done.
    """

    time: float
    objective: float | None
    bound: float | None
    message: str

    @property
    def gap(self) -> float | None:
        """Relative gap, or None."""
        return relative_gap(self.objective, self.bound)


class SearchLog:
    """Keeps the best solution and bound that a back end reports.

    Args:
        problem: Evaluates solutions: what a solver believes of its objective is not taken over.
        time_limit: Seconds from now, None: no limit.
        progress: Called with a `Progress` at every improvement and now and then in between; a KeyboardInterrupt raised
            in it stops the search.

    Attributes:
        unit: What the objective that a back end sees is multiplied by, and its bounds with it.
    """

    def __init__(
        self, problem: AssignmentProblem, time_limit: float | None, progress: Callable[[Progress], Any] | None
    ) -> None:
        self.problem = problem
        self.unit = 1.0
        self.best: tuple[IntArray, npt.NDArray[np.uint8], Terms] | None = None
        self.bound: float | None = None
        self.trace: list[TracePoint] = []
        self._started = time.perf_counter()
        self._limit = math.inf if time_limit is None else time_limit
        self._progress = progress
        self._reported = 0.0

    @property
    def objective(self) -> float | None:
        """Objective of the incumbent, or None."""
        return None if self.best is None else self.best[2].total

    @property
    def gap(self) -> float | None:
        """Relative gap, or None."""
        return relative_gap(self.objective, self.bound)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def remaining(self) -> float:
        """Seconds left; infinite without a limit, never negative."""
        return max(0.0, self._limit - self.elapsed())

    def offer(self, selected: IntArray, weights: npt.NDArray[Any], message: str = "solution") -> bool:
        """Evaluate a feasible solution and keep it if it is the best so far; says whether it was kept."""
        order = np.argsort(selected)
        selected, weights = np.asarray(selected)[order], weights[:, order]
        terms = self.problem.terms(selected, weights)
        if self.best is not None and terms.total <= self.best[2].total:
            return False
        self.best = frozen_solution(selected, weights, terms)
        self._record(message)
        return True

    def tighten(self, bound: float, message: str = "bound") -> bool:
        """Keep a proven upper bound, times `unit`, if it is the lowest so far; says whether it was kept."""
        bound /= self.unit
        if not math.isfinite(bound) or (self.bound is not None and bound >= self.bound):
            return False
        self.bound = bound
        self._record(message)
        return True

    def report(self, message: str) -> None:
        """Tell the progress callback how things stand."""
        if self._progress is not None:
            self._reported = self.elapsed()
            self._progress(Progress(self._reported, self.objective, self.bound, message))

    def report_now_and_then(self, message: str) -> None:
        """Like `report`, but silent within a second of the last one."""
        if self.elapsed() - self._reported >= _HEARTBEAT_SECONDS:
            self.report(message)

    def _record(self, message: str) -> None:
        self.trace.append(TracePoint(self.elapsed(), self.objective, self.bound))
        logger.debug("%.2f s: %s, objective %s, bound %s", self.elapsed(), message, self.objective, self.bound)
        self.report(message)
