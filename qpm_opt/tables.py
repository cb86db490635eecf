"""Tables as CSV files: one way to read them, in which names stay text until a rule says otherwise."""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from qpm_opt.errors import InvalidInputError
from qpm_opt.text import alike_but_for_case, normal_text

__all__ = ["read_csv", "read_labelled_csv"]

logger = logging.getLogger(__name__)

_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_WHOLE: Final = re.compile(r"-?[1-9][0-9]{0,17}|0")
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
_CORNER: Final = ("", "class", "classes", "feature", "features", "id", "index", "label", "labels", "name", "names")
"""What may stand above the names of rows; under any other heading, numbers are data."""


def read_csv(path: str | os.PathLike[str], *, fill: bool = False) -> list[tuple[int, list[str]]]:
    """The rows of a CSV table in UTF-8, the names of its columns first.

    Cells come as text, in the spelling of `normal_text` and without blanks around; nothing is guessed from what they
    look like. Rows without any text are left out.

    Args:
        path: The table.
        fill: Whether a row may end early, as in tables by hand whose last columns hold remarks; its other cells are
            empty.

    Returns:
        For each row the line that it ends in, and its cells, as many as there are columns; nothing for an empty file.

    Raises:
        InvalidInputError: The file cannot be read or is no such table, has other separators than commas, names
            a column twice, or rows differ in length; the message says in which line, and the cure.
    """
    place = Path(path)
    try:
        with place.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, skipinitialspace=True, strict=True)
            rows = [(reader.line_num, [normal_text(cell.strip()) for cell in row]) for row in reader]
    except UnicodeDecodeError as error:
        raise _wrong(
            place, "be text in UTF-8", str(error), "Save it as 'CSV UTF-8' where spreadsheets offer several kinds"
        ) from error
    except (OSError, csv.Error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _wrong(place, "be a CSV table that can be read", reason, "Correct it, or give another") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        return []
    header = rows[0][1]
    if len(header) == 1:
        for separator, name in _SEPARATORS.items():
            if separator in header[0]:
                raise _wrong(
                    place, "be separated by commas", name, "Save it with commas, and points in numbers such as 0.5"
                )
        if any(len(row) > 1 for _, row in rows[1:]):
            raise _wrong(
                place,
                "begin with the names of its columns",
                f"{header[0]!r} alone in line {rows[0][0]}",
                "Remove what stands before the table",
            )
    twice = [name for position, name in enumerate(header) if name and name in header[:position]]
    if twice:
        numbers = [str(position) for position, name in enumerate(header, 1) if name == twice[0]]
        came = f"{twice[0]!r} in columns {' and '.join(numbers)}"
        raise _wrong(place, "name its columns once each", came, "Rename or drop one of them")
    for line, row in rows[1:]:
        if fill:
            row += [""] * (len(header) - len(row))
        if len(row) != len(header):
            raise _wrong(
                place,
                f"have {len(header)} cells in every row",
                f"{len(row)} in line {line}, the row of {row[0]!r}",
                "Correct it; what has commas in itself goes between double quotes",
            )
    return rows


def read_labelled_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A frame of numbers out of a CSV table with names in its first row and in its first column.

    Names are text, `NA` and `001` as well. Only where all names of an axis are whole numbers as Python writes them are
    they numbers: what pandas wrote for positions comes back as positions.

    Raises:
        InvalidInputError: See `read_csv`; also where names are missing or not different, or a cell is no number.
    """
    place = Path(path)
    found = read_csv(place)
    if not found:
        raise _wrong(place, "begin with the names of its columns", "an empty file", "Write it with pandas' to_csv")
    (_, header), *rows = found
    if len(header) < 2:
        raise _wrong(
            place, "hold several columns, separated by commas", "one", "Write it with pandas' to_csv, or as .npy"
        )
    names = [row[0] for _, row in rows]
    if header[0] and all(_is_number(name) and not _WHOLE.fullmatch(name) for name in header[1:]):
        raise _wrong(
            place,
            "begin with the names of its columns, and an empty first cell",
            f"{header[0]!r} and numbers in line {found[0][0]}",
            "Put names above the numbers; leave the first cell empty if these are names",
        )
    if header[0].casefold() not in _CORNER and (_is_number(header[0]) or all(map(_is_number, names))):
        raise _wrong(
            place,
            "have names in its first row and column, and an empty first cell",
            f"the number {names[0]} under {header[0]!r}" if names else f"{header[0]!r} there",
            "Leave the first cell empty if these are names; write it with pandas' to_csv, or save the numbers as .npy",
        )
    values = np.array([_numbers(place, line, row, header) for line, row in rows], dtype=np.float64)
    return pd.DataFrame(
        values.reshape(len(rows), len(header) - 1),
        index=_axis(place, "row", names, [line for line, _ in rows]),
        columns=_axis(place, "column", header[1:], range(2, len(header) + 1)),
    )


def _axis(place: Path, what: str, names: Sequence[str], numbers: Sequence[int]) -> pd.Index[Any]:
    where = {"row": "line", "column": "column"}[what]
    first: dict[str, int] = {}
    for name, number in zip(names, numbers, strict=True):
        if not name:
            raise _wrong(place, f"name every {what}", f"no name in {where} {number}", f"Name it or drop the {what}")
        if name in first:
            came = f"{name!r} in {where}s {first[name]} and {number}"
            raise _wrong(place, f"name each {what} once", came, "Rename or drop one of them")
        first[name] = number
    pair = alike_but_for_case(names)
    if pair is not None:
        logger.warning("%s: %r and %r differ in case only, and are two names", place, *pair)
    if all(map(_WHOLE.fullmatch, names)):
        numbered: pd.Index[int] = pd.Index([int(name) for name in names])
        return numbered
    return pd.Index(list(names), dtype=str)


def _numbers(place: Path, line: int, row: Sequence[str], header: Sequence[str]) -> list[float]:
    try:
        numbers = list(map(float, row[1:]))
    except ValueError:
        pass
    else:
        if not any("_" in cell for cell in row[1:]):  # Python reads 1_000 as a number; nobody else does
            return numbers
    column, cell = next((name, cell) for name, cell in zip(header[1:], row[1:], strict=True) if not _is_number(cell))
    cure = "Complete it" if not cell else "Correct it, or drop the row or column"
    if _DECIMAL_COMMA.fullmatch(cell):
        cure = f"Write {cell.replace(',', '.')}, with a point"
    came = f"{cell!r} for {row[0]!r} and {column!r} in line {line}" if cell else f"nothing in line {line}, {column!r}"
    raise _wrong(place, "hold numbers behind its names", came, cure)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _wrong(place: Path, expected: str, came: str, remedy: str) -> InvalidInputError:
    return InvalidInputError(f"The table {str(place)!r} must {expected}. Got {came.rstrip('.')}. {remedy}.")
