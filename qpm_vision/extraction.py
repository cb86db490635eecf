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
from qpm_vision.data import ImageSet, make_loader
from qpm_vision.distributed import gathered, rank, share, world_size
from qpm_vision.model import DenseClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.statistics import FeatureStatistics, Locality
from qpm_vision.training_state import weights_digest

__all__ = ["extract", "forget_extraction"]

SECONDS_BETWEEN_SAVES = 120.0

_FEATURES, _LOCALITY = "features/", "locality/"

_log = logging.getLogger(__name__)


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
    mine = share(images)
    n_features = model.weight.shape[1]
    statistics, locality = FeatureStatistics(n_classes, n_features), Locality(n_features)
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
            statistics, locality, done = found
    model.eval()
    if done < len(mine):
        loader = make_loader(mine, preprocessing.transform(), batch_size=batch_size, workers=workers)
        saved = time.monotonic()
        with torch.no_grad():
            for pixels, labels in loader.go_to(1, done // batch_size):
                output = model(pixels.to(device))
                statistics.update(output.features, labels)
                locality.update(output.maps)
                done += len(labels)
                if kept is not None and time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
                    kept.save(statistics, locality, done)
                    saved = time.monotonic()
                if on_images is not None:
                    on_images(done)
    return _merged(statistics, locality)


def forget_extraction(state: Path) -> None:
    """Remove what `extract` kept, of all processes."""
    for path in state.parent.glob(f"{state.stem}*{state.suffix}"):
        path.unlink(missing_ok=True)


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
            arrays = self._folder.read_npz(self._name)
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
