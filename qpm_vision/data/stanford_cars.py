"""Stanford Cars: 16,185 photographs of cars, 196 makes, models and years, with bounding boxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from qpm_vision.data._annotations import read_mat, wrong_file
from qpm_vision.data._published import Standard, assemble, find_root

if TYPE_CHECKING:
    import os

    from qpm_vision.data.base import ImageData

__all__ = ["load_stanford_cars"]

_STANDARD: Final = Standard("Stanford Cars", n_classes=196, n_train=8144, n_test=8041)
_EDGES: Final = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
_INSIDE: Final = ("stanford_cars", "cars196")
_JOINT: Final = "cars_annos.mat"
_META: Final = "devkit/cars_meta.mat"
_TRAIN: Final = "devkit/cars_train_annos.mat"
_TESTS: Final = ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat")


def load_stanford_cars(folder: str | os.PathLike[str], *, cropped: bool = False) -> ImageData:
    """Stanford Cars with its own split: 8,144 training and 8,041 test images.

    Both forms in which it was published are understood: `cars_train`, `cars_test` and `devkit`, with
    `cars_test_annos_withlabels.mat` beside or in `devkit`; and `car_ims` with `cars_annos.mat`. Images are read when
    they are asked for.

    Args:
        folder: The folder that holds them.
        cropped: Show the bounding box of the car alone.

    Raises:
        InvalidInputError: Files are missing, or do not fit together.
    """
    given = Path(folder).expanduser()
    joint = any((given / name / _JOINT).is_file() for name in ("", *_INSIDE))
    if joint:
        root = find_root(folder, _STANDARD.title, (_JOINT, "car_ims"), _INSIDE)
        class_names = _class_names(root / _JOINT)
        table = _read_table(root / _JOINT, ("relative_im_path", "test"), len(class_names))
        files = [str(name) for name in table["relative_im_path"]]
        in_train = np.array([not int(value) for value in table["test"]])
        labels, boxes = _labels_and_boxes(table)
    else:
        test = next((name for name in _TESTS if any((given / i / name).is_file() for i in ("", *_INSIDE))), _TESTS[0])
        root = find_root(folder, _STANDARD.title, (_META, _TRAIN, test, "cars_train", "cars_test"), _INSIDE)
        class_names = _class_names(root / _META)
        tables = [_read_table(root / name, ("fname",), len(class_names)) for name in (_TRAIN, test)]
        folders = ("cars_train", "cars_test")
        files = [f"{place}/{name}" for place, table in zip(folders, tables, strict=True) for name in table["fname"]]
        in_train = np.arange(len(files)) < len(tables[0])
        labels, boxes = (np.concatenate(halves) for halves in zip(*map(_labels_and_boxes, tables), strict=True))
    return assemble(
        "cars-cropped" if cropped else "cars",
        _STANDARD,
        root,
        files,
        labels,
        in_train,
        class_names,
        boxes=boxes if cropped else None,
        cropping="bounding box" if cropped else "whole",
    )


def _class_names(path: Path) -> list[str]:
    names = [str(name).strip() for name in read_mat(path, "class_names")]
    if not all(names) or len(set(names)) < len(names):
        raise wrong_file(path, "name each class differently in 'class_names'", "empty or repeated names")
    return names


def _read_table(path: Path, columns: tuple[str, ...], n_classes: int) -> npt.NDArray[Any]:
    table = read_mat(path, "annotations", (*columns, "class", *_EDGES))
    for row, image in enumerate(table, 1):
        try:
            label = int(image["class"])
            edges = [float(image[edge]) for edge in _EDGES]
        except (TypeError, ValueError) as error:
            raise wrong_file(path, "hold numbers as class and box", f"an error in row {row}: {error}") from error
        if not 1 <= label <= n_classes:
            raise wrong_file(path, f"have classes in 1 … {n_classes}", f"{label} in row {row}")
        if not (edges[0] <= edges[2] and edges[1] <= edges[3]):
            raise wrong_file(path, "have boxes with x1 ≤ x2 and y1 ≤ y2", f"{edges} in row {row}")
    return table


def _labels_and_boxes(table: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(N,) from 0, and (N, 4) left, upper, right and lower edges."""
    boxes = np.stack([table[edge].astype(np.float64) for edge in _EDGES], axis=1)
    # MATLAB counts pixels from 1, and the last one of a box belongs to it.
    boxes[:, :2] -= 1
    return table["class"].astype(np.int64) - 1, boxes
