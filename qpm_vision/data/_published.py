"""Finding the folders of published data sets, and putting data sets together from what their annotations say."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError
from qpm_vision.data._annotations import listed
from qpm_vision.data.base import FileImages, ImageData
from qpm_vision.data.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

__all__ = ["Standard", "assemble", "find_root", "folder_names", "image_names", "require_same_classes"]

_log = logging.getLogger(__name__)


def find_root(folder: str | os.PathLike[str], title: str, needed: Sequence[str], inside: Sequence[str] = ()) -> Path:
    """The folder that holds the files of a data set: the one given, or one in it that the archive makes.

    Args:
        folder: Where to look.
        title: What the data set is called, for messages.
        needed: Relative paths of files and folders that must be there.
        inside: Folders in `folder` where they may lie as well.

    Raises:
        InvalidInputError: Some are missing; says which, and where was looked.
    """
    given = Path(folder).expanduser()
    if not given.is_dir():
        came = "a file" if given.exists() else "nothing there"
        raise InvalidInputError(f"The folder of {title} must be a folder. Got {str(given)!r}, {came}.")
    places = [given, *(given / name for name in inside)]
    missing = {place: [name for name in needed if not (place / name).exists()] for place in places}
    best = min(places, key=lambda place: len(missing[place]))
    if missing[best]:
        raise InvalidInputError(
            f"The folder of {title} must hold {', '.join(needed)}. Got no {listed(missing[best])}; looked in "
            f"{' and '.join(repr(str(place)) for place in places)}. Give the folder into which the archive was "
            "extracted."
        )
    return best


def folder_names(place: Path) -> list[str]:
    """Names of the folders in a folder, without hidden ones, sorted.

    Raises:
        InvalidInputError: It cannot be listed.
    """
    return _names(place, os.DirEntry.is_dir)


def image_names(place: Path) -> list[str]:
    """Names in a folder that end like an image, without hidden ones, sorted; no file is opened.

    Raises:
        InvalidInputError: It cannot be listed.
    """
    return _names(place, lambda entry: os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES)  # noqa: PTH122


def _names(place: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and wanted(entry))
    except OSError as error:
        raise InvalidInputError(
            f"The folder {str(place)!r} must be readable. Got: {error.strerror or error}. Change its permissions, or "
            "put a folder there."
        ) from error


def require_same_classes(places: Sequence[Path], names: Sequence[Collection[str]]) -> None:
    """Refuse folders of training and test images whose class folders differ.

    Raises:
        InvalidInputError: A class folder is in one of them only; says which.
    """
    for here, there in ((0, 1), (1, 0)):
        missing = [name for name in names[there] if name not in names[here]]
        if missing:
            raise InvalidInputError(
                f"The folders {str(places[0])!r} and {str(places[1])!r} must hold the same classes. "
                f"Got no {listed(missing)} in {places[here].name}. Add or remove these folders."
            )


@dataclass(frozen=True)
class Standard:
    """What a data set holds as it was published.

    Attributes:
        title: What it is called.
        n_classes: Number of classes.
        n_train: Number of training images.
        n_test: Number of test images.
    """

    title: str
    n_classes: int
    n_train: int
    n_test: int


def assemble(
    name: str,
    standard: Standard,
    root: Path,
    files: Sequence[str],
    labels: npt.ArrayLike,
    in_train: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    boxes: npt.NDArray[np.float64] | None = None,
    trim_bottom: int = 0,
    cropping: str | None = None,
    class_relation: npt.NDArray[np.float64] | None = None,
    check_files: bool = True,
) -> ImageData:
    """A data set out of what its annotations say.

    Args:
        name: What to call it.
        standard: What it should hold; other numbers are somebody's selection, and a warning is logged.
        root: Folder that `files` start from.
        files: One relative path per image; also its name.
        labels: (N,) whole numbers.
        in_train: (N,) bool, whether an image is for training.
        class_names: One name per class.
        boxes: (N, 4) float64 left, upper, right and lower edge of what is shown of each image; None shows all.
        trim_bottom: Rows of pixels to cut off below.
        cropping: Which part of each photograph is shown, as in `ImageData`.
        class_relation: (n_classes, n_classes) float64, or None.
        check_files: Whether to look if all files are there; not needed where they were found by listing folders.

    Raises:
        InvalidInputError: Files are missing or empty, or a class has no training image.
    """
    known, train = np.asarray(labels, dtype=np.int64), np.asarray(in_train, dtype=bool)
    if check_files:
        _require_files(standard.title, root, files)
    counts = np.bincount(known[train], minlength=len(class_names))
    untrained = [class_name for class_name, count in zip(class_names, counts, strict=True) if not count]
    if untrained:
        raise InvalidInputError(
            f"{standard.title} in {str(root)!r} must have training images of all {len(class_names)} classes. Got none "
            f"of {len(untrained)}: {listed(untrained)}. Add images, or take these classes out of the annotations."
        )
    _tell_difference(standard, root, len(class_names), int(train.sum()), int((~train).sum()))

    def part(positions: npt.NDArray[np.int64]) -> FileImages:
        return FileImages(
            [files[position] for position in positions],
            known[positions],
            class_names,
            root=root,
            boxes=None if boxes is None else boxes[positions],
            trim_bottom=trim_bottom,
        )

    return ImageData(
        name,
        train=part(np.flatnonzero(train)),
        test=part(np.flatnonzero(~train)),
        class_names=tuple(class_names),
        class_relation=class_relation,
        divided=True,
        cropping=cropping,
    )


def _require_files(title: str, root: Path, files: Sequence[str]) -> None:
    # Decoding every image would take minutes; that a copy was cut off shows mostly in files that are not there.
    missing = [file for file in files if not _has_content(root / file)]
    if missing:
        raise InvalidInputError(
            f"{title} in {str(root)!r} must hold all {len(files)} images that are listed. Got none, or an empty file, "
            f"for {len(missing)} of them: {listed(missing)}. Extract or copy the images again, or take them out of the "
            "list."
        )


def _has_content(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _tell_difference(standard: Standard, root: Path, n_classes: int, n_train: int, n_test: int) -> None:
    came, expected = (n_classes, n_train, n_test), (standard.n_classes, standard.n_train, standard.n_test)
    if came != expected:
        _log.warning(
            "%s in %s has %s; as published it has %s. Figures are not comparable with published ones",
            standard.title,
            root,
            *(f"{c:,} classes, {a:,} training and {b:,} test images" for c, a, b in (came, expected)),
        )
