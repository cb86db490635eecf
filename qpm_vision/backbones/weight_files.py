"""Tensors by name from the files that training programs write; nothing in them is ever unpickled."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from qpm_opt import InvalidInputError

__all__ = ["BackboneWeightsError", "WeightFile", "listed", "read_weights"]

# What the two readers raise on files that are cut off, or something else altogether.
_BROKEN = (SafetensorError, UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
_UNREADABLE = (OSError, EOFError, *_BROKEN)

_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What compiled and sharded modules put into the names of their tensors, at any depth."""

_DEEPEST = 8
_LISTED = 12
_SHOWN = 6


class BackboneWeightsError(InvalidInputError):
    """Weights are missing, unreadable or do not fit; the message lists every tensor that is amiss, up to a dozen."""


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        path: The file.
        tensors: Every tensor in it, by its name behind those of the dictionaries and lists that it lies in, joined by
            dots: "state_dict.module.conv1.weight".
        keys: The same names, and how each tensor is called in the innermost dictionary: "module.conv1.weight".
        contents: What the file holds at its top, in words.
    """

    path: Path
    tensors: dict[str, Tensor]
    keys: dict[str, str]
    contents: str


def read_weights(file: Path) -> WeightFile:
    """Read a file, on the CPU.

    Args:
        file: .safetensors, or anything that `torch.save` wrote of tensors, numbers, texts, dictionaries and lists.

    Raises:
        BackboneWeightsError: It cannot be read, needs objects to be unpickled, or holds no tensors by name.
    """
    try:
        content = _content(file)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error
    found = [(_WRAPPERS.sub("", name), _WRAPPERS.sub("", key), tensor) for name, key, tensor in _flat(content)]
    if not found:
        raise BackboneWeightsError(
            f"The file {str(file)!r} must hold tensors by name, in whatever dictionaries. Got {_kind(content)}; save "
            "model.state_dict()."
        )
    tensors = {name: tensor for name, _, tensor in found}
    return WeightFile(file, tensors, {name: key for name, key, _ in found}, _kind(content))


def listed(names: list[str]) -> str:
    """Some of the names, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return "; ".join(names[:_LISTED]) + more


def _content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    with warnings.catch_warnings():
        # Of TorchScript, which is refused with a sentence of its own.
        warnings.filterwarnings("ignore", ".*TorchScript archive", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def _flat(content: Any) -> Iterator[tuple[str, str, Tensor]]:
    """Name, key and tensor of all tensors in a nest of dictionaries and lists, each container once."""
    seen: set[int] = set()

    def walk(item: Any, name: str, key: str, depth: int) -> Iterator[tuple[str, str, Tensor]]:
        if isinstance(item, Tensor):
            yield name, key, item.detach()
        elif isinstance(item, Mapping | list | tuple) and depth and id(item) not in seen:
            seen.add(id(item))
            for below, part in _items(item):
                yield from walk(part, f"{name}.{below}" if name else below, below, depth - 1)

    # A tensor on its own has no name, and fits nothing.
    return iter(()) if isinstance(content, Tensor) else walk(content, "", "", _DEEPEST)


def _items(content: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        yield from ((str(key), item) for key, item in content.items())
        return
    for number, item in enumerate(content):
        pair = isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str)
        yield (item[0], item[1]) if pair else (str(number), item)


def _kind(content: Any) -> str:
    """What a file holds at its top, in words: parts with tensors below them, tensors, and what else there is."""
    if isinstance(content, Tensor):
        return f"a tensor {tuple(content.shape)}"
    if not isinstance(content, Mapping | list | tuple):
        return f"a {type(content).__name__}"
    parts, tensors, others = [], [], []
    for key, item in _items(content):
        if isinstance(item, Tensor):
            tensors.append(repr(key))
        elif number := sum(1 for _ in _flat(item)):
            parts.append(f"{key!r} ({number} tensor{'s'[: number - 1]})")
        else:
            others.append(repr(key))
    what = "a dictionary" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    if tensors:
        parts.append(f"the tensor{'s'[: len(tensors) - 1]} {_some(tensors)}")
    if others:
        parts.append(_some(others))
    return f"{what} with {', '.join(parts) or 'nothing in it'}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _unreadable(file: Path, error: BaseException) -> BackboneWeightsError:
    remedy = "Save them as safetensors, or with torch.save(model.state_dict(), path)."
    if isinstance(error, UnpicklingError) and (objects := _objects(file, error)):
        return BackboneWeightsError(
            f"Cannot read the weights {str(file)!r}: beside tensors it holds objects, {objects}, and to restore those "
            "can run code of whoever wrote the file, so it is not done here. If you trust the file, keep its tensors "
            "alone: c = torch.load(path, weights_only=False), then torch.save(c['model'], new_path), or whatever the "
            "state dict is called in it; of a whole network c.state_dict()."
        )
    if "TorchScript" in str(error):
        return BackboneWeightsError(
            f"Cannot read the weights {str(file)!r}: it is a TorchScript program. Keep its tensors alone: "
            "torch.save(torch.jit.load(path).state_dict(), new_path)."
        )
    reason = " ".join(str(error).split())
    # PyTorch's own text begins with advice that is none here: to unpickle the file after all.
    reason = reason.rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    if reason.startswith("Weights only load failed"):
        reason = "it is no file of torch.save, or damaged"
    return BackboneWeightsError(f"Cannot read the weights {str(file)!r}: {reason[:300]}. {remedy}")


def _objects(file: Path, error: UnpicklingError) -> str:
    """Classes that a pickle would need, by their names; nothing where that is not what is wrong with it."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except _UNREADABLE:  # a file of an old format
        found = re.findall(r"GLOBAL ([\w.]+)", str(error))
    return ", ".join(sorted(found)[:5])
