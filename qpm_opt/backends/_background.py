"""Running a solver's blocking call beside the main thread, which stays free for Ctrl-C and progress."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["run_interruptibly"]

T = TypeVar("T")

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 4.0


def run_interruptibly(call: Callable[[], T], *, poll: Callable[[], None], cancel: Callable[[], None]) -> T:
    """Run `call` in a thread and return its result.

    A solver that does not hear a cancellation for a few seconds is left behind: it ends by itself, at its time limit at
    the latest, and only the end of the process waits for it.

    `poll` runs in the calling thread every few hundredths of a second, so callbacks of the user never run inside a
    solver. When it raises, or Ctrl-C arrives, `cancel` is called, the solver is waited for, and the exception goes on.

    Raises:
        BaseException: Whatever `call` or `poll` raised.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - handed over to the calling thread
            failures.append(error)
        finally:
            done.set()

    # An event, because before Python 3.13 Thread.join takes a running thread for a finished one after Ctrl-C.
    done = threading.Event()
    # No daemon: a solver that is still running when the interpreter goes would abort the process.
    threading.Thread(target=work).start()
    wait = 0.001  # small problems are solved in milliseconds
    try:
        while not done.wait(wait):
            wait = min(_POLL_SECONDS, wait * 2)
            poll()
    except BaseException:
        # A solver may clear the request when it starts to search, so it is repeated until it is heard.
        patience = time.monotonic() + _GRACE_SECONDS
        while not done.is_set() and time.monotonic() < patience:
            with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C changes nothing
                cancel()
                done.wait(_POLL_SECONDS)
        raise
    if failures:
        raise failures[0]
    return results[0]
