from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision.data import (
    ArrayImages,
    CachedImages,
    FileImages,
    ImageData,
    ImageSet,
    JoinedImages,
    SkippedImage,
    UnreadableImageError,
)
from qpm_vision.data._split import stratified_split

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("cat", "dog", "owl")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def files(folder: Path) -> FileImages:
    paths = [folder / f"{position}.png" for position in range(len(PIXELS))]
    for path, image in zip(paths, PIXELS, strict=True):
        Image.fromarray(image).save(path)
    return FileImages(paths, LABELS, NAMES)


def contents(images: ImageSet) -> list[tuple[str, int, bytes]]:
    return [(images.name(i), int(images.labels[i]), images.image(i).tobytes()) for i in range(len(images))]


def test_arrays_and_files_give_the_same_images(tmp_path: Path) -> None:
    for images in (ArrayImages(PIXELS, LABELS, NAMES), files(tmp_path)):
        assert len(images) == 6
        assert images.class_names == NAMES
        assert images.labels.dtype == np.int64
        assert not images.labels.flags.writeable
        for position, expected in enumerate(PIXELS):
            image = images.image(position)
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_grey_arrays() -> None:
    images = ArrayImages(PIXELS[..., 0], LABELS, NAMES)
    np.testing.assert_array_equal(np.asarray(images.image(3)), np.repeat(PIXELS[3, :, :, :1], 3, axis=2))


def test_scaling_of_arrays() -> None:
    images = ArrayImages(PIXELS, LABELS, NAMES, size=50)
    assert images.image(0).size == (40, 50)


def test_drawing_on_an_image_leaves_the_set_alone(tmp_path: Path) -> None:
    plain = ArrayImages(PIXELS, LABELS, NAMES)
    for images in (plain, CachedImages(plain, list(PIXELS))):
        before = images.image(0).tobytes()
        images.image(0).paste("red", (0, 0, 4, 4))
        assert images.image(0).tobytes() == before


def test_subsets_of_subsets_keep_names_and_labels(tmp_path: Path) -> None:
    for images in (ArrayImages(PIXELS, LABELS, NAMES), files(tmp_path)):
        everything = contents(images)
        part = images.subset([4, 1, 3])
        assert contents(part) == [everything[i] for i in (4, 1, 3)]
        assert contents(part.subset([2, 0])) == [everything[i] for i in (3, 4)]
        assert contents(part.subset([])) == []
        assert part.class_names == NAMES


def test_default_names_tell_images_apart() -> None:
    images = ArrayImages(PIXELS, LABELS, NAMES)
    assert [images.name(i) for i in range(3)] == ["image 0", "image 1", "image 2"]
    assert ArrayImages(PIXELS, LABELS, NAMES, names=list("abcdef")).name(1) == "b"


def test_cached_images_leave_pixels_behind_when_pickled(tmp_path: Path) -> None:
    source = files(tmp_path)
    cached = CachedImages(source, list(PIXELS))
    assert contents(cached) == contents(source)
    payload = pickle.dumps(cached)
    (tmp_path / "0.png").unlink()
    copy = pickle.loads(payload)
    assert contents(copy.subset([1, 2])) == contents(cached.subset([1, 2]))
    np.testing.assert_array_equal(np.asarray(cached.image(0)), PIXELS[0])
    with pytest.raises(UnreadableImageError):
        copy.image(0)


def test_everything_can_be_pickled(tmp_path: Path) -> None:
    for images in (ArrayImages(PIXELS, LABELS, NAMES), files(tmp_path)):
        part = images.subset([1, 2])
        assert contents(pickle.loads(pickle.dumps(part))) == contents(part)


BOXES = np.array([[0, 0, 4, 5], [1, 2, 3, 4], [-3, 1.2, 2.5, 90], [3, 4, 4, 5], [0.9, 0, 1.1, 5], [2, 0, 4, 1]])
SHOWN = [(0, 4, 0, 5), (1, 3, 2, 4), (0, 3, 1, 5), (3, 4, 4, 5), (0, 2, 0, 5), (2, 4, 0, 1)]


def test_boxes_show_a_part_of_each_image_widened_to_whole_pixels(tmp_path: Path) -> None:
    whole = files(tmp_path)
    cropped = FileImages(whole.paths, LABELS, NAMES, boxes=BOXES)
    assert [cropped.name(i) for i in range(6)] == [whole.name(i) for i in range(6)]
    for images in (cropped, pickle.loads(pickle.dumps(cropped)), cropped.subset([0, 1, 2, 3, 4, 5])):
        for position, (left, right, upper, lower) in enumerate(SHOWN):
            np.testing.assert_array_equal(np.asarray(images.image(position)), PIXELS[position, upper:lower, left:right])


def test_rows_are_cut_off_below_before_boxes_count(tmp_path: Path) -> None:
    paths = files(tmp_path).paths
    np.testing.assert_array_equal(np.asarray(FileImages(paths, LABELS, NAMES, trim_bottom=2).image(4)), PIXELS[4, :3])
    both = FileImages(paths, LABELS, NAMES, trim_bottom=2, boxes=BOXES)
    np.testing.assert_array_equal(np.asarray(both.image(2)), PIXELS[2, 1:3, :3])
    for images, position in ((both, 3), (FileImages(paths, LABELS, NAMES, trim_bottom=5), 0)):
        with pytest.raises(UnreadableImageError, match=r"4×5 pixels, and none"):
            images.image(position)


def test_paths_from_a_root_are_names(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    whole = files(tmp_path / "deep")
    images = FileImages([f"deep/{i}.png" for i in range(6)], LABELS, NAMES, root=tmp_path)
    assert images.name(2) == "deep/2.png"
    assert images.paths == whole.paths
    np.testing.assert_array_equal(np.asarray(images.image(2)), PIXELS[2])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([2, 0, 2, 5], r"\[2.0, 0.0, 2.0, 5.0\] for image 1"),
        ([0, 5, 2, 1], "upper < lower"),
        ([0, 0, np.nan, 5], "for image 1"),
        ([0, 0, 1e12, 5], "for image 1"),
    ],
)
def test_wrong_boxes_are_refused(tmp_path: Path, row, message: str) -> None:
    boxes = BOXES.copy()
    boxes[1] = row
    with pytest.raises(InvalidInputError, match=message):
        FileImages([tmp_path] * 6, LABELS, NAMES, boxes=boxes)
    with pytest.raises(InvalidInputError, match=r"'boxes'.*\(6, 4\)"):
        FileImages([tmp_path] * 6, LABELS, NAMES, boxes=boxes[:5])
    with pytest.raises(InvalidInputError, match="'trim_bottom'"):
        FileImages([tmp_path] * 6, LABELS, NAMES, trim_bottom=-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PIXELS.astype(float), LABELS, NAMES), "'pixels'.*float64"),
        ((PIXELS[..., :2], LABELS, NAMES), "'pixels'.*shape"),
        ((PIXELS[:, :0], LABELS, NAMES), "'pixels' parameter must hold pixels"),
        ((PIXELS, LABELS[:5], NAMES), "'pixels'.*5.*Got 6"),
        ((PIXELS, LABELS + 1, NAMES), r"'labels'.*0 … 2.*Got 3"),
        ((PIXELS, LABELS - 1, NAMES), r"'labels'.*Got -1"),
        ((PIXELS, LABELS * 1.0, NAMES), "'labels'.*float64"),
        ((PIXELS, LABELS[:, np.newaxis], NAMES), "'labels'.*shape"),
        ((PIXELS, LABELS, ()), "'class_names'"),
        ((PIXELS, LABELS, "abc"), "'class_names'"),
        ((PIXELS, LABELS, ("a", "b", "")), "'class_names'"),
        ((PIXELS, LABELS, ("a", "b", "a")), "'class_names'.*'a'"),
    ],
)
def test_wrong_arrays_are_refused(arguments, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ArrayImages(*arguments)


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="'names'"):
        ArrayImages(PIXELS, LABELS, NAMES, names=["a"])
    with pytest.raises(InvalidInputError, match="'size'"):
        ArrayImages(PIXELS, LABELS, NAMES, size=0)
    with pytest.raises(InvalidInputError, match="'paths'"):
        FileImages([tmp_path], LABELS, NAMES)
    with pytest.raises(InvalidInputError, match="'names'"):
        FileImages([tmp_path] * 6, LABELS, NAMES, names=["a"])
    with pytest.raises(InvalidInputError, match="'pixels'"):
        CachedImages(ArrayImages(PIXELS, LABELS, NAMES), [])


@pytest.mark.parametrize("indices", [[6], [-1], [True, False], [[0]], [0.5]])
def test_wrong_subsets_are_refused(indices) -> None:
    with pytest.raises(InvalidInputError, match="'indices'"):
        ArrayImages(PIXELS, LABELS, NAMES).subset(indices)


def test_a_data_set_must_fit_together(tmp_path: Path) -> None:
    images = ArrayImages(PIXELS, LABELS, NAMES)
    data = ImageData("pets", images, images, NAMES, (SkippedImage(tmp_path, "gone"),), np.zeros((3, 3)))
    assert data.skipped[0].reason == "gone"
    with pytest.raises(InvalidInputError, match="'train'"):
        ImageData("pets", ArrayImages(PIXELS, LABELS, NAMES[::-1]), images, NAMES)
    with pytest.raises(InvalidInputError, match="'test'"):
        ImageData("pets", images, ArrayImages(PIXELS, LABELS, NAMES[::-1]), NAMES)
    with pytest.raises(InvalidInputError, match=r"'class_relation'.*\(3, 3\).*\(2, 2\)"):
        ImageData("pets", images, images, NAMES, (), np.zeros((2, 2)))


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
def test_split_is_stratified_seeded_and_complete(share: float) -> None:
    labels = np.random.default_rng(3).permutation(np.repeat([0, 1, 2, 4], [40, 2, 1, 17]))
    train, test = stratified_split(labels, test_share=share, seed=5)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(labels)))
    counts = np.bincount(labels[test], minlength=5)
    assert counts[2] == 0
    assert counts[1] == 1
    for label, size in ((0, 40), (4, 17)):
        assert counts[label] == min(max(round(size * share), 1), size - 1)
    again = stratified_split(labels, test_share=share, seed=5)
    np.testing.assert_array_equal(test, again[1])
    if share == 0.25:
        assert not np.array_equal(test, stratified_split(labels, test_share=share, seed=6)[1])


def test_split_of_a_class_does_not_depend_on_the_others() -> None:
    short = np.repeat([0, 1], [10, 20])
    long = np.concatenate([short, np.full(9, 2)])
    np.testing.assert_array_equal(
        stratified_split(short, test_share=0.3, seed=1)[1],
        [i for i in stratified_split(long, test_share=0.3, seed=1)[1] if i < 30],
    )


@pytest.mark.parametrize(
    ("share", "seed", "name"),
    [
        (0, 0, "test_share"),
        (1.0, 0, "test_share"),
        (float("nan"), 0, "test_share"),
        (0.5, -1, "seed"),
        (0.5, 0.5, "seed"),
    ],
)
def test_wrong_splits_are_refused(share, seed, name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        stratified_split([0, 0], test_share=share, seed=seed)


# -- fingerprints --------------------------------------------------------------------------------------------------


def prints(images: ImageSet) -> list[bytes]:
    return [images.fingerprint(position) for position in range(len(images))]


def test_a_fingerprint_is_that_of_the_image_in_every_view(tmp_path: Path) -> None:
    plain = ArrayImages(PIXELS, LABELS, NAMES)
    for images in (plain, files(tmp_path), CachedImages(plain, list(PIXELS))):
        known = prints(images)
        assert len(set(known)) == len(images)
        assert prints(images.subset([4, 1])) == [known[4], known[1]]
        assert prints(JoinedImages(images, images.subset([3]))) == [*known, known[3]]
    assert prints(ArrayImages(PIXELS.copy(), LABELS[::-1], NAMES)) == prints(plain)


def test_a_fingerprint_changes_with_the_image(tmp_path: Path) -> None:
    changed = PIXELS.copy()
    changed[2, 0, 0, 0] ^= 1
    only_one = [True, True, False, True, True, True]
    for make in (lambda pixels: ArrayImages(pixels, LABELS, NAMES), _in_memory):
        pairs = zip(prints(make(PIXELS)), prints(make(changed)), strict=True)
        assert [old == new for old, new in pairs] == only_one
    before = files(tmp_path)
    known = prints(before)
    assert prints(before) == known
    Image.fromarray(changed[2]).save(tmp_path / "2.png")
    assert [old == new for old, new in zip(known, prints(before), strict=True)] == only_one
    assert prints(ArrayImages(PIXELS, LABELS, NAMES, size=50)) != prints(ArrayImages(PIXELS, LABELS, NAMES))
    (tmp_path / "0.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"0\.png"):
        before.fingerprint(0)


def _in_memory(pixels: npt.NDArray[np.uint8]) -> ImageSet:
    return CachedImages(ArrayImages(PIXELS, LABELS, NAMES), list(pixels))


def test_another_part_of_the_same_file_is_another_image(tmp_path: Path) -> None:
    paths = files(tmp_path).paths
    boxes = np.tile([0, 0, 3, 3], (len(paths), 1))
    others = boxes.copy()
    others[5] = [1, 1, 4, 4]
    whole = FileImages(paths, LABELS, NAMES)
    cropped, shifted = (FileImages(paths, LABELS, NAMES, boxes=chosen) for chosen in (boxes, others))
    assert not set(prints(whole)) & set(prints(cropped))
    assert [a == b for a, b in zip(prints(cropped), prints(shifted), strict=True)] == [True] * 5 + [False]
    assert not set(prints(whole)) & set(prints(FileImages(paths, LABELS, NAMES, trim_bottom=1)))
