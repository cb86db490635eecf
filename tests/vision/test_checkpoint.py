"""Checkpoints: round trips, atomic writing, damage, misfits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import qpm_vision.backbones as backbones
import qpm_vision.checkpoint as checkpoint
from qpm_opt import InvalidInputError, QPMError
from qpm_vision.backbones import Backbone, build_backbone, register_backbone
from qpm_vision.checkpoint import (
    CheckpointError,
    ProtocolMismatchError,
    load_checkpoint,
    require_preprocessing,
    save_checkpoint,
)
from qpm_vision.model import DenseClassifier, QPMClassifier, SparseClassifier
from qpm_vision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Preprocessing(16, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), "bicubic", 0.9)
NAMES = ["가", "b", "c"]


def module(n_features: int = 6) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, n_features, 3, padding=1), nn.BatchNorm2d(n_features), nn.ReLU())


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_ENTRIES", dict(backbones._ENTRIES))
    register_backbone("small", lambda: Backbone(module(), n_features=6))


def dense() -> DenseClassifier:
    model = DenseClassifier(build_backbone("small"), 3)
    model(torch.randn(8, 3, 16, 16))  # moves the running statistics
    return model.eval()


def qpm() -> QPMClassifier:
    return QPMClassifier.from_dense(
        dense(), [5, 0, 2, 3], [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], [0.1] * 4, [0.5] * 4, dropout=0.25
    ).eval()


def sparse() -> SparseClassifier:
    weights = [[0.5, 0, 0], [0, -2, 0], [0, 1e-3, 4]]
    return SparseClassifier(build_backbone("small"), [5, 0, 2], weights, [0.1, 0, -3], [0.1] * 3, [0.5] * 3, 0.2).eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "model.safetensors", qpm(), SMALL, {"class_names": NAMES})


# -- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [dense, qpm, sparse])
def test_round_trip(tmp_path: Path, make: Any) -> None:
    model = make()
    extra = {"class_names": NAMES, "config": {"seed": 3, "size": None, "rates": [0.1, 1e-7]}}
    path = tmp_path / "model.safetensors"
    assert save_checkpoint(str(path), model, SMALL, extra) == path
    again, preprocessing, kept = load_checkpoint(str(path))
    assert type(again) is type(model)
    assert preprocessing == SMALL == again.backbone.preprocessing
    assert kept == extra
    assert not again.training
    state = again.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == tensor.dtype
    images = torch.randn(4, 3, 16, 16)
    for ours, theirs in zip(again(images), model(images), strict=True):
        assert torch.equal(ours, theirs)
    if isinstance(again, QPMClassifier):
        assert again.dropout.p == 0.25


def test_the_header_says_what_it_is_without_this_package(file: Path) -> None:
    with safe_open(file, framework="pt") as content:
        header = json.loads(content.metadata()["qpm"])
    assert header["extra"] == {"class_names": NAMES}
    assert {name: header[name] for name in header if name not in ("extra", "preprocessing")} == {
        "format": 1,
        "kind": "qpm",
        "backbone": "small",
        "backbone_description": None,
        "layer": None,
        "n_classes": 3,
        "n_features": 6,
        "class_names": NAMES,
        "n_select": 4,
        "dropout": 0.25,
    }
    assert Preprocessing.from_dict(header["preprocessing"]) == SMALL


def test_lite0_comes_back_without_its_packaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = DenseClassifier(build_backbone("efficientnet-lite0", weights="random"), 3).eval()
    path = save_checkpoint(tmp_path / "lite0.safetensors", model, SMALL)
    monkeypatch.setattr("qpm_vision.backbones.efficientnet_lite0._WEIGHTS_PACKAGE", "there_is_no_such_package")
    again, _, extra = load_checkpoint(path)
    assert extra == {}
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images).logits, model(images).logits)


def test_a_backbone_without_a_name_is_given_when_loading(tmp_path: Path) -> None:
    model = DenseClassifier(Backbone(module(), n_features=6), 2).eval()
    path = save_checkpoint(tmp_path / "own.safetensors", model, SMALL)
    with pytest.raises(CheckpointError, match=r"own\.safetensors.*no name. Pass one.*backbone="):
        load_checkpoint(path)
    again, _, _ = load_checkpoint(path, backbone=Backbone(module(), n_features=6))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(again(images).logits, model(images).logits)


def test_parts_that_share_their_weights(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)
            self.second = self.first

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.second(self.first(images))
            return made

    model = DenseClassifier(Backbone(Twice(), n_features=3), 2).eval()
    path = save_checkpoint(tmp_path / "shared.safetensors", model, SMALL)
    again, _, _ = load_checkpoint(path, backbone=Backbone(Twice(), n_features=3))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(again(images).logits, model(images).logits)


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_former_file_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"Cannot write.*model\.safetensors.*No space left.*untouched"):
        save_checkpoint(file, dense(), SMALL)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_write_that_is_interrupted_leaves_no_temporary_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_flush", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(file, dense(), SMALL)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_written_file_replaces_the_former_and_is_as_readable_as_others(file: Path) -> None:
    save_checkpoint(file, dense(), SMALL)
    assert isinstance(load_checkpoint(file)[0], DenseClassifier)
    plain = file.with_name("plain")
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode


def test_what_cannot_be_written_is_refused_before(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(InvalidInputError, match=r"'extra'.*3 classes.*Got 2"):
        save_checkpoint(path, dense(), SMALL, {"class_names": ["a", "b"]})
    for value in (torch.zeros(2), float("nan")):
        with pytest.raises(InvalidInputError, match=r"'extra'.*JSON"):
            save_checkpoint(path, dense(), SMALL, {"x": value})
    assert not path.exists()
    with pytest.raises(CheckpointError, match=r"Cannot write.*nowhere"):
        save_checkpoint(tmp_path / "nowhere" / "model.safetensors", dense(), SMALL)


# -- damage and misfits --------------------------------------------------------------------------------------------


def test_no_prefix_of_a_file_is_taken_for_a_file(file: Path) -> None:
    content = file.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1}:
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors.*(cut off|lacks).*Restore it, or train again"):
            load_checkpoint(file)


@pytest.mark.parametrize("content", [b"hello", b"\xff" * 64, b"PK\x03\x04" + b"\0" * 60])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.safetensors.*no safetensors file"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"no checkpoint.*missing\.safetensors"):
        load_checkpoint(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)


def rewritten(file: Path, header: dict[str, Any] | None = None, **tensors: torch.Tensor | None) -> Path:
    """The file with some keys of the header and some tensors replaced, or left out where they are None."""
    with safe_open(file, framework="pt") as content:
        kept = json.loads(content.metadata()["qpm"])
        all_tensors: dict[str, Any] = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    all_tensors.update(tensors)
    kept.update(header or {})
    save_file(
        {name: tensor for name, tensor in all_tensors.items() if tensor is not None},
        file,
        metadata={"qpm": json.dumps({name: value for name, value in kept.items() if value != "left out"})},
    )
    return file


def test_every_tensor_that_does_not_fit_is_listed(file: Path) -> None:
    changed: dict[str, Any] = {
        "mean": None,
        "backbone.module.0.weight": torch.zeros(6, 3, 5, 5),
        "std": torch.zeros(4, dtype=torch.float64),
        "more": torch.zeros(1),
    }
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(rewritten(file, **changed))
    message = str(caught.value)
    for part in (
        "missing 'mean'",
        "unexpected 'more'",
        "'backbone.module.0.weight' is float32 (6, 3, 5, 5) instead of float32 (6, 3, 3, 3)",
        "'std' is float64 (4,) instead of float32 (4,)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": 2}, r"must have format 1. Got 2; read it with the release"),
        ({"format": "left out"}, r"must have format 1. Got None"),
        ({"kind": "tree"}, r"unknown kind of model \('tree'\)"),
        ({"preprocessing": "left out"}, r"header is incomplete \('preprocessing'\)"),
        ({"preprocessing": {"size": 3}}, r"header is incomplete"),
        ({"n_select": None}, r"header does not fit"),
        ({"n_select": 9}, r"header does not fit.*'selected'"),
        ({"n_classes": -1}, r"header does not fit"),
        ({"dropout": 7}, r"header does not fit.*'dropout'"),
        ({"backbone": "smal"}, r"needs its backbone.*Got 'smal'. Did you mean 'small'\? Or pass one"),
        ({"n_classes": 4}, r"'weight' is float32 \(3, 4\) instead of float32 \(4, 4\)"),
    ],
)
def test_headers_that_do_not_fit_are_refused(file: Path, header: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(rewritten(file, header))
    assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"selected": torch.tensor([0, 1, 2, 6])}, r"'selected'.*from 0 to 5"),
        ({"weight": torch.full((3, 4), 0.5)}, r"'weights'.*0 and 1 only"),
        ({"mean": torch.full((4,), float("nan"))}, r"'mean'.*finite"),
    ],
)
def test_values_that_no_model_can_have_are_refused(file: Path, tensors: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(rewritten(file, **tensors))


def test_a_safetensors_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not written by this package"):
        load_checkpoint(path)
    for header in ("[]", "no JSON"):
        save_file({"x": torch.zeros(1)}, path, metadata={"qpm": header})
        with pytest.raises(CheckpointError, match=r"other\.safetensors"):
            load_checkpoint(path)


# -- protocol ------------------------------------------------------------------------------------------------------


def test_another_preprocessing_is_refused_with_what_differs() -> None:
    require_preprocessing(SMALL, Preprocessing.from_dict(SMALL.to_dict()))
    other = Preprocessing.from_dict({**SMALL.to_dict(), "size": 32, "crop": 1.0})
    with pytest.raises(ProtocolMismatchError, match=r"size: 16 ≠ 32; crop: 0\.9 ≠ 1\.0") as caught:
        require_preprocessing(SMALL, other)
    assert isinstance(caught.value, QPMError)
    assert isinstance(caught.value, ValueError)
    for same in ("mean", "std", "interpolation"):
        assert f"{same}:" not in str(caught.value)
