"""NaN and infinity: where they are, and what has them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["first_not_finite_layer", "not_finite"]


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor that has NaN or infinite entries, in words; None where all are finite.

    Args:
        tensors: By name, any dtypes and shapes.

    Example:
        >>> not_finite({"a": torch.ones(3), "b": torch.tensor([1.0, torch.nan])})
        "1 NaN or infinite of 2 values in 'b'"
    """
    for name, tensor in tensors.items():
        if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        # PyTorch tells NaN from numbers in no type of eight bits.
        finite = torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float())
        if not bool(finite.all()):
            return f"{int((~finite).sum())} NaN or infinite of {tensor.numel()} values in {name!r}"
    return None


def first_not_finite_layer(module: nn.Module, images: Tensor) -> str | None:
    """The first part of a module whose output is not finite for finite images; None where all are.

    Args:
        module: Takes the images.
        images: (B, 3, H, W).
    """
    found: list[str] = []

    def watch(name: str) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not_finite({name: output}):
                found.append(name)

        return look

    handles = [part.register_forward_hook(watch(name)) for name, part in module.named_modules() if name]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
