"""Any model of timm, by its name there."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import Backbone, BackboneUnavailableError, FoldedNetwork, with_first_accepted
from qpm_vision.backbones.tokens import fold_tokens
from qpm_vision.preprocessing import Preprocessing

__all__ = ["build_timm", "import_timm"]

_ARGUMENTS = ({"dynamic_img_size": True}, {"strict_img_size": False})
"""Lets transformers take images of other sizes than they were made for, where they can."""


def build_timm(name: str) -> Backbone:
    """A model of timm with random weights, up to its last maps, which for a transformer are its patch tokens.

    Args:
        name: As timm has it, such as "resnet50", "convnext_tiny" or "vit_small_patch14_dinov2".

    Raises:
        BackboneUnavailableError: timm is not installed.
        InvalidInputError: timm has no such model, or it gives no maps.
    """
    timm = import_timm(f"timm:{name}")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(repr('timm:' + other) for other in close)}?" if close else ""
        raise InvalidInputError(f"The 'backbone' parameter must name a model of timm. Got 'timm:{name}'.{hint}")
    network = with_first_accepted(partial(timm.create_model, name, pretrained=False, num_classes=0), _ARGUMENTS)
    settings = timm.data.resolve_data_config({}, model=network)
    preprocessing = Preprocessing(
        int(settings["input_size"][-1]),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"],
        crop=float(settings["crop_pct"]),
    )
    return Backbone(_TimmMaps(network), n_features=int(network.num_features), preprocessing=preprocessing)


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
    """The features of a timm model as maps (B, n_features, h, w), whatever layout it has them in."""

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.network
        features: Tensor = network.forward_features(images)
        if features.ndim == 4:
            return features.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else features
        if features.ndim != 3 or not hasattr(network, "patch_embed"):
            raise InvalidInputError(
                f"The {type(network).__name__} of timm must give maps or patch tokens. Got shape "
                f"{tuple(features.shape)}; wrap it in a builder of your own: Backbone(module, layer=…)."
            )
        patch = network.patch_embed.patch_size
        down, across = (patch, patch) if isinstance(patch, int) else patch
        return fold_tokens(features, images.shape[2] // down, images.shape[3] // across)
