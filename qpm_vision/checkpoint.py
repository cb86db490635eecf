"""A model in one safetensors file, with everything that is needed to use it again; nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from qpm_opt import InvalidInputError
from qpm_vision._forms import require_form
from qpm_vision._reading import parse_json, shortened
from qpm_vision._safetensors import read_safetensors
from qpm_vision._text import utf8
from qpm_vision._torch_state import plain_torch
from qpm_vision.backbones import RANDOM, Backbone, build_backbone
from qpm_vision.backbones.finite import not_finite
from qpm_vision.model import Classifier, DenseClassifier, QPMClassifier, SparseClassifier
from qpm_vision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CheckpointError",
    "ProtocolMismatchError",
    "load_checkpoint",
    "require_preprocessing",
    "save_checkpoint",
]

FORMAT = 1
_LARGEST = 1 << 13
_KEY = "qpm"
_FORM = {
    "kind": str,
    "backbone": (str, None),
    "backbone_description?": ({"adapter?": int, "frozen?": ({}, None)}, None),
    "n_classes": int,
    "n_select?": (int, None),
    "dropout?": (float, None),
    "preprocessing": {},
    "extra": {"class_names?": ([str], None)},
}
_UNBUILT = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ImportError, OverflowError, MemoryError)
"""What a description of another backbone may end in."""
_MOST_LISTED = 8
_SELECTED: dict[str, type[QPMClassifier | SparseClassifier]] = {"qpm": QPMClassifier, "sparse": SparseClassifier}
"""Models of selected features, by the kind that headers name."""


class CheckpointError(InvalidInputError):
    """A checkpoint cannot be read or written, or does not fit; the message names the file and the reason."""


class ProtocolMismatchError(InvalidInputError):
    """A model is to be used under another preprocessing than the one it was trained with."""


def save_checkpoint(
    path: str | os.PathLike[str],
    model: Classifier,
    preprocessing: Preprocessing,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model; the file is complete or, if anything goes wrong, what it was before.

    The header holds, as JSON under the key "qpm": the format's version, the kind of model, name, description and layer
    of the backbone, n_classes, class names, n_select and dropout where features are selected, preprocessing, and
    `extra`.

    Args:
        path: Where to; by custom with the suffix .safetensors.
        model: What to save.
        preprocessing: What it was trained with.
        extra: More to keep, of values that JSON can hold. "class_names", if there, must name each class.

    Returns:
        The path.

    Raises:
        InvalidInputError: `extra` cannot be written as JSON, or has another number of class names; or a tensor of the
            model is NaN or infinite.
        CheckpointError: The file cannot be written.
    """
    target = Path(path)
    amiss = not_finite(model.state_dict())
    if amiss is not None:
        raise InvalidInputError(
            f"The 'model' parameter must have finite tensors. Got {amiss}; train it again from weights before that. "
            f"{str(target)!r} is untouched."
        )
    header = _header(model, preprocessing, {} if extra is None else dict(extra))
    # Copies, because the format refuses tensors that share memory or are laid out channels last.
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        save_file(tensors, temporary, metadata={_KEY: header})
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _flush_folder(target.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Cannot write the checkpoint {str(target)!r}: {error}. Make room or choose another 'path'; what was there "
            "before is untouched."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target


@plain_torch()
def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    backbone: Backbone | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Classifier, Preprocessing, dict[str, Any]]:
    """Read a model that `save_checkpoint` wrote.

    Args:
        path: The file.
        backbone: Where the backbone is not registered: one of the same architecture, whose weights are replaced.
        device: Where to put the model.

    Returns:
        The model in evaluation mode, its preprocessing, and what was given as `extra`.

    Raises:
        CheckpointError: The file is missing, cut off, of another kind or format, or its tensors do not fit; the
            message lists those that are missing, unexpected or of another shape.
        InvalidInputError: The backbone is not registered here.
    """
    file = Path(path)
    header, tensors = _read(file)
    try:
        missing = [key for key in _FORM if not key.endswith("?") and key not in header]
        if missing:
            raise KeyError(missing[0])
        require_form(header, _FORM)
        preprocessing = Preprocessing.from_dict(header["preprocessing"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file, f"its header is incomplete ({shortened(error)})") from error
    _require_sizes(file, header, tensors)
    kind, n_classes, extra = (header[key] for key in ("kind", "n_classes", "extra"))
    if backbone is None:
        description = header.get("backbone_description")
        backbone = _named_backbone(file, header["backbone"], preprocessing.size, description)
    try:
        model = (
            DenseClassifier(backbone, n_classes)
            if kind == "dense"
            else _blank(kind, backbone, n_classes, header["n_select"], header["dropout"])
        )
    except (RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise _damaged(file, f"its header does not fit the backbone ({shortened(error)})") from error
    _fill(file, model, tensors)
    backbone.preprocessing = preprocessing
    model.to(device).eval()
    return model, preprocessing, extra


def require_preprocessing(expected: Preprocessing, given: Preprocessing) -> None:
    """Refuse to use a model under another preprocessing than its own.

    Args:
        expected: That of the checkpoint.
        given: That of the images.

    Raises:
        ProtocolMismatchError: They differ; lists how.
    """
    own, other = expected.to_dict(), given.to_dict()
    different = [f"{key}: {own[key]!r} ≠ {other[key]!r}" for key in own if own[key] != other[key]]
    if different:
        raise ProtocolMismatchError(
            "The 'preprocessing' parameter must be that of the model, because figures under another one mean nothing. "
            f"Got other values, model ≠ given: {'; '.join(different)}. Use the one that is kept with the model."
        )


# -- header --------------------------------------------------------------------------------------------------------


def _header(model: Classifier, preprocessing: Preprocessing, extra: dict[str, Any]) -> str:
    names = extra.get("class_names")
    if names is not None and len(names) != model.n_classes:
        raise InvalidInputError(
            f"The 'extra' parameter must have a name for each of the {model.n_classes} classes in 'class_names'. Got "
            f"{len(names)}."
        )
    selecting = model if isinstance(model, QPMClassifier | SparseClassifier) else None
    header = {
        "format": FORMAT,
        "kind": next((kind for kind, made in _SELECTED.items() if isinstance(model, made)), "dense"),
        "backbone": model.backbone.name,
        "backbone_description": model.backbone.description,
        "layer": model.backbone.layer,
        "n_classes": model.n_classes,
        "n_features": model.backbone.n_features,
        "class_names": None if names is None else list(names),
        "n_select": None if selecting is None else len(selecting.selected),
        "dropout": None if selecting is None else selecting.dropout.p,
        "preprocessing": preprocessing.to_dict(),
        "extra": extra,
    }
    try:
        return utf8(json.dumps(header, allow_nan=False, ensure_ascii=False)).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"The 'extra' parameter must hold values that JSON can hold: {error}. Turn arrays into lists first."
        ) from error


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        metadata, tensors = read_safetensors(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no checkpoint {str(file)!r}. Give the path of one, or train first.") from error
    except (ValueError, OSError) as error:
        raise _damaged(file, shortened(error)) from error
    if _KEY not in metadata:
        raise _damaged(file, f"it was not written by this package, for it lacks the header {_KEY!r}")
    try:
        header = parse_json(metadata[_KEY])
    except ValueError as error:
        raise _damaged(file, f"its header is malformed: {shortened(error)}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        version = header.get("format") if isinstance(header, dict) else None
        raise CheckpointError(
            f"The checkpoint {str(file)!r} must have format {FORMAT}. Got {shortened(repr(version))}; read it with the "
            "release of this package that wrote it."
        )
    return header, tensors


def _require_sizes(file: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise where the header names sizes that the tensors do not have: a model that large would not fit in memory."""
    kind, n_classes, n_select = header["kind"], header["n_classes"], header.get("n_select")
    if kind != "dense" and kind not in _SELECTED:
        raise _damaged(file, f"its header names an unknown kind of model ({kind!r})")
    name, features = ("head.weight", header.get("n_features")) if kind == "dense" else ("weight", n_select)
    wanted = {name: (n_classes, features)} | ({} if kind == "dense" else {"selected": (n_select,)})
    for name, shape in reversed(wanted.items()):
        found = tensors.get(name)
        if found is not None and tuple(found.shape) != shape:
            expected = f"{str(found.dtype).removeprefix('torch.')} {shape}"
            raise _damaged(file, f"its header does not fit: {name!r} is {_described(found)} instead of {expected}")
    names = header["extra"].get("class_names")
    if names is not None and not len(names) == len(set(names)) == n_classes:
        raise _damaged(file, f"its header does not fit: it must have different names for its {n_classes} classes")
    adapter = (header.get("backbone_description") or {}).get("adapter")
    if adapter is not None and not any(adapter in tensor.shape for tensor in tensors.values()):
        raise _damaged(file, f"its header does not fit: no tensor is of an adapter of {adapter} features")
    if name not in tensors:
        raise _damaged(file, f"it does not hold a {kind} model: missing {name!r}")


# -- model ---------------------------------------------------------------------------------------------------------


def _named_backbone(file: Path, name: Any, size: int, description: Any) -> Backbone:
    if name is None:
        raise CheckpointError(
            f"The checkpoint {str(file)!r} holds a model with a backbone that has no name. Pass one of the same "
            "architecture: load_checkpoint(path, backbone=…)."
        )
    try:
        # A size that no image has is that of a damaged header, and no network is to be made for it.
        return build_backbone(name, weights=RANDOM, size=size if size <= _LARGEST else None, description=description)
    except (InvalidInputError, *_UNBUILT) as error:
        raise CheckpointError(
            f"The checkpoint {str(file)!r} needs its backbone. {error} Or pass one: load_checkpoint(path, backbone=…)."
        ) from error


def _blank(
    kind: str, backbone: Backbone, n_classes: int, n_select: int, dropout: float
) -> QPMClassifier | SparseClassifier:
    selected, weights = torch.arange(n_select), torch.zeros(n_classes, n_select)
    mean, std = torch.zeros(n_select), torch.ones(n_select)
    if kind == "qpm":
        return QPMClassifier(backbone, selected, weights, mean, std, dropout)
    return SparseClassifier(backbone, selected, weights, torch.zeros(n_classes), mean, std, dropout)


def _fill(file: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    wanted = model.state_dict()
    problems = [
        *(f"missing {name!r}" for name in wanted if name not in tensors),
        *(f"unexpected {name!r}" for name in tensors if name not in wanted),
        *(
            f"{name!r} is {_described(tensors[name])} instead of {_described(wanted[name])}"
            for name in wanted
            if name in tensors and _described(tensors[name]) != _described(wanted[name])
        ),
    ]
    if problems:
        if len(problems) > _MOST_LISTED:
            problems[_MOST_LISTED:] = [f"and {len(problems) - _MOST_LISTED} more"]
        raise CheckpointError(
            f"The checkpoint {str(file)!r} must fit the {type(model).__name__} that it names: {'; '.join(problems)}. "
            "Use the backbone that it was made with."
        )
    amiss = not_finite(tensors)
    if amiss is not None:
        raise _damaged(file, f"there are {amiss}, which must be finite")
    model.load_state_dict(tensors)
    if isinstance(model, QPMClassifier | SparseClassifier):
        try:
            model.validate()
        except InvalidInputError as error:
            raise _damaged(file, str(error)) from error


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _damaged(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"Cannot use the checkpoint {str(file)!r}: {reason}. Restore it, or train again.")


# -- files ---------------------------------------------------------------------------------------------------------


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
