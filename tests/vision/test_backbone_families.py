"""Every family of backbones: maps, statistics, training, saving, loading; and weights from this machine only."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qpm_opt import InvalidInputError
from qpm_vision import _torchvision  # noqa: F401  (makes torchvision importable for the tests below)
from qpm_vision.backbones import RANDOM, Backbone, BackboneWeightsError, build_backbone
from qpm_vision.backbones.tokens import as_maps
from qpm_vision.backbones.torchvision_models import build_resnet
from qpm_vision.backbones.weights import load_weights
from qpm_vision.checkpoint import load_checkpoint, save_checkpoint
from qpm_vision.model import QPMClassifier
from qpm_vision.pipeline import run
from qpm_vision.statistics import FeatureStatistics, Locality
from qpm_vision.training import train
from qpm_vision.training_settings import TrainingSettings
from tests.vision.tiny import tiny_config, tiny_data

N_CLASSES = 3

_TRANSFORMERS: dict[str, tuple[dict[str, Any], int, int]] = {
    # kind: its configuration, features of the maps, side of the maps for 64 pixels
    "resnet": (
        {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        16,
        8,
    ),
    "convnext": ({"model_type": "convnext", "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}, 12, 8),
    "swin": (
        {
            "model_type": "swin",
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
            "image_size": 64,
        },
        16,
        8,
    ),
    "dinov2": (
        {
            "model_type": "dinov2",
            "hidden_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
            "image_size": 64,
        },
        12,
        8,
    ),
    "dinov2_with_registers": (
        {
            "model_type": "dinov2_with_registers",
            "hidden_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
            "image_size": 64,
        },
        12,
        8,
    ),
    "vit": (
        {
            "model_type": "vit",
            "hidden_size": 12,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 16,
            "image_size": 64,
        },
        12,
        4,
    ),
}
_PREPROCESSOR = {
    "do_resize": True,
    "size": {"shortest_edge": 80},
    "do_center_crop": True,
    "crop_size": {"height": 64, "width": 64},
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 3,
}

FAMILIES: dict[str, tuple[int, int, int]] = {
    # name: features, side of an image, side of its maps
    "efficientnet-lite0": (1280, 64, 2),
    "efficientnet-lite0-local": (480, 64, 4),
    "resnet18": (512, 64, 2),
    "resnet18-stride16": (512, 64, 4),
    "resnet34-stride8": (512, 64, 8),
    "resnet50-stride8": (2048, 64, 8),
    "inception-v3": (2048, 107, 2),
    "timm:test_resnet": (0, 64, 0),
    "timm:test_convnext": (0, 64, 0),
    "timm:test_vit": (0, 160, 0),
    "timm:swin_tiny_patch4_window7_224": (768, 96, 3),
    "timm:xcit_nano_12_p16_224": (128, 64, 4),
    "my": (6, 16, 8),
    **{f"hf:{kind}": (features, 64, side) for kind, (_, features, side) in _TRANSFORMERS.items()},
}


def _transformers_folder(kind: str, folder: Path) -> Path:
    """A folder as the library leaves it, with random weights."""
    pytest.importorskip("transformers")
    from transformers import AutoConfig, AutoModel

    values = dict(_TRANSFORMERS[kind][0])
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR))
    return folder


def _saved(state: dict[str, Tensor], file: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    return file


def _own_module(folder: Path) -> None:
    (folder / "some_backbones.py").write_text(
        "from torch import nn\n"
        "from qpm_vision import Backbone, Preprocessing\n"
        "def build():\n"
        "    settings = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)\n"
        "    return Backbone(nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU()), preprocessing=settings)\n"
        "def wrong():\n"
        "    return nn.ReLU()\n"
    )


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def builder(name: str) -> Backbone:
        if name.startswith("hf:"):
            return build_backbone(f"hf:{_transformers_folder(name[3:], tmp_path / 'model')}")
        if name == "my":
            _own_module(tmp_path)
            monkeypatch.chdir(tmp_path)
            monkeypatch.delitem(sys.modules, "some_backbones", raising=False)
            return build_backbone("some_backbones:build")
        return build_backbone(name, weights=None if name == "efficientnet-lite0" else RANDOM)

    return builder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_works_from_maps_to_a_saved_model(name: str, build: Any, tmp_path: Path) -> None:
    features, size, side = FAMILIES[name]
    torch.manual_seed(0)
    backbone = build(name)
    images = torch.randn(4, 3, size, size)
    labels = torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        maps = backbone.eval()(images)
    assert maps.shape[:2] == (4, backbone.n_features)
    assert maps.shape[2] == maps.shape[3]
    if features:
        assert maps.shape[1:] == (features, side, side)
    assert not torch.equal(maps[0], maps[1])

    statistics, locality = FeatureStatistics(N_CLASSES, backbone.n_features), Locality(backbone.n_features)
    statistics.update(maps.mean((2, 3)), labels)
    locality.update(maps)
    assert np.isfinite(statistics.class_similarity()).all()
    assert np.isfinite(locality.bias()).all()

    selected = [0, 2, 5]
    model = QPMClassifier(
        backbone,
        selected,
        [[1, 1, 0], [0, 1, 1], [1, 0, 1]],
        statistics.mean()[selected],
        statistics.std()[selected],
    )
    settings = TrainingSettings(epochs=1, batch_size=2, learning_rate=1e-3, augmentation="none")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    train(model, lambda _epoch: [(images[:2], labels[:2]), (images[2:], labels[2:])], settings)
    assert any(not torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())

    file = save_checkpoint(tmp_path / "model.safetensors", model, backbone.preprocessing)
    loaded, preprocessing, _ = load_checkpoint(file)
    assert preprocessing == backbone.preprocessing
    with torch.no_grad():
        torch.testing.assert_close(loaded(images).logits, model.eval()(images).logits, rtol=0, atol=0)


def test_finer_maps_take_the_same_weights(tmp_path: Path) -> None:
    coarse = build_backbone("resnet18", weights=RANDOM)
    _saved(coarse.module.state_dict(), tmp_path / "coarse.safetensors")
    fine = build_backbone("resnet18-stride8", weights=tmp_path / "coarse.safetensors")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        up_to_stage_2 = (network.eval().module[:6](images) for network in (coarse, fine))
        torch.testing.assert_close(*up_to_stage_2, rtol=0, atol=0)
        assert fine(images).shape[2:] == (8, 8)


def _small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))


# -- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_torchvision_names_fit(name: str) -> None:
    from torchvision import models

    with torch.device("meta"):
        theirs = getattr(models, name)(weights=None).state_dict()
        own = build_resnet(name).module.state_dict()
    assert set(theirs) == {*own, "fc.weight", "fc.bias"}
    assert all(theirs[key].shape == tensor.shape for key, tensor in own.items())


def test_inception_gives_what_torchvision_computes_from_its_own_normalisation(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    whole = models.inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    torch.save(whole.state_dict(), tmp_path / "inception.pth")
    backbone = build_backbone("inception-v3", weights=tmp_path / "inception.pth").eval()
    pixels = torch.rand(2, 3, 107, 107)
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    own_mean, own_std = (
        torch.tensor(v)[:, None, None] for v in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    found: list[Tensor] = []
    whole.Mixed_7c.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    with torch.no_grad():
        whole((pixels - mean) / std)
        torch.testing.assert_close(backbone((pixels - own_mean) / own_std), found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.model."])
@pytest.mark.parametrize("wrapping", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_found_whatever_their_names_begin_with(
    prefix: str, wrapping: str | None, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if suffix == ".safetensors" and wrapping:
        pytest.skip("safetensors files hold tensors only")
    source = _small().state_dict()
    given: Any = {prefix + key: tensor for key, tensor in source.items()} | {prefix + "fc.weight": torch.zeros(2, 2)}
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({wrapping: given, "epoch": 3} if wrapping else given, file)
    else:
        _saved(given, file)
    network = _small()
    with caplog.at_level("INFO"):
        load_weights(network, tmp_path)
    assert all(torch.equal(network.state_dict()[key], tensor) for key, tensor in source.items())
    assert "fc.weight" in caplog.text


def test_weights_of_a_part_fit_where_the_network_has_a_prefix_more(tmp_path: Path) -> None:
    timm_like = build_backbone("timm:test_vit", weights=RANDOM).module.network.state_dict()  # type: ignore[union-attr]
    _saved(timm_like, tmp_path / "vit.safetensors")
    loaded = build_backbone("timm:test_vit", weights=tmp_path / "vit.safetensors")
    assert all(torch.equal(loaded.module.network.state_dict()[key], value) for key, value in timm_like.items())  # type: ignore[union-attr]


def test_every_misfit_is_listed_and_nothing_is_changed(tmp_path: Path) -> None:
    state = _small().state_dict()
    del state["0.bias"]
    state["1.weight"] = torch.zeros(3)
    network = _small()
    before = network.state_dict()["0.weight"].clone()
    with pytest.raises(BackboneWeightsError) as caught:
        load_weights(network, _saved(state, tmp_path / "w.safetensors"))
    assert "missing '0.bias'" in str(caught.value)
    assert "'1.weight' is (3,) instead of (5,)" in str(caught.value)
    assert torch.equal(network.state_dict()["0.weight"], before)


@pytest.mark.parametrize("name", ["resnet50-stride8", "inception-v3", "timm:test_resnet"])
def test_nothing_starts_from_random_weights_unless_told_to(name: str) -> None:
    with pytest.raises(BackboneWeightsError, match="say 'random'"):
        build_backbone(name)


def test_a_folder_without_its_weights_is_refused(tmp_path: Path) -> None:
    folder = _transformers_folder("vit", tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneWeightsError, match="must hold the weights"):
        build_backbone(f"hf:{folder}")
    assert build_backbone(f"hf:{folder}", weights=RANDOM).n_features == 12


def test_a_folder_whose_weights_lack_a_tensor_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = _transformers_folder("dinov2", tmp_path)
    state = load_file(folder / "model.safetensors")
    del state["embeddings.cls_token"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneWeightsError, match="cls_token"):
        build_backbone(f"hf:{folder}")


def test_a_trained_run_goes_on_where_the_folder_of_its_backbone_is_gone(tmp_path: Path) -> None:
    folder = _transformers_folder("vit", tmp_path / "model")
    config = tiny_config(backbone=f"hf:{folder}", size=64)
    finished = run(config, tmp_path / "run", data=tiny_data())
    scores = finished.read_json("metrics.json")["qpm"]
    shutil.rmtree(folder)
    again = run(config, tmp_path / "run", data=tiny_data(), redo="evaluation")
    assert again.read_json("metrics.json")["qpm"] == scores
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        run(config, tmp_path / "run", data=tiny_data(), redo="dense")


def test_the_preprocessing_is_that_of_the_folder(tmp_path: Path) -> None:
    preprocessing = build_backbone(f"hf:{_transformers_folder('convnext', tmp_path)}").preprocessing
    assert (preprocessing.size, preprocessing.crop, preprocessing.interpolation) == (64, 0.8, "bicubic")
    assert preprocessing.mean == (0.5, 0.4, 0.3)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidInputError, match="preprocessor_config"):
        build_backbone(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda folder: (folder / "w.pth").write_bytes(b"rubbish"), "Cannot read the weights"),
        (lambda folder: (folder / "w.safetensors").write_bytes(b"rubbish"), "Cannot read the weights"),
        (lambda folder: torch.save({"epoch": 1}, folder / "w.pth"), "must hold tensors by name"),
        (lambda folder: torch.save(nn.Linear(2, 2), folder / "w.pth"), "Cannot read the weights"),
        (lambda folder: None, "must hold one file"),
    ],
)
def test_what_holds_no_weights_is_refused(make: Any, match: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(BackboneWeightsError, match=match):
        load_weights(_small(), tmp_path)


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("resnet51", "Did you mean 'resnet5?0?"),
        ("timm:convnext_tinny", "convnext_tiny"),
        ("hf:no/such/folder", r"config\.json"),
        ("no.such.module:build", "can be imported"),
        ("some_backbones:missing", "can be imported"),
        ("some_backbones:wrong", "must return a Backbone"),
        (":", "must be one of"),
    ],
)
def test_unknown_names_are_refused_with_a_remedy(
    name: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _own_module(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "some_backbones", raising=False)
    with pytest.raises(InvalidInputError, match=match):
        build_backbone(name, weights=RANDOM)


# -- tokens --------------------------------------------------------------------------------------------------------


def test_tokens_are_folded_row_by_row_without_those_in_front() -> None:
    tokens = torch.arange(2 * 7 * 3.0).reshape(2, 7, 3)
    maps = as_maps(tokens, (20, 30))
    assert maps is not None
    assert maps.shape == (2, 3, 2, 3)
    torch.testing.assert_close(maps[1, :, 1, 2], tokens[1, 6])
    torch.testing.assert_close(maps[0, :, 0, 0], tokens[0, 1])
    assert as_maps(tokens, (30, 30)) is None
