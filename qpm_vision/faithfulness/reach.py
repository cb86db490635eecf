"""How much of what a place of a map depends on lies at that place: whether a map can say where something is at all."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision.model import QPMClassifier

__all__ = ["MOST_PLACES", "input_shares", "place_areas"]

DoubleArray: TypeAlias = npt.NDArray[np.float64]

MOST_PLACES = 16
"""Places of the maps that are looked at; more are drawn from at random."""


def input_shares(model: QPMClassifier, images: Tensor, *, seed: int = 0) -> DoubleArray:
    """Where the pixels are that places of the maps depend on.

    The dependence of a place on a pixel is the absolute gradient of the sum of all kept maps there, added up over
    colours (effective receptive field, Luo et al., NeurIPS 2016).

    Args:
        model: In evaluation mode.
        images: (B, 3, H, W) on the device of the model.
        seed: Of the choice of places, where the maps have more than `MOST_PLACES`.

    Returns:
        (B, 2): the share of it within the pixels of the place, and within those of the place and its neighbours in
        all eight directions, on average over places; NaN for images that nothing depends on. If each place depended on
        all of the image alike, these would be what `place_areas` gives.

    Raises:
        InvalidInputError: There are no images.
    """
    if images.ndim != 4 or not len(images):
        raise InvalidInputError(f"The 'images' parameter must be of shape (B, 3, H, W). Got {tuple(images.shape)}.")
    pixels = images.detach().clone().requires_grad_(True)
    totals = model(pixels).maps.sum(dim=1)
    height, width = totals.shape[1:]
    places = _chosen(height, width, seed)
    shares = np.zeros((len(images), len(places), 2))
    for index, (row, column) in enumerate(places):
        (gradient,) = torch.autograd.grad(totals[:, row, column].sum(), pixels, retain_graph=True)
        dependence = gradient.abs().sum(dim=1).double().cpu().numpy()
        whole = dependence.sum(axis=(1, 2))
        for ring in range(2):
            rows = _pixels(row, ring, height, images.shape[2])
            columns = _pixels(column, ring, width, images.shape[3])
            inside = dependence[:, rows, columns].sum(axis=(1, 2))
            shares[:, index, ring] = np.divide(inside, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return _mean_of_known(shares)


def place_areas(height: int, width: int, *, seed: int = 0) -> DoubleArray:
    """The shares of the image that the places of `input_shares` and these with their neighbours take, (2,)."""
    areas = [
        [_width(row, ring, height) * _width(column, ring, width) / (height * width) for ring in range(2)]
        for row, column in _chosen(height, width, seed)
    ]
    return np.asarray(np.mean(areas, axis=0))


def _chosen(height: int, width: int, seed: int) -> list[tuple[int, int]]:
    number = height * width
    chosen = np.random.default_rng(seed).permutation(number)[:MOST_PLACES]
    return [(int(place) // width, int(place) % width) for place in np.sort(chosen)]


def _width(place: int, ring: int, places: int) -> int:
    return min(places, place + ring + 1) - max(0, place - ring)


def _pixels(place: int, ring: int, places: int, pixels: int) -> slice:
    first, last = max(0, place - ring), min(places, place + ring + 1)
    return slice(round(first * pixels / places), round(last * pixels / places))


def _mean_of_known(shares: DoubleArray) -> DoubleArray:
    known = np.isfinite(shares)
    total = np.where(known, shares, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    means: DoubleArray = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return means
