"""Records whose arrays cannot be written to, nor can those of their copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from qpm_opt.errors import InvalidInputError

__all__ = ["ReadOnlyArrays", "ReadOnlyMatrix", "freeze"]


class ReadOnlyMatrix(sp.csr_array):  # type: ignore[misc]
    """A sparse matrix whose arrays cannot be exchanged once it is frozen; what is computed from it can be.

    SciPy puts an entry where there was none, and fills a diagonal, by giving the matrix other arrays.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("data", "indices", "indptr") and self.__dict__.get("is_frozen", False):
            if np.array_equal(value, self.__dict__[name]):  # SciPy hands back what was there when it checks a matrix
                return
            raise InvalidInputError(
                f"The matrix must stay as it is: it is read-only. Got other {name}; change a copy, and make another "
                "record of it."
            )
        super().__setattr__(name, value)


class ReadOnlyArrays:
    """A record whose arrays stay read-only when it is pickled, as on its way to another process, or deep-copied."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        # NumPy forgets the flag in both.
        freeze(state)
        self.__dict__.update(state)


def freeze(value: Any) -> None:
    """Make all arrays in a value read-only: dense, sparse, in mappings and in tuples."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif sp.issparse(value):
        for part in (value.data, value.indices, value.indptr):
            freeze(part)
        if isinstance(value, ReadOnlyMatrix):
            value.is_frozen = True
    elif isinstance(value, dict | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            freeze(item)
