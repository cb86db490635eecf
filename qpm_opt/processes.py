"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

__all__ = ["end_with_parent"]

_SECONDS_BETWEEN_LOOKS = 1.0


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, whatever ended that: SIGKILL, too.

    To be called first thing in a process that `multiprocessing` started, such as the `initializer` of a pool or the
    `worker_init_fn` of a loader, under any start method. Does nothing in a process that it did not start. On Linux the
    kernel ends the process, even in the midst of compiled code; elsewhere a thread looks once a second.
    """
    parent: Any = multiprocessing.parent_process()
    if parent is None:
        return
    _let_the_kernel_end_it(parent.sentinel)
    threading.Thread(target=_watch, args=(parent, os.getppid()), name="end_with_parent", daemon=True).start()


def _watch(parent: Any, number: int) -> None:
    # Both: a sister that was forked holds the sentinel open, and Windows gives the number of a parent that is gone.
    while parent.is_alive() and os.getppid() == number:
        parent.join(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _let_the_kernel_end_it(sentinel: int) -> None:
    """Have SIGKILL sent when the other end of the sentinel, a pipe, is closed.

    PR_SET_PDEATHSIG would look simpler, but it strikes when the thread ends that started the process.
    """
    if sys.platform != "linux":
        return
    import fcntl

    with suppress(OSError):  # the thread will do
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
