"""Which classes are taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["Confusion", "confused_pairs", "confusions", "most_confused"]

Confusion = tuple[int, int, int]
"""A class, the class that it was taken for, and how many images."""


def confusions(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> list[Confusion]:
    """Images that were taken for another class, the most frequent mistake first.

    Args:
        labels: (n,) classes of images.
        predicted: (n,) classes that they were taken for.

    Example:
        >>> confusions([0, 0, 1, 1, 1], [0, 1, 0, 0, 1])
        [(1, 0, 2), (0, 1, 1)]
    """
    pairs = zip(np.asarray(labels).tolist(), np.asarray(predicted).tolist(), strict=True)
    counts = Counter((actual, said) for actual, said in pairs if actual != said)
    return [(*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def confused_pairs(mistakes: Iterable[Confusion]) -> Counter[tuple[int, int]]:
    """How often two classes were taken for each other, in both directions, by (smaller, larger) position."""
    together: Counter[tuple[int, int]] = Counter()
    for actual, predicted, count in mistakes:
        together[min(actual, predicted), max(actual, predicted)] += count
    return together


def most_confused(mistakes: Iterable[Confusion], n_classes: int, number: int | None) -> npt.NDArray[np.int64]:
    """The classes that are taken for others, or others for them, most often; ascending.

    Args:
        mistakes: What `confusions` found.
        n_classes: Number of classes.
        number: How many to take; None for all. Among classes with as many mistakes the first ones are taken.
    """
    counts = np.zeros(n_classes, dtype=np.int64)
    for actual, predicted, count in mistakes:
        counts[[actual, predicted]] += count
    return np.sort(np.argsort(-counts, kind="stable")[:number]).astype(np.int64)
