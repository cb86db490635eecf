"""Prices for uniqueness never cut off a solution, and charge for collisions."""

from __future__ import annotations

import numpy as np
import pytest

from qpm_opt import AssignmentProblem
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.uniqueness import price_collisions, priced_cuts
from qpm_opt.search_space import SearchSpace

from .problems import indicator, sets_of, small_space


def _alike(seed: int, pairs: list[tuple[int, int, int]]) -> SearchSpace:
    """Classes that all like the same features."""
    rng = np.random.default_rng(seed)
    A = np.sort(rng.random(8))[::-1] + 0.05 * rng.random((6, 8))
    return SearchSpace.of(AssignmentProblem(A, n_select=5, n_per_class=2, contrastive_pairs=pairs))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pairs", [[], [(0, 1, 1), (2, 4, 1)]])
def test_every_cut_holds_for_every_set(seed: int, pairs: list[tuple[int, int, int]]) -> None:
    space = _alike(seed, pairs) if seed % 2 else small_space(seed)
    classes = ClassValues.of(space.values, space.budgets)
    sets = sets_of(space)
    gained = []
    for other in sets:
        _, weights = space.exact(other)
        if weights is not None:
            own = (space.problem.scale * space.problem.class_similarity[:, space.features[other]] * weights).sum(1)
            gained.append((indicator(space, other), own))
    for chosen in sets[:: max(1, len(sets) // 3)]:
        x = indicator(space, chosen)
        for cut in priced_cuts(space, price_collisions(space, classes, x), x):
            for other, own in gained:
                assert own[cut.classes].sum() <= cut.at(other) + 1e-6


def _bound_at(space: SearchSpace, classes: ClassValues, x: np.ndarray) -> float:
    """What the class values and the priced cuts promise at x."""
    plain = classes.at(x, classes.thresholds(x))
    bound, done = 0.0, np.zeros(len(plain), dtype=bool)
    for cut in priced_cuts(space, price_collisions(space, classes, x), x):
        bound += cut.constant + float(cut.slopes @ x[cut.features])
        done[cut.classes] = True
    return bound + float(plain[~done].sum())


def test_two_classes_that_collide_are_charged_in_full() -> None:
    collided = exactly = 0
    for seed in range(30):
        A = np.random.default_rng(seed).random((4, 8))
        A[1] = A[0] + 0.01 * A[1]
        space = SearchSpace.of(AssignmentProblem(A, n_select=5, n_per_class=2))
        classes = ClassValues.of(space.values, space.budgets)
        for chosen in sets_of(space)[::9]:
            x = indicator(space, chosen)
            exact, _ = space.exact(chosen)
            if classes.at(x, classes.thresholds(x)).sum() > exact + 1e-6:
                bound = _bound_at(space, classes, x)
                assert bound >= exact - 1e-6
                collided += 1
                exactly += bound <= exact + 1e-6
    assert collided > 20
    assert exactly >= 0.9 * collided  # the rest collides with a third class, by halves


@pytest.mark.parametrize("pairs", [[], [(0, 1, 1), (2, 4, 1)]])
def test_many_collisions_are_charged_in_part(pairs: list[tuple[int, int, int]]) -> None:
    for seed in range(10):
        space = _alike(seed, pairs)
        classes = ClassValues.of(space.values, space.budgets)
        chosen = sets_of(space)[0]
        x = indicator(space, chosen)
        exact, _ = space.exact(chosen)
        plain = float(classes.at(x, classes.thresholds(x)).sum())
        assert exact - 1e-6 <= _bound_at(space, classes, x) < plain - 0.25 * (plain - exact)
