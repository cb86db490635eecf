"""Exported graphs compute what the model computes, say how to use them, and are never left half-written or wrong."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import qpm_vision.export as export
from qpm_opt import InvalidInputError
from qpm_vision import cli
from qpm_vision.backbones import Backbone
from qpm_vision.export import Exported, ExportError, export_model
from qpm_vision.model import QPMClassifier
from qpm_vision.predict import Predictor, load_model
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.run_folder import RunFolder, RunFolderError
from tests.vision.tiny import CLASSES, TINY_SIZE, tiny_backbone, tiny_data

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export._ONNX_PACKAGES), reason="qpm[export] is not installed"
)


pytestmark = pytest.mark.usefixtures("tiny_registered")


@pytest.fixture(scope="module")
def predictor(finished: RunFolder) -> Predictor:
    return load_model(finished, device="cpu")


@pytest.fixture(scope="module")
def program(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_model(predictor, tmp_path_factory.mktemp("pt2") / "model.pt2")


def _images(number: int) -> Tensor:
    return torch.randn(number, 3, TINY_SIZE, TINY_SIZE, generator=torch.Generator().manual_seed(number))


def _agree(predictor: Predictor, logits: Any, features: Any, images: Tensor) -> None:
    with torch.no_grad():
        expected = predictor.model(images)
    np.testing.assert_allclose(logits, expected.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features, expected.features, rtol=1e-4, atol=1e-6)


def test_a_program_computes_what_the_model_computes(predictor: Predictor, program: Exported) -> None:
    graph = torch.export.load(program.path).module()
    for number in (1, 2, 5):
        _agree(predictor, *graph(_images(number)), _images(number))
    assert program.difference < 1e-4
    assert program.batch_sizes == (1, 3)
    assert sorted(path.name for path in program.path.parent.iterdir()) == ["model.json", "model.pt2"]


@needs_onnx
def test_onnx_computes_what_the_model_computes(finished: RunFolder, predictor: Predictor, tmp_path: Path) -> None:
    import onnxruntime

    done = export_model(finished.path, tmp_path / "new" / "model.onnx")
    assert sorted(path.name for path in done.path.parent.iterdir()) == ["model.json", "model.onnx"]
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_outputs()] == ["logits", "features"]
    for number in (1, 2, 5):
        _agree(predictor, *session.run(None, {"images": _images(number).numpy()}), _images(number))


def test_the_sidecar_is_enough_to_use_the_graph(predictor: Predictor, program: Exported) -> None:
    """From a picture to a class and its features, with what the two files hold and nothing else of this package."""
    sidecar = json.loads(program.sidecar.read_text(encoding="utf-8"))
    graph = torch.export.load(program.path.parent / sidecar["graph"]).module()
    picture = tiny_data().test.image(4)
    assert sidecar["class_names"] == list(CLASSES)
    assert sidecar["input"]["shape"] == ["batch", 3, TINY_SIZE, TINY_SIZE]
    logits, features = graph(Preprocessing.from_dict(sidecar["preprocessing"]).transform()(picture)[None])
    (prediction,) = predictor.predict(picture)
    np.testing.assert_allclose(logits[0], prediction.logits, atol=1e-5)
    normalised = (features[0].numpy() - sidecar["mean"]) / np.maximum(sidecar["std"], 1e-6)
    np.testing.assert_allclose(normalised @ np.transpose(sidecar["weights"]), prediction.logits, atol=1e-4)
    first = prediction.features[0]
    assert sidecar["selected"][first.column] == first.feature
    assert normalised[first.column] == pytest.approx(first.contribution, abs=1e-5)
    assert sidecar["full_strength"] == predictor.statistics["full_strength"].tolist()
    assert set(sidecar["version"]) == {"qpm", "torch"}


def test_images_can_be_prepared_as_the_sidecar_says(program: Exported, predictor: Predictor) -> None:
    """Its steps, followed with Pillow and NumPy alone, for an image that is resized and cut."""
    sidecar = json.loads(program.sidecar.read_text(encoding="utf-8"))
    values, steps = sidecar["preprocessing"], sidecar["preparation"]
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (43, 77, 3), dtype=np.uint8))
    size = values["size"]
    assert f"short side has {size} pixels" in steps[1]
    assert f"{values['interpolation']} resampling" in steps[2]
    resized = image.resize(
        (math.floor(size * 77 / 43), size), getattr(Image.Resampling, values["interpolation"].upper())
    )
    left = round((resized.width - size) / 2)
    pixels = np.asarray(resized.crop((left, 0, left + size, size)), dtype=np.float32)
    prepared = ((pixels / 255 - values["mean"]) / values["std"]).transpose(2, 0, 1)
    np.testing.assert_allclose(predictor.preprocessing.transform()(image), prepared, atol=1e-5)


def test_no_example_and_no_temporary_name_are_in_a_program(program: Exported) -> None:
    with zipfile.ZipFile(program.path) as archive:
        assert not any(".writing" in name for name in archive.namelist())
        assert sum(item.file_size for item in archive.infolist() if "sample_inputs" in item.filename) < 2000


def test_a_graph_that_differs_is_an_error_and_no_file(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.pt2"
    target.write_bytes(b"what was there before")

    def wrong(program: Any, path: Path) -> Any:
        path.write_bytes(b"x")

        def graph(images: Tensor) -> tuple[Tensor, Tensor]:
            output = predictor.model(images)
            return output.logits * (1 + 0.001 * (len(images) == 3)), output.features

        return graph

    monkeypatch.setattr(export, "_write_program", wrong)
    with torch.no_grad(), pytest.raises(ExportError, match=r"Got a difference of .* in the logits of 3 images"):
        export_model(predictor, target)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert target.read_bytes() == b"what was there before"
    with torch.no_grad():
        assert export_model(predictor, target, tolerance=0.01).difference > 0
    with pytest.raises(InvalidInputError, match="'tolerance'"):
        export_model(predictor, target, tolerance=float("nan"))


def test_a_backbone_that_cannot_be_traced(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if float(images.sum()) > 0 else 2 * images

    backbone = Backbone(Branching(), preprocessing=Preprocessing(8, (0.5,) * 3, (0.5,) * 3))
    model = QPMClassifier(backbone, [0, 2], [[1, 0], [0, 1]], [0, 0], [1, 1])
    with pytest.raises(ExportError, match="cannot be exported"):
        export_model(Predictor(model, backbone.preprocessing, ("a", "b")), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_what_is_not_written(finished: RunFolder, predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"\.pt2.*\.onnx.*Got .*model\.pt"):
        export_model(predictor, tmp_path / "model.pt")
    copy = RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))
    with pytest.raises(InvalidInputError, match=r"metrics\.json' is written as well"):
        export_model(copy, copy.path / "metrics.pt2")
    (tmp_path / "mine.json").write_text("[")
    with pytest.raises(InvalidInputError, match=r"mine\.json"):
        export_model(copy, tmp_path / "mine.pt2")
    copy.forget_from("fine-tuning")
    with pytest.raises(RunFolderError, match="no finished model"):
        export_model(copy, tmp_path / "model.pt2")


@pytest.mark.parametrize("name", export._ONNX_PACKAGES)
def test_missing_packages_are_named(
    predictor: Predictor, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in export._ONNX_PACKAGES:
        monkeypatch.setitem(sys.modules, package, type(sys)(package))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExportError, match=rf"'{name}' is not installed: pip install \"qpm\[export\]\""):
        export_model(predictor, tmp_path / "model.onnx")


def test_a_model_stays_where_and_how_it_was(predictor: Predictor) -> None:
    model = QPMClassifier(tiny_backbone(), [0, 2], [[1, 0], [0, 1]], [0, 0], [1, 1])
    graph = export._Graph(model.train())
    assert model.training
    assert not any(part.training for part in graph.modules() if part is not graph)


def test_the_command(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "model.pt2"
    assert cli.main(["export", str(finished.path), str(target)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [str(target), str(tmp_path / "model.json")]
    assert "batches of 1 and 3: largest absolute difference" in out[2]
    assert cli.main(["export", str(finished.path), str(tmp_path / "model.txt")]) == 2
    assert "'out' parameter must end in" in capsys.readouterr().err
