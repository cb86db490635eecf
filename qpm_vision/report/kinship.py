"""How classes are related by the features that they share: nearest classes, and what differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_vision._comparison_measures import features_lacking

__all__ = ["Difference", "difference", "nearest_classes", "pairs_one_feature_apart"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """What tells another class from this one.

    Attributes:
        class_index: The other class.
        shared: Number of features that both have.
        own: Columns that only this class has.
        other: Columns that only the other class has.
    """

    class_index: int
    shared: int
    own: list[int]
    other: list[int]


def difference(weights: npt.ArrayLike, index: int, other: int) -> Difference:
    """What tells class `other` from class `index`.

    Example:
        >>> difference([[1, 1, 0], [0, 1, 1]], 0, 1)
        Difference(class_index=1, shared=1, own=[0], other=[2])
    """
    first, second = (np.asarray(weights)[row] > 0 for row in (index, other))
    return Difference(
        other,
        int((first & second).sum()),
        np.flatnonzero(first & ~second).tolist(),
        np.flatnonzero(second & ~first).tolist(),
    )


def nearest_classes(weights: npt.ArrayLike, similarity: FloatArray, index: int, number: int) -> list[Difference]:
    """The classes that share most features with a class, those more alike by all features first among equals.

    Args:
        weights: W, (n_classes, n_select) of 0/1.
        similarity: (n_classes, n_classes), larger for classes that are more alike.
        index: The class.
        number: How many, at most.

    Returns:
        The nearest first; classes that share no feature are left out.
    """
    matrix = np.asarray(weights) > 0
    shared = matrix.astype(np.int64) @ matrix[index].astype(np.int64)
    shared[index] = 0
    order = np.lexsort((-similarity[index], -shared))[:number].tolist()
    return [difference(matrix, index, other) for other in order if shared[other]]


def pairs_one_feature_apart(weights: npt.ArrayLike) -> IntArray:
    """Pairs of classes of which each has at most one feature that the other lacks, (m, 2), first < second."""
    matrix = (np.asarray(weights) > 0).astype(np.float64)
    return np.argwhere(np.triu(features_lacking(matrix) == 1, k=1)).astype(np.int64)
