"""Any module that has feature maps, behind one face."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.backbones.tokens import as_maps
from qpm_vision.openmp import share_processors
from qpm_vision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "IMAGENET",
    "Backbone",
    "BackboneUnavailableError",
    "FoldedNetwork",
    "evaluation_mode",
    "with_first_accepted",
]

IMAGENET = Preprocessing(224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What most networks that were trained on ImageNet expect, torchvision's among them."""


class BackboneUnavailableError(QPMError, ImportError):
    """A backbone needs something that is not installed; the message says what to install."""


class FoldedNetwork(nn.Module):
    """A network whose output a subclass brings into the form of maps; weights from elsewhere belong to `network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def converted(self, weights: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights as they were published, under the names and in the shapes of the network, as far as that is known."""
        return weights


class Backbone(nn.Module):
    """Images in, feature maps out, from any module.

    The weights are laid out channels last, which is about 1.8 times as fast on a CPU and changes no value.

    Args:
        module: Takes images (B, 3, H, W); its output, or that of `layer`, is the maps: with channels in front,
            (B, n_features, h, w), or behind, (B, h, w, n_features), or tokens of patches (B, N, n_features), row by row
            behind those that stand for no place.
        layer: Name of the submodule whose output is the maps, as `module.named_modules()` has it. What comes behind
            it is not computed. None: the output of `module` itself.
        n_features: Number of maps; None: found by passing one black image through.
        preprocessing: What the module was trained with, and the default for training on. None: `IMAGENET`.
        least_size: Smallest side of an image that the module can take.
        name: What `build_backbone` calls it; kept in checkpoints.
        description: What it takes beside the name to build it again, of values that JSON can hold.

    Attributes:
        n_features: Number of maps.
        precision: In what the module computes: torch.float32, or torch.bfloat16 for automatic mixed precision; maps are
            float32 in both cases. It is no part of a checkpoint.
        preprocessing: As given.
        name: As given, or set by `build_backbone`; None: `build_backbone` does not know it.
        description: As given; None: the name says it all.

    Raises:
        InvalidInputError: There is no such layer, or what it gives are no maps.

    Example:
        >>> backbone = Backbone(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten()), layer="1")
        >>> backbone.n_features, tuple(backbone(torch.zeros(2, 3, 10, 10)).shape)
        (8, (2, 8, 8, 8))
    """

    def __init__(
        self,
        module: nn.Module,
        layer: str | None = None,
        n_features: int | None = None,
        preprocessing: Preprocessing | None = None,
        *,
        least_size: int = 1,
        name: str | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        share_processors()  # whatever is computed in earnest goes through a backbone
        if not isinstance(module, nn.Module):
            raise InvalidInputError(f"The 'module' parameter must be a torch.nn.Module. Got a {type(module).__name__}.")
        if layer is not None:
            _require_layer(module, layer)
        if n_features is not None and (isinstance(n_features, bool) or n_features < 1):
            raise InvalidInputError(
                f"The 'n_features' parameter must be an integer of at least 1, or None. Got {n_features!r}."
            )
        self.module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.layer = layer
        self.preprocessing = IMAGENET if preprocessing is None else preprocessing
        self.least_size = least_size
        self.name = name
        self.description = description
        self.precision = torch.float32
        self.n_features = self._find_n_features() if n_features is None else int(n_features)

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps of a batch.

        Args:
            images: (B, 3, H, W), normalised.

        Returns:
            Maps (B, n_features, h, w).

        Raises:
            InvalidInputError: The images are too small or none, or the output is not n_features maps.
        """
        if self.precision is torch.float32:
            maps = self._maps(images, self.n_features)
        else:
            with torch.autocast(images.device.type, self.precision):
                maps = self._maps(images, self.n_features)
            maps = maps.float()
        if maps.shape[1] != self.n_features:
            raise InvalidInputError(
                f"{self._place()} must give the {self.n_features} feature maps that 'n_features' says. Got "
                f"{maps.shape[1]}; leave 'n_features' out to have them counted."
            )
        return maps

    def extra_repr(self) -> str:
        """What is not seen in the module itself."""
        return f"name={self.name!r}, layer={self.layer!r}, n_features={self.n_features}"

    def _maps(self, images: Tensor, n_features: int | None) -> Tensor:
        if images.ndim != 4 or min(images.shape[2:]) < self.least_size:
            raise InvalidInputError(
                f"The 'images' parameter must have shape (B, 3, H, W) with sides of at least {self.least_size} pixels. "
                f"Got {tuple(images.shape)}; use a preprocessing of that size or a larger one."
            )
        output = self.module(images) if self.layer is None else _output_of(self.module, self.layer, images)
        height, width = images.shape[2:]
        maps = as_maps(output, (height, width), n_features=n_features) if isinstance(output, Tensor) else None
        if maps is None:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise InvalidInputError(
                f"{self._place()} must give feature maps of images of {height} × {width} pixels, one tensor "
                f"(B, n_features, h, w), or a token for each patch. Got {got}; name a 'layer' in front of pooling and "
                "flattening."
            )
        return maps

    def _place(self) -> str:
        return "The output of the 'module' parameter" if self.layer is None else f"The output of layer {self.layer!r}"

    def _find_n_features(self) -> int:
        reference = next((tensor for tensor in self.module.parameters() if tensor.is_floating_point()), torch.zeros(()))
        side = self.preprocessing.size
        black = torch.zeros(1, 3, side, side, dtype=reference.dtype, device=reference.device)
        with evaluation_mode(self.module), torch.no_grad():
            try:
                return self._maps(black, None).shape[1]
            except InvalidInputError:
                raise
            except Exception as error:  # whatever a module of other people raises
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InvalidInputError(
                    f"The 'module' parameter must take images of shape (B, 3, {side}, {side}). It failed: {reason}; "
                    "give the 'preprocessing' of the size that it was made for, or 'n_features'."
                ) from error


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module and its parts in evaluation mode, and each back in the mode that it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def with_first_accepted(make: Callable[..., Any], options: Sequence[dict[str, Any]]) -> Any:
    """What `make` returns with the first of several sets of arguments that it knows, or else without any.

    Other libraries let some of their networks be adapted by an argument that others of them do not take.
    """
    for arguments in options:
        try:
            return make(**arguments)
        except TypeError as error:
            if not any(name in str(error) for name in arguments):
                raise
    return make()


class _ReachedError(Exception):
    """Ends the forward pass at the wanted layer."""


def _output_of(module: nn.Module, layer: str, images: Tensor) -> Any:
    found: list[Any] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output)
        raise _ReachedError

    handle = module.get_submodule(layer).register_forward_hook(keep)
    try:
        module(images)
    except _ReachedError:
        return found[0]
    finally:
        handle.remove()
    raise InvalidInputError(
        f"The 'layer' parameter must name a submodule that runs in the forward pass. Got {layer!r}, which does not."
    )


def _require_layer(module: nn.Module, layer: str) -> None:
    names = [name for name, _ in module.named_modules() if name]
    if layer in names:
        return
    close = difflib.get_close_matches(str(layer), names, n=3, cutoff=0.3) or names[-3:]
    hint = f"did you mean {' or '.join(repr(name) for name in close)}?" if close else "the module has no submodules."
    raise InvalidInputError(
        f"The 'layer' parameter must name a submodule of the {type(module).__name__}. Got {layer!r}; {hint}"
    )
