"""A model whose figures are NaN has no opinion: it is refused, where an argmax would name the first class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from qpm_opt import QPMError
from qpm_vision.backbones.finite import not_finite

__all__ = ["NotFiniteError", "require_finite_output"]


class NotFiniteError(QPMError):
    """What a model computes is NaN or infinite; the message names the first image and, if there is one, the tensor."""


def require_finite_output(model: Any, output: Any, images: Sequence[str] | int) -> None:
    """Raise where logits or features of a batch are not finite.

    Args:
        model: What computed them.
        output: Has `logits` (B, n_classes) and `features` (B, n_features).
        images: What the images of the batch are called, or the number of the first one.

    Raises:
        NotFiniteError: One is NaN or infinite.
    """
    good = torch.isfinite(output.logits).all(dim=1) & torch.isfinite(output.features).all(dim=1)
    if bool(good.all()):
        return
    bad = (~good).nonzero().flatten().tolist()
    first = f"image {images + bad[0]}" if isinstance(images, int) else repr(images[bad[0]])
    amiss = not_finite(model.state_dict()) if isinstance(model, nn.Module) else None
    remedy = (
        f"The model has {amiss}: restore its file, or train again"
        if amiss
        else "Its weights are finite, so its values leave the range of their precision: use the precision float32, or "
        "train again with a lower learning rate"
    )
    raise NotFiniteError(
        f"The model must give finite logits and features. Got NaN or infinite ones for {first} and "
        f"{len(bad) - 1} more of {len(good)} images. {remedy}."
    )
