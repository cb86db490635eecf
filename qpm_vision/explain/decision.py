"""Why an image got its class and not the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpm_opt import drawable, literal_text
from qpm_vision.explain.colours import feature_colours
from qpm_vision.explain.heatmaps import overlay
from qpm_vision.explain.page import (
    CELL,
    INK,
    AxesGrid,
    new_page,
    put_caption,
    put_image,
    put_text,
    scale_note,
    short_label,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qpm_vision.predict import Explanation

__all__ = ["draw_decision"]


@literal_text
def draw_decision(explanation: Explanation, fig: Figure | None = None) -> tuple[Figure, AxesGrid]:
    """Draw why an image got its class and not the next one, a row each: their features on it, and what each adds.

    Args:
        explanation: Of the image.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, (2, 2 + features).
    """
    shown = (*explanation.features, *explanation.instead)
    maps = {item.column: heat for item, heat in zip(shown, explanation.heat_maps, strict=True)}
    colours = dict(zip(maps, feature_colours([[1] * len(maps)]), strict=True))
    rows = (
        (explanation.class_index, explanation.features),
        (explanation.runner_up_index, explanation.features_of_runner_up()),
    )
    widest = max(len(items) for _, items in rows)
    first, second = (drawable(explanation.class_names[index]) for index, _ in rows)
    figure, grid = new_page(
        fig,
        len(rows),
        [CELL],
        [CELL] * widest,
        title=f"Why {first} and not {second}?",
        subtitle="Each row is a class, and every feature that describes it: where on the image it is, and what it adds "
        "to the logit of the class, in standard deviations above its mean. A feature has the same colour in both rows.",
        note=scale_note(explanation.n_images),
        label=1.6,
        gap_below=0.36,
    )
    for row, (index, items) in enumerate(rows):
        role = "runner-up" if row else "predicted"
        name = wrapped(f"{role}: {explanation.class_names[index]}", 18, 4)
        figures = f"score {explanation.scores[index]:.1%}\nlogit {explanation.logits[index]:.2f}"
        put_text(grid[row, 0], f"{name}\n{figures}", INK, size=9)
        for place in range(1 + widest):
            ax = grid[row, 1 + place]
            if place > len(items):
                ax.set_axis_off()
            elif place == 0:
                put_image(ax, explanation.image)
            else:
                item = items[place - 1]
                colour = colours[item.column]
                put_image(ax, overlay(explanation.image, maps[item.column], colour), colour)
                both = "both classes" if item.shared else "this class only"
                put_caption(ax, f"{short_label(item.label)}: {item.contribution:+.2f}\n{both}")
    return figure, grid
