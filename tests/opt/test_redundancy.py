"""Penalties and their threshold, against reference data, exhaustive search and the definition."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from qpm_opt._clique import find_clique, find_dispersed_set
from qpm_opt.errors import InvalidInputError
from qpm_opt.redundancy import (
    Penalties,
    ThresholdResult,
    penalties_from_similarity,
    redundancy_threshold,
    turan_threshold,
)

DATA = Path(__file__).parents[1] / "data"


def random_similarity(n: int, seed: int, *, dimension: int = 6, decimals: int | None = None) -> np.ndarray[Any, Any]:
    """Cosines of random vectors; few decimals make ties."""
    vectors = np.random.default_rng(seed).standard_normal((n, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    product = vectors @ vectors.T
    cosines: np.ndarray[Any, Any] = (product + product.T) / 2
    np.fill_diagonal(cosines, 1.0)
    return cosines if decimals is None else np.asarray(np.round(cosines, decimals))


def pairs_within(similarity: np.ndarray[Any, Any], members: Any) -> np.ndarray[Any, Any]:
    rows, columns = np.triu_indices(len(members), 1)
    members = np.asarray(members)
    return np.asarray(np.maximum(similarity[members[rows], members[columns]], 0.0))


def smallest_largest_pair(similarity: np.ndarray[Any, Any], k: int) -> float:
    """The least possible largest pair of k features, by looking at all sets."""
    sets = itertools.combinations(range(len(similarity)), k)
    return float(min(pairs_within(similarity, members).max(initial=0.0) for members in sets))


def penalties_by_loop(similarity: np.ndarray[Any, Any], threshold: float) -> np.ndarray[Any, Any]:
    """The definition of r, pair by pair."""
    n = len(similarity)
    positive = [similarity[i, j] for i in range(n) for j in range(n) if i != j and similarity[i, j] > 0]
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j and similarity[i, j] > 0 and similarity[i, j] >= threshold:
                result[i, j] = (similarity[i, j] - min(positive)) / (max(positive) - min(positive))
    return result


# --- against reference data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qp_0", "qp_1"])
def test_penalties_match_the_reference(name: str) -> None:
    with np.load(DATA / f"{name}.npz") as reference:
        upper, threshold, expected = reference["R"], float(reference["threshold"]), reference["penalty"]
    penalties = penalties_from_similarity(upper + upper.T, threshold=threshold)
    np.testing.assert_allclose(np.triu(np.asarray(penalties)), expected, rtol=0, atol=1e-9)
    assert penalties.n_penalised == np.count_nonzero(expected)
    assert penalties.threshold == threshold
    assert penalties.clique is None
    assert not penalties.proven


def test_threshold_is_at_most_the_reference() -> None:
    with np.load(DATA / "threshold.npz") as reference:
        similarity, target, known = reference["R"], int(reference["target"]), float(reference["threshold"])
        known_count = int(reference["n_penalised"])
    threshold, clique, proven = redundancy_threshold(similarity, target)
    assert threshold <= known
    assert proven
    assert len(clique) == target
    assert (pairs_within(similarity, clique) < threshold).all()
    assert penalties_from_similarity(similarity, threshold=known).n_penalised == known_count


@pytest.mark.parametrize("name", ["qp_0", "qp_1"])
def test_small_reference_problems_get_the_best_threshold(name: str) -> None:
    with np.load(DATA / f"{name}.npz") as reference:
        upper, known = reference["R"], float(reference["threshold"])
    threshold, _, proven = redundancy_threshold(upper + upper.T, 5)
    assert threshold <= known
    assert proven
    assert threshold == pytest.approx(smallest_largest_pair(upper + upper.T, 5), abs=1e-12)


# --- the search ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 11),
    k=st.integers(1, 11),
    seed=st.integers(0, 10_000),
    dimension=st.integers(2, 8),
    decimals=st.sampled_from([None, 1, 2]),
)
def test_threshold_equals_exhaustive_search(n: int, k: int, seed: int, dimension: int, decimals: int | None) -> None:
    k = min(k, n)
    similarity = random_similarity(n, seed, dimension=dimension, decimals=decimals)
    if (np.count_nonzero(similarity, axis=1) < 2).any():
        return  # rounding made a feature dead
    threshold, clique, proven = redundancy_threshold(similarity, k)
    best = smallest_largest_pair(similarity, k)
    assert proven
    assert threshold == (np.nextafter(best, 2.0) if best > 0 else np.finfo(float).tiny)
    assert (np.diff(clique) > 0).all()
    assert len(clique) == k
    assert (pairs_within(similarity, clique) < threshold).all()


@pytest.mark.parametrize(("n", "k"), [(40, 39), (40, 40), (60, 30), (120, 100), (300, 2), (300, 3), (300, 20)])
def test_clique_is_a_witness_at_any_size(n: int, k: int) -> None:
    similarity = random_similarity(n, 3, dimension=10)
    threshold, clique, _ = redundancy_threshold(similarity, k)
    inside = pairs_within(similarity, clique)
    assert len(set(clique.tolist())) == k
    assert (inside < threshold).all()
    # No float is wasted between the clique and the threshold.
    assert threshold == max(np.nextafter(inside.max(), 2.0), np.finfo(float).tiny)


def test_search_finds_a_planted_set() -> None:
    n, k = 400, 25
    rng = np.random.default_rng(0)
    similarity = rng.uniform(0.1, 1.0, (n, n))
    planted = np.sort(rng.choice(n, k, replace=False))
    similarity[np.ix_(planted, planted)] = rng.uniform(0.01, 0.6, (k, k))
    similarity = np.triu(similarity, 1) + np.triu(similarity, 1).T
    threshold, _, _ = redundancy_threshold(similarity, k)
    assert threshold <= np.nextafter(pairs_within(similarity, planted).max(), 1.0)


def test_search_is_deterministic_and_takes_its_seed() -> None:
    values = np.maximum(random_similarity(250, 1, dimension=20), 0.0)
    np.fill_diagonal(values, 0.0)
    first, second = (find_dispersed_set(values, 40, seed=5, moves=8_000) for _ in range(2))
    assert first.largest == second.largest
    np.testing.assert_array_equal(first.members, second.members)
    others = [find_dispersed_set(values, 40, seed=seed, moves=8_000) for seed in (6, 7)]
    assert any(other.members.tolist() != first.members.tolist() for other in others)
    assert [other.largest for other in others] == pytest.approx([first.largest] * 2, abs=0.03)


def test_more_features_need_a_higher_threshold() -> None:
    similarity = random_similarity(24, 8, dimension=4)
    thresholds = [redundancy_threshold(similarity, k) for k in range(1, 25)]
    assert all(result.proven for result in thresholds)
    values = [result.threshold for result in thresholds]
    assert values == sorted(values)
    assert values[-1] == np.nextafter(pairs_within(similarity, range(24)).max(), 2.0)


def test_dead_features_are_never_in_the_clique() -> None:
    similarity = np.abs(random_similarity(30, 2))
    dead = [0, 7, 29]
    similarity[dead] = 0.0
    similarity[:, dead] = 0.0
    for k in (2, 10, 27):
        clique = redundancy_threshold(similarity, k).clique
        assert not set(clique.tolist()) & set(dead)
    with pytest.raises(InvalidInputError, match=r"n_select.*28.*3 of the 30.*27"):
        redundancy_threshold(similarity, 28)


def test_features_unlike_all_others_are_alive() -> None:
    """Each is like itself alone: nothing is penalised, and nobody is dead."""
    for similarity in (np.eye(5), sp.eye_array(5)):
        penalties = penalties_from_similarity(similarity, n_select=3)
        assert penalties.n_penalised == 0
        assert penalties.clique.tolist() == [0, 1, 2]
    # A diagonal that was cleared says nothing of who is dead.
    with pytest.raises(InvalidInputError, match="are dead"):
        penalties_from_similarity(np.zeros((5, 5)), n_select=3)


def test_labels_stay_with_the_penalties() -> None:
    names = ["a", "b", "c", "d"]
    frame = pd.DataFrame(np.abs(random_similarity(4, 0)), index=names, columns=names)
    assert penalties_from_similarity(frame, n_select=2).labels == tuple(names)
    assert penalties_from_similarity(frame.to_numpy(), n_select=2).labels is None
    with pytest.raises(InvalidInputError, match=r"'similarity'.*labels of its rows.*reindex"):
        penalties_from_similarity(pd.DataFrame(frame.to_numpy(), index=names, columns=[*"bacd"]), n_select=2)


def test_a_feature_with_negative_cosines_only_is_alive() -> None:
    similarity = np.array([[1.0, -0.5, -0.2], [-0.5, 1.0, 0.4], [-0.2, 0.4, 1.0]])
    threshold, clique, proven = redundancy_threshold(similarity, 2)
    assert threshold == np.finfo(float).tiny
    assert 0 in clique
    assert proven
    assert penalties_from_similarity(similarity, n_select=2).n_penalised == 1


@settings(max_examples=40, deadline=None)
@given(n=st.integers(3, 12), k=st.integers(2, 6), share=st.floats(0.2, 0.95), seed=st.integers(0, 10_000))
def test_branch_and_bound_agrees_with_enumeration(n: int, k: int, share: float, seed: int) -> None:
    allowed = np.triu(np.random.default_rng(seed).random((n, n)) < share, 1)
    allowed = allowed | allowed.T
    sets = itertools.combinations(range(n), min(k, n + 1))
    exists = any(all(allowed[i, j] for i, j in itertools.combinations(members, 2)) for members in sets)
    found, _, complete = find_clique(allowed, k, 10_000)
    assert complete
    assert (found is not None) == exists
    if found is not None:
        assert len(set(found.tolist())) == k
        assert all(allowed[i, j] for i, j in itertools.combinations(found.tolist(), 2))


def test_branch_and_bound_admits_that_its_budget_ran_out() -> None:
    values = np.maximum(random_similarity(80, 4, dimension=30), 0.0)
    np.fill_diagonal(values, 0.0)
    best = find_dispersed_set(values, 20, moves=5_000)
    below = float(values[values < best.largest].max())
    found, used, complete = find_clique(values <= below * 0.95, 20, 3)
    assert found is None
    assert not complete
    assert used >= 3


def test_search_without_any_moves_still_returns_a_set() -> None:
    values = np.maximum(random_similarity(300, 4, dimension=30), 0.0)
    np.fill_diagonal(values, 0.0)
    result = find_dispersed_set(values, 40, moves=0)
    assert len(set(result.members.tolist())) == 40
    assert result.largest == pairs_within(values, result.members).max()
    assert find_dispersed_set(values, 40).largest < result.largest


# --- Turán -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [3, 5, 50])
def test_turan_threshold_is_the_quantile_of_all_entries(k: int) -> None:
    similarity = random_similarity(60, 9)
    entries = sorted(0.0 if i == j else max(similarity[i, j], 0.0) for i in range(60) for j in range(60))
    position = (k - 2) / (k - 1) * (len(entries) - 1)
    below = entries[math.floor(position)]
    expected = below + (position % 1) * (entries[math.ceil(position)] - below)
    assert turan_threshold(similarity, k) == pytest.approx(expected, abs=1e-12)
    penalties = penalties_from_similarity(similarity, n_select=k, threshold="turan")
    assert penalties.threshold == turan_threshold(similarity, k)
    assert penalties.clique is None
    if expected > 0:
        assert penalties.share == pytest.approx(1 / (k - 1), abs=0.02)


@pytest.mark.parametrize("k", [1, 2])
def test_turan_threshold_for_one_or_two_features_penalises_every_positive_pair(k: int) -> None:
    similarity = random_similarity(20, 9)
    penalties = penalties_from_similarity(similarity, n_select=k, threshold="turan")
    assert penalties.threshold == 0
    assert penalties.n_penalised == (similarity[np.triu_indices(20, 1)] > 0).sum()


# --- penalties -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n=st.integers(4, 12), seed=st.integers(0, 10_000), threshold=st.floats(0.0, 1.2))
def test_penalties_follow_the_definition(n: int, seed: int, threshold: float) -> None:
    similarity = random_similarity(n, seed)
    if (np.triu(similarity, 1) > 0).sum() < 2:
        return
    penalties = penalties_from_similarity(similarity, threshold=threshold)
    dense = np.asarray(penalties)
    np.testing.assert_allclose(dense, penalties_by_loop(similarity, threshold), atol=1e-12)
    np.testing.assert_array_equal(dense, dense.T)
    reached = (np.triu(similarity, 1) > 0) & (similarity >= threshold)
    assert penalties.n_penalised == reached.sum()
    assert penalties.share == pytest.approx(reached.sum() / (n * (n - 1) / 2))
    assert penalties.matrix.nnz == np.count_nonzero(dense)


def test_searched_penalties_leave_the_clique_free() -> None:
    similarity = random_similarity(60, 11)
    penalties = penalties_from_similarity(similarity, n_select=12)
    assert penalties.clique is not None
    assert not np.asarray(penalties)[np.ix_(penalties.clique, penalties.clique)].any()
    assert np.asarray(penalties).max() == 1.0
    again = penalties_from_similarity(similarity, threshold=penalties.threshold)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(penalties))


def test_least_similar_pair_has_penalty_zero_but_counts() -> None:
    similarity = [[1.0, 0.2, 0.6], [0.2, 1.0, 0.4], [0.6, 0.4, 1.0]]
    penalties = penalties_from_similarity(similarity, threshold=0.0)
    assert penalties.n_penalised == 3
    assert penalties.matrix.nnz == 4
    np.testing.assert_allclose(np.asarray(penalties), [[0.0, 0.0, 1.0], [0.0, 0.0, 0.5], [1.0, 0.5, 0.0]])


def test_equal_similarities_do_not_divide_by_zero() -> None:
    similarity = np.full((4, 4), 0.3)
    np.testing.assert_array_equal(np.asarray(penalties_from_similarity(similarity, threshold=0.3)), 1.0 - np.eye(4))
    searched = penalties_from_similarity(similarity, n_select=3)
    assert searched.n_penalised == 0
    assert searched.matrix.nnz == 0


def test_nothing_positive_means_no_penalties() -> None:
    penalties = penalties_from_similarity([[1.0, -0.2], [-0.2, 1.0]], threshold=0.0)
    assert penalties.n_penalised == 0
    assert not np.asarray(penalties).any()


def test_a_single_feature_has_no_pairs() -> None:
    penalties = penalties_from_similarity([[1.0]], n_select=1)
    assert penalties.share == 0.0
    assert penalties.clique is not None
    assert penalties.clique.tolist() == [0]


def test_given_threshold_does_not_look_at_n_select() -> None:
    assert penalties_from_similarity(random_similarity(5, 0), threshold=0.5).clique is None


def test_accepts_frames_tensors_sparse_matrices_and_lists() -> None:
    similarity = random_similarity(12, 5)
    expected = np.asarray(penalties_from_similarity(similarity, n_select=4))
    forms: list[Any] = [pd.DataFrame(similarity), similarity.tolist(), sp.csr_array(similarity)]
    torch = pytest.importorskip("torch")
    forms += [torch.tensor(similarity), torch.tensor(similarity, requires_grad=True)]
    for form in forms:
        np.testing.assert_array_equal(np.asarray(penalties_from_similarity(form, n_select=4)), expected)


def test_input_is_left_alone_and_rounding_is_tolerated() -> None:
    similarity = random_similarity(12, 5)
    similarity[3, 4] += 1e-12
    before = similarity.copy()
    similarity.setflags(write=False)
    penalties = penalties_from_similarity(similarity, n_select=4)
    np.testing.assert_array_equal(similarity, before)
    dense = np.asarray(penalties)
    np.testing.assert_array_equal(dense, dense.T)


def test_array_protocol_and_repr() -> None:
    penalties = penalties_from_similarity(random_similarity(12, 5), n_select=4)
    assert isinstance(penalties, Penalties)
    assert penalties.shape == (12, 12)
    assert np.asarray(penalties, dtype=np.float32).dtype == np.float32
    assert "n_features=12" in repr(penalties)
    assert "clique of 4" in repr(penalties)
    assert "no clique" in repr(penalties_from_similarity(random_similarity(12, 5), threshold=0.5))
    with pytest.raises(AttributeError):
        penalties.threshold = 0.0  # type: ignore[misc]
    assert isinstance(redundancy_threshold(random_similarity(12, 5), 4), ThresholdResult)


# --- errors ----------------------------------------------------------------------------------------------------------

GOOD = random_similarity(6, 0)


def spoiled(row: int, column: int, value: float) -> np.ndarray[Any, Any]:
    matrix = GOOD.copy()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (GOOD[:4], "square"),
        (GOOD[0], "2 dimensions"),
        (np.zeros((0, 0)), "at least one feature"),
        (spoiled(1, 2, np.nan), "finite"),
        (spoiled(1, 2, np.inf), "finite"),
        (spoiled(1, 2, 0.123), r"symmetric.*\(R \+ R.T\) / 2"),
        (np.triu(GOOD), r"upper triangle alone; pass R \+ R.T"),
        (np.tril(GOOD, -1), r"lower triangle alone; pass R \+ R.T"),
        (GOOD.astype(object), "dtype object"),
        ([["a", "b"], ["c", "d"]], "dtype"),
        ([[1.0, 2.0], [3.0]], "similarity"),
    ],
)
def test_bad_similarity_is_refused(similarity: Any, message: str) -> None:
    for call in (
        lambda: penalties_from_similarity(similarity, n_select=2),
        lambda: redundancy_threshold(similarity, 2),
        lambda: turan_threshold(similarity, 2),
    ):
        with pytest.raises(InvalidInputError, match=message):
            call()


@pytest.mark.parametrize("n_select", [0, -1, 7, 2.5, "3", None, True])
def test_bad_n_select_is_refused(n_select: Any) -> None:
    for rule in (None, "turan"):
        with pytest.raises(InvalidInputError, match="n_select"):
            penalties_from_similarity(GOOD, n_select=n_select, threshold=rule)


@pytest.mark.parametrize("threshold", ["Turan", "turán", "search", -0.1, np.nan, np.inf, True, [0.1], {}])
def test_bad_threshold_is_refused(threshold: Any) -> None:
    with pytest.raises(InvalidInputError, match="threshold"):
        penalties_from_similarity(GOOD, n_select=3, threshold=threshold)


def test_misspelt_rule_names_the_known_one() -> None:
    with pytest.raises(InvalidInputError, match="'turan'"):
        penalties_from_similarity(GOOD, n_select=3, threshold="turann")


@pytest.mark.parametrize("seed", [-1, 0.5, "a"])
def test_bad_seed_is_refused(seed: Any) -> None:
    with pytest.raises(InvalidInputError, match="seed"):
        redundancy_threshold(GOOD, 3, seed=seed)
