"""Fashion-MNIST: 70,000 grey images of clothing, 28×28 pixels, 10 classes, read from IDX files on this machine."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.data.base import ArrayImages, ImageData

__all__ = ["CLASS_NAMES", "DEFAULT_FOLDER", "DataFileError", "load_fashion_mnist"]

CLASS_NAMES: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEFAULT_FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the files."""

_SIDE: Final = 28
_PARTS: Final = (("train", "train"), ("test", "t10k"))
_UNSIGNED_BYTES: Final = 0x08
_MOST_IMAGES: Final = 10_000_000


class DataFileError(QPMError):
    """A file of a data set is damaged or not what it should be."""


def load_fashion_mnist(folder: str | Path | None = None) -> ImageData:
    """Fashion-MNIST with its own split: 60,000 training and 10,000 test images.

    Args:
        folder: Where the four IDX files lie, packed with gzip or not; by default where Debian's package
            `dataset-fashion-mnist` installs them.

    Raises:
        InvalidInputError: Files are missing; says which, and what to install.
        DataFileError: A file is damaged, cut off or of another kind.
    """
    place = DEFAULT_FOLDER if folder is None else Path(folder).expanduser()
    stems = [f"{start}-{kind}" for _, start in _PARTS for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    found = {stem: _find(place, stem) for stem in stems}
    missing = [stem for stem, path in found.items() if path is None]
    if missing:
        raise InvalidInputError(
            f"The folder of Fashion-MNIST must hold four files. Missing: {', '.join(missing)} (with or without .gz); "
            f"looked in {str(place)!r}"
            + ("" if place.is_dir() else ", which does not exist")
            + ". Install Debian's package dataset-fashion-mnist, which puts them into "
            f"{str(DEFAULT_FOLDER)!r}, or name their folder: 'fashion-mnist:DIR'."
        )
    sets = {}
    for part, start in _PARTS:
        images, labels = found[f"{start}-images-idx3-ubyte"], found[f"{start}-labels-idx1-ubyte"]
        sets[part] = _read_part(part, images or place, labels or place)
    return ImageData("fashion-mnist", train=sets["train"], test=sets["test"], class_names=CLASS_NAMES, divided=True)


def _find(folder: Path, stem: str) -> Path | None:
    # Some copies have a dot before "idx".
    names = [name + ending for name in (stem, stem.replace("-idx", ".idx")) for ending in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_part(part: str, image_file: Path, label_file: Path) -> ArrayImages:
    pixels = _read_idx(image_file, (_SIDE, _SIDE))
    labels = _read_idx(label_file, ())
    if len(pixels) != len(labels):
        raise DataFileError(
            f"The files {str(image_file)!r} and {str(label_file)!r} must belong together. Got {len(pixels)} images and "
            f"{len(labels)} labels; install both from one source."
        )
    if len(labels) and int(labels.max()) >= len(CLASS_NAMES):
        raise DataFileError(
            f"The file {str(label_file)!r} must hold labels in 0 … {len(CLASS_NAMES) - 1}. Got {int(labels.max())}; "
            "it belongs to another data set."
        )
    names = [f"{part} {position}" for position in range(len(labels))]
    return ArrayImages(pixels, labels, CLASS_NAMES, names=names)


def _read_idx(path: Path, item_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An IDX file of unsigned bytes: (count, *item_shape) uint8."""
    n_axes = 1 + len(item_shape)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(4 + 4 * n_axes)
            if len(header) < 4 + 4 * n_axes:
                raise _damaged(path, f"it ends inside its header, after {len(header)} bytes")
            zeros, kind, axes, *shape = struct.unpack(f">HBB{n_axes}I", header)
            if (zeros, kind, axes) != (0, _UNSIGNED_BYTES, n_axes):
                expected = f"0000{_UNSIGNED_BYTES:02x}{n_axes:02x}"
                raise _damaged(path, f"it must begin with the bytes {expected}, but begins with {header[:4].hex()}")
            if tuple(shape[1:]) != item_shape or shape[0] > _MOST_IMAGES:
                wanted = "×".join(["N", *map(str, item_shape)])
                raise _damaged(path, f"it must hold {wanted} bytes, but says {'×'.join(map(str, shape))}")
            length = int(np.prod(shape, dtype=np.int64))
            content = stream.read(length + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if len(content) != length:
        extent = f"more than {length:,}" if len(content) > length else f"only {len(content):,} of {length:,}"
        raise _damaged(path, f"it holds {extent} bytes of content")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _damaged(path: Path, reason: str) -> DataFileError:
    return DataFileError(f"The file {str(path)!r} cannot be used: {reason.rstrip('.')}. Install or copy it again.")
