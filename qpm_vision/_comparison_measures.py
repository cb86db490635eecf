"""Figures that tell ways of choosing features apart, beside those of merit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qpm_opt import AssignmentProblem
from qpm_vision.faithfulness import Pointing

__all__ = [
    "class_cosines",
    "class_pairs",
    "epochs_to",
    "features_lacking",
    "head_measures",
    "kept_redundancy",
    "pointing_measures",
    "relation_correlation",
]

FloatArray = npt.NDArray[np.float64]


def class_cosines(weights: FloatArray) -> FloatArray:
    """Cosine between the rows of (n_classes, n_features) signed weights; 0 for rows of zeros."""
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    rows = np.divide(weights, norms, out=np.zeros_like(weights), where=norms > 0)
    return np.asarray(rows @ rows.T, dtype=np.float64)


def relation_correlation(weights: FloatArray, relation: FloatArray | None) -> float | None:
    """Pearson correlation, over all pairs of classes, of `class_cosines` with what is known about the classes.

    None where nothing is known, or where one of both is the same for all pairs.
    """
    if relation is None:
        return None
    pairs = np.triu_indices(len(weights), k=1)
    ours, known = class_cosines(weights)[pairs], np.asarray(relation, dtype=np.float64)[pairs]
    if len(ours) < 2 or np.ptp(ours) == 0 or np.ptp(known) == 0:
        return None
    return float(np.corrcoef(ours, known)[0, 1])


def kept_redundancy(R: FloatArray, selected: npt.NDArray[np.int64]) -> float | None:
    """Mean of max(R, 0) over the pairs of kept features; None for a single feature."""
    if len(selected) < 2:
        return None
    kept = np.maximum(R[np.ix_(selected, selected)], 0.0)
    return float(kept[np.triu_indices(len(selected), k=1)].mean())


def features_lacking(weights: FloatArray) -> FloatArray:
    """How many features of one class the other one lacks, or the other way round where that is more.

    Args:
        weights: (n_classes, n_features) of 0/1.

    Returns:
        (n_classes, n_classes).
    """
    sizes = weights.sum(axis=1)
    lacking: FloatArray = np.maximum(sizes[:, None], sizes[None, :]) - weights @ weights.T
    return lacking


def class_pairs(weights: FloatArray) -> tuple[int, int]:
    """Pairs of classes that one feature tells apart, and pairs that none does.

    The features of a class count with the signs of their weights. One feature tells two classes apart where they
    differ, and each has at most one feature that the other lacks; with the same number of features they then share all
    but one.
    """
    signed = np.concatenate((weights > 0, weights < 0), axis=1).astype(np.float64)
    lacking = features_lacking(signed)[np.triu_indices(len(weights), k=1)]
    return int((lacking == 1).sum()), int((lacking == 0).sum())


def head_measures(
    problem: AssignmentProblem,
    R: FloatArray,
    relation: FloatArray | None,
    selected: npt.NDArray[np.int64],
    W: FloatArray,
) -> dict[str, Any]:
    """Figures of a head of few features.

    Args:
        problem: The problem of QPM for the budget, with all its terms.
        R: Redundancy, (n_features, n_features).
        relation: (n_classes, n_classes) or None.
        selected: (n_select,) kept features.
        W: (n_classes, n_select); in the objective the signs of real weights stand for them.
    """
    terms = problem.terms(selected, np.sign(W))
    apart, alike = class_pairs(W)
    return {
        "relation_correlation": relation_correlation(W, relation),
        "kept_redundancy": kept_redundancy(R, selected),
        "pairs_one_feature_apart": apart,
        "pairs_alike": alike,
        "objective": terms.total,
        "objective_similarity": terms.similarity,
        "objective_redundancy": terms.redundancy,
        "objective_bias": terms.bias,
    }


def epochs_to(level: float, history: Sequence[dict[str, Any]]) -> int | None:
    """The first epoch whose "accuracy_probe" is at least `level`; None where none is."""
    return next((int(row["epoch"]) for row in history if row["accuracy_probe"] >= level), None)


def pointing_measures(pointing: Pointing) -> dict[str, Any]:
    """Whether features are where the parts are that they stand for, each feature counting once.

    What the boxes of other images get is the share that features would get that are always at the same place.
    """
    seen = [feature for feature in pointing.features if feature.hit is not None and feature.other_image is not None]
    return {
        "features_with_part": len(pointing.features),
        "pointing": float(np.mean([feature.hit for feature in seen])) if seen else None,
        "pointing_other_image": float(np.mean([feature.other_image for feature in seen])) if seen else None,
    }
