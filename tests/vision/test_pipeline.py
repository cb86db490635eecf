"""Whole runs on a tiny data set: what they leave, resuming, refusals, and processes that are killed."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qpm_vision.pipeline as pipeline
import qpm_vision.training as training
from qpm_opt import Assignment, AssignmentProblem, InvalidInputError, QPMError, verify
from qpm_vision._preflight import pick_device
from qpm_vision._progress import SilentReporter
from qpm_vision._work import Work
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.config import RunConfig
from qpm_vision.data import ArrayImages, ImageData
from qpm_vision.explain import load_explainer, plot_class
from qpm_vision.model import QPMClassifier
from qpm_vision.pipeline import evaluate_run, run
from qpm_vision.run_folder import STAGES, RunFolder, RunFolderError
from qpm_vision.training_settings import TrainingSettings
from tests.vision.data_trees import write_cub
from tests.vision.tiny import CLASSES, tiny_config, tiny_data

FILES = {
    "assignment.npz",
    "check.json",
    "config.json",
    "confusion-dense.csv",
    "confusion-qpm.csv",
    "data.json",
    "dense.safetensors",
    "figures",
    "gallery.npz",
    "history.csv",
    "metrics.json",
    "problem.npz",
    "qpm.safetensors",
    "sight.npz",
    "skipped.csv",
    "stages.json",
    "statistics.npz",
    "threshold.json",
}


pytestmark = pytest.mark.usefixtures("tiny_registered")


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))


# -- what a run leaves ---------------------------------------------------------------------------------------------


def test_every_file_is_there_and_readable(finished: RunFolder) -> None:
    assert {item.name for item in finished.path.iterdir() if not item.name.startswith(".")} == FILES
    assert not list(finished.path.rglob(".writing-*"))
    assert list(finished.stages()) == list(STAGES)
    assert {item.name for item in finished.figures.iterdir()} == {
        "classes.png",
        "comparison.png",
        "confusion.png",
        "assignment.png",
        "convergence.png",
    }
    for picture in finished.figures.iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert RunConfig.from_dict(finished.config()) == tiny_config()


def test_history_has_a_row_for_each_epoch(finished: RunFolder) -> None:
    rows = finished.history()
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("dense", "1"),
        ("dense", "2"),
        ("fine-tuning", "1"),
        ("fine-tuning", "2"),
    ]
    assert all(np.isfinite(float(row["loss"])) for row in rows)


def test_statistics_agree_with_a_second_look_at_the_features(finished: RunFolder) -> None:
    import torch

    from qpm_vision.statistics import class_similarity

    arrays = finished.read_npz("statistics.npz")
    model, preprocessing, _ = load_checkpoint(finished.path / "dense.safetensors")
    model.eval()
    data = tiny_data().train
    transform = preprocessing.transform()
    with torch.no_grad():
        features = model(torch.stack([transform(data.image(i)) for i in range(len(data))])).features.double().numpy()
    np.testing.assert_allclose(arrays["A"], class_similarity(features, data.labels), atol=1e-5)
    np.testing.assert_allclose(arrays["mean"], features.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(arrays["std"], features.std(axis=0), atol=1e-5)
    assert arrays["class_counts"].tolist() == [12] * 4
    assert set(arrays) == {"A", "mean", "std", "b", "peak", "edge", "offset", "dead", "class_counts"}
    np.testing.assert_array_equal(arrays["dead"], features.std(axis=0) == 0)


def test_assignment_is_a_verified_solution_and_the_models(finished: RunFolder) -> None:
    problem = AssignmentProblem.load(finished.path / "problem.npz")
    result = Assignment.load(finished.path / "assignment.npz")
    assert verify(problem, result).ok
    assert result.class_labels == CLASSES
    threshold = finished.read_json("threshold.json")
    assert len(threshold["clique"]) == 4
    model, _, _ = load_checkpoint(finished.path / "qpm.safetensors")
    assert isinstance(model, QPMClassifier)
    np.testing.assert_array_equal(model.weight.numpy() > 0, result.weights > 0)
    np.testing.assert_array_equal(model.selected.numpy(), result.selected)


def test_metrics_are_in_range_and_complete(finished: RunFolder) -> None:
    metrics = finished.read_json("metrics.json")
    for name in ("dense", "qpm"):
        for key in ("accuracy_test", "accuracy_train", "class_independence", "contrastiveness"):
            assert 0 <= metrics[name][key] <= 1
        assert 1 / 5 <= metrics[name]["spatial_diversity"] <= 1
        assert metrics[name]["structural_grounding"] is None
    assert (metrics["dense"]["features"], metrics["dense"]["features_per_class"]) == (8, 8.0)
    assert (metrics["qpm"]["features"], metrics["qpm"]["features_per_class"]) == (4, 2.0)
    assert 0 <= metrics["qpm_before_fine_tuning"]["accuracy_test"] <= 1
    assert set(metrics["seconds"]) == {*STAGES, "total"}
    assert metrics["assignment"]["objective"] == pytest.approx(
        sum(metrics["assignment"][f"objective_{part}"] for part in ("similarity", "redundancy", "bias"))
    )


def test_the_tiny_model_learns(tmp_path: Path) -> None:
    config = tiny_config(seed=1)
    long = {"epochs": 40, "learning_rate": 0.1, "head_learning_rate": 0.1}
    config = replace(config, dense=replace(config.dense, **long), fine_tuning=replace(config.fine_tuning, epochs=15))
    metrics = run(config, tmp_path / "run", data=tiny_data(24)).read_json("metrics.json")
    assert metrics["dense"]["accuracy_test"] > 0.9
    assert metrics["qpm"]["accuracy_test"] > 0.7


def test_grounding_and_skipped_images_are_noted(tmp_path: Path) -> None:
    from qpm_vision.data import SkippedImage

    relation = np.ones((4, 4)) - np.eye(4)
    data = replace(tiny_data(), class_relation=relation, skipped=(SkippedImage(Path("a,b.png"), "cut off"),))
    folder = run(tiny_config(), tmp_path / "run", data=data)
    metrics = folder.read_json("metrics.json")
    assert 0 <= metrics["qpm"]["structural_grounding"] <= 1
    assert metrics["dense"]["structural_grounding"] is None
    with (folder.path / "skipped.csv").open() as stream:
        assert list(csv.reader(stream)) == [["path", "reason"], ["a,b.png", "cut off"]]


def test_runs_repeat(finished: RunFolder, tmp_path: Path) -> None:
    again = run(tiny_config(), tmp_path / "run", data=tiny_data())
    assert (again.path / "assignment.npz").exists()
    first, second = finished.read_json("metrics.json"), again.read_json("metrics.json")
    for name in ("dense", "qpm", "qpm_before_fine_tuning"):
        assert first[name] == second[name]


# -- going on ------------------------------------------------------------------------------------------------------


def test_a_finished_run_does_nothing_more(copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_STAGES", {})
    before = {path: path.stat().st_mtime_ns for path in copy.path.rglob("*") if path.is_file()}
    run(tiny_config(), copy.path, data=tiny_data())
    after = {path: path.stat().st_mtime_ns for path in copy.path.rglob("*") if path.is_file()}
    changed = {path.name for path, stamp in after.items() if before.get(path) != stamp}
    assert changed <= {".lock"}


def test_a_finished_run_is_not_taken_for_one_of_other_data(tmp_path: Path) -> None:
    place = run(tiny_config(data=str(_folder_of_images(tmp_path / "first"))), tmp_path / "run")
    other = _folder_of_images(tmp_path / "other")
    next(other.rglob("*.png")).unlink()
    with pytest.raises(InvalidInputError, match="have changed"):
        run(tiny_config(data=str(other)), place.path)
    with pytest.raises(InvalidInputError, match="nonsense"):
        run(tiny_config(data="nonsense"), place.path)


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_run_continues_behind_the_last_finished_stage(
    copy: RunFolder, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    expected = copy.read_json("metrics.json")
    done: list[str] = []
    stages = dict(pipeline._STAGES)

    def noting(name: str) -> Any:
        def do(work: Any) -> None:
            stages[name](work)
            done.append(name)

        return do

    def stop(work: Any) -> None:
        raise KeyboardInterrupt

    copy.forget_from(stage)
    monkeypatch.setattr(pipeline, "_STAGES", {**stages, stage: stop})
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(), copy.path, data=tiny_data())
    assert list(copy.stages()) == list(STAGES[: STAGES.index(stage)])
    monkeypatch.setattr(pipeline, "_STAGES", {name: noting(name) for name in STAGES})
    run(tiny_config(device="auto", workers=0), copy.path, data=tiny_data())
    assert done == list(STAGES[STAGES.index(stage) :])
    metrics = copy.read_json("metrics.json")
    assert metrics["qpm"] == expected["qpm"]
    assert len(copy.history()) == 4


def test_redo_repeats_a_stage_and_what_follows(copy: RunFolder) -> None:
    (copy.path / "gallery.npz").write_bytes(b"broken")
    stamp = (copy.path / "qpm.safetensors").stat().st_mtime_ns
    run(tiny_config(), copy.path, data=tiny_data(), redo="explanation")
    assert copy.read_npz("gallery.npz")
    assert (copy.path / "qpm.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(InvalidInputError, match="'stage'"):
        run(tiny_config(), copy.path, data=tiny_data(), redo="dnse")


def test_a_changed_configuration_is_refused_with_the_keys(copy: RunFolder) -> None:
    changed = tiny_config(seed=1)
    changed = replace(changed, fine_tuning=replace(changed.fine_tuning, epochs=9))
    with pytest.raises(InvalidInputError, match=r"fine_tuning\.epochs: 2 → 9, seed: 0 → 1.*new folder"):
        run(changed, copy.path, data=tiny_data())


def test_changed_data_are_refused(copy: RunFolder) -> None:
    copy.forget_from("explanation")
    with pytest.raises(InvalidInputError, match=r"n_train 48 → 52.*Restore them"):
        run(tiny_config(), copy.path, data=tiny_data(13))
    other = tiny_data()
    labels = other.train.labels.copy()
    labels[[0, 20]] = labels[[20, 0]]
    pixels = np.stack([np.asarray(other.train.image(i)) for i in range(len(labels))])
    swapped = replace(other, train=ArrayImages(pixels, labels, CLASSES))
    with pytest.raises(InvalidInputError, match="images or labels"):
        run(tiny_config(), copy.path, data=swapped)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("statistics.npz", "assignment"),
        ("assignment.npz", "evaluation"),
        ("dense.safetensors", "statistics"),
        ("qpm.safetensors", "explanation"),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_files_of_a_finished_stage_are_named(copy: RunFolder, name: str, stage: str, damage: str) -> None:
    copy.forget_from(stage)
    path = copy.path / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    with pytest.raises((RunFolderError, InvalidInputError), match=name.replace(".", r"\.")) as caught:
        run(tiny_config(), copy.path, data=tiny_data())
    assert "--redo" in str(caught.value)


# -- refusals before hours are spent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_select": 9}, r"'n_select'.*at most the 8 features.*Got 9"),
        ({"n_select": 3, "n_per_class": 3}, r"'n_select'.*4 classes.*only 1 sets"),
        ({"backbone": "tiny-for-test"}, r"tiny-for-tests"),
        ({"device": "cudda"}, r"'device'.*Got 'cudda'"),
    ],
)
def test_misfits_are_refused_before_training(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        run(tiny_config(**changes), tmp_path / "run", data=tiny_data())
    assert not (tmp_path / "run" / "history.csv").exists()


def test_dead_features_are_never_selected_and_too_few_live_ones_are_refused(
    copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = copy.read_npz("statistics.npz")
    dead = np.zeros(8, dtype=bool)
    selected = Assignment.load(copy.path / "assignment.npz").selected
    dead[selected[:1]] = True
    arrays["A"][:, dead] = 0
    copy.write_npz("statistics.npz", {**arrays, "dead": dead})
    copy.forget_from("assignment")
    run(tiny_config(), copy.path, data=tiny_data())
    assert selected[0] not in Assignment.load(copy.path / "assignment.npz").selected
    dead[:] = True
    dead[:3] = False
    copy.write_npz("statistics.npz", {**arrays, "dead": dead})
    with pytest.raises(InvalidInputError, match=r"'n_select'.*at most the 3 features that vary.*5 of 8.*Got 4"):
        run(tiny_config(), copy.path, data=tiny_data(), redo="assignment")


def test_one_class_or_no_test_images(tmp_path: Path) -> None:
    pixels = np.zeros((4, 16, 16), dtype=np.uint8)
    one = ArrayImages(pixels, np.zeros(4, dtype=np.int64), ("only",))
    data = ImageData(name="one", train=one, test=one, class_names=("only",), skipped=(), class_relation=None)
    with pytest.raises(InvalidInputError, match="at least 2 classes"):
        run(tiny_config(), tmp_path / "one", data=data)


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(InvalidInputError, match=r"'device'.*'auto'"):
        pick_device("tpu9")


def test_each_process_has_a_gpu_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto").type == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "2")
    for name in ("auto", "cuda"):
        with pytest.raises(InvalidInputError, match=r"'device'.*process 3 on a machine with 2 GPUs; start as many"):
            pick_device(name)
    assert pick_device("cpu").type == "cpu"


def test_a_gpu_has_a_loading_process_for_each_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("qpm_vision._work.available_processors", lambda: 12)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    for device, given, expected in (("cpu", None, 0), ("cuda", None, 3), ("cuda", 0, 0), ("cpu", 5, 5)):
        work = Work(replace(tiny_config(), workers=given), RunFolder(tmp_path), SilentReporter(), tiny_data())
        work.__dict__["device"] = torch.device(device)
        assert work.workers == expected


# -- afterwards ----------------------------------------------------------------------------------------------------


def test_pictures_from_the_folder(finished: RunFolder) -> None:
    explainer = load_explainer(finished, data=tiny_data())
    figure, axes = plot_class(explainer, "north")
    assert axes.shape[0] == 3
    assert figure.axes
    unfinished = RunFolder.create(finished.path.parent / "begun", tiny_config().to_dict())
    with pytest.raises(RunFolderError, match="not finished"):
        load_explainer(unfinished, data=tiny_data())
    with pytest.raises(InvalidInputError, match="have changed"):
        load_explainer(finished, data=tiny_data(5))


def test_evaluating_the_folder_again_gives_the_same(finished: RunFolder) -> None:
    scores = evaluate_run(finished, tiny_data(), device="cpu")
    metrics = finished.read_json("metrics.json")
    assert scores["qpm"].to_dict() == pytest.approx(metrics["qpm"])
    assert scores["dense"].to_dict() == pytest.approx(metrics["dense"])


def test_evaluating_under_another_protocol_or_other_classes_is_refused(finished: RunFolder) -> None:
    with pytest.raises(InvalidInputError, match="size"):
        evaluate_run(finished, tiny_data(), size=32)
    other = tiny_data()
    names = ("north", "east", "south", "vest")
    renamed = replace(
        other,
        class_names=names,
        train=ArrayImages(np.zeros((4, 16, 16), dtype=np.uint8), np.arange(4), names),
        test=ArrayImages(np.zeros((4, 16, 16), dtype=np.uint8), np.arange(4), names),
    )
    with pytest.raises(InvalidInputError, match=r"classes.*west.*vest"):
        evaluate_run(finished, renamed)


# -- nothing is spoilt by a start that is refused --------------------------------------------------------------------


def _folder_of_images(root: Path, per_class: int = 8, seed: int = 0) -> Path:
    data = tiny_data(per_class, seed)
    for position in range(len(data.train)):
        place = root / data.class_names[int(data.train.labels[position])]
        place.mkdir(parents=True, exist_ok=True)
        data.train.image(position).save(place / f"{position:03}.png")
    return root


@pytest.mark.parametrize(
    "changes",
    [
        {"n_select": 9},
        {"backbone": "resnet50"},
        {"device": "tpu9"},
        {"solver": "pyomo:gurobi"},
        {"data": "folder:/nowhere/at/all"},
    ],
)
def test_a_refused_start_leaves_nothing_behind(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = None if "data" in changes else tiny_data()
    with pytest.raises(QPMError):
        run(tiny_config(**changes), tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_sizes_that_the_backbone_cannot_take_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"'size'.*at least 32 pixels.*Got 7"):
        run(tiny_config(backbone="efficientnet-lite0", size=7), tmp_path / "run", data=tiny_data())


def test_a_run_in_which_nothing_was_trained_takes_another_configuration(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", tiny_config(n_select=5).to_dict())
    assert list(run(tiny_config(), folder.path, data=tiny_data()).stages()) == list(STAGES)
    assert folder.config()["n_select"] == 4


def test_a_refused_redo_leaves_the_run_finished(copy: RunFolder) -> None:
    with pytest.raises(InvalidInputError, match="have changed"):
        run(tiny_config(), copy.path, data=tiny_data(13), redo="evaluation")
    with pytest.raises(InvalidInputError, match="'stage'"):
        run(tiny_config(), copy.path, data=tiny_data(), redo="evaluations")
    assert list(copy.stages()) == list(STAGES)


def test_images_may_move_but_not_change(tmp_path: Path) -> None:
    here = _folder_of_images(tmp_path / "here")
    folder = run(tiny_config(data=str(here)), tmp_path / "run")
    there = here.rename(tmp_path / "there")
    folder.forget_from("explanation")
    again = run(tiny_config(data=str(there)), tmp_path / "run")
    assert list(again.stages()) == list(STAGES)
    assert again.config()["data"] == str(there)
    next(there.rglob("*.png")).unlink()
    with pytest.raises(InvalidInputError, match="have changed"):
        evaluate_run(folder)


def test_images_that_are_cropped_in_another_way_are_refused(tmp_path: Path) -> None:
    cropped, whole = (replace(tiny_data(), cropping=cropping) for cropping in ("bounding box", "whole"))
    folder = run(tiny_config(), tmp_path / "run", data=cropped)
    for data in (cropped, tiny_data()):  # of the second nobody knows
        assert set(evaluate_run(folder, data)) == {"dense", "qpm"}
    with pytest.raises(InvalidInputError, match=r"'bounding box'\. Got 'whole'"):
        evaluate_run(folder, whole)
    with pytest.raises(InvalidInputError, match="cropping 'bounding box' → 'whole'"):
        load_explainer(folder, data=whole)


def test_a_published_data_set_by_name(tmp_path: Path) -> None:
    root = write_cub(tmp_path, n_classes=4, per_class=8).root
    folder = run(tiny_config(data=f"cub-cropped:{root}"), tmp_path / "run")
    identity = folder.read_json("data.json")
    assert (identity["n_train"], identity["n_test"], identity["cropping"]) == (16, 16, "bounding box")
    assert identity["class_names"][0] == "Black footed Albatross"
    assert folder.read_json("metrics.json")["qpm"]["structural_grounding"] is not None
    with pytest.raises(InvalidInputError, match=r"'bounding box'\. Got 'whole'"):
        evaluate_run(folder, f"cub:{root}")


def test_all_images_of_an_undivided_folder_are_scored(tmp_path: Path) -> None:
    folder = run(tiny_config(data=str(_folder_of_images(tmp_path / "own"))), tmp_path / "run")
    other = _folder_of_images(tmp_path / "other", per_class=5, seed=7)
    scores = evaluate_run(folder, str(other))["qpm"]
    assert (scores.test_images, scores.train_images) == (20, 0)
    assert scores.accuracy_train is None
    assert scores.correlation is None
    assert 0 <= scores.accuracy_test <= 1
    for part in ("train", "test"):
        _folder_of_images(tmp_path / "divided" / part, per_class=3)
    divided = evaluate_run(folder, str(tmp_path / "divided"))["qpm"]
    assert (divided.test_images, divided.train_images) == (12, 12)


def test_the_last_epoch_is_kept_where_validation_chose_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = iter((9, 4, 4, 9))  # right ones of ten, in two epochs of the dense model and two of fine-tuning

    def confusions(*_: object) -> np.ndarray:
        right = next(held_out)
        counts = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
        counts[0, :2] = right, 10 - right
        return counts

    monkeypatch.setattr(training, "confusions", confusions)
    data = replace(tiny_data(), validation=tiny_data(seed=5).test)
    place = run(tiny_config(validation_share=0.25), tmp_path / "run", data=data)
    chosen, _, _ = load_checkpoint(place.path / "dense.safetensors")
    last, _, _ = load_checkpoint(place.path / "dense-last.safetensors")
    assert not torch.equal(chosen.weight, last.weight)
    assert not (place.path / "qpm-last.safetensors").exists()


def test_few_images_get_more_epochs() -> None:
    settings = TrainingSettings(epochs=5, least_steps=200, batch_size=32)
    assert settings.for_images(144).epochs == 40
    assert settings.for_images(11_200).epochs == 5
    assert settings.for_images(1).epochs == 200
    assert settings.for_images(144).least_steps == 0


class Listener(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_what_deserves_a_second_look_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    monkeypatch.setattr(pipeline, "confusions", lambda *_: np.eye(len(CLASSES), dtype=np.int64))
    monkeypatch.setattr(pipeline, "_COARSE", 5)
    run(tiny_config(), tmp_path / "run", data=tiny_data(), reporter=listener)
    text = "\n".join(listener.messages)
    assert "the maps have 4 × 4 places only" in text
    assert "fine-tuning lowered the test accuracy from 100.0%" in text
    assert "features at most" not in text


def test_features_that_cannot_be_used_are_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    monkeypatch.setattr(pipeline, "STAGES", ())
    monkeypatch.setattr(pipeline, "_note_times", lambda _: None)
    run(tiny_config(n_select=6, n_per_class=1), tmp_path / "run", data=tiny_data(), reporter=listener)
    assert any("4 classes of 1 features each use 4 of the 6 features at most" in text for text in listener.messages)


def test_the_wrong_model_in_a_file_is_made_again_by_its_own_stage(finished: RunFolder, tmp_path: Path) -> None:
    run_folder = Path(shutil.copytree(finished.path, tmp_path / "run"))
    shutil.copy(run_folder / "dense.safetensors", run_folder / "qpm.safetensors")
    with pytest.raises(RunFolderError, match=r"must hold a QPMClassifier.*--redo fine-tuning"):
        evaluate_run(run_folder, data=tiny_data())
