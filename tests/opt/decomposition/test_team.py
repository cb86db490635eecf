"""Several trees that share their nodes: what they prove, that they repeat, and how they end."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from benchmarks.generator import generate_problem_data
from qpm_opt import AssignmentProblem, Progress, Termination, penalties_from_similarity, solve_assignment
from qpm_opt.backends.decomposition import team
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.set_search import SetSearch
from qpm_opt.backends.decomposition.team import Team
from qpm_opt.backends.decomposition.tree import BranchAndCut, Surroundings
from qpm_opt.search_space import SearchSpace
from tests.opt.decomposition.problems import optimum, small_space


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
        sets = SetSearch(space, seed, lambda: True, lambda _found, _message: None)
        sets.offer_set(np.flatnonzero(space.forced | (np.arange(12) < 4))[:4], "any")
        monkeypatch.setattr(SetSearch, "restart", lambda _sets: None)  # it would find the best set at once
        tree, around = _rough_tree(space, sets)
        bounds: list[float] = []
        with Team(tree, sets, n_threads, around, lambda bound, _nodes, bounds=bounds: bounds.append(bound)) as together:
            rounds = 0
            while not together.finished:
                together.work()
                rounds += 1
                assert max(together.bound, sets.objective) >= best - 1e-9
        most = max(most, rounds)
        assert sets.objective == pytest.approx(best)
        assert together.bound <= best + 1e-9
        assert bounds == sorted(bounds, reverse=True)
    assert most > 3


@pytest.fixture
def problem(monkeypatch: pytest.MonkeyPatch) -> AssignmentProblem:
    """One with some tens of nodes, on which all threads branch from the first one on."""
    monkeypatch.setattr(team, "_STALE_BEFORE_TREE", 0)
    monkeypatch.setattr(team, "_NODES_A_ROUND", 8)
    data = generate_problem_data(100, 300, images_per_class=8, seed=5)
    R = data.redundancy_similarity
    threshold = float(np.quantile(np.clip(R, 0, None)[np.triu_indices(300, 1)], 0.97))
    penalties = penalties_from_similarity(R, n_select=25, threshold=threshold)
    return AssignmentProblem(data.class_similarity, penalties, data.feature_bias, n_select=25, n_per_class=5)


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
