"""From a set of kept features to the best assignment with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import IntArray
from qpm_opt.contrast import contrasting_sets
from qpm_opt.distinct import distinct_sets
from qpm_opt.problem import AssignmentProblem

__all__ = ["best_weights", "is_valid_selection"]


def best_weights(problem: AssignmentProblem, selected: IntArray) -> npt.NDArray[np.bool_] | None:
    """The best W for given features, locks, uniqueness and contrastive pairs included.

    Args:
        problem: The problem.
        selected: (n_select,) positions of the kept features.

    Returns:
        (n_classes, n_select) bool with columns in the order of `selected`, or None where these features admit no
        distinct sets.
    """
    locked = None
    if len(problem.required_pairs) or len(problem.forbidden_pairs):
        locked = np.stack([problem.required_mask[:, selected], problem.forbidden_mask[:, selected]])
        if locked[0].sum() != len(problem.required_pairs):
            return None
    if len(problem.contrastive_pairs):
        return contrasting_sets(
            problem.class_similarity[:, selected],
            problem.n_per_class,
            problem.required_mask[:, selected],
            problem.forbidden_mask[:, selected],
            problem.contrastive_pairs,
        )
    return distinct_sets(problem.class_similarity[:, selected], problem.n_per_class, locked)


def is_valid_selection(problem: AssignmentProblem, selected: IntArray) -> bool:
    """Whether the features are as many as wanted, all different, all allowed, and the required ones among them."""
    return (
        len(selected) == problem.n_select
        and len(np.unique(selected)) == problem.n_select
        and bool(np.isin(selected, problem.candidates).all())
        and bool(np.isin(problem.forced_features, selected).all())
    )
