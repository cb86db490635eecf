"""Weights from a file or a folder on this machine, whatever the names in it begin with."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from qpm_opt import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BackboneWeightsError", "load_head", "load_weights", "read_weights"]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Under which training programs keep the weights beside other things."""

# What the two readers raise on files that are cut off, or something else altogether.
_BROKEN = (SafetensorError, UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
_UNREADABLE = (OSError, EOFError, *_BROKEN)

_COUNTER = "num_batches_tracked"
_LISTED = 12

_log = logging.getLogger(__name__)


class BackboneWeightsError(InvalidInputError):
    """Weights are missing, unreadable or do not fit; the message lists every tensor that is amiss, up to a dozen."""


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill a network with weights; either all of its tensors fit, or none is changed.

    The names may have a prefix more or less than those of the network ("module.", "backbone.", …), found from the
    names themselves. Tensors that the network has no place for, such as those of a classifier, are named in the log.
    The counters of batch normalisation may be missing: they influence nothing.

    Args:
        network: What to fill.
        path: A file (.safetensors, or .pth, .pt, .bin, .ckpt without pickled objects), or a folder that holds one.

    Raises:
        BackboneWeightsError: There is no such file, it cannot be read, or a tensor is missing or of another shape.
    """
    file = _file_of(Path(path).expanduser())
    wanted = network.state_dict()
    given = _renamed(read_weights(file), wanted)
    missing = [name for name in wanted if name not in given and not name.endswith(_COUNTER)]
    misshapen = [
        f"{name!r} is {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if missing or misshapen:
        problems = [f"missing {name!r}" for name in missing] + misshapen
        raise BackboneWeightsError(
            f"The weights in {str(file)!r} must fit the network, {len(wanted)} tensors. Got {len(given)}; "
            f"{len(problems)} do not fit: {_listed(problems)}. Use the weights of this architecture."
        )
    left = [name for name in given if name not in wanted]
    if left:
        _log.info("%s: %d tensors have no place in the network: %s", file, len(left), ", ".join(left))
    network.load_state_dict({name: given.get(name, tensor) for name, tensor in wanted.items()})


def load_head(head: nn.Linear, backbone: str, weights: str | os.PathLike[str] | None) -> None:
    """Fill a linear layer over pooled features with the classifier that lies beside the weights of a backbone.

    Args:
        head: What to fill.
        backbone: What `build_backbone` takes; a folder of the transformers library is its own source.
        weights: The file or folder that holds the weights of the backbone.

    Raises:
        BackboneWeightsError: There is no file, or not exactly one matrix of the shape of the layer in it.
    """
    folder = backbone.removeprefix("hf:") if weights is None and backbone.startswith("hf:") else weights
    wanted = tuple(head.weight.shape)
    if folder is None or folder == "random":
        raise BackboneWeightsError(
            f"The 'weights' parameter must name a file with a classifier of shape {wanted} where the dense model is "
            f"not trained (0 epochs). Got {folder!r}; name a file, or train the dense model."
        )
    file = _file_of(Path(folder).expanduser())
    given = read_weights(file)
    found = [name for name, tensor in given.items() if tuple(tensor.shape) == wanted and name.endswith("weight")]
    if len(found) != 1:
        raise BackboneWeightsError(
            f"The weights in {str(file)!r} must hold one classifier of shape {wanted}, classes × features, where the "
            f"dense model is not trained (0 epochs). Got {_listed(found) or 'none'}; use the weights of a network that "
            "was trained on these classes, or train the dense model."
        )
    bias = given.get(found[0].removesuffix("weight") + "bias", torch.zeros(wanted[0]))
    head.load_state_dict({"weight": given[found[0]], "bias": bias})


def read_weights(file: Path) -> dict[str, Tensor]:
    """Names and tensors in a file, on the CPU.

    Raises:
        BackboneWeightsError: It cannot be read, or holds no tensors by name.
    """
    try:
        content: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except _UNREADABLE as error:
        raise BackboneWeightsError(
            f"Cannot read the weights {str(file)!r}: {' '.join(str(error).split())[:300]}. Save them as safetensors, "
            "or with torch.save(model.state_dict(), path)."
        ) from error
    found = _tensors(content)
    for name in _WRAPPINGS:
        if not found and isinstance(content, dict) and name in content:
            found = _tensors(content[name])
    if not found:
        raise BackboneWeightsError(
            f"The file {str(file)!r} must hold tensors by name, or a dictionary that has them under one of "
            f"{', '.join(_WRAPPINGS)}. Got {_kind(content)}; save model.state_dict()."
        )
    return found


def _file_of(path: Path) -> Path:
    if not path.exists():
        raise BackboneWeightsError(
            f"The 'weights' parameter must name a file or folder on this machine. There is no {str(path)!r}; nothing "
            "is ever downloaded, so fetch the file first, or say 'random' to start from random weights."
        )
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    # Several formats of the same weights lie side by side in many folders.
    best = [file for file in found if file.suffix == ".safetensors"] or found
    if len(best) != 1:
        raise BackboneWeightsError(
            f"The folder {str(path)!r} must hold one file of weights ({', '.join(_SUFFIXES)}). Got "
            f"{_listed([file.name for file in best]) or 'none'}; name the file itself."
        )
    return best[0]


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _renamed(given: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The given tensors under the prefix, more or less, that lets most names of the network be found."""
    if not wanted:
        return given
    best = given
    found = len(wanted.keys() & given.keys())
    for renamed in _candidates(given, wanted):
        count = len(wanted.keys() & renamed.keys())
        if count > found:
            best, found = renamed, count
    return best


def _candidates(given: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    first = next(iter(wanted))
    extra = {name.removesuffix(first) for name in given if name.endswith("." + first)}
    lacking = {first.removesuffix(name) for name in given if first.endswith("." + name)}
    return [
        *({name.removeprefix(prefix): tensor for name, tensor in given.items()} for prefix in sorted(extra)),
        *({prefix + name: tensor for name, tensor in given.items()} for prefix in sorted(lacking)),
    ]


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dictionary with {', '.join(map(repr, list(content)[:5])) or 'nothing in it'}"
    return f"a {type(content).__name__}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return "; ".join(names[:_LISTED]) + more
