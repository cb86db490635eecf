"""Greedy top-k selection: by class similarity alone, without redundancy and without bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qpm_vision.baselines.choice import Choice, assign_distinct, require_candidates

__all__ = ["choose_greedily", "greedy_features"]


def greedy_features(
    A: npt.NDArray[np.float64], candidates: npt.NDArray[np.int64], n_select: int, n_per_class: int
) -> npt.NDArray[np.int64]:
    """Add the feature that most raises g(S) = Σ_c (sum of the n_per_class largest max(A[c,f], 0) over f ∈ S).

    Negative similarities count as 0, because over classes of equal size the similarities of a feature sum to 0: without
    that the first features would be chosen by rounding. So g is monotone and submodular, and the greedy value is at
    least 1 − 1/e of the best one (Nemhauser, Wolsey and Fisher, 1978). Among equal gains the larger Σ_c max(A[c,f], 0)
    counts, then the lower position.

    Args:
        A: Class similarity, (n_classes, n_features).
        candidates: Positions to choose from.
        n_select: How many to choose.
        n_per_class: Features of each class.

    Returns:
        (n_select,) positions in the order in which they were added.

    Raises:
        InvalidInputError: There are fewer candidates than `n_select`.

    Example:
        >>> A = np.array([[0.9, 0.8, 0.0], [0.0, 0.1, 0.5]])
        >>> greedy_features(A, np.arange(3), n_select=2, n_per_class=1).tolist()
        [0, 2]
    """
    require_candidates(candidates, n_select)
    positive = np.maximum(A[:, candidates], 0.0)
    totals = positive.sum(axis=0)
    best = np.zeros((len(A), n_per_class))  # the largest values of each class so far, ascending
    open_ = np.ones(len(candidates), dtype=bool)
    chosen = []
    for _ in range(n_select):
        gains = np.maximum(positive - best[:, :1], 0.0).sum(axis=0)
        gains[~open_] = -np.inf
        pick = int(np.lexsort((-totals, -gains))[0])
        open_[pick] = False
        chosen.append(int(candidates[pick]))
        best[:, 0] = np.maximum(best[:, 0], positive[:, pick])
        best.sort(axis=1)
    return np.array(chosen, dtype=np.int64)


def choose_greedily(
    A: npt.NDArray[np.float64], candidates: npt.NDArray[np.int64], n_select: int, n_per_class: int, *, seed: int = 0
) -> Choice:
    """Features by `greedy_features`, then the best assignment of distinct classes to them.

    Args:
        A: Class similarity, (n_classes, n_features).
        candidates: Positions to choose from.
        n_select: How many to choose.
        n_per_class: Features of each class.
        seed: Of the solver that assigns.

    Raises:
        InvalidInputError: There are fewer candidates than `n_select`.
        InfeasibleProblemError: There are fewer sets of `n_per_class` features than classes.
    """
    return assign_distinct(A, greedy_features(A, candidates, n_select, n_per_class), n_per_class, seed=seed)
