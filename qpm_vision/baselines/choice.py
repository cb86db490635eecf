"""What a method decides before fine-tuning, and the best assignment of classes to features that are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_opt import InfeasibleProblemError, InvalidInputError, solve_assignment

__all__ = ["Choice", "assign_distinct", "require_candidates"]


@dataclass(frozen=True, eq=False)
class Choice:
    """Features and the head over them.

    Attributes:
        selected: Kept features, (n_select,) int64, in the order of the columns of `weights`.
        weights: (n_classes, n_select) float64; 0 and 1 where `bias` is None.
        bias: (n_classes,) float64; None for a binary head, which has none.
    """

    selected: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | None = None


def require_candidates(candidates: npt.NDArray[np.int64], n_select: int) -> None:
    """Refuse to select more features than there are.

    Raises:
        InvalidInputError: There are fewer candidates than `n_select`.
    """
    if n_select > len(candidates):
        raise InvalidInputError(
            f"The 'n_select' parameter must be at most the {len(candidates)} candidates. Got {n_select}; lower it."
        )


def assign_distinct(
    A: npt.NDArray[np.float64], selected: npt.NDArray[np.int64], n_per_class: int, *, seed: int = 0
) -> Choice:
    """Give every class the features most similar to it, out of a given set, no two classes the same ones.

    Maximises Σ_cf A[c,f] W[c,f] exactly: with the features fixed, nothing else of the problem of QPM is left.

    Args:
        A: Class similarity, (n_classes, n_features).
        selected: The features, (n_select,) positions.
        n_per_class: Features of each class.
        seed: Of the solver.

    Raises:
        InfeasibleProblemError: There are fewer sets of `n_per_class` features than classes.

    Example:
        >>> assign_distinct(np.array([[0.9, 0.1, 0.4], [0.8, 0.7, 0.5]]), np.array([0, 2]), 1).weights
        array([[1., 0.],
               [0., 1.]])
    """
    kept = np.sort(np.asarray(selected, dtype=np.int64))
    result = solve_assignment(
        A[:, kept],
        n_select=len(kept),
        n_per_class=n_per_class,
        required_features=range(len(kept)),
        seed=seed,
        time_limit=None,
    )
    if result.solution is None:
        raise InfeasibleProblemError(
            f"The 'selected' parameter must allow a different set of features for each of the {len(A)} classes. Got "
            f"{len(kept)} features of which each class takes {n_per_class}; select more."
        )
    return Choice(kept, result.weights.astype(np.float64))
