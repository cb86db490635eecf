"""Heat maps to be compared on one model: those of the pictures, those of its peers, and those that know nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import QPMError
from qpm_vision._finite_output import require_finite_output
from qpm_vision.explain.heatmaps import strength
from qpm_vision.model import QPMClassifier

__all__ = [
    "METHODS",
    "PEERS",
    "HeatSource",
    "PeerUnavailableError",
    "Seen",
    "available_methods",
    "broken_ties",
    "centre",
    "look",
    "random",
]

FloatArray: TypeAlias = npt.NDArray[np.float32]

_TIE = 1e-5
_PATH_STEPS = 16


class PeerUnavailableError(QPMError, ImportError):
    """A method of another library is asked for, and the library is not installed."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch of images as a model sees it.

    Attributes:
        model: In evaluation mode.
        pixels: (B, 3, H, W) on the device of the model.
        blank: (3, H, W), an image without anything to see, such as the mean of the training images.
        classes: (B,) int64, the predicted classes.
        presence: (B, n_select, h, w) in [0, 1], each feature relative to its own scale: what pictures show.
        contributions: (B, n_select), what each feature adds to the logits of the classes that it describes.
        pooled: (B, n_select), the features themselves.
        numbers: (B, k) numbers that each image keeps in whatever batch it is, for what is random.
    """

    model: QPMClassifier
    pixels: Tensor
    blank: Tensor
    classes: npt.NDArray[np.int64]
    presence: FloatArray
    contributions: FloatArray
    pooled: FloatArray
    numbers: npt.NDArray[np.int64]

    @property
    def own(self) -> npt.NDArray[np.bool_]:
        """Which features describe the predicted class, (B, n_select)."""
        return self.model.weight.cpu().numpy()[self.classes] > 0

    @property
    def targets(self) -> Tensor:
        """The predicted classes on the device of the model, (B,) int64."""
        return torch.from_numpy(self.classes).to(self.pixels.device)

    def draws(self, purpose: int) -> list[np.random.Generator]:
        """A generator of random numbers for each image."""
        return [np.random.default_rng([purpose, *map(int, number)]) for number in self.numbers]


HeatSource: TypeAlias = Callable[[Seen], FloatArray]
"""From a batch to a heat map for the predicted class of each image, (B, h, w)."""


def look(
    model: QPMClassifier, pixels: Tensor, blank: Tensor, scale: npt.ArrayLike, numbers: npt.NDArray[np.int64]
) -> Seen:
    """Let a model look at a batch.

    Args:
        model: In evaluation mode.
        pixels: (B, 3, H, W) on its device.
        blank: As in `Seen`.
        scale: (n_select,), the activation of each feature that counts as full strength.
        numbers: As in `Seen`.
    """
    with torch.no_grad():
        output = model(pixels)
        require_finite_output(model, output, 0)
        contributions = model.normalise(output.features).float().cpu().numpy()
    return Seen(
        model,
        pixels,
        blank,
        output.logits.argmax(dim=1).cpu().numpy(),
        strength(output.maps.float().cpu().numpy(), scale),
        contributions,
        output.features.float().cpu().numpy(),
        numbers,
    )


def features(seen: Seen) -> FloatArray:
    """What pictures highlight: the mean presence of the features of the predicted class."""
    own = seen.own
    total = np.einsum("bfhw,bf->bhw", seen.presence, own.astype(np.float32))
    return np.asarray(total / np.maximum(own.sum(axis=1), 1)[:, None, None], dtype=np.float32)


def grad_cam(seen: Seen) -> FloatArray:
    """Grad-CAM of the logit of the predicted class at the layer of the maps, as Captum computes it (extra `peers`).

    Raises:
        PeerUnavailableError: Captum is not installed.
    """
    attr = _captum()
    explain = attr.LayerGradCam(lambda images: seen.model(images).logits, seen.model.backbone)
    heat = explain.attribute(seen.pixels, target=seen.targets, relu_attributions=True)
    return np.asarray(heat[:, 0].detach().float().cpu().numpy())


def integrated_gradients(seen: Seen) -> FloatArray:
    """Integrated gradients of the same logit from the blank image, as Captum computes them; positive parts, by pixel.

    Raises:
        PeerUnavailableError: Captum is not installed.
    """
    attr = _captum()
    explain = attr.IntegratedGradients(lambda images: seen.model(images).logits)
    heat = explain.attribute(
        seen.pixels,
        baselines=seen.blank.expand_as(seen.pixels).contiguous(),
        target=seen.targets,
        n_steps=_PATH_STEPS,
        internal_batch_size=4 * len(seen.pixels),
    )
    return np.asarray(np.maximum(heat.sum(dim=1).detach().float().cpu().numpy(), 0.0))


def centre(seen: Seen) -> FloatArray:
    """Highest in the middle of the image, on the grid of the maps."""
    height, width = seen.presence.shape[2:]
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in (height, width))
    heat = np.exp(-4 * (y[:, None] ** 2 + x[None, :] ** 2)).astype(np.float32)
    return np.repeat(heat[None], len(seen.pixels), axis=0)


def random(seen: Seen) -> FloatArray:
    """Random regions as coarse as the maps."""
    shape = seen.presence.shape[2:]
    return np.stack([draw.random(shape, dtype=np.float32) for draw in seen.draws(1)])


METHODS: dict[str, HeatSource] = {
    "features": features,
    "grad-cam": grad_cam,
    "integrated-gradients": integrated_gradients,
    "centre": centre,
    "random": random,
}
"""Heat maps of the predicted class by name."""

PEERS = ("grad-cam", "integrated-gradients")
"""Those of them that another library computes."""


def available_methods() -> tuple[str, ...]:
    """The names in `METHODS` whose library is installed."""
    installed = importlib.util.find_spec("captum") is not None
    return tuple(name for name in METHODS if installed or name not in PEERS)


def broken_ties(heat: npt.ArrayLike, draws: Sequence[np.random.Generator]) -> FloatArray:
    """Heat maps (B, h, w) with so little noise that only places that are equally hot change their order."""
    values = np.asarray(heat, dtype=np.float32)
    largest = np.abs(values).max(axis=(1, 2), keepdims=True)
    noise = np.stack([draw.random(values.shape[1:], dtype=np.float32) for draw in draws])
    return np.asarray(values + _TIE * np.where(largest > 0, largest, 1.0) * noise, dtype=np.float32)


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise PeerUnavailableError(
            'Grad-CAM and integrated gradients need Captum, which is not installed: pip install "qpm[peers]".'
        ) from error
    return attr
