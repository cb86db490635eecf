"""Which training images show a class and a feature best, and how strong a feature gets: one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qpm_opt import InvalidInputError

__all__ = ["Gallery", "best_first", "collect_gallery"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

QUANTILE = 0.99
"""The quantile of a feature's maxima that counts as full strength."""

N_BEST = 6
"""How many images are kept for a class, and for a class and a feature."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """The images worth showing. Positions are those of the training images; −1 fills up.

    Attributes:
        best_of_class: (n_classes, N_BEST) int64. Correctly predicted images first, the highest own logit first.
        best_of_pair: (n_classes, n_select, N_BEST) int64. Correctly predicted images of the class first, the strongest
            pooled activation of the feature first.
        scale: (n_select,) float32, the 99 % quantile over the images of the maximum of a feature's map.
        n_correct: (n_classes,) int64, correctly predicted training images.
        n_images: (n_classes,) int64, training images.
    """

    best_of_class: IntArray
    best_of_pair: IntArray
    scale: FloatArray
    n_correct: IntArray
    n_images: IntArray

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, for an `.npz` file."""
        return asdict(self)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Gallery:
        """The inverse of `to_arrays`.

        Raises:
            InvalidInputError: An array is missing.
        """
        try:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise InvalidInputError(
                f"The 'arrays' parameter must hold {error.args[0]!r}. Got {sorted(arrays)}."
            ) from error


def best_first(correct: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """An order of images: correctly predicted ones first, the largest value first among them."""
    return np.lexsort((-values, ~correct))


def collect_gallery(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    n_classes: int,
    device: torch.device | str = "cpu",
    on_images: Callable[[int], None] | None = None,
) -> Gallery:
    """Look at every training image once, in eval mode and without gradients.

    Memory: 8 bytes for each image and kept feature (2.4 MB for 6,000 images and 50 features).

    Args:
        model: Returns logits, maps (B, n_select, h, w) and pooled features (B, n_select).
        batches: Un-augmented images (B, 3, H, W) and labels (B,), in the order of the training images.
        n_classes: Number of classes.
        device: Where to compute.
        on_images: Called with the number of images seen so far.
    """
    model.eval()
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    seen = 0
    with torch.no_grad():
        for images, targets in batches:
            output = model(images.to(device))
            logits = output.logits.float().cpu()
            parts.append(
                (
                    output.maps.flatten(2).amax(dim=2).float().cpu().numpy(),
                    output.features.float().cpu().numpy(),
                    logits.gather(1, targets[:, None])[:, 0].numpy(),
                    logits.argmax(dim=1).numpy(),
                    targets.numpy(),
                )
            )
            seen += len(targets)
            if on_images is not None:
                on_images(seen)
    if not seen:
        raise InvalidInputError("The 'batches' parameter must hold at least one image. Got none.")
    peaks, pooled, own_logits, predicted, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _gallery(peaks, pooled, own_logits, predicted, labels, n_classes)


def _gallery(
    peaks: FloatArray, pooled: FloatArray, own_logits: FloatArray, predicted: IntArray, labels: IntArray, n_classes: int
) -> Gallery:
    n_select = pooled.shape[1]
    correct = predicted == labels
    best_of_class = np.full((n_classes, N_BEST), -1, dtype=np.int64)
    best_of_pair = np.full((n_classes, n_select, N_BEST), -1, dtype=np.int64)
    for index in range(n_classes):
        members = np.flatnonzero(labels == index)
        first = best_first(correct[members], own_logits[members])[:N_BEST]
        best_of_class[index, : len(first)] = members[first]
        for feature in range(n_select):
            first = best_first(correct[members], pooled[members, feature])[:N_BEST]
            best_of_pair[index, feature, : len(first)] = members[first]
    return Gallery(
        best_of_class=best_of_class,
        best_of_pair=best_of_pair,
        scale=np.quantile(peaks, QUANTILE, axis=0).astype(np.float32),
        n_correct=np.bincount(labels[correct], minlength=n_classes).astype(np.int64),
        n_images=np.bincount(labels, minlength=n_classes).astype(np.int64),
    )
