"""Whether heat maps move with what they show when the image is shifted by a few pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError

__all__ = ["shift_stability", "shifted"]

DoubleArray = npt.NDArray[np.float64]


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Images (B, C, H, W) moved by whole pixels; their border is repeated where they leave a gap."""
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images.index_select(2, rows).index_select(3, columns)


def shift_stability(maps: npt.ArrayLike, moved: npt.ArrayLike, down: int = 0, right: int = 0) -> DoubleArray:
    """Correlation between maps and those of shifted images, shifted back, where both can be seen.

    Args:
        maps: (n, H, W), at the resolution of the images.
        moved: (n, H, W), of the images shifted by `down` and `right`.
        down: Pixels that the images were moved down by, less than H; negative: up. 0 and 0 compares without
            shifting back.
        right: The same to the right.

    Returns:
        (n,) in [−1, 1]; NaN where a map is the same everywhere.

    Raises:
        InvalidInputError: Shapes differ, or nothing can be seen in both.

    Example:
        >>> maps = np.random.default_rng(0).random((1, 6, 6))
        >>> shift_stability(maps, np.roll(maps, 2, axis=1), down=2).round(9).tolist()
        [1.0]
    """
    first, second = (np.asarray(array, dtype=np.float64) for array in (maps, moved))
    if first.shape != second.shape or first.ndim != 3:
        raise InvalidInputError(
            f"The 'maps' and 'moved' parameters must be of one shape, (n, H, W). Got {first.shape} and {second.shape}."
        )
    height, width = first.shape[1:]
    if abs(down) >= height or abs(right) >= width:
        raise InvalidInputError(
            f"The 'down' and 'right' parameters must be less than the side of the maps, {height} × {width}. Got "
            f"{down} and {right}."
        )
    before = first[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    after = second[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    a, b = before.reshape(len(first), -1), after.reshape(len(first), -1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    # A map that is flat up to rounding has no pattern that could be compared.
    least = 1e-9 * a.shape[1]
    found: DoubleArray = np.divide((a * b).sum(axis=1), lengths, out=np.full(len(a), np.nan), where=lengths > least)
    return found
