"""Constants of the selection problem from one pass over the training images (QPM, Norrenbrock et al., ICLR 2025).

Class similarity A and redundancy R say which features describe which class and which pairs say the same; the locality
bias b says which features look at one place. All of them come from float64 sums that need no stored features, and that
merge: statistics of parts of a data set, in any split and order, add up to those of the whole.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from qpm_opt import InvalidInputError
from qpm_vision._arrays import (
    ArrayLike,
    FloatArray,
    as_labels,
    as_numpy,
    as_tensor,
    at_least_float32,
    require_finite,
    sums_device,
    to_double,
)
from qpm_vision._mean_shift import largest_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "FeatureStatistics",
    "Locality",
    "MapFigures",
    "centred_bias",
    "class_similarity",
    "feature_redundancy",
    "joined_figures",
    "map_figures",
    "scale_bias",
]

BoolArray: TypeAlias = npt.NDArray[np.bool_]

_log = logging.getLogger(__name__)

# Sums run over slices of this many entries, so that float64 copies of float32 features stay in the processor's cache
# (2 MB); an accelerator wants fewer, larger slices.
_SLICE = {"cpu": 1 << 18}
_ACCELERATOR_SLICE = 1 << 25
# The same for maps, of which no float64 copies are made.
_MAP_SLICE = {"cpu": 1 << 22}
_ACCELERATOR_MAP_SLICE = 1 << 27
# Squares of larger values, summed over the images, would leave the range of float64.
_LARGEST = 1e140
_SCALE = math.sqrt(10.0) * 0.1


def class_similarity(features: ArrayLike, labels: ArrayLike, *, n_classes: int | None = None) -> FloatArray:
    """Class similarity A: correlation of every feature with every class's indicator, over its largest absolute entry.

    Streams over the features in float64 and copies none of them. A feature without variance (dead) has zeros in its
    column. A class without images has zeros in its row, which a warning in the log names: it has no indicator to
    correlate with.

    Args:
        features: Pooled features, shape (n_images, n_features), any real dtype, array or tensor on any device.
        labels: Class of every image, shape (n_images,), integers from 0.
        n_classes: Number of classes; the largest label + 1 unless given.

    Returns:
        A, shape (n_classes, n_features), float64, within [-1, 1].

    Raises:
        InvalidInputError: no images, shapes that do not fit, NaN or infinite features, labels out of range.

    Example:
        >>> class_similarity([[0.0, 5.0], [1.0, 5.0], [1.0, 5.0]], [0, 1, 1])
        array([[-1.,  0.],
               [ 1.,  0.]])
    """
    rows = as_tensor("features", features, 2)
    classes = as_labels(labels, len(rows), n_classes)
    if not len(rows):
        raise InvalidInputError(
            "The 'features' parameter must hold at least one image. Got none; pass training images."
        )
    statistics = FeatureStatistics(int(classes.max()) + 1 if n_classes is None else n_classes, rows.shape[1])
    statistics.update(rows, classes)
    return statistics.class_similarity()


def feature_redundancy(A: ArrayLike) -> FloatArray:
    """Redundancy R: cosine between the class similarities of every two features, over its largest absolute entry.

    Args:
        A: Class similarity, shape (n_classes, n_features), finite.

    Returns:
        R, shape (n_features, n_features), float64, symmetric; rows and columns of dead features (zeros in A) are zero.

    Raises:
        InvalidInputError: A is not a finite matrix.

    Example:
        >>> feature_redundancy([[1.0, -0.5, 0.0], [-1.0, 0.5, 0.0]]).round(6)
        array([[ 1., -1.,  0.],
               [-1.,  1.,  0.],
               [ 0.,  0.,  0.]])
    """
    tensor = as_tensor("A", A, 2)
    columns = as_numpy(tensor)
    if not np.isfinite(columns).all():
        raise InvalidInputError(
            f"The 'A' parameter must be finite. Got {int((~np.isfinite(columns)).sum())} NaN or infinite entries; "
            "a feature without variance has zeros there, as class_similarity gives it."
        )
    # Scaling by the largest entry first keeps the squares of tiny columns from vanishing.
    columns = _over(columns, np.abs(columns).max(axis=0, initial=0.0))
    columns = _over(columns, np.linalg.norm(columns, axis=0))
    cosines: FloatArray = columns.T @ columns
    return _over(cosines, np.abs(cosines).max(initial=0.0))


def scale_bias(v: ArrayLike) -> FloatArray:
    """Bring a feature bias to the scale of the selection objective.

    MeanShift (scikit-learn's defaults) clusters the values; values outside the range [lo, hi] of the largest cluster
    become |lo|·sign(v) or |hi|·sign(v); then the mean goes, the largest absolute value becomes √10 · 0.1.

    Args:
        v: One value per feature, shape (n_features,), finite.

    Returns:
        Shape (n_features,), float64, mean 0, largest absolute value √10 · 0.1; zeros where v is constant.

    Raises:
        InvalidInputError: v is empty, not one-dimensional or not finite.

    Example:
        >>> scale_bias([1.0, 1.0, 1.0]).tolist()
        [0.0, 0.0, 0.0]
    """
    values = as_numpy(as_tensor("v", v, 1))
    if not len(values) or not np.isfinite(values).all():
        raise InvalidInputError(
            "The 'v' parameter must hold one finite value per feature. Got "
            + (f"{int((~np.isfinite(values)).sum())} NaN or infinite entries." if len(values) else "no values.")
            + " Replace them, for example by 0 for a feature without preference."
        )
    if _constant(values):
        return np.zeros(len(values))
    cluster = largest_cluster(values)
    low, high = cluster.min(), cluster.max()
    signs = np.sign(values)
    clipped = np.where(values < low, abs(low) * signs, np.where(values > high, abs(high) * signs, values))
    return centred_bias(clipped)


def centred_bias(v: FloatArray) -> FloatArray:
    """What `scale_bias` does without clustering: the mean goes, the largest absolute value becomes √10 · 0.1.

    Keeps the order of all values, and is for values that have no outliers because they are bounded.

    Args:
        v: One value per feature, shape (n_features,), at least one, finite.

    Returns:
        Shape (n_features,), float64; zeros where v is constant.

    Example:
        >>> (centred_bias(np.array([0.0, 1.0, 2.0])) * np.sqrt(10)).round(6).tolist()
        [-1.0, 0.0, 1.0]
    """
    if _constant(v):
        return np.zeros(len(v))
    centred = v - v.mean()
    return np.asarray(centred / np.abs(centred).max() * _SCALE, dtype=np.float64)


class FeatureStatistics:
    """Streaming sums of pooled features: class similarity, mean, standard deviation and dead features.

    Memory is O(n_classes · n_features). Sums are float64, on the device of the latest batch (on the CPU where a device
    has no float64). They are taken of deviations from a reference fixed at the first batch, so that a large common
    offset costs no digits; merging re-bases one side. A feature is dead when all its values are equal up to two units
    of rounding of the dtype they came in (float32 for shorter ones).

    Args:
        n_classes: Number of classes, at least 1.
        n_features: Number of features, at least 1.

    Example:
        >>> statistics = FeatureStatistics(n_classes=2, n_features=2)
        >>> statistics.update([[0.0, 5.0], [1.0, 5.0]], [0, 1])
        >>> other = FeatureStatistics(n_classes=2, n_features=2)
        >>> other.update([[2.0, 5.0]], [1])
        >>> statistics.merge(other)
        >>> statistics.mean().tolist(), statistics.dead().tolist()
        ([1.0, 5.0], [False, True])
    """

    def __init__(self, n_classes: int, n_features: int) -> None:
        _require_sizes(n_classes=n_classes, n_features=n_features)
        double = torch.float64
        self._reference = torch.zeros(n_features, dtype=double)
        self._counts = torch.zeros(n_classes, dtype=double)
        self._class_sums = torch.zeros(n_classes, n_features, dtype=double)
        self._squares = torch.zeros(n_features, dtype=double)
        self._minimum = torch.full((n_features,), math.inf, dtype=double)
        self._maximum = torch.full((n_features,), -math.inf, dtype=double)
        self._rounding = torch.zeros((), dtype=double)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self._counts)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self._reference)

    @property
    def n_images(self) -> int:
        """Number of images seen so far."""
        return int(self._counts.sum())

    def update(self, features: ArrayLike, labels: ArrayLike) -> None:
        """Add a batch; on an error the statistics stay as they were.

        Args:
            features: Pooled features, shape (n_images, n_features), any real dtype.
            labels: Class of every image, shape (n_images,), integers below n_classes.

        Raises:
            InvalidInputError: shapes that do not fit, labels out of range, or values that are not finite; the message
                counts them and names the first image, numbered from the first batch on.
        """
        rows = as_tensor("features", features, 2)
        classes = as_labels(labels, len(rows), self.n_classes)
        if rows.shape[1] != self.n_features:
            raise InvalidInputError(
                f"The 'features' parameter must have {self.n_features} columns. Got shape {tuple(rows.shape)}; these "
                "statistics were made for another number of features."
            )
        if not len(rows):
            return
        minimum, maximum = rows.amin(0), rows.amax(0)  # both carry a NaN on
        if not bool((torch.isfinite(minimum) & torch.isfinite(maximum)).all()):
            require_finite("features", rows, self.n_images)
        device = sums_device(rows)
        minimum, maximum = to_double(minimum, device), to_double(maximum, device)
        if float(torch.maximum(maximum, -minimum).max()) > _LARGEST:
            raise InvalidInputError(
                f"The 'features' parameter must stay below {_LARGEST:g} in size. Got entries from "
                f"{float(minimum.min()):g} to {float(maximum.max()):g}, too large to square; scale the features down."
            )
        self._to(device)
        rows, classes = rows.to(device), classes.to(device)
        step = max(1, _SLICE.get(device.type, _ACCELERATOR_SLICE) // self.n_features)
        if not self.n_images:
            self._reference = rows[:step].double().mean(0)
        ones = torch.ones(step, dtype=torch.float64, device=device)
        for begin in range(0, len(rows), step):
            deviations = rows[begin : begin + step] - self._reference
            self._class_sums.index_add_(0, classes[begin : begin + step], deviations)
            self._squares.addmv_(deviations.square_().T, ones[: len(deviations)])
        self._counts += torch.bincount(classes, minlength=self.n_classes)
        self._minimum = torch.minimum(self._minimum, minimum)
        self._maximum = torch.maximum(self._maximum, maximum)
        # Shorter floats than float32 are the storage of longer sums: their own spacing would call slow features dead.
        spacing = torch.finfo(torch.float64 if rows.dtype == torch.float64 else torch.float32).eps
        self._rounding.clamp_(min=spacing)

    def merge(self, other: FeatureStatistics) -> None:
        """Add the images of other statistics, as if they had been seen here.

        Raises:
            InvalidInputError: `other` is of another size.
        """
        if (other.n_classes, other.n_features) != (self.n_classes, self.n_features):
            raise InvalidInputError(
                f"The 'other' parameter must be of {self.n_classes} classes and {self.n_features} features. Got "
                f"{other.n_classes} and {other.n_features}; merge statistics of one data set and one model."
            )
        if not other.n_images:
            return
        mine = self._tensors()
        theirs = {name: tensor.to(self._counts.device) for name, tensor in other._tensors().items()}
        if not self.n_images:
            self._set({name: tensor.clone() for name, tensor in theirs.items()})
            return
        shift = theirs["reference"] - mine["reference"]
        totals = theirs["class_sums"].sum(0)
        merged = {
            "reference": mine["reference"],
            "counts": mine["counts"] + theirs["counts"],
            "class_sums": mine["class_sums"] + theirs["class_sums"] + theirs["counts"][:, None] * shift,
            "squares": mine["squares"] + theirs["squares"] + shift * (2 * totals + theirs["counts"].sum() * shift),
            "minimum": torch.minimum(mine["minimum"], theirs["minimum"]),
            "maximum": torch.maximum(mine["maximum"], theirs["maximum"]),
            "rounding": torch.maximum(mine["rounding"], theirs["rounding"]),
        }
        self._set(merged)

    def class_similarity(self) -> FloatArray:
        """Class similarity A, shape (n_classes, n_features), float64; see the function of this name."""
        n_images = self._require_images()
        indicator = self._counts - self._counts.square() / n_images
        variation = self._variation()
        # A = (Σ_c F - n_c·mean) / √(indicator variation · feature variation), formed in place: it is the big array.
        A = self._class_sums - self._counts[:, None] * (self._class_sums.sum(0) / n_images)
        A *= torch.where(indicator > 0, indicator, math.inf).rsqrt()[:, None]
        A *= torch.where(variation > 0, variation, math.inf).rsqrt()
        largest = max(float(A.max()), -float(A.min()))
        if largest > 0:
            A /= largest
        empty = (self._counts == 0).nonzero().flatten().tolist()
        if empty:
            _log.warning("%d classes have no images and get no similarity to any feature: %s", len(empty), empty[:20])
        return as_numpy(A) if A.device.type != "cpu" else A.numpy()

    def class_counts(self) -> npt.NDArray[np.int64]:
        """Number of images per class, shape (n_classes,)."""
        return as_numpy(self._counts).astype(np.int64)

    def mean(self) -> FloatArray:
        """Mean of every feature over the images, shape (n_features,)."""
        n_images = self._require_images()
        return as_numpy(self._reference + self._class_sums.sum(0) / n_images)

    def std(self) -> FloatArray:
        """Standard deviation of every feature over the images (divided by their number), shape (n_features,)."""
        n_images = self._require_images()
        return as_numpy((self._variation() / n_images).sqrt())

    def dead(self) -> BoolArray:
        """Which features have no variance, shape (n_features,), bool."""
        self._require_images()
        return np.equal(as_numpy(self._variation()), 0.0)

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """Everything that is needed to go on, as float64 arrays that `numpy.savez` takes."""
        return {name: as_numpy(tensor) for name, tensor in self._tensors().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.ArrayLike]) -> Self:
        """Statistics from what `state` returned.

        Raises:
            InvalidInputError: an array is missing or of another shape.
        """
        arrays = _arrays_of(state, ("class_sums",))
        if arrays["class_sums"].ndim != 2:
            raise InvalidInputError(
                "The 'state' parameter must hold 'class_sums' of two dimensions. Got shape "
                f"{arrays['class_sums'].shape}; pass what state() returned."
            )
        statistics = cls(*arrays["class_sums"].shape)
        statistics._set(_restored(state, statistics._tensors()))
        return statistics

    def __repr__(self) -> str:
        return f"FeatureStatistics(n_classes={self.n_classes}, n_features={self.n_features}, n_images={self.n_images})"

    def _variation(self) -> torch.Tensor:
        """Sum of squared deviations from the mean; exactly 0 for dead features."""
        n_images = self._require_images()
        variation = self._squares - self._class_sums.sum(0).square() / n_images
        size = torch.maximum(self._minimum.abs(), self._maximum.abs())
        dead = self._maximum - self._minimum <= 2 * self._rounding * size
        return torch.where(dead, 0.0, variation.clamp(min=0.0))

    def _require_images(self) -> int:
        return _some_images(self.n_images)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            "reference": self._reference,
            "counts": self._counts,
            "class_sums": self._class_sums,
            "squares": self._squares,
            "minimum": self._minimum,
            "maximum": self._maximum,
            "rounding": self._rounding,
        }

    def _set(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            setattr(self, f"_{name}", tensor)

    def _to(self, device: torch.device) -> None:
        self._set({name: tensor.to(device) for name, tensor in self._tensors().items()})


class Locality:
    """Streaming locality of features: how peaked their maps are, and where the peak lies.

    With the weight w of a feature in an image, its pooled value over the sum of all pooled values (0 where that sum is
    0), p is the mean over images of w times the largest entry of the map's spatial softmax, and e is minus the sum of w
    over the images whose map is largest on the border (its first largest entry counts). The offset is the mean over
    images of how far that entry lies from the middle of the map, where an image counts as much as the entry exceeds the
    smallest one. Maps are looked at once and none is kept; the sums are float64.

    Args:
        n_features: Number of features, at least 1.

    Example:
        >>> locality = Locality(n_features=2)
        >>> locality.update(torch.eye(9).reshape(1, 9, 3, 3)[:, [0, 4]])
        >>> locality.edge().tolist(), locality.offset().tolist()
        ([-0.5, 0.0], [1.0, 0.0])
    """

    def __init__(self, n_features: int) -> None:
        _require_sizes(n_features=n_features)
        self._peaks = torch.zeros(n_features, dtype=torch.float64)
        self._edges = torch.zeros(n_features, dtype=torch.float64)
        self._offsets = torch.zeros(n_features, dtype=torch.float64)
        self._contrasts = torch.zeros(n_features, dtype=torch.float64)
        self._images = torch.zeros((), dtype=torch.float64)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self._peaks)

    @property
    def n_images(self) -> int:
        """Number of images seen so far."""
        return int(self._images)

    def update(self, maps: ArrayLike) -> None:
        """Add a batch; on an error the sums stay as they were.

        Args:
            maps: Feature maps, shape (n_images, n_features, height, width), any real dtype.

        Raises:
            InvalidInputError: another shape, or values that are not finite.
        """
        maps = as_tensor("maps", maps, 4)
        if maps.shape[1] != self.n_features or 0 in maps.shape[2:]:
            raise InvalidInputError(
                f"The 'maps' parameter must have shape (n_images, {self.n_features}, height, width). Got shape "
                f"{tuple(maps.shape)}; pass the maps before pooling."
            )
        if len(maps):
            self.add(map_figures(maps))

    def add(self, figures: MapFigures) -> None:
        """Add what `map_figures` found in the maps of a batch; on an error the sums stay as they were.

        Raises:
            InvalidInputError: values that are not finite.
        """
        require_finite("maps", figures.pooled, self.n_images)
        device = sums_device(figures.pooled)
        self._to(device)
        pooled, largest, smallest = (to_double(part, device) for part in figures[:3])
        total = pooled.sum(1, keepdim=True)
        weights = torch.where(total != 0, pooled / total, 0.0)
        contrast = largest - smallest
        height, width = figures.size
        position = figures.position.to(device)
        distance = torch.maximum(_from_middle(position // width, height), _from_middle(position % width, width))
        self._peaks += (weights * to_double(figures.peak, device)).sum(0)
        self._edges += (weights * (distance == 1.0)).sum(0)
        self._offsets += (contrast * distance).sum(0)
        self._contrasts += contrast.sum(0)
        self._images += len(pooled)

    def merge(self, other: Locality) -> None:
        """Add the images of another one.

        Raises:
            InvalidInputError: `other` is of another size.
        """
        if other.n_features != self.n_features:
            raise InvalidInputError(
                f"The 'other' parameter must hold sums of {self.n_features} features. Got {other.n_features}; merge "
                "sums of one model."
            )
        mine = self._tensors()
        self._set({name: mine[name] + tensor.to(mine[name].device) for name, tensor in other._tensors().items()})

    def peak(self) -> FloatArray:
        """How peaked every feature is, p, shape (n_features,)."""
        return as_numpy(self._peaks / _some_images(self.n_images))

    def edge(self) -> FloatArray:
        """How rarely every feature peaks on the border, e, shape (n_features,); 0 is never."""
        _some_images(self.n_images)
        return as_numpy(0.0 - self._edges)

    def offset(self) -> FloatArray:
        """How far from the middle every feature peaks, shape (n_features,), from 0, the middle, to 1, the border.

        It is the larger of the distances along the two sides, over half the way between the first and the last place.
        Features whose maps are flat in every image get the mean of the others.
        """
        _some_images(self.n_images)
        sums, weights = as_numpy(self._offsets), as_numpy(self._contrasts)
        offsets = _over(sums, weights)
        known = weights > 0
        offsets[~known] = offsets[known].mean() if known.any() else 0.0
        return offsets

    def bias(self) -> FloatArray:
        """Locality bias b, shape (n_features,): scale(p' where e' ≥ 0, else min p'), p' = scale(p), e' = scale(e)."""
        peaked, inner = scale_bias(self.peak()), scale_bias(self.edge())
        return scale_bias(np.where(inner >= 0, peaked, peaked.min()))

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """Everything that is needed to go on, as float64 arrays that `numpy.savez` takes."""
        return {name: as_numpy(tensor) for name, tensor in self._tensors().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.ArrayLike]) -> Self:
        """Sums from what `state` returned.

        Raises:
            InvalidInputError: an array is missing or of another shape.
        """
        locality = cls(_arrays_of(state, ("peaks",))["peaks"].size)
        locality._set(_restored(state, locality._tensors()))
        return locality

    def __repr__(self) -> str:
        return f"Locality(n_features={self.n_features}, n_images={self.n_images})"

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            "peaks": self._peaks,
            "edges": self._edges,
            "offsets": self._offsets,
            "contrasts": self._contrasts,
            "images": self._images,
        }

    def _set(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            setattr(self, f"_{name}", tensor)

    def _to(self, device: torch.device) -> None:
        self._set({name: tensor.to(device) for name, tensor in self._tensors().items()})


class MapFigures(NamedTuple):
    """What `Locality` sums of a batch of maps: five tensors of shape (n_images, n_features), and the size of a map.

    Attributes:
        pooled: Spatial mean.
        largest: Largest entry.
        smallest: Smallest entry.
        peak: Largest entry of the spatial softmax.
        position: Where the first largest entry is, counted along the rows; int64.
        size: Height and width of a map.
    """

    pooled: torch.Tensor
    largest: torch.Tensor
    smallest: torch.Tensor
    peak: torch.Tensor
    position: torch.Tensor
    size: tuple[int, int]


def map_figures(maps: torch.Tensor, pooled: torch.Tensor | None = None) -> MapFigures:
    """Figures of every map; they keep nothing of the size of the maps.

    Args:
        maps: Shape (n_images, n_features, height, width), at least one image.
        pooled: Their spatial means, where they are known.
    """
    height, width = maps.shape[2:]
    step = max(1, _MAP_SLICE.get(maps.device.type, _ACCELERATOR_MAP_SLICE) // math.prod(maps.shape[1:]))
    parts = []
    for begin in range(0, len(maps), step):
        flat = at_least_float32(maps[begin : begin + step]).flatten(2)
        largest, position = flat.max(2)
        mean = flat.mean(2) if pooled is None else pooled[begin : begin + step]
        peak = (flat - largest[:, :, None]).exp_().sum(2).reciprocal_()  # fewer passes than logsumexp takes
        parts.append((mean, largest, flat.amin(2), peak, position))
    return joined_figures([MapFigures(*part, (height, width)) for part in parts])


def joined_figures(batches: Sequence[MapFigures]) -> MapFigures:
    """The figures of several batches of maps of one size, at least one."""
    if len(batches) == 1:
        return batches[0]
    columns = list(zip(*batches, strict=True))
    return MapFigures._make([*map(torch.cat, columns[:-1]), batches[0].size])


def _from_middle(place: torch.Tensor, size: int) -> torch.Tensor:
    """Distance from the middle of a side of `size` places, over that of its ends; 1 where there is one place only."""
    place = place.double()
    return torch.ones_like(place) if size == 1 else (2 * place - (size - 1)).abs() / (size - 1)


def _over(values: FloatArray, divisor: FloatArray | float) -> FloatArray:
    """Quotient, 0 where the divisor is 0."""
    return np.divide(values, divisor, out=np.zeros_like(values), where=np.asarray(divisor) > 0)


def _constant(values: FloatArray) -> bool:
    """Whether values differ by no more than the rounding of their own computation, or than numbers of few digits do."""
    kind = np.finfo(np.float64)
    return bool(np.ptp(values) <= 8 * max(kind.eps * np.abs(values).max(), kind.tiny))


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise InvalidInputError(f"The '{name}' parameter must be an integer of at least 1. Got {size!r}.")


def _some_images(n_images: int) -> int:
    if not n_images:
        raise InvalidInputError("There are no statistics yet: no images were seen. Call update() with a batch first.")
    return n_images


def _arrays_of(state: Mapping[str, npt.ArrayLike], names: tuple[str, ...]) -> dict[str, FloatArray]:
    missing = [name for name in names if name not in state]
    if missing:
        raise InvalidInputError(
            f"The 'state' parameter must hold the arrays that state() returned. Got {sorted(state)}, without {missing}."
        )
    return {name: np.array(state[name], dtype=np.float64) for name in names}


def _restored(state: Mapping[str, npt.ArrayLike], expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    arrays = _arrays_of(state, tuple(expected))
    for name, array in arrays.items():
        if array.shape != tuple(expected[name].shape):
            raise InvalidInputError(
                f"The 'state' parameter must hold '{name}' of shape {tuple(expected[name].shape)}. Got shape "
                f"{array.shape}; the arrays belong to different statistics."
            )
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
