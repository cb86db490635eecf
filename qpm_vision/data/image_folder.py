"""A folder of images with one folder per class."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from qpm_opt import InvalidInputError, alike_but_for_case, normal_text
from qpm_vision._text import readable
from qpm_vision.data._listing import Listing, read_and_divide
from qpm_vision.data._published import require_same_classes
from qpm_vision.data._split import check_split
from qpm_vision.data.attributes import read_class_relation
from qpm_vision.data.images import IMAGE_SUFFIXES
from qpm_vision.data.parts import read_parts

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from qpm_vision.data.base import ImageData

__all__ = ["ATTRIBUTES_FILE", "BOXES_FILE", "load_image_folder", "passed_over"]

ATTRIBUTES_FILE: Final = "attributes.csv"
BOXES_FILE: Final = "boxes.csv"

_log = logging.getLogger(__name__)

_TRAIN: Final = "train"
_TESTS: Final = ("test", "val", "valid", "validation")
_FOREIGN: Final = frozenset({"__macosx", "@eadir"})  # left by archive tools and network storage
_REMEDY: Final = (
    "Give a folder that holds one folder of images per class, or train/ and test/ with one folder per class in each."
)


def load_image_folder(
    folder: str | os.PathLike[str], *, test_share: float = 0.25, seed: int = 0, cache_bytes: int = 2**30
) -> ImageData:
    """A data set out of a folder with one folder of images per class.

    If there are `train` and `test` (or `val`, `valid`, `validation`), each with one folder per class, they are the
    two sets; otherwise part of each class is set aside. Folders inside a class are searched too. Hidden files and
    files that do not end like an image are passed over. Every image is decoded once: those that cannot be read are
    left out and listed in `skipped`. If a table `attributes.csv` lies in the folder, it gives `class_relation`, and
    with a table `boxes.csv` beside it `parts`.

    Args:
        folder: The folder.
        test_share: Part of each class that is kept for testing where the folder is not divided already.
        seed: Of that division.
        cache_bytes: Decoded images are kept in memory if all together need no more than this.

    Raises:
        InvalidInputError: The folder is missing or has no images, fewer than two classes, a class without a readable
            image, classes whose names differ in case only, or different classes in training and test.
    """
    check_split(test_share, seed)
    root = Path(folder).expanduser()
    if not root.is_dir():
        came = "a file" if root.exists() else "nothing there"
        raise InvalidInputError(f"The data folder {str(root)!r} must be a folder. Got {came}. {_REMEDY}")
    try:
        listing = _list_files(root)
    except OSError as error:
        raise InvalidInputError(
            f"The data folder {str(root)!r} must be readable. Got: {error}. Change its permissions."
        ) from error
    relation_file = root / ATTRIBUTES_FILE
    relation = read_class_relation(relation_file, listing.class_names) if relation_file.exists() else None
    boxes_file = root / BOXES_FILE
    has_parts = relation is not None and boxes_file.exists()
    parts = read_parts(boxes_file, relation_file, listing.class_names) if has_parts else None
    data = read_and_divide(
        listing,
        readable(root.resolve().name or str(root)),
        test_share=test_share,
        seed=seed,
        cache_bytes=cache_bytes,
        class_relation=relation,
    )
    return replace(data, parts=parts)


# -- finding files -------------------------------------------------------------------------------------------------


def _list_files(root: Path) -> Listing:
    halves = _halves(root)
    _tell_unused(root, halves)
    trees = [_class_folders(half) for half in halves]
    if not any(trees):
        raise InvalidInputError(f"The data folder {str(root)!r} must hold one folder per class. {_instead(root)}")
    if len(trees) == 2:
        require_same_classes(halves, trees)
    class_names = tuple(trees[0])
    paths: list[Path] = []
    labels: list[int] = []
    parts: list[int] = []
    for part, tree in enumerate(trees):
        for label, place in enumerate(tree.values()):
            found = _image_files(place)
            paths += found
            labels += [label] * len(found)
            parts += [part] * len(found)
    if not paths:
        raise InvalidInputError(f"The data folder {str(root)!r} must hold images. {_instead(root)}")
    if len(class_names) < 2:
        raise InvalidInputError(
            f"The data folder {str(root)!r} must hold at least 2 classes. Got one, {class_names[0]!r}. {_REMEDY}"
        )
    return Listing(
        source=root,
        paths=tuple(paths),
        names=tuple(_called(path.relative_to(root).as_posix()) for path in paths),
        labels=np.array(labels),
        parts=np.array(parts),
        class_names=class_names,
        divided=len(trees) == 2,
        complete=tuple(repr(str(half)) for half in halves),
    )


def _halves(root: Path) -> list[Path]:
    """The folders of training and test images, or the folder itself."""
    inside = {path.name.lower(): path for path in _folders_in(root)}
    train = inside.get(_TRAIN)
    # A class may be called "train" as well: there are no folders in it then.
    if train is None or not _folders_in(train):
        return [root]
    tests = [inside[name] for name in _TESTS if name in inside]
    if not tests:
        if len(inside) == 1:
            raise InvalidInputError(
                f"The data folder {str(root)!r} must hold test/ (or val/) beside train/. Got train/ alone. Add it, or "
                f"give {str(train)!r} to have part of each class set aside."
            )
        return [root]
    return [train, tests[0]]


def _tell_unused(root: Path, halves: list[Path]) -> None:
    unused = [path.name for path in _folders_in(root) if path not in halves] if len(halves) == 2 else []
    if unused:
        _log.warning("%s: train and %s are used, not %s", root, halves[1].name, ", ".join(unused))


def _class_folders(place: Path) -> dict[str, Path]:
    """The folders in a folder by their names, sorted."""
    found: dict[str, Path] = {}
    for path in _folders_in(place):
        name = _called(path.name)
        if name in found:
            raise InvalidInputError(
                f"The class folders in {str(place)!r} must have different names. Got {name!r} twice, with letters "
                "composed and taken apart. Merge the two."
            )
        found[name] = path
    pair = alike_but_for_case(found)
    if pair is not None:
        raise InvalidInputError(
            f"The class folders in {str(place)!r} must have names that differ in more than case. "
            f"Got {pair[0]!r} and {pair[1]!r}. Rename or merge them."
        )
    return dict(sorted(found.items()))


def _folders_in(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if not passed_over(path.name) and path.is_dir())


def _image_files(place: Path) -> list[Path]:
    """All image files in a folder and the folders in it, sorted by their relative names."""
    found = sorted((_called(path.relative_to(place).as_posix()), path) for path in _walk(place, set()))
    return [path for _, path in found]


def _walk(place: Path, seen: set[Path]) -> Iterator[Path]:
    real = place.resolve()
    seen.add(real)
    for path in sorted(place.iterdir()):
        if passed_over(path.name):
            continue
        if path.is_dir():
            target = path.resolve()
            # A link to a folder above would lead round in a circle, through the images of other classes.
            if target not in seen and target not in real.parents:
                yield from _walk(path, seen)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def passed_over(name: str) -> bool:
    """Whether a file or folder of this name is hidden or was left by other tools, and is no part of the data."""
    return name.startswith(".") or name.lower() in _FOREIGN


def _called(name: str) -> str:
    return normal_text(readable(name))


# -- refusing ------------------------------------------------------------------------------------------------------


def _instead(root: Path) -> str:
    """What lies in a folder in which no classes of images were found, and the remedy."""
    endings = Counter(path.suffix.lower() or path.name for path in root.rglob("*") if path.is_file())
    loose = sum(count for ending, count in endings.items() if ending in IMAGE_SUFFIXES)
    if loose:
        return f"Got {loose} images that lie in no class folder. {_REMEDY}"
    others = ", ".join(f"{count} × {ending}" for ending, count in endings.most_common(3))
    return f"Got {f'other files only ({others})' if others else 'no files'}. {_REMEDY}"
