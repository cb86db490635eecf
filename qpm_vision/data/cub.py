"""CUB-200-2011: 11,788 photographs of birds, 200 species, with bounding boxes and attributes of the species."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from qpm_vision.data._annotations import (
    finite_numbers,
    read_by_id,
    read_lines,
    require_same_ids,
    whole_number,
    wrong_file,
)
from qpm_vision.data._published import Standard, assemble, find_root
from qpm_vision.data.attributes import cosine_relation

if TYPE_CHECKING:
    import os

    from qpm_vision.data.base import ImageData

__all__ = ["CUB_FILES", "CubTables", "load_cub", "read_cub_relation", "read_cub_tables", "species_name"]

CUB_FILES: Final = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
"""Tables of the data set, of ids and values."""

_log = logging.getLogger(__name__)

_STANDARD: Final = Standard("CUB-200-2011", n_classes=200, n_train=5994, n_test=5794)
_BOXES: Final = "bounding_boxes.txt"
_ATTRIBUTES: Final = "attributes/class_attribute_labels_continuous.txt"
_ATTRIBUTE_NAMES: Final = ("attributes.txt", "attributes/attributes.txt", "../attributes.txt")


@dataclass(frozen=True)
class CubTables:
    """What the tables of the data set say.

    Attributes:
        ids: The id of each image.
        files: One file per image, `CLASS FOLDER/NAME.jpg`.
        labels: (N,) int64, positions in `folders`.
        in_train: (N,) bool, whether an image is for training.
        folders: One class folder per class, such as `001.Black_footed_Albatross`.
        rows: (n_classes,) int64, the row of each class in tables of attributes.
    """

    ids: tuple[str, ...]
    files: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    in_train: npt.NDArray[np.bool_]
    folders: tuple[str, ...]
    rows: npt.NDArray[np.int64]


def load_cub(folder: str | os.PathLike[str], *, cropped: bool = False) -> ImageData:
    """CUB-200-2011 with its own split: 5,994 training and 5,794 test images.

    The cosine between the attribute vectors of two species is their `class_relation`; None, with a note in the log,
    where `attributes/class_attribute_labels_continuous.txt` is missing. Images are read when they are asked for.

    Args:
        folder: The folder with `images.txt`, or the one into which the archive was extracted.
        cropped: Show the bounding box of the bird alone.

    Raises:
        InvalidInputError: Files are missing, or do not fit together.
    """
    needed = (*CUB_FILES, "images", *([_BOXES] if cropped else []))
    root = find_root(folder, _STANDARD.title, needed, inside=["CUB_200_2011"])
    tables = read_cub_tables(root)
    return assemble(
        "cub-cropped" if cropped else "cub",
        _STANDARD,
        root / "images",
        tables.files,
        tables.labels,
        tables.in_train,
        [species_name(name) for name in tables.folders],
        boxes=_read_boxes(root, tables) if cropped else None,
        cropping="bounding box" if cropped else "whole",
        class_relation=read_cub_relation(root, tables),
    )


def read_cub_tables(root: Path) -> CubTables:
    """Images, classes and split, from the folder that holds their tables.

    Raises:
        InvalidInputError: A table cannot be read, or they do not fit together.
    """
    image_file, label_file, split_file, class_file = (root / name for name in CUB_FILES)
    files, labels, split, classes = (read_by_id(path) for path in (image_file, label_file, split_file, class_file))
    require_same_ids(label_file, labels, image_file, files)
    require_same_ids(split_file, split, image_file, files)
    # The id of a class is its row in tables of attributes, so the ids of somebody's selection may have gaps.
    folder_of = {whole_number(class_file, name, key, range(1, 10**6)): name for key, name in classes.items()}
    class_ids = sorted(folder_of)
    position_of = {class_id: position for position, class_id in enumerate(class_ids)}
    return CubTables(
        ids=tuple(files),
        files=tuple(files.values()),
        labels=np.array([position_of[whole_number(label_file, key, labels[key], position_of)] for key in files]),
        in_train=np.array([whole_number(split_file, key, split[key], (0, 1)) == 1 for key in files]),
        folders=tuple(folder_of[class_id] for class_id in class_ids),
        rows=np.array(class_ids) - 1,
    )


def read_cub_relation(root: Path, tables: CubTables) -> npt.NDArray[np.float64] | None:
    """Cosine between the attribute vectors of the classes.

    Returns:
        (n_classes, n_classes) float64 with a zero diagonal; None where there is no table of attributes.

    Raises:
        InvalidInputError: The table is damaged or lacks classes.
    """
    path = root / _ATTRIBUTES
    if not path.is_file():
        _log.warning("%s is missing, so nothing is known about how alike the species are", path)
        return None
    names = next((root / name for name in _ATTRIBUTE_NAMES if (root / name).is_file()), None)
    lines = read_lines(path)
    n_attributes = len(lines[0][1].split()) if names is None else len(read_by_id(names))
    if tables.rows.max() >= len(lines):
        raise wrong_file(path, f"have a row for each class, up to {int(tables.rows.max()) + 1}", f"{len(lines)} rows")
    vectors = [finite_numbers(path, f"line {number}", line, n_attributes) for number, line in lines]
    return cosine_relation(np.array(vectors)[tables.rows])


def species_name(folder: str) -> str:
    """What people call the class of a folder.

    Example:
        >>> species_name("001.Black_footed_Albatross")
        'Black footed Albatross'
    """
    number, dot, name = folder.partition(".")
    return (name if dot and number.isdigit() and name else folder).replace("_", " ")


def _read_boxes(root: Path, tables: CubTables) -> npt.NDArray[np.float64]:
    """(N, 4) left, upper, right and lower edges."""
    path = root / _BOXES
    lines = read_by_id(path)
    require_same_ids(path, lines, root / CUB_FILES[0], dict.fromkeys(tables.ids))
    boxes = np.array([finite_numbers(path, f"id {key}", lines[key], 4) for key in tables.ids])
    empty = np.flatnonzero((boxes[:, 2:] <= 0).any(axis=1))
    if len(empty):
        key = tables.ids[empty[0]]
        raise wrong_file(path, "have a width and a height above 0 for each id", f"{lines[key]!r} for {key!r}")
    boxes[:, 2:] += boxes[:, :2]
    return boxes
