"""Which training images show a class and a feature best, and how strong a feature gets: one pass over the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qpm_opt import InvalidInputError
from qpm_vision._finite_output import require_finite_output
from qpm_vision._npz import Member
from qpm_vision.run_folder import RunFolder

__all__ = ["Gallery", "best_first", "collect_gallery", "read_gallery"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

QUANTILE = 0.99
"""The quantile of a feature's maxima that counts as full strength."""

N_BEST = 6
"""How many images are kept for a class, and for a class and a feature."""

N_BINS = 48
"""Bins of the histogram of a feature's pooled activations; at least half of them are within the range of the values."""

_FINEST = -30  # exponent of the narrowest bins
_AT_ONCE = 4096
"""Images that are sorted at once: enough that the work for each class is shared by several of its images."""


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
        edges: (n_select, N_BINS + 1) float32, edges of the bins of each feature's pooled activations, which cover all
            of them. None in galleries of former versions.
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


_MEMBERS = {
    "best_of_class": Member(("classes", N_BEST), "i", least=-1),
    "best_of_pair": Member(("classes", "features", N_BEST), "i", least=-1),
    "scale": Member(("features",)),
    "n_correct": Member(("classes",), "i", least=0),
    "n_images": Member(("classes",), "i", least=0),
    "edges": Member(("features", N_BINS + 1), optional=True),
    "counts": Member(("classes", "features", N_BINS), "i", optional=True, least=0),
}


def read_gallery(folder: RunFolder, *, n_classes: int, n_select: int) -> Gallery:
    """The gallery of a run.

    Args:
        folder: The run folder.
        n_classes: How many classes its model has.
        n_select: How many features its model keeps.

    Raises:
        RunFolderError: The file is missing, damaged, or of another model.
    """
    gallery = Gallery.from_arrays(folder.read_npz("gallery.npz", _MEMBERS))
    with folder.reading("gallery.npz"):
        if gallery.best_of_pair.shape[:2] != (n_classes, n_select):
            raise ValueError(
                f"it is of {gallery.best_of_pair.shape[0]} classes and {gallery.best_of_pair.shape[1]} features, the "
                f"model of {n_classes} and {n_select}"
            )
        total = int(gallery.n_images.sum())
        if max(gallery.best_of_class.max(), gallery.best_of_pair.max()) >= total:
            raise ValueError(f"it shows images beyond the {total} that it is of")
    return gallery


def best_first(correct: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """An order of images: correctly predicted ones first, the largest value first among them."""
    return np.lexsort((-values, ~correct))


def collect_gallery(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    n_classes: int,
    n_images: int,
    device: torch.device | str = "cpu",
    on_images: Callable[[int], None] | None = None,
    on_output: Callable[[Any, Tensor], None] | None = None,
) -> Gallery:
    """Look at every training image once, in eval mode and without gradients.

    Memory: for each kept feature, 13 bytes for each image that is kept for a class, and 4 bytes for every hundredth
    image.

    Args:
        model: Returns logits, maps (B, n_select, h, w) and pooled features (B, n_select).
        batches: Un-augmented images (B, 3, H, W) and labels (B,), in the order of the training images.
        n_classes: Number of classes.
        n_images: Number of images in all batches together.
        device: Where to compute.
        on_images: Called with the number of images seen so far.
        on_output: Called with what the model returns for each batch, and its labels.

    Raises:
        InvalidInputError: There are no images, or another number of them.
    """
    model.eval()
    collected: _Collected | None = None
    waiting: list[_Columns] = []
    seen = 0
    with torch.no_grad():
        for images, targets in batches:
            output = model(images.to(device))
            require_finite_output(model, output, seen)
            if on_output is not None:
                on_output(output, targets)
            logits = output.logits.float().cpu()
            columns = _Columns(
                peaks=output.maps.flatten(2).amax(dim=2).float().cpu().numpy(),
                pooled=output.features.float().cpu().numpy(),
                own_logits=logits.gather(1, targets[:, None]).numpy(),
                correct=(logits.argmax(dim=1) == targets).numpy(),
                labels=targets.numpy(),
            )
            if collected is None:
                collected = _Collected(n_classes, columns.pooled.shape[1], n_images)
            waiting.append(columns)
            seen += len(targets)
            if sum(len(part.labels) for part in waiting) >= _AT_ONCE:
                collected.add(waiting)
                waiting = []
            if on_images is not None:
                on_images(seen)
    if collected is None or seen != n_images:
        raise InvalidInputError(
            f"The 'batches' parameter must hold {n_images} images, as 'n_images' says, and at least one. Got {seen}."
        )
    if waiting:
        collected.add(waiting)
    return collected.gallery()


class _Columns(NamedTuple):
    """What is looked at in a batch: (B, n_select), (B, n_select), (B, 1), (B,) bool, (B,) int64."""

    peaks: FloatArray
    pooled: FloatArray
    own_logits: FloatArray
    correct: npt.NDArray[np.bool_]
    labels: IntArray


class _Best:
    """The best images for each class and column: correctly predicted ones, then high values, then low positions."""

    def __init__(self, n_classes: int, n_columns: int) -> None:
        shape = (n_classes, N_BEST, n_columns)
        self.positions = np.full(shape, -1, dtype=np.int64)
        self._values = np.zeros(shape, dtype=np.float32)
        self._correct = np.zeros(shape, dtype=np.bool_)

    def add(self, label: int, positions: IntArray, values: FloatArray, correct: npt.NDArray[np.bool_]) -> None:
        """Consider more images of a class: (M,), (M, n_columns), (M,)."""
        shape = values.shape
        all_positions = np.concatenate([self.positions[label], np.broadcast_to(positions[:, None], shape)])
        all_values = np.concatenate([self._values[label], values])
        all_correct = np.concatenate([self._correct[label], np.broadcast_to(correct[:, None], shape)])
        # The last key counts most: places that are still free come last.
        order = np.lexsort((all_positions, -all_values, ~all_correct, all_positions < 0), axis=0)[:N_BEST]
        self.positions[label] = np.take_along_axis(all_positions, order, axis=0)
        self._values[label] = np.take_along_axis(all_values, order, axis=0)
        self._correct[label] = np.take_along_axis(all_correct, order, axis=0)


class _Histograms:
    """Counts in bins whose width is a power of two: where the range grows, bins merge in pairs."""

    def __init__(self, n_classes: int, n_select: int) -> None:
        self._exponents = np.full(n_select, _FINEST)
        self._first = np.zeros(n_select, dtype=np.int64)
        self._counts = np.zeros((n_classes, n_select, N_BINS), dtype=np.int64)

    def add(self, pooled: FloatArray, labels: IntArray) -> None:
        """Count the values of more images, (M, n_select) and (M,)."""
        values = pooled.astype(np.float64)
        for feature, (low, high) in enumerate(zip(values.min(axis=0), values.max(axis=0), strict=True)):
            self._make_room(feature, low, high)
        cells = np.floor(values / 2.0**self._exponents).astype(np.int64) - self._first
        np.add.at(self._counts, (labels[:, None], np.arange(cells.shape[1])[None], cells), 1)

    def _make_room(self, feature: int, low: float, high: float) -> None:
        """Choose the bins of a feature so that they cover these values and those before."""
        exponent, first = int(self._exponents[feature]), int(self._first[feature])
        used = np.flatnonzero(self._counts[:, feature].any(axis=0))
        while True:
            bounds = [math.floor(value / 2.0**exponent) for value in (low, high)]
            if len(used):
                shift = exponent - int(self._exponents[feature])
                bounds += [(first + int(place)) >> shift for place in (used[0], used[-1])]
            start, end = min(bounds), max(bounds)
            if end - start < N_BINS:
                break
            exponent += 1
        if len(used):
            moved = np.zeros_like(self._counts[:, feature])
            targets = ((first + used) >> (exponent - int(self._exponents[feature]))) - start
            np.add.at(moved.T, targets, self._counts[:, feature, used].T)
            self._counts[:, feature] = moved
        self._exponents[feature], self._first[feature] = exponent, start

    def result(self) -> tuple[FloatArray, IntArray]:
        """Edges (n_select, N_BINS + 1) and counts (n_classes, n_select, N_BINS)."""
        edges = (self._first[:, None] + np.arange(N_BINS + 1)) * 2.0 ** self._exponents[:, None]
        return edges.astype(np.float32), self._counts


class _Collected:
    """What a gallery is made of, from the images so far."""

    def __init__(self, n_classes: int, n_select: int, n_images: int) -> None:
        self._of_class = _Best(n_classes, 1)
        self._of_pair = _Best(n_classes, n_select)
        self._histograms = _Histograms(n_classes, n_select)
        self._n_images = n_images
        # The quantile lies between two of the largest values, which are all that has to be kept.
        self._largest = np.empty((0, n_select), dtype=np.float32)
        self._n_largest = n_images - int(QUANTILE * (n_images - 1))
        self._counts = np.zeros((2, n_classes), dtype=np.int64)
        self._seen = 0

    def add(self, parts: Sequence[_Columns]) -> None:
        """Consider the images that follow."""
        peaks, pooled, own_logits, correct, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(labels, kind="stable")
        classes, starts = np.unique(labels[order], return_index=True)
        for label, members in zip(classes.tolist(), np.split(order, starts[1:]), strict=True):
            positions = self._seen + members
            self._of_class.add(label, positions, own_logits[members], correct[members])
            self._of_pair.add(label, positions, pooled[members], correct[members])
        self._counts += np.stack(
            [np.bincount(some, minlength=self._counts.shape[1]) for some in (labels, labels[correct])]
        )
        self._histograms.add(pooled, labels)
        known = np.concatenate([self._largest, peaks])
        surplus = len(known) - self._n_largest
        self._largest = np.partition(known, surplus, axis=0)[surplus:] if surplus > 0 else known
        self._seen += len(labels)

    def gallery(self) -> Gallery:
        """When all images were considered."""
        largest = np.sort(self._largest, axis=0)
        low, high = largest[0], largest[min(1, len(largest) - 1)]
        place = QUANTILE * (self._n_images - 1)
        edges, counts = self._histograms.result()
        return Gallery(
            best_of_class=self._of_class.positions[:, :, 0],
            best_of_pair=self._of_pair.positions.transpose(0, 2, 1).copy(),
            scale=(low + (high - low) * (place - int(place))).astype(np.float32),
            n_correct=self._counts[1],
            n_images=self._counts[0],
            edges=edges,
            counts=counts,
        )
