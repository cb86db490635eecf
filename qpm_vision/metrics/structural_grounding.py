"""Structural grounding: whether classes that are alike share features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpm_opt import InvalidInputError
from qpm_vision._arrays import ArrayLike, FloatArray, as_numpy, as_tensor, require_finite
from qpm_vision.metrics._base import Accumulator, seen

if TYPE_CHECKING:
    import torch

__all__ = ["StructuralGrounding", "structural_grounding"]


def structural_grounding(weights: ArrayLike, class_similarity: ArrayLike, top: int = 50) -> float:
    """Structural grounding of a class assignment in a given likeness of the classes.

    Cosine between the class rows of the weights, summed over the `top` largest entries of the likeness, over the sum of
    these entries. Both orders of a pair of classes are entries; a class's likeness to itself counts as zero. Among
    equal entries the first in row order counts.

    Args:
        weights: Class assignment, shape (n_classes, n_features).
        class_similarity: Given likeness of the classes, shape (n_classes, n_classes), for example the cosine of
            attribute vectors.
        top: Number of entries, at least 1; all there are if there are fewer.

    Returns:
        About 1 where likeness and shared features agree; 0 where no class of a listed pair shares a feature.

    Raises:
        InvalidInputError: shapes that do not fit, values that are not finite, or listed entries that sum to 0 or less.

    Example:
        >>> structural_grounding([[1, 0], [0, 1], [1, 0]], [[0, 0.5, 1], [0.5, 0, 0.1], [1, 0.1, 0]], top=4)
        0.6666666666666666
    """
    W, likeness = as_tensor("weights", weights, 2), as_tensor("class_similarity", class_similarity, 2)
    if tuple(likeness.shape) != (len(W), len(W)):
        raise InvalidInputError(
            f"The 'class_similarity' parameter must have shape ({len(W)}, {len(W)}), one row per class of the weights. "
            f"Got {tuple(likeness.shape)}; this is a likeness of classes, not of classes and features."
        )
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise InvalidInputError(f"The 'top' parameter must be an integer of at least 1. Got {top!r}.")
    require_finite("weights", W)
    require_finite("class_similarity", likeness)
    given = as_numpy(likeness)
    np.fill_diagonal(given, 0.0)
    listed = np.argsort(-given, axis=None, kind="stable")[:top]
    total = float(given.ravel()[listed].sum())
    if total <= 0:
        raise InvalidInputError(
            f"The 'class_similarity' parameter must have positive entries off its diagonal. Its {len(listed)} largest "
            f"sum to {total:g}; pass a likeness, for example the cosine of attribute vectors, not a distance."
        )
    return float(_cosines(as_numpy(W)).ravel()[listed].sum()) / total


class StructuralGrounding(Accumulator):
    """Mean structural grounding of the assignments given to `update(weights, class_similarity)`, one per model.

    Args:
        top: Number of entries of the likeness that count.
    """

    higher_is_better = True
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, top: int = 50) -> None:
        super().__init__()
        self._top = top
        self.sum_state("total")
        self.sum_state("count")

    def update(self, weights: ArrayLike, class_similarity: ArrayLike) -> None:
        """Add a model: weights (n_classes, n_features) and a likeness (n_classes, n_classes)."""
        self.total += structural_grounding(weights, class_similarity, self._top)
        self.count += 1

    def compute(self) -> float:
        """Mean over the models seen."""
        return float(self.total) / seen(float(self.count))


def _cosines(W: FloatArray) -> FloatArray:
    """Cosine between rows, 0 for rows of zeros and on the diagonal."""
    norms = np.linalg.norm(W, axis=1, keepdims=True)
    rows = np.divide(W, norms, out=np.zeros_like(W), where=norms > 0)
    cosines: FloatArray = rows @ rows.T
    np.fill_diagonal(cosines, 0.0)
    return cosines
