"""One pass over a sample of images that deletes, inserts and shifts; it can be ended and taken up again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from qpm_opt import InvalidInputError
from qpm_vision._npz import Member
from qpm_vision.faithfulness.curves import N_STEPS, PerturbationCurves, perturbation_curves
from qpm_vision.faithfulness.means import GroupMeans
from qpm_vision.faithfulness.reach import input_shares, place_areas
from qpm_vision.faithfulness.result import Curve, Curves, Reach, Stability
from qpm_vision.faithfulness.saliency import METHODS, Seen, available_methods, broken_ties, centre, look, random
from qpm_vision.faithfulness.stability import shift_stability, shifted
from qpm_vision.metrics._base import Accumulator
from qpm_vision.model import QPMClassifier
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.training_state import weights_digest

__all__ = ["Perturbed", "perturb"]

SHIFTS = (1, 2, 3, 4)
"""Pixels that images are shifted by, up, down, left and right."""

_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))
_WAYS = ("shifted_back", "not_shifted_back", "other_image", "same_class")
_FEATURE_METHODS = ("feature", "another-feature", "centre", "random")
_TIES = 2  # what random numbers are drawn for
_BATCH = 16
_SECONDS_BETWEEN_SAVES = 20.0
_LEAST_ACTIVATION = 1e-6

DoubleArray = npt.NDArray[np.float64]

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Perturbed:
    """What was seen of the sample so far.

    Attributes:
        methods: Names of the heat maps of the class that are compared.
    """

    methods: tuple[str, ...]
    deletion: PerturbationCurves = field(init=False)
    insertion: PerturbationCurves = field(init=False)
    feature_deletion: PerturbationCurves = field(init=False)
    agreement: GroupMeans = field(init=False)
    stability: GroupMeans = field(init=False)
    reach: GroupMeans = field(init=False)

    def __post_init__(self) -> None:
        self.deletion = PerturbationCurves(len(self.methods))
        self.insertion = PerturbationCurves(len(self.methods))
        self.feature_deletion = PerturbationCurves(len(_FEATURE_METHODS))
        self.agreement = GroupMeans(len(self.methods), 1)
        self.stability = GroupMeans(len(SHIFTS), len(_WAYS))
        self.reach = GroupMeans(1, 2)

    def sums(self) -> dict[str, Accumulator]:
        """What adds up, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Accumulator)}

    def curves(self) -> tuple[Curves, Curves, Curves]:
        """Deletion and insertion of the class, deletion of the strongest feature."""
        return (
            _curves("score of the predicted class", self.deletion, self.methods),
            _curves("score of the predicted class", self.insertion, self.methods),
            _curves("activation of the feature that adds most", self.feature_deletion, _FEATURE_METHODS),
        )

    def agreements(self) -> dict[str, float | None]:
        """Mean correlation of the first method with each of the others."""
        means = self.agreement.compute()[:, 0]
        return {name: _or_none(value) for name, value in list(zip(self.methods, means, strict=True))[1:]}

    def reaches(self, map_size: tuple[int, int], seed: int) -> Reach:
        """Means beside the areas that they are to be compared with."""
        own, near = self.reach.compute()[0]
        own_area, near_area = place_areas(*map_size, seed=seed)
        return Reach(_or_none(own), float(own_area), _or_none(near), float(near_area))

    def stabilities(self) -> Stability:
        """Means for each shift."""
        means = self.stability.compute()
        columns = {way: [_or_none(value) for value in means[:, place]] for place, way in enumerate(_WAYS)}
        return Stability(shifts=list(SHIFTS), **columns)


def perturb(
    model: QPMClassifier,
    images: Callable[[Sequence[int]], Tensor],
    positions: Sequence[int],
    blank: Tensor,
    scale: npt.ArrayLike,
    *,
    seed: int = 0,
    state: Path | None = None,
    on_images: Callable[[int], None] | None = None,
) -> Perturbed:
    """Delete, insert and shift.

    Args:
        model: In evaluation mode.
        images: Gives (B, 3, H, W) on the device of the model for the positions of images.
        positions: Which images.
        blank: (3, H, W) on the device, what takes the place of deleted pixels.
        scale: (n_select,), the activation of each feature that counts as full strength.
        seed: Of what is random.
        state: An .npz file that keeps what was done so far; removed when all is done. One of other images, weights or
            methods is not taken up.
        on_images: Told how many images are done.
    """
    found = Perturbed(available_methods())
    identity = json.dumps([weights_digest(model), [int(p) for p in positions], seed, found.methods, N_STEPS])
    done = 0 if state is None else _taken_up(state, identity, found, len(positions))
    saved = time.monotonic()
    while done < len(positions):
        if on_images is not None:
            on_images(done)
        batch = np.asarray(positions[done : done + _BATCH], dtype=np.int64)
        numbers = np.stack([np.full(len(batch), seed), batch], axis=1)
        seen = look(model, images(batch.tolist()), blank, scale, numbers)
        _perturb_classes(seen, found)
        _perturb_features(seen, found)
        _shift(seen, scale, found)
        found.reach.update(0, input_shares(model, seen.pixels, seed=seed))
        done += len(batch)
        if state is not None and done < len(positions) and time.monotonic() - saved >= _SECONDS_BETWEEN_SAVES:
            _keep(state, identity, found, done)
            saved = time.monotonic()
    if on_images is not None:
        on_images(done)
    if state is not None:
        state.unlink(missing_ok=True)
    return found


# -- what is done to a batch ---------------------------------------------------------------------------------------


def _perturb_classes(seen: Seen, found: Perturbed) -> None:
    classes = torch.from_numpy(seen.classes).to(seen.pixels.device)

    def score(pixels: Tensor) -> Tensor:
        logits: Tensor = seen.model(pixels).logits
        return logits.softmax(dim=1).gather(1, classes[:, None])[:, 0]

    heats = [broken_ties(METHODS[name](seen), seen.draws(_TIES)) for name in found.methods]
    for curves, insert in ((found.deletion, False), (found.insertion, True)):
        each = [perturbation_curves(score, seen.pixels, heat, seen.blank, insert=insert) for heat in heats]
        curves.update(np.stack(each, axis=1))
    size = seen.pixels.shape[2:]
    first = _enlarged(heats[0], size)
    for place, heat in enumerate(heats):
        found.agreement.update(place, shift_stability(first, _enlarged(heat, size))[:, None])


def _perturb_features(seen: Seen, found: Perturbed) -> None:
    """Delete the place of the feature that adds most, and of another one of the class for comparison."""
    rows = np.arange(len(seen.classes))
    ranked = np.where(seen.own, seen.contributions, -np.inf).argsort(axis=1)[:, ::-1]
    best = ranked[:, 0]
    several = seen.own.sum(axis=1) > 1
    other = np.where(several, ranked[:, min(1, ranked.shape[1] - 1)], best)
    column = torch.from_numpy(best.copy())[:, None].to(seen.pixels.device)
    with torch.no_grad():
        nothing = seen.model(seen.blank[None]).features[0].double().cpu().numpy()[best]
    whole = seen.pooled[rows, best] - nothing

    def activation(pixels: Tensor) -> Tensor:
        pooled: Tensor = seen.model(pixels).features
        return pooled.gather(1, column)[:, 0]

    curves = []
    for heat in (seen.presence[rows, best], seen.presence[rows, other], centre(seen), random(seen)):
        values = perturbation_curves(activation, seen.pixels, broken_ties(heat, seen.draws(_TIES)), seen.blank)
        # 1: as in the image, 0: as in the blank one.
        left = np.full_like(values, np.nan)
        np.divide(values - nothing[:, None], whole[:, None], out=left, where=whole[:, None] > _LEAST_ACTIVATION)
        curves.append(left)
    found.feature_deletion.update(np.stack(curves, axis=1)[several])


def _shift(seen: Seen, scale: npt.ArrayLike, found: Perturbed) -> None:
    size = seen.pixels.shape[2:]
    image, column = np.nonzero(seen.own)
    before = _enlarged(seen.presence[image, column], size)
    other = np.roll(np.arange(len(seen.classes)), 1)
    of_others = _enlarged(seen.presence[other[image], column], size)
    for place, distance in enumerate(SHIFTS):
        for down, right in _DIRECTIONS:
            down, right = down * distance, right * distance
            moved = look(seen.model, shifted(seen.pixels, down, right), seen.blank, scale, seen.numbers)
            after = _enlarged(moved.presence[image, column], size)
            others = shift_stability(before, of_others) if len(other) > 1 else np.full(len(image), np.nan)
            same = (moved.classes == seen.classes)[image]
            ways = (shift_stability(before, after, down, right), shift_stability(before, after), others, same)
            found.stability.update(place, np.stack(ways, axis=1))


def _enlarged(maps: npt.ArrayLike, size: Sequence[int]) -> DoubleArray:
    values = torch.as_tensor(np.asarray(maps, dtype=np.float32))[:, None]
    if tuple(values.shape[2:]) != tuple(size):
        values = functional.interpolate(values, size=tuple(size), mode="bilinear")
    return np.asarray(values[:, 0].numpy(), dtype=np.float64)


# -- what is left of it --------------------------------------------------------------------------------------------


def _curves(score: str, sums: PerturbationCurves, methods: Sequence[str]) -> Curves:
    if not int(sums.count):  # such as the second feature of classes that have one each
        return Curves(score, 0, {})
    areas, means = sums.compute(), sums.mean_curves()
    reference = methods.index("random")
    found = {}
    for place, name in enumerate(methods):
        less, error = sums.difference(reference, place)
        found[name] = Curve([float(value) for value in means[place]], float(areas[place]), less, _or_none(error))
    return Curves(score, int(sums.count), found)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


_TEXT, _COUNT = Member((), "U"), Member((), "i", least=0)


def _keep(state: Path, identity: str, found: Perturbed, done: int) -> None:
    arrays: dict[str, Any] = {"identity": identity, "done": done}
    for name, sums in found.sums().items():
        arrays |= {f"{name}/{key}": value for key, value in sums.arrays().items()}
    try:
        RunFolder(state.parent).write_npz(state.name, arrays)
    except RunFolderError as error:
        _log.warning("What was done so far is not kept, so that it could not go on from here: %s", error)


def _taken_up(state: Path, identity: str, found: Perturbed, n_images: int) -> int:
    """How many images are done already; 0 where there is nothing that fits."""
    if not state.exists():
        return 0
    try:
        names = [f"{name}/{key}" for name, sums in found.sums().items() for key in sums.arrays()]
        members = dict.fromkeys(names, Member(kinds="fiu", finite=False))
        arrays = RunFolder(state.parent).read_npz(state.name, {"identity": _TEXT, "done": _COUNT, **members})
        if str(arrays["identity"]) != identity:
            _log.warning("%s is of other images or methods; they are done anew", state)
            return 0
        for name, sums in found.sums().items():
            prefix = f"{name}/"
            sums.take_up({key.removeprefix(prefix): v for key, v in arrays.items() if key.startswith(prefix)})
        return min(int(arrays["done"]), n_images)
    except (RunFolderError, InvalidInputError, KeyError, ValueError, TypeError) as error:
        _log.warning("%s is damaged (%s); all images are done anew", state, error)
        for sums in found.sums().values():
            sums.reset()
        return 0
