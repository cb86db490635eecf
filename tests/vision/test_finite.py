"""NaN and infinity are errors with a remedy, wherever they come from, and never a class."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from qpm_opt import InvalidInputError, QPMError
from qpm_vision import build_backbone, load_model
from qpm_vision._finite_output import NotFiniteError
from qpm_vision.backbones import Backbone, BackboneWeightsError, register_backbone
from qpm_vision.backbones.finite import not_finite
from qpm_vision.backbones.trial import try_out
from qpm_vision.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from qpm_vision.cli import main
from qpm_vision.explain.gallery import collect_gallery
from qpm_vision.export import ExportError, export_model
from qpm_vision.model import DenseClassifier
from qpm_vision.pipeline import evaluate_run, run
from qpm_vision.predict import Predictor
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.report import gather_report
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.training import TrainingError, accuracy, train
from qpm_vision.training_settings import TrainingSettings
from tests.vision.tiny import TINY_SIZE, tiny_backbone, tiny_config, tiny_data

pytestmark = pytest.mark.usefixtures("tiny_registered")


def _spoilt(finished: RunFolder, folder: Path, value: float, model: str = "qpm") -> tuple[Path, str]:
    """A copy of a run whose model has one bad value, and the name of the tensor."""
    shutil.copytree(finished.path, folder)
    file = folder / f"{model}.safetensors"
    tensors = load_file(file)
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    name = next(name for name in tensors if name.endswith("2.weight"))
    tensors[name].view(-1)[1] = value
    save_file(tensors, file, metadata=metadata)
    return folder, name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_predict_does_not_name_a_class_with_spoilt_weights(
    value: float, finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, name = _spoilt(finished, tmp_path / "run", value)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (20, 20), "red").save(photo)
    assert main(["predict", str(folder), str(photo)]) != 0
    told = capsys.readouterr()
    assert "nan" not in told.out
    assert f"1 NaN or infinite of 432 values in '{name}'" in told.err
    assert "--redo fine-tuning" in told.err
    with pytest.raises(RunFolderError, match="NaN or infinite"):
        load_model(folder)


def test_nothing_else_uses_spoilt_weights(finished: RunFolder, tmp_path: Path) -> None:
    folder, name = _spoilt(finished, tmp_path / "run", np.nan)
    uses: list[Callable[[], Any]] = [
        lambda: evaluate_run(folder, tiny_data(), device="cpu"),
        lambda: gather_report(RunFolder(folder), data=tiny_data(), device="cpu"),
        lambda: export_model(folder, tmp_path / "m.pt2"),
        lambda: run(tiny_config(), folder, data=tiny_data(), redo="evaluation"),
    ]
    for use in uses:
        with pytest.raises(QPMError, match=f"NaN or infinite of 432 values in '{name}'"):
            use()


def test_models_in_memory_are_refused_as_well(finished: RunFolder, tmp_path: Path) -> None:
    predictor = load_model(finished)
    weight = next(iter(predictor.model.backbone.parameters()))
    with torch.no_grad():
        weight[0, 0, 0, 0] = torch.nan
    picture = Image.new("RGB", (20, 20), "red")
    with pytest.raises(NotFiniteError, match=r"Got NaN.*'image 0' and 0 more of 1.*values in 'backbone.*train again"):
        predictor.predict(picture)
    with pytest.raises(ExportError, match="finite tensors"):
        export_model(predictor, tmp_path / "m.pt2")
    with pytest.raises(InvalidInputError, match=r"finite tensors. Got 1 NaN"):
        save_checkpoint(tmp_path / "m.safetensors", predictor.model, predictor.preprocessing)
    assert not list(tmp_path.iterdir())
    batches = [(torch.zeros(3, 3, TINY_SIZE, TINY_SIZE), torch.tensor([0, 1, 2]))]
    with pytest.raises(NotFiniteError, match="image 0 and 2 more"):
        accuracy(predictor.model, batches)
    with pytest.raises(NotFiniteError):
        collect_gallery(predictor.model, batches, n_classes=4, n_images=3)


def test_values_that_overflow_are_told_from_weights_that_are_spoilt(finished: RunFolder) -> None:
    predictor: Predictor = load_model(finished)
    with torch.no_grad():
        for parameter in predictor.model.backbone.parameters():
            parameter.fill_(1e30)
    with pytest.raises(NotFiniteError, match="weights are finite, so its values leave the range"):
        predictor.predict(Image.new("RGB", (20, 20), "white"))


def test_checkpoints_are_refused(tmp_path: Path) -> None:
    file = save_checkpoint(
        tmp_path / "m.safetensors", DenseClassifier(tiny_backbone(), 2), tiny_backbone().preprocessing
    )
    content = bytearray(file.read_bytes())
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    begin = len(content) - max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    place = begin + header["head.bias"]["data_offsets"][0]
    content[place : place + 4] = struct.pack("<f", np.inf)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"1 NaN or infinite of 2 values in 'head\.bias'.*train again"):
        load_checkpoint(file, backbone=tiny_backbone())


# -- backbones -----------------------------------------------------------------------------------------------------


def _spoilt_backbone() -> Backbone:
    backbone = tiny_backbone()
    with torch.no_grad():
        next(iter(backbone.parameters()))[0, 0, 0, 0] = torch.nan
    return backbone


def test_weights_that_come_with_a_backbone_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from qpm_vision import backbones

    monkeypatch.setattr(backbones, "_ENTRIES", dict(backbones._ENTRIES))
    register_backbone("spoilt", _spoilt_backbone)
    with pytest.raises(BackboneWeightsError, match=r"'spoilt' must be finite. Got 1 NaN.*'module\.0\.weight'"):
        build_backbone("spoilt")


class _Cut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.inner(images).detach()
        return maps


class _Masking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.inner(images * (torch.rand_like(images) > 0.5))
        return maps


class _Roots(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self[1].running_var = torch.full((4,), -1.0)


@pytest.mark.parametrize(
    ("module", "size", "match"),
    [
        (_Cut(), 16, r"let gradients through.*no_grad, detach"),
        (_Masking(), 16, r"same maps for the same image.*at random"),
        (_Roots(), 16, r"finite maps. Got NaN or infinite maps, first behind its part 'module\.1'"),
        (nn.Sequential(nn.Conv2d(3, 4, 9), nn.Conv2d(4, 4, 7)), 12, r"'size'.*Got 12: .*[Kk]ernel.*use 16"),
    ],
)
def test_a_backbone_is_tried_before_it_is_trained(module: nn.Module, size: int, match: str) -> None:
    backbone = Backbone(module, n_features=4, preprocessing=Preprocessing(16, (0.5,) * 3, (0.5,) * 3))
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(InvalidInputError, match=match):
        try_out(backbone, size)
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.parameters())


# -- training ------------------------------------------------------------------------------------------------------

SETTINGS = TrainingSettings(epochs=2, batch_size=4, learning_rate=1e-3, augmentation="none")


def _batches(pixels: torch.Tensor) -> Any:
    return lambda _epoch: [(pixels, torch.tensor([0, 1, 0, 1]))]


def test_training_tells_bad_images_from_bad_weights_and_from_divergence() -> None:
    images = torch.randn(4, 3, TINY_SIZE, TINY_SIZE)
    holed = images.clone()
    holed[2, 0, 3, 3] = torch.nan
    model = DenseClassifier(tiny_backbone(), 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TrainingError, match=r"It was the images: 1 of the 4.*first at place 2"):
        train(model, _batches(holed), SETTINGS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(TrainingError, match="Lower the 'learning_rate'"):
        train(model, _batches(images * 1e30), SETTINGS)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())
    with pytest.raises(TrainingError, match=r"'model'.*before its training. Got 1 NaN.*backbone\.module\.0\.weight"):
        train(DenseClassifier(_spoilt_backbone(), 2), _batches(images), SETTINGS)


def test_arrays_with_nan_are_no_images(finished: RunFolder) -> None:
    predictor = load_model(finished)
    pixels = np.full((20, 20, 3), np.nan, dtype=np.float32)
    for given in (pixels, pixels[None], torch.from_numpy(pixels), [pixels]):
        with pytest.raises(InvalidInputError, match="uint8 array"):
            predictor.predict(given)
    with pytest.raises(QPMError, match="no pixel is a finite number"):
        predictor.predict(Image.fromarray(pixels[..., 0]))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
def test_nan_is_found_in_short_floats(dtype: torch.dtype) -> None:
    assert not_finite({"a": torch.ones(3).to(dtype)}) is None
    assert not_finite({"a": torch.tensor([1.0, torch.nan]).to(dtype)}) == "1 NaN or infinite of 2 values in 'a'"
