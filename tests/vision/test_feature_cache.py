"""Maps on disk: half precision, going on after a stop, refusals, and that maps of something else are never used."""

from __future__ import annotations

import json
import resource
import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from qpm_opt import InvalidInputError, QPMError
from qpm_vision._progress import SilentReporter
from qpm_vision.backbones import Backbone
from qpm_vision.data import ArrayImages, ImageData, make_loader
from qpm_vision.feature_cache import FeatureCache, MappedImages, _packed, _unpacked
from qpm_vision.run_folder import RunFolderError
from tests.vision.tiny import CLASSES, TINY_FEATURES, tiny_backbone, tiny_data


class Counting(SilentReporter):
    """Counts images, and stops behind some of them."""

    def __init__(self, most: int = 10**9) -> None:
        self.most = most
        self.done: list[int] = []
        self.told: list[str] = []

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.done.append(done)
        if done >= self.most:
            raise KeyboardInterrupt

    def message(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(scope="module")
def frozen() -> Backbone:
    torch.manual_seed(0)
    return tiny_backbone().eval()


def cached(path: Path, data: ImageData, frozen: Backbone, reporter: Counting | None = None) -> ImageData:
    report = Counting() if reporter is None else reporter
    return FeatureCache(path).images(data, frozen, frozen.preprocessing, report=report, batch_size=7)


def maps_of(images: Any, frozen: Backbone, **options: Any) -> Tensor:
    loader = make_loader(images, frozen.preprocessing.transform(), batch_size=5, **options)
    return torch.cat([batch for batch, _ in loader])


def expected(images: Any, frozen: Backbone, **options: Any) -> Tensor:
    with torch.no_grad():
        return frozen(maps_of(images, frozen, **options))


def assert_half_precision(stored: Tensor, exact: Tensor) -> None:
    largest = exact.abs().amax((1, 2, 3), keepdim=True)
    assert bool(((stored - exact).abs() <= exact.abs() * 2**-11 + largest * 2**-25).all())


# -- what comes back -----------------------------------------------------------------------------------------------


def test_maps_come_back_in_half_precision_in_any_order(tmp_path: Path, frozen: Backbone) -> None:
    data = tiny_data()
    mapped = cached(tmp_path, data, frozen)
    exact = expected(data.train, frozen)
    assert exact.shape == (48, TINY_FEATURES, 4, 4)
    assert_half_precision(maps_of(mapped.train, frozen), exact)
    assert_half_precision(maps_of(mapped.test, frozen), expected(data.test, frozen))
    some = [40, 3, 17, 3]
    assert_half_precision(maps_of(mapped.train.subset([1, *some]).subset([1, 2, 3, 4]), frozen), exact[some])
    shuffled = {"shuffle": True, "seed": 3, "workers": 2}
    assert_half_precision(maps_of(mapped.train, frozen, **shuffled), expected(data.train, frozen, **shuffled))
    assert mapped.train.name(5) == data.train.name(5)
    assert np.array_equal(mapped.train.image(5), data.train.image(5))


def test_nothing_is_read_into_memory_but_the_rows_of_a_batch(tmp_path: Path, frozen: Backbone) -> None:
    train = cached(tmp_path, tiny_data(), frozen).train
    assert isinstance(train, MappedImages)
    assert isinstance(train._maps.base, np.memmap)
    assert train.subset([1, 2])._maps is train._maps
    stored = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert (stored.shape, stored.dtype) == ((48, 4, 4, TINY_FEATURES), np.float16)


def test_a_flip_mirrors_some_of_the_maps_and_nothing_else_can_act(tmp_path: Path, frozen: Backbone) -> None:
    train = cached(tmp_path, tiny_data(), frozen).train
    plain = maps_of(train, frozen)
    loader = make_loader(train, frozen.preprocessing.transform("flip"), batch_size=48)
    flipped = next(iter(loader))[0]
    same = (flipped == plain).all(dim=(1, 2, 3))
    mirrored = (flipped == plain.flip(3)).all(dim=(1, 2, 3))
    assert bool((same | mirrored).all())
    assert 8 < int(mirrored.sum()) < 40
    for wrong in (frozen.preprocessing.transform("shift"), replace(frozen.preprocessing, size=20).transform(), str):
        with pytest.raises(InvalidInputError, match="that of the maps in the file"):
            next(iter(make_loader(train, wrong, batch_size=4)))


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=4, max_dims=4, max_side=3),
        elements=st.floats(-(2**100), 2**100, width=32, allow_subnormal=False),
    )
)
def test_no_magnitude_overflows(maps: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    rows, exponents = _packed(maps)
    assert np.isfinite(rows).all()
    back = _unpacked(rows, exponents, np.arange(len(maps))).numpy().astype(float)
    largest = np.abs(maps).max(axis=(1, 2, 3), keepdims=True).astype(float)
    assert (np.abs(back - maps) <= np.abs(maps).astype(float) * 2**-11 + largest * 2.0**-25 + 2.0**-126).all()


# -- going on ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [7, 21, 48, 55])
def test_what_was_stopped_goes_on(tmp_path: Path, frozen: Backbone, stop: int) -> None:
    data = tiny_data()
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, data, frozen, Counting(stop))
    with (tmp_path / ("train.npy" if stop < 48 else "test.npy")).open("ab") as stream:
        stream.write(b"part of a row")
    again = Counting()
    mapped = cached(tmp_path, data, frozen, again)
    assert again.done[0] > stop
    assert f"{stop} images of them are there" in again.told[0]
    assert_half_precision(maps_of(mapped.train, frozen), expected(data.train, frozen))
    assert_half_precision(maps_of(mapped.test, frozen), expected(data.test, frozen))
    whole = Counting()
    cached(tmp_path, data, frozen, whole)
    assert (whole.done, whole.told) == ([], [])


def _other_pixels(data: ImageData) -> ImageData:
    images = data.train
    assert isinstance(images, ArrayImages)
    return replace(data, train=ArrayImages(255 - images._pixels, images.labels, CLASSES))


def _other_labels(data: ImageData) -> ImageData:
    images = data.train
    assert isinstance(images, ArrayImages)
    return replace(data, train=ArrayImages(images._pixels, images.labels[::-1], CLASSES))


@pytest.mark.parametrize("change", [_other_pixels, _other_labels, lambda data: replace(data, validation=data.test)])
@pytest.mark.parametrize("stop", [21, 10**9])
def test_maps_of_other_images_are_not_used(tmp_path: Path, frozen: Backbone, change: Any, stop: int) -> None:
    data = tiny_data()
    with suppress(KeyboardInterrupt):
        cached(tmp_path, data, frozen, Counting(stop))
    changed = change(data)
    again = Counting()
    assert_half_precision(
        maps_of(cached(tmp_path, changed, frozen, again).train, frozen), expected(changed.train, frozen)
    )
    assert again.done[0] == 7


def test_maps_of_another_backbone_or_preprocessing_are_not_used(tmp_path: Path, frozen: Backbone) -> None:
    data = tiny_data()
    cached(tmp_path, data, frozen)
    torch.manual_seed(1)
    other = tiny_backbone().eval()
    assert_half_precision(maps_of(cached(tmp_path, data, other).train, other), expected(data.train, other))
    larger = tiny_backbone().eval()
    larger.load_state_dict(other.state_dict())
    larger.preprocessing = replace(larger.preprocessing, size=24)
    mapped = cached(tmp_path, data, larger).train
    assert_half_precision(maps_of(mapped, larger), expected(data.train, larger))
    (tmp_path / "maps.json").write_text("{")
    again = Counting()
    cached(tmp_path, data, larger, again)
    assert again.done[0] == 7


# -- refusals ------------------------------------------------------------------------------------------------------


def test_too_little_room_is_told_in_bytes_before_anything_is_written(
    tmp_path: Path, frozen: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**6, 10**6 - 1234, 1234))
    reporter = Counting()
    needed = (48 + 24) * (TINY_FEATURES * 16 * 2 + 1) + 4 * 128
    with pytest.raises(RunFolderError, match=rf"need {needed:,} bytes in .*Got 1,234 free bytes"):
        cached(tmp_path, tiny_data(), frozen, reporter)
    assert "maps of 72 images: 0.0 MB" in reporter.told[0]
    assert [path.name for path in tmp_path.iterdir()] == ["maps.json"]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_what_was_written(tmp_path: Path, frozen: Backbone) -> None:
    data = tiny_data()
    row = TINY_FEATURES * 16 * 2
    with no_file_above(128 + 17 * row + 5), pytest.raises(RunFolderError, match=r"train\.npy.*goes on behind"):
        cached(tmp_path, data, frozen)
    again = Counting()
    mapped = cached(tmp_path, data, frozen, again)
    assert "14 images of them are there" in again.told[0]  # two batches of seven have both their files
    assert_half_precision(maps_of(mapped.train, frozen), expected(data.train, frozen))


def test_maps_that_are_not_finite_are_refused_with_the_image(tmp_path: Path, frozen: Backbone) -> None:
    broken = tiny_backbone()
    with torch.no_grad():
        broken.module[0].weight.fill_(1e38)
    data = tiny_data()
    finite = expected(data.train, broken).isfinite().all(dim=(1, 2, 3))
    first = int(torch.nonzero(~finite)[0])
    with pytest.raises(QPMError, match=f"infinite or NaN ones for the image 'image {first}'"):
        cached(tmp_path, data, broken)


def test_identity_is_readable(tmp_path: Path, frozen: Backbone) -> None:
    cached(tmp_path, tiny_data(), frozen)
    identity = json.loads((tmp_path / "maps.json").read_text())
    assert identity["preprocessing"]["size"] == frozen.preprocessing.size
    FeatureCache(tmp_path).remove()
    assert not tmp_path.exists()
    FeatureCache(tmp_path).remove()
