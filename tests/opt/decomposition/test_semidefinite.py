"""The semidefinite bound is never below the optimum, converged or not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.instances import load_instance
from qpm_opt import AssignmentProblem, solve_assignment
from qpm_opt.backends.decomposition import semidefinite
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.semidefinite import SemidefiniteBound
from qpm_opt.search_space import SearchSpace
from qpm_opt.swap_search import greedy_set

from .problems import optimum, sets_of, small_space


def _bound(space: SearchSpace) -> SemidefiniteBound:
    return SemidefiniteBound(space, ClassValues.of(space.values, space.budgets), greedy_set(space))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_valid_after_any_number_of_iterations_and_gets_close(seed: int) -> None:
    space = small_space(seed)
    iteration, best = _bound(space), optimum(space)
    for number in range(260):
        iteration.step()
        if number % 10 == 5 or number in (0, 1, 259):
            assert iteration.certificate().bound >= best - 1e-9
    relaxed = [space.relaxed_value(chosen) for chosen in sets_of(space)]
    assert iteration.certificate().bound <= max(relaxed) + 0.1 * max(abs(value) for value in relaxed)


def test_it_charges_classes_that_look_alike_for_having_to_differ() -> None:
    charged = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        liked = rng.random((3, 9))[[0, 0, 1, 1, 2, 2]] + 0.02 * rng.random((6, 9))
        space = SearchSpace.of(AssignmentProblem(liked, n_select=5, n_per_class=2))
        iteration, best = _bound(space), optimum(space)
        bounds = []
        for number in range(200):
            iteration.step()
            if number % 20 == 19:
                bounds.append(iteration.certificate().bound)
        assert min(bounds) >= best - 1e-9
        without = max(space.relaxed_value(chosen) for chosen in sets_of(space))
        charged.append((without - min(bounds)) / (without - best))
    assert min(charged) > 0.0
    assert np.median(charged) > 0.5


def test_with_few_classes_it_settles() -> None:
    """Each class weighs much then: one whose threshold or options go to and fro moves the whole bound."""
    problem = load_instance("generated-20x200-threshold")
    best = solve_assignment(problem).objective
    iteration, bounds = _bound(SearchSpace.of(problem)), []
    for number in range(300):
        iteration.step()
        if number % 20 == 19:
            bounds.append(iteration.certificate().bound)
    assert best <= min(bounds) < 1.001 * best
    assert max(bounds[-5:]) < 1.002 * best


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_the_size_of_the_numbers_does_not_matter(scale: float) -> None:
    plain, larger = _bound(small_space(4)), small_space(4, scale=scale)
    scaled, best = _bound(larger), optimum(larger)
    for _ in range(40):
        plain.step()
        scaled.step()
    assert scaled.certificate().bound >= best * (1 - 1e-12)
    assert scaled.certificate().bound == pytest.approx(scale * plain.certificate().bound, rel=1e-2)


@pytest.mark.parametrize("seed", range(6))
def test_what_it_says_of_single_features_holds(seed: int) -> None:
    space = small_space(seed)
    iteration = _bound(space)
    for _ in range(60):
        iteration.step()
    certificate = iteration.certificate()
    for chosen in sets_of(space):
        value, _ = space.exact(chosen)
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
    values = [space.exact(chosen)[0] for chosen in sets_of(space)]
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


@pytest.mark.parametrize("seed", range(12))
def test_features_may_leave_and_be_forced_while_it_goes_on(seed: int) -> None:
    space, rng = small_space(seed, n_features=10), np.random.default_rng(seed)
    iteration = _bound(space)
    for _ in range(rng.integers(0, 160)):
        iteration.step()
    forced = space.forced.copy()
    forced[rng.integers(10)] = True
    kept = forced.copy()
    kept[rng.permutation(10)[:8]] = True
    allowed = [chosen for chosen in sets_of(space) if kept[chosen].all() and set(np.flatnonzero(forced)) <= set(chosen)]
    best = max(space.exact(chosen)[0] for chosen in allowed)
    assert iteration.restrict(kept, forced)
    lowest = np.inf
    for number in range(130):
        if number % 10 in (0, 1, 9):
            certificate = iteration.certificate()
            lowest = min(lowest, certificate.bound)
            assert certificate.bound >= best - 1e-9
            assert (certificate.including[~kept] == -np.inf).all()
            for chosen in allowed:
                value, _ = space.exact(chosen)
                assert (certificate.including[chosen] >= value - 1e-9).all()
                assert (np.delete(certificate.without, chosen) >= value - 1e-9).all()
        iteration.step()
    assert iteration.x[forced].all()
    assert not iteration.x[~kept].any()
    relaxed = [space.relaxed_value(chosen) for chosen in allowed]
    # The lowest one counts: on some processors the iteration is just getting over a jolt at the end.
    assert lowest <= max(relaxed) + 0.1 * max(abs(value) for value in relaxed)


def test_nothing_is_lost_when_features_leave_or_are_forced() -> None:
    """Before anything but the multiplier counts, what it proves of a part it has proven of the whole."""
    space = SearchSpace.of(load_instance("generated-20x200-threshold"))
    iteration = _bound(space)
    for _ in range(39):
        iteration.step()
    before = iteration.certificate()
    kept = before.including > np.quantile(before.including, 0.3)
    forced = kept & (iteration.x >= np.sort(iteration.x)[-4])
    assert iteration.restrict(kept, forced)
    after = iteration.certificate()
    assert after.bound <= before.bound * (1.0 + 1e-6)
    assert (after.including[kept] <= before.including[kept] * (1.0 + 1e-6)).all()


def test_too_few_features_to_choose_from_are_left_to_others() -> None:
    space = small_space(1)
    iteration = _bound(space)
    iteration.step()
    before = iteration.certificate()
    kept = np.isin(np.arange(9), greedy_set(space))
    assert not iteration.restrict(kept, np.zeros(9, dtype=bool))
    assert not iteration.restrict(kept, kept)
    assert iteration.certificate().bound == before.bound
