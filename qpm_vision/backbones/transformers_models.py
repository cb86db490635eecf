"""Vision models of the transformers library, from a folder on this machine."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import Backbone, BackboneUnavailableError, FoldedNetwork, with_first_accepted
from qpm_vision.backbones.tokens import fold_tokens
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


def build_transformers(described: Mapping[str, Any], folder: Path | None = None) -> Backbone:
    """A model up to its last maps, which for a transformer are its patch tokens.

    Args:
        described: What `read_transformers_folder` gives.
        folder: Where its weights lie; None: they are random.

    Raises:
        BackboneUnavailableError: transformers is not installed.
        BackboneWeightsError: The folder has no weights, or some of them are missing.
        InvalidInputError: The configuration is that of no vision model, or says no preprocessing.
    """
    from qpm_vision import _torchvision  # noqa: F401  (first: transformers imports torchvision)

    try:
        from transformers import AutoConfig
    except ModuleNotFoundError as error:
        raise BackboneUnavailableError(
            f"A backbone 'hf:…' needs transformers; {error.name!r} is not installed: pip install transformers"
        ) from error
    values = dict(described["config"])
    try:
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        network = with_first_accepted(partial(_network, config, folder), _ARGUMENTS)
    except BackboneWeightsError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            "The configuration of the backbone must be that of a vision model which transformers knows. Got "
            f"{' '.join(str(error).split())[:300]}; check config.json."
        ) from error
    preprocessing = _preprocessing(described["preprocessor"], described["config"])
    return Backbone(_TransformersMaps(network), preprocessing=preprocessing, description=dict(described))


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

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.network
        hidden: Tensor = network(pixel_values=images).last_hidden_state
        if hidden.ndim != 3:
            return hidden
        stride = _patch_stride(network.config)
        return fold_tokens(hidden, *(-(-side // stride) for side in images.shape[2:]))


def _patch_stride(config: Any) -> int:
    """Pixels from one token to the next: the patch, halved again behind every stage of a hierarchical network."""
    stages = getattr(config, "depths", None)
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, list | tuple):
        patch = patch[0]
    if not isinstance(patch, int):
        raise InvalidInputError(
            f"The configuration of the backbone must have a 'patch_size', because it gives tokens. Got {patch!r}."
        )
    return patch * 2 ** (len(stages) - 1) if stages else patch


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
