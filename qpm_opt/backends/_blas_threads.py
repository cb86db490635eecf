"""Linear algebra on one thread while a problem is being solved, unless somebody asks for more.

The wheels of NumPy and SciPy each bring an OpenBLAS with threads of its own, and those wait actively, for the next
piece of work and for each other, on the cores that the other library is about to use. Where another process runs as
well, a thread that has a core waits, over and over, for one that has none: with both of two cores taken, an
eigendecomposition of 400 features took 8 times as long on two threads as on one. On a quiet machine there is little to
gain (`python -m benchmarks.contention`). How long OpenBLAS waits cannot be changed once it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock

import scipy.linalg  # noqa: F401 - loads SciPy's library
from threadpoolctl import LibController, ThreadpoolController

__all__ = ["blas_threads"]

_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""With one of these set, the libraries keep the number of threads that they read there."""

_lock = Lock()
_within: list[list[int]] = []
"""What was set before the solves that go on at present, which may be several at a time: the same entry for each."""


@contextmanager
def blas_threads(threads: int | None) -> Iterator[None]:
    """Within it, NumPy's own BLAS library has one thread, and all others `threads`.

    None stands for one thread, or for what the environment says, `OPENBLAS_NUM_THREADS` for instance. Where NumPy and
    SciPy share one library, as in conda's packages, that counts as SciPy's. The setting holds for the whole process;
    what was set before comes back when nobody is within any more.
    """
    libraries = _libraries()
    with _lock:
        _within.append(_within[-1] if _within else [library.num_threads for library in libraries])
        for library in libraries:
            if len(libraries) > 1 and _is_numpys(library):
                library.set_num_threads(1)
            elif threads is not None:
                library.set_num_threads(min(threads, os.cpu_count() or 1))
            elif not any(os.environ.get(name) for name in _VARIABLES):
                library.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            before = _within.pop()
            if not _within:
                for library, number in zip(libraries, before, strict=True):
                    library.set_num_threads(number)


@cache
def _libraries() -> list[LibController]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _is_numpys(library: LibController) -> bool:
    return any(part.startswith("numpy") for part in Path(library.filepath).parts)
