"""What a feature is: where it is in the classes that it describes, and how active it is in others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qpm_opt import drawable, literal_text
from qpm_vision.explain.colours import PALETTE
from qpm_vision.explain.explainer import Explainer
from qpm_vision.explain.gallery import N_BEST
from qpm_vision.explain.page import (
    CELL,
    INK,
    PALE,
    AxesGrid,
    new_page,
    put_caption,
    put_image,
    put_text,
    scale_note,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_feature"]

_COLUMNS = 6
_MOST_ROWS = 3
_LABEL = 1.25
_PANEL = 2.35
_OTHERS = "#6e6e6e"


@literal_text
def draw_feature(explainer: Explainer, feature: int, fig: Figure | None = None) -> tuple[Figure, AxesGrid]:
    """Draw one feature: on the best image of each class that it describes, and of other classes in which it is strong.

    Below, how its activations are distributed over the images of its classes and of all others.

    Args:
        explainer: Of the model.
        feature: Its number in the backbone.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes in one row: those of the images, row by row with a label first, and last the histogram
        where the gallery has one.
    """
    column = explainer.column_of(feature)
    colour = PALETTE[0]
    with_it = explainer.classes_with(column)
    # Where few classes would leave the row empty, several images of each fill it.
    each = min(N_BEST, max(1, _COLUMNS // max(1, len(with_it))))
    own = _strongest(explainer, with_it, column, each)
    without = [index for index in range(len(explainer.weights)) if not explainer.weights[index, column]]
    others = _strongest(explainer, without, column, 1)
    shown = own[: _COLUMNS * _MOST_ROWS]
    rows = max(1, -(-len(shown) // _COLUMNS))
    more = "" if len(own) == len(shown) else f" (of {len(shown)} classes in which it is strongest)"
    n_classes = len(explainer.weights)
    has_histogram = explainer.gallery.counts is not None
    figure, grid = new_page(
        fig,
        rows + 1,
        [CELL] * _COLUMNS,
        title=f"{_capital(drawable(explainer.feature_label(column)))} describes {len(with_it)} of {n_classes} classes",
        subtitle=f"Above: where it is on the images of its classes that show it best{more}. "
        "Below: the same on the best images of other classes, those in which it is strongest first.",
        note=scale_note(explainer.n_images),
        label=_LABEL,
        gap_below=0.26,
        panel=_PANEL if has_histogram else 0.0,
    )
    for row in range(rows + 1):
        grid[row, 0].set_axis_off()
    put_text(grid[0, 0], f"{len(with_it)} class{'' if len(with_it) == 1 else 'es'}\nwith this\nfeature", INK, size=9)
    put_text(grid[rows, 0], "other\nclasses", PALE, size=9)
    for row in range(rows + 1):
        of_row = others[:_COLUMNS] if row == rows else shown[row * _COLUMNS : (row + 1) * _COLUMNS]
        for place in range(_COLUMNS):
            ax = grid[row, 1 + place]
            if place >= len(of_row):
                ax.set_axis_off()
                continue
            index, position = of_row[place]
            put_image(ax, explainer.heat(position, column, colour), colour if row < rows else None)
            put_caption(ax, wrapped(explainer.class_names[index], 20, 2))
    axes = list(grid.ravel())
    if has_histogram:
        ax = figure.axes[-1]
        _histogram(ax, explainer, column, colour)
        axes.append(ax)
    flat = np.empty(len(axes), dtype=object)
    flat[:] = axes
    return figure, flat


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]


def _strongest(explainer: Explainer, classes: list[int], column: int, number: int) -> list[tuple[int, int]]:
    """Classes with images that show the feature best, the class with the highest mean activation first."""
    strength = _class_means(explainer)[:, column]
    ranked = sorted(classes, key=lambda index: -strength[index])
    return [(index, position) for index in ranked for position in explainer.best_images(index, number, column)]


def _class_means(explainer: Explainer) -> npt.NDArray[np.float64]:
    """About the mean activation of each feature in each class, (n_classes, n_select); zeros without histograms."""
    gallery = explainer.gallery
    if gallery.counts is None or gallery.edges is None:
        return np.zeros(explainer.weights.shape)
    middles = (gallery.edges[:, :-1] + gallery.edges[:, 1:]) / 2
    totals = np.maximum(gallery.counts.sum(axis=2), 1)
    return np.asarray((gallery.counts * middles).sum(axis=2) / totals, dtype=np.float64)


def _histogram(ax: Axes, explainer: Explainer, column: int, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    counts, edges = explainer.gallery.counts, explainer.gallery.edges
    if counts is None or edges is None:
        return
    has = explainer.weights[:, column] > 0
    scaled = (edges[column] - float(explainer.model.mean[column])) / max(float(explainer.model.std[column]), 1e-6)
    for name, of, face, order in (("other classes", ~has, _OTHERS, 1), ("classes with this feature", has, colour, 2)):
        total = int(counts[of, column].sum())
        shares = counts[of, column].sum(axis=0) / max(total, 1)
        label = f"{name}, {total:,} images"
        ax.stairs(100 * shares, scaled, fill=True, color=face, alpha=0.45, zorder=order)
        ax.stairs(100 * shares, scaled, color=face, linewidth=1.6, zorder=order + 2, label=label)
    ax.xaxis.set_major_locator(MaxNLocator(9))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel("activation averaged over the image, in standard deviations above its training mean", fontsize=8)
    ax.set_ylabel("images (%)", fontsize=8)
    ax.tick_params(labelsize=7.5)
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    used = np.flatnonzero(counts[:, column].any(axis=0))
    first, last = scaled[used[0]], scaled[used[-1] + 1]
    if first < last:
        ax.set_xlim(first, last)
    ax.margins(y=0.02)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
