"""One pass through a backbone at the size of the images, before hours are spent on a training that cannot succeed."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import Backbone, evaluation_mode
from qpm_vision.backbones.finite import first_not_finite_layer, not_finite
from qpm_vision.backbones.sizes import size_refused

__all__ = ["try_out"]

_TOLERANCE = 1e-3
"""Of the largest value; kernels may order their sums by the place of an image in its batch."""


def try_out(backbone: Backbone, size: int, device: torch.device | str = "cpu") -> None:
    """Pass an image through a backbone and gradients back, and refuse what training would stumble over.

    Args:
        backbone: Moved to the device; its weights and modes stay as they are, and its gradients are left empty.
        size: Side of the images.
        device: Where the training will be.

    Raises:
        InvalidInputError: It cannot take images of this size, where sizes that it can take are named; or its maps are
            NaN or infinite, are others for the same image each time, or let no gradient through.
    """
    name = backbone.name or type(backbone.module).__name__
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = noise.expand(2, -1, -1, -1).to(device, memory_format=torch.channels_last)
    backbone.to(device)
    with evaluation_mode(backbone):
        try:
            maps = backbone(images)
        except Exception as error:  # whatever a module of other people raises
            reason = " ".join(str(error).split()) or type(error).__name__
            own = backbone.preprocessing.size
            works = partial(_works, backbone, device)
            if size == own or not works(own):
                raise InvalidInputError(
                    f"The backbone {name!r} must give maps of images of {size} pixels. It failed: {reason}. Choose "
                    "another 'size' or another backbone."
                ) from error
            raise size_refused(name, size, own, reason, works) from error
        _require_finite(name, backbone, maps, images)
        first, second = maps.detach()
        if bool((first - second).abs().max() > _TOLERANCE * first.abs().max()):
            raise InvalidInputError(
                f"The backbone {name!r} must give the same maps for the same image. Got others each time, as of a "
                "network that hides a part of its input at random; turn that off in its configuration."
            )
        _require_gradients(name, backbone, maps)


def _works(backbone: Backbone, device: torch.device | str, size: int) -> bool:
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, 3, size, size, device=device))
    except Exception:  # noqa: BLE001  (of any kind)
        return False
    return True


def _require_finite(name: str, backbone: Backbone, maps: Tensor, images: Tensor) -> None:
    if not_finite({"maps": maps}) is None:
        return
    amiss = not_finite(backbone.state_dict())
    layer = first_not_finite_layer(backbone, images)
    where = amiss or (f"NaN or infinite maps, first behind its part {layer!r}" if layer else "NaN or infinite maps")
    raise InvalidInputError(
        f"The backbone {name!r} must give finite maps. Got {where}; use other weights, or fetch them again."
    )


def _require_gradients(name: str, backbone: Backbone, maps: Tensor) -> None:
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    if not trained:
        return  # told by the training, which then has nothing to do
    if maps.requires_grad:
        maps.float().square().mean().backward()  # type: ignore[no-untyped-call]
    reached = any(parameter.grad is not None for parameter in trained)
    backbone.zero_grad(set_to_none=True)
    if not reached:
        raise InvalidInputError(
            f"The backbone {name!r} must let gradients through to its parameters. Got none at any of {len(trained)}; "
            "take away what cuts them off in its forward pass (no_grad, detach), or train an 'adapter' behind it."
        )
