"""Epochs as curves for TensorBoard, where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qpm_opt import QPMError

__all__ = ["EpochLogUnavailableError", "epoch_log", "require_epoch_log"]


class EpochLogUnavailableError(QPMError, ImportError):
    """TensorBoard is not installed; the message says what to install."""


def require_epoch_log() -> None:
    """Raise where curves cannot be written.

    Raises:
        EpochLogUnavailableError: TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise EpochLogUnavailableError(
            "The 'tensorboard' parameter needs TensorBoard, which is not installed: pip install '.[vision,tensorboard]'"
        ) from error


@contextmanager
def epoch_log(folder: Path, *, wanted: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that adds a row of the history to the curves in a folder; it does nothing where none are wanted."""
    if not wanted:
        yield lambda _row: None
        return
    require_epoch_log()
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def add(row: Mapping[str, Any]) -> None:
            for name, value in row.items():
                if name != "epoch" and isinstance(value, int | float):
                    writer.add_scalar(name, value, row["epoch"])
            writer.flush()

        yield add
