"""What holds numbers is taken, whoever made it; what does not is told in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from qpm_opt import AssignmentProblem, InvalidInputError, penalties_from_similarity, plain_array, solve_assignment

VALUES = np.arange(12.0).reshape(3, 4) + 1


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame(VALUES).astype("Int64"),
        pd.DataFrame(VALUES).astype("Float64"),
        pd.DataFrame(VALUES).astype({0: "Float32", 1: "Int8"}),
        pd.DataFrame(VALUES).astype(pd.SparseDtype(float)),
        (row for row in VALUES),
        sp.coo_array(VALUES),
        sp.dok_array(VALUES),
        sp.lil_matrix(VALUES),
        sp.bsr_array(VALUES),
        sp.dia_array(VALUES),
        VALUES.astype(np.float16),
        VALUES.astype(">f4"),
        VALUES.astype(np.longdouble),
    ],
)
def test_numbers_are_numbers(value: Any) -> None:
    problem = AssignmentProblem(value, n_select=3, n_per_class=1)
    np.testing.assert_array_equal(problem.class_similarity, VALUES)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            pd.DataFrame({"a": [1, None], "b": [3, 4]}, dtype="Int64"),
            r"no missing values. Got 1, .*\[1, 0\]",
        ),
        (pd.DataFrame({"a": ["1", "2"]}, dtype="string"), "must hold real numbers"),
        (pd.DataFrame({"a": ["1", "2"]}, dtype="category"), "must hold real numbers"),
        (pd.DataFrame({"a": pd.to_datetime(["2026-01-01"])}), "must hold real numbers"),
        (sp.coo_array(np.ones((2, 2, 2))), "must have 2 dimensions"),
        (sp.coo_array(np.ones(3)), "must have 2 dimensions"),
        (sp.csr_array(VALUES + 1j), "must hold real numbers"),
        (VALUES + 1j, "must hold real numbers"),
    ],
)
def test_what_holds_no_matrix_of_numbers_is_told(value: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        AssignmentProblem(value, n_select=3, n_per_class=1)


def test_sparse_matrices_of_other_shapes_or_with_wrong_indices_are_no_penalties() -> None:
    with pytest.raises(InvalidInputError, match="'redundancy' parameter must have 2 dimensions"):
        AssignmentProblem(VALUES, sp.coo_array(np.zeros((4, 4, 2))), n_select=3, n_per_class=1)
    wrong = sp.csr_array(np.ones((4, 4)))
    wrong.indices[0] = 900
    with pytest.raises(InvalidInputError, match="well-formed sparse matrix"):
        AssignmentProblem(VALUES, wrong, n_select=3, n_per_class=1)
    with pytest.raises(InvalidInputError, match="'similarity' parameter must have 2 dimensions"):
        penalties_from_similarity(sp.coo_array(np.zeros((4, 4, 2))), n_select=2)


@pytest.mark.parametrize("make", [np.array, list, tuple, pd.Series, lambda mask: pd.array(mask, dtype="boolean")])
def test_features_may_be_given_as_a_mask(make: Any) -> None:
    mask = make([False, True, False, True])
    problem = AssignmentProblem(VALUES, n_select=3, n_per_class=1, required_features=mask)
    assert problem.required_features.tolist() == [1, 3]
    assert solve_assignment(problem, start=mask, solver="local_search", time_limit=1).solution is not None
    with pytest.raises(InvalidInputError, match=r"one entry for each of the 4 features\. Got 3 booleans"):
        AssignmentProblem(VALUES, n_select=3, n_per_class=1, excluded_features=make([True, False, True]))


def test_pairs_may_be_given_as_a_mask_or_a_frame() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    for given in (mask, pd.DataFrame({"class": [1], "feature": [2]})):
        problem = AssignmentProblem(VALUES, n_select=3, n_per_class=1, forbidden_pairs=given)
        assert problem.forbidden_pairs.tolist() == [[1, 2]]
    with pytest.raises(InvalidInputError, match=r"have the shape \(3, 4\)"):
        AssignmentProblem(VALUES, n_select=3, n_per_class=1, forbidden_pairs=mask.T)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_of_all_kinds() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(VALUES)
    good = [
        tensor.clone().requires_grad_(),
        tensor.bfloat16(),
        tensor.half(),
        tensor.to_sparse(),
        tensor.to_sparse_csr(),
        torch.quantize_per_tensor(tensor.float(), 1.0, 0, torch.qint8),
        torch._neg_view(-tensor),
    ]
    for value in good:
        np.testing.assert_array_equal(plain_array("x", value), VALUES)
    bad = {
        "'meta'": tensor.to("meta"),
        "nested": torch.nested.nested_tensor([tensor[0], tensor[0, :2]], layout=torch.jagged),
        "real numbers": tensor + 1j,
    }
    for message, value in bad.items():
        with pytest.raises(InvalidInputError, match=message):
            plain_array("x", value)
    with pytest.raises(InvalidInputError, match="'meta'"):
        AssignmentProblem(VALUES, n_select=3, n_per_class=1, required_features=torch.ones(2, device="meta"))
