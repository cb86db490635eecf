"""How much classes have in common, from a table of their attributes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError, normal_text, read_csv
from qpm_vision.data._annotations import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cosine_relation", "read_attributes", "read_class_relation"]


def read_attributes(path: str | Path, class_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The attributes of classes, as they are written.

    Args:
        path: A CSV file in UTF-8 with a column `class` first and one row per class.
        class_names: The classes that it must describe, all of them and no others.

    Returns:
        For each attribute a text for each class, in the order of `class_names`.

    Raises:
        InvalidInputError: The table cannot be read, or classes or values are missing, unknown or repeated.
    """
    place = Path(path)
    header, rows = _read_table(place)
    by_class = _rows_by_class(place, rows, class_names)
    attributes = {}
    for number, column in enumerate(header[1:], 1):
        values = tuple(by_class[normal_text(name)][number] for name in class_names)
        empty = [name for name, value in zip(class_names, values, strict=True) if not value]
        if empty:
            raise _wrong(place, f"a value of {column!r} for every class", f"none for {listed(empty)}")
        attributes[column] = values
    return attributes


def read_class_relation(path: str | Path, class_names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Cosine between the attribute vectors of classes.

    The table is a CSV file in UTF-8 with a column `class` first and one row per class. A column that holds numbers only
    enters as it stands, so numbers should be of one scale; any other column is a category and enters as one number
    per value, 1 where the class has it.

    Args:
        path: The table.
        class_names: The classes that it must describe, all of them and no others.

    Returns:
        (n_classes, n_classes) float64 in the order of `class_names`, with a zero diagonal. A class whose attributes
        are all 0 has nothing in common with any other.

    Raises:
        InvalidInputError: The table cannot be read, or classes or values are missing, unknown or repeated.
    """
    place = Path(path)
    blocks = [_vectors(place, column, values) for column, values in read_attributes(place, class_names).items()]
    return cosine_relation(np.concatenate(blocks, axis=1))


def cosine_relation(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cosine between the rows of a matrix.

    Args:
        vectors: (n_classes, n_attributes) float64, finite.

    Returns:
        (n_classes, n_classes) float64 with a zero diagonal. A row of zeros has nothing in common with any other.
    """
    # Divided by the largest entry first: squares of very large or small numbers would leave the range of floats.
    scaled = vectors / np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit = np.divide(scaled, lengths, out=np.zeros_like(scaled), where=lengths > 0)
    relation: npt.NDArray[np.float64] = unit @ unit.T
    np.fill_diagonal(relation, 0.0)
    return relation


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    found = read_csv(path)
    if not found:
        raise _wrong(path, "a first row with 'class' and at least one attribute", "an empty file")
    (line, header), *rows = found
    if header[0] != "class" or len(header) < 2:
        raise _wrong(path, "a first row with 'class' and at least one attribute", ", ".join(header))
    unnamed = [position for position, name in enumerate(header, 1) if not name]
    if unnamed:
        raise _wrong(path, "a name for every column", f"none for column {unnamed[0]} in line {line}")
    return header, [row for _, row in rows]


def _rows_by_class(path: Path, rows: list[list[str]], class_names: Sequence[str]) -> dict[str, list[str]]:
    by_class: dict[str, list[str]] = {}
    repeated = []
    for row in rows:
        name = row[0]
        if name in by_class:
            repeated.append(name)
        by_class[name] = row
    known = {normal_text(name) for name in class_names}
    missing = [name for name in class_names if normal_text(name) not in by_class]
    unknown = [name for name in by_class if name not in known]
    for problem, names in (
        ("rows are missing for the classes", missing),
        ("there are no images of the classes", unknown),
        ("there are several rows for the classes", repeated),
    ):
        if names:
            raise _wrong(path, "one row for every class with images", f"{problem} {listed(names)}")
    return by_class


def _vectors(path: Path, column: str, values: Sequence[str]) -> npt.NDArray[np.float64]:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        kinds = sorted(set(values))
        return np.array([[float(value == kind) for kind in kinds] for value in values])
    if not all(math.isfinite(number) for number in numbers):
        raise _wrong(path, f"finite numbers in the column {column!r}", "nan or inf")
    return np.array(numbers)[:, np.newaxis]


def _wrong(path: Path, expected: str, came: str) -> InvalidInputError:
    return InvalidInputError(
        f"The table {str(path)!r} must have {expected}. Got: {came.rstrip('.')}. Correct it, or take it away to do "
        "without known relations of classes."
    )
