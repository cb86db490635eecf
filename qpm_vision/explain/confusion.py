"""Which classes are taken for which, as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qpm_opt import drawable, literal_text
from qpm_vision.explain.page import INK, PALE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_confusion"]

_MOST_NUMBERED = 30
"""Classes up to which cells hold their numbers."""
_MOST_NAMED = 120
"""Classes up to which rows have their names."""
_MOST_CHARACTERS = 24
"""Of a name."""
_CELL = (0.06, 0.42)
"""Inches of a cell: where there are many, and where there are few."""


@literal_text
def draw_confusion(confusion: npt.NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Draw a row for each class, coloured by the share of its images that were taken for each class.

    Args:
        confusion: (n_classes, n_classes) images by their class and the class that they were taken for.
        class_names: One for each.
    """
    n_classes = len(confusion)
    cell = float(np.interp(n_classes, (12, 150), _CELL[::-1]))
    images = confusion.sum(axis=1)
    shares = confusion / np.maximum(images, 1)[:, None]
    named = n_classes <= _MOST_NAMED
    names = [_short(drawable(str(name))) for name in class_names] if named else []
    room = 0.5 + 0.085 * max(map(len, names), default=0)
    side = max(2.6, cell * n_classes)
    figure = new_figure(side + room + 1.0, side + room + 0.6, layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xlabel("taken for", color=PALE)
    ax.set_ylabel("class (images)", color=PALE)
    ax.set_title(
        f"{int(confusion.trace()):,} of {int(images.sum()):,} test images on the diagonal", fontsize=10, color=INK
    )
    if named:
        size = 8 if n_classes <= _MOST_NUMBERED else 5
        styled: dict[str, Any] = {"fontsize": size, "color": INK}
        ax.set_xticks(np.arange(n_classes), names, rotation=90, **styled)
        ax.set_yticks(
            np.arange(n_classes), [f"{name} ({count})" for name, count in zip(names, images, strict=True)], **styled
        )
    else:
        ax.set_xticks([])
        ax.set_yticks([])
    ax.tick_params(length=0)
    if n_classes <= _MOST_NUMBERED:
        for row, column in np.argwhere(confusion > 0):
            colour = "white" if shares[row, column] > 0.55 else INK
            ax.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=7, color=colour)
    for side_of in ax.spines.values():
        side_of.set_visible(False)
    bar = figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label("share of the class", color=PALE)
    bar.outline.set_visible(False)
    return figure


def _short(name: str) -> str:
    """At most 24 characters of a name: whole words where there are some, else its beginning."""
    short = textwrap.shorten(name, _MOST_CHARACTERS, placeholder="…")
    return f"{name.strip()[: _MOST_CHARACTERS - 1]}…" if short == "…" else short
