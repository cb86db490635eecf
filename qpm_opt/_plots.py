"""Pictures of a result; the only module that needs matplotlib, and only when called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpm_opt._validation import nearest
from qpm_opt.errors import BackendUnavailableError, InvalidInputError
from qpm_opt.figure_text import drawable, literal_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from qpm_opt.solution import Assignment

_MOST_TICKS = 60
_LONGEST = 40
_INK = "#1f4e79"
_BOUND = "#c1521b"
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@literal_text
def draw_sweep(table: pd.DataFrame) -> Figure:
    """Draw the trade-off of a sweep: objective and bound, and what Z_A loses, over the number of kept features."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailableError('Plots need matplotlib: pip install "qpm[plot]".') from error
    solved = table[table["objective"].notna()]
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    values, losses = figure.subplots(1, 2)
    for number, ((kind, own), group) in enumerate(solved.groupby(["penalised", "n_per_class"], sort=True)):
        points = group.sort_values("n_select")
        colour = _SERIES[number % len(_SERIES)]
        label = f"{own} per class" + ("" if kind == "given" else f", {kind}")
        values.plot(points["n_select"], points["objective"], marker="o", color=colour, label=label)
        if points["bound"].notna().all():
            values.fill_between(points["n_select"], points["objective"], points["bound"], color=colour, alpha=0.15)
        whole = points["similarity"] + points["lost_to_redundancy"] + points["lost_to_uniqueness"]
        losses.plot(points["n_select"], 100 * points["lost_to_redundancy"] / whole, marker="o", color=colour)
        losses.plot(points["n_select"], 100 * points["lost_to_uniqueness"] / whole, marker="s", ls="--", color=colour)
    values.set(xlabel="kept features", ylabel="objective, and its proven bound (shaded)")
    losses.set(xlabel="kept features", ylabel="class similarity lost (%)")
    losses.plot([], [], color="0.3", marker="o", label="to avoiding redundancy")
    losses.plot([], [], color="0.3", marker="s", ls="--", label="to keeping classes apart")
    for place in (values, losses):
        place.grid(alpha=0.3)
        place.legend(frameon=False)
    return figure


@literal_text
def draw(assignment: Assignment, kind: str, ax: Axes | None) -> tuple[Figure, Axes]:
    """Draw one kind of picture into `ax` or a new figure."""
    kinds = {"matrix": _draw_matrix, "convergence": _draw_convergence}
    if kind not in kinds:
        raise InvalidInputError(
            f"The 'kind' parameter must be one of {', '.join(kinds)}. Got {kind!r}.{nearest(kind, kinds)}"
        )
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise BackendUnavailableError('Plots need matplotlib: pip install "qpm[plot]".') from error
    if ax is None:
        if kind == "matrix":
            rows, columns = assignment.weights.shape
            size = (min(18.0, 2.5 + 0.2 * columns), min(24.0, 1.5 + max(0.045, 0.2 - 0.001 * rows) * rows))
        else:
            size = (7.0, 4.0)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    kinds[kind](assignment, ax)
    figure = ax.get_figure(root=True)
    if figure is None:
        raise InvalidInputError("The 'ax' parameter must belong to a figure.")
    return figure, ax


def _draw_matrix(assignment: Assignment, ax: Axes) -> None:
    from matplotlib.colors import ListedColormap

    frame = assignment.to_frame()
    weights = frame.to_numpy()
    columns = np.argsort(-weights.sum(axis=0), kind="stable")
    rows = np.lexsort(tuple(-weights[:, columns].T[::-1]))
    ax.imshow(
        weights[np.ix_(rows, columns)], cmap=ListedColormap(["#f3f3f3", _INK]), aspect="auto", interpolation="nearest"
    )
    for axis, labels in (
        (ax.xaxis, [frame.columns[i] for i in columns]),
        (ax.yaxis, [frame.index[i] for i in rows]),
    ):
        step = -(-len(labels) // _MOST_TICKS)
        ticks = list(range(0, len(labels), step))
        axis.set_ticks(ticks, [_tick_label(labels[tick]) for tick in ticks], fontsize=7)
    ax.tick_params(axis="x", rotation=90)
    ax.set_xlabel("feature (most used first)")
    ax.set_ylabel("class")
    ax.set_title(f"{len(rows)} classes, {len(columns)} features")


def _tick_label(label: object) -> str:
    text = drawable(str(label))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _draw_convergence(assignment: Assignment, ax: Axes) -> None:
    curves = {
        "objective": (_INK, [(p.time, p.objective) for p in assignment.trace if p.objective is not None]),
        "bound": (_BOUND, [(p.time, p.bound) for p in assignment.trace if p.bound is not None]),
    }
    for name, (colour, points) in curves.items():
        if points:
            times, values = zip(*points, strict=True)
            ax.step(
                [*times, max(assignment.runtime, times[-1])],
                [*values, values[-1]],
                where="post",
                color=colour,
                label=name,
                marker="o",
                markersize=3,
            )
    ax.set_xlabel("time [s]")
    ax.set_ylabel("objective")
    gap = "" if assignment.gap is None else f", gap {assignment.gap:.3%}"
    ax.set_title(f"{assignment.solver}: {assignment.termination.value}{gap}")
    if any(points for _, points in curves.values()):
        ax.legend()
