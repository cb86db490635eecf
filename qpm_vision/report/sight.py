"""What a model says about images: one pass, a row for each image, no pixels and no maps kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision._finite_output import require_finite_output
from qpm_vision._spread import spread_positions
from qpm_vision.explain.heatmaps import strength
from qpm_vision.model import ModelOutput, QPMClassifier

__all__ = ["MOST_IMAGES", "Sight", "SightCollector", "evenly_spread", "look"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Batches = Iterable[tuple[Tensor, Tensor]]

MOST_IMAGES = 20_000
"""Training images that are looked at; of more, the same number of each class."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What a model says about n images.

    Attributes:
        positions: (n,) their positions in the set of images.
        labels: (n,) their classes.
        predicted: (n,) the classes with the highest logits.
        runner_up: (n,) those with the second highest.
        score: (n,) float32, softmax of the highest logit.
        lead: (n,) float32, by how much the score of the runner-up is smaller.
        own_logit: (n,) float32, logit of the image's own class.
        contributions: (n, n_select) float32, normalised activations: what a feature adds to the logit of each class
            that it describes.
        average: (n_select, h, w) float32 in [0, 1], the mean strength of each feature over the images of the classes
            that it describes; 0 where there are none.
    """

    positions: IntArray
    labels: IntArray
    predicted: IntArray
    runner_up: IntArray
    score: FloatArray
    lead: FloatArray
    own_logit: FloatArray
    contributions: FloatArray
    average: FloatArray

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the prediction is the image's class."""
        right: npt.NDArray[np.bool_] = self.predicted == self.labels
        return right


def evenly_spread(labels: npt.ArrayLike, most: int) -> IntArray:
    """Positions of at most about `most` images, the same number of each class as far as it has them.

    Args:
        labels: (N,) classes of the images.
        most: Images to take; every class keeps at least one.

    Example:
        >>> evenly_spread([0, 0, 0, 0, 1, 1], 4).tolist()
        [0, 3, 4, 5]
    """
    known = np.asarray(labels)
    if len(known) <= most:
        return np.arange(len(known), dtype=np.int64)
    classes = np.unique(known)
    each = max(1, most // len(classes))
    chosen = []
    for index in classes:
        members = np.flatnonzero(known == index)
        chosen.append(members[spread_positions(len(members), each)])
    return np.sort(np.concatenate(chosen))


class SightCollector:
    """What a model says about images, from one batch of its output to the next.

    Args:
        model: The interpretable model.
        positions: (n,) what the images that follow are called in their set.

    Attributes:
        n_waiting: Bytes of maps that wait for `settle`.
    """

    def __init__(self, model: QPMClassifier, positions: IntArray) -> None:
        self._model = model
        self._positions = np.asarray(positions, dtype=np.int64)
        self._weights = model.weight.detach().cpu().numpy() > 0
        self._columns: list[tuple[npt.NDArray[Any], ...]] = []
        self._waiting: list[tuple[npt.NDArray[np.bool_], FloatArray]] = []
        self._total: npt.NDArray[np.float64] | None = None
        self._counted = np.zeros(self._weights.shape[1])
        self.n_waiting = 0

    def add(self, output: ModelOutput, targets: Tensor) -> None:
        """Take the output for a batch, and its labels (B,)."""
        logits = output.logits.float().cpu()
        labels, rows = targets.numpy(), np.arange(len(targets))
        # By logits: scores of several classes may all have rounded to 0. Stable, as predictions are.
        first, second = np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :2].T
        scores = torch.softmax(logits, dim=1).numpy()
        self._columns.append(
            (
                labels,
                first,
                second,
                scores[rows, first],
                scores[rows, first] - scores[rows, second],
                logits.numpy()[rows, labels],
                self._model.normalise(output.features).float().cpu().numpy(),
            )
        )
        own = self._weights[labels]
        maps = output.maps.float().cpu().numpy()[own]
        self._waiting.append((own, maps))
        self.n_waiting += maps.nbytes

    def settle(self, scale: FloatArray) -> None:
        """Sum up the maps so far, which are kept until their scale is known.

        Args:
            scale: (n_select,) the activation that counts as full strength.
        """
        for own, maps in self._waiting:
            every = np.zeros((*own.shape, *maps.shape[1:]), dtype=np.float32)
            every[own] = maps
            total = np.einsum("bf,bfhw->fhw", own.astype(np.float32), strength(every, scale))
            self._total = total.astype(np.float64) if self._total is None else self._total + total
            self._counted += own.sum(axis=0)
        self._waiting, self.n_waiting = [], 0

    def sight(self, scale: FloatArray) -> Sight:
        """All that was said, when all images were added.

        Args:
            scale: As for `settle`.

        Raises:
            InvalidInputError: There were no images.
        """
        self.settle(scale)
        if self._total is None:
            raise InvalidInputError("The 'batches' parameter must hold at least one image. Got none.")
        labels, predicted, runner_up, score, lead, own_logit, contributions = (
            np.concatenate(column) for column in zip(*self._columns, strict=True)
        )
        return Sight(
            positions=self._positions,
            labels=labels,
            predicted=predicted,
            runner_up=runner_up,
            score=score,
            lead=lead,
            own_logit=own_logit,
            contributions=contributions,
            average=(self._total / np.maximum(self._counted, 1)[:, None, None]).astype(np.float32),
        )


def look(
    model: QPMClassifier,
    batches: Batches,
    positions: IntArray,
    *,
    scale: FloatArray,
    device: torch.device | str = "cpu",
    on_images: Callable[[int], None] | None = None,
) -> Sight:
    """Look at images once, in eval mode and without gradients.

    Args:
        model: The interpretable model, on `device`.
        batches: Un-augmented images (B, 3, H, W) and labels (B,).
        positions: (n,) what these images are called in their set.
        scale: (n_select,) the activation that counts as full strength.
        device: Where to compute.
        on_images: Called with the number of images seen so far.

    Raises:
        InvalidInputError: There are no images.
    """
    collector = SightCollector(model, positions)
    seen = 0
    model.eval()
    with torch.no_grad():
        for images, targets in batches:
            output = model(images.to(device))
            require_finite_output(model, output, seen)
            collector.add(output, targets)
            collector.settle(scale)
            seen += len(targets)
            if on_images is not None:
                on_images(seen)
    return collector.sight(scale)
