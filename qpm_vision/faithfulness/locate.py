"""One pass over test images whose parts have known places: is each feature where the part is that it stands for?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_vision.data import ImageSet, Parts
from qpm_vision.faithfulness.meaning import LEVEL, Meaning, find_meanings
from qpm_vision.faithfulness.means import GroupMeans
from qpm_vision.faithfulness.pointing import box_areas, heat_in_box, pointing_hits
from qpm_vision.faithfulness.result import FeaturePointing, KindPointing, Pointing
from qpm_vision.model import QPMClassifier, SparseClassifier
from qpm_vision.preprocessing import Preprocessing

__all__ = ["locate_features"]

_MEASURES = ("hit", "heat", "chance", "area", "centre", "other_image")

_RULE = (
    "a feature stands for the part that its classes share most significantly: one-sided Fisher test, "
    f"p ≤ {LEVEL:g} after Holm's correction"
)

Boxes = dict[str, npt.NDArray[np.float64]]
"""For each kind of part its boxes in shares of the input, (n_images, 4); NaN where it is not known to be there."""


def locate_features(
    model: QPMClassifier | SparseClassifier,
    images: ImageSet,
    batches: Iterable[tuple[Tensor, Tensor]],
    preprocessing: Preprocessing,
    parts: Parts,
    *,
    seed: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> Pointing:
    """Compare the maps of features with the boxes of the parts that they stand for.

    A feature is looked at in the images of those classes that it describes and that have the part.

    Args:
        model: In evaluation mode. Features with a weight above 0 describe a class.
        images: The images.
        batches: Them as (images, labels), in their order, on any device.
        preprocessing: Of the model.
        parts: What classes are made of, and where it is in the images.
        seed: Of the choice of other images.
        on_images: Told how many images are done.
    """
    weights = model.weight.cpu().numpy() > 0
    meanings = find_meanings(weights, parts.values)
    boxes = _boxes(images, preprocessing, parts)
    others = {kind: _exchanged(found, seed) for kind, found in boxes.items()}
    means = GroupMeans(len(meanings), len(_MEASURES) + len(boxes))
    counts = np.zeros(len(meanings), dtype=np.int64)
    done = 0
    for pixels, labels in batches:
        with torch.no_grad():
            maps = model(pixels.to(model.weight.device)).maps.float().cpu().numpy()
        here = slice(done, done + len(labels))
        classes = labels.numpy()
        for place, meaning in enumerate(meanings):
            has = np.array([value == meaning.value for value in parts.values[meaning.kind]])
            rows = np.flatnonzero((weights[:, meaning.column] & has)[classes])
            rows = rows[~np.isnan(boxes[meaning.kind][here][rows, 0])]
            own = {kind: found[here][rows] for kind, found in boxes.items()}
            values = _measured(maps[rows, meaning.column], own, meaning.kind, others[meaning.kind][here][rows])
            means.update(place, values)
            counts[place] += len(rows)
        done += len(labels)
        if on_images is not None:
            on_images(done)
    numbers = model.selected.cpu().numpy()
    found_features = [
        _feature(meaning, int(numbers[meaning.column]), int(count), row, list(boxes))
        for meaning, count, row in zip(meanings, counts, means.compute() if meanings else (), strict=True)
    ]
    known = ~np.isnan(np.stack([found[:, 0] for found in boxes.values()])).all(axis=0)
    return Pointing(
        rule=_RULE,
        test_images=len(images),
        located=int(known.sum()),
        without_meaning=int(weights.any(axis=0).sum()) - len(meanings),
        without_place=sum(not item.images for item in found_features),
        kinds={kind: mean for kind in boxes if (mean := _kind(found_features, kind)) is not None},
        features=found_features,
    )


def _boxes(images: ImageSet, preprocessing: Preprocessing, parts: Parts) -> Boxes:
    boxes = {kind: np.full((len(images), 4), np.nan) for kind in parts.values}
    for position in range(len(images)):
        known = parts.boxes.get(images.name(position), {})
        if known:
            size = images.image(position).size
            for kind, box in known.items():
                visible = preprocessing.visible(box, size)
                if visible[0] < visible[2] and visible[1] < visible[3]:
                    boxes[kind][position] = visible
    return boxes


def _exchanged(boxes: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Each image with the box of another one."""
    known = np.flatnonzero(~np.isnan(boxes[:, 0]))
    order = np.random.default_rng(seed).permutation(known)
    exchanged = np.full_like(boxes, np.nan)
    if len(known) > 1:
        exchanged[order] = boxes[np.roll(order, 1)]
    return exchanged


def _measured(
    maps: npt.NDArray[np.float32], own: Boxes, kind: str, others: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """`_MEASURES` and hits in the boxes of all kinds, (n, …)."""
    boxes = own[kind]
    flat = np.zeros_like(maps)
    middle = np.zeros((len(maps), 1, 1))
    columns = [
        pointing_hits(maps, boxes),
        heat_in_box(maps, boxes),
        pointing_hits(flat, boxes),
        box_areas(boxes),
        pointing_hits(middle, boxes),
        _where_known(maps, others),
        *(_where_known(maps, found) for found in own.values()),
    ]
    return np.stack(columns, axis=1)


def _where_known(maps: npt.NDArray[np.float32], boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    known = ~np.isnan(boxes[:, 0])
    return np.where(known, pointing_hits(maps, np.where(known[:, None], boxes, 0.0)), np.nan)


def _feature(
    meaning: Meaning, number: int, images: int, means: npt.NDArray[np.float64], kinds: Sequence[str]
) -> FeaturePointing:
    values = [None if np.isnan(value) else float(value) for value in means]
    return FeaturePointing(
        feature=number,
        kind=meaning.kind,
        value=meaning.value,
        n_classes=meaning.n_classes,
        n_sharing=meaning.n_sharing,
        n_with_part=meaning.n_with_part,
        p_value=meaning.p_value,
        images=images,
        **dict(zip(_MEASURES, values, strict=False)),
        elsewhere=dict(zip(kinds, values[len(_MEASURES) :], strict=True)),
    )


def _kind(features: Sequence[FeaturePointing], kind: str) -> KindPointing | None:
    those = [item for item in features if item.kind == kind and item.images]
    if not those:
        return None
    hits = np.array([item.hit for item in those], dtype=np.float64)
    means = {name: _mean([getattr(item, name) for item in those]) for name in _MEASURES}
    return KindPointing(
        features=len(those),
        images=sum(item.images for item in those),
        error=float(hits.std(ddof=1) / np.sqrt(len(hits))) if len(hits) > 1 else None,
        **means,
        elsewhere={name: _mean([item.elsewhere[name] for item in those]) for name in those[0].elsewhere},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
