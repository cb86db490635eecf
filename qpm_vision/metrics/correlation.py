"""Correlation: how much features repeat each other."""

from __future__ import annotations

import torch

from qpm_opt import InvalidInputError
from qpm_vision._arrays import ArrayLike, as_tensor, require_finite, sums_device, to_double
from qpm_vision.metrics._base import Accumulator, seen

__all__ = ["FeatureCorrelation", "correlation"]

_SLICE = 1 << 22  # entries turned into float64 at a time


def correlation(features: ArrayLike) -> float:
    """Correlation, on training images: mean over features of the largest cosine (uncentred) with another feature.

    The cosine with a feature that is zero everywhere is 0, and so is the largest cosine of a single feature.

    Args:
        features: Pooled features, shape (n_images, n_features).

    Returns:
        Between -1 and 1; from 0 on for features that are not negative.

    Raises:
        InvalidInputError: no images, another shape, or values that are not finite.

    Example:
        >>> round(correlation([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), 6)
        0.666667
    """
    rows = as_tensor("features", features, 2)
    metric = FeatureCorrelation(rows.shape[1]).to(sums_device(rows))
    metric.update(rows)
    return float(metric.compute())


class FeatureCorrelation(Accumulator):
    """Correlation over batches of `update(features)`; keeps the Gram matrix, (n_features, n_features).

    Args:
        n_features: Number of features.
    """

    higher_is_better = False
    gram: torch.Tensor
    count: torch.Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.sum_state("gram", n_features, n_features)
        self.sum_state("count")

    def update(self, features: ArrayLike) -> None:
        """Add features (n_images, n_features)."""
        rows = as_tensor("features", features, 2)
        if rows.shape[1] != len(self.gram):
            raise InvalidInputError(
                f"The 'features' parameter must have {len(self.gram)} columns. Got shape {tuple(rows.shape)}; pass the "
                "features that this metric was made for."
            )
        require_finite("features", rows, int(self.count))
        self.count += len(rows)
        step = max(1, _SLICE // len(self.gram))
        for begin in range(0, len(rows), step):
            part = to_double(rows[begin : begin + step], self.gram.device)
            self.gram.addmm_(part.T, part)

    def compute(self) -> float:
        """Correlation of the features seen."""
        seen(float(self.count))
        if len(self.gram) < 2:
            return 0.0
        norms = self.gram.diagonal().sqrt()
        inverse = torch.where(norms > 0, 1.0 / norms, 0.0)
        cosines = inverse[:, None] * self.gram * inverse
        cosines.fill_diagonal_(-torch.inf)
        return float(cosines.amax(1).mean())
