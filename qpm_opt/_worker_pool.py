"""A pool of processes that ends with the one that needs it, and says in a sentence why it could not work."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from qpm_opt.errors import InvalidInputError, SolverError
from qpm_opt.processes import end_with_parent

__all__ = ["end_preparation", "worker_pool"]

_NO_GUARD_CODE = 78
"""Exit code of a process that came to start processes itself while it was only being prepared."""

_NO_GUARD = (
    "{what} starts processes, which import the script that calls it, and must not call it again there. "
    'Put the call under `if __name__ == "__main__":`.'
)


def end_preparation() -> None:
    """End a process that is only being prepared, and imports the script whose call is at work already.

    To be called before anything that the first call holds, such as a folder, is asked for.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_NO_GUARD_CODE)  # in silence: the first process tells


@contextmanager
def worker_pool(what: str, width: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `width` fresh processes; an error within the context, Ctrl-C included, ends them at once.

    Args:
        what: What needs the processes, for messages.
        width: How many.

    Raises:
        InvalidInputError: This process may not start others.
        SolverError: A process ended without a word.
    """
    end_preparation()
    here = multiprocessing.current_process()
    if here.daemon:
        raise InvalidInputError(
            f"{what} starts processes, which a daemonic process such as a worker of multiprocessing.Pool may not. "
            "Call it from another one, for instance a worker of concurrent.futures."
        )
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of solvers half-alive
    pool = ProcessPoolExecutor(width, mp_context=context, initializer=_begin)
    processes: list[Any] = []
    try:
        with pool:
            try:
                yield pool
            except BaseException:
                processes = list((pool._processes or {}).values())
                for process in processes:
                    process.kill()
                raise
    except BrokenProcessPool as error:
        if any(process.exitcode == _NO_GUARD_CODE for process in processes):
            raise InvalidInputError(_NO_GUARD.format(what=what)) from error
        raise SolverError(
            f"A process of {what[0].lower()}{what[1:]} was killed, most often because memory ran out. What is finished "
            "is stored; the same call goes on behind it. Fewer 'workers' need less memory."
        ) from error


def _begin() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others
