"""From a feature map to colour on an image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from qpm_opt import InvalidInputError
from qpm_vision._torch_state import plain_torch

__all__ = ["overlay", "strength", "to_grey", "upsample"]

FloatArray = npt.NDArray[np.float32]

_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_OPACITY = 0.85
_DARKEST, _LIGHTEST = 0.12, 0.88


def strength(feature_map: npt.ArrayLike, scale: npt.ArrayLike) -> FloatArray:
    """How strongly a feature is present at each place, between 0 and 1.

    The scale belongs to the feature, not to the image: a weak activation stays weak in the picture, where scaling each
    map by its own maximum would make noise look like a finding. Negative activations count as absent.

    Args:
        feature_map: (…, h, w) activations.
        scale: The activation that counts as full strength, such as a high quantile of the maxima over the training
            images; a feature that is never active has 0. One number, or one for each map, (…).
    """
    values = np.asarray(feature_map, dtype=np.float32)
    full = np.asarray(scale, dtype=np.float32)[..., None, None]
    shares = np.divide(values, full, out=np.zeros_like(values), where=full > 0)
    return np.asarray(np.clip(shares, 0.0, 1.0), dtype=np.float32)


@plain_torch()
def upsample(feature_map: npt.ArrayLike, height: int, width: int) -> FloatArray:
    """Enlarge a map bilinearly to the size of an image; a value keeps its place relative to the image.

    Args:
        feature_map: (h, w).
        height: Pixels.
        width: Pixels.

    Returns:
        (height, width).
    """
    values = torch.as_tensor(np.asarray(feature_map, dtype=np.float32))
    if values.ndim != 2:
        raise InvalidInputError(
            f"The 'feature_map' parameter must be one map, (h, w). Got shape {tuple(values.shape)}; "
            "pass the maps one by one."
        )
    enlarged = functional.interpolate(values[None, None], size=(height, width), mode="bilinear", align_corners=False)
    return np.asarray(enlarged[0, 0].numpy(), dtype=np.float32)


def to_grey(image: npt.ArrayLike) -> FloatArray:
    """Luminance of an image, a little short of black and white so that any colour stays visible on it.

    Args:
        image: (H, W, 3), in [0, 1].

    Returns:
        (H, W), in [0, 1].
    """
    luminance = np.clip(np.asarray(image, dtype=np.float32) @ _LUMINANCE, 0.0, 1.0)
    return np.asarray(_DARKEST + (_LIGHTEST - _DARKEST) * luminance, dtype=np.float32)


def overlay(image: npt.ArrayLike, presence: npt.ArrayLike, colour: str) -> FloatArray:
    """Lay a feature's presence over an image: grey where it is absent, its colour where it is strong.

    Args:
        image: (H, W, 3), in [0, 1].
        presence: (h, w) in [0, 1], enlarged to the image where smaller.
        colour: #rrggbb.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    grey = to_grey(image)[..., None]
    values = np.asarray(presence, dtype=np.float32)
    if values.shape != grey.shape[:2]:
        values = upsample(values, *grey.shape[:2])
    opacity = _OPACITY * values[..., None]
    paint = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)], dtype=np.float32) / 255
    # The colour is darker on dark parts: what lies under it can still be recognised.
    painted = paint * (0.7 + 0.3 * grey / _LIGHTEST)
    return np.asarray(np.clip(grey * (1 - opacity) + painted * opacity, 0.0, 1.0), dtype=np.float32)
