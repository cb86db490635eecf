"""What a data set is: two sets of labelled images, read one by one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from qpm_opt import InvalidInputError, normal_text
from qpm_vision.data._annotations import listed
from qpm_vision.data.images import UnreadableImageError, read_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from qpm_vision.data.parts import Parts

__all__ = [
    "ArrayImages",
    "CachedImages",
    "FileImages",
    "ImageData",
    "ImageSet",
    "JoinedImages",
    "PreparedImages",
    "SkippedImage",
]

_LARGEST_EDGE: Final = 2**30


@dataclass(frozen=True)
class SkippedImage:
    """A file that was left out, and why."""

    path: Path
    reason: str


class ImageSet(ABC):
    """Labelled images, read when they are asked for.

    Attributes:
        labels: (N,) int64, read-only; positions in `class_names`.
        class_names: One name per class.
    """

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]

    def __init__(self, labels: npt.ArrayLike, class_names: Sequence[str]) -> None:
        self.class_names = _checked_names(class_names)
        self.labels = _checked_labels(labels, len(self.class_names))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images, {len(self.class_names)} classes)"

    @abstractmethod
    def image(self, position: int) -> Image.Image:
        """An image, 8-bit RGB and upright.

        Raises:
            UnreadableImageError: The file of the image cannot be read.
        """

    @abstractmethod
    def name(self, position: int) -> str:
        """What the image is called; the same for the same image in every subset and on every machine."""

    def file(self, position: int) -> Path | None:  # noqa: ARG002 - of a set without files none has one
        """The file of an image; None where it does not lie in one of its own."""
        return None

    def fingerprint(self, position: int) -> bytes:
        """What is another one when the pixels that `image` gives are; the same for the same image in every subset.

        Here a digest of the pixels. A set that knows a cheaper sign of change, such as the time at which a file was
        written, may give that.

        Raises:
            UnreadableImageError: The file of the image cannot be read.
        """
        image = self.image(position)
        return _digest(image.size, image.tobytes())

    def subset(self, indices: npt.ArrayLike) -> ImageSet:
        """The images at these positions, in this order, as a view.

        Args:
            indices: (M,) whole numbers in 0 … N − 1.
        """
        return _Subset(self, indices)


class PreparedImages(ImageSet):
    """Images beside which lies what a model takes in place of their pixels."""

    @abstractmethod
    def inputs(self, positions: Sequence[int], seeds: Sequence[int], transform: Any) -> Tensor:
        """What a model takes, for several images.

        Args:
            positions: Which.
            seeds: Of what is random, one for each.
            transform: What would be done to the pixels.

        Returns:
            (B, …) float32.

        Raises:
            InvalidInputError: The transform cannot act on what is kept.
        """


class ArrayImages(ImageSet):
    """Images that lie in one array.

    Args:
        pixels: (N, H, W) or (N, H, W, 3) uint8.
        labels: (N,) whole numbers.
        class_names: One name per class.
        names: One name per image; `image 0` and so on by default.
        size: Scale each image, when it is read, so that its longer side has this many pixels.

    Example:
        >>> images = ArrayImages(np.zeros((2, 8, 8), dtype=np.uint8), [0, 1], ["cat", "dog"])
        >>> images.image(1).size, images.name(1)
        ((8, 8), 'image 1')
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.ArrayLike,
        class_names: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__(labels, class_names)
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
            raise InvalidInputError(
                "The 'pixels' parameter must be a uint8 array of shape (N, H, W) or (N, H, W, 3). "
                f"Got {pixels.dtype} of shape {pixels.shape}; scale and transpose it."
            )
        if 0 in pixels.shape[1:]:
            raise InvalidInputError(f"The 'pixels' parameter must hold pixels. Got images of shape {pixels.shape[1:]}.")
        _same_length("pixels", len(pixels), len(self))
        if names is not None:
            _same_length("names", len(names), len(self))
        if size is not None and size < 1:
            raise InvalidInputError(f"The 'size' parameter must be at least 1. Got {size}.")
        self._pixels = pixels
        self._names = None if names is None else tuple(names)
        self._size = size

    def image(self, position: int) -> Image.Image:
        """An image, 8-bit RGB."""
        image = Image.fromarray(self._pixels[position]).convert("RGB")
        if self._size is None:
            return image
        scale = self._size / max(image.size)
        return image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
        )

    def name(self, position: int) -> str:
        """The given name, or `image` and the position in the array."""
        return f"image {range(len(self))[position]}" if self._names is None else self._names[position]

    def fingerprint(self, position: int) -> bytes:
        """A digest of what lies in the array, and of the size that it is scaled to."""
        pixels = self._pixels[position]
        return _digest((pixels.shape, self._size), pixels.tobytes())


class FileImages(ImageSet):
    """Images that lie in files, whole or cropped when they are read.

    Args:
        paths: One file per image.
        labels: (N,) whole numbers.
        class_names: One name per class.
        names: One name per image; the paths as they are given by default.
        root: Folder that the paths start from; the working folder by default.
        boxes: (N, 4) left, upper, right and lower edge of the part of each image that is shown, in pixels from the
            upper left corner, widened to whole pixels; what lies outside of the image is left out. None shows all.
        trim_bottom: Rows of pixels to cut off below, before boxes count.

    Raises:
        InvalidInputError: Lengths differ, a box is empty or not finite, or `trim_bottom` is negative.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        labels: npt.ArrayLike,
        class_names: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        root: Path | str | None = None,
        boxes: npt.ArrayLike | None = None,
        trim_bottom: int = 0,
    ) -> None:
        super().__init__(labels, class_names)
        _same_length("paths", len(paths), len(self))
        if names is not None:
            _same_length("names", len(names), len(self))
        if trim_bottom < 0:
            raise InvalidInputError(f"The 'trim_bottom' parameter must be at least 0. Got {trim_bottom}.")
        # Text: a million Path objects need several times the memory.
        self._files = tuple(path.as_posix() if isinstance(path, Path) else path for path in paths)
        self._names = None if names is None else tuple(names)
        self._root = None if root is None else Path(root)
        self._boxes = None if boxes is None else _checked_boxes(boxes, len(self))
        self._trim_bottom = trim_bottom

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(self._path(position) for position in range(len(self)))

    def image(self, position: int) -> Image.Image:
        """An image or the part of it that is shown, 8-bit RGB and upright.

        Raises:
            UnreadableImageError: The file cannot be read, or nothing of the image would be left.
        """
        image = read_image(self._path(position))
        if self._boxes is None and not self._trim_bottom:
            return image
        height = image.height - self._trim_bottom
        left, upper, right, lower = (0, 0, image.width, height)
        if self._boxes is not None:
            box = self._boxes[position]
            left, upper = (max(int(edge), 0) for edge in box[:2])
            right, lower = min(int(box[2]), image.width), min(int(box[3]), height)
        if left >= right or upper >= lower:
            raise UnreadableImageError(
                self._path(position),
                f"it has {image.width}×{image.height} pixels, and none of them is inside of the part to show",
            )
        return image.crop((left, upper, right, lower))

    def name(self, position: int) -> str:
        """The given name, or the path as it was given."""
        return (self._files if self._names is None else self._names)[position]

    def file(self, position: int) -> Path:
        """The file of an image."""
        return self._path(position)

    def fingerprint(self, position: int) -> bytes:
        """A digest of the size of the file, the time at which it was written, and which part of it is shown."""
        path = self._path(position)
        try:
            status = path.stat()
        except OSError as error:
            raise UnreadableImageError(path, error.strerror or str(error)) from error
        box = None if self._boxes is None else self._boxes[position].tolist()
        return _digest((status.st_size, status.st_mtime_ns, box, self._trim_bottom))

    def _path(self, position: int) -> Path:
        file = self._files[position]
        return Path(file) if self._root is None else self._root / file


class CachedImages(ImageSet):
    """Images whose decoded pixels are kept in memory.

    A copy that is pickled (for a process that reads batches and was not forked) leaves the pixels behind and
    reads from the original set.

    Args:
        source: Where the images come from.
        pixels: One (H, W, 3) uint8 array per image.
    """

    def __init__(self, source: ImageSet, pixels: Sequence[npt.NDArray[np.uint8]]) -> None:
        super().__init__(source.labels, source.class_names)
        _same_length("pixels", len(pixels), len(self))
        self._source = source
        self._pixels: tuple[npt.NDArray[np.uint8], ...] | None = tuple(pixels)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}

    def image(self, position: int) -> Image.Image:
        """An image, 8-bit RGB and upright."""
        if self._pixels is None:
            return self._source.image(position)
        return Image.fromarray(self._pixels[position])

    def name(self, position: int) -> str:
        """What the source calls it."""
        return self._source.name(position)

    def file(self, position: int) -> Path | None:
        """That of the source."""
        return self._source.file(position)


class _Subset(ImageSet):
    """Some images of another set."""

    def __init__(self, source: ImageSet, indices: npt.ArrayLike) -> None:
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise InvalidInputError(
                f"The 'indices' parameter must be a list of whole numbers. Got {chosen.dtype} of shape {chosen.shape}; "
                "turn a mask into positions with numpy.flatnonzero."
            )
        outside = chosen[(chosen < 0) | (chosen >= len(source))]
        if outside.size:
            raise InvalidInputError(
                f"The 'indices' parameter must hold positions in 0 … {len(source) - 1}. Got {int(outside[0])}."
            )
        super().__init__(source.labels[chosen], source.class_names)
        self._source = source
        self._indices = chosen.astype(np.int64)

    def image(self, position: int) -> Image.Image:
        return self._source.image(int(self._indices[position]))

    def name(self, position: int) -> str:
        return self._source.name(int(self._indices[position]))

    def file(self, position: int) -> Path | None:
        return self._source.file(int(self._indices[position]))

    def fingerprint(self, position: int) -> bytes:
        return self._source.fingerprint(int(self._indices[position]))


class JoinedImages(ImageSet):
    """The images of two sets of the same classes, one after the other, as a view."""

    def __init__(self, first: ImageSet, second: ImageSet) -> None:
        super().__init__(np.concatenate([first.labels, second.labels]), first.class_names)
        self._first = first
        self._second = second

    def image(self, position: int) -> Image.Image:
        """An image, 8-bit RGB and upright."""
        source, place = self._source(position)
        return source.image(place)

    def name(self, position: int) -> str:
        """What its set calls it."""
        source, place = self._source(position)
        return source.name(place)

    def file(self, position: int) -> Path | None:
        """That of its set."""
        source, place = self._source(position)
        return source.file(place)

    def fingerprint(self, position: int) -> bytes:
        """That of its set."""
        source, place = self._source(position)
        return source.fingerprint(place)

    def _source(self, position: int) -> tuple[ImageSet, int]:
        place = range(len(self))[position]
        return (self._first, place) if place < len(self._first) else (self._second, place - len(self._first))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set.

    Attributes:
        name: What to call it.
        train: Images to learn from.
        test: Images to measure on.
        class_names: One name per class, those of `train`, `test` and `validation`.
        skipped: Files that could not be read.
        class_relation: (n_classes, n_classes) float64, how much classes have in common by what is known about them
            (zero diagonal), or None.
        divided: Whether the data came with a test set of their own; else `test` was set aside here.
        cropping: "bounding box" or "whole", which part of each photograph is shown; None where nothing says so.
        validation: Images to choose with, such as the best epoch; None where none were set aside.
        parts: What classes are made of and where it is in the images, or None.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    skipped: tuple[SkippedImage, ...] = ()
    class_relation: npt.NDArray[np.float64] | None = None
    divided: bool = False
    cropping: str | None = None
    validation: ImageSet | None = None
    parts: Parts | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", _spelled(self.class_names))
        for part, images in (("train", self.train), ("test", self.test), ("validation", self.validation)):
            if images is not None and tuple(images.class_names) != tuple(self.class_names):
                raise InvalidInputError(
                    f"The '{part}' parameter must have the classes of 'class_names', in their order. "
                    f"Got {listed(images.class_names)} for {listed(self.class_names)}."
                )
        expected = (len(self.class_names), len(self.class_names))
        if self.class_relation is not None and np.shape(self.class_relation) != expected:
            raise InvalidInputError(
                f"The 'class_relation' parameter must be a matrix of shape {expected}. "
                f"Got {np.shape(self.class_relation)}."
            )


def _checked_names(class_names: Sequence[str]) -> tuple[str, ...]:
    names = _spelled(class_names)
    if isinstance(class_names, str) or not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidInputError(
            f"The 'class_names' parameter must be a list of one non-empty text per class. Got {class_names!r}."
        )
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise InvalidInputError(
            f"The 'class_names' parameter must name each class differently. Got twice: {listed(repeated)}."
        )
    return names


def _spelled(names: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(normal_text(name) if isinstance(name, str) else name for name in names)


def _checked_labels(labels: npt.ArrayLike, n_classes: int) -> npt.NDArray[np.int64]:
    values = np.asarray(labels)
    if values.size == 0:
        values = values.astype(np.int64)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise InvalidInputError(
            f"The 'labels' parameter must be a list of whole numbers. Got {values.dtype} of shape {values.shape}; "
            "give the position of each image's class in class_names."
        )
    outside = values[(values < 0) | (values >= n_classes)]
    if outside.size:
        raise InvalidInputError(
            f"The 'labels' parameter must hold numbers in 0 … {n_classes - 1}, one per class name. "
            f"Got {int(outside[0])}; count classes from 0."
        )
    result = values.astype(np.int64)
    result.setflags(write=False)
    return result


def _checked_boxes(boxes: npt.ArrayLike, n_images: int) -> npt.NDArray[np.int32]:
    """(N, 4) int32, the smallest whole pixels around each box."""
    values = np.asarray(boxes, dtype=np.float64)
    if values.shape != (n_images, 4):
        raise InvalidInputError(
            f"The 'boxes' parameter must be of shape ({n_images}, 4), one box per label. Got {values.shape}."
        )
    # Compared this way round, nan is refused as well.
    good = np.isfinite(values).all(axis=1) & (values[:, 0] < values[:, 2]) & (values[:, 1] < values[:, 3])
    good &= (np.abs(values) < _LARGEST_EDGE).all(axis=1)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise InvalidInputError(
            "The 'boxes' parameter must hold left < right and upper < lower edges in pixels. "
            f"Got {values[first].tolist()} for image {first}."
        )
    return np.concatenate([np.floor(values[:, :2]), np.ceil(values[:, 2:])], axis=1).astype(np.int32)


def _digest(described: object, content: bytes = b"") -> bytes:
    return hashlib.sha256(repr(described).encode() + b"\0" + content).digest()


def _same_length(name: str, got: int, expected: int) -> None:
    if got != expected:
        raise InvalidInputError(f"The '{name}' parameter must have one entry per label, {expected}. Got {got}.")
