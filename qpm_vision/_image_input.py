"""Images as they are handed over: files, folders, pictures, arrays, data sets and sequences of these, one by one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision.data.base import ImageSet
from qpm_vision.data.image_folder import passed_over
from qpm_vision.data.images import IMAGE_SUFFIXES, TOO_LARGE, UnreadableImageError, read_image, upright_rgb

__all__ = ["ImageInput", "OnUnreadable", "find_images", "read_images", "refuse"]

ImageInput: TypeAlias = Image.Image | npt.NDArray[np.uint8] | str | os.PathLike[str] | ImageSet | Iterable[Any]
"""A picture, an array (H, W, 3) or (N, H, W, 3) uint8, a file, a folder, a set of images, or a sequence of these."""

OnUnreadable: TypeAlias = Callable[[UnreadableImageError], None]
"""Told of an image that cannot be read; returns to go on with the next one."""


def refuse(error: UnreadableImageError) -> NoReturn:
    """Stop at the first image that cannot be read."""
    raise error


def find_images(path: str | os.PathLike[str], on_unreadable: OnUnreadable = refuse) -> Iterator[Path]:
    """The image files in a folder and the folders in it, in natural order (2 before 10); a file is the only one.

    Hidden files and files that do not end like an image are passed over, links to folders are not followed. No more
    names are in memory than those of a folder and of the folders that it lies in.

    Args:
        path: A folder or a file, which is not looked at.
        on_unreadable: Told of folders that cannot be read, or hold no image.
    """
    place = Path(path).expanduser()
    if not os.fspath(path) or not place.is_dir():  # no name at all would be the current folder
        yield place
        return
    found = failed = False

    def on_error(error: OSError) -> None:
        nonlocal failed
        failed = True
        on_unreadable(UnreadableImageError(error.filename, f"the folder cannot be listed ({error.strerror or error})"))

    for folder, folders, files in os.walk(place, onerror=on_error):
        folders[:] = sorted((name for name in folders if not passed_over(name)), key=_natural)
        for name in sorted(files, key=_natural):
            if not passed_over(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                found = True
                yield Path(folder, name)
    if not found and not failed:
        on_unreadable(UnreadableImageError(place, "it is a folder without images"))


def read_images(images: ImageInput, on_unreadable: OnUnreadable = refuse) -> Iterator[tuple[str, Image.Image]]:
    """Names and upright 8-bit RGB pictures, read when they are asked for.

    Files are called by their paths, images of a set as the set calls them, others `image 0` and so on.

    Args:
        images: What to read.
        on_unreadable: Told of images that cannot be read.

    Raises:
        InvalidInputError: Something is none of these.
        UnreadableImageError: By default: an image cannot be read.
    """
    return _read(images, on_unreadable, count())


def _read(images: Any, on_unreadable: OnUnreadable, numbers: Iterator[int]) -> Iterator[tuple[str, Image.Image]]:
    if isinstance(images, str | os.PathLike):
        for path in find_images(images, on_unreadable):
            yield from _one(str(path), partial(read_image, path), on_unreadable)
    elif isinstance(images, Image.Image):
        yield from _one(f"image {next(numbers)}", partial(upright_rgb, images), on_unreadable)
    elif isinstance(images, ImageSet):
        for position in range(len(images)):
            name = images.name(position)
            yield from _one(name, partial(images.image, position), on_unreadable)
    elif isinstance(images, np.ndarray) and images.ndim == 3:
        yield f"image {next(numbers)}", Image.fromarray(_checked_array(images))
    elif isinstance(images, Iterable) and not isinstance(images, bytes | Mapping) and _lists_images(images):
        for item in images:
            yield from _read(item, on_unreadable, numbers)
    else:
        raise _no_image(images)


def _lists_images(images: Any) -> bool:
    """Whether what can be gone through holds images, or paths: arrays and series of paths have one dimension."""
    ndim = getattr(images, "ndim", 4)
    return bool(ndim == 4 or (ndim == 1 and getattr(getattr(images, "dtype", None), "kind", "O") in "OUT"))


def _one(name: str, read: Callable[[], Image.Image], on_unreadable: OnUnreadable) -> Iterator[tuple[str, Image.Image]]:
    try:
        image = read()
    except UnreadableImageError as error:
        on_unreadable(error)
    except MemoryError:
        on_unreadable(UnreadableImageError(name, TOO_LARGE))
    except (OSError, ValueError, SyntaxError) as error:  # a picture that Pillow opened but did not decode yet
        on_unreadable(UnreadableImageError(name, f"it is damaged ({' '.join(str(error).split())})"))
    else:
        yield name, image


def _checked_array(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3 or not pixels.size:
        raise _no_image(pixels)
    return np.ascontiguousarray(pixels)


def _no_image(given: Any) -> InvalidInputError:
    shape = getattr(given, "shape", None)
    dtype = getattr(given, "dtype", "")
    what = f"a {type(given).__name__}" if shape is None else f"a {dtype} {type(given).__name__} {tuple(shape)}"
    return InvalidInputError(
        "The 'images' parameter must be a picture of Pillow, a uint8 array of shape (H, W, 3) or (N, H, W, 3), a path "
        f"of a file or a folder, or a sequence of these. Got {what}; convert it, for it is not known what its numbers "
        "mean."
    )


def _natural(name: str) -> tuple[list[Any], str]:
    """Numbers in names count as numbers; every second part is one, so that like is compared with like."""
    parts: list[Any] = re.split(r"(\d+)", name.casefold())
    parts[1::2] = map(int, parts[1::2])
    return parts, name
