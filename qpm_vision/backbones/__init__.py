"""Where feature maps come from: backbones by name, and a wrapper for any module that has maps.

backbone = build_backbone("efficientnet-lite0")                            # comes with its weights
backbone = build_backbone("resnet50-stride8", weights="resnet50.pth")      # torchvision's, from a file
backbone = build_backbone("timm:convnext_tiny", weights="weights/")        # any model of timm
backbone = build_backbone("hf:models/dinov2-small")                        # a folder of the transformers library
backbone = build_backbone("my.module:build")                               # a function of your own
backbone = Backbone(my_module, layer="layer4", preprocessing=Preprocessing(224, mean, std))

Nothing is ever downloaded, and nothing starts from random weights unless told to (`weights="random"`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qpm_opt import InvalidInputError
from qpm_vision.backbones.adapter import adapter_alone, frozen_part, with_adapter, with_frozen
from qpm_vision.backbones.base import (
    IMAGENET,
    Backbone,
    BackboneUnavailableError,
    FoldedNetwork,
    evaluation_mode,
)
from qpm_vision.backbones.efficientnet_lite0 import build_efficientnet_lite0, build_local_efficientnet_lite0
from qpm_vision.backbones.finite import not_finite
from qpm_vision.backbones.imported import build_imported
from qpm_vision.backbones.timm_models import build_timm
from qpm_vision.backbones.torchvision_models import RESNETS, build_inception_v3, build_resnet
from qpm_vision.backbones.transformers_models import build_transformers, read_transformers_folder
from qpm_vision.backbones.weights import BackboneWeightsError, load_head, load_weights

__all__ = [
    "IMAGENET",
    "RANDOM",
    "Backbone",
    "BackboneUnavailableError",
    "BackboneWeightsError",
    "adapter_alone",
    "backbone_names",
    "build_backbone",
    "evaluation_mode",
    "frozen_part",
    "load_head",
    "register_backbone",
    "with_adapter",
    "with_frozen",
]


RANDOM = "random"
"""What to give as `weights` to start from random ones."""


@dataclass(frozen=True)
class _Entry:
    """How to make a backbone with weights of its own, None where it has none, and without reading any."""

    ready: Callable[[], Backbone] | None
    blank: Callable[[], Backbone]


_ENTRIES: dict[str, _Entry] = {}


def register_backbone(
    name: str, builder: Callable[[], Backbone], *, blank: Callable[[], Backbone] | None = None
) -> None:
    """Make a backbone known by name, so that checkpoints which use it can be loaded.

    Args:
        name: The name; letters, digits and dashes by custom, without a colon.
        builder: Makes the backbone, with pretrained weights where it has any.
        blank: Makes it without reading weights, for checkpoints that bring their own; `builder` by default.

    Raises:
        InvalidInputError: The name is taken, or is none.
    """
    if not isinstance(name, str) or not name or ":" in name:
        raise InvalidInputError(f"The 'name' parameter must be a text without a colon that is not empty. Got {name!r}.")
    if name in _ENTRIES:
        raise InvalidInputError(
            f"The 'name' parameter must be a name that no backbone has yet. Got {name!r}; choose another one."
        )
    _ENTRIES[name] = _Entry(builder, builder if blank is None else blank)


def backbone_names() -> tuple[str, ...]:
    """The names that `build_backbone` takes beside "timm:…", "hf:…" and import paths, sorted.

    Example:
        >>> "efficientnet-lite0" in backbone_names()
        True
    """
    return tuple(sorted(_ENTRIES))


def build_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    adapter: int | None = None,
    description: Mapping[str, Any] | None = None,
) -> Backbone:
    """Make a backbone.

    Args:
        name: A name that `backbone_names` lists; "timm:NAME" for a model of timm; "hf:DIR" for a folder of the
            transformers library; or the import path of a function, "my.module:build".
        weights: A file or folder on this machine; "random"; or None for those that it comes with.
        size: Side of the images, for networks that are made for images of one size; None: as it was published.
        adapter: Number of features of an adapter to put behind it, which then is frozen; see `with_adapter`. None:
            the backbone itself.
        description: `Backbone.description` of one that was made before, where its folder may be gone.

    Returns:
        A new backbone that knows its name.

    Raises:
        InvalidInputError: There is no such backbone, where the nearest one is named, or it cannot take images of this
            size, where sizes that it can take are.
        BackboneWeightsError: It comes without weights and none were named, or those that were named do not fit.
        BackboneUnavailableError: A package that it needs is not installed; says which.
    """
    if description is not None and "adapter" in description:
        adapter, description = description["adapter"], description["frozen"]
    entry = _entry(name, description, size)
    if weights is None:
        if entry.ready is None:
            raise BackboneWeightsError(
                f"The backbone {name!r} needs the 'weights' parameter: a file or folder on this machine. Got none; "
                f"nothing is downloaded, so fetch the file first, or say {RANDOM!r} to train from random weights."
            )
        backbone = entry.ready()
    else:
        backbone = entry.blank()
        if weights != RANDOM:
            module = backbone.module
            if isinstance(module, FoldedNetwork):
                load_weights(module.network, weights, module.converted)
            else:
                load_weights(module, weights)
    if weights != RANDOM:
        # Those that come with a backbone as well, which other libraries read.
        amiss = not_finite(backbone.state_dict())
        if amiss is not None:
            raise BackboneWeightsError(
                f"The weights of the backbone {name!r} must be finite. Got {amiss}; fetch them again, or take a state "
                "from before the training diverged."
            )
    backbone.name = name
    return backbone if adapter is None else with_adapter(backbone, adapter)


def _entry(name: str, description: Mapping[str, Any] | None, size: int | None) -> _Entry:
    if name in _ENTRIES:
        return _ENTRIES[name]
    kind, colon, rest = str(name).partition(":")
    if not (colon and kind and rest):
        close = difflib.get_close_matches(str(name), _ENTRIES, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidInputError(
            f"The 'backbone' parameter must be one of {', '.join(backbone_names())}, timm:NAME, hf:DIR, an import path "
            f"my.module:build, or a name given to register_backbone before. Got {name!r}.{hint}"
        )
    if kind == "timm":
        return _Entry(None, partial(build_timm, rest, size=size))
    if kind == "hf":
        folder = Path(rest).expanduser()
        described = read_transformers_folder(folder) if description is None else description
        build = partial(build_transformers, described, size=size)
        return _Entry(partial(build, folder), build)
    return _Entry(partial(build_imported, name), partial(build_imported, name))


for _name, _stride in (("efficientnet-lite0", 32), ("efficientnet-lite0-stride16", 16)):
    register_backbone(
        _name,
        partial(build_efficientnet_lite0, stride=_stride),
        blank=partial(build_efficientnet_lite0, stride=_stride, pretrained=False),
    )
register_backbone(
    "efficientnet-lite0-local",
    build_local_efficientnet_lite0,
    blank=partial(build_local_efficientnet_lite0, pretrained=False),
)
for _name in RESNETS:
    for _stride, _suffix in ((32, ""), (16, "-stride16"), (8, "-stride8")):
        _ENTRIES[_name + _suffix] = _Entry(None, partial(build_resnet, _name, stride=_stride))
_ENTRIES["inception-v3"] = _Entry(None, build_inception_v3)
