"""What the model of a run says about its images, kept by the run itself, so that a report need not look again."""

from __future__ import annotations

import logging
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_vision.model import ModelOutput, QPMClassifier
from qpm_vision.report.sight import MOST_IMAGES, Sight, SightCollector, evenly_spread
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.training_state import weights_digest

__all__ = ["FILE", "Onlooker", "keep_sights", "kept_sight"]

FILE = "sight.npz"
"""Where a run keeps it."""

_MOST_WAITING = 1 << 28
"""Bytes of maps that wait for their scale at most; of more images a report looks at them itself."""

_DIGEST = "model"

_log = logging.getLogger(__name__)


class Onlooker:
    """Looks at the training images while others pass over them, as far as a report does.

    Args:
        model: The interpretable model.
        labels: (N,) classes of the images.
    """

    def __init__(self, model: QPMClassifier, labels: npt.ArrayLike) -> None:
        positions = evenly_spread(labels, MOST_IMAGES)
        self._wanted = np.zeros(len(np.asarray(labels)), dtype=bool)
        self._wanted[positions] = True
        self._collector: SightCollector | None = SightCollector(model, positions)
        self._seen = 0

    def __call__(self, output: ModelOutput, targets: Tensor) -> None:
        """Take the output for the images that follow, and their labels (B,)."""
        rows = torch.from_numpy(np.flatnonzero(self._wanted[self._seen : self._seen + len(targets)]))
        self._seen += len(targets)
        if self._collector is None or not len(rows):
            return
        if len(rows) < len(targets):
            output, targets = ModelOutput(*(part[rows.to(part.device)] for part in output)), targets[rows]
        self._collector.add(output, targets)
        if self._collector.n_waiting > _MOST_WAITING:
            self._collector = None

    def sight(self, scale: npt.NDArray[np.float32]) -> Sight | None:
        """What was seen; None where the maps were too large to wait for their scale.

        Args:
            scale: (n_select,) the activation that counts as full strength.
        """
        return None if self._collector is None else self._collector.sight(scale)


def keep_sights(folder: RunFolder, model: QPMClassifier, sights: dict[str, Sight | None]) -> None:
    """Write what a model says about the images of a run.

    Args:
        folder: Of the run.
        model: Its finished model.
        sights: By "train" and "test".
    """
    arrays: dict[str, npt.ArrayLike] = {_DIGEST: weights_digest(model)}
    for split, sight in sights.items():
        if sight is not None:
            arrays |= {f"{split}/{item.name}": getattr(sight, item.name) for item in fields(Sight)}
    folder.write_npz(FILE, arrays)


def kept_sight(folder: RunFolder, model: QPMClassifier, split: str, positions: npt.NDArray[np.int64]) -> Sight | None:
    """What a run kept about these of its images; None where it kept nothing of them, or of another model.

    Args:
        folder: Of the run.
        model: Its finished model.
        split: "train" or "test".
        positions: (n,) positions of the images in their set.
    """
    if not (folder.path / FILE).exists():
        return None
    try:
        arrays = folder.read_npz(FILE)
        if str(arrays[_DIGEST]) != weights_digest(model):
            return None
        sight = Sight(**{item.name: arrays[f"{split}/{item.name}"] for item in fields(Sight)})
    except (RunFolderError, KeyError) as error:
        _log.debug("what %s kept about its images is not used: %s", folder.path, error)
        return None
    counts = {len(getattr(sight, item.name)) for item in fields(Sight) if item.name != "average"}
    shapes_fit = counts == {len(positions)} and len(sight.average) == sight.contributions.shape[1] == len(model.std)
    return sight if shapes_fit and np.array_equal(sight.positions, positions) else None
