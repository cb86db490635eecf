"""Some of many, from everywhere in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["spread_positions"]


def spread_positions(number: int, most: int) -> npt.NDArray[np.int64]:
    """Positions of at most `most` of `number` things, evenly spread, the first and the last among them.

    Example:
        >>> spread_positions(5, 3).tolist(), spread_positions(2, 3).tolist()
        ([0, 2, 4], [0, 1])
    """
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(np.int64))
