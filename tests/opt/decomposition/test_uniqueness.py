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


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("pairs", [[], [(0, 1, 1), (2, 4, 1)]])
def test_every_cut_holds_for_every_set(seed: int, pairs: list[tuple[int, int, int]]) -> None:
    space = _alike(seed, pairs) if seed % 2 else small_space(seed)
    classes = ClassValues.of(space.values, space.budgets)
    sets = sets_of(space)
    for chosen in sets[:: max(1, len(sets) // 6)]:
        x = indicator(space, chosen)
        for cut in priced_cuts(space, price_collisions(space, classes, x), x):
            for other in sets:
                _, weights = space.exact(other)
                if weights is None:
                    continue
                own = (space.problem.scale * space.problem.class_similarity[:, space.features[other]] * weights).sum(1)
                limit = cut.constant + cut.slopes @ indicator(space, other)[cut.features]
                assert own[cut.classes].sum() <= limit + 1e-6


@pytest.mark.parametrize("pairs", [[], [(0, 1, 1), (2, 4, 1)]])
def test_a_collision_is_charged_in_full(pairs: list[tuple[int, int, int]]) -> None:
    charged = 0
    for seed in range(10):
        space = _alike(seed, pairs)
        classes = ClassValues.of(space.values, space.budgets)
        chosen = sets_of(space)[0]
        x = indicator(space, chosen)
        exact, _ = space.exact(chosen)
        plain = classes.at(x, classes.thresholds(x))
        assert plain.sum() > exact + 1e-6
        bound, done = 0.0, np.zeros(6, dtype=bool)
        for cut in priced_cuts(space, price_collisions(space, classes, x), x):
            bound += cut.constant + float(cut.slopes @ x[cut.features])
            done[cut.classes] = True
        bound += float(plain[~done].sum())
        assert bound >= exact - 1e-6
        charged += bound <= exact + 1e-6
    assert charged >= 5  # the rest is left to the tree
