"""Files that a program reads and writes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from qpm_opt.errors import InvalidInputError

__all__ = ["refuse_overwriting"]

AnyPath = str | os.PathLike[str]


def refuse_overwriting(target: AnyPath, inputs: Iterable[AnyPath | None]) -> None:
    """Raise where a file to be written is one of those that it is made from, by whatever name or link.

    Args:
        target: What will be written.
        inputs: What is read; None stands for what was not given.

    Raises:
        InvalidInputError: It is one of them; names both.
    """
    for given in inputs:
        if given is not None and _is_same(target, given):
            raise InvalidInputError(
                f"What is written must not take the place of what is read. Got {os.fspath(target)!r}, which is the "
                f"file {os.fspath(given)!r}; choose another name."
            )


def _is_same(one: AnyPath, other: AnyPath) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them does not exist
        return False
