"""Vision models of the transformers library, from a folder on this machine."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import (
    Backbone,
    BackboneUnavailableError,
    FoldedNetwork,
    evaluation_mode,
    with_first_accepted,
)
from qpm_vision.backbones.sizes import size_refused
from qpm_vision.backbones.tokens import as_maps
from qpm_vision.backbones.weights import BackboneWeightsError
from qpm_vision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["build_transformers", "read_transformers_folder"]

_CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_ARGUMENTS = ({"add_pooling_layer": False},)
"""Leaves out the pooling behind the maps where the network has a choice."""

_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def read_transformers_folder(folder: Path) -> dict[str, Any]:
    """What decides a model but its weights: its configuration and its preprocessing, as JSON has them.

    Args:
        folder: As the library saves it, with config.json and preprocessor_config.json.

    Raises:
        InvalidInputError: A file is missing or damaged.
    """
    return {"config": _json(folder, _CONFIG), "preprocessor": _json(folder, _PREPROCESSOR)}


def build_transformers(
    described: Mapping[str, Any], folder: Path | None = None, *, size: int | None = None
) -> Backbone:
    """A model up to its last maps, which for a transformer are its patch tokens.

    Of a model of images and texts it is the part for images.

    Args:
        described: What `read_transformers_folder` gives.
        folder: Where its weights lie; None: they are random.
        size: Side of the images; None: that of the preprocessing in the folder.

    Raises:
        BackboneUnavailableError: transformers is not installed.
        BackboneWeightsError: The folder has no weights, or some of them are missing.
        InvalidInputError: The configuration is that of no vision model, or says no preprocessing; or the model gives no
            maps, or not of images of this size, where sizes that it can take are named.
    """
    from qpm_vision import _torchvision  # noqa: F401  (first: transformers imports torchvision)

    try:
        from transformers import AutoConfig
    except ModuleNotFoundError as error:
        raise BackboneUnavailableError(
            f"A backbone 'hf:…' needs transformers; {error.name!r} is not installed: pip install transformers"
        ) from error
    values = dict(described["config"])
    if "model_type" not in values and isinstance(values.get("architecture"), str):
        raise InvalidInputError(
            "The configuration of the backbone must be that of the transformers library. Got one of timm; give the "
            f"backbone 'timm:{values['architecture']}' and its file of weights."
        )
    try:
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        config = getattr(config, "vision_config", config)
        network = with_first_accepted(partial(_network, config, folder), _ARGUMENTS)
    except BackboneWeightsError:
        raise
    except Exception as error:  # of the library, which checks configurations in ways of its own
        raise InvalidInputError(
            "The configuration of the backbone must be that of a vision model which transformers knows. Got "
            f"{' '.join(str(error).split())[:300] or type(error).__name__}; check config.json."
        ) from error
    own = _preprocessing(described["preprocessor"], described["config"])
    maps = _TransformersMaps(network)
    side = own.size if size is None else size
    try:
        return Backbone(maps, preprocessing=replace(own, size=side), description=dict(described))
    except InvalidInputError as error:
        name = f"hf:{folder or config.model_type}"
        reason = str(error.__cause__ or error)
        made_for = _sides(getattr(config, "image_size", None))[0]
        for other in (own.size, made_for):
            if isinstance(other, int) and other != side and _works(maps, other):
                raise size_refused(name, side, other, reason, partial(_works, maps)) from error
        raise InvalidInputError(
            f"The backbone {name!r} must give maps or patch tokens of images. Got none: {reason.rstrip('.')}. Choose a "
            "folder with a model of images, or wrap it in a builder of your own, my.module:build."
        ) from error


def _network(config: Any, folder: Path | None, **arguments: Any) -> Any:
    from transformers import AutoModel

    if folder is None:
        return AutoModel.from_config(config, **arguments)
    try:
        network, loaded = AutoModel.from_pretrained(
            folder, config=config, local_files_only=True, output_loading_info=True, **arguments
        )
    except (OSError, RuntimeError) as error:
        raise BackboneWeightsError(
            f"The folder {str(folder)!r} must hold the weights of its model. Got: "
            f"{' '.join(str(error).split())[:300]}; add model.safetensors, or give weights='random'."
        ) from error
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise BackboneWeightsError(
            f"The weights in {str(folder)!r} must fit the network of config.json. Missing: {', '.join(missing)}. Take "
            "both files from the same model."
        )
    return network


class _TransformersMaps(FoldedNetwork):
    """The last hidden state as maps (B, n_features, h, w)."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        accepted = inspect.signature(network.forward).parameters
        self.interpolates = "interpolate_pos_encoding" in accepted
        self.masks = "noise" in accepted and hasattr(network.config, "mask_ratio")
        if self.masks:  # a masked autoencoder, which shall see the whole image
            network.config.mask_ratio = 0.0

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.network
        config, (height, width) = network.config, images.shape[2:]
        options: dict[str, Any] = {}
        if self.interpolates and [height, width] != _sides(getattr(config, "image_size", None)):
            options["interpolate_pos_encoding"] = True
        if self.masks:  # patches are sorted by the noise
            down, across = _sides(config.patch_size)
            count = (height // down) * (width // across)
            options["noise"] = torch.arange(count, device=images.device).expand(len(images), -1)
        output = network(pixel_values=images, **options)
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is None and getattr(output, "feature_maps", None):
            hidden = output.feature_maps[-1]
        # What a decoder asks for, such as boxes, has no places of its own.
        if isinstance(hidden, Tensor) and getattr(output, "encoder_last_hidden_state", None) is None:
            behind = getattr(config, "num_detection_tokens", 0) or 0
            kept = hidden[:, : hidden.shape[1] - behind] if hidden.ndim == 3 else hidden
            maps = as_maps(kept, (height, width), n_features=_width(config), leading=_leading(config))
            if maps is not None:
                return maps
        form = f"shape {tuple(hidden.shape)}" if isinstance(hidden, Tensor) else f"a {type(output).__name__}"
        raise InvalidInputError(
            f"the {type(network).__name__} of transformers must give maps or patch tokens of images of {height} × "
            f"{width} pixels, but gives {form}"
        )


def _sides(size: Any) -> list[Any]:
    """Height and width, which configurations have as one number or as two."""
    return list(size) if isinstance(size, list | tuple) else [size, size]


def _leading(config: Any) -> tuple[int, ...]:
    """Numbers of tokens that may stand in front of those of patches."""
    registers = getattr(config, "num_register_tokens", 0) or 0
    whole = getattr(config, "n_cls_tokens", None)
    if whole:
        return (registers + whole,)
    return (registers + 1, registers) if registers else (0, 1, 2)


def _width(config: Any) -> int | None:
    """Channels of the last hidden state, where the configuration says so."""
    width = getattr(config, "hidden_size", None)
    return width if isinstance(width, int) else None


def _works(maps: _TransformersMaps, size: int) -> bool:
    try:
        with evaluation_mode(maps), torch.no_grad():
            maps(torch.zeros(1, 3, size, size))
    except Exception:  # noqa: BLE001  (of the library, of any kind)
        return False
    return True


def _preprocessing(values: Mapping[str, Any], config: Mapping[str, Any]) -> Preprocessing:
    """The settings of an image processor: size or crop, normalisation, interpolation."""
    resized, cut = _side(values.get("size")), _side(values.get("crop_size"))
    cropped = values.get("do_center_crop", cut is not None) and cut is not None
    size = cut if cropped else resized or config.get("image_size")
    share = float(values.get("crop_pct") or 1.0)
    if cropped and resized and cut:
        share = min(1.0, cut / resized)
    normalised = values.get("do_normalize", True)
    if not isinstance(size, int) or (normalised and ("image_mean" not in values or "image_std" not in values)):
        raise InvalidInputError(
            f"The file {_PREPROCESSOR} must say size or crop_size, image_mean and image_std. Got "
            f"{sorted(values)}; take the file that belongs to the weights."
        )
    return Preprocessing(
        size,
        mean=tuple(values["image_mean"]) if normalised else (0.0,) * 3,
        std=tuple(values["image_std"]) if normalised else (1.0,) * 3,
        interpolation=_INTERPOLATIONS.get(values.get("resample", 2), "bilinear"),
        crop=share,
    )


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) else None


def _json(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"The folder of a backbone 'hf:DIR' must hold {_CONFIG} and {_PREPROCESSOR}. There is no {str(file)!r}; "
            "take all files of the model, nothing is downloaded."
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"Cannot read {str(file)!r}: {error}. Take the file of the model anew.") from error
    if not isinstance(values, dict):
        raise InvalidInputError(f"The file {str(file)!r} must hold keys and values. Got a {type(values).__name__}.")
    return values
