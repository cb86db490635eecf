"""PyTorch's threads on a machine that others use as well.

Its operations are shared among the threads of an OpenMP library. They wait for each other several times in each of
them, actively: GNU's for some ten milliseconds before they sleep, LLVM's and Intel's for 200. Where another process
wants a processor, a thread that waits keeps one from the thread that is waited for, and a step of training on two
threads takes several times as long as on one (`python -m benchmarks.contention`). Threads that sleep at once are hardly
slower on a quiet machine, and nothing that is computed changes.
"""

from __future__ import annotations

import os
import threading
from ctypes import c_void_p, cast
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

from qpm_opt import available_processors

__all__ = ["share_processors"]

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_lock = threading.Lock()
_done: set[str] = set()
"""Files of the libraries whose threads wait briefly for the rest of the process."""


def share_processors() -> None:
    """From now on PyTorch's threads sleep while they wait, and are no more than there are processors for.

    What the environment says about either (`OMP_WAIT_POLICY`, `GOMP_SPINCOUNT`, `KMP_BLOCKTIME`; `OMP_NUM_THREADS`,
    `MKL_NUM_THREADS`) holds, and so does a number that PyTorch does not take by itself, given by
    `torch.set_num_threads`. Where a number is reduced it is because the process may use fewer processors than the
    machine has.
    """
    if not _is_set(_NUMBER):
        limit = available_processors()
        if limit < torch.get_num_threads() and torch.get_num_threads() in _own_numbers():
            torch.set_num_threads(limit)
    if not _is_set(_WAITING):
        with _lock:
            for library in ThreadpoolController().select(user_api="openmp").lib_controllers:
                _wait_briefly(library.filepath, library.dynlib)


def _is_set(variables: tuple[str, ...]) -> bool:
    return any(os.environ.get(name) for name in variables)


def _own_numbers() -> set[int]:
    """What PyTorch may have taken by itself: all processors, or a thread for each core, which may count as two."""
    every = os.cpu_count() or 1
    return {every, max(1, every // 2)}


def _wait_briefly(file: str, library: Any) -> None:
    if hasattr(library, "kmp_set_blocktime"):  # LLVM's and Intel's; a matter of the calling thread
        library.kmp_set_blocktime(0)
    elif hasattr(library, "GOMP_parallel") and file not in _done:
        _done.add(file)
        _crowd(library)


def _crowd(library: Any) -> None:
    """Keep as many threads of GNU's library asleep as there are processors, for the rest of the process.

    How long its threads wait is read from the environment when it is loaded; but while it has more threads than there
    are processors, they look 100 times whether they can go on, instead of 300,000 times (its manual, `GOMP_SPINCOUNT`).
    The threads that shared a piece of work stay with the thread that had it done, as long as that lives.
    """
    ready = threading.Event()

    def stay() -> None:
        # A piece of work that is none: any function of the library that takes nothing and does nothing.
        library.GOMP_parallel(cast(library.omp_in_parallel, c_void_p), None, (os.cpu_count() or 1) + 1, 0)
        ready.set()
        threading.Event().wait()

    threading.Thread(target=stay, name="openmp-crowd", daemon=True).start()
    ready.wait()
