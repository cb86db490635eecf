"""Which images a report shows: few enough to be looked at, and those that say most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_vision.explain.gallery import best_first
from qpm_vision.report.sight import Sight

__all__ = ["Amounts", "Selection", "amounts", "select_images"]

IntArray = npt.NDArray[np.int64]

_PER_CLASS_FOR_A_FEATURE = 2
"""Images of one class among the best of a feature: all from one class would hide what its classes have in common."""
_SAME_MISTAKE = 3
"""Images that were taken for the same wrong class; more of them show nothing new."""


@dataclass(frozen=True)
class Amounts:
    """How many images are shown, and how large.

    Attributes:
        of_class: Best images of a class.
        of_feature: Best images of a feature.
        wrong: Wrongly predicted ones.
        close: Rightly predicted ones with a close runner-up.
        side: Pixels of a thumbnail.
    """

    of_class: int
    of_feature: int
    wrong: int
    close: int
    side: int


def amounts(n_classes: int) -> Amounts:
    """Amounts that keep a report of that many pictured classes well below 60 MB."""
    if n_classes <= 100:
        return Amounts(of_class=6, of_feature=8, wrong=60, close=40, side=160)
    if n_classes <= 400:
        return Amounts(of_class=6, of_feature=8, wrong=150, close=100, side=128)
    return Amounts(of_class=4, of_feature=8, wrong=300, close=150, side=112)


@dataclass(frozen=True)
class Selection:
    """Rows of a `Sight` to show.

    Attributes:
        of_class: The best images of each class, empty for a class without pictures.
        of_feature: The best images of each feature.
        wrong: Wrongly predicted images, the surest mistake first.
        close: Rightly predicted images, that with the closest runner-up first.
    """

    of_class: list[list[int]]
    of_feature: list[list[int]]
    wrong: list[int]
    close: list[int]

    def rows(self) -> list[int]:
        """All of them, each once, ascending."""
        groups = [*self.of_class, *self.of_feature, self.wrong, self.close]
        return sorted({row for group in groups for row in group})


def select_images(sight: Sight, pictured: IntArray, wanted: Amounts) -> Selection:
    """Choose the images to show.

    Args:
        sight: What the model says about the images there are.
        pictured: Classes that are shown with pictures.
        wanted: How many.
    """
    n_classes = int(max(sight.labels.max(), sight.predicted.max(), *pictured)) + 1
    shown = np.zeros(n_classes, dtype=bool)
    shown[pictured] = True
    of_class: list[list[int]] = []
    for index in range(n_classes):
        members = np.flatnonzero(sight.labels == index) if shown[index] else np.array([], dtype=np.int64)
        order = best_first(sight.right[members], sight.own_logit[members])[: wanted.of_class]
        of_class.append(members[order].tolist())
    candidates = np.flatnonzero(shown[sight.labels])
    of_feature = []
    for values in sight.contributions.T:
        order = candidates[np.argsort(-values[candidates], kind="stable")]
        labels = ((row, int(sight.labels[row])) for row in order.tolist())
        of_feature.append(_at_most(labels, _PER_CLASS_FOR_A_FEATURE, wanted.of_feature))
    wrong = candidates[~sight.right[candidates]]
    wrong = wrong[np.argsort(-sight.score[wrong], kind="stable")]
    mistakes = ((row, (int(sight.labels[row]), int(sight.predicted[row]))) for row in wrong.tolist())
    close = candidates[sight.right[candidates]]
    close = close[np.argsort(sight.lead[close], kind="stable")]
    calls = ((row, (int(sight.labels[row]), int(sight.runner_up[row]))) for row in close.tolist())
    return Selection(
        of_class,
        of_feature,
        _at_most(mistakes, _SAME_MISTAKE, wanted.wrong),
        _at_most(calls, _SAME_MISTAKE, wanted.close),
    )


def _at_most(rows: Iterable[tuple[int, object]], of_a_kind: int, number: int) -> list[int]:
    """The first `number` rows, at most `of_a_kind` of each kind."""
    seen: Counter[object] = Counter()
    chosen: list[int] = []
    for row, kind in rows:
        if len(chosen) == number:
            break
        if seen[kind] < of_a_kind:
            seen[kind] += 1
            chosen.append(row)
    return chosen
