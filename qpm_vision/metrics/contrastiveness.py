"""Contrastiveness: whether a feature is either on or off."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.special import ndtr
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from qpm_opt import InvalidInputError
from qpm_vision._arrays import ArrayLike, FloatArray, as_numpy, as_tensor, require_finite
from qpm_vision.metrics._base import Accumulator, rows_of

__all__ = ["Contrastiveness", "contrastiveness", "mixture_overlap"]

_COLUMNS = 32


def contrastiveness(features: ArrayLike, *, seed: int = 0) -> float:
    """Contrastiveness, on training images: 1 - mean over features of the overlap that `mixture_overlap` gives.

    Args:
        features: Pooled features, shape (n_images, n_features), at least two images.
        seed: Seed of the mixtures' initialisation.

    Returns:
        Between 0 (no feature separates two states) and 1.

    Raises:
        InvalidInputError: fewer than two images, another shape, or values that are not finite.

    Example:
        >>> contrastiveness([[0.0], [0.1], [5.0], [5.1]]) > 0.99
        True
    """
    return 1.0 - float(mixture_overlap(features, seed=seed).mean())


def mixture_overlap(features: ArrayLike, *, seed: int = 0) -> FloatArray:
    """Overlap of the two normal densities of a Gaussian mixture with two components, fitted to every feature.

    The mixture is scikit-learn's GaussianMixture with its defaults; the overlap is the area under the smaller of the
    two densities, each of area 1 whatever the weight of its component. A feature that never varies has overlap 1.
    Takes about 1.2 µs per value, on one thread.

    Args:
        features: Pooled features, shape (n_images, n_features), at least two images.
        seed: Seed of the initialisation.

    Returns:
        Shape (n_features,), float64, within [0, 1].

    Raises:
        InvalidInputError: fewer than two images, no features, another shape, or values that are not finite.
    """
    rows = as_tensor("features", features, 2)
    if len(rows) < 2 or not rows.shape[1]:
        raise InvalidInputError(
            "The 'features' parameter must hold at least two images and one feature, to fit two normal densities. Got "
            f"shape {tuple(rows.shape)}; pass all training images."
        )
    require_finite("features", rows)
    with threadpool_limits(1):  # a feature is too little work to share: other threads would only wait for it, actively
        return np.array([_overlap_of(as_numpy(column), seed) for column in rows.T])


class Contrastiveness(Accumulator):
    """Contrastiveness over batches of `update(features)`.

    A mixture cannot be fitted from sums: this one keeps the values, in float32, n_images · n_features · 4 bytes.

    Args:
        seed: Seed of the mixtures' initialisation.
    """

    higher_is_better = True
    values: list[torch.Tensor]

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self._seed = seed
        self.list_state("values")

    def update(self, features: ArrayLike) -> None:
        """Add features (n_images, n_features), the same number of features every time."""
        rows = as_tensor("features", features, 2)
        columns = self.values[0].shape[-1] if len(self.values) else rows.shape[1]
        if columns != rows.shape[1]:
            raise InvalidInputError(
                f"The 'features' parameter must have {columns} columns, as before. Got shape {tuple(rows.shape)}; pass "
                "the same features in every batch."
            )
        if not bool(torch.isfinite(rows).all()):  # only then are the images before counted
            require_finite("features", rows, sum(len(part) for part in rows_of(self.values)))
        # A copy: the caller may use its buffer again.
        self.values.append(rows.to(self.device).to(torch.float32, copy=True))

    def compute(self) -> float:
        """Contrastiveness of the features seen."""
        known = rows_of(self.values) or [torch.zeros(0, 1)]
        # Some columns at a time: all of them in one piece would double the memory.
        overlaps = [
            mixture_overlap(torch.cat([part[:, begin : begin + _COLUMNS] for part in known]), seed=self._seed)
            for begin in range(0, max(1, known[0].shape[1]), _COLUMNS)
        ]
        return 1.0 - float(np.concatenate(overlaps).mean())


def _overlap_of(values: FloatArray, seed: int) -> float:
    if np.ptp(values) == 0.0:
        return 1.0
    with warnings.catch_warnings():
        # The definition takes what the default number of iterations reaches.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = GaussianMixture(n_components=2, random_state=seed).fit(values[:, None])
    means, deviations = mixture.means_.ravel(), np.sqrt(mixture.covariances_.ravel())
    narrow = int(np.argmin(deviations))
    wide = 1 - narrow
    return _normal_overlap(
        float(means[wide] - means[narrow]) / float(deviations[narrow]), float(deviations[wide] / deviations[narrow])
    )


def _normal_overlap(distance: float, ratio: float) -> float:
    """Area under the smaller of the standard normal density and one of this mean and deviation `ratio` ≥ 1.

    The densities meet where (ratio² - 1) z² + 2·distance·z - distance² - 2·ratio²·ln ratio = 0. The wide density is the
    smaller one between the two roots, the narrow one outside.
    """
    a, half_b = ratio**2 - 1.0, distance
    c = -(distance**2) - 2.0 * ratio**2 * np.log(ratio)
    if c == 0.0:  # the same density twice
        return 1.0
    # The form of the roots that neither cancels nor divides by a vanishing `a`.
    q = -(half_b + np.copysign(np.sqrt(half_b**2 - a * c), half_b))
    roots = (c / q, np.copysign(np.inf, q) if a == 0.0 else q / a)
    low, high = min(roots), max(roots)
    wide_inside = ndtr((high - distance) / ratio) - ndtr((low - distance) / ratio)
    narrow_outside = ndtr(low) + ndtr(-high)
    return float(wide_inside + narrow_outside)
