"""Settings that change while a run goes on: those of the folder count; a change keeps what does not depend on it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qpm_vision.pipeline as pipeline
from qpm_opt import Assignment, InvalidInputError
from qpm_vision import cli
from qpm_vision._changed_settings import first_affected
from qpm_vision._progress import SilentReporter
from qpm_vision.config import RunConfig
from qpm_vision.pipeline import run
from qpm_vision.run_folder import STAGES, RunFolder
from tests.vision.tiny import TINY_FEATURES, tiny_config, tiny_data

pytestmark = pytest.mark.usefixtures("tiny_registered", "without_pictures")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else, and is not looked at."""
    monkeypatch.setattr(pipeline, "_STAGES", {**pipeline._STAGES, "explanation": lambda _: None})


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.text = ""

    def message(self, text: str) -> None:
        self.text += text + "\n"


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))


@pytest.fixture
def killed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The folder of a run that was killed in its first epoch."""

    def kill(_work: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "_STAGES", {**pipeline._STAGES, "dense": kill})
        with pytest.raises(KeyboardInterrupt):
            run(tiny_config(seed=3), tmp_path / "killed", data=tiny_data())
    return RunFolder(tmp_path / "killed")


def configured(folder: RunFolder, *options: str) -> RunConfig:
    return cli._configured(cli._parser().parse_args(["train", "tiny", str(folder.path), *options]))


# -- killed in the first epoch -------------------------------------------------------------------------------------


def test_after_a_kill_in_the_first_epoch_the_settings_of_the_folder_count(killed_at_once: RunFolder) -> None:
    assert not killed_at_once.is_begun
    assert configured(killed_at_once) == tiny_config(seed=3)
    assert configured(killed_at_once, "--n-select", "5") == tiny_config(seed=3, n_select=5)


def test_in_python_no_configuration_means_that_of_the_folder(killed_at_once: RunFolder, tmp_path: Path) -> None:
    run(None, killed_at_once.path, data=tiny_data())
    assert RunConfig.from_dict(killed_at_once.config()) == tiny_config(seed=3)
    with pytest.raises(InvalidInputError, match=r"'config'.*new folder.*Got None"):
        run(None, tmp_path / "nothing", data=tiny_data())
    assert not (tmp_path / "nothing").exists()


def test_what_another_configuration_changes_is_said(killed_at_once: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    monkeypatch.setattr(pipeline, "_STAGES", dict.fromkeys(STAGES, lambda _: None))
    monkeypatch.setattr(pipeline, "_note_times", lambda _: None)
    run(tiny_config(size=24), killed_at_once.path, data=tiny_data(), reporter=listener)
    assert "changed settings: seed: 3 → 0, size: None → 24" in listener.text


# -- what a change keeps -------------------------------------------------------------------------------------------


def test_every_setting_counts_from_a_stage_on() -> None:
    assert first_affected(["n_select"]) == first_affected(["solve_seconds", "fine_tuning.beta"]) == "assignment"
    assert first_affected(["fine_tuning.epochs"]) == "fine-tuning"
    assert first_affected(["n_select", "seed"]) == first_affected(["dense.epochs"]) == "dense"
    assert first_affected(["one of a later version"]) == "dense"


@pytest.mark.parametrize(
    ("changes", "first"),
    [({"n_select": 6, "n_per_class": 3}, "assignment"), ({"fine_tuning": 1}, "fine-tuning"), ({"seed": 1}, "dense")],
)
def test_a_change_repeats_the_stages_that_depend_on_it_and_keeps_the_others(
    copy: RunFolder, changes: dict[str, Any], first: str
) -> None:
    if "fine_tuning" in changes:
        changes = {"fine_tuning": replace(tiny_config().fine_tuning, epochs=changes["fine_tuning"])}
    before = copy.stages()
    config = replace(tiny_config(), **changes)
    for redo in (None, "evaluation"):
        with pytest.raises(InvalidInputError, match=rf"`--redo {first}`.*or a new folder"):
            run(config, copy.path, data=tiny_data(), redo=redo)
    assert copy.stages() == before
    stamps = {name: (copy.path / name).stat().st_mtime_ns for name in ("dense.safetensors", "assignment.npz")}
    run(config, copy.path, data=tiny_data(), redo=first)
    assert list(copy.stages()) == list(STAGES)
    assert RunConfig.from_dict(copy.config()) == config
    for name, stage in (("dense.safetensors", "dense"), ("assignment.npz", "assignment")):
        kept = STAGES.index(stage) < STAGES.index(first)
        assert ((copy.path / name).stat().st_mtime_ns == stamps[name]) == kept
    if "n_select" in changes:
        assert len(Assignment.load(copy.path / "assignment.npz").selected) == 6


def test_what_no_finished_stage_depends_on_may_change_without_more(copy: RunFolder) -> None:
    copy.forget_from("assignment")
    run(tiny_config(n_select=5), copy.path, data=tiny_data())
    assert len(Assignment.load(copy.path / "assignment.npz").selected) == 5
    assert list(copy.stages()) == list(STAGES)


def test_a_stage_under_way_is_kept(copy: RunFolder) -> None:
    copy.forget_from("fine-tuning")
    copy.training_state("fine-tuning").write_bytes(b"as if it were one")
    with pytest.raises(InvalidInputError, match="`--redo assignment`"):
        run(tiny_config(n_select=5, fine_tuning=tiny_config().dense), copy.path, data=tiny_data())


def test_another_division_needs_everything_anew(copy: RunFolder) -> None:
    data = tiny_data(13)
    with pytest.raises(InvalidInputError, match="have changed"):
        run(tiny_config(), copy.path, data=data, redo="dense")
    run(tiny_config(test_share=0.5), copy.path, data=data, redo="dense")
    assert copy.read_json("data.json")["n_train"] == 52


# -- fewer live features than are to be kept -----------------------------------------------------------------------


@pytest.fixture
def half_dead(copy: RunFolder) -> RunFolder:
    """A run with 4 features that vary."""
    arrays = copy.read_npz("statistics.npz")
    dead = np.arange(TINY_FEATURES) >= 4
    arrays["A"][:, dead] = 0
    copy.write_npz("statistics.npz", {**arrays, "dead": dead})
    return copy


def test_the_remedy_for_too_few_live_features_works(half_dead: RunFolder) -> None:
    dense = (half_dead.path / "dense.safetensors").stat().st_mtime_ns
    before = half_dead.stages()
    with pytest.raises(InvalidInputError, match=r"at most the 4 features.*`--redo assignment --n-select 4`"):
        run(tiny_config(n_select=5), half_dead.path, data=tiny_data(), redo="assignment")
    assert half_dead.stages() == before  # refused before anything is forgotten
    with pytest.raises(InvalidInputError, match="only 3 sets"):
        run(tiny_config(n_select=3, n_per_class=1), half_dead.path, data=tiny_data(), redo="assignment")
    assert half_dead.stages() == before
    config = configured(half_dead, "--n-select", "4", "--redo", "assignment")
    run(config, half_dead.path, data=tiny_data(), redo="assignment")
    assert list(half_dead.stages()) == list(STAGES)
    assert (half_dead.path / "dense.safetensors").stat().st_mtime_ns == dense


def test_features_that_do_not_vary_are_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_train", stop)
    black = tiny_data()
    monkeypatch.setattr(type(black.train), "image", lambda self, _position: type(self).image_of_nothing)
    from PIL import Image

    monkeypatch.setattr(type(black.train), "image_of_nothing", Image.new("RGB", (16, 16)), raising=False)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(), tmp_path / "run", data=black, reporter=listener)
    assert "before training only 0 of 8 features differ between 48 sample images" in listener.text
    assert "(--n-select)" in listener.text
