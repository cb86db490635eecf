"""Loss terms beside cross-entropy."""

from __future__ import annotations

import torch

from qpm_opt import InvalidInputError
from qpm_vision._arrays import at_least_float32

__all__ = ["feature_diversity_loss"]

_LEAST_POOLED = 1e-6
_NORM_OFFSET = 1e-5


def feature_diversity_loss(
    maps: torch.Tensor, logits: torch.Tensor, weight: torch.Tensor, beta: float = 0.196
) -> torch.Tensor:
    """Feature diversity loss: rewards features of the predicted class for looking at different places.

    L = -β · mean_i Σ_yx max_f ŵ[i,f] · softmax_yx(M[i,f]) · a[i,f] / max_f a[i,f], with ŵ the absolute weights of the
    class that image i is predicted as, over their norm + 1e-5, and a the spatial mean of M (its maximum at least 1e-6).
    Differentiable in maps and weight. Computed in float32 also under autocast; beside what the caller holds it keeps
    one tensor of the size of the maps for the backward pass.

    Args:
        maps: Feature maps M, shape (n_images, n_features, height, width).
        logits: Class scores, shape (n_images, n_classes); only their largest entry counts.
        weight: Weights of the classifier, shape (n_classes, n_features).
        beta: Weight β of the term; 0.196 in the paper.

    Returns:
        The loss, a scalar tensor, between -β·√n_features and 0 for maps that are not negative.

    Raises:
        InvalidInputError: shapes that do not fit together, or no images.

    Example:
        >>> maps = torch.zeros(1, 2, 2, 2)
        >>> maps[0, 0, 0, 0] = maps[0, 1, 1, 1] = 50.0
        >>> round(float(feature_diversity_loss(maps, torch.ones(1, 1), torch.ones(1, 2), beta=1.0)), 3)
        -1.414
    """
    maps, logits, weight = torch.as_tensor(maps), torch.as_tensor(logits), torch.as_tensor(weight)
    fits = (
        (maps.ndim, logits.ndim, weight.ndim) == (4, 2, 2)
        and (len(maps), maps.shape[1]) == (len(logits), weight.shape[1])
        and logits.shape[1] == len(weight)
        and maps.numel() > 0
    )
    if not fits:
        raise InvalidInputError(
            "The 'maps', 'logits' and 'weight' parameters must have shapes (n_images, n_features, height, width), "
            "(n_images, n_classes) and (n_classes, n_features), with at least one image. Got "
            f"{tuple(maps.shape)}, {tuple(logits.shape)} and {tuple(weight.shape)}; pass all of one model's output."
        )
    with torch.autocast(device_type=maps.device.type, enabled=False):
        maps = at_least_float32(maps)
        rows = weight.to(maps)[logits.argmax(1)].abs()
        rows = rows / (rows.norm(dim=1, keepdim=True) + _NORM_OFFSET)
        pooled = maps.mean((2, 3))
        share = pooled / pooled.amax(1, keepdim=True).clamp(min=_LEAST_POOLED)
        # One factor per map instead of three map-sized products.
        scaled: torch.Tensor = maps.flatten(2).softmax(2) * (rows * share)[:, :, None]
        return scaled.max(1).values.sum(1).mean() * -beta
