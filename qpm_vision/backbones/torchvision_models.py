"""ResNets and Inception-v3 as torchvision has them, up to their last maps."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from qpm_vision.backbones.base import IMAGENET, Backbone, BackboneUnavailableError
from qpm_vision.preprocessing import Preprocessing

__all__ = ["RESNETS", "build_inception_v3", "build_resnet"]

RESNETS = ("resnet18", "resnet34", "resnet50")
_STAGES_AT_STRIDE_1 = {32: (), 16: ("layer4",), 8: ("layer3", "layer4")}
_INCEPTION_LAST = "Mixed_7c"
# The published weights expect (pixel - 127.5) / 127.5, which torchvision computes from images that are normalised for
# ImageNet when it is told to transform its input. Here the preprocessing says it at once.
_INCEPTION = Preprocessing(299, mean=(0.5,) * 3, std=(0.5,) * 3)


def build_resnet(name: str, *, stride: int = 32) -> Backbone:
    """A ResNet with random weights, ready for those of torchvision.

    The last one or two stages can keep the size of the maps, so that the same weights give maps of two or four times
    the side, as in QPM (Norrenbrock et al., ICLR 2025): 28 × 28 of 224 pixels with a stride of 8.

    Args:
        name: One of `RESNETS`.
        stride: Pixels of the image for a pixel of the maps: 32, 16 or 8.

    Raises:
        BackboneUnavailableError: torchvision is not installed.
    """
    network = getattr(_models(name), name)(weights=None)
    for stage in _STAGES_AT_STRIDE_1[stride]:
        first = getattr(network, stage)[0]
        # The convolution that halves the maps is the first one of a basic block, the second one of a bottleneck.
        for part in (first.conv1, first.conv2, first.downsample[0]):
            part.stride = (1, 1)
    return Backbone(_up_to(network, "layer4"), preprocessing=IMAGENET, least_size=32)


def build_inception_v3() -> Backbone:
    """Inception-v3 with random weights, ready for those of torchvision; 2,048 maps of 8 × 8 at 299 pixels.

    Raises:
        BackboneUnavailableError: torchvision is not installed.
    """
    network = _models("inception-v3").inception_v3(
        weights=None, aux_logits=False, transform_input=False, init_weights=True
    )
    return Backbone(_up_to(network, _INCEPTION_LAST), preprocessing=_INCEPTION, least_size=75)


def _up_to(network: nn.Module, last: str) -> nn.Sequential:
    """The parts of a network in their order, under their names, up to one of them."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in network.named_children():
        parts[name] = part
        if name == last:
            break
    return nn.Sequential(parts)


def _models(name: str) -> Any:
    from qpm_vision import _torchvision  # noqa: F401  (first: it makes the next import work)

    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        raise BackboneUnavailableError(
            f"The backbone {name!r} needs torchvision, which is not installed: pip install torchvision"
        ) from error
    return models
