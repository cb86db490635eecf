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
from qpm_vision._spread import spread_positions
from qpm_vision.explain.heatmaps import strength
from qpm_vision.model import QPMClassifier

__all__ = ["Sight", "evenly_spread", "look"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Batches = Iterable[tuple[Tensor, Tensor]]


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
    weights = model.weight.detach().cpu().numpy() > 0
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    average: npt.NDArray[np.float64] | None = None
    counted = np.zeros(weights.shape[1])
    seen = 0
    model.eval()
    with torch.no_grad():
        for images, targets in batches:
            output = model(images.to(device))
            logits = output.logits.float().cpu()
            labels, rows = targets.numpy(), np.arange(len(targets))
            # By logits: scores of several classes may all have rounded to 0. Stable, as predictions are.
            first, second = np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :2].T
            scores = torch.softmax(logits, dim=1).numpy()
            parts.append(
                (
                    labels,
                    first,
                    second,
                    scores[rows, first],
                    scores[rows, first] - scores[rows, second],
                    logits.numpy()[rows, labels],
                    model.normalise(output.features).float().cpu().numpy(),
                )
            )
            own = weights[labels]
            strengths = strength(output.maps.float().cpu().numpy(), scale)
            total = np.einsum("bf,bfhw->fhw", own.astype(np.float32), strengths)
            average = total.astype(np.float64) if average is None else average + total
            counted += own.sum(axis=0)
            seen += len(labels)
            if on_images is not None:
                on_images(seen)
    if average is None:
        raise InvalidInputError("The 'batches' parameter must hold at least one image. Got none.")
    known, predicted, runner_up, score, lead, own_logit, contributions = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return Sight(
        positions=np.asarray(positions, dtype=np.int64),
        labels=known,
        predicted=predicted,
        runner_up=runner_up,
        score=score,
        lead=lead,
        own_logit=own_logit,
        contributions=contributions,
        average=(average / np.maximum(counted, 1)[:, None, None]).astype(np.float32),
    )
