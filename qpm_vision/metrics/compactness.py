"""Compactness: how few features a model and each of its classes need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpm_vision._arrays import ArrayLike, as_tensor, require_finite
from qpm_vision.metrics._base import Accumulator, seen

if TYPE_CHECKING:
    import torch

__all__ = ["Compactness", "compactness"]


def compactness(weights: ArrayLike) -> dict[str, float]:
    """Number of features in use and of features per class.

    Args:
        weights: Weights of the classifier, shape (n_classes, n_features).

    Returns:
        "features", the features with a weight other than 0 in some class, and "features_per_class", the mean number of
        weights other than 0 in a class.

    Raises:
        InvalidInputError: no classes, another shape, or values that are not finite.

    Example:
        >>> compactness([[1, 1, 0], [0, 1, 0]])
        {'features': 2.0, 'features_per_class': 1.5}
    """
    tensor = as_tensor("weights", weights, 2)
    seen(len(tensor))
    require_finite("weights", tensor)
    used = tensor != 0
    return {"features": float(used.any(0).sum()), "features_per_class": float(used.sum()) / len(used)}


class Compactness(Accumulator):
    """Mean compactness of the models whose weights were given to `update(weights)`."""

    higher_is_better = False
    features: torch.Tensor
    features_per_class: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.sum_state("features")
        self.sum_state("features_per_class")
        self.sum_state("count")

    def update(self, weights: ArrayLike) -> None:
        """Add a model's weights (n_classes, n_features)."""
        figures = compactness(weights)
        self.features += figures["features"]
        self.features_per_class += figures["features_per_class"]
        self.count += 1

    def compute(self) -> dict[str, float]:
        """Mean over the models seen."""
        count = seen(float(self.count))
        return {name: float(getattr(self, name)) / count for name in ("features", "features_per_class")}
