"""The true optimum of small problems by enumeration; shares no code with the package."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass
class SmallProblem:
    """Plain data of a small problem."""

    A: np.ndarray
    penalties: np.ndarray
    bias: np.ndarray
    n_select: int
    n_per_class: list[int]
    required_features: list[int] = field(default_factory=list)
    excluded_features: list[int] = field(default_factory=list)
    required_pairs: list[tuple[int, int]] = field(default_factory=list)
    forbidden_pairs: list[tuple[int, int]] = field(default_factory=list)
    contrastive_pairs: list[tuple[int, int, int]] = field(default_factory=list)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of AssignmentProblem."""
        return {
            "class_similarity": self.A,
            "redundancy": self.penalties,
            "feature_bias": self.bias,
            "n_select": self.n_select,
            "n_per_class": self.n_per_class,
            "required_features": self.required_features,
            "excluded_features": self.excluded_features,
            "required_pairs": self.required_pairs,
            "forbidden_pairs": self.forbidden_pairs,
            "contrastive_pairs": self.contrastive_pairs,
        }


def optimum(problem: SmallProblem, *, mixed_scales: bool = False) -> float | None:
    """The largest objective over all feature sets and all distinct assignments, None where there is none.

    With numbers of mixed scales all assignments are enumerated: a matching would add up numbers that are not used.
    """
    enumerated = mixed_scales or problem.contrastive_pairs
    n_features = problem.A.shape[1]
    sigma = 1000.0 / sum(problem.n_per_class)
    dead = {
        f
        for f in range(n_features)
        if not problem.A[:, f].any()
        and not problem.penalties[f].any()
        and f not in problem.required_features
        and f not in [pair[1] for pair in problem.required_pairs]
    }
    usable = [f for f in range(n_features) if f not in problem.excluded_features and f not in dead]
    best = None
    for kept in combinations(usable, problem.n_select):
        if not set(problem.required_features) <= set(kept):
            continue
        similarity = (_best_contrasting if enumerated else _best_distinct)(problem, kept)
        if similarity is None:
            continue
        value = sigma * similarity + sum(problem.bias[f] for f in kept)
        value -= sum(problem.penalties[i, j] for i, j in combinations(kept, 2))
        best = value if best is None else max(best, value)
    return best


def _best_distinct(problem: SmallProblem, kept: tuple[int, ...]) -> float | None:
    """Enumerate every set of every class and match classes to sets."""
    columns: dict[frozenset[int], int] = {}
    entries = []
    for c, budget in enumerate(problem.n_per_class):
        for chosen in combinations(kept, budget):
            if any(pair[0] == c and pair[1] not in chosen for pair in problem.required_pairs):
                continue
            if any(pair[0] == c and pair[1] in chosen for pair in problem.forbidden_pairs):
                continue
            column = columns.setdefault(frozenset(chosen), len(columns))
            entries.append((c, column, sum(problem.A[c, f] for f in chosen)))
    worth = np.full((len(problem.n_per_class), max(len(columns), 1)), -np.inf)
    for c, column, value in entries:
        worth[c, column] = value
    if worth.shape[1] < worth.shape[0]:
        return None
    try:
        rows, chosen_columns = linear_sum_assignment(worth, maximize=True)
    except ValueError:
        return None
    return float(worth[rows, chosen_columns].sum())


def _best_contrasting(problem: SmallProblem, kept: tuple[int, ...]) -> float | None:
    """Enumerate the sets of one class after the other."""
    n_classes = len(problem.n_per_class)
    choices = []
    for c, budget in enumerate(problem.n_per_class):
        own = [
            (sum(problem.A[c, f] for f in chosen), frozenset(chosen))
            for chosen in combinations(kept, budget)
            if all(pair[0] != c or pair[1] in chosen for pair in problem.required_pairs)
            and all(pair[0] != c or pair[1] not in chosen for pair in problem.forbidden_pairs)
        ]
        if not own:
            return None
        choices.append(sorted(own, key=lambda choice: -choice[0]))
    promise = [sum(own[0][0] for own in choices[c:]) for c in range(n_classes + 1)]
    best: list[float] = []

    def extend(taken: list[frozenset[int]], value: float) -> None:
        c = len(taken)
        if best and value + promise[c] <= best[0]:
            return
        if c == n_classes:
            best[:] = [value]
            return
        for gain, chosen in choices[c]:
            apart = any(
                (second == c and len(chosen & taken[first]) < least)
                for first, second, least in ([*sorted(pair[:2]), pair[2]] for pair in problem.contrastive_pairs)
                if first < c
            )
            if chosen not in taken and not apart:
                extend([*taken, chosen], value + gain)

    extend([], 0.0)
    return best[0] if best else None


def random_problem(seed: int) -> SmallProblem:
    """A small problem whose kind is drawn too: ties, negative values, dense or no penalties, uneven budgets, locks."""
    rng = np.random.default_rng(seed)
    n_features = int(rng.integers(3, 9))
    n_select = int(rng.integers(2, min(n_features, 5) + 1))
    n_classes = int(rng.integers(2, 7))
    kind = rng.choice(["real", "ties", "negative", "all equal", "wide"])
    A = {
        "real": rng.normal(size=(n_classes, n_features)),
        "ties": rng.integers(0, 3, size=(n_classes, n_features)) / 2.0,
        "negative": -rng.random((n_classes, n_features)),
        "all equal": np.full((n_classes, n_features), 0.5),
        "wide": 10.0 ** rng.uniform(-4, 1, size=(n_classes, n_features)),
    }[kind]
    share = rng.choice([0.0, 0.3, 1.0])
    upper = np.triu((rng.random((n_features, n_features)) < share) * rng.random((n_features, n_features)), 1)
    penalties = (upper + upper.T) * rng.choice([1.0, 50.0])
    bias = rng.normal(size=n_features) * rng.choice([0.0, 0.3, 20.0])
    # Most draws admit a solution: at most as many classes as there are sets, and about one in ten is left to chance.
    budgets = (
        rng.integers(1, n_select + 1, size=n_classes) if rng.random() < 0.4 else np.full(n_classes, (n_select + 1) // 2)
    )
    for budget in set(budgets.tolist()):
        same = np.flatnonzero(budgets == budget)
        spare = [k for k in range(1, n_select + 1) if (budgets == k).sum() < comb(n_select, k)]
        if len(same) > comb(n_select, budget) and spare and rng.random() < 0.9:
            budgets[same[comb(n_select, budget) :]] = spare[0]
    problem = SmallProblem(A, penalties, bias, n_select, budgets.tolist())
    if rng.random() < 0.3:
        problem.required_features = [int(rng.integers(n_features))]
    if rng.random() < 0.3:
        problem.excluded_features = [int(rng.integers(n_features))]
    if rng.random() < 0.3:
        problem.required_pairs = [(int(rng.integers(n_classes)), int(rng.integers(n_features)))]
    if rng.random() < 0.4:
        problem.forbidden_pairs = [
            (int(rng.integers(n_classes)), int(rng.integers(n_features))) for _ in range(int(rng.integers(1, 5)))
        ]
    if rng.random() < 0.25 and n_classes > 1:
        for _ in range(int(rng.integers(1, 3))):
            first, second = rng.choice(n_classes, size=2, replace=False).tolist()
            smaller, larger = sorted([problem.n_per_class[first], problem.n_per_class[second]])
            most = smaller - (smaller == larger)
            if most > 0:
                problem.contrastive_pairs.append((first, second, int(rng.integers(1, most + 1))))
    return problem


def mixed_scales_problem(seed: int) -> SmallProblem:
    """A random problem whose numbers are of very different sizes, up to 1e9 apart, at a scale from 1e-20 to 1e12."""
    rng = np.random.default_rng([seed, 1])
    problem = random_problem(seed)
    A, size = problem.A, problem.A.shape
    while A.shape[1] > 1 and rng.random() < 0.15 and not problem.contrastive_pairs:  # more with contrastive pairs
        first, second = rng.choice(size[0], size=2, replace=False).tolist()
        most = min(problem.n_per_class[first], problem.n_per_class[second])
        most -= problem.n_per_class[first] == problem.n_per_class[second]
        if most > 0:
            problem.contrastive_pairs.append((first, second, most))
    far = 10.0 ** rng.uniform(2, 9)
    for kind in rng.choice(
        ["no mixture", "never", "always", "classes", "features", "everything", "penalties", "bias", "apart", "banned"],
        size=int(rng.integers(1, 3)),
        replace=False,
    ):
        if kind == "never":  # "do not use": more or less of it, sometimes wherever one looks
            A[rng.random(size) < rng.choice([0.05, 0.2, 0.5])] = -far
        elif kind == "always":
            A[rng.random(size) < 0.1] = far
        elif kind == "classes":
            A *= 10.0 ** rng.uniform(-4.5, 4.5, size=(size[0], 1))
        elif kind == "features":
            A *= 10.0 ** rng.uniform(-4.5, 4.5, size=size[1])
        elif kind == "everything":
            A *= 10.0 ** rng.uniform(-4.5, 4.5, size=size)
        elif kind == "penalties":
            problem.penalties *= far ** rng.choice([-1.0, 1.0])
        elif kind == "bias":
            problem.bias *= far ** rng.choice([-1.0, 1.0])
        elif kind == "apart":  # "never together"
            pair = np.triu(rng.random((size[1], size[1])) < 0.2, 1)
            problem.penalties[pair | pair.T] = far
        elif kind == "banned":
            problem.bias[rng.random(size[1]) < 0.3] = -far
    scale = 10.0 ** rng.uniform(-20, 12)
    problem.A, problem.penalties, problem.bias = (part * scale for part in (A, problem.penalties, problem.bias))
    return problem
