"""Random features, and the best assignment for them: what optimising the selection has to beat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qpm_vision.baselines.choice import Choice, assign_distinct, require_candidates

__all__ = ["choose_randomly"]


def choose_randomly(
    A: npt.NDArray[np.float64], candidates: npt.NDArray[np.int64], n_select: int, n_per_class: int, *, seed: int = 0
) -> Choice:
    """Draw `n_select` candidates, each set equally likely, then assign distinct classes to them at best.

    Args:
        A: Class similarity, (n_classes, n_features).
        candidates: Positions to choose from.
        n_select: How many to choose.
        n_per_class: Features of each class.
        seed: Of the draw.

    Raises:
        InvalidInputError: There are fewer candidates than `n_select`.
        InfeasibleProblemError: There are fewer sets of `n_per_class` features than classes.
    """
    require_candidates(candidates, n_select)
    drawn = np.random.default_rng(seed).choice(candidates, n_select, replace=False)
    return assign_distinct(A, drawn, n_per_class, seed=seed)
