"""Which training images show a class and a feature best, and how strong a feature gets: one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
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

N_BINS = 32
"""Bins of the histogram of a feature's pooled activations."""


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
        edges: (n_select, N_BINS + 1) float32, edges of the bins of each feature's pooled activations, from the lowest
            to the highest. None in galleries of former versions.
        counts: (n_classes, n_select, N_BINS) int64, images of a class whose activation is in a bin; None as `edges`.
    """

    best_of_class: IntArray
    best_of_pair: IntArray
    scale: FloatArray
    n_correct: IntArray
    n_images: IntArray
    edges: FloatArray | None = None
    counts: IntArray | None = None

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, for an `.npz` file."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Gallery:
        """The inverse of `to_arrays`.

        Raises:
            InvalidInputError: An array is missing.
        """
        known = [item.name for item in fields(cls)]
        missing = [name for name in known if name not in arrays and name not in ("edges", "counts")]
        if missing:
            raise InvalidInputError(f"The 'arrays' parameter must hold {missing[0]!r}. Got {sorted(arrays)}.")
        return cls(**{name: arrays[name] for name in known if name in arrays})


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
    edges, counts = _histograms(pooled, labels, n_classes)
    return Gallery(
        best_of_class=best_of_class,
        best_of_pair=best_of_pair,
        scale=np.quantile(peaks, QUANTILE, axis=0).astype(np.float32),
        n_correct=np.bincount(labels[correct], minlength=n_classes).astype(np.int64),
        n_images=np.bincount(labels, minlength=n_classes).astype(np.int64),
        edges=edges,
        counts=counts,
    )


def _histograms(pooled: FloatArray, labels: IntArray, n_classes: int) -> tuple[FloatArray, IntArray]:
    edges = np.linspace(pooled.min(axis=0), pooled.max(axis=0), N_BINS + 1, axis=1, dtype=np.float32)
    counts = np.empty((n_classes, pooled.shape[1], N_BINS), dtype=np.int64)
    for feature, inner in enumerate(edges[:, 1:-1]):
        cells = labels * N_BINS + np.searchsorted(inner, pooled[:, feature], side="right")
        counts[:, feature] = np.bincount(cells, minlength=n_classes * N_BINS).reshape(n_classes, N_BINS)
    return edges, counts
