"""The part of torchmetrics' Metric that the accumulators use, for where torchmetrics cannot be imported."""

from __future__ import annotations

from typing import Self

import torch

__all__ = ["Metric"]


class Metric(torch.nn.Module):
    """States that can be declared, reset and moved; no synchronisation across processes."""

    def __init__(self) -> None:
        super().__init__()
        self._defaults: dict[str, torch.Tensor | list[torch.Tensor]] = {}
        self._update_count = 0
        self._state_device = torch.device("cpu")

    def add_state(self, name: str, default: torch.Tensor | list[torch.Tensor], dist_reduce_fx: str) -> None:
        """Declare a state with its value before the first update."""
        del dist_reduce_fx  # nothing to reduce across
        self._defaults[name] = default
        setattr(self, name, default.clone() if isinstance(default, torch.Tensor) else list(default))

    def reset(self) -> None:
        """Forget everything seen."""
        self._update_count = 0
        for name, default in self._defaults.items():
            fresh = default.to(self._state_device, copy=True) if isinstance(default, torch.Tensor) else list(default)
            setattr(self, name, fresh)

    @property
    def device(self) -> torch.device:
        """Where the states are."""
        return self._state_device

    def to(self, device: torch.device | str) -> Self:  # type: ignore[override]
        """Move the states to a device; their dtype stays."""
        self._state_device = torch.device(device)
        for name in self._defaults:
            state = getattr(self, name)
            moved = state.to(device) if isinstance(state, torch.Tensor) else [entry.to(device) for entry in state]
            setattr(self, name, moved)
        return self
