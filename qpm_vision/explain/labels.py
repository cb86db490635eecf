"""The pictures that an assignment draws of itself, with class names that installed fonts can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpm_opt import Assignment
from qpm_vision.explain.fonts import drawable, font_families

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_assignment", "draw_convergence"]


def draw_assignment(result: Assignment) -> Figure:
    """Which class has which feature."""
    from matplotlib.figure import Figure

    rows, columns = result.weights.shape
    size = (min(18.0, 2.5 + 0.2 * columns), min(24.0, 1.8 + max(0.06, 0.25 - 0.001 * rows) * rows))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    ax = figure.subplots()
    result.plot("matrix", ax=ax)
    names = [drawable(label.get_text()) for label in ax.get_yticklabels()]
    ax.set_yticks(ax.get_yticks(), names, fontsize=7, fontfamily=font_families(*names))
    return figure


def draw_convergence(result: Assignment) -> Figure:
    """How the objective and its bound came about."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained", facecolor="white")
    result.plot("convergence", ax=figure.subplots())
    return figure
