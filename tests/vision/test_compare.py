"""Comparisons on a tiny data set: what they leave, resuming, refusals, and the tables."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qpm_vision.compare as compare
from qpm_opt import Assignment, InvalidInputError, QPMError
from qpm_vision import _work, cli
from qpm_vision._comparison_measures import class_pairs, epochs_to, kept_redundancy, relation_correlation
from qpm_vision._comparison_table import COLUMNS, comparison_markdown, comparison_table
from qpm_vision._progress import SilentReporter
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.compare import METHODS, compare_run
from qpm_vision.data import ImageData, Parts
from qpm_vision.faithfulness import meaning
from qpm_vision.model import QPMClassifier, SparseClassifier
from qpm_vision.pipeline import run
from qpm_vision.run_folder import RunFolder, RunFolderError
from tests.vision.tiny import tiny_config, tiny_data

pytestmark = pytest.mark.usefixtures("tiny_registered")

RELATION = np.array([[0.0, 0.9, 0.1, 0.2], [0.9, 0.0, 0.3, 0.1], [0.1, 0.3, 0.0, 0.8], [0.2, 0.1, 0.8, 0.0]])


def data() -> ImageData:
    return replace(tiny_data(), class_relation=RELATION)


@pytest.fixture(scope="module")
def finished(tiny_registered: None, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tiny_config(), tmp_path_factory.mktemp("compared") / "run", data=data())


@pytest.fixture(scope="module")
def rows(finished: RunFolder) -> list[dict[str, Any]]:
    return compare_run(finished, methods=METHODS, seeds=2, device="cpu", data=data())


def _of(rows: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["method"] == method]


def test_pointing_is_measured_where_places_of_parts_are_known(
    finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = data()
    values = {"place": ("top", "right", "bottom", "left")}
    boxes = {known.test.name(i): {"place": (0.0, 0.0, 8.0, 8.0)} for i in range(len(known.test))}
    monkeypatch.setattr(meaning, "LEVEL", 1e9)  # few classes make nothing significant
    found = compare_run(
        finished,
        methods=["qpm", "sldd"],
        seeds=1,
        out=tmp_path / "out",
        device="cpu",
        data=replace(known, parts=Parts(values, boxes)),
    )
    for row in found:
        assert row["features_with_part"] > 0
        assert row["pointing"] == row["pointing_other_image"]  # all boxes are the same
        assert 0 <= row["pointing"] <= 1


# -- what a comparison leaves --------------------------------------------------------------------------------------


def test_a_row_for_each_method_seed_and_budget(rows: list[dict[str, Any]], finished: RunFolder) -> None:
    assert len(rows) == 1 + (len(METHODS) - 1) * 2
    assert all(tuple(row) == COLUMNS for row in rows)
    with (finished.path / "compare" / "compare.csv").open(encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    assert [row["method"] for row in written] == [row["method"] for row in rows]
    assert float(written[1]["accuracy_test"]) == rows[1]["accuracy_test"]
    with (finished.path / "compare" / "history.csv").open(encoding="utf-8") as stream:
        epochs = list(csv.DictReader(stream))
    assert len(epochs) == (len(rows) - 1) * 3  # before, and two epochs
    assert [row["epoch"] for row in epochs[:3]] == ["0", "1", "2"]
    assert not list((finished.path / "compare").rglob(".writing-*"))


def test_each_has_its_folder_and_model(rows: list[dict[str, Any]], finished: RunFolder) -> None:
    for method in METHODS[1:]:
        folder = finished.path / "compare" / "n4-k2" / method / "seed-1"
        model, _, extra = load_checkpoint(folder / "model.safetensors")
        sparse = method in ("sldd", "qsenn")
        assert isinstance(model, SparseClassifier if sparse else QPMClassifier)
        assert extra["class_names"] == list(tiny_data().class_names)
        if not sparse:
            assert (model.weight.sum(dim=1) == 2).all()
            assert len({tuple(row) for row in model.weight.tolist()}) == 4
        assert json.loads((folder / "scores.json").read_text())["method"] == method
    quantised, _, _ = load_checkpoint(finished.path / "compare" / "n4-k2" / "qsenn" / "seed-0" / "model.safetensors")
    for weights in quantised.weight:
        assert len(set(weights.abs()[weights != 0].tolist())) <= 1


def test_qpm_is_that_of_the_run(rows: list[dict[str, Any]], finished: RunFolder) -> None:
    first = _of(rows, "qpm")[0]
    metrics = finished.read_json("metrics.json")
    assert first["accuracy_test"] == metrics["qpm"]["accuracy_test"]
    assert first["accuracy_before"] == metrics["qpm_before_fine_tuning"]["accuracy_test"]
    assert first["objective"] == pytest.approx(Assignment.load(finished.path / "assignment.npz").objective)
    assert _of(rows, "dense")[0]["accuracy_test"] == metrics["dense"]["accuracy_test"]


def test_no_choice_has_a_better_objective_than_qpm(rows: list[dict[str, Any]]) -> None:
    best = _of(rows, "qpm")[0]["objective"]
    for method in ("greedy", "random", *compare.ABLATIONS):
        for row in _of(rows, method):
            assert row["objective"] <= best + 1e-6 * abs(best)
            assert row["pairs_alike"] == 0
    total = _of(rows, "greedy")[0]
    parts = total["objective_similarity"] + total["objective_redundancy"] + total["objective_bias"]
    assert total["objective"] == pytest.approx(parts)


def test_budgets_have_problems_of_their_own(finished: RunFolder, tmp_path: Path) -> None:
    swept = compare_run(
        finished,
        methods=["qpm", "random"],
        seeds=1,
        n_select=[4, 5],
        n_per_class=[3, 2],
        out=tmp_path / "out",
        device="cpu",
        data=data(),
    )
    budgets = [(4, 3), (4, 2), (5, 3), (5, 2)]
    assert [(row["n_select"], row["n_per_class"]) for row in swept] == [pair for pair in budgets for _ in range(2)]
    for best, drawn in zip(swept[::2], swept[1::2], strict=True):
        assert (best["method"], drawn["method"]) == ("qpm", "random")
        assert best["features_per_class"] == drawn["features_per_class"] == best["n_per_class"]
        assert drawn["objective"] <= best["objective"] + 1e-6


def test_only_random_choices_differ_between_seeds(rows: list[dict[str, Any]]) -> None:
    for method in ("qpm", "greedy", "sldd"):
        assert len({row["accuracy_before"] for row in _of(rows, method)}) == 1
    assert len({row["kept_redundancy"] for row in _of(rows, "random")}) == 2


def test_features_that_are_too_many_for_the_memory_are_mapped(
    finished: RunFolder, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: list[type] = []
    original = _work.Work.pooled

    def pooled(self: Any, *arguments: Any) -> Any:
        values = original(self, *arguments)
        mapped.append(type(values))
        return values

    monkeypatch.setattr(_work.Work, "pooled", pooled)
    monkeypatch.setattr(_work, "MOST_IN_MEMORY", 1000)
    options: dict[str, Any] = {"methods": ["sldd", "qsenn"], "seeds": 1, "device": "cpu", "data": data()}
    again = compare_run(finished, out=tmp_path / "out", **options)
    assert mapped == [np.memmap, np.ndarray]  # all features of the dense model once; the kept ones between two rounds
    assert [row["accuracy_test"] for row in again] == [
        _of(rows, method)[0]["accuracy_test"] for method in ("sldd", "qsenn")
    ]
    assert not (tmp_path / "out" / "features.npy").exists()


# -- resuming ------------------------------------------------------------------------------------------------------


def test_finished_work_is_skipped(
    rows: list[dict[str, Any]], finished: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(compare._Comparison, "_do", never)
    assert compare_run(finished, methods=METHODS, seeds=2, device="cpu", data=data()) == rows


def test_an_interrupted_comparison_goes_on(
    finished: RunFolder, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Reporter(SilentReporter):
        def message(self, text: str) -> None:
            told.append(text)

    original = compare._Comparison._train

    def stop(self: Any, job: Any, *rest: Any) -> None:
        if job.method == "random":
            raise KeyboardInterrupt
        original(self, job, *rest)

    options: dict[str, Any] = {"methods": ["greedy", "random"], "seeds": 1, "device": "cpu", "data": data()}
    monkeypatch.setattr(compare._Comparison, "_train", stop)
    with pytest.raises(KeyboardInterrupt):
        compare_run(finished, out=tmp_path / "out", reporter=Reporter(), **options)
    assert told[-1].startswith("1 of 2 finished; the same command continues")
    assert len((tmp_path / "out" / "compare.csv").read_text().splitlines()) == 2
    monkeypatch.undo()
    again = compare_run(finished, out=tmp_path / "out", **options)
    assert [row["accuracy_test"] for row in again] == [
        _of(rows, method)[0]["accuracy_test"] for method in ("greedy", "random")
    ]


# -- refusals ------------------------------------------------------------------------------------------------------


def test_refusals(finished: RunFolder, tmp_path: Path) -> None:
    def refused(message: str, kind: type[QPMError] = InvalidInputError, **changes: Any) -> None:
        with pytest.raises(kind, match=message):
            compare_run(finished, out=tmp_path / "refused", data=data(), **changes)

    refused("Did you mean 'greedy'", methods=["gredy"])
    refused("at least one of dense", methods=[])
    refused("'seeds' parameter must be an integer of at least 1", seeds=0)
    refused("'n_select' parameter must be at most", n_select=[9])
    refused("different set of features for each", n_select=[3], n_per_class=[3])
    assert not (tmp_path / "refused").exists()
    with pytest.raises(RunFolderError, match="holds no comparison"):
        compare_run(finished, out=finished.path, data=data())
    with pytest.raises(InvalidInputError, match="have changed"):
        compare_run(finished, out=tmp_path / "refused", data=tiny_data(per_class=6))


def test_another_run_is_refused(finished: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(shutil.copytree(finished.path, tmp_path / "copy", ignore=shutil.ignore_patterns("compare")))
    compare_run(copy, methods=["dense"], data=data(), device="cpu")
    copy.write_config({**copy.config(), "seed": 5})
    with pytest.raises(InvalidInputError, match="another seed"):
        compare_run(copy, methods=["dense"], data=data(), device="cpu")
    copy.forget_from("statistics")
    with pytest.raises(RunFolderError, match="must have the stages dense and statistics finished"):
        compare_run(copy, methods=["dense"], data=data(), device="cpu")


# -- measures and tables -------------------------------------------------------------------------------------------


def test_pairs_that_one_feature_tells_apart() -> None:
    binary = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]], dtype=float)
    assert class_pairs(binary) == (3, 1)  # 0-1, 1-2, 1-3; 0-3 alike
    signed = np.array([[2.0, 1, 0], [1, -1, 0], [0.5, 3, 0], [1, 1, 1]])
    assert class_pairs(signed) == (4, 1)  # a sign counts as another feature; a feature more tells apart


def test_measures_by_hand() -> None:
    R = np.array([[1, 0.5, -0.4], [0.5, 1, 0.1], [-0.4, 0.1, 1]])
    assert kept_redundancy(R, np.array([0, 1, 2])) == pytest.approx(0.2)
    assert kept_redundancy(R, np.array([1])) is None
    W = np.array([[1.0, 0], [1, 0], [0, 1]])
    known = np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, 0]])
    assert relation_correlation(W, known) == pytest.approx(1)
    assert relation_correlation(-W * [[2], [1], [3]], known) == pytest.approx(1)
    assert relation_correlation(W, None) is None
    assert relation_correlation(np.eye(3), known) is None
    history = [{"epoch": 0, "accuracy_probe": 0.2}, {"epoch": 1, "accuracy_probe": 0.9}]
    assert (epochs_to(0.5, history), epochs_to(0.1, history), epochs_to(0.95, history)) == (1, 0, None)


def test_tables_have_mean_and_deviation() -> None:
    def row(method: str, seed: int | None, n_select: int | None, **figures: Any) -> dict[str, Any]:
        return {"method": method, "seed": seed, "n_select": n_select, "n_per_class": n_select and 5, **figures}

    rows = [
        row("dense", None, None, accuracy_test=0.95),
        row("qpm", 0, 20, accuracy_test=0.90, epochs_to_level=1, features=20),
        row("qpm", 1, 20, accuracy_test=0.94, epochs_to_level=None, features=20),
        row("qpm", 0, 30, accuracy_test=0.92, epochs_to_level=2, features=30),
    ]
    table = comparison_table(rows)
    assert "20 features, 5 per class" in table
    assert "30 features, 5 per class" in table
    lines = {line.split("  ")[0]: line for line in table.split("\n\n")[0].splitlines()}
    assert lines["accuracy, test (%)"].split() == ["accuracy,", "test", "(%)", "95.0", "92.0", "±", "2.8"]
    assert "epochs to dense − 1 point" not in lines or lines["epochs to dense − 1 point"].endswith("–")
    assert lines["features in use"].split()[-3:] == ["20", "±", "0"]
    text = comparison_markdown(rows)
    assert "| accuracy, test (%) | 95.0 | 92.0 ± 2.8 |" in text
    assert "- accuracy, test (%): after fine-tuning" in text
    assert comparison_table(rows[:1]).splitlines()[1].split() == ["seeds", "1"]


def test_command(
    finished: RunFolder,
    rows: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(compare, "load_data", lambda *_, **__: data())
    command = ["compare", str(finished.path), "--seeds", "2", "--n-select", "4"]
    assert cli.main([*command, "--methods", "dense,qpm,random"]) == 0
    out, err = capsys.readouterr()
    assert " ± " in out
    assert str(finished.path / "compare" / "compare.csv") in out
    assert "5 of 5 already finished" in err
    assert cli.main([*command, "--methods", "qmp"]) == 2
    assert "Did you mean 'qpm'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["compare", str(finished.path), "--n-select", "4;5"])
    assert "whole numbers with commas" in capsys.readouterr().err
