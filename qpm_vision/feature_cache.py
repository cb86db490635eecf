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
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError, QPMError
from qpm_vision._data_identity import content_digest
from qpm_vision._progress import Reporter
from qpm_vision._row_file import RowFile
from qpm_vision._spread import spread_positions
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
_FARTHEST: Final = 126
"""Largest power of two, up or down, that float32 holds without loss."""

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
        maps = _unpacked(self._maps, self._exponents, rows)
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
        frozen.to(device).eval()
        filling = _Filling(self.path, frozen, preprocessing, torch.device(device), batch_size, workers)
        sets = {"train": data.train, "test": data.test}
        if data.validation is not None:
            sets["validation"] = data.validation
        parts = {name: filling.part(name, images) for name, images in sets.items()}
        if is_main():
            filling.fill(parts, report)
        wait()
        mapped = {name: part.mapped(preprocessing) for name, part in parts.items()}
        return replace(data, train=mapped["train"], test=mapped["test"], validation=mapped.get("validation"))

    def remove(self) -> None:
        """Remove the files; nothing where there are none."""
        shutil.rmtree(self.path, ignore_errors=True)  # a system that keeps open files from being removed keeps them


# -- writing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A set of images and the two files of their maps."""

    images: ImageSet
    maps: RowFile
    exponents: RowFile

    @property
    def files(self) -> tuple[RowFile, RowFile]:
        return self.maps, self.exponents

    @property
    def done(self) -> int:
        """Images whose maps are there."""
        return min(file.n_rows for file in self.files)

    def mapped(self, preprocessing: Preprocessing) -> MappedImages:
        return MappedImages(self.images, self.maps.rows(), self.exponents.rows(), preprocessing)


@dataclass
class _Filling:
    """What is needed to compute the maps that a folder lacks."""

    folder: Path
    frozen: Backbone
    preprocessing: Preprocessing
    device: torch.device
    batch_size: int
    workers: int

    def part(self, name: str, images: ImageSet) -> _Part:
        n_features, height, width = self._shape
        return _Part(
            images,
            RowFile(self.folder / f"{name}.npy", len(images), (height, width, n_features), np.dtype("<f2")),
            RowFile(self.folder / f"{name}.exponents.npy", len(images), (), np.dtype("i1")),
        )

    def fill(self, parts: dict[str, _Part], report: Reporter) -> None:
        """Compute what is missing of the maps of all sets."""
        self._forget_stale(parts)
        n_images, done = sum(len(part.images) for part in parts.values()), sum(part.done for part in parts.values())
        if done == n_images:
            return
        files = [file for part in parts.values() for file in part.files]
        size, missing = sum(file.size for file in files), sum(max(0, file.size - file.size_now) for file in files)
        report.message(
            f"maps of {n_images:,} images: {size / 1e6:,.1f} MB in {self.folder}"
            + (f", {done:,} images of them are there" if done else "")
        )
        free = shutil.disk_usage(self.folder).free
        if missing > free:
            raise RunFolderError(
                f"The maps of the frozen backbone need {missing:,} bytes in {str(self.folder)!r}. Got {free:,} free "
                "bytes; make room, put the run on another disk, or use a smaller 'size'."
            )
        for part in parts.values():
            for count in self._append(part):
                done += count
                report.advance("maps of the frozen backbone", done, n_images)

    def _append(self, part: _Part) -> Iterator[int]:
        """Compute and write the maps that a set lacks; gives the number of images of each batch."""
        images, done = part.images, part.done
        if done == len(images):
            return
        loader = make_loader(
            images.subset(np.arange(done, len(images))),
            self.preprocessing.transform(),
            batch_size=self.batch_size,
            workers=self.workers,
        )
        with part.maps.appending(done) as maps, part.exponents.appending(done) as exponents:
            for pixels, _ in loader:
                rows, powers = _packed(self._finite_maps(pixels, images, done))
                part.maps.write(maps, rows)
                part.exponents.write(exponents, powers)
                done += len(pixels)
                yield len(pixels)

    def _finite_maps(self, pixels: Tensor, images: ImageSet, first: int) -> npt.NDArray[np.float32]:
        values = self._maps(pixels)
        broken = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2, 3)))
        if len(broken):
            raise QPMError(
                f"The backbone {self.frozen.name!r} must give finite maps. Got infinite or NaN ones for the image "
                f"{images.name(first + int(broken[0]))!r}; use other weights, or the precision float32."
            )
        return values

    def _maps(self, pixels: Tensor) -> npt.NDArray[np.float32]:
        """Maps (B, h, w, n_features)."""
        with torch.no_grad():
            maps = self.frozen(pixels.to(self.device)).float().permute(0, 2, 3, 1)
        values: npt.NDArray[np.float32] = maps.cpu().numpy()
        return values

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        """n_features, h, w."""
        side = self.preprocessing.size
        _, height, width, n_features = self._maps(torch.zeros(1, 3, side, side)).shape
        return n_features, height, width

    # -- what is there already ---------------------------------------------------------------------------------------

    def _forget_stale(self, parts: dict[str, _Part]) -> None:
        """Remove maps that are not of these images and this backbone, and note what the maps are of."""
        identity = {
            "format": _FORMAT,
            "images": {name: content_digest(part.images) for name, part in parts.items()},
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
        if known == identity and all(self._agrees(part) for part in parts.values()):
            return
        if known:
            _log.warning("the maps in %s are of something else and computed anew", self.folder)
        for file in (file for part in parts.values() for file in part.files):
            file.path.unlink(missing_ok=True)
        place.write_json(_IDENTITY, identity)

    def _agrees(self, part: _Part) -> bool:
        """Whether a few of the images, from everywhere in what is there, still have their maps."""
        if not part.done:
            return True
        positions = spread_positions(part.done, _PROBED)
        transform = self.preprocessing.transform()
        now = self._maps(torch.stack([transform(part.images.image(int(position))) for position in positions]))
        kept = _unpacked(part.maps.rows(), part.exponents.rows(), positions).numpy()
        largest = np.abs(now).max(axis=(1, 2, 3), keepdims=True)
        return bool((np.abs(kept - now) <= _TOLERANCE * largest).all())


# -- half precision ------------------------------------------------------------------------------------------------


def _packed(maps: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int8]]:
    """Rows and exponents of finite maps (B, h, w, n_features)."""
    exponents = np.clip(np.frexp(np.abs(maps).max(axis=(1, 2, 3)))[1] - _TOP, -_FARTHEST, _FARTHEST).astype(np.int8)
    scaled = maps * np.ldexp(np.float32(1), -exponents)[:, None, None, None]
    return scaled.astype(np.float16), exponents


def _unpacked(maps: npt.NDArray[np.float16], exponents: npt.NDArray[np.int8], rows: npt.NDArray[np.int64]) -> Tensor:
    """Some of the maps, (B, h, w, n_features) float32; the inverse of `_packed` but for rounding."""
    scales = np.ldexp(np.float32(1), exponents[rows])
    return torch.from_numpy(maps[rows]).float().mul_(torch.from_numpy(scales)[:, None, None, None])
