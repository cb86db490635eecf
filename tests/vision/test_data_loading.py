from __future__ import annotations

import gc
import random
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision.data import ArrayImages, FileImages, UnreadableImageError, make_loader

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

N = 11
PIXELS = np.arange(N, dtype=np.uint8)[:, np.newaxis, np.newaxis] * np.ones((1, 4, 6), dtype=np.uint8)
IMAGES = ArrayImages(PIXELS, np.arange(N) % 3, ("a", "b", "c"))


def plain(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()


def noisy(image: Image.Image) -> Tensor:
    """Uses all three generators that a transform may draw from."""
    return plain(image) + 100 * torch.rand(()) + 10000 * random.random() + 1e6 * np.random.random()  # noqa: NPY002


def by_label(image: Image.Image) -> Tensor:
    return plain(image)[:, : 2 + int(np.asarray(image)[0, 0, 0] == 5)]


def flat(image: Image.Image) -> Tensor:
    return plain(image)[0]


def epoch(loader) -> tuple[Tensor, Tensor]:
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def test_shapes_types_and_order() -> None:
    loader = make_loader(IMAGES, plain, batch_size=4)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    assert batches[0][0].shape == (4, 3, 4, 6)
    assert batches[0][0].dtype == torch.float32
    assert batches[0][1].dtype == torch.int64
    images, labels = epoch(loader)
    assert images[:, 0, 0, 0].tolist() == list(range(N))
    assert labels.tolist() == [i % 3 for i in range(N)]


def test_double_precision_transforms_become_float32() -> None:
    images, _ = epoch(make_loader(IMAGES, lambda image: plain(image).double(), batch_size=4))
    assert images.dtype == torch.float32


def test_each_pass_is_shuffled_anew_and_complete() -> None:
    loader = make_loader(IMAGES, plain, batch_size=4, shuffle=True, seed=3)
    orders = [epoch(loader)[0][:, 0, 0, 0].tolist() for _ in range(3)]
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    again = make_loader(IMAGES, plain, batch_size=5, shuffle=True, seed=3)
    assert [epoch(again)[0][:, 0, 0, 0].tolist() for _ in range(3)] == orders
    other = make_loader(IMAGES, plain, batch_size=4, shuffle=True, seed=4)
    assert epoch(other)[0][:, 0, 0, 0].tolist() != orders[0]


def test_labels_follow_their_images() -> None:
    images, labels = epoch(make_loader(IMAGES, plain, batch_size=4, shuffle=True))
    assert labels.tolist() == [int(value) % 3 for value in images[:, 0, 0, 0]]


@pytest.mark.parametrize("shuffle", [False, True])
def test_augmentation_depends_on_the_seed_and_not_on_workers(shuffle: bool) -> None:
    def two_passes(workers: int, seed: int = 7, batch_size: int = 4) -> list[Tensor]:
        loader = make_loader(IMAGES, noisy, batch_size=batch_size, shuffle=shuffle, seed=seed, workers=workers)
        return [epoch(loader)[0] for _ in range(2)]

    first, second = two_passes(0)
    assert not torch.equal(first, second)
    values = first[:, 0, 0, 0]
    assert len(values.unique()) == N
    torch.manual_seed(99)
    random.seed(99)
    for pass_here, pass_there in zip((first, second), two_passes(2), strict=True):
        assert torch.equal(pass_here, pass_there)
    assert torch.equal(two_passes(0, batch_size=3)[0], first)
    assert not torch.equal(two_passes(0, seed=8)[0], first)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generators_are_left_alone(workers: int) -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(3), random.random(), np.random.random()  # noqa: NPY002
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    for _ in range(2):
        epoch(make_loader(IMAGES, noisy, batch_size=4, shuffle=True, workers=workers))
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
    assert np.random.random() == expected[2]  # noqa: NPY002


def test_a_pass_may_be_left_early() -> None:
    loader = make_loader(IMAGES, plain, batch_size=2, workers=1)
    for images, _ in loader:
        assert images[:, 0, 0, 0].tolist() == [0, 1]
        break
    assert epoch(loader)[0][:, 0, 0, 0].tolist() == list(range(N))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_fails_is_named(tmp_path: Path, workers: int) -> None:
    paths = [tmp_path / f"{position}.png" for position in range(6)]
    for path in paths:
        Image.new("RGB", (4, 4)).save(path)
    paths[4].write_bytes(paths[4].read_bytes()[:40])
    loader = make_loader(FileImages(paths, [0] * 6, ["only"]), plain, batch_size=2, workers=workers)
    batches = iter(loader)
    assert [len(next(batches)[1]) for _ in range(2)] == [2, 2]
    with pytest.raises(UnreadableImageError) as caught:
        next(batches)
    started = time.monotonic()
    del loader, batches
    gc.collect()
    assert time.monotonic() - started < 3
    assert caught.value.path == paths[4]
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("transform", "message"), [(by_label, "one shape"), (flat, r"shape \(4, 6\)")])
def test_transforms_that_give_something_else(workers: int, transform, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        epoch(make_loader(IMAGES, transform, batch_size=N, workers=workers))


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("batch_size", 2.5), ("workers", -1), ("seed", -1), ("batch_size", True)]
)
def test_wrong_numbers_are_refused(name: str, value) -> None:
    with pytest.raises(InvalidInputError, match=f"'{name}'"):
        make_loader(IMAGES, plain, **{"batch_size": 4, name: value})


def test_no_images_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'images'"):
        make_loader(IMAGES.subset([]), plain, batch_size=4)
