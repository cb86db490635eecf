"""The two classifiers: what they compute, what is trained, what is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qpm_opt import InvalidInputError
from qpm_vision.backbones import Backbone
from qpm_vision.model import DenseClassifier, ModelOutput, QPMClassifier, SparseClassifier

SELECTED = [4, 1, 2]
WEIGHTS = [[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]]
GOOD: dict[str, Any] = {"selected": SELECTED, "weights": WEIGHTS, "mean": [0.5, -1.0, 2.0], "std": [1.0, 0.5, 0.0]}


def backbone(n_features: int = 6) -> Backbone:
    return Backbone(nn.Conv2d(3, n_features, 3, stride=2, padding=1), n_features=n_features)


def test_dense_is_backbone_mean_and_linear_layer() -> None:
    model = DenseClassifier(backbone(), 4)
    images = torch.randn(5, 3, 8, 8)
    output = model(images)
    assert isinstance(output, ModelOutput)
    maps = model.backbone.module(images)
    torch.testing.assert_close(output.maps, maps)
    features = maps.flatten(2).sum(2) / 16
    torch.testing.assert_close(output.features, features)
    torch.testing.assert_close(output.logits, features @ model.head.weight.T + model.head.bias)
    assert model.weight is model.head.weight
    assert model.weight.shape == (4, 6)
    assert model.n_classes == 4


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 5))
def test_qpm_is_the_formula(seed: int, n_select: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    selected = rng.permutation(6)[:n_select]
    weights = rng.integers(0, 2, (n_classes, n_select))
    mean, std = rng.normal(size=n_select), rng.uniform(0.1, 2, n_select) * rng.integers(0, 2, n_select)
    model = QPMClassifier(backbone(), selected, weights, mean, std).eval()
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        output = model(images)
        maps = model.backbone(images).numpy().astype(np.float64)
    logits = np.zeros((3, n_classes))
    for i in range(3):
        for c in range(n_classes):
            for k in range(n_select):
                pooled = maps[i, selected[k]].mean()
                logits[i, c] += weights[c, k] * (pooled - mean[k]) / max(std[k], 1e-6)
    np.testing.assert_allclose(output.logits.numpy(), logits, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(logits).max()))
    np.testing.assert_array_equal(output.maps.numpy(), maps[:, selected].astype(np.float32))
    # Features are pooled maps, before they are normalised.
    np.testing.assert_allclose(output.features.numpy(), maps[:, selected].mean((2, 3)), atol=1e-5)


def test_only_the_backbone_is_trained_and_the_rest_is_in_the_state() -> None:
    model = QPMClassifier(backbone(), **GOOD)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"backbone"}
    state = model.state_dict()
    assert {"selected", "weight", "mean", "std"} <= set(state)
    assert state["selected"].dtype == torch.int64
    assert {state[name].dtype for name in ("weight", "mean", "std")} == {torch.float32}
    model(torch.randn(2, 3, 8, 8)).logits.sum().backward()
    assert model.backbone.module.weight.grad is not None
    assert model.weight.grad is None


def test_only_selected_maps_get_gradients() -> None:
    model = QPMClassifier(backbone(), **{**GOOD, "std": [1.0, 1.0, 1.0]}, dropout=0.0)
    output = model(torch.randn(2, 3, 8, 8))
    output.logits[:, 0].sum().backward()  # class 0 uses the columns 0 and 1: the features 4 and 1
    touched = model.backbone.module.weight.grad.abs().sum((1, 2, 3)) > 0
    assert touched.tolist() == [False, True, False, False, True, False]


def test_dropout_acts_on_normalised_features_while_training_only() -> None:
    model = QPMClassifier(backbone(), [0, 1], [[1, 0], [0, 1]], [0.0, 0.0], [1.0, 1.0], dropout=0.5)
    images = torch.randn(400, 3, 8, 8)
    torch.manual_seed(0)
    output = model.train()(images)
    dropped = output.logits == 0
    assert 0.4 < dropped.float().mean() < 0.6
    torch.testing.assert_close(output.logits[~dropped], 2 * output.features[~dropped])
    assert (output.features != 0).all()
    quiet = model.eval()(images)
    torch.testing.assert_close(quiet.logits, quiet.features)
    assert QPMClassifier(backbone(), **GOOD).dropout.p == 0.1


def test_from_dense_copies_the_backbone() -> None:
    dense = DenseClassifier(backbone(), 4)
    kept = copy.deepcopy(dense.state_dict())
    model = QPMClassifier.from_dense(dense, SELECTED, WEIGHTS, GOOD["mean"], GOOD["std"], dropout=0.0)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model(images).maps, dense(images).maps[:, SELECTED])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for name, tensor in dense.state_dict().items():
        assert torch.equal(tensor, kept[name])


def test_tensors_and_arrays_of_many_kinds_are_taken() -> None:
    plain = QPMClassifier(backbone(), **GOOD)
    for make in (np.asarray, torch.tensor):
        made: dict[str, Any] = {name: make(value) for name, value in GOOD.items()}
        other = QPMClassifier(backbone(), **made)
        for name in ("selected", "weight", "mean", "std"):
            assert torch.equal(getattr(other, name), getattr(plain, name))
    assert QPMClassifier(backbone(), SELECTED, np.array(WEIGHTS, dtype=bool), GOOD["mean"], GOOD["std"]).n_classes == 4


def test_buffers_are_not_shared_with_the_caller() -> None:
    mean = np.array([0.5, -1.0, 2.0], dtype=np.float32)
    model = QPMClassifier(backbone(), **{**GOOD, "mean": mean})
    mean[:] = 9
    assert model.mean.tolist() == [0.5, -1.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selected": [4, 1, 6]}, r"'selected'.*from 0 to 5. Got values from 1 to 6"),
        ({"selected": [4, -1, 2]}, r"'selected'.*Got values from -1 to 4"),
        ({"selected": [4, 1, 4]}, r"'selected'.*Got \[4\] more than once"),
        ({"selected": [4.0, 1.0, 2.0]}, r"'selected'.*integers.*Got dtype float64"),
        ({"selected": [[4, 1, 2]]}, r"'selected'.*1 dimension .*Got shape \(1, 3\)"),
        ({"selected": []}, r"'selected'.*at least one entry"),
        ({"weights": [[1, 0], [0, 1]]}, r"'weights'.*each of the 3 selected features. Got shape \(2, 2\)"),
        ({"weights": [1, 0, 1]}, r"'weights'.*2 dimensions.*Got shape \(3,\)"),
        ({"weights": [[1, 0, 0.5]]}, r"'weights'.*0 and 1 only"),
        ({"weights": [[1, 0, float("nan")]]}, r"'weights'.*0 and 1 only"),
        ({"weights": [[1, 0], [1]]}, r"'weights'.*rows that differ"),
        ({"weights": [["a", "b", "c"]]}, r"'weights'.*must hold numbers"),
        ({"mean": [0.0] * 6}, r"'mean'.*Got shape \(6,\); for values of all features pass mean\[selected\]"),
        ({"mean": [0.0, 0.0, float("nan")]}, r"'mean'.*finite. Got 1 NaN"),
        ({"std": [1.0, float("inf"), 1.0]}, r"'std'.*finite"),
        ({"std": [1.0, -0.5, 1.0]}, r"'std'.*not negative. Got -0\.5"),
        ({"dropout": 1.0}, r"'dropout'.*below 1. Got 1\.0"),
        ({"dropout": float("nan")}, r"'dropout'"),
    ],
)
def test_wrong_values_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        QPMClassifier(backbone(), **{**GOOD, **changes})


def test_validate_looks_again() -> None:
    model = QPMClassifier(backbone(), **GOOD)
    model.validate()
    model.weight[0, 0] = 0.5
    with pytest.raises(InvalidInputError, match="0 and 1 only"):
        model.validate()


def test_plain_modules_and_impossible_class_counts_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"'backbone'.*Got a Conv2d; wrap it"):
        DenseClassifier(nn.Conv2d(3, 4, 1), 2)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"'backbone'.*wrap it"):
        QPMClassifier(nn.Conv2d(3, 4, 1), **GOOD)  # type: ignore[arg-type]
    for wrong in (0, True, 2.0):
        with pytest.raises(InvalidInputError, match=r"'n_classes'"):
            DenseClassifier(backbone(), wrong)  # type: ignore[arg-type]


# -- real weights --------------------------------------------------------------------------------------------------


def test_sparse_is_the_formula_with_a_bias() -> None:
    weights = [[0.5, 0.0, -2.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    bias = [0.5, -1.0, 2.0, 0.0]
    values = {**GOOD, "weights": weights}
    model = SparseClassifier(backbone(), **values, bias=bias).eval()
    binary = QPMClassifier(model.backbone, **GOOD).eval()
    images = torch.randn(3, 3, 8, 8)
    output, other = model(images), binary(images)
    torch.testing.assert_close(output.maps, other.maps)
    torch.testing.assert_close(output.features, other.features)
    normalised = (output.features - model.mean) / model.std.clamp(min=1e-6)
    torch.testing.assert_close(output.logits, normalised @ torch.tensor(weights).T + torch.tensor(bias))
    assert {name for name, _ in model.named_parameters()} == {"backbone.module.weight", "backbone.module.bias"}
    assert model.n_classes == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [[float("nan")] * 3]}, "'weights' parameter must be finite. Got 3"),
        ({"weights": [[1.0, 2.0]]}, "a column for each of the 3 selected"),
        ({"bias": [0.0]}, "'bias' parameter must have an entry for each of the 4 classes"),
        ({"bias": [0.0, float("inf"), 0.0, 0.0]}, "'bias' parameter must be finite"),
    ],
)
def test_what_a_sparse_head_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SparseClassifier(backbone(), **{**GOOD, "bias": [0.0] * 4, **changes})
