"""Handwritten digits that come with scikit-learn: 1,797 images, 10 classes."""

from __future__ import annotations

from typing import Final

import numpy as np

from qpm_vision.data._split import check_split, stratified_split
from qpm_vision.data.base import ArrayImages, ImageData

__all__ = ["load_digits_data"]

_SIZE: Final = 64
_BRIGHTEST: Final = 16  # grey levels of the original run from 0 to 16


def load_digits_data(*, test_share: float = 0.25, seed: int = 0) -> ImageData:
    """The digits, split at random, 8×8 pixels shown at 64×64.

    Args:
        test_share: Part of each class that is kept for testing.
        seed: Of the split.

    Raises:
        InvalidInputError: `test_share` or `seed` is out of range.
    """
    check_split(test_share, seed)
    from sklearn.datasets import load_digits

    bundle = load_digits()
    pixels = np.rint(bundle.images * (255 / _BRIGHTEST)).astype(np.uint8)
    names = tuple(str(name) for name in bundle.target_names)
    images = ArrayImages(pixels, bundle.target, names, size=_SIZE)
    train, test = stratified_split(images.labels, test_share=test_share, seed=seed)
    return ImageData(name="digits", train=images.subset(train), test=images.subset(test), class_names=names)
