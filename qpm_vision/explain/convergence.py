"""How the objective of an assignment and its bound came about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpm_opt import Assignment
from qpm_vision.explain.page import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_convergence"]


def draw_convergence(result: Assignment) -> Figure:
    """Draw objective and bound over time."""
    figure = new_figure(7, 4, layout="constrained")
    result.plot("convergence", ax=figure.subplots())
    return figure
