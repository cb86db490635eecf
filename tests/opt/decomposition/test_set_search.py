"""Where searches for a better set begin."""

from __future__ import annotations

import numpy as np
import pytest

from qpm_opt import AssignmentProblem
from qpm_opt.backends.decomposition.set_search import SetSearch
from qpm_opt.search_space import SearchSpace


def test_half_of_the_guided_searches_begin_near_the_best_set(monkeypatch: pytest.MonkeyPatch) -> None:
    similarity = np.random.default_rng(0).random((6, 40))
    space = SearchSpace.of(AssignmentProblem(similarity, n_select=8, n_per_class=2, required_features=[5]))
    sets = SetSearch(space, np.random.default_rng(1), lambda: True, lambda _found, _message: None)
    sets.take_guide(np.arange(40), np.zeros(40), np.zeros(40), core=5)  # it knows nothing of any feature
    assert sets.best is not None
    begun: list[np.ndarray] = []
    monkeypatch.setattr(sets, "_climb_and_search", lambda chosen, core: begun.append(core[chosen]))
    for _ in range(200):
        sets.search_core()
    assert all(5 in chosen for chosen in begun)
    near = [len(np.intersect1d(chosen, sets.best.chosen)) > 5 for chosen in begun]
    assert 0.35 < np.mean(near) < 0.65
