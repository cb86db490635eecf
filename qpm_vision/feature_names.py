"""Names that people give to features ("red crown"): a table beside the run, used wherever a feature is shown.

`names.csv` in the run folder has the columns `feature` and `name`; a feature is known by its number in the backbone.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from qpm_opt import InvalidInputError, normal_text, read_csv
from qpm_vision._reading import require_text_file, shortened
from qpm_vision._work import read_assignment
from qpm_vision.run_folder import RunFolder, RunFolderError

__all__ = [
    "NAMES",
    "all_names",
    "feature_label",
    "feature_names",
    "kept_features",
    "names_table",
    "read_names",
    "write_names",
]

NAMES = "names.csv"
COLUMNS = ("feature", "name")
LONGEST = 60
"""Characters of a name."""
_DIGITS = 9
"""Digits of the number of a feature, more than any backbone has features."""


def feature_label(number: int, names: Mapping[int, str]) -> str:
    """How a feature is called in a picture or a table.

    Example:
        >>> feature_label(17, {17: "red crown"}), feature_label(31, {17: "red crown"})
        ('red crown (17)', 'feature 31')
    """
    return f"{names[number]} ({number})" if number in names else f"feature {number}"


def kept_features(folder: RunFolder) -> tuple[int, ...]:
    """The numbers of the kept features of a run, in their order.

    Raises:
        RunFolderError: The run has no assignment yet, or it is damaged.
    """
    folder.require("assignment", "has no features yet")
    return tuple(int(number) for number in read_assignment(folder).selected)


def feature_names(folder: RunFolder) -> dict[int, str]:
    """The names of a run's features, by number; empty where nobody has given any.

    Features that the run does not keep, such as those of an assignment that was made anew since, are left out.

    Raises:
        RunFolderError: The table is damaged.
    """
    names = all_names(folder)
    kept = kept_features(folder) if names else ()
    return {number: name for number, name in names.items() if number in kept}


def all_names(folder: RunFolder) -> dict[int, str]:
    """All names in the table of a run, also of features that it does not keep: people steer by them.

    Raises:
        RunFolderError: The table is damaged.
    """
    path = folder.path / NAMES
    if not os.path.lexists(path):
        return {}
    try:
        return _read(path)
    except InvalidInputError as error:
        raise RunFolderError(f"{error} Correct it, or delete it to go on without names.") from error


def read_names(path: str | os.PathLike[str], kept: Collection[int]) -> dict[int, str]:
    """Read a table of names that somebody wrote.

    Args:
        path: A CSV file with the columns `feature` and `name`.
        kept: The features that may be named.

    Returns:
        Names by feature; the empty text where a row has none.

    Raises:
        InvalidInputError: The file cannot be read, or a row is malformed, names a feature that is not kept, or gives a
            name or a feature for the second time; says which row.
    """
    names = _read(Path(path), blanks=True)
    foreign = sorted(set(names) - set(kept))
    if foreign:
        raise InvalidInputError(
            f"The table {os.fspath(path)!r} must name features that the run keeps: "
            f"{', '.join(map(str, sorted(kept)))}. Got feature {foreign[0]}; correct its number, or drop the row."
        )
    return names


def names_table(kept: Iterable[int], names: Mapping[int, str]) -> str:
    """A table of all kept features with their names, to be completed.

    Example:
        >>> print(names_table([17, 31], {17: "red crown"}), end="")
        feature,name
        17,red crown
        31,
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((number, names.get(number, "")) for number in kept)
    return buffer.getvalue()


def write_names(folder: RunFolder, names: Mapping[int, str]) -> Path:
    """Keep names in a run folder, in place of earlier ones; the file appears whole or not at all.

    Names that features have which the run does not keep stay, because people steer by them.

    Args:
        folder: The run folder.
        names: Names of kept features by their number; those that are left out have none from now on.

    Raises:
        RunFolderError: It cannot be written, the run has no features yet, or the table that is there is damaged.
        InvalidInputError: A name is malformed or given twice, or its feature is not kept.
    """
    kept = kept_features(folder)
    foreign = sorted(set(names) - set(kept))
    if foreign:
        raise InvalidInputError(
            f"The 'names' parameter must name features that the run keeps. Got feature {foreign[0]}; use one of "
            f"{', '.join(map(str, kept))}."
        )
    checked = {number: name for number, name in all_names(folder).items() if number not in kept}
    for number in kept:
        if number in names:
            _add(checked, number, names[number], f"feature {number}")
    return folder.write_csv(NAMES, COLUMNS, sorted(checked.items()))


def _read(path: Path, *, blanks: bool = False) -> dict[int, str]:
    try:
        require_text_file(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"The table of names must be a CSV file in UTF-8. Cannot read {str(path)!r}: {shortened(error)}."
        ) from error
    (_, columns), *rows = read_csv(path, fill=True) or [(0, [])]
    if not set(COLUMNS) <= set(columns):
        raise InvalidInputError(
            f"The table {str(path)!r} must have the columns feature and name. Got {', '.join(columns) or 'none'}; "
            "let its first line be feature,name."
        )
    names: dict[int, str] = {}
    for line, row in rows:
        number, name = (row[columns.index(column)] for column in COLUMNS)
        if not name and not (blanks and number):
            continue
        where = f"{path.name}, line {line}"
        if not number.isdecimal() or len(number) > _DIGITS:
            raise InvalidInputError(f"{where}: the feature must be its number. Got {shortened(repr(number))}.")
        if name:
            _add(names, int(number), name, where)
        else:
            names.setdefault(int(number), "")
    return names


def _add(names: dict[int, str], number: int, name: str, where: str) -> None:
    """Add a name that is fit to be one; a number, or the name of another feature, would be taken for that feature."""
    name = normal_text(name)
    if not name or name != name.strip() or len(name) > LONGEST or not name.isprintable():
        raise InvalidInputError(
            f"{where}: a name must have 1 to {LONGEST} printable characters, the first and last no space. Got "
            f"{shortened(repr(name))}."
        )
    if name.isdecimal():
        raise InvalidInputError(f"{where}: a name must not be a number, which stands for a feature. Got {name!r}.")
    if number in names:
        raise InvalidInputError(f"{where}: feature {number} must have one name. Got {names[number]!r} and {name!r}.")
    if name in names.values():
        raise InvalidInputError(
            f"{where}: two features must not have the same name. Got {name!r}, which another feature has."
        )
    names[number] = name
