from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision.data import ImageData, ImageSet, load_data, load_image_folder
from qpm_vision.data.attributes import read_class_relation


def add(folder: Path, *names: str, value: int = 100) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (value + number, 0, 0)).save(path)


def tree(folder: Path, *classes: str, count: int = 4) -> Path:
    for position, name in enumerate(classes):
        add(folder / name, *(f"{number}.png" for number in range(count)), value=10 * position)
    return folder


def names(images: ImageSet) -> list[str]:
    return [images.name(position) for position in range(len(images))]


def everything(data: ImageData) -> list[str]:
    return sorted([*names(data.train), *names(data.test)])


def test_one_tree_is_split(tmp_path: Path) -> None:
    data = load_image_folder(tree(tmp_path / "pets", "dog", "cat"), test_share=0.25, seed=1)
    assert data.name == "pets"
    assert data.class_names == ("cat", "dog")
    assert everything(data) == [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4)]
    assert np.bincount(data.train.labels).tolist() == [3, 3]
    assert np.bincount(data.test.labels).tolist() == [1, 1]
    assert data.skipped == ()
    assert data.class_relation is None
    for images in (data.train, data.test):
        for position, label in enumerate(images.labels):
            assert images.name(position).startswith(data.class_names[label])
            red = images.image(position).getpixel((0, 0))[0]
            assert red == 10 * (label == 0) + int(Path(images.name(position)).stem)


def test_the_split_follows_the_seed_and_not_the_place(tmp_path: Path) -> None:
    first, moved = tree(tmp_path / "a", "x", "y", count=8), tree(tmp_path / "b", "x", "y", count=8)
    assert names(load_image_folder(first, seed=3).test) == names(load_image_folder(moved, seed=3).test)
    assert names(load_image_folder(first, seed=3).test) != names(load_image_folder(first, seed=4).test)


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "Validation"])
def test_divided_folders(tmp_path: Path, test_name: str) -> None:
    tree(tmp_path / "train", "b", "a")
    tree(tmp_path / test_name, "a", "b", count=1)
    data = load_image_folder(tmp_path)
    assert names(data.train)[0] == "train/a/0.png"
    assert names(data.test) == [f"{test_name}/a/0.png", f"{test_name}/b/0.png"]
    assert len(data.train) == 8


def test_test_goes_before_val(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("train", "val", "test"):
        tree(tmp_path / part, "a", "b", count=1)
    with caplog.at_level(logging.WARNING):
        data = load_image_folder(tmp_path)
    assert names(data.test) == ["test/a/0.png", "test/b/0.png"]
    assert "not val" in caplog.text


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    assert load_image_folder(tree(tmp_path, "train", "test", "bus")).class_names == ("bus", "test", "train")


def test_nested_hidden_and_other_files(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b", count=1)
    add(tmp_path / "a", "deep/er/x.JPG", ".hidden.png", ".hid/y.png", "__MACOSX/z.png")
    add(tmp_path / ".git", "c.png")
    add(tmp_path, "loose.png")
    (tmp_path / "a" / "notes.txt").write_text("hello")
    (tmp_path / "b" / "noending").write_bytes((tmp_path / "b" / "0.png").read_bytes())
    assert everything(load_image_folder(tmp_path)) == ["a/0.png", "a/deep/er/x.JPG", "b/0.png"]


def test_unreadable_files_are_listed_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path, "a", "b")
    (tmp_path / "a" / "1.png").write_text("no image")
    (tmp_path / "b" / "bad.png").symlink_to("nowhere")
    (tmp_path / "b" / "empty.jpeg").touch()
    with caplog.at_level(logging.WARNING):
        data = load_image_folder(tmp_path)
    assert [(item.path, item.reason.split()[1]) for item in data.skipped] == [
        (tmp_path / "a" / "1.png", "is"),
        (tmp_path / "b" / "bad.png", "does"),
        (tmp_path / "b" / "empty.jpeg", "is"),
    ]
    assert len(data.train) + len(data.test) == 7
    assert "3 of 10 images" in caplog.text
    for images in (data.train, data.test):
        for position in range(len(images)):
            images.image(position)


def test_pixels_are_kept_only_while_they_fit(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b")
    needed = 8 * 6 * 4 * 3
    for cache_bytes, kept in ((needed, True), (needed - 1, False), (0, False)):
        data = load_image_folder(tmp_path, cache_bytes=cache_bytes)
        path = tmp_path / data.train.name(0)
        content, image = path.read_bytes(), np.asarray(data.train.image(0))
        Image.new("RGB", (6, 4), "blue").save(path)
        assert np.array_equal(np.asarray(data.train.image(0)), image) == kept
        path.write_bytes(content)


def test_many_images_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qpm_vision.data._scan._BATCH", 3)
    for label in ("a", "b"):
        add(tmp_path / label, *(f"{number:02}.png" for number in range(10)))
    (tmp_path / "b" / "04.png").write_text("no image")
    data = load_image_folder(tmp_path)
    for images in (data.train, data.test):
        for position in range(len(images)):
            assert images.image(position).getpixel((0, 0))[0] == 100 + int(Path(images.name(position)).stem)
    assert data.skipped[0].path == tmp_path / "b" / "04.png"


def test_links_in_circles(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "a", "b")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "b" / "loop").symlink_to(root / "b" / "loop")
    add(tmp_path / "elsewhere", "x.png")
    (root / "b" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "b")
    assert everything(load_image_folder(root)) == sorted(
        [f"{name}/{number}.png" for name in "ab" for number in range(4)] + ["b/other/x.png"]
    )


def test_a_class_with_one_image_is_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path, "a", "b")
    add(tmp_path / "single", "x.png")
    with caplog.at_level(logging.WARNING):
        data = load_image_folder(tmp_path)
    assert "single/x.png" in names(data.train)
    assert 2 not in data.test.labels
    assert "'single'" in caplog.text


def test_composed_letters_are_one_class_on_every_system(tmp_path: Path) -> None:
    tree(tmp_path, unicodedata.normalize("NFD", "가"), "b")
    data = load_image_folder(tmp_path)
    assert data.class_names == ("b", unicodedata.normalize("NFC", "가"))
    assert all(unicodedata.is_normalized("NFC", name) for name in everything(data))


def flat(root: Path) -> None:
    add(root, "x.png", "y.png")


def other_files(root: Path) -> None:
    for name in ("a/x.psd", "a/y.psd", "b/z.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("?")


def empty_class(root: Path) -> None:
    tree(root, "a", "b")
    (root / "hollow").mkdir()


def phone_class(root: Path) -> None:
    empty_class(root)
    (root / "hollow" / "x.heic").write_bytes(b"?")


def unreadable_class(root: Path) -> None:
    empty_class(root)
    (root / "hollow" / "x.png").touch()


def only_train(root: Path) -> None:
    tree(root / "train", "a", "b")


def missing_in_test(root: Path) -> None:
    tree(root / "train", "a", "b", "c")
    tree(root / "test", "a", "b")


def missing_in_train(root: Path) -> None:
    tree(root / "train", "a", "b")
    tree(root / "test", "a", "b", "c")


def empty_in_test(root: Path) -> None:
    tree(root / "train", "a", "b")
    tree(root / "test", "a")
    (root / "test" / "b").mkdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.rmdir(), "Got nothing there.*Give a folder"),
        (lambda root: (root.rmdir(), root.touch()), "Got a file.*Give a folder"),
        (lambda root: None, "Got no files.*Give a folder"),
        (flat, "Got 2 images that lie in no class folder.*Give a folder"),
        (other_files, r"Got other files only \(2 × .psd, 1 × .txt\)"),
        (lambda root: tree(root, "solo"), "at least 2 classes.*'solo'"),
        (empty_class, "Got none in 'hollow'. Add images"),
        (
            phone_class,
            r"Got none in 'hollow' \(a file there cannot be read: it is a HEIC image.*pip install pillow-heif",
        ),
        (unreadable_class, r"Got none in 'hollow' \(a file there cannot be read: it is empty"),
        (lambda root: tree(root, "Cat", "cat", "dog"), "'Cat' and 'cat'. Rename"),
        (lambda root: tree(root, "a", "b", count=1), "at least 2 images"),
        (only_train, "test/.*beside train/.*Add it"),
        (missing_in_test, "Got no 'c' in test"),
        (missing_in_train, "Got no 'c' in train"),
        (empty_in_test, "test'.*Got none in 'b'"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, make, message: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    make(root)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_image_folder(root)
    assert "root" in str(caught.value)


def test_long_lists_are_shortened(tmp_path: Path) -> None:
    tree(tmp_path / "train", *"abcdefghij", count=1)
    tree(tmp_path / "test", "a", count=1)
    with pytest.raises(InvalidInputError, match="'f' and 4 more"):
        load_image_folder(tmp_path)


# -- attributes ----------------------------------------------------------------------------------------------------


def write_table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "attributes.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_relation_of_categories_is_the_shared_part(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b", "c")
    write_table(tmp_path, "class,colour,shape\nc,red,round\n\na,red,long\nb,blue,long\n")
    expected = [[0, 0.5, 0.5], [0.5, 0, 0], [0.5, 0, 0]]
    np.testing.assert_allclose(load_data(tmp_path).class_relation, expected, atol=1e-12)


def test_relation_of_numbers_is_their_cosine(tmp_path: Path) -> None:
    path = write_table(tmp_path, "class,x,y,kind\r\na,3,0,p\r\nb,1.5e0,2,q\r\nc,0,0,p\r\n", "utf-8-sig")
    vectors = np.array([[3, 0, 1, 0], [1.5, 2, 0, 1], [0, 0, 1, 0]])
    lengths = np.linalg.norm(vectors, axis=1)
    expected = vectors @ vectors.T / np.outer(lengths, lengths)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(read_class_relation(path, ["a", "b", "c"]), expected, atol=1e-12)


def test_relation_of_nothing_and_of_extreme_numbers(tmp_path: Path) -> None:
    path = write_table(tmp_path, "class,x,y\na,0,0\nb,1e300,1e300\nc,1e-300,0\n")
    expected = np.zeros((3, 3))
    expected[1, 2] = expected[2, 1] = np.sqrt(0.5)
    np.testing.assert_allclose(read_class_relation(path, ["a", "b", "c"]), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("name,x\na,1\nb,2\n", "'class'.*name, x"),
        ("class\na\nb\n", "'class' and at least one attribute"),
        ("class,x\na,1\n", "missing for the classes 'b'"),
        ("class,x\na,1\nb,2\nowl,3\n", "no images of the classes 'owl'"),
        ("class,x\na,1\nb,2\na,3\n", "several rows for the classes 'a'"),
        ("class,x,y\na,1,2\nb,2\n", "3 cells.*2 in line 3, the row of 'b'"),
        ("class,x\na,1\nb,\n", "value of 'x'.*none for 'b'"),
        ("class,x\na,1\nb,inf\n", "finite numbers in the column 'x'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    tree(tmp_path, "a", "b")
    write_table(tmp_path, text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_image_folder(tmp_path)
    assert "attributes.csv" in str(caught.value)
    assert "Correct it" in str(caught.value)


def test_tables_in_another_encoding(tmp_path: Path) -> None:
    path = write_table(tmp_path, "class,x\nä,1\nb,2\n", "latin-1")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        read_class_relation(path, ["ä", "b"])


def test_attributes_are_of_columns_with_different_names(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b")
    write_table(tmp_path, "class,x,x\na,1,2\nb,2,1\n")
    with pytest.raises(InvalidInputError, match=r"columns once each\. Got 'x' in columns 2 and 3"):
        load_image_folder(tmp_path)


def test_a_class_in_two_spellings_is_refused(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "한국") for form in ("NFC", "NFD"))
    tree(tmp_path, composed, apart, "b")
    if len(list(tmp_path.iterdir())) == 3:  # on file systems that keep them apart
        with pytest.raises(InvalidInputError, match=f"Got '{composed}' twice, with letters composed and taken apart"):
            load_image_folder(tmp_path)
