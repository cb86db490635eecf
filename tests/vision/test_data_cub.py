from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from qpm_opt import InvalidInputError
from qpm_vision._data_identity import data_identity, identity_differences
from qpm_vision.data import ImageData, ImageSet, load_data, make_loader
from tests.vision.data_trees import CubTree, read_pixels, write_cub, write_traveling_birds


@pytest.fixture
def tree(tmp_path: Path) -> CubTree:
    return write_cub(tmp_path / "birds")


def names(images: ImageSet) -> list[str]:
    return [images.name(position) for position in range(len(images))]


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


# -- CUB-200-2011 --------------------------------------------------------------------------------------------------


def test_images_labels_and_split_are_those_of_the_tables(tree: CubTree, caplog: pytest.LogCaptureFixture) -> None:
    data = load_data(f"cub:{tree.root}")
    assert data.class_names == ("Black footed Albatross", "Laysan Albatross", "Chuck will Widow")
    assert (data.name, data.divided, data.cropping, data.skipped) == ("cub", True, "whole", ())
    for images, part in ((data.train, tree.in_train), (data.test, ~tree.in_train)):
        assert names(images) == [file for file, wanted in zip(tree.files, part, strict=True) if wanted]
        np.testing.assert_array_equal(images.labels, tree.labels[part])
        for position in range(len(images)):
            expected = read_pixels(tree.root / "images" / images.name(position))
            np.testing.assert_array_equal(np.asarray(images.image(position)), expected)
    assert "3 classes, 6 training and 6 test images; as published it has 200 classes, 5,994 training and 5,794" in (
        caplog.text
    )


def test_cropped_images_are_the_bounding_boxes(tree: CubTree) -> None:
    data = load_data(f"cub-cropped:{tree.root.parent}")
    assert (data.name, data.cropping) == ("cub-cropped", "bounding box")
    box_of = {file: box.astype(int) for file, box in zip(tree.files, tree.boxes, strict=True)}
    for images in (data.train, data.test):
        for position, name in enumerate(names(images)):
            left, top, width, height = box_of[name]
            expected = read_pixels(tree.root / "images" / name)[top : top + height, left : left + width]
            np.testing.assert_array_equal(np.asarray(images.image(position)), expected)


def test_the_order_of_lines_and_classes_is_that_of_the_ids(tree: CubTree) -> None:
    whole = load_data(f"cub-cropped:{tree.root}")
    for name in ("image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "classes.txt"):
        edit(tree.root / name, lambda rows: rows[::-1])
    assert data_identity(load_data(f"cub-cropped:{tree.root}")) == data_identity(whole)
    left = load_data(f"cub-cropped:{tree.root}").train.image(1)
    assert left.tobytes() == whole.train.image(1).tobytes()


def test_workers_read_cropped_images(tree: CubTree) -> None:
    data = load_data(f"cub-cropped:{tree.root}")

    def batches(workers: int) -> list[torch.Tensor]:
        return [batch for batch, _ in make_loader(data.train, _small, batch_size=4, workers=workers)]

    for here, there in zip(batches(0), batches(1), strict=True):
        assert torch.equal(here, there)


def _small(image) -> torch.Tensor:
    return torch.tensor(np.asarray(image.resize((8, 8)))).permute(2, 0, 1) / 255


def test_relation_is_the_cosine_of_the_attributes(tree: CubTree, caplog: pytest.LogCaptureFixture) -> None:
    relation = load_data(f"cub:{tree.root}").class_relation
    for first, a in enumerate(tree.attributes):
        for second, b in enumerate(tree.attributes):
            expected = 0 if first == second else np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))
            assert relation[first, second] == pytest.approx(expected, abs=1e-6)
    (tree.root.parent / "attributes.txt").unlink()
    np.testing.assert_array_equal(load_data(f"cub:{tree.root}").class_relation, relation)
    (tree.root / "attributes" / "class_attribute_labels_continuous.txt").unlink()
    assert load_data(f"cub:{tree.root}").class_relation is None
    assert "class_attribute_labels_continuous.txt is missing" in caplog.text


def without_class(tree: CubTree, label: int) -> None:
    """As somebody makes a selection: no line of the class, but the table of attributes left whole."""
    gone = {str(i) for i, of in enumerate(tree.labels, 1) if of == label}
    for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"):
        edit(tree.root / name, lambda rows: [row for row in rows if row.split()[0] not in gone])
    edit(tree.root / "classes.txt", lambda rows: [row for row in rows if row.split()[0] != str(label + 1)])


def test_a_selection_of_classes_keeps_their_attributes(tree: CubTree) -> None:
    whole = load_data(f"cub:{tree.root}")
    without_class(tree, 1)
    data = load_data(f"cub:{tree.root}")
    assert data.class_names == (whole.class_names[0], whole.class_names[2])
    assert np.bincount(data.train.labels).tolist() == [2, 2]
    np.testing.assert_allclose(data.class_relation, whole.class_relation[np.ix_([0, 2], [0, 2])])


def test_cropped_and_whole_images_are_different_data(tree: CubTree) -> None:
    whole, cropped = (data_identity(load_data(f"{name}:{tree.root}")) for name in ("cub", "cub-cropped"))
    assert identity_differences(whole, cropped) == "cropping 'whole' → 'bounding box'"


def in_file(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[CubTree], object]:
    return lambda tree: edit(tree.root / name, change)


def replaced(line: int, text: str) -> Callable[[list[str]], list[str]]:
    return lambda rows: [*rows[: line - 1], text, *rows[line:]]


def lost_images(tree: CubTree) -> None:
    (tree.root / "images" / tree.files[0]).unlink()
    (tree.root / "images" / tree.files[5]).write_bytes(b"")


def empty_class(tree: CubTree) -> None:
    edit(tree.root / "classes.txt", lambda rows: [*rows, "4 004.Ani"])
    edit(tree.root / ATTRIBUTES, lambda rows: [*rows, rows[0]])


ATTRIBUTES = "attributes/class_attribute_labels_continuous.txt"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tree: (tree.root / "images.txt").unlink(), r"Got no 'images.txt'; looked in .*birds' and .*2011'"),
        (lambda tree: (tree.root / "bounding_boxes.txt").unlink(), "Got no 'bounding_boxes.txt'"),
        (lost_images, r"all 12 images that are listed.*for 2 of them: '001.Black_footed.*Extract"),
        (in_file("image_class_labels.txt", lambda rows: rows[:-2]), "none for 2 of them: '11', '12'"),
        (in_file("train_test_split.txt", lambda rows: rows[1:]), "train_test_split.*none for 1 of them: '1'"),
        (in_file("images.txt", lambda rows: rows[1:]), "images.txt' must have a line for each of the 12 ids"),
        (in_file("bounding_boxes.txt", lambda rows: rows[1:]), "bounding_boxes.*none for 1 of them"),
        (in_file("images.txt", lambda rows: [*rows, rows[0]]), "one line for each id. Got '1' again in line 13"),
        (in_file("images.txt", replaced(3, "3")), "an id and a value in each line. Got '3' in line 3"),
        (in_file("images.txt", lambda rows: []), "an empty file"),
        (in_file("image_class_labels.txt", replaced(2, "2 4")), "one of 1, 2, 3 for each id. Got '4' for '2'"),
        (in_file("image_class_labels.txt", replaced(2, "2 0")), "Got '0' for '2'"),
        (in_file("train_test_split.txt", replaced(2, "2 yes")), "one of 0, 1 for each id. Got 'yes' for '2'"),
        (in_file("bounding_boxes.txt", replaced(2, "2 1.0 2.0 3.0")), "4 finite numbers.*Got '1.0 2.0 3.0' for id 2"),
        (in_file("bounding_boxes.txt", replaced(2, "2 1 2 nan 3")), "4 finite numbers.*for id 2"),
        (in_file("bounding_boxes.txt", replaced(2, "2 1 2 0 3")), "width and a height above 0.*for '2'"),
        (empty_class, "training images of all 4 classes.*1: 'Ani'"),
        (in_file(ATTRIBUTES, lambda rows: rows[:-1]), "row for each class, up to 3. Got 2 rows"),
        (in_file(ATTRIBUTES, replaced(2, "1 2 3")), "6 finite numbers.*Got '1 2 3' for line 2"),
    ],
)
def test_trees_that_do_not_fit_together_are_refused(tree: CubTree, damage, message: str) -> None:
    damage(tree)
    with pytest.raises(InvalidInputError, match=message):
        load_data(f"cub-cropped:{tree.root.parent}")


def test_folders_that_are_none(tmp_path: Path) -> None:
    for argument, message in (("", "'cub:DIR' must name a folder"), (str(tmp_path / "no"), "no', nothing there")):
        with pytest.raises(InvalidInputError, match=message):
            load_data(f"cub:{argument}")


# -- TravelingBirds ------------------------------------------------------------------------------------------------


def contents(data: ImageData, folder: Path) -> None:
    for images in (data.train, data.test):
        for position, name in enumerate(names(images)):
            np.testing.assert_array_equal(np.asarray(images.image(position)), read_pixels(folder / name))


@pytest.mark.parametrize("variant", ["CUB_fixed", "CUB_random", "CUB_black"])
@pytest.mark.parametrize("inside", [False, True])
def test_no_traveling_bird_is_in_both_parts(tree: CubTree, variant: str, inside: bool) -> None:
    place = write_traveling_birds(tree.root.parent / "TravelingBirds", tree, variant)
    data = load_data(f"travelingbirds:{place if inside else place.parent}")
    prefixes = ("train/", "test/") if variant == "CUB_fixed" else ("", "")
    for images, part, prefix in zip((data.train, data.test), (tree.in_train, ~tree.in_train), prefixes, strict=True):
        expected = [file for file, wanted in zip(tree.files, part, strict=True) if wanted]
        assert names(images) == [f"{variant}/{prefix}{file}" for file in expected]
        np.testing.assert_array_equal(images.labels, tree.labels[part])
    contents(data, place.parent)
    cub = load_data(f"cub:{tree.root}")
    assert data.class_names == cub.class_names
    np.testing.assert_array_equal(data.class_relation, cub.class_relation)


def test_without_cub_the_birds_cannot_be_divided(tree: CubTree, tmp_path: Path) -> None:
    for variant in ("CUB_fixed", "CUB_black"):
        place = write_traveling_birds(tmp_path / "far" / "away" / variant, tree, variant)
        with pytest.raises(InvalidInputError, match=r"the same are in training and test.*Put CUB_200_2011"):
            load_data(f"travelingbirds:{place}")


def test_birds_that_are_divided_already_need_no_cub(
    tree: CubTree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = write_traveling_birds(tmp_path / "far" / "away", tree)
    for file, train in zip(tree.files, tree.in_train, strict=True):
        (place / ("test" if train else "train") / file).unlink()
    data = load_data(f"travelingbirds:{place.parent}")
    assert sorted(names(data.train)) == sorted(
        f"CUB_fixed/train/{file}" for file, train in zip(tree.files, tree.in_train, strict=True) if train
    )
    assert len(data.test) == 6
    assert data.class_relation is None
    assert "no CUB_200_2011 beside" in caplog.text
    contents(data, place.parent)


def test_a_selection_of_traveling_birds(tree: CubTree, caplog: pytest.LogCaptureFixture) -> None:
    place = write_traveling_birds(tree.root.parent, tree)
    for part in ("train", "test"):
        for path in sorted((place / part / "002.Laysan_Albatross").iterdir()):
            path.unlink()
        (place / part / "002.Laysan_Albatross").rmdir()
    with caplog.at_level(logging.WARNING):
        data = load_data(f"travelingbirds:{place}")
    assert data.class_names == ("Black footed Albatross", "Chuck will Widow")
    assert "2 classes, 4 training and 4 test images" in caplog.text
    whole = load_data(f"cub:{tree.root}").class_relation
    assert data.class_relation[0, 1] == whole[0, 2]


def test_traveling_birds_that_cannot_be_used(tree: CubTree, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no folder"):
        load_data(f"travelingbirds:{tmp_path / 'nowhere'}")
    with pytest.raises(InvalidInputError, match=r"must hold CUB_fixed.*Got no folders"):
        load_data(f"travelingbirds:{tree.root / 'attributes'}")
    place = write_traveling_birds(tree.root.parent, tree)
    lost = place / "test" / next(file for file, train in zip(tree.files, tree.in_train, strict=True) if not train)
    lost.unlink()
    with pytest.raises(InvalidInputError, match=r"for 1 of them: 'CUB_fixed/test/001"):
        load_data(f"travelingbirds:{place}")
    (place / "test" / "003.Chuck_will_Widow").rename(place / "test" / "003.Somebody")
    with pytest.raises(InvalidInputError, match=r"same classes\. Got no '003.Somebody' in train"):
        load_data(f"travelingbirds:{place}")
