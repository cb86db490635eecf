"""Work that goes on in threads while pages show how far it is."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from qpm_opt import InvalidInputError, QPMError

__all__ = ["Job", "Jobs", "Tell", "TooManyError"]

Tell = Callable[[dict[str, Any]], None]
"""Told how far the work is, as plain values; raises KeyboardInterrupt once the work is to end."""

_MOST_KEPT = 50

_log = logging.getLogger(__name__)


class TooManyError(InvalidInputError):
    """No further job can begin now."""


class Job:
    """Work in a thread of its own, which begins at once.

    Args:
        what: What it is called in messages, such as "search".
        work: Does it and returns the result, as plain values; a KeyboardInterrupt that it lets out ends it without one.
    """

    def __init__(self, what: str, work: Callable[[Tell], dict[str, Any]]) -> None:
        self._what, self._do = what, work
        self._progress: dict[str, Any] | None = None
        self._result: dict[str, Any] | None = None
        self._error: str | None = None
        self._began = time.monotonic()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it still works."""
        return self._thread.is_alive()

    @property
    def is_wanted(self) -> bool:
        """Whether it still works and nobody has cancelled it."""
        return self.is_running and not self._cancelled.is_set()

    def cancel(self) -> None:
        """End it soon, with what there is so far if that is something."""
        self._cancelled.set()

    def to_dict(self) -> dict[str, Any]:
        """How far it is: "running", "done", "cancelled" without a result, or "failed"; seconds since it began."""
        running = self.is_running  # looked at first: what follows is final where it is over
        result, error = self._result, self._error
        ended = "done" if result is not None else "failed" if error is not None else "cancelled"
        return {
            "state": "running" if running else ended,
            "elapsed": time.monotonic() - self._began,
            "progress": self._progress,
            "result": None if running else result,
            "error": None if running else error,
        }

    def _work(self) -> None:
        try:
            self._result = self._do(self._tell)
        except QPMError as error:
            self._error = str(error)
        except KeyboardInterrupt:  # cancelled before there was anything
            pass
        except Exception as error:  # noqa: BLE001  nobody else would hear of it
            _log.exception("a %s failed", self._what)
            self._error = f"The {self._what} failed ({type(error).__name__}: {error}); please report this."

    def _tell(self, progress: dict[str, Any]) -> None:
        self._progress = progress
        if self._cancelled.is_set():
            raise KeyboardInterrupt


class Jobs:
    """Jobs of one kind by their number.

    Args:
        what: What one is called in messages.
        most: How many can be under way.
    """

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self._all: dict[str, Job] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def begin(self, work: Callable[[Tell], dict[str, Any]]) -> str:
        """Begin a job.

        Returns:
            Its number.

        Raises:
            TooManyError: As many as there can be are under way.
        """
        with self._lock:
            if len(self.under_way()) >= self._most:
                raise TooManyError(
                    f"No further {self._what} can begin: {self._most} {'is' if self._most == 1 else 'are'} under way "
                    "already, perhaps in another tab. Wait for one, or stop it."
                )
            for number in [n for n, job in self._all.items() if not job.is_running][: -_MOST_KEPT or None]:
                del self._all[number]
            number = str(next(self._numbers))
            self._all[number] = Job(self._what, work)
            return number

    def under_way(self) -> list[str]:
        """Numbers of the jobs that are under way."""
        return [number for number, job in list(self._all.items()) if job.is_wanted]

    def get(self, number: str) -> Job | None:
        """A job, None where there is none of that number any more."""
        return self._all.get(number)
