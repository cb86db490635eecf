"""Deletion and insertion: what becomes of a score when the places that a heat map highlights go, or come, first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from qpm_opt import InvalidInputError
from qpm_vision._arrays import ArrayLike, as_tensor, require_finite
from qpm_vision.metrics._base import Accumulator, seen

__all__ = ["N_STEPS", "PerturbationCurves", "Score", "area_under_curve", "perturbation_curves"]

DoubleArray: TypeAlias = npt.NDArray[np.float64]

Score: TypeAlias = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) to a number for each, (B,)."""

N_STEPS = 16
"""Equal steps in which an image is taken away."""


def perturbation_curves(
    score: Score,
    images: Tensor,
    heat: ArrayLike,
    blank: Tensor,
    *,
    n_steps: int = N_STEPS,
    insert: bool = False,
) -> DoubleArray:
    """Scores of images while their pixels are replaced by those of a blank image, the hottest first.

    This is deletion; insertion begins with the blank image and brings the pixels of the image back in the same order
    (RISE, Petsiuk, Das and Saenko, BMVC 2018).

    Args:
        score: What is looked at. Called n_steps + 1 times, without gradients.
        images: (B, 3, H, W).
        heat: (B, h, w), larger where it is highlighted; enlarged bilinearly where it is smaller than the images. Of
            pixels that are equally hot those in the first rows go first.
        blank: What takes the place of a pixel, (3, H, W) or (B, 3, H, W).
        n_steps: Steps of equally many pixels, at least 1.
        insert: Insertion in place of deletion.

    Returns:
        (B, n_steps + 1), the first entry before anything is replaced.

    Raises:
        InvalidInputError: Shapes do not fit, or heat is not finite.

    Example:
        >>> images = torch.zeros(1, 3, 2, 2)
        >>> images[0, :, 0, 0] = 4.0  # all there is to see is in the upper left corner
        >>> mean = lambda pixels: pixels.mean((1, 2, 3))
        >>> perturbation_curves(mean, images, images[:, 0], torch.zeros(3, 2, 2), n_steps=4).tolist()
        [[1.0, 0.0, 0.0, 0.0, 0.0]]
    """
    if n_steps < 1:
        raise InvalidInputError(f"The 'n_steps' parameter must be at least 1. Got {n_steps}.")
    ranks = _ranks(heat, images)
    if tuple(blank.shape[-3:]) != tuple(images.shape[1:]):
        raise InvalidInputError(
            f"The 'blank' parameter must be an image like the others, {tuple(images.shape[1:])}. Got "
            f"{tuple(blank.shape)}."
        )
    n_pixels = images.shape[2] * images.shape[3]
    curves = np.empty((len(images), n_steps + 1))
    with torch.no_grad():
        for step in range(n_steps + 1):
            touched = (ranks < round(step * n_pixels / n_steps))[:, None]
            values = score(torch.where(touched != insert, blank, images))
            curves[:, step] = values.detach().double().cpu().numpy()
    return curves


def area_under_curve(curves: npt.ArrayLike) -> DoubleArray:
    """The mean height of curves over the share of pixels, by the trapezoidal rule: (…, n_steps + 1) to (…,)."""
    values = np.asarray(curves, dtype=np.float64)
    return np.asarray((values[..., 1:] + values[..., :-1]).mean(axis=-1) / 2)


class PerturbationCurves(Accumulator):
    """Mean curves of several methods on the same images, their areas, and how certain differences of them are.

    `update(curves)` adds images, (n_images, n_methods, n_steps + 1); images with a value that is NaN do not count.

    Args:
        n_methods: Methods, in the order in which `update` gets them.
        n_steps: Steps of the curves.
    """

    curve_sum: Tensor
    area_sum: Tensor
    area_products: Tensor
    count: Tensor

    def __init__(self, n_methods: int, n_steps: int = N_STEPS) -> None:
        super().__init__()
        self.sum_state("curve_sum", n_methods, n_steps + 1)
        self.sum_state("area_sum", n_methods)
        self.sum_state("area_products", n_methods, n_methods)
        self.sum_state("count")

    def update(self, curves: npt.ArrayLike) -> None:
        """Add curves (n_images, n_methods, n_steps + 1)."""
        values = np.asarray(curves, dtype=np.float64)
        if values.shape[1:] != tuple(self.curve_sum.shape):
            raise InvalidInputError(
                f"The 'curves' parameter must be of shape (n_images, {', '.join(map(str, self.curve_sum.shape))}). Got "
                f"{values.shape}."
            )
        values = values[~np.isnan(values).any(axis=(1, 2))]
        areas = torch.from_numpy(area_under_curve(values)).to(self.count.device)
        self.curve_sum += torch.from_numpy(values.sum(axis=0)).to(self.count.device)
        self.area_sum += areas.sum(dim=0)
        self.area_products += areas.T @ areas
        self.count += len(values)

    def compute(self) -> DoubleArray:
        """Areas under the mean curves, (n_methods,)."""
        return np.asarray((self.area_sum / seen(float(self.count))).cpu().numpy())

    def mean_curves(self) -> DoubleArray:
        """(n_methods, n_steps + 1)."""
        return np.asarray((self.curve_sum / seen(float(self.count))).cpu().numpy())

    def difference(self, first: int, second: int) -> tuple[float, float]:
        """How much larger the area of one method is than that of another on the same image, and its standard error.

        The error is NaN where fewer than two images were seen.
        """
        n = seen(float(self.count))
        mean = float(self.area_sum[first] - self.area_sum[second]) / n
        products = self.area_products
        squares = float(products[first, first] - 2 * products[first, second] + products[second, second])
        variance = max(squares - n * mean**2, 0.0) / (n - 1) if n > 1 else np.nan
        return mean, float(np.sqrt(variance / n))


def _ranks(heat: ArrayLike, images: Tensor) -> Tensor:
    """The place of each pixel in the order, (B, H, W), 0 for the hottest."""
    values = as_tensor("heat", heat, 3).float()
    if images.ndim != 4 or len(values) != len(images) or 0 in values.shape:
        raise InvalidInputError(
            "The 'images' and 'heat' parameters must be of shape (B, 3, H, W) and (B, h, w), a map for each image. Got "
            f"{tuple(images.shape)} and {tuple(values.shape)}."
        )
    require_finite("heat", values.flatten(1))
    height, width = images.shape[2:]
    if values.shape[1:] != images.shape[2:]:
        values = functional.interpolate(values[:, None], size=(height, width), mode="bilinear")[:, 0]
    order = values.flatten(1).argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(height * width, device=order.device).expand_as(order))
    return ranks.reshape(-1, height, width).to(images.device)
