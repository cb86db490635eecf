"""Where the parts that classes are made of lie in each image, from a table of boxes beside the images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from qpm_opt import InvalidInputError, read_csv
from qpm_vision.data._annotations import listed, wrong_file
from qpm_vision.data.attributes import read_attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BOXES_COLUMNS", "Box", "Parts", "read_parts"]

BOXES_COLUMNS = ("image", "part", "left", "upper", "right", "lower")

Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels from the upper left corner of the image."""

_REMEDY = "Correct it, or take it away to do without known places of parts."


@dataclass(frozen=True, eq=False)
class Parts:
    """What classes are made of, and where it is.

    Attributes:
        values: For each kind of part, such as "vowel", what each class has there: n_classes texts.
        boxes: By name of the image, the box of each kind of part that is known to be in it.
    """

    values: Mapping[str, tuple[str, ...]]
    boxes: Mapping[str, Mapping[str, Box]]


def read_parts(boxes: str | Path, attributes: str | Path, class_names: Sequence[str]) -> Parts:
    """Read the places of parts.

    Args:
        boxes: A CSV table in UTF-8 with the columns image, part, left, upper, right and lower: names of images as their
            set has them, and edges in pixels. An image may lack parts, and images may be missing.
        attributes: The table of the attributes of classes; each part must be a column of it.
        class_names: All classes.

    Raises:
        InvalidInputError: A table cannot be read, a part is no attribute, or a box is repeated, empty or not finite.
    """
    place = Path(boxes)
    found: dict[str, dict[str, Box]] = {}
    for number, row in _rows(place):
        box = _box(place, number, row)
        if found.setdefault(row["image"], {}).setdefault(row["part"], box) is not box:
            raise wrong_file(
                place,
                "have one box for each part of an image",
                f"a second one for {row['part']!r} in {row['image']!r} in line {number}",
                _REMEDY,
            )
    values = read_attributes(attributes, class_names)
    kinds = {kind for inside in found.values() for kind in inside}
    unknown = sorted(kinds - values.keys())
    if unknown:
        raise wrong_file(
            place, f"name parts that are columns of {Path(attributes).name!r}", f"others: {listed(unknown)}", _REMEDY
        )
    return Parts({kind: texts for kind, texts in values.items() if kind in kinds}, found)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    (_, header), *rows = read_csv(path) or [(0, [])]
    missing = [name for name in BOXES_COLUMNS if name not in header]
    if missing:
        raise wrong_file(path, f"have the columns {', '.join(BOXES_COLUMNS)}", f"none of {listed(missing)}", _REMEDY)
    return [(line, dict(zip(header, row, strict=True))) for line, row in rows]


def _box(path: Path, number: int, row: Mapping[str, str]) -> Box:
    try:
        left, upper, right, lower = (float(row[name]) for name in BOXES_COLUMNS[2:])
    except ValueError as error:
        raise wrong_file(path, "have numbers as edges", f"{error} in line {number}", _REMEDY) from error
    if not all(map(math.isfinite, (left, upper, right, lower))) or left >= right or upper >= lower:
        came = f"{left:g}, {upper:g}, {right:g}, {lower:g} in line {number}"
        raise InvalidInputError(
            f"The file {str(path)!r} must have edges with left < right and upper < lower. Got {came}. {_REMEDY}"
        )
    return left, upper, right, lower
