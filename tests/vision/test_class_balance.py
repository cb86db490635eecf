"""Classes of different size: scores that name their average, class weights, balanced sampling."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score

from qpm_opt import InvalidInputError
from qpm_vision import cli
from qpm_vision.class_scores import ClassScores, class_table, count_confusions, wilson
from qpm_vision.data import ArrayImages, ImageSet, make_loader
from qpm_vision.model import DenseClassifier
from qpm_vision.run_folder import RunFolder
from qpm_vision.training import chosen_by, train
from qpm_vision.training_settings import TrainingSettings
from tests.vision.test_training_resume import Stop, same, state, without_time
from tests.vision.tiny import CLASSES, tiny_backbone, tiny_data

UNEVEN = (20, 9, 6, 5)
SETTINGS = TrainingSettings(epochs=3, learning_rate=0.05, batch_size=8, augmentation="shift")
BALANCED = [replace(SETTINGS, class_weights="balanced"), replace(SETTINGS, sampling="balanced")]


def uneven() -> ImageSet:
    images = tiny_data(max(UNEVEN)).train
    return images.subset(np.concatenate([np.flatnonzero(images.labels == c)[:n] for c, n in enumerate(UNEVEN)]))


def dense() -> DenseClassifier:
    torch.manual_seed(0)
    return DenseClassifier(tiny_backbone(), len(CLASSES))


# -- scores --------------------------------------------------------------------------------------------------------


def test_averages_and_scores_of_each_class_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 300, p=[0.7, 0.2, 0.07, 0.03])
    predicted = np.where(rng.random(300) < 0.6, labels, rng.integers(0, 4, 300))
    scores = ClassScores(count_confusions(labels, predicted, 4))
    assert scores.accuracy == pytest.approx(np.mean(labels == predicted))
    assert scores.macro_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    found = scores.of_each(CLASSES)
    for name, measure in (("recall", recall_score), ("precision", precision_score), ("f1", f1_score)):
        assert [getattr(entry, name) for entry in found] == pytest.approx(measure(labels, predicted, average=None))
    assert [entry.images for entry in found] == np.bincount(labels).tolist()


def test_intervals_hold_what_they_promise() -> None:
    """Of 400 draws, the true value lies within at least 93 % of the intervals that promise 95 %."""
    rng = np.random.default_rng(1)
    sizes, rates = np.array([60, 12, 5]), np.array([0.9, 0.6, 0.95])
    held = {"accuracy": 0, "macro": 0}
    truth = {"accuracy": float(rates @ sizes / sizes.sum()), "macro": float(rates.mean())}
    for right in rng.binomial(sizes, rates, (400, 3)):
        matrix = np.diag(right)
        matrix[[0, 1, 2], [1, 2, 0]] += sizes - right
        scores = ClassScores(matrix)
        for name, (low, high) in zip(held, (scores.accuracy_interval, scores.macro_accuracy_interval), strict=True):
            held[name] += low <= truth[name] <= high
    assert min(held.values()) >= 0.93 * 400
    for right, count in ((0, 4), (3, 7), (9, 9)):
        low, high = binomtest(right, count).proportion_ci(method="wilson")
        assert wilson(right, count) == pytest.approx((low, high))
    perfect = ClassScores(np.diag([3, 3]))
    assert perfect.macro_accuracy_interval[0] < 0.8
    assert perfect.macro_accuracy_interval[1] == 1.0


def test_classes_without_images_and_never_predicted_ones_are_left_open() -> None:
    scores = ClassScores(np.array([[4, 0, 0], [2, 0, 0], [0, 0, 0]]))
    assert scores.macro_accuracy == 0.5
    first, second, third = scores.of_each("abc")
    assert (second.recall, second.precision, second.f1) == (0.0, None, 0.0)
    assert (third.recall, third.recall_low, third.precision, third.f1) == (None, None, None, None)
    assert first.precision == pytest.approx(4 / 6)
    table = class_table([entry.to_dict() for entry in (first, second, third)]).splitlines()
    assert table[0].split() == ["class", "images", "recall", "95", "%", "interval", "precision", "F1"]
    assert table[3].split() == ["c", "0", "–", "–", "–", "–"]


def test_a_class_has_one_line_whatever_its_name() -> None:
    scores = ClassScores(np.diag([3, 3]))
    table = class_table([entry.to_dict() for entry in scores.of_each(["new\nline", "tab\ta"])]).splitlines()
    assert [line.split("  ")[0] for line in table[1:]] == ["new line", "tab a"]


def test_a_run_keeps_them_and_evaluate_shows_them(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = finished.read_json("metrics.json")
    for name in ("dense", "qpm"):
        figures, classes = metrics[name], metrics["by_class"][name]
        assert figures["accuracy_test_low"] <= figures["accuracy_test"] <= figures["accuracy_test_high"]
        assert figures["macro_accuracy_test"] == pytest.approx(np.mean([entry["recall"] for entry in classes]))
        with (finished.path / f"confusion-{name}.csv").open(encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
        assert header[1:] == [row[0] for row in rows] == list(CLASSES)
        assert [sum(map(int, row[1:])) for row in rows] == [entry["images"] for entry in classes]
    assert (finished.figures / "confusion.png").stat().st_size > 5000
    assert "macro_accuracy_test" in metrics["qpm_before_fine_tuning"]

    monkeypatch.setattr("qpm_vision.pipeline.load_data", lambda *_, **__: tiny_data())
    words = ["evaluate", str(finished.path), "--device", "cpu", "--out", str(tmp_path / "scores.json")]
    assert cli.main([*words, "--confusion", str(tmp_path / "confusion.csv")]) == 0
    out = capsys.readouterr().out
    for text in (
        "accuracy, test (all images)",
        "macro accuracy, test (mean of classes)",
        "95 % interval",
        "lowest recall",
    ):
        assert text in out
    assert json.loads((tmp_path / "scores.json").read_text())["qpm"]["by_class"] == metrics["by_class"]["qpm"]
    assert (tmp_path / "confusion.csv").read_text() == (finished.path / "confusion-qpm.csv").read_text()
    assert cli.main([*words, "--confusion", "confusion.txt"]) == 2
    assert "must end in .csv" in capsys.readouterr().err


# -- training ------------------------------------------------------------------------------------------------------


def drawn(images: ImageSet, **options: Any) -> tuple[list[int], torch.Tensor]:
    def noisy(_: Any) -> torch.Tensor:
        return torch.rand(3, 1, 1)

    loader = make_loader(images, noisy, batch_size=7, balanced=True, **options)
    pixels, labels = zip(*loader, strict=True)
    return torch.cat(labels).tolist(), torch.cat(pixels)


def test_balanced_sampling_draws_classes_evenly_and_every_image_of_a_small_one() -> None:
    images = uneven()
    labels, noise = drawn(images, seed=3)
    counts = np.bincount(labels, minlength=4)
    assert counts.sum() == len(images)
    assert counts.max() - counts.min() <= 1
    assert len(noise.unique()) == noise.numel()  # an image that comes twice is augmented anew
    assert drawn(images, seed=3)[0] == labels
    assert drawn(images, seed=4)[0] != labels
    whole = [drawn(images, seed=3, share=(rank, 2))[0] for rank in range(2)]
    assert sorted(whole[0] + whole[1]) == sorted(labels)
    named = ArrayImages(np.arange(40, dtype=np.uint8).reshape(40, 1, 1), [0] * 30 + [1] * 10, ["many", "few"])
    seen = [
        int(value)
        for batch, _ in make_loader(named, _value, batch_size=8, balanced=True)
        for value in batch[:, 0, 0, 0]
    ]
    assert set(range(30, 40)) <= set(seen)  # the small class came round twice
    assert len({value for value in seen if value < 30}) == 20


def _value(image: Any) -> torch.Tensor:
    return torch.full((3, 1, 1), float(np.asarray(image)[0, 0, 0]))


def test_class_weights_are_those_of_the_balanced_loss_whatever_the_parts_of_a_batch() -> None:
    images = uneven()
    plain = replace(SETTINGS, epochs=1, beta=0.0, augmentation="none", batch_size=40, learning_rate=1e-9)
    model = dense().eval()
    loader = make_loader(images, model.backbone.preprocessing.transform(), batch_size=40)
    pixels, labels = next(iter(loader))
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model(pixels).logits, labels, reduction="none")
    expected = float(torch.stack([losses[labels == label].mean() for label in range(4)]).mean())
    for micro_batch in (None, 8):
        settings = replace(plain, class_weights="balanced")
        row = train(dense(), images, settings, micro_batch=micro_batch)[0]
        assert row["cross_entropy"] == pytest.approx(expected, rel=0.05)  # dropout is not there; batches are whole
    assert train(dense(), images, plain)[0]["cross_entropy"] == pytest.approx(float(losses.mean()), rel=0.05)


@pytest.mark.parametrize("settings", BALANCED, ids=["weights", "sampling"])
def test_balanced_training_stopped_goes_on_bit_by_bit(tmp_path: Path, settings: TrainingSettings) -> None:
    whole, again = dense(), dense()
    validation = tiny_data(3, seed=5).train
    expected = train(whole, uneven(), settings, validation=validation)
    assert {"validation_accuracy", "validation_macro_accuracy"} <= expected[0].keys()
    assert chosen_by(settings) == "validation_macro_accuracy"
    with pytest.raises(KeyboardInterrupt):
        train(dense(), uneven(), settings, validation=validation, state=tmp_path / "s", progress=Stop(7))
    history = train(again, uneven(), settings, validation=validation, state=tmp_path / "s")
    assert same(state(again), state(whole))
    assert without_time(history) == without_time(expected)


@pytest.mark.parametrize("settings", BALANCED, ids=["weights", "sampling"])
def test_balance_needs_the_labels_of_all_images(settings: TrainingSettings) -> None:
    with pytest.raises(InvalidInputError, match="function does not tell"):
        train(dense(), lambda _epoch: [], settings)


def test_settings_say_what_they_take() -> None:
    with pytest.raises(InvalidInputError, match="'class_weights' parameter must be one of balanced, none"):
        replace(SETTINGS, class_weights="balance")
    with pytest.raises(InvalidInputError, match="count twice over"):
        replace(SETTINGS, class_weights="balanced", sampling="balanced")
    words = "train digits run --class-weights balanced"
    config = cli._configured(cli._parser().parse_args(words.split()))
    assert config.dense.class_weights == config.fine_tuning.class_weights == "balanced"
    assert config.dense.sampling == "none"
