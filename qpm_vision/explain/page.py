"""What pictures have in common: a page with a title, rows of images with labels, and a note; sizes in inches."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qpm_opt import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CELL",
    "INK",
    "PALE",
    "AxesGrid",
    "label_feature",
    "new_figure",
    "new_page",
    "put_caption",
    "put_image",
    "put_text",
    "scale_note",
    "short_label",
    "to_png",
    "wrapped",
]

AxesGrid: TypeAlias = npt.NDArray[Any]

CELL = 1.25
"""Inches of an image."""

LABEL = 2.1
"""Inches of the column of labels."""

INK, PALE = "#222222", "#6e6e6e"

_MARGIN = 0.04
_GAP = 0.3
_PANEL_LEFT, _PANEL_LOWER, _PANEL_UPPER = 0.7, 0.5, 0.25
_TITLE, _SUBTITLE, _NOTE = 13.0, 8.5, 8.0
_LINE = 1.32 / 72  # inches of a line of text for each point of its size


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """A figure of its own that notebooks show, also where pyplot was not imported.

    Args:
        width: Inches.
        height: Inches.
        **options: Of matplotlib's `Figure`.
    """
    return _picture_class()(figsize=(width, height), dpi=150, facecolor="white", **options)


@cache
def _picture_class() -> type[Figure]:
    from matplotlib.figure import Figure  # here: importing the package does not load matplotlib

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            return to_png(self, dpi=100)

    return Picture


def to_png(figure: Figure, dpi: float) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def new_page(
    fig: Figure | None,
    rows: int,
    left: Sequence[float],
    right: Sequence[float] = (),
    *,
    title: str,
    subtitle: str,
    note: str,
    label: float = LABEL,
    gap_below: float = 0.16,
    head: float = 0.0,
    panel: float = 0.0,
) -> tuple[Figure, AxesGrid]:
    """Axes for a column of labels and two blocks of images with a gap between them, with text above and below.

    Args:
        fig: Where to draw; a new figure of the right size by default. A given one is divided in the same proportions.
        rows: Rows of images.
        left: Widths of the images in the left block.
        right: The same for the right block.
        title: In bold, two lines at most.
        subtitle: What is to be seen.
        note: Below all.
        label: Width of the column of labels; 0: there is none.
        gap_below: Space below each row, for captions.
        head: Space for headings above the first row.
        panel: Height of a diagram below the rows; 0: there is none. Its axes are the last of the figure.

    Returns:
        The figure and its axes, (rows, images) with the column of labels first where there is one.
    """
    sizes = [*([label] if label else []), *left, *right]
    width = 0.12 + sum(sizes) + (_GAP if right else 0.0) + 0.15
    heading = _lines(title, max(24, int(width * 8.5)), 2)
    below = textwrap.wrap(subtitle, max(36, int(width * 14.5)))
    end = textwrap.wrap(note, max(40, int(width * 15.5)))
    top = 0.14 + _LINE * (_TITLE * len(heading) + _SUBTITLE * len(below)) + 0.18 + head
    bottom = 0.14 + _LINE * _NOTE * len(end) + 0.1
    pitch = CELL + gap_below
    height = top + rows * pitch + panel + bottom
    figure = new_figure(width, height) if fig is None else fig
    x = 0.12 / width
    figure.text(
        x,
        1 - 0.12 / height,
        "\n".join(heading),
        va="top",
        fontsize=_TITLE,
        fontweight="bold",
        color=INK,
        linespacing=1.2,
    )
    y = 1 - (0.16 + _LINE * _TITLE * len(heading)) / height
    figure.text(x, y, "\n".join(below), va="top", fontsize=_SUBTITLE, color=PALE, linespacing=1.25)
    figure.text(x, 0.1 / height, "\n".join(end), va="bottom", fontsize=_NOTE, color=PALE, linespacing=1.25)
    axes = np.empty((rows, len(sizes)), dtype=object)
    for row in range(rows):
        start = 0.12 if not label else 0.0
        for place, size in enumerate(sizes):
            lower = height - top - (row + 1) * pitch + gap_below
            box = (start + _MARGIN, lower + _MARGIN, size - 2 * _MARGIN, CELL - 2 * _MARGIN)
            axes[row, place] = _add_axes(figure, box, (width, height))
            start += size + (_GAP if place == len(sizes) - len(right) - 1 else 0.0)
    if panel:
        box = (_PANEL_LEFT, bottom + _PANEL_LOWER, width - _PANEL_LEFT - 0.2, panel - _PANEL_LOWER - _PANEL_UPPER)
        _add_axes(figure, box, (width, height))
    return figure, axes


def scale_note(n_images: int) -> str:
    """What the colours of heat maps mean."""
    return (
        "Colour shows where a feature is active and how strongly. Full colour: the highest activations that it has in "
        f"the {n_images:,} training images (99\u00a0% quantile of its maxima). No colour: not active."
    )


def put_image(ax: Axes, picture: npt.NDArray[np.float32], frame: str | None = None) -> None:
    """Show an image (H, W, 3), with a frame in a colour."""
    ax.imshow(picture, interpolation="bilinear", vmin=0, vmax=1)
    for spine in ax.spines.values():
        spine.set_visible(frame is not None)
        if frame is not None:
            spine.set_color(frame)
            spine.set_linewidth(2.5)


def put_caption(ax: Axes, text: str) -> None:
    """Small text below an image."""
    ax.set_xlabel(text, fontsize=7, color=INK, labelpad=2, linespacing=1.15)


def wrapped(text: str, width: int, lines: int) -> str:
    """A name in lines of at most this many letters, and no more lines than these, in letters that can be drawn."""
    return "\n".join(_lines(drawable(text), width, lines))


def _lines(text: str, width: int, most: int) -> list[str]:
    """What `textwrap.wrap` gives, except that of a word longer than a line the beginning is kept."""
    lines = textwrap.wrap(text, width)
    if len(lines) > most:
        last = lines[most - 1]
        if len(last) > width - 2:
            last = last.rpartition(" ")[0] or last[: width - 2]
        lines[most - 1 :] = [f"{last} …"]
    return lines


def short_label(label: str) -> str:
    """As much of the name of a feature as has room beside or under an image, in letters that can be drawn."""
    return wrapped(label, 22, 1)


def put_text(ax: Axes, text: str, colour: str, *, size: float, bottom: bool = False) -> None:
    """Text in place of an image."""
    ax.set_axis_off()
    ax.text(
        0.06,
        0.06 if bottom else 0.5,
        text,
        transform=ax.transAxes,
        ha="left",
        va="bottom" if bottom else "center",
        fontsize=size,
        color=colour,
    )


def label_feature(ax: Axes, label: str, colour: str, below: str) -> None:
    """The name or number of a feature with its colour, and a text below, in the column of labels."""
    from matplotlib.patches import Rectangle

    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.add_patch(Rectangle((0.06, 0.6), 0.07, 0.12, facecolor=colour, edgecolor="none"))
    name = short_label(label)
    ax.text(0.17, 0.66, name, va="center", fontsize=10, color=INK, fontweight="bold")
    ax.text(0.17, 0.54, below, va="top", fontsize=8, color=PALE, linespacing=1.25)


def _add_axes(figure: Figure, box: tuple[float, float, float, float], size: tuple[float, float]) -> Axes:
    """Axes from left, lower edge, width and height, on a page of this width and height."""
    width, height = size
    ax = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    ax.set_xticks([])
    ax.set_yticks([])
    return ax
