"""Names of features: what is refused, what is kept, and where they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from qpm_opt import InvalidInputError
from qpm_vision import cli
from qpm_vision.explain import load_explainer, plot_class
from qpm_vision.feature_names import (
    NAMES,
    feature_names,
    kept_features,
    names_table,
    read_names,
    write_names,
)
from qpm_vision.predict import load_model
from qpm_vision.run_folder import RunFolder, RunFolderError
from tests.vision.tiny import tiny_data


@pytest.fixture(autouse=True)
def _nameless(finished: RunFolder) -> None:
    (finished.path / NAMES).unlink(missing_ok=True)


def _table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_are_kept_beside_the_run(finished: RunFolder, tmp_path: Path) -> None:
    kept = kept_features(finished)
    assert feature_names(finished) == {}
    table = _table(tmp_path, f"\ufefffeature,name,note\n{kept[2]}, red crown ,x\n{kept[0]},\n{kept[1]},부리\n")
    names = read_names(table, kept)
    assert names == {kept[2]: "red crown", kept[0]: "", kept[1]: "부리"}
    named = {number: name for number, name in names.items() if name}
    write_names(finished, named)
    assert feature_names(finished) == named
    again = _table(tmp_path, names_table(kept, named))
    assert read_names(again, kept) == {number: named.get(number, "") for number in kept}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature,name\n{0},a\n{0},b\n", r"line 3: feature \d+ must have one name. Got 'a' and 'b'"),
        ("feature,name\n{0},a\n{1},a\n", "line 3: two features must not have the same name"),
        ("feature,name\n999,a\n", "that the run keeps: .*Got feature 999"),
        ("feature,name\nx,a\n", "line 2: the feature must be its number. Got 'x'"),
        ("feature,name\n{0},17\n", "line 2: a name must not be a number"),
        ("feature,name\n{0}," + "a" * 61 + "\n", "line 2: a name must have 1 to 60 printable"),
        ('feature,name\n{0},"a\nb"\n', "printable"),
        ("number;name\n", "must be separated by commas. Got semicolons. Save it with commas"),
        ("number,name\n", "must have the columns feature and name. Got number, name"),
        ("", "Got none; let its first line be feature,name"),
    ],
)
def test_bad_tables_are_refused_with_the_line(finished: RunFolder, tmp_path: Path, text: str, message: str) -> None:
    kept = kept_features(finished)
    with pytest.raises(InvalidInputError, match=message):
        read_names(_table(tmp_path, text.format(*kept)), kept)


def test_bad_names_leave_the_former_ones(finished: RunFolder) -> None:
    kept = kept_features(finished)
    write_names(finished, {kept[0]: "tail"})
    for names in ({kept[0]: ""}, {kept[0]: " x"}, {kept[0]: "a", kept[1]: "a"}, {9999: "a"}):
        with pytest.raises(InvalidInputError):
            write_names(finished, names)
    assert feature_names(finished) == {kept[0]: "tail"}
    with pytest.raises(InvalidInputError, match="Cannot read"):
        read_names(finished.path / "nowhere.csv", kept)


def test_names_of_features_that_are_no_longer_kept_are_passed_over(finished: RunFolder) -> None:
    kept = kept_features(finished)
    finished.write_csv(NAMES, ["feature", "name"], [[kept[0], "tail"], [9999, "beak"]])
    assert feature_names(finished) == {kept[0]: "tail"}
    finished.write_csv(NAMES, ["feature", "name"], [[kept[0], "tail"], [kept[0], "beak"]])
    with pytest.raises(RunFolderError, match=r"names\.csv, line 3.*delete it"):
        feature_names(finished)


def test_names_show_in_predictions_and_pictures(finished: RunFolder) -> None:
    plain = load_model(finished, device="cpu").predict(tiny_data().test.image(0))[0]
    first = plain.features[0]
    assert f"feature {first.feature}" in repr(plain)
    assert plain.to_dict()["features"][0]["name"] is None
    write_names(finished, {first.feature: "red crown"})
    named = load_model(finished, device="cpu").predict(tiny_data().test.image(0))[0]
    assert f"red crown ({first.feature})" in repr(named)
    assert named.to_dict()["features"][0]["name"] == "red crown"
    explainer = load_explainer(finished, data=tiny_data())
    figure, axes = plot_class(explainer, plain.class_name)
    texts = [text.get_text() for ax in axes.flat for text in ax.texts]
    assert f"red crown ({first.feature})" in texts
    assert figure is axes[0, 0].figure


def test_the_command_gives_and_shows_names(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = kept_features(finished)
    assert cli.main(["name", str(finished.path)]) == 0
    assert capsys.readouterr().out == names_table(kept, {})
    table = _table(tmp_path, f"feature,name\n{kept[3]},tail\n")
    assert cli.main(["name", str(finished.path), str(table)]) == 0
    assert "1 of 4 features have names" in capsys.readouterr().out
    assert cli.main(["name", str(finished.path)]) == 0
    assert f"\n{kept[3]},tail\n" in capsys.readouterr().out
    other = _table(tmp_path, f"feature,name\n{kept[0]},crown\n")
    assert cli.main(["name", str(finished.path), str(other)]) == 0
    assert feature_names(finished) == {kept[3]: "tail", kept[0]: "crown"}  # what a table leaves out keeps its name
    assert cli.main(["name", str(finished.path), str(_table(tmp_path, f"feature,name\n{kept[3]},\n"))]) == 0
    assert feature_names(finished) == {kept[0]: "crown"}
    assert cli.main(["name", str(finished.path), "nowhere.csv"]) == 2
    assert "Cannot read" in capsys.readouterr().err
