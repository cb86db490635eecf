"""Weights from a file or a folder on this machine, whatever the names in it begin with."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from qpm_vision.backbones.finite import not_finite
from qpm_vision.backbones.weight_files import BackboneWeightsError, listed, read_weights

__all__ = ["BackboneWeightsError", "Conversion", "load_head", "load_weights"]

Conversion: TypeAlias = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""Makes of the tensors of a published file those of a network, where their names or sizes differ."""

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_COUNTER = "num_batches_tracked"
_AVERAGED = re.compile(r"(^|[._])(ema|teacher)([._]|$)")
"""Parts that hold an average over the training, which is what such trainings are evaluated with."""

_log = logging.getLogger(__name__)


def load_weights(network: nn.Module, path: str | os.PathLike[str], convert: Conversion | None = None) -> None:
    """Fill a network with weights; either all of its tensors fit, or none is changed.

    The tensors may lie in dictionaries and lists of any names ("state_dict", "model", …), beside others, and their
    names may have a prefix more or less than those of the network ("module.", "backbone.", …): the part of the file is
    taken that has most tensors of the right names and shapes. Of two that fit equally well, such as "model" and
    "model_ema", or "student" and "teacher", it is the one with the average over the training, or else the first one.
    What the file holds and what is taken of it is told in the log, and where it does not fit. Tensors that the network
    has no place for, such as those of a classifier, are named in the log. The counters of batch normalisation may be
    missing: they influence nothing.

    Args:
        network: What to fill.
        path: A file (.safetensors, or .pth, .pt, .bin, .ckpt without pickled objects), or a folder that holds one.
        convert: Tried where the tensors do not fit as they are.

    Raises:
        BackboneWeightsError: There is no such file, it cannot be read, or a tensor is missing, of another shape, NaN or
            infinite.
    """
    file = _file_of(Path(path).expanduser())
    wanted = network.state_dict()
    content = read_weights(file)
    part = _best_part(content.tensors, wanted)
    given: Mapping[str, Tensor] = part.tensors
    problems = _problems(given, wanted)
    if problems and convert is not None and (converted := _converted(convert, part.tensors, wanted)) is not None:
        given, problems = converted, []
    if problems:
        raise BackboneWeightsError(
            f"The weights in {str(file)!r} must fit the network, {len(wanted)} tensors. Got {content.contents}. "
            f"{f'Under {part.path!r}' if part.path else 'Of these'}, {part.named} have names of the network, and "
            f"{part.shaped} of them its shapes; {len(problems)} amiss: {listed(problems)}. Use the weights of this "
            "architecture."
        )
    _require_finite(file, given, wanted)
    left = [name for name in given if name not in wanted]
    _log.info("%s: %s; %d tensors taken, under %r", file, content.contents, len(given) - len(left), part.path)
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
        BackboneWeightsError: There is no file, or not exactly one matrix of the shape of the layer in it, or it is not
            finite.
    """
    folder = backbone.removeprefix("hf:") if weights is None and backbone.startswith("hf:") else weights
    wanted = tuple(head.weight.shape)
    if folder is None or folder == "random":
        raise BackboneWeightsError(
            f"The 'weights' parameter must name a file with a classifier of shape {wanted} where the dense model is "
            f"not trained (0 epochs). Got {folder!r}; name a file, or train the dense model."
        )
    file = _file_of(Path(folder).expanduser())
    content = read_weights(file)
    given = content.tensors
    found = [name for name, tensor in given.items() if tuple(tensor.shape) == wanted and name.endswith("weight")]
    # The same classifier in several parts: that of the part whose weights the backbone has.
    keys, places = {content.keys[name] for name in found}, {name.removesuffix(content.keys[name]) for name in found}
    if len(keys) == 1 and len(places) == len(found):
        found = sorted(found, key=lambda name: not _AVERAGED.search(name))[:1]
    if len(found) != 1:
        raise BackboneWeightsError(
            f"The weights in {str(file)!r} must hold one classifier of shape {wanted}, classes × features, where the "
            f"dense model is not trained (0 epochs). Got {listed(found) or f'none in {content.contents}'}; use the "
            "weights of a network that was trained on these classes, or train the dense model."
        )
    bias = given.get(found[0].removesuffix("weight") + "bias", torch.zeros(wanted[0]))
    state = {"weight": given[found[0]], "bias": bias}
    _require_finite(file, state, {})
    head.load_state_dict(state)


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
            f"{listed([file.name for file in best]) or 'none'}; name the file itself."
        )
    return best[0]


# -- the part that fits --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Tensors under one path of a file, called as in the network.

    Attributes:
        path: What their names begin with in the file beyond the network's.
        tensors: Their new names and themselves, those included that the network has no place for.
        named: How many have a name of the network, counters aside.
        shaped: How many of these have its shape too.
    """

    path: str
    tensors: dict[str, Tensor]
    named: int
    shaped: int


def _best_part(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> _Part:
    """The part with most tensors of the right name and shape; of equal ones an average, then the first one."""
    named, shaped = _votes(given, wanted)
    if not named:
        return _Part("", dict(given), 0, 0)
    # A maximum is the first of equals, and the votes are in the order of the file.
    path, added = max(named, key=lambda pair: (shaped[pair], named[pair], bool(_AVERAGED.search(pair[0]))))
    tensors = {added + name.removeprefix(path): tensor for name, tensor in given.items() if name.startswith(path)}
    return _Part(path, tensors, named[path, added], shaped[path, added])


def _votes(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """How many tensors fit by name, and by shape too, for prefixes that names lose and gain on the way here."""
    named: Counter[tuple[str, str]] = Counter()
    shaped: Counter[tuple[str, str]] = Counter()
    names = [name for name in wanted if not name.endswith(_COUNTER)]
    for added in _common_prefixes(names):
        shapes = {name.removeprefix(added): wanted[name].shape for name in names}
        for name, tensor in given.items():
            for begin in _beginnings(name):
                shape = shapes.get(name[begin:])
                if shape is not None:
                    named[name[:begin], added] += 1
                    shaped[name[:begin], added] += shape == tensor.shape
    return named, shaped


def _beginnings(name: str) -> list[int]:
    """Where a name without some of its first parts begins."""
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]


def _common_prefixes(names: list[str]) -> list[str]:
    """What all names begin with, part by part, from nothing on."""
    common: list[str] = []
    for column in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(column)) > 1:
            break
        common.append(f"{column[0]}.")
    return list(accumulate(common, initial=""))


def _problems(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    missing = [f"missing {name!r}" for name in wanted if name not in given and not name.endswith(_COUNTER)]
    misshapen = []
    for name, tensor in wanted.items():
        other = given.get(name)
        if other is None:
            continue
        if other.shape != tensor.shape:
            misshapen.append(f"{name!r} is {tuple(other.shape)} instead of {tuple(tensor.shape)}")
        elif other.layout != torch.strided or other.is_meta or other.is_quantized:
            misshapen.append(f"{name!r} is not stored number by number (sparse, quantised or without values)")
        elif other.is_floating_point() != tensor.is_floating_point():
            misshapen.append(f"{name!r} is {other.dtype} instead of {tensor.dtype}")
    return missing + misshapen


def _converted(
    convert: Conversion, given: dict[str, Tensor], wanted: Mapping[str, Tensor]
) -> Mapping[str, Tensor] | None:
    """What a conversion makes that fits; None where it fails, as one may on weights of something else."""
    try:
        made = convert(dict(given))
    except Exception:  # noqa: BLE001  (of another library, on tensors of any kind)
        _log.debug("the weights cannot be converted", exc_info=True)
        return None
    return None if _problems(made, wanted) else made


def _require_finite(file: Path, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise where a tensor is not finite; infinity in a mask that the fresh network has as well is no fault."""
    masks = {name for name, tensor in wanted.items() if not_finite({name: tensor}) is not None}
    taken = {name: tensor for name, tensor in given.items() if not wanted or name in wanted.keys() - masks}
    found = not_finite(taken)
    if found is not None:
        raise BackboneWeightsError(
            f"The weights in {str(file)!r} must be finite. Got {found}; fetch the file again, or take a state from "
            "before the training diverged."
        )
