"""Pictures into a run folder; one that fails costs none of what was computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from qpm_vision._progress import Reporter
from qpm_vision.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_picture"]

_DPI = 150


def save_picture(folder: RunFolder, name: str, draw: Callable[[], Figure], report: Reporter, again: str) -> None:
    """Draw a picture and write it, or tell why that failed.

    Args:
        folder: Where to.
        name: Path inside the folder.
        draw: Makes the figure.
        report: Told where it fails.
        again: What draws it again, for people.
    """
    try:
        folder.write_path(name, partial(draw().savefig, dpi=_DPI))
    except Exception as error:  # noqa: BLE001 - drawing can fail in as many ways as there are names and installations
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        report.message(f"note: the picture {name} could not be drawn ({reason}); all else is done. {again}")
