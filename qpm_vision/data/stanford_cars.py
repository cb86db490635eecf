"""Stanford Cars: 16,185 photographs of cars, 196 makes, models and years, with bounding boxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qpm_vision.data._annotations import read_mat, wrong_file
from qpm_vision.data._published import Standard, assemble, find_root

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from qpm_vision.data.base import ImageData

__all__ = ["load_stanford_cars"]

_STANDARD: Final = Standard("Stanford Cars", n_classes=196, n_train=8144, n_test=8041)
_EDGES: Final = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
_INSIDE: Final = ("stanford_cars", "cars196")
_JOINT: Final = "cars_annos.mat"
_META: Final = "devkit/cars_meta.mat"
_TRAIN: Final = "devkit/cars_train_annos.mat"
_FOLDERS: Final = ("cars_train", "cars_test")
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
    places = [given, *(given / name for name in _INSIDE)]

    def there(name: str) -> bool:
        return any((place / name).exists() for place in places)

    # The joint table is often found beside the images of the other form.
    if there(_JOINT) and (there("car_ims") or not there(_TRAIN)):
        root = find_root(folder, _STANDARD.title, (_JOINT, "car_ims"), _INSIDE)
        cars = _read_joint(root / _JOINT)
    else:
        test = next(filter(there, _TESTS), _TESTS[0])
        root = find_root(folder, _STANDARD.title, (_META, _TRAIN, test, *_FOLDERS), _INSIDE)
        cars = _read_apart(root / _META, [root / _TRAIN, root / test])
    return assemble(
        "cars-cropped" if cropped else "cars",
        _STANDARD,
        root,
        cars.files,
        cars.labels,
        cars.in_train,
        cars.class_names,
        boxes=cars.boxes if cropped else None,
        cropping="bounding box" if cropped else "whole",
    )


class _Cars(NamedTuple):
    """Files, (N,) labels from 0, (N,) whether for training, (N, 4) edges as `FileImages` takes them, and classes."""

    files: list[str]
    labels: npt.NDArray[np.int64]
    in_train: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.float64]
    class_names: list[str]


def _read_joint(path: Path) -> _Cars:
    class_names = _class_names(path)
    table = _read_table(path, "relative_im_path", len(class_names), also="test")
    in_train = table["test"].astype(np.int64) == 0
    return _Cars([str(name) for name in table["relative_im_path"]], *_columns(table, in_train), class_names)


def _read_apart(meta: Path, parts: Sequence[Path]) -> _Cars:
    class_names = _class_names(meta)
    tables = [_read_table(path, "fname", len(class_names)) for path in parts]
    files = [f"{folder}/{name}" for folder, table in zip(_FOLDERS, tables, strict=True) for name in table["fname"]]
    halves = [_columns(table, np.full(len(table), part == 0)) for part, table in enumerate(tables)]
    labels, in_train, boxes = (np.concatenate(pieces) for pieces in zip(*halves, strict=True))
    return _Cars(files, labels, in_train, boxes, class_names)


def _class_names(path: Path) -> list[str]:
    names = [str(name).strip() for name in read_mat(path, "class_names")]
    if not all(names) or len(set(names)) < len(names):
        raise wrong_file(path, "name each class differently in 'class_names'", "empty or repeated names")
    return names


def _read_table(path: Path, file_column: str, n_classes: int, also: str | None = None) -> npt.NDArray[Any]:
    """One row per image, every number in it checked; `also` names a further column of numbers."""
    numeric = ("class", *_EDGES, *([also] if also else []))
    table = read_mat(path, "annotations", (file_column, *numeric))
    for row, image in enumerate(table, 1):
        try:
            label, left, upper, right, lower, *_ = (float(image[column]) for column in numeric)
        except (TypeError, ValueError) as error:
            raise wrong_file(path, "hold numbers as class and box", f"an error in row {row}: {error}") from error
        if label not in range(1, n_classes + 1):
            raise wrong_file(path, f"have classes in 1 … {n_classes}", f"{label:g} in row {row}")
        if not (left <= right and upper <= lower):
            came = f"{left:g}, {upper:g}, {right:g}, {lower:g} in row {row}"
            raise wrong_file(path, "have boxes with x1 ≤ x2 and y1 ≤ y2", came)
    return table


def _columns(
    table: npt.NDArray[Any], in_train: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    boxes = np.stack([table[edge].astype(np.float64) for edge in _EDGES], axis=1)
    # MATLAB counts pixels from 1, and the last one of a box belongs to it.
    boxes[:, :2] -= 1
    return table["class"].astype(np.int64) - 1, in_train, boxes
