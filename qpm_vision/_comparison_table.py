"""Comparisons as tables: means and standard deviations over seeds, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["COLUMNS", "MEASURES", "comparison_markdown", "comparison_table"]

Row = dict[str, Any]
"""A method, a seed, a budget and what was measured."""


class _Measure(NamedTuple):
    key: str
    title: str
    percent: bool
    digits: int
    meaning: str


MEASURES = (
    _Measure("accuracy_test", "accuracy, test (%)", True, 1, "after fine-tuning, over all images"),
    _Measure("macro_accuracy_test", "macro accuracy, test (%)", True, 1, "after fine-tuning, mean over classes"),
    _Measure("accuracy_before", "accuracy before tuning (%)", True, 1, "on all test images, before fine-tuning"),
    _Measure("accuracy_train", "accuracy, training (%)", True, 1, "un-augmented, over all images"),
    _Measure(
        "epochs_to_level",
        "epochs to dense − 1 point",
        False,
        0,
        "first epoch of fine-tuning (0: before it) at which the accuracy on the test images, or on 1,000 of them, is "
        "at most a point below that of the dense model; – where a seed never gets there",
    ),
    _Measure("spatial_diversity", "spatial diversity (%)", True, 1, "SID@5"),
    _Measure("class_independence", "class independence (%)", True, 1, "of the features, on training images"),
    _Measure("contrastiveness", "contrastiveness (%)", True, 1, "of the features, on training images"),
    _Measure("correlation", "correlation (%)", True, 1, "of the features, on training images; lower is better"),
    _Measure(
        "structural_grounding",
        "structural grounding (%)",
        True,
        1,
        "over the 50 pairs of classes known to be most alike; with the signs of the weights",
    ),
    _Measure(
        "relation_correlation",
        "correlation with known classes",
        False,
        3,
        "Pearson, over all pairs of classes, of the cosine of their weights with what is known about them",
    ),
    _Measure(
        "features_with_part",
        "features that stand for a part",
        False,
        0,
        "their classes share it more often than chance explains",
    ),
    _Measure(
        "pointing",
        "pointing accuracy (%)",
        True,
        1,
        "how often such a feature is strongest within the part, on test images, each feature counting once",
    ),
    _Measure(
        "pointing_other_image",
        "  with the boxes of other images (%)",
        True,
        1,
        "the same with the place that such a part has in another image: what always the same place would get",
    ),
    _Measure("kept_redundancy", "redundancy of kept features", False, 3, "mean of max(R, 0) over their pairs"),
    _Measure(
        "pairs_one_feature_apart",
        "class pairs one feature apart",
        False,
        0,
        "differ, and each class has at most one feature that the other lacks (with its sign)",
    ),
    _Measure("pairs_alike", "class pairs not told apart", False, 0, "the same features with the same signs"),
    _Measure("objective", "objective of QPM", False, 2, "Z_A + Z_R + Z_B; signs stand for real weights"),
    _Measure("objective_similarity", "  similarity Z_A", False, 2, "Σ A·W, scaled"),
    _Measure("objective_redundancy", "  redundancy Z_R", False, 2, "minus the penalties of the kept features"),
    _Measure("objective_bias", "  bias Z_B", False, 2, "of the kept features"),
    _Measure("features", "features in use", False, 0, "with a weight other than 0"),
    _Measure("features_per_class", "features per class", False, 1, "on average"),
    _Measure("seconds_choice", "seconds, choice", False, 0, "of features and head, before fine-tuning"),
    _Measure("seconds_training", "seconds, training", False, 0, "fine-tuning; of the dense model, its training"),
)
"""What is told about each method, in the order of the tables."""

COLUMNS = ("method", "seed", "n_select", "n_per_class", *(measure.key for measure in MEASURES))
"""Columns of the tidy table."""


def comparison_table(rows: Sequence[Row]) -> str:
    """A plain table for each budget: a line for each measure, a column for each method, mean ± standard deviation.

    The deviation is that of a sample, over seeds; it is left out where a method ran once. Measures that no method has
    are left out.

    Args:
        rows: As `compare_run` returns them.
    """
    parts = []
    for title, cells in _tables(rows):
        first = max(len(line[0]) for line in cells)
        widths = [max(len(line[place]) for line in cells) for place in range(1, len(cells[0]))]
        lines = [title] if title else []
        for name, *values in cells:
            padded = "  ".join(value.rjust(width) for value, width in zip(values, widths, strict=True))
            lines.append(f"{name.ljust(first)}  {padded}".rstrip())
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def comparison_markdown(rows: Sequence[Row]) -> str:
    """The same as Markdown, with what the measures mean."""
    parts = ["# Comparison", "Mean ± standard deviation over seeds; all methods start from one dense model."]
    for title, cells in _tables(rows):
        lines = [f"| {' | '.join(cells[0])} |", f"| --- |{' ---: |' * (len(cells[0]) - 1)}"]
        lines += [f"| {' | '.join(cell.strip() for cell in line)} |" for line in cells[1:]]
        parts += [f"## {title}"] if title else []
        parts.append("\n".join(lines))
    shown = [measure for measure in MEASURES if any(row.get(measure.key) is not None for row in rows)]
    parts.append("\n".join(f"- {measure.title.strip()}: {measure.meaning}" for measure in shown))
    return "\n\n".join(parts) + "\n"


def _tables(rows: Sequence[Row]) -> list[tuple[str, list[list[str]]]]:
    """Title and cells of the table of each budget; what has no budget, the dense model, is in each of them."""
    shared = [row for row in rows if row["n_select"] is None]
    budgets = list(dict.fromkeys((row["n_select"], row["n_per_class"]) for row in rows if row not in shared))
    if not budgets:
        return [("", _cells(shared))]
    return [
        (
            f"{n_select} features, {n_per_class} per class",
            _cells(
                [*shared, *(row for row in rows if (row["n_select"], row["n_per_class"]) == (n_select, n_per_class))]
            ),
        )
        for n_select, n_per_class in budgets
    ]


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    of = {method: [row for row in rows if row["method"] == method] for method in methods}
    cells = [["", *methods], ["seeds", *(str(len(of[method])) for method in methods)]]
    cells += [
        [measure.title, *(_summary(measure, of[method]) for method in methods)]
        for measure in MEASURES
        if any(row.get(measure.key) is not None for row in rows)
    ]
    return cells


def _summary(measure: _Measure, rows: Sequence[Row]) -> str:
    values = [row.get(measure.key) for row in rows]
    present = np.array([value for value in values if value is not None], dtype=np.float64)
    # A mean over the seeds that have a value would be that of the better ones.
    if len(present) < len(values) or not len(present):
        return "–"
    present *= 100 if measure.percent else 1
    digits = measure.digits
    if not measure.percent and not (present % 1).any():
        digits = 0
    if len(present) > 1 and np.ptp(present):  # the mean of whole numbers is none
        digits = max(measure.digits, 1)
    mean = f"{present.mean():,.{digits}f}"
    return mean if len(present) < 2 else f"{mean} ± {present.std(ddof=1):,.{digits}f}"
