"""A table of images and labels, as a CSV file."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from qpm_opt import InvalidInputError, alike_but_for_case, read_csv
from qpm_vision.data._annotations import listed
from qpm_vision.data._listing import Listing, read_and_divide
from qpm_vision.data._split import check_split

if TYPE_CHECKING:
    from qpm_vision.data.base import ImageData

__all__ = ["load_csv"]

_PARTS: Final = ("train", "test")
_MERGE: Final = "Spell them alike if they are one class; if not, tell them apart by more, such as upper_A and lower_a."
_REMEDY: Final = "Give a table with the columns path and label, and split (train or test) if it is divided."


def load_csv(
    file: str | os.PathLike[str], *, test_share: float = 0.25, seed: int = 0, cache_bytes: int = 2**30
) -> ImageData:
    """A data set out of a CSV table in UTF-8 with one row per image.

    The first row names the columns, in any order: `path`, from the folder of the table or absolute; `label`, any text;
    and `split`, `train` or `test`, without which part of each class is set aside. Other columns are passed over.
    Labels stay as they are written, `001` and `NA` too, but for blanks around them and for letters that are taken
    apart, which are composed. Classes are sorted by label, as numbers where all of them are. Every image is decoded
    once: those that cannot be read are left out and listed in `skipped`.

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
    paths = [_spelled_as_there(table.parent / name) for name in names]
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
    pair = alike_but_for_case(class_names)
    if pair is not None:  # pictures of classes are files, which would replace each other on many systems
        raise _wrong(table, "have labels that differ in more than case", f"{pair[0]!r} and {pair[1]!r}", _MERGE)
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
    rows = read_csv(table)
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


def _spelled_as_there(path: Path) -> Path:
    """The path as the file system spells it, which may take composed letters apart or not."""
    for form in ("NFC", "NFD"):
        other = Path(unicodedata.normalize(form, str(path)))
        if other.is_file():
            return other
    return path


def _by_number_or_text(labels: set[str]) -> list[str]:
    if all(re.fullmatch(r"[+-]?[0-9]+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _wrong(table: Path, expected: str, came: str, remedy: str = _REMEDY) -> InvalidInputError:
    return InvalidInputError(f"The table {str(table)!r} must {expected}. Got {came.rstrip('.')}. {remedy}")
