"""One pool of threads for linear algebra.

The wheels of NumPy and SciPy each bring a BLAS library with threads of its own. Those of the one that has just finished
wait actively for a while, on the cores that the other one is about to use: on two cores that halves the speed of an
iteration which takes turns between them. Here SciPy's has the cores, for the eigendecompositions are its.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock

from threadpoolctl import LibController, ThreadpoolController

__all__ = ["blas_threads"]

_lock = Lock()
_within: list[list[int]] = []
"""What was set before the solves that go on at present, which may be several at a time: the same entry for each."""


@contextmanager
def blas_threads(threads: int | None) -> Iterator[None]:
    """Within it, NumPy's own BLAS library has one thread, and all others `threads`; None leaves them what they have.

    Where NumPy and SciPy share one library, as in conda's packages, that counts as SciPy's. The setting holds for the
    whole process; what was set before comes back when nobody is within any more.
    """
    libraries = _libraries()
    with _lock:
        _within.append(_within[-1] if _within else [library.num_threads for library in libraries])
        for library in libraries:
            if len(libraries) > 1 and _is_numpys(library):
                library.set_num_threads(1)
            elif threads is not None:
                library.set_num_threads(min(threads, os.cpu_count() or 1))
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
