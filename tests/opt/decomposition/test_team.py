"""Several trees that share their nodes: what they prove, that they repeat, and how they end."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from qpm_opt import AssignmentProblem, Progress, Termination, solve_assignment
from qpm_opt.backends.decomposition import team
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.set_search import SetSearch
from qpm_opt.backends.decomposition.team import Team
from qpm_opt.backends.decomposition.tree import BranchAndCut, Surroundings
from qpm_opt.search_space import SearchSpace
from tests.opt.decomposition.problems import generated_problem, optimum, sets_of, small_space


def _rough_tree(space: SearchSpace, sets: SetSearch) -> tuple[BranchAndCut, Surroundings]:
    """A tree whose root has hardly been cut, so that there is something to branch on."""

    def around(own: SetSearch) -> Surroundings:
        return Surroundings(
            incumbent=lambda: own.objective,
            tolerance=lambda: 0.0,
            on_set=lambda chosen: own.offer_set(space.to_local(chosen), "tree"),
            on_rounding=lambda _chosen: None,
            seconds_left=lambda: 60.0 if own.keep_going() else 0.0,
            on_step=lambda _bound: None,
        )

    classes = ClassValues.of(space.values, space.budgets)
    tree = BranchAndCut(space, classes, classes.ranked[:, 0], around(sets))
    tree.root(1)
    return tree, around


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_they_prove_the_optimum_in_rounds_of_one_node(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "_NODES_A_ROUND", 1)
    monkeypatch.setattr(team, "_NODES_BESIDE", 1)
    most = 0
    for seed in range(5):
        space = small_space(seed, n_classes=6, n_features=12)
        best = optimum(space)
        sets = SetSearch(space, np.random.default_rng(seed), lambda: True, lambda _found, _message: None)
        sets.offer_set(np.flatnonzero(space.forced | (np.arange(12) < 4))[:4], "any")
        monkeypatch.setattr(SetSearch, "restart", lambda _sets: None)  # it would find the best set at once
        tree, around = _rough_tree(space, sets)
        bounds: list[float] = []
        proven: list[float] = []

        def step(
            bound: float,
            _nodes: int,
            bounds: list[float] = bounds,
            proven: list[float] = proven,
            sets: SetSearch = sets,
        ) -> None:
            bounds.append(bound)
            proven.append(max(bound, sets.objective))

        with Team(tree, sets, n_threads, around, step) as together:
            rounds = 0
            while not together.finished:
                together.work()
                rounds += 1
                assert max(together.bound, sets.objective) >= best - 1e-9
        most = max(most, rounds)
        assert sets.objective == pytest.approx(best)
        assert together.bound <= best + 1e-9
        assert bounds == sorted(bounds, reverse=True)
        assert min(proven, default=best) >= best - 1e-9
    assert most > 3


def test_what_another_thread_has_found_is_part_of_the_bound() -> None:
    space = small_space(0, n_classes=6, n_features=12)
    best = optimum(space)
    chosen = max(sets_of(space), key=lambda chosen: space.exact(chosen)[0])
    sets = SetSearch(space, np.random.default_rng(0), lambda: True, lambda _found, _message: None)
    sets.offer_set(np.flatnonzero(space.forced | (np.arange(12) < 4))[:4], "any")
    tree, around = _rough_tree(space, sets)
    with Team(tree, sets, 2, around, lambda _bound, _nodes: None) as together:
        together._others[0].offer_set(chosen, "found by the other thread")
        tree.take_over([])  # and its tree is done with that
        assert sets.objective < best
        assert together.bound >= best - 1e-9


def test_all_trees_learn_what_each_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "_NODES_A_ROUND", 2)
    monkeypatch.setattr(SetSearch, "restart", lambda _sets: None)
    monkeypatch.setattr(BranchAndCut, "shrink", lambda _tree: None)
    run, grown = BranchAndCut.run, []

    def watched(tree: BranchAndCut, node_limit: int) -> bool:
        before = tree.seen.copy()
        finished = run(tree, node_limit)
        grown.append(tree.seen - before)
        return finished

    monkeypatch.setattr(BranchAndCut, "run", watched)
    space = small_space(4, n_classes=6, n_features=12)
    sets = SetSearch(space, np.random.default_rng(0), lambda: True, lambda _found, _message: None)
    sets.offer_set(np.flatnonzero(space.forced | (np.arange(12) < 4))[:4], "any")
    tree, around = _rough_tree(space, sets)
    with Team(tree, sets, 2, around, lambda _bound, _nodes: None) as together:
        while not together.finished:
            together.work()
        for one in together._trees:
            np.testing.assert_allclose(one.seen, sum(grown))
    assert sum(amount.any() for amount in grown) > 2


@pytest.fixture
def problem(monkeypatch: pytest.MonkeyPatch) -> AssignmentProblem:
    """One with some tens of nodes, on which all threads branch from the first one on."""
    monkeypatch.setattr(team, "_STALE_BEFORE_TREE", 0)
    monkeypatch.setattr(team, "_NODES_A_ROUND", 8)
    return generated_problem(100, 300, 0.03, n_select=25, n_per_class=5)


def test_runs_on_two_threads_repeat_to_the_bit(problem: AssignmentProblem) -> None:
    first, second = (solve_assignment(problem, seed=3, threads=2) for _ in range(2))
    assert first.termination is Termination.OPTIMAL
    assert first.weights.tolist() == second.weights.tolist()
    assert (first.objective, first.bound) == (second.objective, second.bound)


def test_an_interrupt_ends_all_threads_and_leaves_the_best(problem: AssignmentProblem) -> None:
    before = threading.active_count()

    def interrupting(state: Progress) -> None:
        if "nodes" in state.message and threading.active_count() > before:
            raise KeyboardInterrupt

    result = solve_assignment(problem, threads=3, progress=interrupting)
    assert result.termination is Termination.INTERRUPTED
    assert result.gap is not None
    assert 1e-4 < result.gap < 0.01
    assert threading.active_count() == before
