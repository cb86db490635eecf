"""The semidefinite bound is never below the optimum, converged or not."""

from __future__ import annotations

import numpy as np
import pytest

from qpm_opt.backends.decomposition import semidefinite
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.semidefinite import SemidefiniteBound
from qpm_opt.swap_search import greedy_set

from .problems import optimum, sets_of, small_space


def _bound(seed: int, scale: float = 1.0) -> tuple[SemidefiniteBound, float, list[float]]:
    space = small_space(seed, scale=scale)
    classes = ClassValues.of(space.values, space.budgets)
    relaxed = [space.relaxed_value(chosen) for chosen in sets_of(space)]
    return SemidefiniteBound(space, classes, greedy_set(space)), optimum(space), relaxed


@pytest.mark.parametrize("seed", range(20))
def test_it_is_valid_after_any_number_of_iterations_and_gets_close(seed: int) -> None:
    iteration, best, relaxed = _bound(seed)
    for number in range(260):
        iteration.step()
        if number % 10 == 5 or number in (0, 1, 259):
            assert iteration.certificate().bound >= max(relaxed) - 1e-9
    size = max(abs(value) for value in relaxed)
    assert iteration.certificate().bound <= max(relaxed) + 0.1 * size
    assert best <= max(relaxed) + 1e-9


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_the_size_of_the_numbers_does_not_matter(scale: float) -> None:
    plain, _, _ = _bound(4)
    scaled, best, _ = _bound(4, scale)
    for _ in range(40):
        plain.step()
        scaled.step()
    assert scaled.certificate().bound >= best * (1 - 1e-12)
    assert scaled.certificate().bound == pytest.approx(scale * plain.certificate().bound, rel=1e-2)


@pytest.mark.parametrize("seed", range(6))
def test_what_it_says_of_single_features_holds(seed: int) -> None:
    space = small_space(seed)
    iteration = SemidefiniteBound(space, ClassValues.of(space.values, space.budgets), greedy_set(space))
    for _ in range(60):
        iteration.step()
    certificate = iteration.certificate()
    for chosen in sets_of(space):
        value = space.relaxed_value(chosen)
        kept = np.zeros(len(space.features), dtype=bool)
        kept[chosen] = True
        assert (certificate.including[kept] >= value - 1e-9).all()
        assert (certificate.without[~kept] >= value - 1e-9).all()


@pytest.mark.parametrize("joining", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_a_working_set_bounds_all_features(seed: int, joining: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not joining:
        monkeypatch.setattr(semidefinite, "_LEAST_CHARGE", np.inf)
    space = small_space(seed)
    values = [space.relaxed_value(chosen) for chosen in sets_of(space)]
    nothing_more = np.zeros(len(space.features), dtype=bool)
    iteration = SemidefiniteBound(
        space, ClassValues.of(space.values, space.budgets), greedy_set(space), working=nothing_more
    )
    for number in range(150):
        iteration.step()
        if number % 7 == 0:
            certificate = iteration.certificate()
            assert certificate.bound >= max(values) - 1e-9
            for chosen, value in zip(sets_of(space), values, strict=True):
                assert (certificate.including[chosen] >= value - 1e-9).all()
