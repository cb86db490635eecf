"""Which part of its classes a feature stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError

__all__ = ["LEVEL", "Meaning", "find_meanings"]

LEVEL = 0.01
"""The probability, over all features together, that one is said to stand for a part by chance."""


@dataclass(frozen=True)
class Meaning:
    """A part that a feature stands for.

    Attributes:
        column: The feature, as a column of W.
        kind: Kind of the part, such as "vowel".
        value: The part, such as "ㅗ".
        n_classes: Classes that the feature describes.
        n_sharing: Those of them that have the part.
        n_with_part: Classes that have the part.
        p_value: The probability that as many or more would share it if as many classes were drawn at random.
    """

    column: int
    kind: str
    value: str
    n_classes: int
    n_sharing: int
    n_with_part: int
    p_value: float


def find_meanings(weights: npt.ArrayLike, values: Mapping[str, Sequence[str]]) -> list[Meaning]:
    """The parts that features stand for.

    A feature stands for the part that its classes share most significantly, by Fisher's one-sided (hypergeometric) test
    on the classes that it describes and those that have the part, if that is significant at `LEVEL` after Holm's
    correction for all features and all parts together.

    Args:
        weights: W, (n_classes, n_select) of 0/1.
        values: For each kind of part what each class has there.

    Returns:
        At most one meaning for each feature, in the order of the columns.

    Raises:
        InvalidInputError: There is not one value for each class.

    Example:
        >>> weights = [[1, 0]] * 10 + [[0, 1]] * 10
        >>> [(found.column, found.value) for found in find_meanings(weights, {"tail": ["long"] * 10 + ["short"] * 10})]
        [(0, 'long'), (1, 'short')]
    """
    from scipy.stats import hypergeom

    matrix = np.asarray(weights) > 0
    for kind, texts in values.items():
        if len(texts) != len(matrix):
            raise InvalidInputError(
                f"The 'values' parameter must hold a text for each of the {len(matrix)} classes. Got {len(texts)} for "
                f"{kind!r}."
            )
    parts = [(kind, value) for kind, texts in values.items() for value in sorted(set(texts))]
    has = np.array([[text == value for text in values[kind]] for kind, value in parts])
    sharing = has.astype(np.int64) @ matrix
    sizes, owners = matrix.sum(axis=0), has.sum(axis=1)
    p_values = hypergeom.sf(sharing - 1, len(matrix), owners[:, None], sizes[None, :])
    significant = _holm(p_values.ravel()).reshape(p_values.shape)
    found = []
    for column in range(matrix.shape[1]):
        best = int(p_values[:, column].argmin())
        if significant[best, column]:
            found.append(
                Meaning(
                    column,
                    *parts[best],
                    n_classes=int(sizes[column]),
                    n_sharing=int(sharing[best, column]),
                    n_with_part=int(owners[best]),
                    p_value=float(p_values[best, column]),
                )
            )
    return found


def _holm(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which of several tests are significant together."""
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= LEVEL / (len(p_values) - np.arange(len(p_values)))
    first_failure = len(passed) if passed.all() else int(passed.argmin())
    significant = np.zeros(len(p_values), dtype=bool)
    significant[order[:first_failure]] = True
    return significant
