"""Whether a feature is where it should be: the strongest place of its map, and its heat, against a box in the image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError

__all__ = ["box_areas", "heat_in_box", "pointing_accuracy", "pointing_hits"]

DoubleArray = npt.NDArray[np.float64]


def pointing_hits(maps: npt.ArrayLike, boxes: npt.ArrayLike) -> DoubleArray:
    """Whether the middle of the strongest place of each map lies in its box (pointing game, Zhang et al., ECCV 2016).

    Without the tolerance around boxes that is usual for photographs. Of several places that are equally strong each
    counts by its share, so that a map that is the same everywhere gets what a random one gets on average.

    Args:
        maps: (n, h, w).
        boxes: (n, 4) left, upper, right and lower edge in shares of the image's sides.

    Returns:
        (n,) in [0, 1].

    Raises:
        InvalidInputError: Shapes do not fit.

    Example:
        >>> pointing_hits([[[0, 1], [0, 0]]], [[0.5, 0.0, 1.0, 0.4]]).tolist()
        [1.0]
    """
    values, edges = _checked(maps, boxes)
    strongest = values == values.max(axis=(1, 2), keepdims=True)
    inside = _middles_inside(values.shape, edges)
    return np.asarray((strongest & inside).sum(axis=(1, 2)) / strongest.sum(axis=(1, 2)))


def pointing_accuracy(maps: npt.ArrayLike, boxes: npt.ArrayLike) -> float:
    """The mean of `pointing_hits`."""
    hits = pointing_hits(maps, boxes)
    if not len(hits):
        raise InvalidInputError("The 'maps' parameter must hold at least one map. Got none.")
    return float(hits.mean())


def heat_in_box(maps: npt.ArrayLike, boxes: npt.ArrayLike) -> DoubleArray:
    """The share of a map's positive values that lies in its box, each value spread evenly over its place.

    Args:
        maps: (n, h, w).
        boxes: As for `pointing_hits`.

    Returns:
        (n,) in [0, 1]; NaN where a map has no positive value. A map that is the same everywhere gets the area.
    """
    values, edges = _checked(maps, boxes)
    positive = np.maximum(values, 0)
    _, height, width = values.shape
    rows = _overlaps(height, edges[:, 1], edges[:, 3])
    columns = _overlaps(width, edges[:, 0], edges[:, 2])
    inside = np.einsum("nhw,nh,nw->n", positive, rows, columns)
    total = positive.sum(axis=(1, 2))
    shares: DoubleArray = np.divide(inside, total, out=np.full(len(total), np.nan), where=total > 0)
    return shares


def box_areas(boxes: npt.ArrayLike) -> DoubleArray:
    """The share of the image that boxes (n, 4) take: what pointing and heat get by chance."""
    edges = np.asarray(boxes, dtype=np.float64)
    return np.asarray((edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1]))


def _checked(maps: npt.ArrayLike, boxes: npt.ArrayLike) -> tuple[DoubleArray, DoubleArray]:
    values, edges = np.asarray(maps, dtype=np.float64), np.asarray(boxes, dtype=np.float64)
    if values.ndim != 3 or 0 in values.shape[1:] or edges.shape != (len(values), 4):
        raise InvalidInputError(
            "The 'maps' and 'boxes' parameters must be of shape (n, h, w) and (n, 4), a box for each map. Got "
            f"{values.shape} and {edges.shape}."
        )
    return values, edges


def _middles_inside(shape: tuple[int, ...], edges: DoubleArray) -> npt.NDArray[np.bool_]:
    _, height, width = shape
    y = (np.arange(height) + 0.5) / height
    x = (np.arange(width) + 0.5) / width
    rows = (edges[:, 1, None] <= y) & (y <= edges[:, 3, None])
    columns = (edges[:, 0, None] <= x) & (x <= edges[:, 2, None])
    return rows[:, :, None] & columns[:, None, :]


def _overlaps(number: int, low: DoubleArray, high: DoubleArray) -> DoubleArray:
    """How much of each of `number` equal parts of [0, 1] lies between two edges, (n, number) in [0, 1]."""
    starts = np.arange(number) / number
    covered = np.minimum(high[:, None], starts + 1 / number) - np.maximum(low[:, None], starts)
    return np.asarray(np.clip(covered * number, 0.0, 1.0))
