"""One pass over the training images that leaves the sums behind the selection problem.

The pass can be shared by several processes, and goes on behind the last kept batch after it was ended from outside.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qpm_opt import InvalidInputError
from qpm_vision._npz import Member
from qpm_vision._torch_state import plain_torch
from qpm_vision.data import ImageSet, make_loader
from qpm_vision.distributed import gathered, rank, share, world_size
from qpm_vision.model import DenseClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.statistics import FeatureStatistics, Locality, MapFigures, joined_figures, map_figures
from qpm_vision.training_state import weights_digest

__all__ = ["ExtractionSums", "extract", "forget_extraction"]

SECONDS_BETWEEN_SAVES = 120.0

_BATCHES_AT_A_TIME = 16
"""Batches of a GPU that are summed together: it has to wait for the processor once in so many."""

_FEATURES, _LOCALITY = "features/", "locality/"

_log = logging.getLogger(__name__)


@plain_torch()
def extract(
    model: DenseClassifier,
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    n_classes: int,
    batch_size: int,
    state: Path | None = None,
    workers: int = 0,
    device: torch.device | str = "cpu",
    on_images: Callable[[int], None] | None = None,
) -> tuple[FeatureStatistics, Locality]:
    """Sums of features and maps over all images.

    Where several processes work on one run, all must call this; each passes over its share of the images and gets the
    sums of all. A pass that goes on from a kept state ends, on a CPU, with the same bits as one that was never ended.

    Args:
        model: Gives maps and features; on `device`, in evaluation mode afterwards.
        images: All images, the same in every process.
        preprocessing: Of the images.
        n_classes: Number of classes.
        batch_size: Images per batch of a process.
        state: An .npz file that keeps the sums every two minutes; processes but the first one have files of their own
            beside it. A state of other weights, sizes or processes is not taken up; that the images are the same is
            for the caller to know. To be removed with `forget_extraction` when the sums are safe.
        workers: Processes that load images.
        device: Where to compute.
        on_images: Called after each batch with the number of images that this process has done.

    Returns:
        Features and maps, summed over all images.

    Raises:
        InvalidInputError: The features are not finite, or an argument is out of range.
        UnreadableImageError: A file cannot be read.
    """
    mine, place = share(images), torch.device(device)
    n_features = model.weight.shape[1]
    sums = ExtractionSums(FeatureStatistics(n_classes, n_features), Locality(n_features))
    done, kept = 0, None
    if state is not None:
        identity = {
            "weights": weights_digest(model),
            "preprocessing": preprocessing.to_dict(),
            "n_images": len(images),
            "n_classes": n_classes,
            "batch_size": batch_size,
            "process": [rank(), world_size()],
        }
        kept = _StateFile(_of_rank(state, rank()), identity)
        found = kept.load()
        if found is not None:
            sums, done = ExtractionSums(*found[:2]), found[2]
    model.eval()
    if done < len(mine):
        transform, pinned = preprocessing.transform(), place.type == "cuda"
        loader = make_loader(mine, transform, batch_size=batch_size, workers=workers, pinned=pinned)
        saved = time.monotonic()
        with torch.no_grad():
            for pixels, labels in loader.go_to(1, done // batch_size):
                output = model(pixels.to(place, non_blocking=True))
                sums.add(output.maps, output.features, labels)
                done += len(labels)
                if kept is not None and time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
                    kept.save(*sums.settled(), done)
                    saved = time.monotonic()
                if on_images is not None:
                    on_images(done)
    return _merged(*sums.settled())


def forget_extraction(state: Path) -> None:
    """Remove what `extract` kept, of all processes."""
    for path in state.parent.glob(f"{state.stem}*{state.suffix}"):
        path.unlink(missing_ok=True)


class ExtractionSums:
    """Sums of features and maps. Those of a GPU are added some batches at a time, so that it seldom waits for that.

    Args:
        statistics: Sums of features, to be added to.
        locality: The same of maps.
    """

    def __init__(self, statistics: FeatureStatistics, locality: Locality) -> None:
        self._statistics, self._locality = statistics, locality
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, MapFigures]] = []

    def add(self, maps: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: maps (B, n_features, h, w), their spatial means (B, n_features) and labels (B,).

        Raises:
            InvalidInputError: This batch, or one that waited for it, holds what the sums do not take.
        """
        figures = map_figures(maps, features)
        self._waiting.append((features, labels, figures))
        if maps.device.type == "cpu" or len(self._waiting) == _BATCHES_AT_A_TIME:
            self._settle()

    def settled(self) -> tuple[FeatureStatistics, Locality]:
        """The sums over all batches so far.

        Raises:
            InvalidInputError: A batch that waited holds what the sums do not take.
        """
        self._settle()
        return self._statistics, self._locality

    def _settle(self) -> None:
        if not self._waiting:
            return
        features, labels, figures = zip(*self._waiting, strict=True)
        self._waiting = []
        self._statistics.update(torch.cat(features), torch.cat(labels))
        self._locality.add(joined_figures(figures))


_MEMBERS = {
    "identity": Member((), "U"),
    "done": Member((), "i", least=0),
    **{_FEATURES + name: Member(kinds="f", finite=False) for name in FeatureStatistics(1, 1).state()},
    **{_LOCALITY + name: Member(kinds="f", finite=False) for name in Locality(1).state()},
}


class _StateFile:
    """Keeps the sums of one process, and of which pass they are."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self._folder, self._name = RunFolder(path.parent), path.name
        self._path = path
        self._identity = json.dumps(identity, sort_keys=True)

    def save(self, statistics: FeatureStatistics, locality: Locality, done: int) -> None:
        """Keep the sums in place of earlier ones; a disk that is full ends no pass, but is logged."""
        arrays: dict[str, npt.ArrayLike] = {"identity": self._identity, "done": done}
        arrays |= {_FEATURES + name: array for name, array in statistics.state().items()}
        arrays |= {_LOCALITY + name: array for name, array in locality.state().items()}
        try:
            self._folder.write_npz(self._name, arrays)
        except RunFolderError as error:
            _log.warning("The sums so far were not kept, so that the pass could not go on from here: %s", error)

    def load(self) -> tuple[FeatureStatistics, Locality, int] | None:
        """The sums and how many images are in them; None where there are none that fit."""
        if not self._path.exists():
            return None
        try:
            arrays = self._folder.read_npz(self._name, _MEMBERS)
            identity, done = str(arrays["identity"]), int(arrays["done"])
            if identity != self._identity:
                _log.warning("%s is of another pass over the images; this one begins anew", self._path)
                return None
            statistics = FeatureStatistics.from_state(_part(arrays, _FEATURES))
            locality = Locality.from_state(_part(arrays, _LOCALITY))
            if not done == statistics.n_images == locality.n_images:
                raise ValueError(f"sums of {statistics.n_images} and {locality.n_images} images instead of {done}")
        except (RunFolderError, InvalidInputError, KeyError, TypeError, ValueError) as error:
            _log.warning("%s is damaged (%s); the pass over the images begins anew", self._path, error)
            return None
        return statistics, locality, done


def _merged(statistics: FeatureStatistics, locality: Locality) -> tuple[FeatureStatistics, Locality]:
    if world_size() == 1:
        return statistics, locality
    all_statistics = FeatureStatistics(statistics.n_classes, statistics.n_features)
    all_locality = Locality(locality.n_features)
    for features, maps in gathered((statistics.state(), locality.state())):
        all_statistics.merge(FeatureStatistics.from_state(features))
        all_locality.merge(Locality.from_state(maps))
    return all_statistics, all_locality


def _of_rank(state: Path, number: int) -> Path:
    return state if number == 0 else state.with_name(f"{state.stem}.{number}{state.suffix}")


def _part(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[np.float64]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
