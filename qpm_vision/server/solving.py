"""Searches that go on while the page shows how far they are."""

from __future__ import annotations

import itertools
import logging
import threading
from typing import Any

from qpm_opt import InvalidInputError, Progress, QPMError
from qpm_vision.run_folder import RunFolder
from qpm_vision.steered_run import propose_steering
from qpm_vision.steering import Steered, Steering

__all__ = ["MOST_RUNNING", "Solving", "Solvings", "TooManyError"]

MOST_RUNNING = 2
"""Searches at the same time, such as those of two tabs."""

_MOST_KEPT = 50

_log = logging.getLogger(__name__)


class TooManyError(InvalidInputError):
    """No further search can begin now."""


class Solving:
    """A search in a thread of its own.

    Args:
        folder: The run.
        steering: What is to change.
        seconds: Time limit.
    """

    def __init__(self, folder: RunFolder, steering: Steering, seconds: float) -> None:
        self._folder, self._steering, self._seconds = folder, steering, seconds
        self._progress: Progress | None = None
        self._found: Steered | None = None
        self._error: str | None = None
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it still searches."""
        return self._thread.is_alive()

    @property
    def is_wanted(self) -> bool:
        """Whether it still searches and nobody has cancelled it."""
        return self.is_running and not self._cancelled.is_set()

    def cancel(self) -> None:
        """End the search soon; the best assignment so far remains."""
        self._cancelled.set()

    def to_dict(self) -> dict[str, Any]:
        """How far it is: "running", "done", "cancelled" without any assignment, or "failed"."""
        seen = self._progress
        found, error = self._found, self._error
        if self.is_running:
            state = "running"
        else:
            found, error = self._found, self._error
            state = "done" if found is not None else "failed" if error is not None else "cancelled"
        return {
            "state": state,
            "seconds": self._seconds,
            "progress": None
            if seen is None
            else {
                "time": seen.time,
                "objective": seen.objective,
                "bound": seen.bound,
                "gap": seen.gap,
                "message": seen.message,
            },
            "result": None if found is None else found.to_dict(),
            "error": error,
        }

    def _work(self) -> None:
        try:
            self._found = propose_steering(self._folder, self._steering, time_limit=self._seconds, progress=self._look)
        except QPMError as error:
            self._error = str(error)
        except KeyboardInterrupt:  # cancelled before there was anything
            pass
        except Exception as error:  # noqa: BLE001  nobody else would hear of it
            _log.exception("a search failed")
            self._error = f"The search failed ({type(error).__name__}: {error}); please report this."

    def _look(self, state: Progress) -> None:
        self._progress = state
        if self._cancelled.is_set():
            raise KeyboardInterrupt


class Solvings:
    """The searches of a server by their number."""

    def __init__(self) -> None:
        self._all: dict[str, Solving] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def begin(self, folder: RunFolder, steering: Steering, seconds: float) -> str:
        """Begin a search.

        Raises:
            TooManyError: `MOST_RUNNING` are under way.
        """
        with self._lock:
            if sum(solving.is_wanted for solving in self._all.values()) >= MOST_RUNNING:
                raise TooManyError(
                    f"At most {MOST_RUNNING} searches can be under way. Wait for one, or stop it in its tab."
                )
            for number in [n for n, solving in self._all.items() if not solving.is_running][: -_MOST_KEPT or None]:
                del self._all[number]
            number = str(next(self._numbers))
            self._all[number] = Solving(folder, steering, seconds)
            return number

    def get(self, number: str) -> Solving | None:
        """A search, None where there is none of that number any more."""
        return self._all.get(number)
