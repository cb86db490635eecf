"""Stanford Cars, FGVC-Aircraft and ImageNet."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from qpm_opt import InvalidInputError
from qpm_vision._data_identity import data_identity
from qpm_vision.data import ImageData, ImageSet, UnreadableImageError, load_data
from tests.vision.data_trees import (
    CARS,
    VARIANTS,
    WORDS,
    lines,
    mat_table,
    read_pixels,
    write_aircraft,
    write_cars,
    write_imagenet,
)


def names(images: ImageSet) -> list[str]:
    return [images.name(position) for position in range(len(images))]


def labels_by_name(data: ImageData) -> dict[str, int]:
    parts = (data.train, data.test)
    return {images.name(i): int(images.labels[i]) for images in parts for i in range(len(images))}


# -- Stanford Cars -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("inside", ["", "stanford_cars"])
def test_cars(tmp_path: Path, joint: bool, inside: str, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / inside
    root.mkdir(exist_ok=True)
    written = write_cars(root, joint=joint)
    whole, cropped = load_data(f"cars:{tmp_path}"), load_data(f"cars-cropped:{tmp_path}")
    assert whole.class_names == CARS
    assert labels_by_name(whole) == labels_by_name(cropped) == {file: label for file, (label, _) in written.items()}
    assert names(whole.train) == list(written)[:6]
    assert (whole.cropping, cropped.cropping, whole.divided) == ("whole", "bounding box", True)
    assert "3 classes, 6 training and 6 test images; as published it has 196" in caplog.text
    for data, crop in ((whole, False), (cropped, True)):
        for images in (data.train, pickle.loads(pickle.dumps(data.test))):
            for position, name in enumerate(names(images)):
                left, top, width, height = written[name][1]
                pixels = read_pixels(root / name)
                expected = pixels[top : top + height, left : left + width] if crop else pixels
                np.testing.assert_array_equal(np.asarray(images.image(position)), expected)


def test_labels_of_test_cars_may_lie_in_the_devkit(tmp_path: Path) -> None:
    write_cars(tmp_path)
    before = data_identity(load_data(f"cars:{tmp_path}"))
    name = "cars_test_annos_withlabels.mat"
    (tmp_path / name).rename(tmp_path / "devkit" / name)
    assert data_identity(load_data(f"cars:{tmp_path}")) == before


def test_the_joint_table_may_lie_beside_the_images_of_the_other_form(tmp_path: Path) -> None:
    write_cars(tmp_path)
    (tmp_path / "cars_annos.mat").touch()
    assert names(load_data(f"cars:{tmp_path}").train)[0] == "cars_train/00001.jpg"
    (tmp_path / "devkit" / "cars_train_annos.mat").unlink()
    with pytest.raises(InvalidInputError, match="Got no 'car_ims'"):
        load_data(f"cars:{tmp_path}")


def changed_table(name: str, **values: object) -> Callable[[Path], None]:
    """The first car of a table with other values; None takes the column away."""

    def change(root: Path) -> None:
        content = loadmat(root / name)
        table = content["annotations"]
        columns = [column for column in table.dtype.names if values.get(column, 0) is not None]
        rows = [tuple(row[column] for column in columns) for row in table[0]]
        rows[0] = tuple(values.get(column, rows[0][position]) for position, column in enumerate(columns))
        savemat(root / name, {"annotations": mat_table(rows, columns)})

    return change


TEST_LABELS = "cars_test_annos_withlabels.mat"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / TEST_LABELS).unlink(), "Got no 'cars_test_annos_withlabels.mat'"),
        (lambda root: (root / "devkit/cars_meta.mat").unlink(), "Got no 'devkit/cars_meta.mat'"),
        (lambda root: (root / "cars_train/00003.jpg").unlink(), "all 12 images.*1 of them: 'cars_train/00003.jpg'"),
        (lambda root: (root / TEST_LABELS).write_bytes(b"no table"), "a MATLAB file that can be read"),
        (changed_table(TEST_LABELS, **{"class": 4}), "classes in 1 … 3. Got 4 in row 1"),
        (changed_table(TEST_LABELS, **{"class": 0}), "Got 0 in row 1"),
        (changed_table(TEST_LABELS, **{"class": "car"}), "numbers as class and box.*row 1"),
        (changed_table(TEST_LABELS, **{"class": None}), "no 'class' but bbox_x1"),
        (changed_table(TEST_LABELS, bbox_x1=40, bbox_x2=3), "x1 ≤ x2 and y1 ≤ y2.*row 1"),
        (lambda root: savemat(root / TEST_LABELS, {"other": 1}), "variable 'annotations'"),
        (
            lambda root: savemat(root / "devkit/cars_meta.mat", {"class_names": np.array([["a", "a"]], dtype=object)}),
            "class differently",
        ),
    ],
)
def test_cars_that_do_not_fit_together(tmp_path: Path, damage, message: str) -> None:
    write_cars(tmp_path)
    damage(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        load_data(f"cars:{tmp_path}")


# -- FGVC-Aircraft -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "fgvc-aircraft-2013b", "fgvc-aircraft-2013b/data"])
def test_aircraft_without_the_copyright_notice(tmp_path: Path, inside: str, caplog: pytest.LogCaptureFixture) -> None:
    written = write_aircraft(tmp_path)
    data = load_data(f"aircraft:{tmp_path / inside}")
    assert data.class_names == VARIANTS
    assert labels_by_name(data) == {f"{name}.jpg": label for name, (label, _) in written.items()}
    assert sorted(names(data.train)) == [f"{name}.jpg" for name, (_, train) in written.items() if train]
    assert "3 classes, 6 training and 3 test images; as published it has 100 classes, 6,667 training" in caplog.text
    folder = tmp_path / "fgvc-aircraft-2013b" / "data" / "images"
    for images in (data.train, data.test):
        for position, name in enumerate(names(images)):
            np.testing.assert_array_equal(np.asarray(images.image(position)), read_pixels(folder / name)[:-20])


def overlap(data: Path) -> None:
    trainval, test = data / "images_variant_trainval.txt", data / "images_variant_test.txt"
    test.write_text(test.read_text() + trainval.read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: (data / "variants.txt").unlink(), "Got no 'variants.txt'; looked in .* and .*/data' and"),
        (lambda data: lines(data / "variants.txt", ["707-320", "F/A-18"]), "2 variants of variants.txt.*'Falcon 900'"),
        (lambda data: lines(data / "variants.txt", [*VARIANTS, "707-320"]), "each variant once"),
        (lambda data: lines(data / "variants.txt", [*VARIANTS, "A300B4"]), "all 4 classes.*1: 'A300B4'"),
        (lambda data: (data / "images" / "0001034.jpg").unlink(), "9 images that are listed.*1 of them: '0001034.jpg'"),
        (overlap, "share no image with images_variant_trainval.txt. Got 1 of them: '0000035'"),
    ],
)
def test_aircraft_that_do_not_fit_together(tmp_path: Path, damage, message: str) -> None:
    write_aircraft(tmp_path)
    damage(tmp_path / "fgvc-aircraft-2013b" / "data")
    with pytest.raises(InvalidInputError, match=message):
        load_data(f"aircraft:{tmp_path}")


def test_an_aircraft_that_is_all_copyright_notice(tmp_path: Path) -> None:
    write_aircraft(tmp_path)
    data = load_data(f"aircraft:{tmp_path}")
    Image.new("RGB", (60, 20)).save(data.train.paths[0])
    with pytest.raises(UnreadableImageError, match="60×20"):
        data.train.image(0)


# -- ImageNet ------------------------------------------------------------------------------------------------------

CLASSES = ("tench", "crane (n02012849)", "Cardigan (n02113186)", "cardigan (n02963159)", "crane (n03126707)")


@pytest.mark.parametrize("validation", ["folders", "kaggle", "devkit"])
def test_imagenet(tmp_path: Path, validation: str, caplog: pytest.LogCaptureFixture) -> None:
    truth = write_imagenet(tmp_path, validation)
    data = load_data(f"imagenet:{tmp_path}")
    assert data.class_names == (tuple(WORDS) if validation == "folders" else CLASSES)
    assert ("no LOC_synset_mapping.txt" in caplog.text) == (validation == "folders")
    assert "5 classes, 10 training and 5 test images; as published it has 1,000 classes, 1,281,167" in caplog.text
    wnids = list(WORDS)
    for name, label in zip(names(data.train), data.train.labels, strict=True):
        assert name.startswith(f"train/{wnids[label]}/")
    assert len(data.test) == 5
    for position, (name, label) in enumerate(zip(names(data.test), data.test.labels, strict=True)):
        assert wnids[label] == truth[Path(name).stem]
        root = tmp_path / "ILSVRC/Data/CLS-LOC" if validation == "kaggle" else tmp_path
        np.testing.assert_array_equal(np.asarray(data.test.image(position)), read_pixels(root / name))


def test_names_of_imagenet_in_other_files(tmp_path: Path) -> None:
    write_imagenet(tmp_path, "folders")
    lines(tmp_path / "words.txt", ["n00001740\tentity", *(f"{wnid}\t{words}" for wnid, words in WORDS.items())])
    assert load_data(f"imagenet:{tmp_path}").class_names == CLASSES


def test_no_image_of_imagenet_is_opened_at_first(tmp_path: Path) -> None:
    write_imagenet(tmp_path, "folders")
    broken = tmp_path / "train" / "n02012849" / "n02012849_0.JPEG"
    broken.write_bytes(b"no image")
    (broken.parent / "._n02012849_0.JPEG").touch()
    (broken.parent / "notes.txt").touch()
    data = load_data(f"imagenet:{tmp_path}")
    assert len(data.train) == 10
    assert data.skipped == ()
    with pytest.raises(UnreadableImageError, match=r"n02012849_0\.JPEG"):
        data.train.image(names(data.train).index("train/n02012849/n02012849_0.JPEG"))


def file_for_folder(root: Path) -> None:
    (root / "val").rename(root / "validation")
    (root / "val").touch()


def extra_class(root: Path) -> None:
    (root / "val" / "n09999999").mkdir()


def hollow_class(root: Path) -> None:
    for part in ("train", "val"):
        (root / part / "n09999999").mkdir()


@pytest.mark.parametrize(
    ("validation", "damage", "message"),
    [
        ("folders", lambda root: (root / "train").rename(root / "training"), "Got no 'train'"),
        ("folders", file_for_folder, "val' must be readable. Got: Not a directory"),
        ("folders", extra_class, r"same classes\. Got no 'n09999999' in train"),
        ("folders", hollow_class, "training images of all 6 classes.*1: 'n09999999'"),
        (
            "folders",
            lambda root: [p.rename(p.with_name(f"x{p.name}")) for p in (root / "train").iterdir()],
            "folder such as n01440764.*Got 'xn01440764'.*folder:",
        ),
        (
            "devkit",
            lambda root: (root / "ILSVRC2012_devkit_t12/data/meta.mat").unlink(),
            r"Got no LOC_val_solution.csv and no meta.mat; looked in",
        ),
        (
            "devkit",
            lambda root: lines(root / f"ILSVRC2012_devkit_t12/data/{TRUTH}", [1, 2, 3, 4, 6]),
            "numbers of classes in meta.mat. Got '6' in line 5",
        ),
        (
            "devkit",
            lambda root: lines(root / f"ILSVRC2012_devkit_t12/data/{TRUTH}", [1, 2, 3, 4]),
            "none for 1 of 5: 'ILSVRC2012_val_00000005'",
        ),
        (
            "kaggle",
            lambda root: lines(root / SOLUTION, ["ImageId,PredictionString", "ILSVRC2012_val_00000001,"]),
            "in each row. Got 'ILSVRC2012_val_00000001,'",
        ),
        ("kaggle", lambda root: lines(root / SOLUTION, ["ILSVRC2012_val_00000001,n01440764"]), "another first row"),
        (
            "kaggle",
            lambda root: (root / SOLUTION).write_text((root / SOLUTION).read_text().replace("n0144", "n0999")),
            "classes that are in train. Got 1 others: 'n09990764'",
        ),
    ],
)
def test_imagenet_that_does_not_fit_together(tmp_path: Path, validation: str, damage, message: str) -> None:
    write_imagenet(tmp_path, validation)
    damage(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        load_data(f"imagenet:{tmp_path}")


TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"


@pytest.mark.parametrize("name", ["cars", "cars-cropped", "aircraft", "imagenet", "travelingbirds", "cub-cropped"])
def test_a_folder_must_be_named(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(InvalidInputError, match=f"'{name}:DIR' must name a folder"):
        load_data(name)
    with pytest.raises(InvalidInputError, match="must hold"):
        load_data(f"{name}:{tmp_path}")
