"""What is gathered for a page, from images to entries, and the page as text."""

from __future__ import annotations

import base64
import copy
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from qpm_opt import InvalidInputError
from qpm_vision import cli, load_model, write_report
from qpm_vision.explain import strength
from qpm_vision.faithfulness import judge
from qpm_vision.feature_names import NAMES, write_names
from qpm_vision.model import QPMClassifier
from qpm_vision.report import Report, gather_report, render_page
from qpm_vision.report.activity import correlations, histogram, separation
from qpm_vision.report.confusion import confused_pairs, confusions, most_confused
from qpm_vision.report.faithfulness import heat_map_test
from qpm_vision.report.pictures import LEVELS, levels
from qpm_vision.report.selection import amounts, select_images
from qpm_vision.report.sight import Sight, evenly_spread, look
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.training_state import weights_digest
from tests.vision.conftest import HOSTILE, Reported
from tests.vision.tiny import tiny_backbone, tiny_data, tiny_faithfulness

# -- behaviour of a feature ----------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_activity_against_other_implementations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(60, 3)).astype(np.float32).round(1)  # ties
    own = rng.random(60) < 0.3
    own[:2] = True, False
    assert separation(values[:, 0], own) == pytest.approx(roc_auc_score(own, values[:, 0]))
    expected = np.corrcoef(values, rowvar=False)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(correlations(values), expected, atol=1e-9)
    bars = histogram(values[:, 0], own)
    assert sum(bars.own) == pytest.approx(1)
    assert sum(bars.others) == pytest.approx(1)
    assert bars.low < bars.high


def test_activity_of_features_that_never_vary() -> None:
    values, everywhere = np.full((5, 2), 2, dtype=np.float32), np.ones(5, dtype=bool)
    assert separation(values[:, 0], everywhere) is None
    assert (correlations(values) == 0).all()
    bars = histogram(values[:, 0], everywhere)
    assert (bars.low, bars.high, sum(bars.own), sum(bars.others)) == (1.5, 2.5, 1.0, 0.0)


# -- confusions ----------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_confusions_against_a_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 5, (2, 80))
    matrix = np.zeros((5, 5), dtype=int)
    np.add.at(matrix, (labels, predicted), 1)
    np.fill_diagonal(matrix, 0)
    found = confusions(labels, predicted)
    assert {(a, b): n for a, b, n in found} == {(a, b): matrix[a, b] for a, b in zip(*np.nonzero(matrix), strict=True)}
    assert [count for *_, count in found] == sorted((count for *_, count in found), reverse=True)
    together = confused_pairs(found)
    assert all(together[a, b] == matrix[a, b] + matrix[b, a] for a in range(5) for b in range(a + 1, 5))
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1)
    worst = most_confused(found, 5, 2)
    assert sorted(mistakes[worst], reverse=True) == sorted(mistakes, reverse=True)[:2]
    assert most_confused(found, 5, None).tolist() == [0, 1, 2, 3, 4]


# -- looking at images ---------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 40))
def test_a_spread_has_every_class_and_no_image_twice(labels: list[int], most: int) -> None:
    chosen = evenly_spread(labels, most)
    assert len(set(chosen.tolist())) == len(chosen)
    assert chosen.tolist() == sorted(chosen.tolist())
    assert {labels[place] for place in chosen} == set(labels)
    assert len(chosen) <= max(most, len(set(labels)))


def test_a_look_says_what_the_model_says() -> None:
    torch.manual_seed(0)
    weights = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]])
    model = QPMClassifier(tiny_backbone(), [1, 4, 6], weights, np.full(3, 0.1), np.full(3, 0.2)).eval()
    images = torch.rand(10, 3, 16, 16)
    labels = torch.arange(10) % 4
    scale = np.array([0.3, 0.0, 0.2], dtype=np.float32)
    batches = [(images[:7], labels[:7]), (images[7:], labels[7:])]
    counts: list[int] = []
    sight = look(model, batches, np.arange(10) + 100, scale=scale, on_images=counts.append)
    with torch.no_grad():
        output = model(images)
    order = output.logits.sort(dim=1, descending=True, stable=True).indices
    scores = torch.softmax(output.logits, dim=1).gather(1, order)
    assert counts == [7, 10]
    assert sight.positions[0] == 100
    np.testing.assert_array_equal(sight.predicted, order[:, 0])
    np.testing.assert_array_equal(sight.runner_up, order[:, 1])
    np.testing.assert_allclose(sight.lead, scores[:, 0] - scores[:, 1], atol=1e-6)
    np.testing.assert_allclose(sight.own_logit, output.logits[torch.arange(10), labels], atol=1e-5)
    np.testing.assert_allclose(sight.contributions @ weights.T, output.logits, atol=1e-5)
    strengths = strength(output.maps.numpy(), scale)
    for column in range(3):
        own = weights[labels.numpy(), column] > 0
        np.testing.assert_allclose(sight.average[column], strengths[own, column].mean(axis=0), atol=1e-6)
    with pytest.raises(InvalidInputError, match="at least one image"):
        look(model, [], np.arange(0), scale=scale)


def _sight(seed: int = 0) -> Sight:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), 20)
    predicted = np.where(rng.random(80) < 0.3, (labels + 1) % 4, labels)
    return Sight(
        positions=np.arange(80),
        labels=labels,
        predicted=predicted,
        runner_up=(predicted + 2) % 4,
        score=rng.random(80).astype(np.float32),
        lead=rng.random(80).astype(np.float32),
        own_logit=rng.normal(size=80).astype(np.float32),
        contributions=rng.normal(size=(80, 3)).astype(np.float32),
        average=np.zeros((3, 2, 2), dtype=np.float32),
    )


def test_selected_images_are_those_that_say_most() -> None:
    sight, wanted = _sight(), replace(amounts(4), of_class=3, of_feature=5, wrong=6, close=7)
    chosen = select_images(sight, np.array([0, 1, 3]), wanted)
    for index, rows in enumerate(chosen.of_class[:4]):
        right = [row for row in range(80) if sight.labels[row] == index and sight.right[row]]
        best = sorted(right, key=lambda row: -sight.own_logit[row])[:3]
        assert rows == ([] if index == 2 else best)
    for column, rows in enumerate(chosen.of_feature):
        assert len(rows) == 5
        assert max(np.bincount(sight.labels[rows])) <= 2
        assert 2 not in sight.labels[rows]
        others = np.flatnonzero(sight.labels != 2)
        assert rows[0] == others[sight.contributions[others, column].argmax()]
    assert not sight.right[chosen.wrong].any()
    assert sight.right[chosen.close].all()
    assert (np.diff(sight.score[chosen.wrong]) <= 0).all()
    assert (np.diff(sight.lead[chosen.close]) >= 0).all()
    assert max(np.bincount(sight.labels[chosen.wrong])) <= 3
    rows = chosen.rows()
    assert rows == sorted(set(rows))


def test_levels_are_close_to_strengths() -> None:
    strengths = np.random.default_rng(0).random((5, 4, 4), dtype=np.float32)
    assert np.abs(levels(strengths) / LEVELS - strengths).max() <= 0.5 / LEVELS + 1e-6
    assert levels([0.0, 1.0]).tolist() == [0, LEVELS]


# -- the report ----------------------------------------------------------------------------------------------------


def test_counts_are_those_of_the_run(reported: Reported) -> None:
    report, folder, data = reported
    predictor = load_model(folder, device="cpu")
    predicted = np.array([item.class_index for item in predictor.predict(data.test)])
    W = predictor.assignment.to_numpy()
    for index, entry in enumerate(report.classes):
        mine = data.test.labels == index
        assert entry.name == data.class_names[index]
        assert entry.features == np.flatnonzero(W[index]).tolist()
        assert (entry.n_test, entry.n_right) == (mine.sum(), (predicted[mine] == index).sum())
        assert entry.n_train == (data.train.labels == index).sum()
        assert all(report.images[place].label == index for place in entry.images)
    assert report.confusions == confusions(data.test.labels, predicted)
    accuracy = sum(entry.n_right for entry in report.classes) / sum(entry.n_test for entry in report.classes)
    assert accuracy == pytest.approx(folder.read_json("metrics.json")["qpm"]["accuracy_test"])
    assert [entry.number for entry in report.features] == predictor.assignment.columns.tolist()
    assert report.n_looked == len(data.train)
    assert sum(entry.redundancy for entry in report.features) == pytest.approx(
        -2 * report.optimisation.prices.redundancy
    )


def test_pictures_are_what_the_model_sees(reported: Reported) -> None:
    report, folder, data = reported
    predictor = load_model(folder, device="cpu")
    assert len(report.pictures) == len(report.images)
    for entry, picture in list(zip(report.images, report.pictures, strict=True))[:5]:
        position = int(entry.key.removeprefix("train-"))
        explained = predictor.explain(data.train.image(position))
        assert entry.name == data.train.name(position)
        assert (entry.label, entry.predicted) == (data.train.labels[position], explained.class_index)
        assert entry.runner_up == explained.runner_up_index
        added = np.frombuffer(picture.contributions, dtype="<f4")
        for item in explained.features:
            assert added[item.column] == pytest.approx(item.contribution, abs=1e-4)
        shape = (len(report.features), report.maps.height, report.maps.width)
        maps = np.frombuffer(zlib.decompress(picture.maps), dtype=np.uint8).reshape(shape)
        assert maps.max() <= LEVELS
        assert len(picture.thumbnail) > 0


def test_test_images_and_fewer_classes_on_request(reported: Reported) -> None:
    _, folder, data = reported
    report = gather_report(folder, images="test", max_classes=2, data=data, device="cpu")
    assert report.split == "test"
    assert report.n_pictured == 2
    assert all(entry.key.startswith("test-") for entry in report.images)
    mistakes = confused_pairs(report.confusions)
    counts = [sum(n for pair, n in mistakes.items() if index in pair) for index in range(4)]
    pictured = [index for index, entry in enumerate(report.classes) if entry.images]
    assert sorted((counts[index] for index in pictured), reverse=True) == sorted(counts, reverse=True)[:2]
    assert {entry.label for entry in report.images} == set(pictured)
    assert len(report.classes) == 4
    for arguments in ({"images": "both"}, {"max_classes": 0}):
        with pytest.raises(InvalidInputError, match=next(iter(arguments))):
            gather_report(folder, data=data, device="cpu", **arguments)


def test_names_of_features_are_shown(reported: Reported) -> None:
    report, folder, data = reported
    number = report.features[1].number
    assert [entry.name for entry in report.features] == [None] * 4
    write_names(folder, {number: "red crown"})
    try:
        named = gather_report(folder, data=data, device="cpu")
    finally:
        (folder.path / NAMES).unlink()
    assert [entry.name for entry in named.features] == [None, "red crown", None, None]


def test_figures_about_heat_maps_are_shown_of_this_model_alone(reported: Reported, tmp_path: Path) -> None:
    assert reported.report.faithfulness.missing is not None
    assert "has not been measured" in reported.report.faithfulness.missing
    folder = RunFolder(tmp_path)
    model = load_model(reported.folder, device="cpu").model
    measured = tiny_faithfulness((0.2, 0.01), (-0.2, 0.01), model=weights_digest(model))
    folder.write_json("faithfulness.json", measured.to_dict())
    found = heat_map_test(folder, model)
    assert (found.missing, found.measured, found.verdict) == (None, measured, judge(measured))
    again = copy.deepcopy(model)
    next(again.parameters()).data += 0.001
    stale = heat_map_test(folder, again)
    assert (stale.measured, stale.verdict) == (None, None)
    assert "trained again" in str(stale.missing)
    page = _page(replace(reported.report, faithfulness=stale))
    assert f"{stale.missing} <code>qpm-vision faithfulness RUN</code>" in page
    (tmp_path / "faithfulness.json").write_text("{")
    assert "cannot be read" in str(heat_map_test(folder, model).missing)


def test_of_many_images_an_even_sample_is_looked_at(reported: Reported, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder, data = reported
    monkeypatch.setattr("qpm_vision.report.gather.MOST_IMAGES", 20)
    report = gather_report(folder, data=data, device="cpu")
    assert report.n_looked == 20
    shown = {int(entry.key.removeprefix("train-")) for entry in report.images}
    assert shown <= set(evenly_spread(data.train.labels, 20).tolist())
    assert [entry.n_train for entry in report.classes] == [12] * 4


def test_a_report_is_plain_data(reported: Reported) -> None:
    report, _, _ = reported
    plain = report.to_dict()
    assert "pictures" not in plain
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_unfinished_runs_are_refused(reported: Reported, tmp_path: Path) -> None:
    _, folder, data = reported
    empty = RunFolder.create(tmp_path / "new", folder.config())
    with pytest.raises(RunFolderError, match="is not finished"):
        write_report(empty, data=data)


# -- the page ------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    attributes: str
    text: str


def _scripts(page: str) -> list[Block]:
    return [Block(*found) for found in re.findall(r"<script([^>]*)>(.*?)</script>", page, flags=re.DOTALL)]


def _page(report: Report) -> str:
    return "".join(render_page(report))


def test_a_page_loads_nothing(reported: Reported) -> None:
    page = _page(reported.report)
    outside = re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?((?:https?:)?//[^"')\s]+)""", page)
    assert outside == []
    assert set(re.findall(r"https?://[^\s\"']+", page)) <= {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "default-src 'none'" in page
    assert not re.search(r"<(?:link(?! rel=\"icon\" href=\"data:,\")|iframe|object|embed|img)\b", page)


def test_hostile_names_stay_text(reported: Reported) -> None:
    report, _, data = reported
    page = _page(report)
    assert set(data.class_names) >= set(HOSTILE)
    for name in HOSTILE[:2]:
        assert name not in page
    blocks = _scripts(page)
    kinds = [block.attributes for block in blocks]
    assert kinds.count("") == 1
    assert len(blocks) == 2 + len(report.images)
    known = json.loads(next(block.text for block in blocks if 'id="report-data"' in block.attributes))
    assert [entry["name"] for entry in known["classes"]] == list(data.class_names)


def test_pictures_of_a_page_are_those_of_the_report(reported: Reported) -> None:
    report = reported.report
    blocks = [block for block in _scripts(_page(report)) if "picture-" in block.attributes]
    for block, picture in zip(blocks, report.pictures, strict=True):
        parts = [base64.b64decode(part) for part in block.text.split(" ")]
        assert parts == [picture.thumbnail, picture.maps, picture.contributions]


def test_a_folder_has_images_of_its_own(reported: Reported, tmp_path: Path) -> None:
    report, folder, data = reported
    out = tmp_path / "pages"
    written = write_report(folder, out, data=data, device="cpu")
    assert written.path == out / "index.html"
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    images = sorted(f"images/{entry.key}.{report.maps.image}" for entry in report.images)
    assert files == [*images, "index.html"]
    assert written.n_images == len(images)
    assert written.n_bytes == sum((out / name).stat().st_size for name in files)
    with Image.open(out / images[0]) as image:
        assert image.size == (report.maps.side, report.maps.side)
    (out / "images" / "stale.webp").write_bytes(b"")
    write_report(folder, out, data=data, device="cpu", max_classes=1)
    assert not (out / "images" / "stale.webp").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]


def test_foreign_folders_are_left_alone(reported: Reported, tmp_path: Path) -> None:
    _, folder, data = reported
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("<p>mine</p>")
    with pytest.raises(InvalidInputError, match="holds something else"):
        write_report(folder, tmp_path / "mine", data=data, device="cpu")
    assert (tmp_path / "mine" / "index.html").read_text() == "<p>mine</p>"
    with pytest.raises(InvalidInputError, match=r"leave \.html out"):
        write_report(folder, tmp_path / "page.html", folder=True, data=data)


def test_the_command_writes_and_says_how_large(
    reported: Reported, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder, data = reported
    monkeypatch.setattr("qpm_vision.report.gather.load_data", lambda spec, **options: data)
    assert cli.main(["report", str(folder.path), "--device", "cpu"]) == 0
    path = folder.path / "report.html"
    assert capsys.readouterr().out == f"{path} ({path.stat().st_size / 1e6:.1f} MB)\n"
    assert cli.main(["report", str(folder.path), "--images", "both"]) == 2
    assert "'images' parameter must be one of train, test" in capsys.readouterr().err
    monkeypatch.setattr("qpm_vision.report.gather.load_data", lambda spec, **options: tiny_data(per_class=4))
    assert cli.main(["report", str(folder.path), "--device", "cpu"]) == 2
    assert "have changed since the run" in capsys.readouterr().err
