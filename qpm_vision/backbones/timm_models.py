"""Any model of timm, by its name there."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import (
    Backbone,
    BackboneUnavailableError,
    FoldedNetwork,
    evaluation_mode,
    with_first_accepted,
)
from qpm_vision.backbones.sizes import size_refused
from qpm_vision.backbones.tokens import as_maps
from qpm_vision.preprocessing import Preprocessing

__all__ = ["build_timm", "import_timm"]

_ANY_SIZE = ({"dynamic_img_size": True}, {"strict_img_size": False})
"""Lets transformers take images of other sizes than they were made for, where they can."""


def build_timm(name: str, *, size: int | None = None) -> Backbone:
    """A model of timm with random weights, up to its last maps, which for a transformer are its patch tokens.

    Args:
        name: As timm has it, such as "resnet50", "convnext_tiny" or "vit_small_patch14_dinov2".
        size: Side of the images. Models that take images of one size only are made for this one, where timm can do
            that; None: the side that the model is published for.

    Raises:
        BackboneUnavailableError: timm is not installed.
        InvalidInputError: timm has no such model, it gives no maps, or cannot take images of this size; then sizes that
            it can take are named.
    """
    timm = import_timm(f"timm:{name}")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(repr('timm:' + other) for other in close)}?" if close else ""
        raise InvalidInputError(f"The 'backbone' parameter must name a model of timm. Got 'timm:{name}'.{hint}")
    make = partial(timm.create_model, name, pretrained=False, num_classes=0)
    network = with_first_accepted(make, _ANY_SIZE)
    own = _preprocessing(timm, network)
    side = own.size if size is None else size
    maps = _for_size(make, network, side)
    if isinstance(maps, _TimmMaps):
        return Backbone(maps, n_features=maps.n_features, preprocessing=replace(own, size=side))
    if isinstance(_for_size(make, network, own.size), _TimmMaps):
        raise size_refused(
            f"timm:{name}", side, own.size, maps, lambda other: isinstance(_for_size(make, network, other), _TimmMaps)
        )
    raise InvalidInputError(
        f"The backbone 'timm:{name}' must give maps or patch tokens. Got none: {maps}. Choose another model, or wrap "
        "it in a builder of your own, my.module:build, that returns Backbone(module, layer=…)."
    )


def import_timm(backbone: str) -> Any:
    """The module timm.

    Raises:
        BackboneUnavailableError: It is not installed; names the backbone that needs it.
    """
    from qpm_vision import _torchvision  # noqa: F401  (first: timm imports torchvision)

    try:
        import timm
    except ModuleNotFoundError as error:
        raise BackboneUnavailableError(
            f"The backbone {backbone!r} needs timm and torchvision; {error.name!r} is not installed: "
            "pip install timm torchvision"
        ) from error
    return timm


class _TimmMaps(FoldedNetwork):
    """The features of a timm model as maps (B, n_features, h, w), whatever form it has them in.

    Args:
        network: The model.
        inner: Arguments of `forward_intermediates`, which gives the maps of the last stage, for models whose own
            features have no places; None: their features are the maps.
    """

    def __init__(self, network: Any, inner: dict[str, Any] | None) -> None:
        super().__init__(network)
        self.inner = inner
        self.n_features = 0

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.network
        if self.inner is None:
            features = network.forward_features(images)
        else:
            features = network.forward_intermediates(images, **self.inner)[-1]
        height, width = images.shape[2:]
        count = getattr(network, "num_prefix_tokens", None)
        known = {} if not isinstance(count, int) or self.inner is not None else {"leading": (count,)}
        # Layouts that timm declares are not guessed from the shape.
        behind = self.inner is None and getattr(network, "output_fmt", None) == "NHWC"
        maps = None
        if isinstance(features, Tensor):
            channels = features.shape[-1] if behind else None
            maps = as_maps(features, (height, width), n_features=channels, **known)
        if maps is None:
            raise InvalidInputError(
                f"the {type(network).__name__} of timm must give maps or patch tokens of images of {height} × {width} "
                f"pixels, but gives {_form(features)}"
            )
        return maps

    def converted(self, weights: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """What timm itself makes of published weights: other names, position embeddings of another size."""
        convert = getattr(sys.modules[type(self.network).__module__], "checkpoint_filter_fn", None)
        made: Mapping[str, Tensor] = weights if convert is None else convert(weights, self.network)
        return made


_READINGS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"indices": 1, "norm": True, "output_fmt": "NCHW", "intermediates_only": True},
    {"indices": 1, "output_fmt": "NCHW", "intermediates_only": True},
)


def _for_size(make: Any, network: Any, side: int) -> _TimmMaps | str:
    """The model, or one made for this size, as maps of images of this side; or why there are none."""
    reason = _read(network, side)
    if isinstance(reason, _TimmMaps):
        return reason
    # Made for sides that patches do not fill, models leave the rest of an image out.
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if patch is not None and side % (patch if isinstance(patch, int) else patch[0]):
        return reason
    try:
        made = make(img_size=side)
    except Exception:  # noqa: BLE001  (most have no such size; what was wrong with the first one is known)
        return reason
    found = _read(made, side)
    return found if isinstance(found, _TimmMaps) else reason


def _read(network: Any, side: int) -> _TimmMaps | str:
    """The first way in which the model gives maps of images of this side, or why there is none."""
    images = torch.zeros(1, 3, side, side)
    reasons = []
    for inner in _READINGS:
        maps = _TimmMaps(network, inner)
        try:
            with evaluation_mode(network), torch.no_grad():
                maps.n_features = maps(images).shape[1]
        except Exception as error:  # noqa: BLE001  (of timm, of any kind)
            reasons.append(" ".join(str(error).split()) or type(error).__name__)
        else:
            return maps
    return reasons[0]


def _preprocessing(timm: Any, network: Any) -> Preprocessing:
    settings = timm.data.resolve_data_config({}, model=network)
    return Preprocessing(
        int(settings["input_size"][-1]),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"],
        crop=float(settings["crop_pct"]),
    )


def _form(features: Any) -> str:
    return f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else f"a {type(features).__name__}"
