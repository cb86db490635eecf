from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision.data import ImageData, ImageSet, load_csv, load_data

PETS = [("a/1.png", "cat"), ("a/2.png", "dog"), ("b/1.png", "cat"), ("b/2.png", "dog"), ("b/3.png", "cat")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number, (path, _) in enumerate(PETS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 3), (40 * number, 0, 0)).save(tmp_path / path)
    return write(tmp_path / "pets.csv", "path,label", *(f"{path},{label}" for path, label in PETS))


def write(path: Path, *rows: str, encoding: str = "utf-8") -> Path:
    path.write_bytes("\n".join(rows).encode(encoding))
    return path


def names(images: ImageSet) -> list[str]:
    return [images.name(position) for position in range(len(images))]


def labels(data: ImageData) -> dict[str, str]:
    parts = (data.train, data.test)
    return {images.name(i): data.class_names[images.labels[i]] for images in parts for i in range(len(images))}


def test_a_table_is_divided_by_share_and_seed(table: Path) -> None:
    data = load_data(f"csv:{table}", test_share=0.5, seed=1)
    assert (data.name, data.class_names, data.divided) == ("pets", ("cat", "dog"), False)
    assert labels(data) == dict(PETS)
    assert np.bincount(data.test.labels).tolist() == [2, 1]
    for images in (data.train, data.test):
        for position, name in enumerate(names(images)):
            assert images.image(position).getpixel((0, 0))[0] == 40 * [path for path, _ in PETS].index(name)
    assert names(data.test) == names(load_data(f"csv:{table}", test_share=0.5, seed=1).test)


def test_columns_come_in_any_order_and_divide_the_images(table: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = [f'x, "{label}",{"test" if i == 2 else "train"} , {tmp_path / path}' for i, (path, label) in enumerate(PETS)]
    write(elsewhere / "t.csv", "\ufeffnote,label,split,path", "", *rows, encoding="utf-8")
    data = load_data(f"csv:{elsewhere / 't.csv'}")
    assert data.divided
    assert names(data.test) == [str(tmp_path / "b/1.png")]
    assert len(data.train) == 4


def test_labels_that_are_numbers_are_in_their_order(table: Path) -> None:
    for given, expected in ((("10", "9"), ("9", "10")), (("10", "9b"), ("10", "9b"))):
        label = dict(zip(("cat", "dog"), given, strict=True))
        write(table, "path,label", *(f"{path},{label[pet]}" for path, pet in PETS))
        assert load_csv(table).class_names == expected


def test_files_that_cannot_be_read_are_left_out(table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a/1.png").write_text("no image")
    data = load_csv(table)
    assert [item.path for item in data.skipped] == [tmp_path / "a/1.png"]
    assert len(data.train) + len(data.test) == 4
    assert "1 of 5 images" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "an empty file"),
        (["path,class", "a/1.png,cat"], "columns 'path' and 'label' once each.*Got path, class"),
        (["path,label,path", "a/1.png,cat,a/2.png"], "once each"),
        (["path,label"], "row for each image"),
        (["path,label", "a/1.png,cat", "a/2.png"], "2 cells in every row. Got 1 in line 3"),
        (["path,label", "", '"a/1.png","a', 'cat"', "a/2.png,"], "a label in every row. Got none in line 5"),
        (["path,label", ",cat"], "a path in every row. Got none in line 2"),
        (
            ["path,label,split", "a/1.png,cat,train", "a/2.png,dog,val"],
            "'train' or 'test' as split. Got 'val' in line 3",
        ),
        (["path,label", "a/1.png,cat", "./a/1.png,dog"], "each file once. Got './a/1.png' in lines 2 and 3"),
        (["path,label", "a/1.png,cat", "a/9.png,dog", "x.png,dog"], "Got 2 of 3 that are missing: 'a/9.png', 'x.png'"),
        (["path,label", "a/1.png,cat", "b/1.png,cat"], "at least 2 classes. Got one, 'cat'"),
        (["path,label,split", "a/1.png,cat,train", "a/2.png,dog,test"], "training part.*Got none in 'dog'"),
        (["path,label,split", "a/1.png,cat,train", "a/2.png,dog,train"], "rows for testing"),
        (["path,label", "a/1.png,cat", "a/2.png,dog"], "at least 2 images, one of them for testing"),
    ],
)
def test_tables_that_cannot_be_used(table: Path, rows: list[str], message: str) -> None:
    write(table, *rows)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_csv(table)
    assert "pets.csv" in str(caught.value)


def test_tables_that_cannot_be_read(table: Path, tmp_path: Path) -> None:
    for argument, message in (
        ("", "'csv:FILE' must name a table"),
        (str(tmp_path / "no.csv"), "Got No such file"),
        (str(tmp_path), "Got Is a directory"),
        (str(write(tmp_path / "l.csv", "path,label", "ä,b", encoding="latin-1")), "UTF-8"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            load_data(f"csv:{argument}")


def relabelled(table: Path, *given: str, separator: str = ",") -> Path:
    rows = (separator.join((path, given[label == "dog"])) for path, label in PETS)
    return write(table, separator.join(("path", "label")), *rows)


@pytest.mark.parametrize("given", [("NA", "None"), ("001", "1"), ("1e5", "100000"), ("-1", "10"), ("True", "False")])
def test_labels_stay_text(table: Path, given: tuple[str, str]) -> None:
    assert set(load_csv(relabelled(table, *given)).class_names) == set(given)


def test_two_spellings_are_one_label_and_one_file(table: Path, tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "한국") for form in ("NFC", "NFD"))
    (tmp_path / "a/1.png").rename(tmp_path / f"a/{apart}.png")  # as macOS names it
    write(table, "path,label", f"a/{composed}.png,{composed}", f"b/1.png,{apart}", "a/2.png,dog", "b/2.png,dog")
    data = load_csv(table)
    assert data.class_names == ("dog", composed)
    assert sorted(labels(data).values()) == ["dog", "dog", composed, composed]


def test_doubtful_labels_are_questioned(table: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"differ in more than case. Got 'Cat' and 'cat'. Spell them alike if"):
        load_csv(relabelled(table, "cat", "Cat"))
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        with pytest.raises(InvalidInputError, match=f"pets.csv' must be separated by commas. Got {name}. Save it with"):
            load_csv(relabelled(table, "cat", "dog", separator=separator))
    with pytest.raises(InvalidInputError, match=r"columns once each\. Got 'label' in columns 2 and 3"):
        load_csv(write(table, "path,label,label", "a/1.png,cat,dog"))
