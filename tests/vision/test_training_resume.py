"""A training that is stopped, killed or kept from writing goes on as if nothing had been."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qpm_vision import training
from qpm_vision._progress import SilentReporter
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.data import ArrayImages
from qpm_vision.model import DenseClassifier, QPMClassifier
from qpm_vision.pipeline import run
from qpm_vision.run_folder import STAGES, RunFolder
from qpm_vision.training import train
from qpm_vision.training_settings import TrainingSettings
from tests.vision.tiny import CLASSES, tiny_backbone, tiny_config, tiny_data

SETTINGS = TrainingSettings(epochs=4, learning_rate=0.05, batch_size=8, augmentation="shift")


def images() -> ArrayImages:
    data = tiny_data().train
    assert isinstance(data, ArrayImages)
    return data


def dense(seed: int = 0) -> DenseClassifier:
    torch.manual_seed(seed)
    return DenseClassifier(tiny_backbone(), len(CLASSES))


def qpm() -> QPMClassifier:
    weights = [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
    return QPMClassifier.from_dense(dense(), [5, 0, 2, 3], weights, [0.1] * 4, [0.2] * 4)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_time(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


class Stop:
    """Sends a signal to this process after so many steps."""

    def __init__(self, after: int, number: int = signal.SIGINT) -> None:
        self.after, self.number = after, number

    def __call__(self, done: int, total: int, text: str) -> None:
        if done == self.after:
            os.kill(os.getpid(), self.number)


# 48 images in batches of 8: 6 steps in an epoch, 24 in all; step 12 is the last of an epoch.
@pytest.mark.parametrize("make", [dense, qpm])
@pytest.mark.parametrize("after", [1, 8, 12, 23])
def test_stopped_behind_any_step_it_goes_on_bit_by_bit_the_same(tmp_path: Path, make: Any, after: int) -> None:
    whole = make()
    expected = train(whole, images(), SETTINGS, seed=3)
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch"):
        train(make(), images(), SETTINGS, seed=3, state=file, progress=Stop(after))
    steps: list[int] = []
    again = make()
    history = train(again, images(), SETTINGS, seed=3, state=file, progress=lambda done, *_: steps.append(done))
    assert steps == list(range(after + 1, 25))
    assert same(state(again), state(whole))
    assert without_time(history) == without_time(expected)


def test_sigterm_counts_as_well_and_handlers_are_as_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(dense(), images(), SETTINGS, state=tmp_path / "s", progress=Stop(3, signal.SIGTERM))
    assert (tmp_path / "s").exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_workers_do_not_get_in_the_way_of_stopping(tmp_path: Path) -> None:
    file = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        train(dense(), images(), SETTINGS, workers=1, state=file, progress=Stop(8))
    again, whole = dense(), dense()
    train(again, images(), SETTINGS, workers=1, state=file)
    train(whole, images(), SETTINGS)
    assert same(state(again), state(whole))


def test_a_finished_state_gives_the_model_at_once(tmp_path: Path) -> None:
    file = tmp_path / "s"
    first, second = dense(), dense()
    history = train(first, images(), SETTINGS, state=file)
    assert train(second, images(), SETTINGS, state=file, progress=lambda *_: pytest.fail("a step")) == history
    assert same(state(first), state(second))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"settings": replace(SETTINGS, learning_rate=0.04)}, "another training"),
        ({"seed": 1}, "another training"),
        ({"model": dense(seed=1)}, "another training"),
        ({"damage": True}, "damaged"),
    ],
)
def test_a_state_of_something_else_is_left_aside(
    tmp_path: Path, other: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "s"
    train(dense(), images(), replace(SETTINGS, epochs=1), state=file)
    train(dense(), images(), SETTINGS, state=file)
    if other.get("damage"):
        file.write_bytes(file.read_bytes()[:-100])
    model = other.get("model", dense())
    start = state(model)
    with caplog.at_level(logging.WARNING):
        history = train(model, images(), other.get("settings", SETTINGS), seed=other.get("seed", 0), state=file)
    assert why in caplog.text
    assert len(history) == 4
    assert not same(state(model), start)


def test_a_disk_that_is_full_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qpm_vision.training_state.save_file", full)
    model, plain = dense(), dense()
    train(model, images(), SETTINGS, state=tmp_path / "s")
    train(plain, images(), SETTINGS)
    assert same(state(model), state(plain))
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_long_epochs_keep_their_state_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0.0)
    seen: list[bool] = []
    file = tmp_path / "s"
    train(dense(), images(), SETTINGS, state=file, progress=lambda *_: seen.append(file.exists()))
    assert seen[:3] == [False, True, True]


# -- choosing the epoch --------------------------------------------------------------------------------------------


def test_validation_chooses_the_epoch_also_behind_a_stop(tmp_path: Path) -> None:
    held_out = tiny_data(seed=6).train
    weights: list[dict[str, torch.Tensor]] = []
    model = dense()
    rough = replace(SETTINGS, epochs=6, learning_rate=0.3, momentum=0.0, schedule="step")
    history = train(
        model, images(), rough, validation=held_out, on_epoch=lambda _rows, trained: weights.append(state(trained))
    )
    scores = [row["validation_accuracy"] for row in history]
    best = max(range(6), key=lambda epoch: (scores[epoch], epoch))
    assert len(set(scores)) > 1
    assert best < 5, "the last epoch is the best one, so that nothing is seen of the choice"
    assert same(state(model), weights[best])
    file = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        train(dense(), images(), rough, validation=held_out, state=file, progress=Stop(6 * (best + 1) + 2))
    again = dense()
    assert without_time(train(again, images(), rough, validation=held_out, state=file)) == without_time(history)
    assert same(state(again), weights[best])


# -- parts of batches, precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch", [2, 3, 5, 8])
def test_parts_of_batches_add_up(micro_batch: int) -> None:
    whole, parts = dense(), dense()
    sizes: list[int] = []
    parts.backbone.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    short = replace(SETTINGS, epochs=1)
    expected = train(whole, images(), short)
    history = train(parts, images(), short, micro_batch=micro_batch)
    assert sum(sizes) == 48
    assert min(sizes) >= 2
    assert max(sizes) <= max(micro_batch, 3)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, atol=1e-6, rtol=1e-4)
    assert history[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-5)


def test_mixed_precision_learns_and_gives_float32() -> None:
    model = dense()
    model.backbone.precision = torch.bfloat16
    seen: list[torch.dtype] = []
    model.backbone.module[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    history = train(model, images(), replace(SETTINGS, epochs=8))
    assert set(seen) == {torch.bfloat16}
    assert model(torch.zeros(2, 3, 16, 16)).maps.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert history[-1]["loss"] < history[0]["loss"]


# -- a whole run ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_registered")
def test_a_run_killed_in_the_third_epoch_ends_like_one_that_was_not(tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from dataclasses import replace
        from tests.vision.tiny import registered, tiny_config, tiny_data
        from qpm_vision._progress import SilentReporter
        from qpm_vision.pipeline import run

        class Kill(SilentReporter):
            def advance(self, task, done, total, detail=""):
                if task == "dense" and detail.startswith("epoch 3/4") and done % 3 == 2:
                    os.kill(os.getpid(), signal.SIGKILL)

        with registered():
            config = tiny_config()
            config = replace(config, dense=replace(config.dense, epochs=4))
            run(config, {str(tmp_path / "killed")!r}, data=tiny_data(), reporter=Kill())
        """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2], check=False)
    assert result.returncode == -signal.SIGKILL
    place = RunFolder.open(tmp_path / "killed")
    assert [row["epoch"] for row in place.history()] == ["1", "2"]
    assert place.stages() == {}
    assert place.is_begun
    config = tiny_config()
    config = replace(config, dense=replace(config.dense, epochs=4))
    done = run(config, tmp_path / "killed", data=tiny_data())
    straight = run(config, tmp_path / "straight", data=tiny_data())
    assert list(done.stages()) == list(STAGES)
    for name in ("dense.safetensors", "qpm.safetensors"):
        assert same(*(state(load_checkpoint(folder.path / name)[0]) for folder in (done, straight))), name
    assert without_time(done.history()) == without_time(straight.history())
    assert not list(done.path.glob("*.training.safetensors"))


@pytest.mark.usefixtures("tiny_registered")
def test_a_stage_that_is_redone_begins_anew(tmp_path: Path) -> None:
    class Stop(SilentReporter):
        def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
            if done == 1:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(), tmp_path / "run", data=tiny_data(), reporter=Stop())
    place = RunFolder.open(tmp_path / "run")
    assert place.training_state("dense").exists()
    assert place.is_begun
    assert place.history() == []
    steps: list[int] = []

    class Count(SilentReporter):
        def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
            if task == "dense":
                steps.append(done)

    run(tiny_config(), place.path, data=tiny_data(), reporter=Count(), redo="dense")
    assert steps == [1, 2, 3, 4, 5, 6]
