"""What tells that images are the same as before, and that maps which were computed from others are not used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qpm_vision._data_identity import content_digest, data_identity
from qpm_vision._progress import SilentReporter
from qpm_vision.data import ArrayImages, ImageData
from qpm_vision.feature_cache import FeatureCache
from tests.vision.tiny import CLASSES, tiny_backbone, tiny_data


def _with_another_picture(data: ImageData, position: int) -> ImageData:
    pixels = np.stack([np.asarray(data.train.image(index)) for index in range(len(data.train))])
    pixels[position] = 255 - pixels[position]
    return replace(data, train=ArrayImages(pixels, data.train.labels, CLASSES))


def test_a_picture_that_was_exchanged_shows_in_the_digest_of_contents_alone() -> None:
    data = tiny_data()
    changed = _with_another_picture(data, 17)
    assert data_identity(changed) == data_identity(data)
    assert content_digest(tiny_data().train) == content_digest(data.train)
    assert content_digest(changed.train) != content_digest(data.train)
    order = np.arange(len(data.train))[::-1]
    assert content_digest(data.train.subset(order)) != content_digest(data.train)


@pytest.mark.parametrize("position", [0, 5, 17, 46])
def test_maps_of_a_picture_that_was_exchanged_are_not_used(position: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    backbone = tiny_backbone()
    cache = FeatureCache(tmp_path)
    cache.images(tiny_data(), backbone, backbone.preprocessing, report=SilentReporter())
    changed = _with_another_picture(tiny_data(), position)
    mapped = cache.images(changed, backbone, backbone.preprocessing, report=SilentReporter())
    transform = backbone.preprocessing.transform()
    with torch.no_grad():
        now = backbone(transform(changed.train.image(position))[None])
    torch.testing.assert_close(mapped.train.inputs([position], [0], transform), now, rtol=1e-3, atol=1e-3)  # type: ignore[attr-defined]
