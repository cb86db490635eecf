"""A table of images and labels, as a CSV file."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from qpm_opt import InvalidInputError
from qpm_vision.data._annotations import listed
from qpm_vision.data._listing import Listing, read_and_divide
from qpm_vision.data._split import check_split

if TYPE_CHECKING:
    from qpm_vision.data.base import ImageData

__all__ = ["load_csv"]

_PARTS: Final = ("train", "test")
_REMEDY: Final = "Give a table with the columns path and label, and split (train or test) if it is divided."


def load_csv(
    file: str | os.PathLike[str], *, test_share: float = 0.25, seed: int = 0, cache_bytes: int = 2**30
) -> ImageData:
    """A data set out of a CSV table in UTF-8 with one row per image.

    The first row names the columns, in any order: `path`, from the folder of the table or absolute; `label`, any text;
    and `split`, `train` or `test`, without which part of each class is set aside. Other columns are passed over.
    Classes are sorted by label, as numbers where all of them are. Every image is decoded once: those that cannot be
    read are left out and listed in `skipped`.

    Args:
        file: The table.
        test_share: Part of each class that is kept for testing where the table is not divided.
        seed: Of that division.
        cache_bytes: Decoded images are kept in memory if all together need no more than this.

    Raises:
        InvalidInputError: The table cannot be read, a row is wrong (says which line), files are missing, there are
            fewer than two classes, or a class has no readable training image.
    """
    check_split(test_share, seed)
    table = Path(file).expanduser()
    names, labels, splits = _read(table)
    paths = [table.parent / name for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if missing:
        raise _wrong(
            table,
            "name files that are there, from its own folder",
            f"{len(missing)} of {len(names)} that are missing: {listed(missing)}",
        )
    class_names = _by_number_or_text(set(labels))
    if len(class_names) < 2:
        raise _wrong(table, "have at least 2 classes", f"one, {class_names[0]!r}")
    label_of = {name: label for label, name in enumerate(class_names)}
    divided = splits is not None
    listing = Listing(
        source=table,
        paths=tuple(paths),
        names=tuple(names),
        labels=np.array([label_of[label] for label in labels]),
        parts=np.array([_PARTS.index(split) for split in splits] if splits is not None else [0] * len(names)),
        class_names=tuple(class_names),
        divided=divided,
        complete=(f"the training part of {str(table)!r}" if divided else repr(str(table)),),
    )
    if divided and not (listing.parts == 1).any():
        raise _wrong(table, "have rows for testing where it has a column 'split'", "'train' only")
    return read_and_divide(listing, table.stem, test_share=test_share, seed=seed, cache_bytes=cache_bytes)


def _read(table: Path) -> tuple[list[str], list[str], list[str] | None]:
    """Path, label and, where the table has it, split of each row."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _wrong(table, "be a CSV table in UTF-8", reason) from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise _wrong(table, "have a first row with the names of its columns", "an empty file")
    header = rows[0][1]
    lacking = [column for column in ("path", "label") if header.count(column) != 1]
    if lacking or header.count("split") > 1:
        raise _wrong(table, "have the columns 'path' and 'label' once each, 'split' at most once", ", ".join(header))
    if len(rows) == 1:
        raise _wrong(table, "have a row for each image", "the names of its columns only")
    seen: dict[str, int] = {}
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise _wrong(table, f"have {len(header)} cells in every row", f"{len(row)} in line {line}")
        values = dict(zip(header, row, strict=True))
        for column in ("path", "label"):
            if not values[column]:
                raise _wrong(table, f"have a {column} in every row", f"none in line {line}")
        if values.get("split", "train") not in _PARTS:
            raise _wrong(table, "have 'train' or 'test' as split", f"{values['split']!r} in line {line}")
        path = os.path.normpath(values["path"])
        if path in seen:
            raise _wrong(table, "name each file once", f"{values['path']!r} in lines {seen[path]} and {line}")
        seen[path] = line
    columns = {name: [row[position] for _, row in rows[1:]] for position, name in enumerate(header)}
    return columns["path"], columns["label"], columns.get("split")


def _by_number_or_text(labels: set[str]) -> list[str]:
    if all(re.fullmatch(r"[+-]?[0-9]+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _wrong(table: Path, expected: str, came: str) -> InvalidInputError:
    return InvalidInputError(f"The table {str(table)!r} must {expected}. Got {came.rstrip('.')}. {_REMEDY}")
