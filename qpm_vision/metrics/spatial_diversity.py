"""SID@k: whether the features that describe the predicted class look at different places."""

from __future__ import annotations

import math

import torch

from qpm_opt import InvalidInputError
from qpm_vision._arrays import ArrayLike, as_tensor, at_least_float32, require_finite, to_double
from qpm_vision.metrics._base import Accumulator, seen

__all__ = ["SpatialDiversity", "spatial_diversity"]

_LEAST_MEAN = 1e-5
_SLICE = 1 << 23  # map entries looked at together: bounds the extra memory to about 100 MB


def spatial_diversity(maps: ArrayLike, logits: ArrayLike, weights: ArrayLike, k: int = 5) -> float:
    """Spatial diversity SID@k, on test images.

    Per image, the k features with the largest weight in the predicted class; each map over its mean absolute value (at
    least 1e-5), spatial softmax, pixelwise maximum over the k maps, summed, over k; mean over images. Among equal
    weights `torch.topk` on the CPU decides, so that the result is the same on every device.

    Args:
        maps: Feature maps, shape (n_images, n_features, height, width).
        logits: Class scores, shape (n_images, n_classes).
        weights: Weights of the classifier, shape (n_classes, n_features).
        k: Number of features, 1 … n_features.

    Returns:
        Between 1/k (all look at the same place) and 1 (no overlap).

    Raises:
        InvalidInputError: shapes that do not fit, k out of range, no images, or values that are not finite.

    Example:
        >>> maps = torch.zeros(1, 2, 5, 5)
        >>> maps[0, :, 2, 2] = 1.0  # both features look at the same place
        >>> round(spatial_diversity(maps, [[1.0]], [[1.0, 1.0]], k=2), 3)
        0.5
    """
    top = _top_features(weights, k)
    values = _per_image(maps, logits, top, as_tensor("weights", weights, 2).shape[1])
    return float(values.sum()) / seen(len(values))


class SpatialDiversity(Accumulator):
    """SID@k over batches of `update(maps, logits)`; keeps one sum.

    Args:
        weights: Weights of the classifier, shape (n_classes, n_features).
        k: Number of features, 1 … n_features.
    """

    higher_is_better = True
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, weights: ArrayLike, k: int = 5) -> None:
        super().__init__()
        self._top = _top_features(weights, k)
        self._n_features = as_tensor("weights", weights, 2).shape[1]
        self.sum_state("total")
        self.sum_state("count")

    def update(self, maps: ArrayLike, logits: ArrayLike) -> None:
        """Add maps (n_images, n_features, height, width) and logits (n_images, n_classes)."""
        values = _per_image(maps, logits, self._top, self._n_features)
        self.total += values.sum().to(self.total.device)
        self.count += len(values)

    def compute(self) -> float:
        """Mean over the images seen."""
        return float(self.total) / seen(float(self.count))


def _top_features(weights: ArrayLike, k: int) -> torch.Tensor:
    """Indices of the k largest weights of every class, shape (n_classes, k)."""
    tensor = at_least_float32(as_tensor("weights", weights, 2)).cpu()
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= tensor.shape[1]:
        raise InvalidInputError(
            f"The 'k' parameter must be an integer from 1 to the number of features, {tensor.shape[1]}. Got {k!r}."
        )
    require_finite("weights", tensor)
    return tensor.topk(k, dim=1).indices


def _per_image(maps: ArrayLike, logits: ArrayLike, top: torch.Tensor, n_features: int) -> torch.Tensor:
    """SID of every image, shape (n_images,), float64 on the CPU."""
    maps, logits = as_tensor("maps", maps, 4), as_tensor("logits", logits, 2)
    if maps.shape[1] != n_features or tuple(logits.shape) != (len(maps), len(top)) or 0 in maps.shape[2:]:
        raise InvalidInputError(
            f"The 'maps' and 'logits' parameters must have shapes (n_images, {n_features}, height, width) and "
            f"(n_images, {len(top)}), to fit the weights. Got {tuple(maps.shape)} and {tuple(logits.shape)}; pass the "
            "maps of the features that the weights refer to."
        )
    require_finite("logits", logits)
    k = top.shape[1]
    chosen = top.to(maps.device)[logits.to(maps.device).argmax(1)]
    step = max(1, _SLICE // (k * math.prod(maps.shape[2:])))
    values = torch.zeros(len(maps), dtype=torch.float64)
    for begin in range(0, len(maps), step):
        index = chosen[begin : begin + step]
        images = torch.arange(begin, begin + len(index), device=maps.device)
        picked = at_least_float32(maps[images[:, None], index]).flatten(2)
        picked = picked / picked.abs().mean(2, keepdim=True).clamp(min=_LEAST_MEAN)
        sums = picked.softmax(2).amax(1).sum(1) / k
        require_finite("maps", sums[:, None], begin)
        values[begin : begin + step] = to_double(sums, values.device)
    return values
