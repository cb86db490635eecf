"""Pictures that show what describes a class, and what tells two classes apart.

Drawing functions take an optional figure and return (figure, axes). They never touch matplotlib's global state.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError
from qpm_vision.explain.colours import feature_colours
from qpm_vision.explain.explainer import Explainer
from qpm_vision.explain.fonts import drawable, font_families
from qpm_vision.explain.heatmaps import overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from qpm_vision.predict import Explanation

__all__ = ["draw_class", "draw_comparison", "draw_decision", "draw_overview"]

AxesGrid = npt.NDArray[Any]

_CELL = 1.25
"""Inches of an image."""
_LABEL = 2.1
"""Inches of the column of labels."""
_HEAD, _FOOT = 0.92, 0.5
"""Inches above and below the grid."""
_OWN_IMAGES = 3
_OTHER_CLASSES = 3
_OVERVIEW_CLASSES = 6
_INK, _PALE = "#222222", "#777777"


def draw_class(explainer: Explainer, name: str | int, fig: Figure | None = None) -> tuple[Figure, AxesGrid]:
    """Draw the features of one class: a row each, on the class's best images and in other classes that share it.

    Args:
        explainer: Of the model.
        name: Name or position of the class.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, (1 + features, 1 + images), None where there is none.
    """
    index = explainer.class_index(name)
    columns = explainer.features_of(index)
    colours = feature_colours(explainer.weights[[index]])
    own = explainer.best_images(index, _OWN_IMAGES)
    figure, grid = _grid(fig, 1 + len(columns), [_CELL] * len(own), [_CELL] * _OTHER_CLASSES)
    _title(
        figure,
        f"What describes class {_name(explainer, index)}: {len(columns)} features",
        "Each row is a feature: on the best images of the class, and where it occurs in other classes.",
    )
    _text(grid[0, 0], "best images\nof the class", _PALE, size=8.5)
    for place, position in enumerate(own):
        _image(grid[0, 1 + place], explainer.view(position).image)
    first_other = 1 + len(own)
    for place in range(_OTHER_CLASSES):
        grid[0, first_other + place].set_axis_off()
    _text(grid[0, first_other], "the same feature\nin other classes", _PALE, size=8.5, bottom=True)
    for row, column in enumerate(columns, start=1):
        others = [other for other in explainer.classes_with(column) if other != index]
        _feature_label(grid[row, 0], explainer.feature_label(column), colours[column], _shared_text(explainer, others))
        for place, position in enumerate(own):
            _image(grid[row, 1 + place], explainer.heat(position, column, colours[column]), colours[column])
        shown = _most_active(explainer, others, column)
        for place in range(_OTHER_CLASSES):
            ax = grid[row, first_other + place]
            if place < len(shown):
                other, position = shown[place]
                _image(ax, explainer.heat(position, column, colours[column]), colours[column])
                _caption(ax, _name(explainer, other))
            else:
                ax.set_axis_off()
    _note(figure, explainer)
    return figure, grid


def draw_comparison(
    explainer: Explainer, first: str | int, second: str | int, fig: Figure | None = None
) -> tuple[Figure, AxesGrid]:
    """Draw what two classes share and what tells them apart: a row for each feature, the best images of both classes.

    Args:
        explainer: Of the model.
        first: Name or position of a class.
        second: Name or position of another class.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, (1 + features, 1 + images).
    """
    a, b = explainer.class_index(first), explainer.class_index(second)
    if a == b:
        raise InvalidInputError(
            f"The two classes must differ to be compared. Got {explainer.class_names[a]!r} twice; "
            "for one class there is a picture of its own."
        )
    of_a, of_b = explainer.features_of(a), explainer.features_of(b)
    name_a, name_b = _name(explainer, a), _name(explainer, b)
    rows = [(column, "both classes") for column in of_a if column in of_b]
    rows += [(column, f"only class {name_a}") for column in of_a if column not in of_b]
    rows += [(column, f"only class {name_b}") for column in of_b if column not in of_a]
    colours = feature_colours([explainer.weights[a] | explainer.weights[b]])
    images = {index: explainer.best_images(index, _OWN_IMAGES) for index in (a, b)}
    figure, grid = _grid(fig, 1 + len(rows), [_CELL] * len(images[a]), [_CELL] * len(images[b]))
    shared = sum(where == "both classes" for _, where in rows)
    _title(
        figure,
        f"Class {name_a} or {name_b}?  They share {shared} feature{'' if shared == 1 else 's'}; "
        f"{len(rows) - shared} tell them apart",
        "Each row is a feature on the best images of both classes. A coloured frame: the feature describes the class.",
    )
    _text(grid[0, 0], "best images of\neach class", _PALE, size=8.5)
    place = 1
    for index in (a, b):
        for number, position in enumerate(images[index]):
            ax = grid[0, place]
            _image(ax, explainer.view(position).image)
            if number == (len(images[index]) - 1) // 2:
                ax.set_title(_name(explainer, index), fontsize=11, fontfamily=_fonts(_name(explainer, index)), pad=4)
            for row, (column, _) in enumerate(rows, start=1):
                has = bool(explainer.weights[index, column])
                _image(
                    grid[row, place],
                    explainer.heat(position, column, colours[column]),
                    colours[column] if has else None,
                )
            place += 1
    for row, (column, where) in enumerate(rows, start=1):
        _feature_label(
            grid[row, 0],
            explainer.feature_label(column),
            colours[column],
            "\n".join(textwrap.wrap(where, 26, max_lines=3)),
        )
    _note(figure, explainer)
    return figure, grid


def draw_overview(
    explainer: Explainer, names: Sequence[str | int] | None = None, fig: Figure | None = None
) -> tuple[Figure, AxesGrid]:
    """Draw several classes, a row each: an image, and every feature of the class on it.

    Args:
        explainer: Of the model.
        names: Names or positions of the classes; by default a few that share features with each other.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, (classes, 1 + images).
    """
    chosen = _kindred(explainer) if names is None else [explainer.class_index(name) for name in names]
    if not chosen:
        raise InvalidInputError("The 'names' parameter must hold at least one class. Got none.")
    colours = feature_colours(explainer.weights[chosen])
    widest = max(len(explainer.features_of(index)) for index in chosen)
    labels = ["\n".join(textwrap.wrap(_name(explainer, index), 14, max_lines=4)) for index in chosen]
    label = 0.9 if max(map(len, labels)) <= 6 else 1.6
    figure, grid = _grid(fig, len(chosen), [_CELL], [_CELL] * widest, label=label, gap_below=0.36)
    n_classes = len(explainer.weights)
    used = explainer.weights.sum(axis=0)
    few = "" if len(chosen) == n_classes else f" ({len(chosen)} classes shown)"
    _title(
        figure,
        f"{n_classes} classes, described by {(used > 0).sum()} features, {(used > 1).sum()} of them shared{few}",
        "Each row is a class: its best image, and where on it each of its features is. "
        "A feature has the same number and colour in every row.",
    )
    for row, index in enumerate(chosen):
        _text(grid[row, 0], labels[row], _INK, size=12)
        position = next(iter(explainer.best_images(index, 1)), None)
        columns = explainer.features_of(index)
        for place in range(1 + widest):
            ax = grid[row, 1 + place]
            if position is None or place > len(columns):
                ax.set_axis_off()
            elif place == 0:
                _image(ax, explainer.view(position).image)
            else:
                column = columns[place - 1]
                _image(ax, explainer.heat(position, column, colours[column]), colours[column])
                others = [other for other in explainer.classes_with(column) if other != index]
                _caption(ax, f"{_short(explainer.feature_label(column))}\n{_also_text(explainer, others)}")
    _note(figure, explainer)
    return figure, grid


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
    figure, grid = _grid(fig, len(rows), [_CELL], [_CELL] * widest, label=1.6, gap_below=0.36)
    first, second = (drawable(explanation.class_names[index]) for index, _ in rows)
    _title(
        figure,
        f"Why {first} and not {second}?",
        "Each row is a class, and every feature that describes it: where on the image it is, and what it adds to the "
        "logit of the class, in standard deviations above its mean. A feature has the same colour in both rows.",
    )
    for row, (index, items) in enumerate(rows):
        name = "\n".join(textwrap.wrap(drawable(explanation.class_names[index]), 18, max_lines=4))
        figures = f"score {explanation.scores[index]:.1%}\nlogit {explanation.logits[index]:.2f}"
        _text(grid[row, 0], f"{name}\n{figures}", _INK, size=9)
        for place in range(1 + widest):
            ax = grid[row, 1 + place]
            if place > len(items):
                ax.set_axis_off()
            elif place == 0:
                _image(ax, explanation.image)
            else:
                item = items[place - 1]
                colour = colours[item.column]
                _image(ax, overlay(explanation.image, maps[item.column], colour), colour)
                both = "both classes" if item.shared else "this class only"
                _caption(ax, f"{_short(item.label)}: {item.contribution:+.2f}\n{both}")
    _note(figure, explanation)
    return figure, grid


# -- what to show --------------------------------------------------------------------------------------------------


def _most_active(explainer: Explainer, classes: Sequence[int], column: int) -> list[tuple[int, int]]:
    """(class, best image) for the first few classes that have one."""
    found = [(other, position) for other in classes for position in explainer.best_images(other, 1, column)]
    return found[:_OTHER_CLASSES]


def _kindred(explainer: Explainer) -> list[int]:
    """A few classes, each sharing as many features as possible with those before it."""
    shared = explainer.weights.astype(np.int64) @ explainer.weights.T.astype(np.int64)
    np.fill_diagonal(shared, 0)
    chosen = [int(shared.max(axis=1).argmax())]
    while len(chosen) < min(_OVERVIEW_CLASSES, len(shared)):
        links = shared[chosen].max(axis=0)
        links[chosen] = -1
        chosen.append(int(links.argmax()))
    return sorted(chosen)


def _shared_text(explainer: Explainer, others: Sequence[int]) -> str:
    if not others:
        return "in no other class"
    names = ", ".join(_name(explainer, other) for other in others)
    text = f"also in {len(others)} class{'' if len(others) == 1 else 'es'}: {names}"
    return "\n".join(textwrap.wrap(text, 26, max_lines=3, placeholder=" …"))


def _also_text(explainer: Explainer, others: Sequence[int]) -> str:
    if not others:
        return "in no other class"
    names = ", ".join(_name(explainer, other) for other in others)
    if len(names) <= 16:
        return f"also in {names}"
    shown = textwrap.shorten(names, 22, placeholder=" …")
    return f"also in {len(others)} class{'' if len(others) == 1 else 'es'}:\n{shown}"


def _short(label: str) -> str:
    """What has room under an image."""
    return textwrap.shorten(drawable(label), 22, placeholder=" …")


def _name(explainer: Explainer, index: int) -> str:
    return drawable(explainer.class_names[index])


# -- how to draw ---------------------------------------------------------------------------------------------------


def _grid(
    fig: Figure | None,
    rows: int,
    left: Sequence[float],
    right: Sequence[float],
    *,
    label: float = _LABEL,
    gap_below: float = 0.16,
) -> tuple[Figure, AxesGrid]:
    """Axes for a column of labels and two blocks of images with a gap between them; all sizes in inches."""
    from matplotlib.figure import Figure

    gap = 0.3
    width = label + sum(left) + gap + sum(right) + 0.15
    pitch = _CELL + gap_below
    height = _HEAD + rows * pitch + _FOOT
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white") if fig is None else fig
    starts = [0.0]
    sizes = [label, *left, *right]
    for place, size in enumerate(sizes[:-1]):
        starts.append(starts[-1] + size + (gap if place == len(left) else 0.0))
    axes = np.empty((rows, len(sizes)), dtype=object)
    margin = 0.04
    for row in range(rows):
        bottom = height - _HEAD - (row + 1) * pitch + gap_below
        for place, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            box = (
                (start + margin) / width,
                (bottom + margin) / height,
                (size - 2 * margin) / width,
                (_CELL - 2 * margin) / height,
            )
            ax = figure.add_axes(box)
            ax.set_xticks([])
            ax.set_yticks([])
            axes[row, place] = ax
    return figure, axes


def _fonts(text: str) -> list[str]:
    return font_families(text)


def _title(figure: Figure, text: str, below: str) -> None:
    width, height = _inches(figure)
    left = 0.12 / width
    lines = textwrap.wrap(text, max(24, int(width * 8.5)), max_lines=2)
    figure.text(
        left,
        1 - 0.1 / height,
        "\n".join(lines),
        va="top",
        fontsize=13,
        fontweight="bold",
        color=_INK,
        fontfamily=_fonts(text),
    )
    wrapped = "\n".join(textwrap.wrap(below, max(40, int(width * 15))))
    figure.text(left, 1 - (0.36 + 0.22 * (len(lines) - 1)) / height, wrapped, va="top", fontsize=8.5, color=_PALE)


def _note(figure: Figure, model: Explainer | Explanation) -> None:
    text = (
        "Colour shows where a feature is active and how strongly. Full colour: the highest activations that it has in "
        f"the {model.n_images:,} training images (99 % quantile of its maxima). No colour: not active."
    )
    width, height = _inches(figure)
    wrapped = "\n".join(textwrap.wrap(text, max(40, int(width * 16))))
    figure.text(0.12 / width, 0.1 / height, wrapped, va="bottom", fontsize=8, color=_PALE)


def _inches(figure: Figure) -> tuple[float, float]:
    """Width and height, also of a subfigure."""
    box = figure.bbox.transformed(figure.dpi_scale_trans.inverted())
    return float(box.width), float(box.height)


def _image(ax: Axes, picture: npt.NDArray[np.float32], frame: str | None = None) -> None:
    ax.imshow(picture, interpolation="bilinear", vmin=0, vmax=1)
    for spine in ax.spines.values():
        spine.set_visible(frame is not None)
        if frame is not None:
            spine.set_color(frame)
            spine.set_linewidth(2.5)


def _caption(ax: Axes, text: str) -> None:
    ax.set_xlabel(text, fontsize=7, color=_INK, labelpad=2, fontfamily=_fonts(text))


def _text(ax: Axes, text: str, colour: str, *, size: float, bottom: bool = False) -> None:
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
        fontfamily=_fonts(text),
    )


def _feature_label(ax: Axes, label: str, colour: str, below: str) -> None:
    from matplotlib.patches import Rectangle

    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.add_patch(Rectangle((0.06, 0.6), 0.07, 0.12, facecolor=colour, edgecolor="none"))
    name = textwrap.shorten(drawable(label), 24, placeholder=" …")
    ax.text(0.17, 0.66, name, va="center", fontsize=10, color=_INK, fontweight="bold", fontfamily=_fonts(name))
    ax.text(0.17, 0.54, below, va="top", fontsize=8, color=_PALE, fontfamily=_fonts(below), linespacing=1.25)
