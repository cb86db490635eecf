"""Where feature maps come from: backbones by name, and a wrapper for any module that has maps.

backbone = build_backbone("efficientnet-lite0")
backbone = Backbone(my_module, layer="layer4", preprocessing=Preprocessing(224, mean, std))
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import IMAGENET, Backbone, BackboneUnavailableError, evaluation_mode
from qpm_vision.backbones.efficientnet_lite0 import build_efficientnet_lite0

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "IMAGENET",
    "Backbone",
    "BackboneUnavailableError",
    "backbone_names",
    "build_backbone",
    "evaluation_mode",
    "register_backbone",
]


@dataclass(frozen=True)
class _Entry:
    pretrained: Callable[[], Backbone]
    blank: Callable[[], Backbone]


_ENTRIES: dict[str, _Entry] = {}


def register_backbone(
    name: str, builder: Callable[[], Backbone], *, blank: Callable[[], Backbone] | None = None
) -> None:
    """Make a backbone known by name, so that checkpoints which use it can be loaded.

    Args:
        name: The name; letters, digits and dashes by custom.
        builder: Makes the backbone, with pretrained weights where it has any.
        blank: Makes it without reading weights, for checkpoints that bring their own; `builder` by default.

    Raises:
        InvalidInputError: The name is taken, or is none.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"The 'name' parameter must be a text that is not empty. Got {name!r}.")
    if name in _ENTRIES:
        raise InvalidInputError(
            f"The 'name' parameter must be a name that no backbone has yet. Got {name!r}; choose another one."
        )
    _ENTRIES[name] = _Entry(builder, builder if blank is None else blank)


def backbone_names() -> tuple[str, ...]:
    """All names that `build_backbone` takes, sorted.

    Example:
        >>> "efficientnet-lite0" in backbone_names()
        True
    """
    return tuple(sorted(_ENTRIES))


def build_backbone(name: str, *, pretrained: bool = True) -> Backbone:
    """Make a backbone.

    Args:
        name: A name that `backbone_names` lists.
        pretrained: Whether to read the pretrained weights that it comes with; they are never downloaded.

    Returns:
        A new backbone that knows its name.

    Raises:
        InvalidInputError: There is no such backbone; names the nearest one.
        BackboneUnavailableError: A package that it needs is not installed; says which.
    """
    if name not in _ENTRIES:
        close = difflib.get_close_matches(str(name), _ENTRIES, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidInputError(
            f"The 'backbone' parameter must be one of {', '.join(backbone_names())}, or a name given to "
            f"register_backbone before. Got {name!r}.{hint}"
        )
    entry = _ENTRIES[name]
    backbone = entry.pretrained() if pretrained else entry.blank()
    backbone.name = name
    return backbone


for _name, _stride in (("efficientnet-lite0", 32), ("efficientnet-lite0-stride16", 16)):
    register_backbone(
        _name,
        partial(build_efficientnet_lite0, stride=_stride),
        blank=partial(build_efficientnet_lite0, stride=_stride, pretrained=False),
    )
