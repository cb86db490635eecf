"""Batches of tensors out of a set of images, the same for the same seed whatever the number of workers."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from qpm_opt import InvalidInputError, QPMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image

    from qpm_vision.data.base import ImageSet

__all__ = ["make_loader"]


def make_loader(
    images: ImageSet,
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
) -> DataLoader[Any]:
    """Batches of images (B, 3, H, W) float32 and labels (B,) int64; the last batch may be smaller.

    Each pass draws a new order and new augmentations. Both depend on `seed` and the number of the pass alone: while an
    image is transformed, the global generators of torch (CPU), NumPy and Python are set to a number drawn for it,
    and restored afterwards.

    Args:
        images: Where the images come from.
        transform: Turns an 8-bit RGB picture into a (3, H, W) tensor; must be picklable if there are workers.
        batch_size: Images per batch.
        shuffle: A new random order in each pass.
        seed: Of order and augmentation.
        workers: Processes that read and transform; 0 does it in this one.

    Raises:
        InvalidInputError: An argument is out of range, or there are no images.
        UnreadableImageError: While iterating: a file cannot be read; names it, also out of a worker.
    """
    if not len(images):
        raise InvalidInputError("The 'images' parameter must hold at least one image. Got none.")
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InvalidInputError(
                f"The '{name}' parameter must be a whole number of at least {least}. Got {value!r}."
            )
    return _Loader(
        _Transformed(images, transform),
        batch_size=int(batch_size),
        sampler=_SeededOrder(len(images), shuffle, int(seed)),
        num_workers=int(workers),
        collate_fn=_collate,
        # Its own generator: without one every pass would draw a number from torch's global generator.
        generator=torch.Generator().manual_seed(int(seed)),
        persistent_workers=workers > 0,
    )


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker: raised there, torch would rebuild it from its text alone."""

    error: QPMError


class _Transformed(Dataset[tuple[Tensor, int] | _Failure]):
    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, drawn: tuple[int, int]) -> tuple[Tensor, int] | _Failure:
        position, seed = drawn
        try:
            image = self.images.image(position)
            with _seeded(seed):
                pixels = self.transform(image)
            if not isinstance(pixels, Tensor) or pixels.ndim != 3 or pixels.shape[0] != 3:
                came = f"shape {tuple(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
                raise InvalidInputError(
                    f"The 'transform' parameter must return a tensor of shape (3, H, W). Got {came} for the image "
                    f"{self.images.name(position)!r}."
                )
        except QPMError as error:
            return _Failure(error)
        return pixels.float(), int(self.images.labels[position])


class _SeededOrder(Sampler[tuple[int, int]]):
    """Positions, each with a seed for its augmentation; both are drawn anew in each pass."""

    def __init__(self, length: int, shuffle: bool, seed: int) -> None:
        self._length = length
        self._shuffle = shuffle
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = torch.randperm(self._length, generator=self._generator)
        seeds = torch.randint(2**32, (self._length,), generator=self._generator)
        if not self._shuffle:
            order = torch.arange(self._length)
        # The seed goes with the position, so that an order of batches or workers has no part in it.
        return iter(zip(order.tolist(), seeds[order].tolist(), strict=True))


class _Loader(DataLoader[Any]):
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        failure: _Failure | None = None
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                failure = batch
                break
            yield batch
        if failure is not None:
            # The workers end here: left to the garbage collector, each would be waited for in vain for seconds.
            self._iterator = None
            raise failure.error


def _collate(samples: list[tuple[Tensor, int] | _Failure]) -> tuple[Tensor, Tensor] | _Failure:
    pixels, labels = [], []
    for sample in samples:
        if isinstance(sample, _Failure):
            return sample
        pixels.append(sample[0])
        labels.append(sample[1])
    shapes = sorted({tuple(image.shape) for image in pixels})
    if len(shapes) > 1:
        return _Failure(
            InvalidInputError(
                "The 'transform' parameter must return tensors of one shape. "
                f"Got {', '.join(map(str, shapes))}; resize to a fixed size."
            )
        )
    return torch.stack(pixels), torch.tensor(labels, dtype=torch.int64)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # Not torch.manual_seed, which would also reset the generators of the GPUs.
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
