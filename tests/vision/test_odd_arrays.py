"""Arrays and lists of any origin, given to functions on images and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import qpm_vision
from qpm_opt import InvalidInputError
from qpm_vision.metrics import compactness, structural_grounding
from qpm_vision.run_folder import RunFolder
from qpm_vision.statistics import class_similarity, feature_redundancy, scale_bias
from tests.vision.tiny import tiny_data

FEATURES = np.random.default_rng(0).integers(1, 9, (6, 3)).astype(np.float32)
LABELS = [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (pd.DataFrame(FEATURES).astype("Int64"), pd.Series(LABELS, dtype="Int64")),
        (pd.DataFrame(FEATURES).astype("Float64"), pd.Index(LABELS)),
        (torch.tensor(FEATURES, requires_grad=True), torch.tensor(LABELS)),
        (torch.tensor(FEATURES).to_sparse(), iter(LABELS)),
        (np.asfortranarray(FEATURES)[::-1], tuple(LABELS[::-1])),
        (torch.tensor(FEATURES).bfloat16(), np.array(LABELS, dtype=np.uint8)),
        (torch.tensor(FEATURES).half(), LABELS),
    ],
)
def test_features_of_any_kind(features: Any, labels: Any) -> None:
    np.testing.assert_allclose(class_similarity(features, labels), class_similarity(FEATURES, LABELS))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(6, 3, device="meta"), "'meta'"),
        (torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged), "nested"),
        (pd.DataFrame({"a": [1, None]}, dtype="Int64"), "no missing values"),
        (pd.DataFrame({"a": ["x", "y"]}, dtype="category"), "real numbers"),
        (torch.ones(6, 3) * 1j, "real numbers"),
    ],
)
def test_features_that_are_none(value: Any, message: str) -> None:
    for function in (feature_redundancy, compactness, lambda given: class_similarity(given, LABELS)):
        with pytest.raises(InvalidInputError, match=message):
            function(value)


def test_series_and_labels_that_are_no_numbers() -> None:
    np.testing.assert_array_equal(scale_bias(pd.Series([1, 2, 4], dtype="Int64")), scale_bias([1.0, 2.0, 4.0]))
    with pytest.raises(InvalidInputError, match="must hold class indices"):
        class_similarity(FEATURES, pd.Series(list("aabbcc"), dtype="category"))
    with pytest.raises(InvalidInputError, match="no missing values"):
        class_similarity(FEATURES, pd.Series([0, 0, 1, 1, 2, None], dtype="Int64"))
    with pytest.raises(InvalidInputError, match="'meta'"):
        structural_grounding(torch.ones(2, 2, device="meta"), np.ones((2, 2)))


def test_images_may_be_listed_by_anything(finished: RunFolder, tmp_path: Path) -> None:
    test = tiny_data().test
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"{number}.png")
        test.image(number).save(paths[-1])
    texts = [str(path) for path in paths]
    model = qpm_vision.load_model(str(finished.path).encode())
    expected = [item.to_dict() for item in model.predict(paths)]
    for given in (
        tuple(paths),
        (path for path in paths),
        np.array(texts),
        np.array(paths, dtype=object),
        pd.Series(texts),
        pd.Series(texts, dtype="category"),
        pd.Index(texts),
    ):
        assert [item.to_dict() for item in model.predict(given)] == expected
    for wrong in ([1.5], np.ones(3), pd.DataFrame({"path": texts}), {"path": texts}, pd.Series([texts[0], None])):
        with pytest.raises(InvalidInputError, match="'images' parameter must be"):
            model.predict(wrong)
