"""A data set and a backbone that train in a fraction of a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from qpm_vision.backbones import Backbone, register_backbone
from qpm_vision.config import RunConfig
from qpm_vision.data import ArrayImages, ImageData
from qpm_vision.faithfulness import Faithfulness
from qpm_vision.faithfulness.result import Curve, Curves, KindPointing, Pointing, Reach, Stability
from qpm_vision.preprocessing import Preprocessing

TINY_SIZE = 16
TINY_FEATURES = 8
TINY = "tiny-for-tests"
CLASSES = ("north", "east", "south", "west")


def tiny_backbone() -> Backbone:
    """Eight features on 4×4 maps."""
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, TINY_FEATURES, 3, stride=2, padding=1),
        nn.ReLU(),
    )
    preprocessing = Preprocessing(size=TINY_SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Backbone(module, n_features=TINY_FEATURES, preprocessing=preprocessing)


def tiny_data(per_class: int = 12, seed: int = 0, names: tuple[str, ...] = CLASSES) -> ImageData:
    """Blobs on noise; two of three channels tell the class, and the place as well."""
    return ImageData(
        name="tiny",
        train=_images(per_class, seed, names),
        test=_images(per_class // 2, seed + 1, names),
        class_names=names,
        skipped=(),
        class_relation=None,
    )


def _images(per_class: int, seed: int, names: tuple[str, ...]) -> ArrayImages:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), per_class)
    pixels = rng.integers(0, 60, (len(labels), TINY_SIZE, TINY_SIZE, 3), dtype=np.uint8)
    corners = ((0, 5), (5, 10), (10, 5), (5, 0))
    colours = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0))
    for image, label in zip(pixels, labels, strict=True):
        top, left = corners[label] + rng.integers(0, 2, 2)
        image[top : top + 5, left : left + 5] += np.multiply(colours[label], 180).astype(np.uint8)
    return ArrayImages(pixels, labels, names)


def tiny_config(**changes: Any) -> RunConfig:
    config = RunConfig("tiny", backbone=TINY, n_select=4, n_per_class=2, solve_seconds=5.0, device="cpu")
    small = {"epochs": 2, "least_steps": 0, "batch_size": 16, "augmentation": "none"}
    config = replace(config, dense=replace(config.dense, **small), fine_tuning=replace(config.fine_tuning, **small))
    return replace(config, **changes)


def tiny_faithfulness(
    deletion: tuple[float, float | None], insertion: tuple[float, float | None], model: str = "digest"
) -> Faithfulness:
    """Figures in which heat maps have less area than random regions by this much, ± this standard error, of 20 images.

    Grad-CAM is as good as random regions; from the middle outwards is better at insertion.
    """

    def curves(score: str, **less: tuple[float, float | None]) -> Curves:
        found = {name: Curve([1.0, 0.5 - by, 0.0], 0.5 - by, by, error) for name, (by, error) in less.items()}
        return Curves(score, 20, {name.replace("_", "-"): curve for name, curve in found.items()})

    def of_class(features: tuple[float, float | None], centre: float) -> Curves:
        return curves(
            "score of the predicted class",
            features=features,
            grad_cam=(0.0, 0.01),
            centre=(centre, 0.01),
            random=(0.0, 0.0),
        )

    kind = KindPointing(
        3,
        40,
        hit=0.65,
        error=0.054,
        heat=0.3,
        chance=0.2,
        area=0.2,
        centre=0.4,
        other_image=0.53,
        elsewhere={"beak": 0.65},
    )
    steady: list[float | None] = [0.9, 0.8]
    return Faithfulness(
        model=model,
        images=20,
        seed=0,
        input_size=TINY_SIZE,
        map_size=(4, 4),
        reach=Reach(0.22, 0.0625, 0.74, 0.39),
        deletion=of_class(deletion, 0.1),
        insertion=of_class(insertion, -0.3),
        feature_deletion=curves("activation of the feature that adds most", feature=(0.3, 0.01), random=(0.0, 0.0)),
        agreement={"grad-cam": 0.95, "centre": None, "random": 0.0},
        stability=Stability([1, 2], steady, steady, [0.5, None], [1.0, 1.0]),
        pointing=Pointing("by a rule", 24, 20, 1, 0, {"beak": kind}, []),
    )


@contextmanager
def registered(name: str = TINY) -> Iterator[str]:
    """Make the tiny backbone known by name."""
    from qpm_vision.backbones import backbone_names

    if name not in backbone_names():
        register_backbone(name, tiny_backbone)
    torch.set_num_threads(1)
    yield name
