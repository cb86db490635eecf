"""Looking once at every image: what it is recognised by, and what about it might give its class away."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from qpm_vision.data import ImageSet, UnreadableImageError

__all__ = ["SIDE", "Looks", "look_at"]

SIDE = 32
"""Pixels of the small copy of each image."""

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Looks:
    """What was seen of n images; rows of those that cannot be read are zero.

    Attributes:
        reasons: Why an image cannot be read, by its position.
        digests: Of the decoded pixels.
        hashes: (n,) uint64, perceptual hashes (DCT, 64 bits).
        small: (n, 32, 32, 3) uint8, the images scaled down.
        sizes: (n, 2) width and height in pixels, of what is shown.
        modes: Colour modes of the files, empty where there are none.
        formats: File formats, the same way.
        bytes: (n,) sizes of the files, 0 where there are none.
    """

    reasons: dict[int, str]
    digests: list[bytes]
    hashes: npt.NDArray[np.uint64]
    small: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int64]
    modes: list[str]
    formats: list[str]
    bytes: npt.NDArray[np.int64]


def look_at(images: ImageSet, on_images: Callable[[int], None] | None = None) -> Looks:
    """Decode every image once, several at a time; 3 kB are kept of each.

    Args:
        images: The images.
        on_images: Called with the number of images seen so far.
    """
    n = len(images)
    looks = Looks(
        {},
        [b""] * n,
        np.zeros(n, dtype=np.uint64),
        np.zeros((n, SIDE, SIDE, 3), dtype=np.uint8),
        np.zeros((n, 2), dtype=np.int64),
        [""] * n,
        [""] * n,
        np.zeros(n, dtype=np.int64),
    )

    def look(position: int) -> None:
        try:
            image = images.image(position)
        except UnreadableImageError as error:
            looks.reasons[position] = error.reason
            return
        looks.digests[position] = hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()
        looks.hashes[position] = _perceptual_hash(image)
        looks.small[position] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))
        looks.sizes[position] = image.size
        looks.modes[position], looks.formats[position], looks.bytes[position] = _of_file(images, position)

    # Short batches, so that Ctrl-C is heard soon.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, n, _BATCH):
            for _ in pool.map(look, range(start, min(start + _BATCH, n))):
                pass
            if on_images is not None:
                on_images(min(start + _BATCH, n))
    return looks


def _perceptual_hash(image: Image.Image) -> int:
    import imagehash

    bits: npt.NDArray[Any] = imagehash.phash(image.resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=2.0)).hash
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def _of_file(images: ImageSet, position: int) -> tuple[str, str, int]:
    path = images.file(position)
    if path is None:
        return "", "", 0
    try:
        with Image.open(path) as image:
            return image.mode, image.format or "", path.stat().st_size
    except Exception:  # noqa: BLE001 - it was read a moment ago, and what is asked here can be missing
        return "", "", 0
