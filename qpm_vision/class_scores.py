"""Scores of each class, and averages that say whether they are over images or over classes; all from one matrix."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qpm_vision.run_folder import RunFolder, RunFolderError

__all__ = [
    "CONFIDENCE",
    "ClassScore",
    "ClassScores",
    "Interval",
    "by_class",
    "class_table",
    "count_confusions",
    "read_confusion",
    "wilson",
    "write_confusion",
]

CONFIDENCE = 0.95
"""Of all intervals."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassScore:
    """What became of the images of one class; None where nothing defines it.

    Attributes:
        name: The class.
        images: Images of it (its support).
        right: Those that were classified correctly.
        predicted: Images that were taken for it.
        recall: right / images.
        recall_low: Lower end of the Wilson interval of the recall, at 95 %.
        recall_high: Its upper end.
        precision: right / predicted.
        f1: Harmonic mean of precision and recall; 0 where the class has images, none of which was found.
    """

    name: str
    images: int
    right: int
    predicted: int
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    precision: float | None
    f1: float | None

    def to_dict(self) -> dict[str, Any]:
        """By name, for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Images by their class and the class that they were taken for.

    Attributes:
        confusion: (n_classes, n_classes) int64, a row for each class, a column for each class that images of it were
            taken for.

    Example:
        >>> scores = ClassScores(np.array([[8, 0], [1, 1]]))
        >>> scores.accuracy, scores.macro_accuracy
        (0.9, 0.75)
    """

    confusion: npt.NDArray[np.int64]

    @property
    def images(self) -> npt.NDArray[np.int64]:
        """(n_classes,) images of each class."""
        images: npt.NDArray[np.int64] = self.confusion.sum(axis=1)
        return images

    @property
    def right(self) -> npt.NDArray[np.int64]:
        """(n_classes,) those that were classified correctly."""
        right: npt.NDArray[np.int64] = self.confusion.diagonal()
        return right

    @property
    def accuracy(self) -> float:
        """Over all images: the share that was classified correctly."""
        return int(self.right.sum()) / int(self.images.sum())

    @property
    def macro_accuracy(self) -> float:
        """Mean over the classes that have images of the share of each that was classified correctly (balanced)."""
        there = self.images > 0
        return float(np.mean(self.right[there] / self.images[there]))

    @property
    def accuracy_interval(self) -> Interval:
        """Wilson's, at 95 %."""
        return wilson(int(self.right.sum()), int(self.images.sum()))

    @cached_property
    def macro_accuracy_interval(self) -> Interval:
        """At 95 %, from the Wilson intervals of the classes, whose distances add up as squares.

        For images drawn class by class (stratified). Unlike a normal approximation, and unlike a bootstrap, it does not
        shrink to a point where every image of a few was right (MOVER; Zou & Donner, Statistics in Medicine 2008).
        """
        shares, below, above = [], [], []
        for right, count in zip(self.right.tolist(), self.images.tolist(), strict=True):
            if count:
                low, high = wilson(right, count)
                shares.append(right / count)
                below.append(right / count - low)
                above.append(high - right / count)
        mean = float(np.mean(shares))
        return (
            max(0.0, mean - math.hypot(*below) / len(shares)),
            min(1.0, mean + math.hypot(*above) / len(shares)),
        )

    def of_each(self, class_names: Sequence[str]) -> list[ClassScore]:
        """The scores of each class, in their order."""
        from sklearn.metrics import precision_recall_fscore_support

        n_classes = len(self.confusion)
        actual, said = np.indices(self.confusion.shape).reshape(2, -1)
        precision, recall, f1, _ = precision_recall_fscore_support(
            actual,
            said,
            labels=np.arange(n_classes),
            sample_weight=self.confusion.ravel(),
            average=None,
            zero_division=np.nan,
        )
        predicted = self.confusion.sum(axis=0).tolist()
        found = []
        for index, name in enumerate(class_names):
            right, count = int(self.right[index]), int(self.images[index])
            low, high = wilson(right, count) if count else (None, None)
            values = (_number(value[index]) for value in (recall, precision, f1))
            rate, exact, both = values
            found.append(
                ClassScore(name, count, right, predicted[index], rate, low, high, exact, both if count else None)
            )
        return found


def wilson(right: int, count: int) -> Interval:
    """Wilson's interval of a share, at 95 %.

    Example:
        >>> low, high = wilson(10, 10)
        >>> round(low, 3), high
        (0.722, 1.0)
    """
    # As scipy.stats.binomtest(…).proportion_ci, which computes an exact test beside it: a millisecond for each class.
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, shrink = right / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / shrink
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / shrink
    # At the ends the interval ends there, exactly.
    return (max(0.0, middle - half) if right else 0.0), (min(1.0, middle + half) if right < count else 1.0)


def count_confusions(labels: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> npt.NDArray[np.int64]:
    """(n_classes, n_classes) images by their class and the class that they were taken for.

    Args:
        labels: (n,) classes of images.
        predicted: (n,) classes that they were taken for.
        n_classes: Number of classes.
    """
    places = np.asarray(labels, dtype=np.int64) * n_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(places, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


class _Scored(Protocol):
    @property
    def by_class(self) -> ClassScores: ...


def by_class(scores: Mapping[str, _Scored], class_names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The scores of each class by the name of the model, for JSON."""
    return {name: [entry.to_dict() for entry in found.by_class.of_each(class_names)] for name, found in scores.items()}


def class_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """A plain table with a row for each class.

    Args:
        entries: What `by_class` gives for a model.
    """
    rows: list[tuple[str, ...]] = [("class", "images", "recall", "95 % interval", "precision", "F1")]
    for entry in entries:
        span = (
            "–"
            if entry["recall_low"] is None
            else f"{100 * entry['recall_low']:.0f}–{100 * entry['recall_high']:.0f} %"
        )
        rows.append(
            (
                " ".join(entry["name"].split()) or repr(entry["name"]),  # a row is one line
                f"{entry['images']:,}",
                _percent(entry["recall"]),
                span,
                *map(_percent, (entry["precision"], entry["f1"])),
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def write_confusion(folder: RunFolder, name: str, scores: ClassScores, class_names: Sequence[str]) -> None:
    """Write a table with a row for each class and a column for each class that its images were taken for."""
    rows = ([own, *counts] for own, counts in zip(class_names, scores.confusion.tolist(), strict=True))
    folder.write_csv(name, ["class \\ taken for", *class_names], rows)


def read_confusion(folder: RunFolder, name: str, n_classes: int) -> npt.NDArray[np.int64]:
    """What `write_confusion` wrote.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    place = folder.path / name
    try:
        with place.open(encoding="utf-8", newline="") as stream:
            rows = [row[1:] for row in csv.reader(stream)][1:]
        counts = np.array(rows, dtype=np.int64)
    except (OSError, ValueError, csv.Error) as error:
        raise RunFolderError(f"Cannot read {str(place)!r}: {error}. Train again with `--redo evaluation`.") from error
    if counts.shape != (n_classes, n_classes):
        raise RunFolderError(
            f"The file {str(place)!r} must have {n_classes} rows and columns of numbers. Got {counts.shape}; train "
            "again with `--redo evaluation`."
        )
    return counts


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
