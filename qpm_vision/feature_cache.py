"""Maps of a frozen backbone on disk, so that each pass over the images reads them instead of computing them again.

A folder holds, for each set of images,

    maps.json              what the maps are of: images, backbone, preprocessing
    train.npy              (N, h, w, n_features) float16, a row for each image
    train.exponents.npy    (N,) int8: the row times 2 to this power is the maps

The exponents keep maps of any magnitude from overflow, and small ones from losing digits: the largest value of each
image is between 2¹⁴ and 2¹⁵ in its row, so what is lost is the rounding to half precision. Rows are appended, so a file
that is cut off, by a kill or a full disk, goes on behind its last whole row.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError, QPMError
from qpm_vision._data_identity import images_digest
from qpm_vision._progress import Reporter
from qpm_vision.data import ImageData, ImageSet, PreparedImages, make_loader
from qpm_vision.distributed import is_main, wait
from qpm_vision.preprocessing import Flip, ImageTransform, Preprocessing
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.training_state import weights_digest

if TYPE_CHECKING:
    from PIL import Image

    from qpm_vision.backbones import Backbone

__all__ = ["FeatureCache", "MappedImages"]

_FORMAT: Final = 1
_IDENTITY: Final = "maps.json"
_PROBED: Final = 8
_TOLERANCE: Final = 0.02
_TOP: Final = 15
"""Power of two below which the largest value of a row lies; the largest number of float16 is just below 2¹⁶."""

_log = logging.getLogger(__name__)


class MappedImages(PreparedImages):
    """Images whose maps lie in a file; batches of them are maps (B, n_features, h, w) in place of pixels.

    Maps are read when they are asked for, those of a batch alone.

    Args:
        images: The images; pictures are still drawn of them.
        maps: (N, h, w, n_features) float16, mapped from a file.
        exponents: (N,) int8.
        preprocessing: What the maps were computed under.
        rows: (len(images),) where each image lies in the file; in order by default.
    """

    def __init__(
        self,
        images: ImageSet,
        maps: npt.NDArray[np.float16],
        exponents: npt.NDArray[np.int8],
        preprocessing: Preprocessing,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(images.labels, images.class_names)
        self._images = images
        self._maps = maps
        self._exponents = exponents
        self._preprocessing = preprocessing
        self._rows = np.arange(len(images)) if rows is None else rows

    def image(self, position: int) -> Image.Image:
        """The image itself, 8-bit RGB."""
        return self._images.image(position)

    def name(self, position: int) -> str:
        """What the set of images calls it."""
        return self._images.name(position)

    def subset(self, indices: npt.ArrayLike) -> MappedImages:
        """The images at these positions, with their maps, as a view."""
        part = self._images.subset(indices)
        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        return MappedImages(part, self._maps, self._exponents, self._preprocessing, rows)

    def inputs(self, positions: Sequence[int], seeds: Sequence[int], transform: Any) -> Tensor:
        """Maps of several images.

        Args:
            positions: Which.
            seeds: One for each; an odd one mirrors the maps where `transform` flips at random.
            transform: That of the preprocessing that the maps were computed under, with no augmentation or "flip".

        Returns:
            (B, n_features, h, w) float32, laid out channels last.

        Raises:
            InvalidInputError: The transform is another one, which cannot act on maps.
        """
        if (
            not isinstance(transform, ImageTransform)
            or transform.preprocessing != self._preprocessing
            or not isinstance(transform.augmentation, Flip | None)
        ):
            raise InvalidInputError(
                f"The 'transform' parameter must be that of the maps in the file, {self._preprocessing}, augmented by "
                f"'flip' at most. Got {transform!r}, which can act on images only; pass the images."
            )
        rows = self._rows[np.asarray(positions, dtype=np.int64)]
        scales = np.ldexp(np.float32(1), self._exponents[rows])
        maps = torch.from_numpy(self._maps[rows]).float().mul_(torch.from_numpy(scales)[:, None, None, None])
        if transform.augmentation is not None:
            mirrored = torch.tensor([seed % 2 == 1 for seed in seeds])
            maps[mirrored] = maps[mirrored].flip(2)
        return maps.permute(0, 3, 1, 2)


@dataclass
class FeatureCache:
    """Files of maps in a folder of their own.

    Attributes:
        path: The folder.
    """

    path: Path

    def images(
        self,
        data: ImageData,
        frozen: Backbone,
        preprocessing: Preprocessing,
        *,
        report: Reporter,
        device: torch.device | str = "cpu",
        batch_size: int = 32,
        workers: int = 0,
    ) -> ImageData:
        """The data with their maps beside them; what is missing of the maps is computed.

        Maps that were left by other images, another backbone or another preprocessing are computed anew, and so are all
        where a few images that are tried have other maps by now. Where several processes share a run, the first one
        computes, and the others wait.

        Args:
            data: The images: for training, testing and, if there are any, validation.
            frozen: Gives the maps; put in evaluation mode and on the device.
            preprocessing: Of the images.
            report: Told the size of the files before they are written, and how many images are done.
            device: Where to compute.
            batch_size: Images computed at once.
            workers: Processes that load images; 0: none but this one.

        Returns:
            The same data, of sets of `MappedImages`.

        Raises:
            RunFolderError: There is not enough room, told in bytes before anything is written, or a file cannot be
                written; what is done is kept.
            QPMError: A map is infinite or NaN.
        """
        filling = _Filling(self.path, frozen.to(device).eval(), preprocessing, torch.device(device), batch_size, workers)
        parts = {"train": data.train, "test": data.test}
        if data.validation is not None:
            parts["validation"] = data.validation
        if is_main():
            filling.fill(parts, report)
        wait()
        opened = {name: self._opened(name, images, preprocessing) for name, images in parts.items()}
        return replace(data, **opened)

    def remove(self) -> None:
        """Remove the files; nothing where there are none."""
        shutil.rmtree(self.path, ignore_errors=True)  # a system that keeps open files from being removed keeps them

    def _opened(self, name: str, images: ImageSet, preprocessing: Preprocessing) -> MappedImages:
        maps, exponents = (np.load(path, mmap_mode="r") for path in _paths(self.path, name))
        return MappedImages(images, np.asarray(maps), np.asarray(exponents), preprocessing)


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.npy", folder / f"{name}.exponents.npy"


# -- writing -------------------------------------------------------------------------------------------------------


@dataclass
class _Filling:
    """What is needed to compute the maps that a folder lacks."""

    folder: Path
    frozen: Backbone
    preprocessing: Preprocessing
    device: torch.device
    batch_size: int
    workers: int

    def fill(self, parts: dict[str, ImageSet], report: Reporter) -> None:
        """Compute what is missing of the maps of all sets."""
        black = torch.zeros(1, 3, self.preprocessing.size, self.preprocessing.size, device=self.device)
        shape = tuple(self._maps(black).shape[1:])
        files = {
            name: [_Rows(path, len(images), *layout) for path, layout in zip(_paths(self.folder, name), _layouts(shape))]
            for name, images in parts.items()
        }
        self._forget_stale(parts, files)
        done = {name: min(file.whole() for file in pair) for name, pair in files.items()}
        if all(done[name] == len(images) for name, images in parts.items()):
            return
        every = [file for pair in files.values() for file in pair]
        total, needed = sum(file.size for file in every), sum(max(0, file.size - file.on_disk()) for file in every)
        report.message(
            f"maps of {sum(map(len, parts.values())):,} images: {_megabytes(total)} in {self.folder}"
            + (f", {_megabytes(needed)} of it to be written" if needed < total else "")
        )
        self._require_room(needed)
        n_images, before = sum(len(images) for images in parts.values()), sum(done.values())
        for name, images in parts.items():
            for count in self._append(images, done[name], files[name]):
                before += count
                report.advance("maps of the frozen backbone", before, n_images)

    def _append(self, images: ImageSet, done: int, files: list[_Rows]) -> Iterator[int]:
        """Compute and write the maps behind the first `done` ones; gives the number of images of each batch."""
        if done == len(images):
            return
        loader = make_loader(
            images.subset(np.arange(done, len(images))),
            self.preprocessing.transform(),
            batch_size=self.batch_size,
            workers=self.workers,
        )
        with _open_behind(files, done) as streams:
            for pixels, _ in loader:
                try:
                    rows = _rows(self._maps(pixels))
                except FloatingPointError as error:
                    name = images.name(done + error.args[0])
                    raise QPMError(
                        f"The backbone {self.frozen.name!r} must give finite maps. Got infinite or NaN ones for the "
                        f"image {name!r}; use other weights, or the precision float32."
                    ) from error
                for stream, part in zip(streams, rows, strict=True):
                    _write_all(stream, part)
                done += len(pixels)
                yield len(pixels)

    def _maps(self, pixels: Tensor) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            maps: npt.NDArray[np.float32] = self.frozen(pixels.to(self.device)).float().cpu().numpy()
        return maps

    def _require_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise RunFolderError(
                f"The maps of the frozen backbone need {needed:,} bytes in {str(self.folder)!r}. Got {free:,} free bytes; "
                "make room, put the run on another disk, or use a smaller 'size'."
            )

    # -- what is there already ---------------------------------------------------------------------------------------

    def _forget_stale(self, parts: dict[str, ImageSet], files: dict[str, list[_Rows]]) -> None:
        """Remove maps that are not of these images and this backbone, and note what the maps are of."""
        identity = {
            "format": _FORMAT,
            "images": {name: images_digest(images) for name, images in parts.items()},
            "backbone": self.frozen.name,
            "weights": weights_digest(self.frozen),
            "precision": str(self.frozen.precision).removeprefix("torch."),
            "preprocessing": self.preprocessing.to_dict(),
        }
        place = RunFolder(self.folder)
        try:
            known = place.read_json(_IDENTITY)
        except RunFolderError:
            known = {}
        if known == identity and all(self._agree(images, files[name]) for name, images in parts.items()):
            return
        if known:
            _log.warning("the maps in %s are of something else and computed anew", self.folder)
        for path in (self.folder / _IDENTITY, *(file.path for pair in files.values() for file in pair)):
            path.unlink(missing_ok=True)
        place.write_json(_IDENTITY, identity)

    def _agree(self, images: ImageSet, files: list[_Rows]) -> bool:
        """Whether a few of the images, from everywhere in what is there, still have their maps."""
        done = min(file.whole() for file in files)
        if not done:
            return True
        positions = np.unique(np.linspace(0, done - 1, _PROBED).round().astype(np.int64))
        pixels = torch.stack([self.preprocessing.transform()(images.image(int(position))) for position in positions])
        now = self._maps(pixels).transpose(0, 2, 3, 1)
        maps, exponents = (file.read(positions) for file in files)
        kept = maps.astype(np.float32) * np.ldexp(np.float32(1), exponents)[:, None, None, None]
        largest = np.abs(now).max(axis=(1, 2, 3), keepdims=True)
        return bool((np.abs(kept - now) <= _TOLERANCE * largest).all())


def _layouts(shape: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], np.dtype[Any]], tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of the rows of both files, for maps (n_features, h, w)."""
    n_features, height, width = shape
    return ((height, width, n_features), np.dtype("<f2")), ((), np.dtype("i1"))


def _rows(maps: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int8]]:
    """Rows and exponents of maps (B, n_features, h, w).

    Raises:
        FloatingPointError: Maps are not finite; its argument is the position of the first image with such maps.
    """
    peaks = np.abs(maps).max(axis=(1, 2, 3))
    broken = np.flatnonzero(~np.isfinite(peaks))
    if len(broken):
        raise FloatingPointError(int(broken[0]))
    exponents = np.clip(np.frexp(peaks)[1] - _TOP, -126, 126)
    scaled = maps * np.ldexp(np.float32(1), -exponents)[:, None, None, None]
    return np.ascontiguousarray(scaled.transpose(0, 2, 3, 1).astype("<f2")), exponents.astype(np.int8)


@dataclass(frozen=True)
class _Rows:
    """An .npy file that grows row by row; its header says how many rows there will be."""

    path: Path
    length: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def header(self) -> bytes:
        """What the file begins with."""
        from io import BytesIO

        stream = BytesIO()
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length, *self.shape)}
        np.lib.format.write_array_header_1_0(stream, description)
        return stream.getvalue()

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + self.length * self.row

    def on_disk(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def whole(self) -> int:
        """Rows that are there."""
        header = self.header
        try:
            with self.path.open("rb") as stream:
                fits = stream.read(len(header)) == header
        except OSError:
            return 0
        return min(self.length, max(0, self.on_disk() - len(header)) // self.row) if fits else 0

    def read(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Some of the rows that are there."""
        rows = np.memmap(self.path, self.dtype, "r", len(self.header), (self.whole(), *self.shape))
        return np.asarray(rows)[positions]


@contextmanager
def _open_behind(files: list[_Rows], done: int) -> Iterator[list[IO[bytes]]]:
    """Streams at the end of the first `done` rows; what lies behind them is cut off.

    Raises:
        RunFolderError: A file cannot be written.
    """
    streams: list[IO[bytes]] = []
    try:
        for file in files:
            # Unbuffered: a buffer that cannot be written would raise a second time when it is closed.
            stream: Any = file.path.open("r+b" if done else "wb", buffering=0)
            streams.append(stream)
            if not done:
                _write_all(stream, file.header)
            stream.truncate(len(file.header) + done * file.row)
            stream.seek(0, 2)
        yield streams
    except OSError as error:
        raise RunFolderError(
            f"Cannot write the maps {str(files[0].path)!r}: {error.strerror or error}. Make room; the same command goes "
            "on behind what is written."
        ) from error
    finally:
        for stream in streams:
            stream.close()


def _write_all(stream: IO[bytes], values: bytes | npt.NDArray[Any]) -> None:
    left = memoryview(values.reshape(-1).view(np.uint8) if isinstance(values, np.ndarray) else values)
    while len(left):
        left = left[stream.write(left) :]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
