"""A backbone that stays as it is, and behind it a small network, the adapter, that is trained in its place."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import Backbone

__all__ = ["AdaptedNetwork", "adapter_alone", "frozen_part", "with_adapter", "with_frozen"]


class AdaptedNetwork(nn.Module):
    """The maps of a frozen backbone, and an adapter behind them.

    No gradients flow into the frozen part, and it is in evaluation mode always: its batch normalisation keeps its
    statistics, nothing is dropped.

    Args:
        frozen: Gives the maps; kept, not copied, and frozen.
        adapter: Takes them.
    """

    def __init__(self, frozen: Backbone, adapter: nn.Module) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False).eval()
        self.adapter = adapter

    def train(self, mode: bool = True) -> Self:
        """Put the adapter in training mode; the frozen part stays in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Maps of the adapter, (B, n_features, h, w), not negative, of images (B, 3, H, W)."""
        maps: Tensor = self.adapter(self.frozen(images))
        return maps


def with_adapter(frozen: Backbone, n_features: int) -> Backbone:
    """A backbone of which only an adapter is trained.

    The adapter is a network of two layers with batch normalisation and ReLU that acts on each place of the maps alone.
    Its hidden layer is half as wide as its output, which is not negative. Its weights are random, by PyTorch's global
    generator.

    Args:
        frozen: What it acts on; kept, not copied, and frozen. Its name and description stay part of the new ones, so
            that `build_backbone` can make the whole again.
        n_features: Number of maps that the adapter gives.

    Raises:
        InvalidInputError: `n_features` is no integer of at least 1.

    Example:
        >>> backbone = with_adapter(Backbone(nn.Conv2d(3, 16, 1)), 8)
        >>> [name for name, weight in backbone.named_parameters() if weight.requires_grad][0]
        'module.adapter.0.weight'
    """
    if isinstance(n_features, bool) or not isinstance(n_features, int) or n_features < 1:
        raise InvalidInputError(
            f"The 'adapter' parameter must be an integer of at least 1, or None. Got {n_features!r}."
        )
    hidden = max(1, n_features // 2)
    adapter = nn.Sequential(
        nn.Conv2d(frozen.n_features, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, n_features, 1, bias=False),
        nn.BatchNorm2d(n_features),
        nn.ReLU(inplace=True),
    )
    return _joined(frozen, adapter, n_features)


def frozen_part(backbone: Backbone) -> Backbone | None:
    """The frozen backbone in one that `with_adapter` made; None where nothing is frozen."""
    return backbone.module.frozen if isinstance(backbone.module, AdaptedNetwork) else None


def adapter_alone(backbone: Backbone) -> Backbone:
    """The adapter as a backbone of its own, which takes maps of the frozen part in place of images.

    It has the parameters of the whole, not copies: what trains one trains both. `with_frozen` is the way back.

    Args:
        backbone: What `with_adapter` gave; any other one comes back as it is.
    """
    if not isinstance(backbone.module, AdaptedNetwork):
        return backbone
    return Backbone(backbone.module.adapter, n_features=backbone.n_features, preprocessing=backbone.preprocessing)


def with_frozen(frozen: Backbone, alone: Backbone) -> Backbone:
    """A backbone that takes images again, of what `adapter_alone` gave and the frozen part; nothing is copied."""
    return _joined(frozen, alone.module, alone.n_features)


def _joined(frozen: Backbone, adapter: nn.Module, n_features: int) -> Backbone:
    return Backbone(
        AdaptedNetwork(frozen, adapter),
        n_features=n_features,
        preprocessing=frozen.preprocessing,
        least_size=frozen.least_size,
        name=frozen.name,
        description={"adapter": n_features, "frozen": frozen.description},
    )
