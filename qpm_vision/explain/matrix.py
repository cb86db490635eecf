"""Which class has which feature, with similar classes beside each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qpm_opt import drawable, literal_text
from qpm_vision.explain.page import INK, PALE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_matrix", "matrix_order"]

_MOST_ORDERED = 500  # beyond, the best order of the leaves takes minutes
_ROW, _COLUMN = (0.125, 0.26), (0.185, 0.3)
"""Inches of a row and a column: where there are many, and where there are few."""
_BLUE, _BAND = "#0072b2", "#f2f4f6"
_LONGEST = 24
_LETTER = 0.085
"""Inches of a letter of a name."""


def matrix_order(weights: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """An order of classes and features in which what is similar is close.

    Classes are clustered by the share of their features that they do not have in common (Jaccard distance, average
    linkage), and the clusters turned so that neighbours are alike. Features follow the classes that they describe.

    Args:
        weights: W, (n_classes, n_select) of 0/1.

    Returns:
        Positions of the classes, (n_classes,), and of the features, (n_select,).

    Example:
        >>> [order.tolist() for order in matrix_order([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0]])]
        [[0, 2, 3, 1], [0, 1, 2]]
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import pdist

    matrix = np.asarray(weights) > 0
    rows = np.arange(len(matrix))
    if len(matrix) > 2:
        tree = linkage(pdist(matrix, "jaccard"), "average", optimal_ordering=len(matrix) <= _MOST_ORDERED)
        rows = leaves_list(tree).astype(np.int64)
    place = np.empty(len(rows))
    place[rows] = np.arange(len(rows))
    sizes = matrix.sum(axis=0)
    middle = np.where(sizes > 0, place @ matrix / np.maximum(sizes, 1), np.inf)
    return rows, np.argsort(middle, kind="stable")


@literal_text
def draw_matrix(
    weights: npt.ArrayLike, class_names: Sequence[str], feature_names: Sequence[object], ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw the matrix of classes and features, ordered by `matrix_order`.

    Args:
        weights: W, (n_classes, n_select) of 0/1.
        class_names: One for each row.
        feature_names: One for each column.
        ax: Where to draw; a new figure of a size at which all names can be read by default.

    Returns:
        The figure and its axes.
    """
    matrix = np.asarray(weights) > 0
    n_classes, n_features = matrix.shape
    rows, columns = matrix_order(matrix)
    row, column = (_between(sizes, count) for sizes, count in ((_ROW, n_classes), (_COLUMN, n_features)))
    names = [_short(drawable(str(class_names[index]))) for index in rows]
    called = [_short(drawable(str(feature_names[index]))) for index in columns]
    across = _LETTER * max(map(_wide, names))
    if ax is None:
        # Names of features stand upright, above and below; beyond the usual numbers they need room of their own.
        upright = 2 * _LETTER * max(0, max(map(_wide, called)) - 4)
        width = 1.0 + across + column * n_features
        figure = new_figure(max(4.5, width), 1.75 + upright + row * n_classes, layout="constrained")
        ax = figure.subplots()
    ordered = matrix[np.ix_(rows, columns)]
    ax.set(xlim=(-0.5, n_features - 0.5), ylim=(n_classes - 0.5, -0.5))
    for start in range(0, n_classes, 2):
        ax.axhspan(start - 0.5, start + 0.5, color=_BAND, linewidth=0, zorder=0)
    ax.vlines(np.arange(0.5, n_features - 1), -0.5, n_classes - 0.5, color="white", linewidth=0.8, zorder=1)
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    boxes = [Rectangle((x - 0.4, y - 0.4), 0.8, 0.8) for y, x in np.argwhere(ordered)]
    ax.add_collection(PatchCollection(boxes, facecolor=_BLUE, edgecolor="none", zorder=2))
    size = 72 * row * 0.68
    ax.set_yticks(range(n_classes), names, fontsize=min(8.5, size), color=INK)
    counts = ordered.sum(axis=0)
    labels = [f"{name} ({count})" for name, count in zip(called, counts, strict=True)]
    top = ax.secondary_xaxis("top")
    for axis in (ax, top):
        axis.set_xticks(range(n_features), labels, rotation=90, fontsize=7, color=INK)
        axis.tick_params(length=0, pad=2)
    ax.set_xlabel("feature, and how many classes have it", fontsize=8, color=PALE)
    for spines in (ax.spines, top.spines):
        spines[:].set_visible(False)
    shared = int((counts > 1).sum())
    title = f"{n_classes} classes, {int((counts > 0).sum())} features, {shared} of them shared"
    ax.set_title(
        "\n".join(textwrap.wrap(title, int(max(4.0 - across, 0.5 + column * n_features, 1.5) / 0.11))),
        fontsize=11,
        fontweight="bold",
        color=INK,
        loc="left",
        pad=10,
    )
    found = ax.get_figure(root=True)
    assert found is not None
    return found, ax


def _between(sizes: tuple[float, float], count: int) -> float:
    """The larger size up to 20, the smaller one from 60 on."""
    share = min(max((count - 20) / 40, 0.0), 1.0)
    return sizes[1] + share * (sizes[0] - sizes[1])


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _wide(name: str) -> float:
    """Letters, where those of East Asia are twice as wide."""
    return sum(2 if ord(character) > 0x1100 else 1 for character in name)
