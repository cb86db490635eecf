"""Class independence: whether features are shared by classes instead of standing for one."""

from __future__ import annotations

import torch

from qpm_opt import InvalidInputError
from qpm_vision._arrays import ArrayLike, as_labels, as_tensor, require_finite, sums_device, to_double
from qpm_vision.metrics._base import Accumulator, seen

__all__ = ["ClassIndependence", "class_independence"]

_SLICE = 1 << 20  # entries turned into float64 at a time


def class_independence(features: ArrayLike, labels: ArrayLike) -> float:
    """Class independence, on training images: 1 - mean_f max_c Σ_{i∈c} G[i,f] / Σ_i G[i,f].

    G is F with the smallest value of every feature taken off: G[i,f] = F[i,f] - min F[·,f].
    Classes may lack images. A feature that never varies belongs to no class and is left out of the mean.

    Args:
        features: Pooled features, shape (n_images, n_features).
        labels: Class of every image, shape (n_images,), integers from 0.

    Returns:
        Between 0 (every feature active in one class only) and 1 - 1/n_classes; NaN if no feature varies.

    Raises:
        InvalidInputError: no images, shapes that do not fit, or values that are not finite.

    Example:
        >>> class_independence([[0.0], [1.0], [3.0]], [0, 1, 2])
        0.25
    """
    rows = as_tensor("features", features, 2)
    classes = as_labels(labels, len(rows))
    seen(len(rows))
    metric = ClassIndependence(rows.shape[1], int(classes.max()) + 1).to(sums_device(rows))
    metric.update(rows, classes)
    return float(metric.compute())


class ClassIndependence(Accumulator):
    """Class independence over batches of `update(features, labels)`; keeps a sum per class and feature and a minimum.

    Args:
        n_features: Number of features.
        n_classes: Number of classes.
    """

    higher_is_better = True
    class_sums: torch.Tensor
    counts: torch.Tensor
    minimum: torch.Tensor

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.sum_state("class_sums", n_classes, n_features)
        self.sum_state("counts", n_classes)
        self.min_state("minimum", n_features)

    def update(self, features: ArrayLike, labels: ArrayLike) -> None:
        """Add features (n_images, n_features) and labels (n_images,)."""
        n_classes, n_features = self.class_sums.shape
        rows = as_tensor("features", features, 2)
        classes = as_labels(labels, len(rows), n_classes)
        if rows.shape[1] != n_features:
            raise InvalidInputError(
                f"The 'features' parameter must have {n_features} columns. Got shape {tuple(rows.shape)}; pass the "
                "features that this metric was made for."
            )
        require_finite("features", rows, int(self.counts.sum()))
        device = self.counts.device
        classes = classes.to(device)
        self.counts += torch.bincount(classes, minlength=n_classes)
        step = max(1, _SLICE // n_features)
        for begin in range(0, len(rows), step):
            part = to_double(rows[begin : begin + step], device)
            self.class_sums.index_add_(0, classes[begin : begin + step], part)
            self.minimum = torch.minimum(self.minimum, part.amin(0))

    def compute(self) -> float:
        """Class independence of the images seen."""
        n_images = seen(float(self.counts.sum()))
        above = self.class_sums - self.counts[:, None] * self.minimum
        total = above.sum(0)
        # A constant feature has a total that is rounding of the sums and no more.
        varies = total > 64 * torch.finfo(torch.float64).eps * n_images * self.minimum.abs()
        return 1.0 - float((above.amax(0) / total)[varies].mean())
