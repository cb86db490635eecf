"""Files that a command is told to write, and those that it must leave as they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from qpm_opt import refuse_overwriting

__all__ = ["refuse_inputs"]

_NAMES = (
    "config.json",
    "stages.json",
    "data.json",
    "metrics.json",
    "threshold.json",
    "steering.json",
    "history.csv",
    "names.csv",
)
_KINDS = ("*.npz", "*.safetensors")


def refuse_inputs(
    target: str | os.PathLike[str], run: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str] | None] = ()
) -> None:
    """Raise where a file to be written is one that is read, or one that makes up the run.

    Args:
        target: What will be written.
        run: The run folder.
        inputs: What else is read.

    Raises:
        InvalidInputError: It is one of these; names it.
    """
    if Path(target).exists():
        place = Path(run)
        own = [*(place / name for name in _NAMES), *(path for kind in _KINDS for path in place.glob(kind))]
        refuse_overwriting(target, (*own, *inputs))
