"""What somebody should look at first: where the model errs, and where its features say little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_vision.report.confusion import Confusion, confused_pairs
from qpm_vision.report.costs import Swap
from qpm_vision.report.kinship import difference

__all__ = ["Finding", "find"]

_OF_A_KIND = 3
"""Findings of one kind: the page has all the others, sorted."""
_WEAK = 0.9
"""Share of right test images below which a class is weak."""
_LEAST_TESTED = 5
"""Test images of a class from which that share says something."""
_SEPARATES = 0.9
"""A feature below this says too little about whether an image belongs to its classes."""
_TWINS = 0.8
"""Two features whose activations correlate more than this say much the same."""
_NOTICEABLE = 1e-9
"""Share of the objective below which a gain is rounding."""


@dataclass(frozen=True)
class Finding:
    """One thing that is worth a look.

    Attributes:
        kind: "confused": two classes that are taken for each other, with the features that tell them apart and the
            number of test images. "weak class": one with many mistakes, with its share of right test images. "weak
            feature": one whose classes have hardly more of it than others, with its
            separation. "twins": two features with much the same activations, with their correlation. "idle": a
            feature that describes no class. "gain": a class that would raise the objective with another feature (the
            first instead of the second), with the cost, which is negative.
        classes: Positions of classes.
        features: Columns.
        value: The number that goes with it.
    """

    kind: str
    classes: list[int]
    features: list[int]
    value: float


def find(
    weights: npt.ArrayLike,
    mistakes: Sequence[Confusion],
    tested: Sequence[tuple[int, int]],
    separation: Sequence[float | None],
    correlation: npt.NDArray[np.float64],
    swaps: Sequence[Sequence[Swap]],
    objective: float,
) -> list[Finding]:
    """What is worth a look, at most a few of each kind, the worst first.

    Args:
        weights: W, (n_classes, n_select) of 0/1.
        mistakes: Which classes were taken for which.
        tested: Right and all test images of each class.
        separation: Of each feature, None where there is none.
        correlation: (n_select, n_select) of the activations.
        swaps: Of each class.
        objective: Of the assignment.
    """
    matrix = np.asarray(weights) > 0
    found: list[Finding] = []
    for (first, second), count in sorted(confused_pairs(mistakes).items(), key=lambda item: (-item[1], item[0]))[
        :_OF_A_KIND
    ]:
        apart = difference(matrix, first, second)
        found.append(Finding("confused", [first, second], [*apart.own, *apart.other], float(count)))
    poor = [
        (right / count, index)
        for index, (right, count) in enumerate(tested)
        if count >= _LEAST_TESTED and right < _WEAK * count
    ]
    found += [Finding("weak class", [index], [], share) for share, index in sorted(poor)[:_OF_A_KIND]]
    weak = [(value, column) for column, value in enumerate(separation) if value is not None and value < _SEPARATES]
    found += [Finding("weak feature", [], [column], value) for value, column in sorted(weak)[:_OF_A_KIND]]
    rows, columns = np.nonzero(np.triu(correlation > _TWINS, k=1))
    twins = sorted((-float(correlation[i, j]), int(i), int(j)) for i, j in zip(rows, columns, strict=True))
    found += [Finding("twins", [], [i, j], -value) for value, i, j in twins[:_OF_A_KIND]]
    idle = np.flatnonzero(~matrix.any(axis=0)).tolist()
    found += [Finding("idle", [], [column], 0.0) for column in idle[:_OF_A_KIND]]
    gains = [(swap.cost, index, swap) for index, own in enumerate(swaps) for swap in own[:1]]
    gains = [gain for gain in gains if gain[0] < -_NOTICEABLE * abs(objective)]
    found += [
        Finding("gain", [index], [swap.feature, swap.instead_of], cost)
        for cost, index, swap in sorted(gains, key=lambda gain: gain[:2])[:_OF_A_KIND]
    ]
    return found
