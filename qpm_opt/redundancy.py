"""From the similarity of features to penalties for keeping two that look alike.

The method (Norrenbrock et al., ICLR 2025) penalises only pairs whose similarity reaches a threshold ε, and takes the
lowest ε that leaves `n_select` features free of penalties. The decision behind it, whether a graph has a clique of
that size, is NP-hard; the search here is a heuristic that returns its witness, and proves itself optimal where the
graph is small.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import csr_array

from qpm_opt._clique import find_dispersed_set
from qpm_opt._read_only import ReadOnlyArrays, ReadOnlyMatrix, freeze
from qpm_opt._validation import (
    float_array,
    labels_of,
    nearest,
    positive_number,
    require_same_labels,
    whole_number,
)
from qpm_opt.errors import InvalidInputError

__all__ = [
    "Penalties",
    "ThresholdResult",
    "checked_similarity",
    "penalties_from_similarity",
    "redundancy_threshold",
    "share_threshold",
    "turan_threshold",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

SYMMETRY_TOLERANCE = 1e-8
"""Largest difference between the two entries of a pair, relative to the largest absolute entry."""

_TURAN = "turan"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False, eq=False)
class Penalties(ReadOnlyArrays):
    """Penalties of pairs of features, ready to be the ``redundancy`` of a problem.

    ``np.asarray(penalties)`` gives the dense matrix.

    Attributes:
        matrix: r, (n_features, n_features) float64, sparse, symmetric, zero diagonal, entries in [0, 1]. A pair
            counts once, whichever of its two entries is read.
        threshold: ε: the pairs whose similarity is positive and at least this are the penalised ones.
        clique: Features whose pairs all stay below ε, (n_select,) int64, sorted; None if ε came without a search.
        n_penalised: Number of unordered pairs at or above ε. The least similar pair of all has penalty 0 even there,
            and then counts here though `matrix` has no entry for it.
        share: `n_penalised` as a share of all unordered pairs, in [0, 1].
        proven: Whether it is proven that no lower threshold leaves `n_select` features free of penalties.
        labels: Names of the features where `similarity` was a frame that has them, else None.
    """

    matrix: csr_array
    threshold: float
    clique: IntArray | None
    n_penalised: int
    share: float
    proven: bool = False
    labels: tuple[str | int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix, (n_features, n_features)."""
        rows, columns = self.matrix.shape
        return int(rows), int(columns)

    def toarray(self) -> FloatArray:
        """Return the dense matrix, (n_features, n_features) float64."""
        return np.asarray(self.matrix.toarray(), dtype=np.float64)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a dense copy of the penalties cannot be avoided; leave 'copy' at None, or use .matrix")
        dense = self.toarray()
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def __repr__(self) -> str:
        found = "no clique searched" if self.clique is None else f"clique of {len(self.clique)}"
        if self.proven:
            found += ", proven lowest"
        return (
            f"Penalties(n_features={self.shape[0]}, threshold={self.threshold:.6g}, "
            f"n_penalised={self.n_penalised} ({self.share:.1%} of all pairs), {found})"
        )


class ThresholdResult(NamedTuple):
    """A threshold and why it is one; unpacks as ``threshold, clique, proven``.

    Attributes:
        threshold: ε, the least number above the similarity of every pair of `clique`.
        clique: Features whose pairs all stay below ε, (n_select,) int64, sorted.
        proven: Whether it is proven that every lower threshold leaves fewer than n_select such features.
    """

    threshold: float
    clique: IntArray
    proven: bool


def penalties_from_similarity(
    similarity: ArrayLike,
    *,
    n_select: int = 50,
    threshold: float | str | None = None,
    seed: int = 0,
) -> Penalties:
    """Turn the similarity of features into pair penalties.

    Negative similarities and the diagonal count as 0. With R the rest and R_min, R_max its smallest and largest
    positive entries, the pairs with R ≥ ε, R > 0 get r = (R − R_min) / (R_max − R_min), so the most similar pair gets
    1. R_min is taken over all pairs, not over the penalised ones. Where all positive similarities are equal the
    formula is 0/0: such pairs get 1.

    Args:
        similarity: R, (n_features, n_features), symmetric, finite: an array, a frame, a CPU tensor, a sparse matrix
            or nested lists.
        n_select: Number of features to be kept; not used where `threshold` is a number.
        threshold: ε as a number that is not negative; None (default) to search the lowest that leaves `n_select`
            features free of penalties; "turan" for the quantile of Turán's theorem, about 1 pair in n_select − 1,
            without a search.
        seed: Of the search; equal seeds give equal results.

    Returns:
        The penalties, and what is known about the threshold.

    Raises:
        InvalidInputError: If `similarity` is not a finite symmetric matrix, `threshold` is none of the above, or
            `n_select` is no integer between 1 and the number of features that are not dead (see
            `redundancy_threshold`).

    Example:
        >>> similarity = [[1.0, 0.9, 0.1], [0.9, 1.0, 0.5], [0.1, 0.5, 1.0]]
        >>> penalties = penalties_from_similarity(similarity, n_select=2)
        >>> penalties
        Penalties(n_features=3, threshold=0.1, n_penalised=2 (66.7% of all pairs), clique of 2, proven lowest)
        >>> penalties.clique
        array([0, 2])
        >>> np.asarray(penalties).round(3)
        array([[0. , 1. , 0. ],
               [1. , 0. , 0.5],
               [0. , 0.5, 0. ]])
    """
    values = checked_similarity(similarity)
    clique: IntArray | None = None
    proven = False
    if threshold is None:
        epsilon, clique, proven = _search(values, n_select, seed)
    elif isinstance(threshold, str):
        if threshold != _TURAN:
            raise InvalidInputError(
                f"The 'threshold' parameter must be None (search), {_TURAN!r} or a number. "
                f"Got {threshold!r}.{nearest(threshold, [_TURAN])}"
            )
        epsilon = _turan(values, n_select)
    else:
        epsilon = _checked_threshold(threshold)
    found = _penalise(_clipped(values), epsilon, clique, proven)
    return replace(found, labels=labels_of(similarity, "index"))


def redundancy_threshold(similarity: ArrayLike, n_select: int = 50, *, seed: int = 0) -> ThresholdResult:
    """Find the lowest threshold that the similarities of some `n_select` features all stay below.

    The clique found is a witness that the threshold is feasible. That none lower is feasible is proven where `proven`
    says so (small matrices, and where the threshold cannot be lower because no pair of the clique is positively
    similar); elsewhere the threshold is the best of a search of fixed effort, some 2 to 3 s on one core at 2,048
    features.

    A feature whose row is all 0, its similarity to itself included, is dead: it cannot be selected and is never in the
    clique. Where the whole diagonal is 0 it says nothing, and a row of zeros is taken for that of a dead feature.

    Args:
        similarity: R, as for `penalties_from_similarity`.
        n_select: Size of the clique, between 1 and the number of features that are not dead.
        seed: Of the search; equal seeds give equal results.

    Returns:
        Threshold, clique, and whether the threshold is proven to be the lowest. The threshold is the next
        floating-point number above the largest similarity within the clique; if that is 0 it is the smallest normal
        number, so that every positive pair reaches it.

    Raises:
        InvalidInputError: If an argument is not as described; also if too few features are alive.

    Example:
        >>> threshold, clique, proven = redundancy_threshold([[1, 0.9, 0.2], [0.9, 1, 0.5], [0.2, 0.5, 1]], 2)
        >>> round(threshold, 6), clique.tolist(), proven
        (0.2, [0, 2], True)
    """
    return _search(checked_similarity(similarity), n_select, seed)


def turan_threshold(similarity: ArrayLike, n_select: int = 50) -> float:
    """Return the threshold of Turán's theorem: the quantile (n_select − 2)/(n_select − 1) of all n_features² entries.

    A graph with more than a share (k − 2)/(k − 1) of all n² ordered pairs has a clique of k vertices; about that
    share of the pairs lies below this threshold. Negative entries and the diagonal count as 0, dead features are not
    left out.

    Args:
        similarity: R, as for `penalties_from_similarity`.
        n_select: Number of features to be kept, between 1 and n_features; 1 and 2 give the quantile 0.

    Returns:
        The threshold, linearly interpolated between entries, not negative.

    Raises:
        InvalidInputError: If an argument is not as described.

    Example:
        >>> turan_threshold([[1, 0.9, 0.2], [0.9, 1, 0.5], [0.2, 0.5, 1]], 3)
        0.2
    """
    return _turan(checked_similarity(similarity), n_select)


def share_threshold(similarity: ArrayLike, share: float) -> float:
    """Return the threshold that penalises about a given share of all pairs.

    Args:
        similarity: R, as for `penalties_from_similarity`.
        share: Share of the unordered pairs, between 0 and 1. Negative entries count as 0.

    Raises:
        InvalidInputError: If an argument is not as described.

    Example:
        >>> share_threshold([[1, 0.9, 0.2], [0.9, 1, 0.5], [0.2, 0.5, 1]], 0.5)
        0.5
    """
    if not 0.0 <= share <= 1.0:
        raise InvalidInputError(f"The 'share' parameter must be between 0 and 1. Got {share!r}.")
    values = checked_similarity(similarity)
    return float(np.quantile(_clipped(values)[np.triu_indices(len(values), 1)], 1.0 - share))


def checked_similarity(similarity: ArrayLike) -> FloatArray:
    """Return a float64 copy, exactly symmetric: of two entries that differ by rounding the larger counts for both.

    Raises:
        InvalidInputError: It is no finite symmetric matrix, or its rows and columns have different labels.
    """
    values = float_array("similarity", similarity, 2)
    if values.shape[0] != values.shape[1] or values.size == 0:
        raise InvalidInputError(
            "The 'similarity' parameter must be a square matrix, (n_features, n_features), of at least one feature. "
            f"Got shape {values.shape}; compute it between features, not between classes or images."
        )
    difference = float(np.abs(values - values.T).max())
    if difference > SYMMETRY_TOLERANCE * float(np.abs(values).max()):
        _raise_asymmetric(values, difference)
    require_same_labels("similarity", labels_of(similarity, "columns"), labels_of(similarity, "index"), "its rows")
    return np.maximum(values, values.T)


def _search(values: FloatArray, n_select: object, seed: object) -> ThresholdResult:
    n = len(values)
    k = _checked_count(n_select, n)
    live = _live_features(values)
    if k > len(live):
        raise InvalidInputError(
            f"The 'n_select' parameter asks for {k} features, but {n - len(live)} of the {n} in 'similarity' are dead "
            f"(their rows are 0), which leaves {len(live)}. Lower n_select to at most {len(live)}, "
            "or pass a number as 'threshold'."
        )
    found = find_dispersed_set(_clipped(values[np.ix_(live, live)]), k, seed=whole_number("seed", seed, least=0))
    # The next float rather than the next entry: it is the lowest threshold that the clique allows, and penalises the
    # same pairs.
    epsilon = float(np.nextafter(found.largest, np.inf)) if found.largest > 0 else float(np.finfo(np.float64).tiny)
    clique = live[found.members]
    clique.setflags(write=False)
    _logger.debug("threshold %.6g leaves %d of %d features free of penalties", epsilon, k, n)
    return ThresholdResult(epsilon, clique, found.proven)


def _turan(values: FloatArray, n_select: object) -> float:
    k = _checked_count(n_select, len(values))
    quantile = (k - 2) / (k - 1) if k > 2 else 0.0
    return float(np.quantile(_clipped(values), quantile))


def _penalise(values: FloatArray, epsilon: float, clique: IntArray | None, proven: bool) -> Penalties:
    """Apply r = (R − R_min) / (R_max − R_min) to the pairs that reach ε; `values` is clipped, its diagonal 0."""
    n = len(values)
    positive = values > 0
    penalised = positive & (values >= epsilon)
    matrix = np.zeros_like(values)
    if penalised.any():
        low = float(values.min(where=positive, initial=np.inf))
        span = float(values.max()) - low
        matrix[penalised] = (values[penalised] - low) / span if span > 0 else 1.0
    sparse = ReadOnlyMatrix(matrix)
    freeze(sparse)
    n_penalised = int(np.count_nonzero(penalised)) // 2
    n_pairs = n * (n - 1) // 2
    return Penalties(
        matrix=sparse,
        threshold=epsilon,
        clique=clique,
        n_penalised=n_penalised,
        share=n_penalised / n_pairs if n_pairs else 0.0,
        proven=proven,
    )


def _clipped(values: FloatArray) -> FloatArray:
    """Return a copy in which negative entries and the diagonal are 0."""
    clipped = np.maximum(values, 0.0)
    np.fill_diagonal(clipped, 0.0)
    return clipped


def _live_features(values: FloatArray) -> IntArray:
    """Return the features whose rows are not all 0; a lone feature has nothing to be judged by."""
    if len(values) == 1:
        return np.zeros(1, dtype=np.int64)
    return np.flatnonzero(values.any(axis=1)).astype(np.int64)


def _raise_asymmetric(values: FloatArray, difference: float) -> None:
    below = np.tril(values, -1)
    above = np.triu(values, 1)
    if not below.any() or not above.any():
        which = "lower" if below.any() else "upper"
        raise InvalidInputError(
            f"The 'similarity' parameter must be symmetric. Got a matrix with entries in its {which} triangle alone; "
            "pass R + R.T instead of R (the diagonal does not count)."
        )
    row, column = (int(i) for i in np.unravel_index(np.abs(values - values.T).argmax(), values.shape))
    raise InvalidInputError(
        f"The 'similarity' parameter must be symmetric. Got entries ({row}, {column}) and ({column}, {row}), which "
        f"differ by {difference:.3g}; pass (R + R.T) / 2 if that is meant."
    )


def _checked_count(n_select: object, n_features: int) -> int:
    count = whole_number("n_select", n_select, least=1)
    if count > n_features:
        raise InvalidInputError(
            f"The 'n_select' parameter must be at most the number of features in 'similarity', {n_features}. "
            f"Got {count}; pass the number of features that will be kept."
        )
    return count


def _checked_threshold(threshold: object) -> float:
    if isinstance(threshold, (bool, np.bool_)):
        raise InvalidInputError(
            f"The 'threshold' parameter must be None (search), 'turan' or a number. Got the boolean {threshold}."
        )
    return positive_number("threshold", threshold, zero_allowed=True)
