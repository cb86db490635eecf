"""Records whose arrays cannot be written to, nor can those of their copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = ["ReadOnlyArrays", "freeze"]


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
    elif isinstance(value, dict | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            freeze(item)
