"""Batches of tensors out of a set of images, the same for the same seed whatever the number of workers."""

from __future__ import annotations

import logging
import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.data._workers import Batch, LoadingError, Workers, in_pinned_memory, pinned_ahead
from qpm_vision.data.base import ImageSet, PreparedImages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image

__all__ = ["Loader", "LoadingError", "make_loader"]

_log = logging.getLogger(__name__)


def make_loader(
    images: ImageSet,
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    shuffle: bool = False,
    balanced: bool = False,
    seed: int = 0,
    workers: int = 0,
    least_batch: int = 1,
    share: tuple[int, int] = (0, 1),
    pinned: bool = False,
) -> Loader:
    """Batches of images (B, 3, H, W) float32 and labels (B,) int64; the last batch may be smaller.

    Each pass draws a new order and new augmentations. Both depend on `seed` and the number of the pass alone: while an
    image is transformed, the global generators of torch (CPU), NumPy and Python are set to a number drawn for it,
    and restored afterwards.

    Args:
        images: Where the images come from. Of `PreparedImages` the batches are what these keep, in place of pixels,
            read in this process.
        transform: Turns an 8-bit RGB picture into a (3, H, W) tensor; must be picklable if there are workers.
        batch_size: Images per batch.
        shuffle: A new random order in each pass.
        balanced: Each pass draws, in random order, as many images as there are, and as many of each class, give or take
            one: the images of a class come round equally often, so that those of a small one come several times,
            differently augmented, and those of a large one not all.
        seed: Of order and augmentation.
        workers: Processes that read and transform; 0 does it in this one.
        least_batch: A last batch of fewer images joins the one before.
        share: (r, n) for the images r, r + n, r + 2n, … of each batch: what the process of rank r takes where n
            processes share the batches. Each batch should then hold n images at least.
        pinned: Whether batches lie in memory that a GPU copies from while the processor goes on.

    Raises:
        InvalidInputError: An argument is out of range, or there are no images.
        UnreadableImageError: While iterating: a file cannot be read; names it, also out of a worker.
        LoadingError: While iterating: an image cannot be loaded for another reason, or a worker was killed, ended or
            hangs.
    """
    if not len(images):
        raise InvalidInputError("The 'images' parameter must hold at least one image. Got none.")
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("workers", workers, 0),
        ("seed", seed, 0),
        ("least_batch", least_batch, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InvalidInputError(
                f"The '{name}' parameter must be a whole number of at least {least}. Got {value!r}."
            )
    order = _order(shuffle, balanced)
    passes = _Passes(images.labels, int(batch_size), int(least_batch), order, int(seed), share)
    source = _Source(images, transform, passes)
    if isinstance(images, PreparedImages):
        workers = 0  # what is only read is not worth the way from another process
    return Loader(source, workers=int(workers), pins=pinned)


class Loader:
    """Gives batches of images and labels, a pass for each iteration; made by `make_loader`.

    Processes that load images live as long as the loader.
    """

    def __init__(self, source: _Source, *, workers: int, pins: bool) -> None:
        self._source = source
        self._pins = pins
        self._workers = Workers(source.batch, min(workers, len(source.passes))) if workers else None
        self._next = (1, 0)

    def __len__(self) -> int:
        return len(self._source.passes)

    def go_to(self, number: int, batch: int = 0) -> Self:
        """Let the next pass be the one of that number, from 1 on, without the batches in front of `batch`.

        What comes does not depend on which passes were made before.
        """
        self._next = (number, batch)
        return self

    def __iter__(self) -> Iterator[Batch]:
        (number, first), self._next = self._next, (self._next[0] + 1, 0)
        last = len(self)
        if self._workers is not None and first < last and self._workers.start():
            batches = self._workers.batches(number, first, last)
            return pinned_ahead(batches) if self._pins else batches
        here = (self._source.batch(number, index) for index in range(first, last))
        return map(in_pinned_memory, here) if self._pins else here


class _Passes:
    """Positions of each batch, each with a seed for its augmentation; both depend on the number of the pass alone."""

    def __init__(
        self,
        labels: npt.NDArray[np.int64],
        batch_size: int,
        least_batch: int,
        order: _Order,
        seed: int,
        share: tuple[int, int],
    ) -> None:
        length = len(labels)
        starts = list(range(0, length, batch_size))
        if len(starts) > 1 and length - starts[-1] < least_batch:
            starts.pop()
        self._bounds = list(zip(starts, [*starts[1:], length], strict=True))
        self._labels = labels
        self._order = order
        self._seed = seed
        self._share = share
        self._drawn: tuple[int, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._bounds)

    def batch(self, number: int, index: int) -> list[tuple[int, int]]:
        """Positions and seeds of a batch, from 0 on, of a pass, from 1 on."""
        if self._drawn is None or self._drawn[0] != number:
            self._drawn = (number, *self._draw(number))
        _, positions, seeds = self._drawn
        (begin, end), (rank, processes) = self._bounds[index], self._share
        mine = slice(begin + rank, end, processes)
        return list(zip(positions[mine].tolist(), seeds[mine].tolist(), strict=True))

    def _draw(self, number: int) -> tuple[Tensor, Tensor]:
        drawn = np.random.SeedSequence([self._seed, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(drawn[0]) >> 1)
        return self._order(self._labels, generator)


_Order: TypeAlias = "Callable[[npt.NDArray[np.int64], torch.Generator], tuple[Tensor, Tensor]]"
"""From labels, the positions that a pass goes through and a seed for each, which no batch or worker has a part in."""


def _order(shuffle: bool, balanced: bool) -> _Order:
    if balanced:
        return _by_class
    return _shuffled if shuffle else _as_they_come


def _shuffled(labels: npt.NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(labels), generator=generator)
    # The seed goes with the position: the same image is augmented alike with and without shuffling.
    return order, _seeds(len(labels), generator)[order]


def _as_they_come(labels: npt.NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    torch.randperm(len(labels), generator=generator)
    return torch.arange(len(labels)), _seeds(len(labels), generator)


def _by_class(labels: npt.NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    members = [torch.from_numpy(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    share, more = divmod(len(labels), len(members))
    favoured = set(torch.randperm(len(members), generator=generator)[:more].tolist())
    drawn = []
    for number, own in enumerate(members):
        count = share + (number in favoured)
        rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-count // len(own)))]
        if rounds:
            drawn.append(torch.cat(rounds)[:count])
    order = torch.cat(drawn)[torch.randperm(len(labels), generator=generator)]
    return order, _seeds(len(labels), generator)  # one for each time: an image that comes again is augmented anew


def _seeds(length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2**32, (length,), generator=generator)


@dataclass
class _Source:
    """Makes batches, in whatever process it is."""

    images: ImageSet
    transform: Callable[[Image.Image], Tensor]
    passes: _Passes

    def batch(self, number: int, index: int) -> Batch:
        """A batch of a pass: images (B, 3, H, W) float32, or what prepared images keep, and labels (B,) int64."""
        drawn = self.passes.batch(number, index)
        positions = [position for position, _ in drawn]
        labels = torch.from_numpy(np.asarray(self.images.labels)[positions]).to(torch.int64)
        if isinstance(self.images, PreparedImages):  # whole batches, because what is kept is read faster together
            return self.images.inputs(positions, [seed for _, seed in drawn], self.transform), labels
        pixels = [self._pixels(position, seed) for position, seed in drawn]
        shapes = sorted({tuple(image.shape) for image in pixels})
        if len(shapes) > 1:
            raise InvalidInputError(
                "The 'transform' parameter must return tensors of one shape. "
                f"Got {', '.join(map(str, shapes))}; resize to a fixed size."
            )
        return torch.stack(pixels), labels

    def _pixels(self, position: int, seed: int) -> Tensor:
        try:
            image = self.images.image(position)
            with _seeded(seed):
                pixels = self.transform(image)
        except QPMError:
            raise
        except Exception as error:
            _log.debug("loading of %r failed", self.images.name(position), exc_info=True)
            raise LoadingError(
                f"The image {self.images.name(position)!r} cannot be loaded ({type(error).__name__}: {error}). Mend "
                "what reads or transforms it; the same command then continues."
            ) from error
        if not isinstance(pixels, Tensor) or pixels.ndim != 3 or pixels.shape[0] != 3:
            came = f"shape {tuple(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
            raise InvalidInputError(
                f"The 'transform' parameter must return a tensor of shape (3, H, W). Got {came} for the image "
                f"{self.images.name(position)!r}."
            )
        return pixels.float()


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
