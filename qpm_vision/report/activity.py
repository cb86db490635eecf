"""How a feature behaves over many images: its histogram, how well it separates its classes, what goes with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qpm_vision.report.contents import Histogram

__all__ = ["correlations", "histogram", "separation"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_BARS = 24
_TAILS = 0.002
"""Share of the images at each end that may lie beyond the outer bars, and are counted in them."""


def histogram(values: FloatArray, own: BoolArray) -> Histogram:
    """How strong a feature is in the images of its classes and in all others.

    Args:
        values: (n,) activations, in standard deviations above the mean.
        own: (n,) whether an image belongs to a class that the feature describes.
    """
    low, high = (float(edge) for edge in np.quantile(values, [_TAILS, 1 - _TAILS]))
    if not high > low:
        low, high = low - 0.5, low + 0.5
    inside = np.clip(values, low, high)
    shares = [np.histogram(inside[some], _BARS, (low, high))[0] / max(1, int(some.sum())) for some in (own, ~own)]
    return Histogram(low, high, shares[0].tolist(), shares[1].tolist())


def separation(values: FloatArray, own: BoolArray) -> float | None:
    """Probability that an image of its classes has more of a feature than one of the others, ties counting half.

    This is the area under the ROC curve (Hanley and McNeil, 1982). None where all or no images are of its classes.

    Args:
        values: (n,) activations.
        own: (n,) whether an image belongs to a class that the feature describes.
    """
    from scipy.stats import rankdata

    n_own, n_others = int(own.sum()), int((~own).sum())
    if not n_own or not n_others:
        return None
    ranks = float(rankdata(values)[own].sum())
    return (ranks - n_own * (n_own + 1) / 2) / (n_own * n_others)


def correlations(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Pearson correlation between features, (n_select, n_select); 0 for those that never vary, and on the diagonal.

    Args:
        values: (n, n_select) activations.
    """
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    norms = np.linalg.norm(centred, axis=0)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    matrix = np.asarray(unit.T @ unit, dtype=np.float64)
    np.fill_diagonal(matrix, 0.0)
    return matrix
