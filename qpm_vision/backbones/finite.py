"""NaN and infinity: where they are, and what has them first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["not_finite"]


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor that has NaN or infinite entries, in words; None where all are finite.

    Args:
        tensors: By name, any dtypes and shapes.

    Example:
        >>> not_finite({"a": torch.ones(3), "b": torch.tensor([1.0, torch.nan])})
        "1 NaN or infinite of 2 values in 'b'"
    """
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        finite = torch.isfinite(tensor)
        if not bool(finite.all()):
            return f"{int((~finite).sum())} NaN or infinite of {tensor.numel()} values in {name!r}"
    return None
