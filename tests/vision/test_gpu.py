"""On a GPU everything works, and says what a processor says."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from qpm_opt import InvalidInputError
from qpm_vision import load_model
from qpm_vision._preflight import pick_device
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.compare import compare_run
from qpm_vision.data import make_loader
from qpm_vision.evaluation import Scores
from qpm_vision.extraction import extract
from qpm_vision.faithfulness import measure_faithfulness
from qpm_vision.model import DenseClassifier
from qpm_vision.pipeline import evaluate_run, run
from qpm_vision.report import gather_report
from qpm_vision.run_folder import STAGES, RunFolder
from qpm_vision.training import train
from qpm_vision.training_settings import TrainingSettings
from tests.vision.tiny import CLASSES, tiny_backbone, tiny_config, tiny_data

GPU = "cuda"

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("tiny_registered"),
]


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """Convolutions in true float32, not in the shorter floats that PyTorch takes for them, for comparisons."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_registered: None) -> RunFolder:
    return run(tiny_config(device=GPU), tmp_path_factory.mktemp("gpu") / "run", data=tiny_data())


def dense() -> DenseClassifier:
    torch.manual_seed(0)
    return DenseClassifier(tiny_backbone(), len(CLASSES))


def test_a_gpu_is_what_auto_picks() -> None:
    assert pick_device("auto").type == GPU


def test_a_run_ends_with_the_figures_of_a_processor(finished: RunFolder, tmp_path: Path) -> None:
    assert list(finished.stages()) == list(STAGES)
    on_gpu = evaluate_run(finished, data=tiny_data(), device=GPU)["qpm"]
    on_cpu = evaluate_run(finished, data=tiny_data(), device="cpu")["qpm"]
    for field in fields(Scores):
        first, second = getattr(on_gpu, field.name), getattr(on_cpu, field.name)
        assert first == (None if second is None else pytest.approx(second, rel=1e-3, abs=1e-3)), field.name


@pytest.mark.parametrize("workers", [0, 2])
def test_statistics_are_those_of_a_processor(workers: int) -> None:
    data = tiny_data()

    def sums(device: str) -> tuple[np.ndarray, ...]:
        model = dense().to(device)
        statistics, locality = extract(
            model,
            data.train,
            model.backbone.preprocessing,
            n_classes=len(CLASSES),
            batch_size=10,
            device=device,
            workers=workers,
        )
        return statistics.class_similarity(), statistics.mean(), statistics.std(), locality.bias(), locality.offset()

    for first, second in zip(sums(GPU), sums("cpu"), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside of PyTorch
def test_runs_of_every_precision_compiled_or_not(tmp_path: Path, precision: str, compiled: bool) -> None:
    place = run(tiny_config(device=GPU, precision=precision, compile=compiled), tmp_path / "run", data=tiny_data())
    assert list(place.stages()) == list(STAGES)
    assert all(np.isfinite(float(row["loss"])) for row in place.history())
    assert load_checkpoint(place.path / "qpm.safetensors")[0].weight.dtype == torch.float32


def test_a_frozen_backbone(tmp_path: Path) -> None:
    place = run(tiny_config(device=GPU, adapter=6, precision="bfloat16"), tmp_path / "run", data=tiny_data())
    assert list(place.stages()) == list(STAGES)
    assert load_model(place, device=GPU).predict(tiny_data().test.image(0))[0].class_index in range(len(CLASSES))


def test_training_follows_that_of_a_processor_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=4, learning_rate=0.05, batch_size=8, augmentation="shift")
    images = tiny_data().train

    def stop(done: int, *_: object) -> None:
        if done == 8:
            os.kill(os.getpid(), signal.SIGINT)

    on_cpu, on_gpu, stopped = dense(), dense(), dense()
    train(on_cpu, images, settings)
    train(on_gpu, images, settings, device=GPU)
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(stopped, images, settings, device=GPU, state=file, progress=stop)
    again = dense()
    train(again, images, settings, device=GPU, state=file)
    for name, tensor in on_cpu.state_dict().items():
        torch.testing.assert_close(on_gpu.state_dict()[name].cpu(), tensor, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(again.state_dict()[name], on_gpu.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_predictions_are_those_of_a_processor(finished: RunFolder) -> None:
    image = tiny_data().test.image(3)
    first, second = (load_model(finished, device=device).predict(image)[0] for device in (GPU, "cpu"))
    assert [feature.feature for feature in first.features] == [feature.feature for feature in second.features]
    np.testing.assert_allclose(first.logits, second.logits, rtol=1e-3, atol=1e-3)


def test_what_is_made_of_a_run(finished: RunFolder, tmp_path: Path) -> None:
    data = tiny_data()
    assert gather_report(finished, data=data, device=GPU).classes
    measured = measure_faithfulness(finished, images=6, data=data, device=GPU)
    assert measured.to_dict() == json.loads((finished.path / "faithfulness.json").read_text())
    rows = compare_run(finished, methods=["dense", "qpm", "random", "sldd", "qsenn"], seeds=1, device=GPU, data=data)
    assert len(rows) >= 5


def test_batches_from_workers_reach_a_model_that_is_on_a_gpu_already() -> None:
    torch.zeros(1, device=GPU)  # processes that load images are forked off one that has used the GPU
    preprocessing = tiny_backbone().preprocessing
    for images, _ in make_loader(tiny_data().train, preprocessing.transform(), batch_size=8, workers=2):
        assert torch.isfinite(images.to(GPU)).all()


def test_more_processes_than_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    with pytest.raises(InvalidInputError, match=r"'device'.*leave a GPU to each"):
        pick_device("auto")
    assert pick_device("cpu").type == "cpu"
