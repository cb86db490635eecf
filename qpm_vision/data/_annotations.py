"""Reading the annotations that published data sets come with: lines of ids and values, MATLAB tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "finite_numbers",
    "listed",
    "read_by_id",
    "read_lines",
    "read_mat",
    "require_same_ids",
    "whole_number",
    "wrong_file",
]


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first names in quotes, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], 2)
        "'a', 'b' and 1 more"
    """
    every = list(names)
    first = ", ".join(repr(name) for name in every[:limit])
    return first + (f" and {len(every) - limit} more" if len(every) > limit else "")


def wrong_file(
    path: Path, expected: str, came: str, remedy: str = "Extract or copy the data set again."
) -> InvalidInputError:
    """The error for a file of annotations that is not as it should be."""
    return InvalidInputError(f"The file {str(path)!r} must {expected}. Got {came.rstrip('.')}. {remedy}")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Numbers and text of the lines that are not empty, without spaces around.

    Raises:
        InvalidInputError: The file cannot be read, is no UTF-8 or has no such line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise wrong_file(path, "be text in UTF-8 that can be read", f"an error: {reason}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise wrong_file(path, "hold lines of text", "an empty file")
    return lines


def read_by_id(path: Path) -> dict[str, str]:
    """What follows the first word of each line, by that word.

    Raises:
        InvalidInputError: The file cannot be read, a line has one word only, or two lines have the same first word.
    """
    found: dict[str, str] = {}
    for number, line in read_lines(path):
        words = line.split(maxsplit=1)
        if len(words) < 2:
            raise wrong_file(path, "have an id and a value in each line", f"{line!r} in line {number}")
        if words[0] in found:
            raise wrong_file(path, "have one line for each id", f"{words[0]!r} again in line {number}")
        found[words[0]] = words[1]
    return found


def whole_number(path: Path, key: str, text: str, within: Collection[int]) -> int:
    """A number out of some, from the line of an id.

    Raises:
        InvalidInputError: It is no whole number or none of them; says whose.
    """
    number = int(text) if text.isascii() and text.isdigit() else -1
    if number not in within:
        few = ", ".join(map(str, sorted(within)[:5])) + (", …" if len(within) > 5 else "")
        raise wrong_file(path, f"have one of {few} for each id", f"{text!r} for {key!r}")
    return number


def require_same_ids(path: Path, ids: Mapping[str, Any], other: Path, others: Mapping[str, Any]) -> None:
    """Refuse two files whose lines are of different ids.

    Raises:
        InvalidInputError: An id is in one file only; says how many, and the first.
    """
    for here, known, there, wanted in ((path, ids, other, others), (other, others, path, ids)):
        lacking = [key for key in wanted if key not in known]
        if lacking:
            raise wrong_file(
                here,
                f"have a line for each of the {len(wanted)} ids in {there.name}",
                f"none for {len(lacking)} of them: {listed(lacking)}",
            )


def finite_numbers(path: Path, place: str, text: str, count: int) -> list[float]:
    """Numbers from a line.

    Raises:
        InvalidInputError: There are fewer or more, or one is no finite number; says at which `place`.
    """
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise wrong_file(path, f"have {count} finite numbers for each entry", f"{text!r} for {place}")
    return numbers


def read_mat(path: Path, variable: str, fields: Sequence[str] = ()) -> npt.NDArray[Any]:
    """A list or table out of a MATLAB file.

    Args:
        path: The file.
        variable: What is read.
        fields: Columns that it must have.

    Returns:
        (N,) of objects, or with the columns of a table.

    Raises:
        InvalidInputError: The file cannot be read, or lacks the variable or a column.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=[variable], squeeze_me=True)
    # The reader of a damaged file may raise anything: OSError, ValueError, TypeError, zlib.error, …
    except Exception as error:
        raise wrong_file(path, "be a MATLAB file that can be read", f"an error: {error}") from error
    if variable not in content:
        raise wrong_file(path, f"hold the variable {variable!r}", "a file without it")
    table: npt.NDArray[Any] = np.atleast_1d(content[variable])
    lacking = [name for name in fields if name not in (table.dtype.names or ())]
    if lacking:
        columns = ", ".join(table.dtype.names or ()) or "no columns"
        raise wrong_file(path, f"have {', '.join(fields)} in {variable!r}", f"no {listed(lacking)} but {columns}")
    return table
