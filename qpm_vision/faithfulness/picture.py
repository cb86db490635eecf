"""What was found about heat maps, in one picture: curves of all methods, stability, and where features point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qpm_opt import drawable, literal_text
from qpm_vision.explain.page import INK, PALE, new_figure
from qpm_vision.faithfulness.result import TITLES, Curves, Faithfulness, Pointing, Reach, Stability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_faithfulness"]

_STYLES: dict[str, tuple[str, Any]] = {
    "features": ("#d55e00", "-"),
    "feature": ("#d55e00", "-"),
    "grad-cam": ("#0072b2", "--"),
    "integrated-gradients": ("#009e73", "-."),
    "another-feature": ("#cc79a7", "--"),
    "centre": ("#8c8c8c", ":"),
    "random": ("#222222", (0, (1, 1.2))),
}
"""Colour and line of each method; lines differ where colours may not be told apart."""

_WIDTH, _ROW = 11.5, 3.5


@literal_text
def draw_faithfulness(result: Faithfulness, fig: Figure | None = None) -> tuple[Figure, npt.NDArray[Any]]:
    """Draw the curves of all methods, how stable heat maps are, and where features point if that is known.

    Args:
        result: What was found.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, (2, 3); those without content are switched off.
    """
    figure = new_figure(_WIDTH, 2 * _ROW + 0.5, layout="constrained") if fig is None else fig
    axes: npt.NDArray[Any] = figure.subplots(2, 3)
    rows, columns = result.map_size
    figure.suptitle(
        f"Can the heat maps be trusted?  {result.images} test images of {result.input_size} pixels, maps of {rows} × "
        f"{columns} places",
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
        color=INK,
    )
    _curves(axes[0, 0], result.deletion, "Deletion: lower is better", "pixels deleted (%)")
    _curves(axes[0, 1], result.insertion, "Insertion: higher is better", "pixels inserted (%)")
    _legend(axes[0, 2], [*result.deletion.methods, *result.feature_deletion.methods])
    _reach(axes[0, 2], result.reach)
    _curves(axes[1, 0], result.feature_deletion, "Deletion of one feature: lower is better", "pixels deleted (%)")
    _stability(axes[1, 1], result.stability)
    if result.pointing is None or not result.pointing.kinds:
        axes[1, 2].set_axis_off()
    else:
        _pointing(axes[1, 2], result.pointing)
    return figure, axes


def _curves(ax: Axes, curves: Curves, title: str, below: str) -> None:
    for name, curve in curves.methods.items():
        colour, line = _STYLES[name]
        shares = 100 * np.linspace(0, 1, len(curve.mean))
        ax.plot(shares, curve.mean, color=colour, linestyle=line, linewidth=1.8)
    _dress(ax, title, below, curves.score)
    ax.set_xlim(0, 100)


def _legend(ax: Axes, names: list[str]) -> None:
    ax.set_axis_off()
    titles: dict[tuple[str, Any], str] = {}  # a feature's own map is drawn as the maps of all are: one entry for both
    for name in names:
        titles.setdefault(_STYLES[name], TITLES[name])
    for (colour, line), title in titles.items():
        ax.plot([], [], color=colour, linestyle=line, linewidth=1.8, label=title)
    ax.legend(
        loc="upper left",
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        title="which pixels come first",
        title_fontsize=9,
        alignment="left",
        handlelength=3.2,
    )


def _reach(ax: Axes, found: Reach) -> None:
    if found.own is None:
        return
    text = (
        f"Of what a place of the maps depends on, {found.own:.1%}\nlies within it. A place that depends on all of the\n"
        f"image alike would have {found.own_area:.1%} there."
    )
    ax.text(0.03, 0.02, text, transform=ax.transAxes, va="bottom", fontsize=9, color=INK, linespacing=1.35)


def _stability(ax: Axes, found: Stability) -> None:
    rows = (
        ("map shifted back", found.shifted_back, "#d55e00", "o-"),
        ("map not shifted back", found.not_shifted_back, "#0072b2", "s--"),
        ("map of another image", found.other_image, "#8c8c8c", "^:"),
    )
    for label, values, colour, style in rows:
        heights = [np.nan if value is None else value for value in values]
        ax.plot(found.shifts, heights, style, color=colour, markersize=5, label=label)
    _dress(ax, "Shifted images: higher is more stable", "shift (pixels)", "correlation with the first map")
    ax.set_xticks(found.shifts)
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.02)
    ax.legend(frameon=False, fontsize=8, loc="lower left", labelcolor=INK)


def _pointing(ax: Axes, found: Pointing) -> None:
    groups = (
        ("strongest place", "hit", "#d55e00"),
        ("middle of the image", "centre", "#0072b2"),
        ("box of another image", "other_image", "#cc79a7"),
        ("random place", "chance", "#b5b5b5"),
    )
    width = 0.8 / len(groups)
    for place, (label, name, colour) in enumerate(groups):
        heights = [100 * (getattr(item, name) or 0.0) for item in found.kinds.values()]
        left = np.arange(len(heights)) + (place - (len(groups) - 1) / 2) * width
        errors = [100 * (item.error or 0.0) for item in found.kinds.values()] if name == "hit" else None
        ax.bar(left, heights, width * 0.92, color=colour, label=label, yerr=errors, ecolor=INK, error_kw={"lw": 1})
    _dress(ax, "Features at the part that they stand for", "", "in the box of the part (%)")
    ax.set_xticks(
        range(len(found.kinds)),
        [f"{drawable(kind)}\n{item.features} features" for kind, item in found.kinds.items()],
        fontsize=8,
    )
    ax.set_ylim(0, max(100.0, ax.get_ylim()[1]))
    ax.margins(x=0.03)
    ax.legend(frameon=False, fontsize=8, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.14), labelcolor=INK)


def _dress(ax: Axes, title: str, below: str, beside: str) -> None:
    ax.set_title(title, fontsize=10, color=INK, loc="left")
    ax.set_xlabel(below, fontsize=8.5, color=PALE)
    ax.set_ylabel(beside, fontsize=8.5, color=PALE)
    ax.tick_params(labelsize=8, colors=PALE)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
