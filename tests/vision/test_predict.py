"""Using a finished model: what decided, exactly; every kind of input; pictures; and the command."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision import cli
from qpm_vision._image_input import find_images
from qpm_vision.data.images import UnreadableImageError, read_image
from qpm_vision.explain import load_explainer
from qpm_vision.model import QPMClassifier
from qpm_vision.predict import Prediction, Predictor, load_model
from qpm_vision.run_folder import RunFolder, RunFolderError
from tests.vision.tiny import CLASSES, TINY_SIZE, tiny_backbone, tiny_data

pytestmark = pytest.mark.usefixtures("tiny_registered")


@pytest.fixture(scope="module")
def predictor(finished: RunFolder) -> Predictor:
    return load_model(finished, device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Files 2, 10 and 1 in folders, one of them damaged, and files that are no images."""
    folder = tmp_path / "photos"
    for number, place in enumerate(("b/2.png", "b/10.png", "b/1.JPG", "a.png", "B10/x.png", "B9/x.png")):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_data().test.image(number * 4).save(path)
    (folder / "b" / "3.png").write_bytes(b"no image")
    (folder / "b" / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"no image")
    return folder


# -- what decided --------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_contributions_add_up_to_the_logit_to_the_last_digit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 2, (6, 8))
    weights[:, 0] |= weights.sum(axis=1) == 0
    std = rng.uniform(0.001, 1, 8) * (rng.random(8) > 0.1)  # a deviation of 0 makes contributions of many thousands
    torch.manual_seed(seed)
    model = QPMClassifier(tiny_backbone(), rng.permutation(8), weights, rng.normal(size=8) / 10, std)
    predictor = Predictor(model, model.backbone.preprocessing, tuple("abcdef"))
    images = rng.integers(0, 256, (3, TINY_SIZE, TINY_SIZE, 3), dtype=np.uint8)
    pixels = torch.stack([predictor.preprocessing.transform()(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        expected = model(pixels).logits.numpy()
    for prediction, logits in zip(predictor.predict(images), expected, strict=True):
        np.testing.assert_allclose(prediction.logits, logits, rtol=1e-4, atol=1e-5)
        own = [item.contribution for item in prediction.features]
        other = [item.contribution for item in prediction.features_of_runner_up()]
        first, second = prediction.logits[prediction.class_index], prediction.logits[prediction.runner_up_index]
        assert sum(own) == sum(reversed(own)) == math.fsum(own) == first == prediction.logits.max()
        assert sum(other) == second == np.sort(prediction.logits)[-2]
        alone = [item.contribution for item in prediction.features if not item.shared]
        assert sum(alone) - sum(item.contribution for item in prediction.instead) == first - second
        assert own == sorted(own, reverse=True)
        assert other == sorted(other, reverse=True)
        shares = np.exp(prediction.logits - first)
        np.testing.assert_allclose(prediction.scores, shares / shares.sum(), rtol=1e-12)
        assert prediction.score == prediction.scores.max()


def test_features_are_those_of_the_assignment(predictor: Predictor, finished: RunFolder) -> None:
    table = predictor.assignment
    result = finished.read_npz("assignment.npz")
    assert list(table.index) == list(CLASSES)
    np.testing.assert_array_equal(table.columns, result["selected"])
    np.testing.assert_array_equal(table, result["weights"])
    for prediction in predictor.predict(tiny_data().test):
        has = [set(table.columns[table.loc[name] == 1]) for name in (prediction.class_name, prediction.runner_up)]
        assert {item.feature for item in prediction.features} == has[0]
        assert {item.feature for item in prediction.features if item.shared} == has[0] & has[1]
        assert {item.feature for item in prediction.instead} == has[1] - has[0]
        assert all(table.columns[item.column] == item.feature for item in prediction.features)
    statistics = predictor.statistics
    assert list(statistics.index) == list(table.columns)
    np.testing.assert_allclose(
        statistics["mean"], finished.read_npz("statistics.npz")["mean"][table.columns], rtol=1e-6
    )
    np.testing.assert_array_equal(statistics["full_strength"], finished.read_npz("gallery.npz")["scale"])
    np.testing.assert_array_equal(statistics["classes"], table.sum())


def test_the_share_of_right_predictions_is_the_accuracy_of_the_run(predictor: Predictor, finished: RunFolder) -> None:
    test = tiny_data().test
    right = [
        prediction.class_index == label for prediction, label in zip(predictor.predict(test), test.labels, strict=True)
    ]
    assert np.mean(right) == pytest.approx(finished.read_json("metrics.json")["qpm"]["accuracy_test"])


def test_text_and_plain_values(predictor: Predictor) -> None:
    prediction = predictor.predict(tiny_data().test.image(0))[0]
    lines = repr(prediction).splitlines()
    assert lines[0].startswith(f"image 0: {prediction.class_name}, ")
    assert f"runner-up {prediction.runner_up}" in lines[0]
    assert len(lines) == 1 + len(prediction.features) + (1 + len(prediction.instead) if prediction.instead else 0)
    value = json.loads(json.dumps(prediction.to_dict(top=3)))
    assert [item["class"] for item in value["top"]][:2] == [value["class"], value["runner_up"]]
    assert len(value["top"]) == 3
    assert sum(item["contribution"] for item in value["features"]) == value["top"][0]["logit"]
    assert len(prediction.best(99)) == 4
    assert repr(predictor) == "Predictor(4 classes, 4 features, 2 per class, images of 16 pixels)"


# -- inputs --------------------------------------------------------------------------------------------------------


def test_every_kind_of_input_gives_the_same(predictor: Predictor, tmp_path: Path) -> None:
    picture = tiny_data().test.image(5)
    path = tmp_path / "x.png"
    picture.save(path)
    pixels = np.asarray(picture)
    rgba = picture.convert("RGBA")
    images: list[Any] = [
        picture,
        pixels,
        pixels[None],
        path,
        str(path),
        tmp_path,
        [[path], pixels],
        (p for p in [rgba]),
    ]
    expected = predictor.predict(picture)[0]
    for given_images in images:
        for prediction in predictor.predict(given_images):
            np.testing.assert_allclose(prediction.logits, expected.logits, atol=1e-5)
    names = [prediction.image_name for prediction in predictor.predict([pixels, path, pixels[None], picture])]
    assert names == ["image 0", str(path), "image 1", "image 2"]
    assert predictor.predict([]) == []


def test_a_picture_is_read_like_its_file(predictor: Predictor, tmp_path: Path) -> None:
    """Upright, and what is transparent is white: as the training images were read."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 4), dtype=np.uint8)
    path = tmp_path / "turned.png"
    picture = Image.fromarray(pixels, "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)
    with Image.open(path) as opened:
        (given_picture,) = predictor.predict(opened)
        assert opened.mode == "RGBA"
    (file,) = predictor.predict(path)
    np.testing.assert_array_equal(given_picture.logits, file.logits)


def test_batches_change_nothing(predictor: Predictor) -> None:
    images = tiny_data().test
    one = predictor.predict(images, batch_size=len(images))
    for batch_size in (1, 7):
        for prediction, expected in zip(predictor.predict(images, batch_size=batch_size), one, strict=True):
            assert prediction.image_name == expected.image_name
            np.testing.assert_allclose(prediction.logits, expected.logits, atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"'batch_size'.*Got 0"):
        predictor.predict(images, batch_size=0)


def test_a_stream_reads_no_further_than_its_batch(predictor: Predictor) -> None:
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((8, 8, 3), dtype=np.uint8)

    stream = predictor.stream(endless(), batch_size=4)
    assert isinstance([next(stream) for _ in range(6)][-1], Prediction)
    assert taken == 8


def test_folders_are_read_in_natural_order(photos: Path) -> None:
    names = [path.relative_to(photos).as_posix() for path in find_images(photos)]
    assert names == ["a.png", "b/1.JPG", "b/2.png", "b/3.png", "b/10.png", "B9/x.png", "B10/x.png"]
    (photos / "B9" / "round").symlink_to(photos)
    assert len(list(find_images(photos))) == 7


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros((8, 8, 3)), r"float64 ndarray \(8, 8, 3\)"),
        (np.zeros((8, 8), dtype=np.uint8), r"uint8 ndarray \(8, 8\)"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"\(3, 8, 8\)"),
        ([torch.zeros(3, 8, 8)], r"Tensor \(3, 8, 8\)"),
        (7, "a int"),
        (b"x", "a bytes"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, images: Any, got: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"'images' parameter must.*Got .*{got}"):
        predictor.predict(images)


def test_unreadable_images_are_errors_or_reported(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"3\.png"):
        predictor.predict(photos)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableImageError, match="without images"):
        predictor.predict(tmp_path / "empty")
    cut = io.BytesIO()
    tiny_data().test.image(0).resize((200, 200)).save(cut, "JPEG")
    truncated = Image.open(io.BytesIO(cut.getvalue()[:900]))
    found: list[UnreadableImageError] = []
    images = [photos, "nowhere.png", tmp_path / "empty", truncated]
    assert len(list(predictor.stream(images, on_unreadable=found.append))) == 6
    assert [error.path.name for error in found] == ["3.png", "nowhere.png", "empty", "image 0"]


# -- explanations --------------------------------------------------------------------------------------------------


def test_heat_maps_are_those_of_the_pictures(predictor: Predictor, finished: RunFolder) -> None:
    explainer = load_explainer(finished, data=tiny_data())
    explanation = predictor.explain(tiny_data().train.image(7))
    view = explainer.view(7)
    shown = (*explanation.features, *explanation.instead)
    assert explanation.heat_maps.shape == (len(shown), TINY_SIZE, TINY_SIZE)
    assert explanation.heat_maps.dtype == np.float32
    assert 0 <= explanation.heat_maps.min() <= explanation.heat_maps.max() <= 1
    np.testing.assert_allclose(explanation.image, view.image, atol=1e-6)
    for item, heat in zip(shown, explanation.heat_maps, strict=True):
        # Each place of the 4 × 4 maps is 4 × 4 pixels, whose middle has at least (7/8)² of its value from it.
        middle = heat.reshape(4, 4, 4, 4)[:, 1:3, :, 1:3].mean((1, 3))
        np.testing.assert_allclose(middle, view.presence[item.column], atol=1 - (7 / 8) ** 2)
    assert sum(item.contribution for item in explanation.features) == explanation.logits[explanation.class_index]


def test_an_explanation_draws_both_classes(predictor: Predictor) -> None:
    explanation = predictor.explain(tiny_data().test.image(0))
    figure, axes = explanation.plot()
    assert axes.shape == (2, 4)
    text = "\n".join(item.get_text() for item in figure.texts)
    assert f"Why {explanation.class_name} and not {explanation.runner_up}?" in text
    assert f"{explanation.n_images} training images" in text
    captions = [ax.get_xlabel() for ax in axes[0, 2:]]
    for item, caption in zip(explanation.features, captions, strict=True):
        assert caption.startswith(f"feature {item.feature}: {item.contribution:+.2f}\n")
    mine = Figure(figsize=(6, 4))
    assert explanation.plot(mine)[0] is mine


def test_an_explanation_is_a_small_page_of_its_own(predictor: Predictor) -> None:
    names = ("<b>north</b>", "east & co", '"south"', "west")
    named = Predictor(predictor.model, predictor.preprocessing, names, predictor.gallery)
    explanation = named.explain(tiny_data().test.image(0))
    page = explanation._repr_html_()
    assert len(page) < 40_000
    shown = (*explanation.features, *explanation.instead)
    assert page.count('src="data:image/jpeg;base64,/9j/') == page.count("<img") == 1 + len(shown)
    assert "<b>north</b>" not in page
    assert "&lt;b&gt;north&lt;/b&gt;" in page or "<b>north</b>" not in (explanation.class_name, explanation.runner_up)
    assert not any(text in page for text in ("http", "<script", "east & co"))
    text = re.sub(r"<[^>]*>", " ", page)
    for item in shown:
        assert f"feature {item.feature}:  {item.contribution:+.2f} " in text
    ElementTree.fromstring(_closed(page))


def _closed(page: str) -> str:
    """HTML whose elements without content are closed as XML wants it."""
    return re.sub(r"<(img|br)([^>]*)>", r"<\1\2/>", page)


def test_explaining_takes_one_image_of_a_finished_run(predictor: Predictor) -> None:
    images = tiny_data().test
    with pytest.raises(InvalidInputError, match=r"one image\. Got several"):
        predictor.explain([images.image(0), images.image(1)])
    with pytest.raises(InvalidInputError, match=r"one image\. Got none"):
        predictor.explain([])
    without = Predictor(predictor.model, predictor.preprocessing, predictor.class_names)
    assert np.isnan(without.statistics["full_strength"]).all()
    with pytest.raises(InvalidInputError, match="without a gallery; continue the run"):
        without.explain(images.image(0))


# -- loading -------------------------------------------------------------------------------------------------------


def test_loading_says_what_is_missing(finished: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="'device'"):
        load_model(finished, device="tpu9")
    copy = RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))
    copy.forget_from("explanation")
    assert load_model(copy, device="cpu").gallery is None
    (copy.path / "qpm.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunFolderError, match="--redo fine-tuning"):
        load_model(copy)
    shutil.copy(copy.path / "dense.safetensors", copy.path / "qpm.safetensors")
    with pytest.raises(RunFolderError, match="Got a DenseClassifier"):
        load_model(copy)
    copy.forget_from("fine-tuning")
    with pytest.raises(RunFolderError, match=r"no finished model: it has the stages dense, statistics, assignment\."):
        load_model(copy)


def test_names_must_fit(predictor: Predictor) -> None:
    with pytest.raises(InvalidInputError, match=r"'class_names'.*Got 3 names for 4 classes"):
        Predictor(predictor.model, predictor.preprocessing, ("a", "b", "c"))


# -- the command ---------------------------------------------------------------------------------------------------


def _predict(*arguments: object) -> int:
    return cli.main(["predict", *map(str, arguments), "--device", "cpu"])


def test_the_command_prints_a_table(
    finished: RunFolder, predictor: Predictor, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _predict(finished.path, photos) == 0
    out, err = capsys.readouterr()
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    assert rows[0] == ["image", "class", "score", "runner-up", "features"]
    assert [Path(row[0]).name for row in rows[1:]] == ["a.png", "1.JPG", "2.png", "10.png", "x.png", "x.png"]
    (first,) = predictor.predict(photos / "a.png")
    item = first.features[0]
    assert rows[1][1:3] == [first.class_name, f"{first.score:.1%}"]
    assert rows[1][4].startswith(f"{item.feature}: {item.contribution:+.2f}, ")
    assert f"cannot be read: {photos / 'b' / '3.png'}: it is not in an image format known here" in err
    assert "7 images, 1 of them cannot be read" in err


def test_the_command_writes_json_lines_and_csv(
    finished: RunFolder, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, table = tmp_path / "new" / "x.jsonl", tmp_path / "x.csv"
    assert _predict(finished.path, photos / "a.png", photos / "b", "--json", lines, "--csv", table, "--top", 3) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"written to {lines}" in err
    *records, end = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert end == {"images": 5, "unreadable": 1}
    unreadable = [record for record in records if "error" in record]
    assert [Path(record["image"]).name for record in unreadable] == ["3.png"]
    read = [record for record in records if "error" not in record]
    assert [len(record["top"]) for record in read] == [3] * 4
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == [record["image"] for record in records]
    for row, record in zip(rows, records, strict=True):
        assert row["error"] == record.get("error", "")
        assert row["class"] == record.get("class", "")
        if "top" in record:
            assert [row["class_2"], float(row["score_3"])] == [record["runner_up"], record["top"][2]["score"]]
            assert row["features"].startswith(f"{record['features'][0]['feature']}: ")


def test_json_on_standard_output_is_all_there_is_on_it(
    finished: RunFolder, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _predict(finished.path, photos, "--json", "-", "--batch-size", "2") == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 8


def test_results_are_written_before_all_images_are_read(
    finished: RunFolder, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After three batches of two, a Ctrl-C: what came before is on standard output, and no file stays half-written."""
    target = photos.parent / "x.csv"

    def interrupted(path: Path) -> Image.Image:
        if path.parent.name == "B10":
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr("qpm_vision._image_input.read_image", interrupted)
    assert _predict(finished.path, photos, "--json", "-", "--csv", target, "--batch-size", "2") == 130
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_only_where_nothing_can_be_read_the_command_fails(
    finished: RunFolder, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _predict(finished.path, photos / "b" / "3.png", "nowhere.png", "--json", "-") == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"images": 2, "unreadable": 2}
    (photos / "empty").mkdir()
    assert _predict(finished.path, photos / "empty") == 1
    assert "it is a folder without images" in capsys.readouterr().err
    assert _predict(finished.path, photos / "empty", photos / "a.png") == 0


def test_the_command_refuses(finished: RunFolder, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _predict(finished.path, photos, "--json", "-", "--csv", "-") == 2
    assert "'--json' and '--csv'" in capsys.readouterr().err
    assert _predict(finished.path, photos, "--top", 1) == 2
    assert "'--top' option must be at least 2" in capsys.readouterr().err
    assert _predict(photos, photos) == 2
    assert "is no run folder" in capsys.readouterr().err


def test_no_command_writes_over_what_it_reads(
    finished: RunFolder, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, run = photos / "a.png", finished.path
    (photos.parent / "link.png").symlink_to(photo)
    (photos.parent / "hard.json").hardlink_to(photo)
    (photos.parent / "table.csv").symlink_to(run / "metrics.json")
    before = {path: path.read_bytes() for path in (photo, run / "metrics.json", run / "config.json")}
    for command in (
        ["predict", run, photos, "--csv", photo],
        ["predict", run, photo, "--json", photos.parent / "hard.json"],
        ["predict", run, photo, "--csv", photos.parent / "table.csv"],
        ["explain", run, "--image", photo, "--out", photos.parent / "link.png"],
        ["evaluate", run, "--out", run / "metrics.json"],
        ["evaluate", run, "--out", f"{run}/../{run.name}/config.json"],
        ["evaluate", run, "--confusion", photos.parent / "table.csv"],
    ):
        assert cli.main([str(word) for word in command]) == 2, command
        assert "must not take the place of what is read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_the_example_of_the_readme(finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished.path, tmp_path / "my-run")
    tiny_data().test.image(0).resize((40, 30)).save(tmp_path / "photo.jpg")
    code = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text(), re.DOTALL)[2]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "why.png").stat().st_size > 1000
