"""An explanation as a piece of HTML for notebooks: text that can be read and copied, and small pictures inside it."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from qpm_vision.explain.colours import feature_colours
from qpm_vision.explain.heatmaps import overlay

if TYPE_CHECKING:
    from qpm_vision.predict import Contribution, Explanation

__all__ = ["explanation_html", "inline_image"]

_SIDE = 96
"""Pixels of a picture, which is shown as large as this whatever the size of the model's input."""

_BAR = 90


def explanation_html(explanation: Explanation) -> str:
    """The class and the runner-up, and for every feature of both where it is and what it adds.

    Args:
        explanation: Of an image.

    Returns:
        HTML without scripts that refers to nothing outside of itself; names are escaped.
    """
    first, second = explanation.class_name, explanation.runner_up
    shown = (*explanation.features, *explanation.instead)
    maps = {item.column: heat for item, heat in zip(shown, explanation.heat_maps, strict=True)}
    colours = dict(zip(maps, feature_colours([[1] * len(maps)]), strict=True))
    widest = max((abs(item.contribution) for item in shown), default=1.0) or 1.0
    figures = []
    for item in shown:
        owner = "both classes" if item.shared else f"only {second if item in explanation.instead else first}"
        picture = overlay(explanation.image, maps[item.column], colours[item.column])
        figures.append(_feature(item, owner, picture, colours[item.column], widest))
    logit, other = (explanation.logits[index] for index in (explanation.class_index, explanation.runner_up_index))
    heading = (
        f"<b>{escape(first)}</b>, score {explanation.score:.1%}, logit {logit:.2f}; runner-up <b>{escape(second)}</b>, "
        f"score {explanation.scores[explanation.runner_up_index]:.1%}, logit {other:.2f}"
    )
    whole = f'<img src="{inline_image(explanation.image)}" width="{_SIDE}" height="{_SIDE}" alt="the image">'
    return (
        '<div style="font-family: sans-serif; font-size: 13px">'
        f'<div style="margin-bottom: 6px">{escape(explanation.image_name)}: {heading}</div>'
        '<div style="display: flex; flex-wrap: wrap; gap: 10px">'
        f"<div>{whole}</div>{''.join(figures)}</div></div>"
    )


def inline_image(picture: npt.NDArray[np.float32]) -> str:
    """A picture (H, W, 3) in [0, 1] as a data URL of a few kilobytes, its longer side at most 192 pixels."""
    image = Image.fromarray(np.rint(255 * picture).astype(np.uint8))
    image.thumbnail((2 * _SIDE, 2 * _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _feature(item: Contribution, owner: str, picture: npt.NDArray[np.float32], colour: str, widest: float) -> str:
    length = round(_BAR * abs(item.contribution) / widest)
    # A bar that takes away is hollow: not told by its colour alone.
    fill = colour if item.contribution >= 0 else "transparent"
    return (
        f'<div style="width: {_SIDE + 6}px; font-size: 11px; overflow-wrap: anywhere">'
        f'<img src="{inline_image(picture)}" width="{_SIDE}" height="{_SIDE}" alt="where {escape(item.label)} is" '
        f'style="border: 3px solid {colour}; display: block">'
        f'<div style="margin: 3px 0; width: {length}px; height: 5px; background: {fill}; border: 1px solid {colour}">'
        f"</div>{escape(item.label)}: <b>{item.contribution:+.2f}</b><br>{escape(owner)}</div>"
    )
