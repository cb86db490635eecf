"""Small problems and their optima by enumeration, and larger ones, for the parts of the decomposition."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from benchmarks.generator import generate_problem_data
from qpm_opt import AssignmentProblem, penalties_from_similarity
from qpm_opt.search_space import SearchSpace


def small_space(seed: int, *, n_classes: int = 6, n_features: int = 9, scale: float = 1.0) -> SearchSpace:
    """A random problem with penalties, a bias, and sometimes a required feature and forbidden pairs."""
    rng = np.random.default_rng(seed)
    upper = np.triu((rng.random((n_features, n_features)) < 0.5) * rng.random((n_features, n_features)), 1)
    problem = AssignmentProblem(
        scale * rng.normal(size=(n_classes, n_features)),
        scale * 40.0 * (upper + upper.T),
        scale * 10.0 * rng.normal(size=n_features),
        n_select=4,
        n_per_class=2,
        required_features=[0] if seed % 3 == 0 else [],
        forbidden_pairs=[(1, 2)] if seed % 2 else [],
    )
    return SearchSpace.of(problem)


def sets_of(space: SearchSpace) -> list[np.ndarray]:
    """Every set of features that may be kept."""
    forced = set(np.flatnonzero(space.forced).tolist())
    sets = combinations(range(len(space.features)), space.n_select)
    return [np.array(chosen) for chosen in sets if forced <= set(chosen)]


def optimum(space: SearchSpace) -> float:
    """The best objective with uniqueness."""
    return max(space.exact(chosen)[0] for chosen in sets_of(space))


def indicator(space: SearchSpace, chosen: np.ndarray) -> np.ndarray:
    """s of a set."""
    s = np.zeros(len(space.features))
    s[chosen] = 1.0
    return s


def generated_problem(n_classes: int, n_features: int, share: float | None, **sizes: Any) -> AssignmentProblem:
    """A problem of the benchmarks' generator, with that share of the pairs penalised, None: none."""
    data = generate_problem_data(n_classes, n_features, images_per_class=8, seed=5)
    R = data.redundancy_similarity
    penalties = None
    if share is not None:
        threshold = float(np.quantile(np.clip(R, 0, None)[np.triu_indices(n_features, 1)], 1 - share))
        penalties = penalties_from_similarity(R, n_select=sizes["n_select"], threshold=threshold)
    return AssignmentProblem(data.class_similarity, penalties, data.feature_bias, **sizes)
