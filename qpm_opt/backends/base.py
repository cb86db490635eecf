"""What a back end is: a description of what it can do, and one function that solves.

A new back end is one module with three things, and a line in the registry of this package::

    CAPABILITIES = Capabilities(proves_optimality=True, options={"depth": Option(3, "how deep …")}, …)

    def version() -> str: …                                     # may import the solver

    def solve(problem: AssignmentProblem, request: Request, log: SearchLog) -> Termination:
        log.offer(selected, weights)     # whenever there is a better solution; evaluated and kept by the log
        log.tighten(bound)               # whenever a better bound is proven
        log.remaining()                  # seconds left; stop in time
        …

The log owns the incumbent, the bound, the trace and the progress callback, so a back end that raises KeyboardInterrupt
anywhere loses nothing. The contract tests run on every registered back end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Protocol

from qpm_opt._validation import IntArray
from qpm_opt.backends.search_log import SearchLog
from qpm_opt.problem import AssignmentProblem
from qpm_opt.solution import Termination

__all__ = ["Backend", "Capabilities", "Option", "Request"]


@dataclass(frozen=True)
class Option:
    """A setting that only one back end knows.

    Attributes:
        default: Its value when nothing is said; its type is the type that is taken (None: anything).
        meaning: One sentence.
    """

    default: Any
    meaning: str


@dataclass(frozen=True)
class Capabilities:
    """What a back end honours; what it does not is refused before anything is built.

    Attributes:
        proves_optimality: It can end with a gap of zero.
        warm_start: It uses `start`.
        threads: It uses more than one thread when asked to.
        seed: Its search depends on `seed`. Without that, it is the same for every seed.
        gap: It stops at `mip_gap`.
        progress: It reports while it searches. Without that, progress comes only between rounds.
        interrupt: Ctrl-C stops the solver itself, within seconds. Without that, it is noticed between rounds.
        deterministic: With one seed and, where there are threads, `threads=1`, and no limit reached, results repeat to
            the bit.
        options: Settings of its own.
    """

    proves_optimality: bool
    warm_start: bool = True
    threads: bool = True
    seed: bool = True
    gap: bool = True
    progress: bool = True
    interrupt: bool = True
    deterministic: bool = True
    options: Mapping[str, Option] = field(default_factory=lambda: MappingProxyType({}))

    def names(self) -> list[str]:
        """What is honoured, in words."""
        return [item.name.replace("_", " ") for item in fields(self) if getattr(self, item.name) is True]


@dataclass(frozen=True)
class Request:
    """What a back end is asked to do.

    Attributes:
        mip_gap: Stop at this relative gap.
        seed: Seed of everything random.
        threads: Number of threads, None: as many as the back end likes.
        start: (n_select,) features to start from, already feasible and offered to the log; None: none.
        options: Settings of the back end, complete and checked.
    """

    mip_gap: float
    seed: int
    threads: int | None
    start: IntArray | None
    options: Mapping[str, Any]


class Backend(Protocol):
    """A module that solves assignment problems."""

    CAPABILITIES: Capabilities

    def version(self) -> str:
        """Version of the solver behind it; raises BackendUnavailableError, saying what to install."""

    def solve(self, problem: AssignmentProblem, request: Request, log: SearchLog) -> Termination:
        """Search, report to the log, and say why the search stopped."""
