"""The pictures of a page: small images, and the maps from which the browser draws what is active where.

Colour is not baked into images: the browser lays it over them, with the formula of `explain.heatmaps.overlay`. An image
then serves every feature and every theme, and costs a thumbnail and a few hundred bytes of maps.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, features
from torch import Tensor

from qpm_vision.explain.heatmaps import strength
from qpm_vision.model import QPMClassifier
from qpm_vision.preprocessing import Preprocessing

__all__ = ["LEVELS", "Picture", "levels", "take_pictures"]

LEVELS = 63
"""The level of full strength: maps are kept in steps of a 63rd, fine enough that no step can be seen."""

_QUALITY = 75


@dataclass(frozen=True)
class Picture:
    """One image as the model sees it.

    Attributes:
        thumbnail: An encoded image, WebP (JPEG where Pillow comes without).
        maps: n_select × h × w bytes, the strength of every feature in levels, compressed with zlib.
        contributions: n_select float32, little-endian, what every feature adds to the logits of its classes.
    """

    thumbnail: bytes
    maps: bytes
    contributions: bytes


def thumbnail_format() -> str:
    """What Pillow can encode here: "webp" or "jpeg"."""
    return "webp" if features.check("webp") else "jpeg"


def levels(strengths: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Strengths in [0, 1] as levels from 0 to `LEVELS`, uint8 of the same shape."""
    return np.rint(np.asarray(strengths, dtype=np.float32) * LEVELS).astype(np.uint8)


def take_pictures(
    model: QPMClassifier,
    batches: Iterable[tuple[Tensor, Tensor]],
    preprocessing: Preprocessing,
    *,
    scale: npt.NDArray[np.float32],
    side: int,
    device: torch.device | str = "cpu",
    on_images: Callable[[int], None] | None = None,
) -> list[Picture]:
    """Make a picture of each image.

    Args:
        model: The interpretable model, on `device`.
        batches: Un-augmented images (B, 3, H, W) and labels.
        preprocessing: Of the model.
        scale: (n_select,) the activation that counts as full strength.
        side: Pixels of a thumbnail; images that are smaller stay as they are.
        device: Where to compute.
        on_images: Called with the number of pictures made so far.
    """
    pictures: list[Picture] = []
    model.eval()
    with torch.no_grad():
        for images, _ in batches:
            output = model(images.to(device))
            maps = levels(strength(output.maps.float().cpu().numpy(), scale))
            contributions = model.normalise(output.features).float().cpu().numpy().astype("<f4")
            for pixels, own_maps, own_contributions in zip(images, maps, contributions, strict=True):
                thumbnail = _encoded(preprocessing.picture(pixels), side)
                pictures.append(Picture(thumbnail, zlib.compress(own_maps.tobytes(), 9), own_contributions.tobytes()))
            if on_images is not None:
                on_images(len(pictures))
    return pictures


def _encoded(pixels: npt.NDArray[np.float32], side: int) -> bytes:
    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    if image.width > side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, thumbnail_format(), quality=_QUALITY)
    return buffer.getvalue()
