"""The problem: what it takes, what it refuses, how it is stored."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from qpm_opt import AssignmentProblem, InfeasibleProblemError, InvalidInputError, penalties_from_similarity
from tests.contract.oracle import random_problem

A = np.array([[0.9, 0.1, 0.4, 0.3], [0.2, 0.8, 0.5, 0.1], [0.1, 0.2, 0.9, 0.7]])
R = np.array([[0, 0.5, 0, 0], [0.5, 0, 0, 0.2], [0, 0, 0, 0], [0, 0.2, 0, 0]], dtype=float)
SIZES = {"n_select": 3, "n_per_class": 2}


def problem(**changes: Any) -> AssignmentProblem:
    arguments: dict[str, Any] = {"class_similarity": A, "redundancy": R, **SIZES}
    return AssignmentProblem(**{**arguments, **changes})


# -- what it takes -------------------------------------------------------------------------------------------------


def _frame(array: np.ndarray) -> Any:
    return pd.DataFrame(array) if array.ndim == 2 else pd.Series(array)


def _torch(array: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(array.copy()).requires_grad_()


def _bfloat16(array: np.ndarray) -> Any:
    torch = pytest.importorskip("torch")
    return torch.from_numpy(array.copy()).to(torch.bfloat16)


@pytest.mark.parametrize(
    ("of", "room"),
    [(np.asarray, 0.0), (np.ndarray.tolist, 0.0), (_frame, 0.0), (_torch, 0.0), (np.float32, 1e-7),
     (np.asfortranarray, 0.0), (_bfloat16, 4e-3)],
    ids=["array", "lists", "frame", "tensor", "float32", "column-major", "bfloat16"],
)  # fmt: skip
def test_containers(of: Any, room: float) -> None:
    made = problem(class_similarity=of(A), redundancy=of(R), feature_bias=of(A[0]))
    assert np.allclose(made.class_similarity, A, rtol=room, atol=0)
    assert np.allclose(made.redundancy.toarray(), R, rtol=room, atol=0)
    assert np.allclose(made.feature_bias, A[0], rtol=room, atol=0)
    assert made.class_similarity.dtype == np.float64


@pytest.mark.parametrize("form", [sp.csr_array, sp.coo_matrix, sp.lil_array, sp.dia_array])
def test_sparse_penalties(form: Any) -> None:
    assert np.array_equal(problem(redundancy=form(R)).redundancy.toarray(), R)


def test_penalties_object() -> None:
    penalties = penalties_from_similarity(np.corrcoef(A.T), n_select=3)
    assert np.array_equal(problem(redundancy=penalties).redundancy.toarray(), penalties.toarray())


def test_integers_and_booleans_are_numbers() -> None:
    assert problem(class_similarity=(A > 0.4).astype(int)).class_similarity.tolist() == (A > 0.4).tolist()
    assert problem(class_similarity=A > 0.4).class_similarity.tolist() == (A > 0.4).tolist()


def test_labels_of_frames_are_kept() -> None:
    frame = pd.DataFrame(A, index=["cat", "dog", "owl"], columns=["fur", "tail", "wing", "beak"])
    made = problem(class_similarity=frame, required_pairs=[("owl", "beak")], excluded_features=["tail"])
    assert made.class_labels == ("cat", "dog", "owl")
    assert made.feature_labels == ("fur", "tail", "wing", "beak")
    assert made.required_pairs.tolist() == [[2, 3]]
    assert made.excluded_features.tolist() == [1]


def test_nothing_can_be_changed() -> None:
    source = A.copy()
    made = problem(class_similarity=source)
    source[0, 0] = 5.0
    assert made.class_similarity[0, 0] == 0.9
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.n_select = 2  # type: ignore[misc]
    penalties = (made.redundancy.data, made.redundancy.indices, made.redundancy.indptr)
    for array in (made.class_similarity, made.feature_bias, made.n_per_class, *penalties, made.candidates):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def _entry(matrix: Any) -> None:
    matrix[0, 2] = 1.0


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda matrix: setattr(matrix, "data", matrix.data * 0.0),
        lambda matrix: setattr(matrix, "indices", matrix.indices[::-1]),
        lambda matrix: matrix.setdiag(3.0),
        lambda matrix: matrix.resize((2, 2)),
        _entry,
    ],
)
def test_penalties_cannot_be_changed(change: Any) -> None:
    similarity = np.where(np.eye(4) > 0, 1.0, R)
    for made in (problem(), pickle.loads(pickle.dumps(problem()))):
        before = made.redundancy.toarray()
        with pytest.raises(ValueError, match="read-only"):
            change(made.redundancy)
        assert (made.redundancy.toarray() == before).all()
        assert (made.replaced(n_select=4).redundancy.toarray() == before).all()
        _entry(made.redundancy.copy())
    with pytest.raises(ValueError, match="read-only"):
        change(penalties_from_similarity(similarity, n_select=2).matrix)


def test_what_has_no_order_gives_no_order() -> None:
    with pytest.raises(InvalidInputError, match=r"'class_labels'.*in order. Got a set"):
        problem(class_labels={"cat", "dog", "owl"})
    with pytest.raises(InvalidInputError, match=r"'n_per_class'.*in order. Got a frozenset"):
        problem(n_per_class=frozenset([1, 2, 3]))
    assert problem(class_labels=dict.fromkeys(["owl", "cat", "dog"]).keys()).class_labels == ("owl", "cat", "dog")


def test_labels_out_of_enumerations_are_what_files_hold() -> None:
    kind = enum.StrEnum("kind", {"A": "owl", "B": "cat", "C": "dog"})
    number = enum.IntEnum("number", {"A": 7, "B": 3, "C": 5, "D": 1})
    made = problem(class_labels=list(kind), feature_labels=list(number), required_pairs=[(kind.B, number.D)])
    assert repr((made.class_labels, made.feature_labels)) == "(('owl', 'cat', 'dog'), (7, 3, 5, 1))"
    assert made.required_pairs.tolist() == [[1, 3]]


def test_masks_are_masks_in_frames_too() -> None:
    frame = pd.DataFrame(A, index=["owl", "cat", "dog"], columns=["fur", "tail", "wing", "beak"])
    for mask in (frame > 0.85, (frame > 0.85).astype("boolean")):
        assert problem(class_similarity=frame, required_pairs=mask).required_pairs.tolist() == [[0, 0], [2, 2]]
    with pytest.raises(InvalidInputError, match=r"'forbidden_pairs'.*same order"):
        problem(class_similarity=frame, forbidden_pairs=frame.iloc[::-1] > 0.85)
    with pytest.raises(InvalidInputError, match=r"'excluded_features'.*missing values. Got <NA>"):
        problem(excluded_features=pd.array([True, None, False, False], dtype="boolean"))
    with pytest.raises(InvalidInputError, match=r"'required_pairs'.*missing values"):
        problem(class_similarity=frame, required_pairs=(frame > 0.85).astype("boolean").mask(frame < 0.2))


def test_scale() -> None:
    assert problem().scale == pytest.approx(1000 / 6)
    assert problem(n_per_class=[1, 2, 3]).scale == pytest.approx(1000 / 6)
    assert AssignmentProblem(np.random.default_rng(0).random((200, 60))).scale == pytest.approx(1.0)


def test_dead_features_are_noted_and_never_candidates() -> None:
    dead = A.copy()
    dead[:, 1] = 0.0
    assert problem(class_similarity=dead).dead_features.tolist() == []  # it has penalties, so it is alive
    made = problem(class_similarity=dead, redundancy=None)
    assert made.dead_features.tolist() == [1]
    assert made.candidates.tolist() == [0, 2, 3]
    assert problem(class_similarity=dead, redundancy=None, required_features=[1]).candidates.tolist() == [0, 1, 2, 3]
    with pytest.raises(
        InfeasibleProblemError, match=r"'n_select'.*at most .* 3 \(4 less 0 excluded and 1 dead\).*Got 4"
    ):
        problem(class_similarity=dead, redundancy=None, n_select=4)


# -- what it refuses -----------------------------------------------------------------------------------------------

ASYMMETRIC = R.copy()
ASYMMETRIC[0, 1] = 0.6
NAN = A.copy()
NAN[1, 2] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_similarity": A[0]}, r"'class_similarity'.*2 dimensions.*shape \(4,\)"),
        ({"class_similarity": np.empty((0, 4))}, r"'class_similarity'.*at least one of each"),
        ({"class_similarity": [[1, 2], [3]]}, r"'class_similarity'.*rows of equal length"),
        ({"class_similarity": A.astype(str)}, r"'class_similarity'.*real numbers.*dtype <U"),
        ({"class_similarity": A + 1j}, r"'class_similarity'.*real numbers.*complex"),
        ({"class_similarity": A.astype(object)}, r"'class_similarity'.*dtype object"),
        ({"class_similarity": NAN}, r"'class_similarity'.*finite.*1 NaN.*\[1, 2\].*dead"),
        ({"class_similarity": np.where(A > 0.8, np.inf, A)}, r"'class_similarity'.*finite.*2 NaN or infinite"),
        ({"redundancy": R[:3, :3]}, r"'redundancy'.*shape \(4, 4\).*Got \(3, 3\)"),
        ({"redundancy": np.triu(R)}, r"'redundancy'.*symmetric.*one triangle alone: pass P \+ P\.T"),
        ({"redundancy": np.tril(R)}, r"'redundancy'.*one triangle alone"),
        ({"redundancy": sp.triu(sp.csr_array(R))}, r"'redundancy'.*one triangle alone"),
        ({"redundancy": ASYMMETRIC}, r"'redundancy'.*symmetric.*\(P \+ P\.T\) / 2"),
        ({"redundancy": -R}, r"'redundancy'.*not be negative.*-0\.5.*penalties_from_similarity"),
        ({"redundancy": R + np.eye(4)}, r"'redundancy'.*zero diagonal.*feature 0.*penalties_from_similarity"),
        ({"redundancy": R * np.nan}, r"'redundancy'.*finite"),
        ({"redundancy": sp.csr_array(R) * np.nan}, r"'redundancy'.*finite"),
        ({"feature_bias": [1, 2]}, r"'feature_bias'.*each of the 4 features\. Got 2"),
        ({"feature_bias": A}, r"'feature_bias'.*1 dimension\."),
        ({"feature_bias": [0, 0, np.inf, 0]}, r"'feature_bias'.*finite"),
        ({"n_select": 2.5}, r"'n_select'.*whole number.*2\.5"),
        ({"n_select": True}, r"'n_select'.*boolean"),
        ({"n_select": 0}, r"'n_select'.*at least 1"),
        ({"n_select": "3"}, r"'n_select'.*whole number.*'3' of type str"),
        ({"n_per_class": [1, 2]}, r"'n_per_class'.*each of the 3 classes"),
        ({"n_per_class": 0}, r"'n_per_class'.*at least 1"),
        ({"n_per_class": [1, 2, 1.5]}, r"'n_per_class'.*whole number"),
        ({"required_features": [4]}, r"'required_features'.*between 0 and 3\. Got 4"),
        ({"required_features": [-1]}, r"'required_features'.*at least 0"),
        ({"required_features": "fur"}, r"'required_features'.*no feature labels"),
        ({"required_pairs": [(3, 0)]}, r"'required_pairs'.*between 0 and 2\. Got 3"),
        ({"required_pairs": [1]}, r"'required_pairs'.*\(class, feature\) pairs\. Got 1"),
        ({"required_pairs": ["ab"]}, r"'required_pairs'.*pairs\. Got 'ab'"),
        ({"class_labels": ["a", "b"]}, r"'class_labels'.*3 entries\. Got 2"),
        ({"class_labels": ["a", "b", "a"]}, r"'class_labels'.*repeat.*'a' more than once"),
        ({"feature_labels": ["a", "b", "c", None]}, r"'feature_labels'.*strings or integers"),
        ({"feature_labels": [*"abcd"], "excluded_features": ["bb"]}, r"'bb', which does not exist\. Did you mean 'b'"),
    ],
)  # fmt: skip
def test_malformed_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=re.compile(message, re.DOTALL)) as caught:
        problem(**changes)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_select": 5}, r"'n_select'.*at most n_features = 4\. Got 5"),
        ({"n_per_class": 4}, r"'n_per_class'.*at most n_select = 3\. Got 4"),
        ({"n_select": 3, "n_per_class": 3}, r"only 1 different sets of n_per_class = 3, and 3 classes"),
        ({"n_select": 2, "n_per_class": [1, 1, 1]}, r"only 2 different sets"),
        ({"required_features": [1], "excluded_features": [1]}, r"feature 1 is excluded, but required"),
        ({"required_pairs": [(0, 1)], "excluded_features": [1]}, r"feature 1 is excluded, but required"),
        ({"required_features": [0, 1, 2, 3]}, r"require 4 features, more than n_select = 3"),
        ({"required_pairs": [(0, 1)], "forbidden_pairs": [(0, 1)]}, r"class 0 and feature 1 is both required and"),
        ({"required_pairs": [(0, 0), (0, 1), (0, 2)]}, r"'required_pairs'.*class 0 3 features, more than its"),
        ({"excluded_features": [0, 1]}, r"'n_select'.*at most .* 2 \(4 less 2 excluded"),
        ({"forbidden_pairs": [(1, 0), (1, 1), (1, 2)]}, r"leave 0 different sets of 2 features to class 1"),
        (
            {"required_pairs": [(0, 0), (0, 1), (1, 0), (1, 1)]},
            r"leave 1 different sets .* to classes 0, 1, which need 2",
        ),
    ],
)
def test_contradictions_are_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InfeasibleProblemError, match=message):
        problem(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"required_pairs": [("b", "y")], "forbidden_pairs": [("b", "y")]}, r"class 'b' and feature 'y' is both"),
        ({"required_features": ["z"], "excluded_features": ["z"]}, r"feature 'z' is excluded"),
        ({"required_pairs": [("c", "w"), ("c", "x"), ("c", "y")]}, r"gives class 'c' 3 features"),
        ({"forbidden_pairs": [("b", "w"), ("b", "x"), ("b", "y")]}, r"to class 'b', which needs 1"),
        ({"required_pairs": [(c, f) for c in "ac" for f in "wx"]}, r"to classes 'a', 'c', which need 2"),
        ({"contrastive_pairs": [("a", "c", 2)]}, r"has classes 'a' and 'c' share at least 2"),
    ],
)
def test_contradictions_name_what_has_names(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InfeasibleProblemError, match=message):
        problem(class_labels=[*"abc"], feature_labels=[*"wxyz"], **changes)


def test_integer_labels_are_labels(tmp_path: Path) -> None:
    """As in pandas' .loc: what a result calls its features can be given back."""
    made = problem(feature_labels=[3, 1, 4, 0], required_features=[0], forbidden_pairs=[(1, 4)])
    assert made.required_features.tolist() == [3]
    assert made.forbidden_pairs.tolist() == [[1, 2]]
    made.save(tmp_path / "p.npz")
    assert AssignmentProblem.load(tmp_path / "p.npz").required_features.tolist() == [3]
    with pytest.raises(InvalidInputError, match=r"names the feature 2, which does not exist"):
        problem(feature_labels=[3, 1, 4, 0], required_features=[2])
    columns = pd.DataFrame(np.tile(A, (1, 2))).iloc[:, 2:6]
    assert AssignmentProblem(columns, **SIZES).feature_labels == (2, 3, 4, 5)


def test_series_in_another_order_are_refused_without_labels_too() -> None:
    with pytest.raises(InvalidInputError, match=r"'feature_bias'.*reindex"):
        problem(feature_bias=pd.Series(A[0])[::-1])
    penalties = penalties_from_similarity(pd.DataFrame(np.corrcoef(A.T), [*"bacd"], [*"bacd"]), n_select=3)
    with pytest.raises(InvalidInputError, match=r"'redundancy'.*reindex"):
        problem(class_similarity=pd.DataFrame(A, columns=[*"abcd"]), redundancy=penalties)
    with pytest.raises(InvalidInputError, match=r"'n_per_class'.*reindex"):
        problem(n_per_class=pd.Series([1, 2, 2])[::-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"required_features": None},
        {"required_pairs": 5},
        {"required_pairs": [(0, [1, 2])]},
        {"class_labels": 5},
        {"n_per_class": [[1], [2, 3], 4]},
        {"n_select": np.array([3, 4])},
        {"class_similarity": np.ma.masked_array(A, mask=A > 0.8)},
        {"class_similarity": A * 1e200},
        {"class_similarity": A * 1e-200},
        {"n_per_class": 10**30},
        {"excluded_features": {"a": 1}},
    ],
    ids=str,
)
def test_nonsense_is_an_invalid_input(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"'{next(iter(changes))}'"):
        problem(**changes)


def test_a_single_position_is_a_set_too() -> None:
    assert problem(required_features=np.int64(2)).required_features.tolist() == [2]


def test_malformed_content_is_one_kind_of_error(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    problem().save(path)
    content = dict(np.load(path))
    for name, value in (
        ("class_similarity", content["class_similarity"][0]),
        ("redundancy_row", np.array([9, 9])),
        ("labels", np.array("{")),
        ("labels", np.array("[]")),
        ("n_select", np.array([1, 2])),
        ("required_pairs", np.array([5])),
    ):
        np.savez(path, **{**content, name: value})
        with pytest.raises(InvalidInputError, match=r"p\.npz' holds a malformed"):
            AssignmentProblem.load(path)
    for name in set(content) - {"kind", "contrastive_pairs"}:  # files without such pairs need not say so
        np.savez(path, **{key: value for key, value in content.items() if key != name})
        with pytest.raises(InvalidInputError, match="malformed"):
            AssignmentProblem.load(path)


def test_frames_of_other_features_are_refused() -> None:
    frame = pd.DataFrame(A, columns=[*"abcd"])
    with pytest.raises(InvalidInputError, match=r"'feature_bias'.*in the same order.*reindex"):
        problem(class_similarity=frame, redundancy=None, feature_bias=pd.Series(A[0], index=[*"abdc"]))
    with pytest.raises(InvalidInputError, match=r"'redundancy'.*in the same order"):
        problem(class_similarity=frame, redundancy=pd.DataFrame(R, index=[*"abdc"], columns=[*"abdc"]))


def test_rounding_is_no_asymmetry() -> None:
    skewed = R.copy()
    skewed[0, 1] *= 1 + 1e-12
    made = problem(redundancy=skewed).redundancy.toarray()
    assert np.array_equal(made, made.T)


# -- what it says of itself ----------------------------------------------------------------------------------------


def test_repr() -> None:
    text = repr(problem(excluded_features=[3], required_pairs=[(0, 1)]))
    assert "3 classes, 4 features" in text
    assert "keep 3 features, 2 per class" in text
    assert "2 penalised pairs (33.3%)" in text
    assert "1 excluded features, 1 required pairs" in text


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_terms_are_the_definition(seed: int) -> None:
    small = random_problem(seed)
    try:
        made = AssignmentProblem(**small.arguments())
    except InfeasibleProblemError:
        return
    rng = np.random.default_rng(seed)
    selected = np.sort(rng.choice(made.n_features, made.n_select, replace=False))
    weights = rng.integers(0, 2, (made.n_classes, made.n_select))
    terms = made.terms(selected, weights)
    sigma = 1000 / sum(small.n_per_class)
    similarity = sigma * sum(
        small.A[c, f] for c in range(made.n_classes) for j, f in enumerate(selected) if weights[c, j]
    )
    redundancy = -sum(small.penalties[i, j] for i in selected for j in selected if i < j)
    assert terms.similarity == pytest.approx(similarity, abs=1e-9)
    assert terms.redundancy == pytest.approx(redundancy, abs=1e-9)
    assert terms.bias == pytest.approx(small.bias[selected].sum(), abs=1e-9)
    assert terms.total == pytest.approx(terms.similarity + terms.redundancy + terms.bias)


# -- files ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_stored_problem_is_the_same(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        made = AssignmentProblem(**random_problem(seed).arguments(), class_labels=None)
    except InfeasibleProblemError:
        return
    path = tmp_path_factory.mktemp("problem") / "problem.npz"
    made.save(path)
    back = AssignmentProblem.load(path)
    for field in dataclasses.fields(made):
        first, second = getattr(made, field.name), getattr(back, field.name)
        if sp.issparse(first):
            first, second = first.toarray(), second.toarray()
        assert np.array_equal(first, second), field.name


def test_labels_are_stored(tmp_path: Path) -> None:
    problem(class_labels=["ä", "b", "c"], feature_labels=[10, 11, 12, 13]).save(tmp_path / "p.npz")
    back = AssignmentProblem.load(tmp_path / "p.npz")
    assert back.class_labels == ("ä", "b", "c")
    assert back.feature_labels == (10, 11, 12, 13)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(InvalidInputError, match="does not exist"):
        AssignmentProblem.load(path)
    problem().save(path)
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(InvalidInputError, match=r"damaged or is no \.npz file"):
            AssignmentProblem.load(path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(InvalidInputError, match=r"must hold a qpm_opt\.AssignmentProblem\. Got nothing known"):
        AssignmentProblem.load(path)
    with pytest.raises(InvalidInputError, match=r"'path'.*end in \.npz"):
        problem().save(tmp_path / "p.txt")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux")
def test_a_full_disk_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qpm_opt import QPMError, _storage

    path = tmp_path / "p.npz"
    problem().save(path)
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_storage.os, "fsync", full)
    with pytest.raises(QPMError, match=r"No space left on device\. What was there before is untouched"):
        problem(n_select=4).save(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["p.npz"]
