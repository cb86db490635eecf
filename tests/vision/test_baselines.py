"""Other ways to choose features and a head: against their definitions, brute force and another solver."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from qpm_opt import InfeasibleProblemError, InvalidInputError
from qpm_vision.baselines import (
    PooledFeatures,
    assign_distinct,
    choose_greedily,
    choose_randomly,
    choose_sldd,
    features_on_path,
    greedy_features,
    q_senn_of,
    quantised,
    refit_q_senn,
    sparse_layer,
)
from qpm_vision.baselines.sparse_path import elastic_net

SEEDS = st.integers(0, 10_000)


def _similarity(seed: int, n_classes: int = 5, n_features: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_classes, n_features))


def _pooled(seed: int = 0, n_classes: int = 4, noise: float = 0.5, offset: float = 3.0) -> PooledFeatures:
    """Features 0 … n_classes − 1 tell one class each, 3 more are noise, the last one is dead."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), 40)
    told = 2.0 * np.eye(n_classes)[labels] + noise * rng.normal(size=(len(labels), n_classes))
    values = np.hstack((told, rng.normal(size=(len(labels), 3)), np.zeros((len(labels), 1))))
    values = (offset + values * rng.uniform(0.1, 5, values.shape[1])).astype(np.float32)
    std = values.std(axis=0, dtype=np.float64)
    std[-1] = 0
    return PooledFeatures(values, labels, values.mean(axis=0, dtype=np.float64), std, n_classes)


def _accuracy(features: PooledFeatures, selected: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> float:
    rows = (features.values[:, selected] - features.mean[selected]) / features.std[selected]
    return float(((rows @ weights.T + bias).argmax(axis=1) == features.labels).mean())


# -- greedy, random, assignment ------------------------------------------------------------------------------------


def _top_sum(A: np.ndarray, features: list[int], k: int) -> float:
    return float(-np.sort(-np.maximum(A[:, features], 0), axis=1)[:, :k].sum())


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(1, 3))
def test_greedy_is_its_definition(seed: int, n_select: int, k: int) -> None:
    A = _similarity(seed)
    candidates = np.array([0, 1, 3, 4, 6, 7])
    chosen: list[int] = []
    for _ in range(n_select):
        values = {f: _top_sum(A, [*chosen, f], k) for f in candidates.tolist() if f not in chosen}
        best = max(values.values())
        ties = [f for f, value in values.items() if value >= best - 1e-12]
        chosen.append(max(ties, key=lambda f: (np.maximum(A[:, f], 0).sum(), -f)))
    assert greedy_features(A, candidates, n_select, k).tolist() == chosen
    optimum = max(_top_sum(A, list(s), k) for s in itertools.combinations(candidates.tolist(), n_select))
    assert _top_sum(A, chosen, k) >= (1 - 1 / np.e) * optimum


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_assignment_is_the_best_with_distinct_classes(seed: int) -> None:
    A = _similarity(seed, n_classes=4)
    selected = np.array([6, 1, 3, 4])
    choice = assign_distinct(A, selected, 2)
    assert choice.selected.tolist() == [1, 3, 4, 6]
    assert choice.bias is None
    rows = [np.array([f in pair for f in range(4)], float) for pair in itertools.combinations(range(4), 2)]
    best = max(
        sum(float(A[c, choice.selected] @ row) for c, row in enumerate(four))
        for four in itertools.permutations(rows, 4)
    )
    assert float((A[:, choice.selected] * choice.weights).sum()) == pytest.approx(best)


def test_random_is_the_same_for_a_seed_and_leaves_dead_features_out() -> None:
    A = _similarity(1, n_features=40)
    alive = np.arange(1, 40, 2)
    first, again, other = (choose_randomly(A, alive, 6, 2, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.selected, again.selected)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert first.selected.tolist() != other.selected.tolist()
    assert set(first.selected) <= set(alive)
    assert len({tuple(row) for row in first.weights}) == 5


def test_too_few_features_or_sets() -> None:
    A = _similarity(0)
    for choose in (choose_greedily, choose_randomly):
        with pytest.raises(InvalidInputError, match=r"at most the 3 candidates\. Got 4"):
            choose(A, np.arange(3), 4, 2)
        with pytest.raises(InfeasibleProblemError):
            choose(A, np.arange(8), 3, 2)


# -- sparse layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.02, 0.1])
def test_the_path_solves_what_another_solver_solves(penalty: float) -> None:
    features = _pooled(noise=1.5).columns(np.arange(7))
    ours = elastic_net(features, penalty, alpha=0.9)
    rows = (features.values - features.mean) / features.std
    sklearn_version = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    elastic = {} if sklearn_version >= (1, 8) else {"penalty": "elasticnet"}  # deprecated since
    other = LogisticRegression(
        solver="saga", l1_ratio=0.9, C=1 / (len(rows) * penalty), tol=1e-8, max_iter=20_000, random_state=0, **elastic
    ).fit(rows, features.labels)
    np.testing.assert_allclose(ours.weights, other.coef_, atol=2e-4)
    np.testing.assert_array_equal(ours.weights != 0, np.abs(other.coef_) > 1e-6)
    np.testing.assert_allclose(ours.bias - ours.bias.mean(), other.intercept_ - other.intercept_.mean(), atol=2e-4)


def test_a_grouped_penalty_meets_the_conditions_of_optimality() -> None:
    features = _pooled(noise=1.5).columns(np.arange(7))
    penalty, alpha = 0.08, 0.9
    layer = elastic_net(features, penalty, grouped=True, alpha=alpha)
    rows = (features.values - features.mean) / features.std
    scores = rows @ layer.weights.T + layer.bias
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    residual = odds / odds.sum(axis=1, keepdims=True) - np.eye(4)[features.labels]
    gradient = residual.T @ rows / len(rows) + penalty * (1 - alpha) * layer.weights
    norms = np.linalg.norm(layer.weights, axis=0)
    assert 0 < (norms > 0).sum() < 7
    for f, norm in enumerate(norms):
        if norm:
            np.testing.assert_allclose(gradient[:, f], -penalty * alpha * layer.weights[:, f] / norm, atol=1e-4)
        else:
            assert np.linalg.norm(gradient[:, f]) <= penalty * alpha + 1e-4
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-4)


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import qpm_vision.baselines.sparse_path as sparse_path

    features = _pooled()
    whole = elastic_net(features, 0.05)
    monkeypatch.setattr(sparse_path, "_ENTRIES", 50)
    np.testing.assert_allclose(elastic_net(features, 0.05).weights, whole.weights, atol=1e-4)


@pytest.mark.parametrize("n_weights", [4, 7, 12])
def test_a_sparse_layer_has_the_number_of_weights_asked_for(n_weights: int) -> None:
    layer = sparse_layer(_pooled(noise=1.0), n_weights)
    assert (layer.weights != 0).sum() == n_weights
    assert not layer.weights[:, -1].any()


def test_sldd_finds_what_tells_classes_apart() -> None:
    features = _pooled()
    choice = choose_sldd(features, 4, 1)
    assert choice.selected.tolist() == [0, 1, 2, 3]
    assert choice.weights.shape == (4, 4)
    assert (choice.weights != 0).sum() == 4
    assert choice.bias is not None
    assert _accuracy(features, choice.selected, choice.weights, choice.bias) > 0.9
    again = choose_sldd(features, 4, 1)
    np.testing.assert_array_equal(choice.weights, again.weights)


def test_dead_features_are_never_chosen() -> None:
    assert features_on_path(_pooled(), 7).tolist() == list(range(7))
    with pytest.raises(InvalidInputError, match=r"at most the 7 features that vary\. Got 8"):
        features_on_path(_pooled(), 8)


# -- Q-SENN --------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_quantised_weights_keep_signs_and_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(4, 6)) * (rng.random((4, 6)) < 0.4)
    result = quantised(weights)
    np.testing.assert_array_equal(np.sign(result), np.sign(weights))
    np.testing.assert_allclose(np.abs(result).sum(axis=1), np.abs(weights).sum(axis=1))
    for row in result:
        assert len(np.unique(np.abs(row[row != 0]).round(12))) <= 1


def test_q_senn_fits_again_to_changed_features() -> None:
    features = _pooled()
    first = q_senn_of(choose_sldd(features, 5, 1))
    assert (first.weights != 0).sum() == 4
    assert first.bias is not None
    assert _accuracy(features, first.selected, first.weights, first.bias) > 0.9
    changed = features.columns(first.selected[::-1])
    again = refit_q_senn(first.selected, changed, 1)
    np.testing.assert_array_equal(again.selected, first.selected)
    np.testing.assert_allclose(again.weights, first.weights[:, ::-1], atol=1e-2)
