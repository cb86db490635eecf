"""What a network gives, as maps: channels in front or behind, or tokens of patches folded into their grid."""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt

from torch import Tensor

__all__ = ["as_maps"]

_LEADING = (0, 1, 2, 4, 5)
"""Usual numbers of tokens in front of those of patches: none, one or two for the whole image, four registers too."""


def as_maps(
    features: Tensor, image_size: tuple[int, int], *, n_features: int | None = None, leading: Iterable[int] = _LEADING
) -> Tensor | None:
    """Maps of what a network gives for images; None where it is nothing that has places.

    Args:
        features: Maps with channels in front (B, n_features, h, w) or behind (B, h, w, n_features), or tokens
            (B, N, n_features) or (B, n_features, N), row by row behind those that stand for no place.
        image_size: Height and width of the images. Maps have their aspect, up to rounding.
        n_features: Which dimension holds the channels, where both are possible; None: told from the shape.
        leading: Numbers of tokens in front that are possible, in order; they are left out.

    Returns:
        Maps (B, n_features, h, w), a view where that can be.
    """
    if features.ndim == 4:
        return features.permute(0, 3, 1, 2) if _channels_behind(features, image_size, n_features) else features
    if features.ndim != 3:
        return None
    if n_features is not None and features.shape[2] != n_features == features.shape[1]:
        features = features.transpose(1, 2)
    for count in leading:
        grid = _grid(features.shape[1] - count, image_size)
        if grid is not None:
            return features[:, count:].transpose(1, 2).reshape(len(features), -1, *grid)
    return None


def _channels_behind(features: Tensor, image_size: tuple[int, int], n_features: int | None) -> bool:
    _, first, second, last = features.shape
    if n_features is not None and n_features in (first, last):
        return first != n_features
    return _alike((first, second), image_size) and not _alike((second, last), image_size)


def _alike(sides: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether maps of these sides have the aspect of the image, up to a pixel of theirs."""
    (height, width), (rows, columns) = image_size, sides
    return rows <= height and columns <= width and abs(rows * width - columns * height) <= max(height, width)


def _grid(count: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of so many patches, one every so many pixels in both directions."""
    height, width = image_size
    if count < 2:  # a token alone stands for the whole image
        return None
    if height == width:
        side = isqrt(count)
        return (side, side) if side * side == count and side <= height else None
    for stride in range(1, max(height, width) + 1):
        for rows, columns in ((height // stride, width // stride), (-(-height // stride), -(-width // stride))):
            if rows * columns == count:
                return rows, columns
    return None
