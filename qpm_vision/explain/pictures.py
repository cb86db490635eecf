"""Pictures that show what describes classes, and what tells two of them apart.

Drawing functions take an optional figure and return (figure, axes). They never touch matplotlib's global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qpm_opt import InvalidInputError, drawable, literal_text
from qpm_vision.explain.colours import feature_colours
from qpm_vision.explain.explainer import Explainer
from qpm_vision.explain.page import (
    CELL,
    INK,
    PALE,
    AxesGrid,
    label_feature,
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

__all__ = ["draw_class", "draw_comparison", "draw_overview"]

_OWN_IMAGES = 3
_OTHER_CLASSES = 3
_OVERVIEW_CLASSES = 6


@literal_text
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
    figure, grid = new_page(
        fig,
        1 + len(columns),
        [CELL] * len(own),
        [CELL] * _OTHER_CLASSES,
        title=f"What describes class {_name(explainer, index)}: {len(columns)} features",
        subtitle="Each row is a feature: on the best images of the class, and where it occurs in other classes.",
        note=scale_note(explainer.n_images),
    )
    put_text(grid[0, 0], "best images\nof the class", PALE, size=8.5)
    for place, position in enumerate(own):
        put_image(grid[0, 1 + place], explainer.view(position).image)
    first_other = 1 + len(own)
    for place in range(_OTHER_CLASSES):
        grid[0, first_other + place].set_axis_off()
    put_text(grid[0, first_other], "the same feature\nin other classes", PALE, size=8.5, bottom=True)
    for row, column in enumerate(columns, start=1):
        others = [other for other in explainer.classes_with(column) if other != index]
        label_feature(grid[row, 0], explainer.feature_label(column), colours[column], _shared_text(explainer, others))
        for place, position in enumerate(own):
            put_image(grid[row, 1 + place], explainer.heat(position, column, colours[column]), colours[column])
        shown = _most_active(explainer, others, column)
        for place in range(_OTHER_CLASSES):
            ax = grid[row, first_other + place]
            if place < len(shown):
                other, position = shown[place]
                put_image(ax, explainer.heat(position, column, colours[column]), colours[column])
                put_caption(ax, wrapped(explainer.class_names[other], 20, 2))
            else:
                ax.set_axis_off()
    return figure, grid


@literal_text
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
    shared = sum(where == "both classes" for _, where in rows)
    figure, grid = new_page(
        fig,
        1 + len(rows),
        [CELL] * len(images[a]),
        [CELL] * len(images[b]),
        title=f"Class {name_a} or {name_b}?  They share {shared} feature{'' if shared == 1 else 's'}; "
        f"{len(rows) - shared} tell them apart",
        subtitle="Each row is a feature on the best images of both classes. A coloured frame: the feature describes "
        "the class.",
        note=scale_note(explainer.n_images),
        head=0.2,
    )
    put_text(grid[0, 0], "best images of\neach class", PALE, size=8.5)
    place = 1
    for index in (a, b):
        for number, position in enumerate(images[index]):
            ax = grid[0, place]
            put_image(ax, explainer.view(position).image)
            if number == (len(images[index]) - 1) // 2:
                ax.set_title(wrapped(explainer.class_names[index], 36, 1), fontsize=11, pad=4)
            for row, (column, _) in enumerate(rows, start=1):
                has = bool(explainer.weights[index, column])
                put_image(
                    grid[row, place],
                    explainer.heat(position, column, colours[column]),
                    colours[column] if has else None,
                )
            place += 1
    for row, (column, where) in enumerate(rows, start=1):
        label_feature(
            grid[row, 0],
            explainer.feature_label(column),
            colours[column],
            wrapped(where, 26, 3),
        )
    return figure, grid


@literal_text
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
    labels = [wrapped(explainer.class_names[index], 14, 4) for index in chosen]
    label = 0.9 if max(map(len, labels)) <= 6 else 1.6
    n_classes = len(explainer.weights)
    used = explainer.weights.sum(axis=0)
    few = "" if len(chosen) == n_classes else f" ({len(chosen)} classes shown)"
    figure, grid = new_page(
        fig,
        len(chosen),
        [CELL],
        [CELL] * widest,
        title=f"{n_classes} classes, described by {(used > 0).sum()} features, {(used > 1).sum()} of them shared{few}",
        subtitle="Each row is a class: its best image, and where on it each of its features is. A feature has the same "
        "number and colour in every row.",
        note=scale_note(explainer.n_images),
        label=label,
        gap_below=0.36,
    )
    for row, index in enumerate(chosen):
        put_text(grid[row, 0], labels[row], INK, size=12)
        position = next(iter(explainer.best_images(index, 1)), None)
        columns = explainer.features_of(index)
        for place in range(1 + widest):
            ax = grid[row, 1 + place]
            if position is None or place > len(columns):
                ax.set_axis_off()
            elif place == 0:
                put_image(ax, explainer.view(position).image)
            else:
                column = columns[place - 1]
                put_image(ax, explainer.heat(position, column, colours[column]), colours[column])
                others = [other for other in explainer.classes_with(column) if other != index]
                put_caption(ax, f"{short_label(explainer.feature_label(column))}\n{_also_text(explainer, others)}")
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
    return wrapped(text, 26, 3)


def _also_text(explainer: Explainer, others: Sequence[int]) -> str:
    if not others:
        return "in no other class"
    names = ", ".join(_name(explainer, other) for other in others)
    if len(names) <= 16:
        return f"also in {names}"
    shown = wrapped(names, 22, 1)
    return f"also in {len(others)} class{'' if len(others) == 1 else 'es'}:\n{shown}"


def _name(explainer: Explainer, index: int) -> str:
    return drawable(explainer.class_names[index])
