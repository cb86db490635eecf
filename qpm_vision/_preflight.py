"""What can be known to fail before hours of training, and whether a run goes on with what it was begun with."""

from __future__ import annotations

import math
from typing import Any

import torch

from qpm_opt import InvalidInputError, backend_version
from qpm_vision._data_identity import identity_differences, read_identity
from qpm_vision._epoch_log import require_epoch_log
from qpm_vision.backbones import build_backbone, load_head
from qpm_vision.backbones.trial import try_out
from qpm_vision.config import RunConfig
from qpm_vision.data import ImageData
from qpm_vision.distributed import has_gpu, local_rank
from qpm_vision.run_folder import STAGES, RunFolder

__all__ = [
    "pick_device",
    "refuse_changed_data",
    "refuse_few_sets",
    "refuse_misfit",
    "refuse_other_classes",
    "refuse_other_cropping",
    "refuse_solving_steered",
]


def refuse_solving_steered(place: RunFolder, redo: str | None) -> None:
    """Raise where the features of a steered run would be chosen anew, without its steering."""
    chosen = STAGES[: STAGES.index("assignment") + 1]
    if place.is_steered and (redo in chosen or "assignment" not in place.stages()):
        raise InvalidInputError(
            f"The features of the run in {str(place.path)!r} come from steering another run, and its stages "
            f"{', '.join(chosen)} are not done again. Use `qpm-vision steer` to make or to change the choice."
        )


def refuse_changed_data(place: RunFolder, source: str, identity: dict[str, Any]) -> None:
    """Raise where a run was begun with other images, classes or another split."""
    changed = identity_differences(read_identity(place), identity)
    if changed:
        raise InvalidInputError(
            f"The data {source!r} have changed since the run in {str(place.path)!r} was begun ({changed}). "
            "Restore them, or use a new folder."
        )


def refuse_misfit(config: RunConfig, data: ImageData, *, trained: bool) -> None:
    """Raise where configuration, data, backbone, solver and machine do not fit together.

    Once the dense model is trained, the backbone is the one in its checkpoint, and its files may be gone.
    """
    n_classes = len(data.class_names)
    if n_classes < 2:
        raise InvalidInputError(f"The data {config.data!r} must have at least 2 classes. Got {n_classes}.")
    for name, images in (("training", data.train), ("test", data.test)):
        if not len(images):
            raise InvalidInputError(
                f"The data {config.data!r} must have {name} images. Got none; change 'test_share' or add images."
            )
    if config.validation_share and data.validation is None:
        raise InvalidInputError(
            "The 'data' parameter must hold images for validation where 'validation_share' is above 0. Got none; set "
            "ImageData.validation, or let `config.data` name the data."
        )
    refuse_few_sets(config.n_select, config.n_per_class, n_classes)
    device = pick_device(config.device)
    if config.tensorboard:
        require_epoch_log()
    if config.solver != "auto":
        backend_version(config.solver)
    if trained:
        return
    backbone = build_backbone(config.backbone, weights=config.weights, size=config.size, adapter=config.adapter)
    if not config.dense.epochs:
        load_head(torch.nn.Linear(backbone.n_features, n_classes), config.backbone, config.weights)
    if config.n_select > backbone.n_features:
        raise InvalidInputError(
            f"The 'n_select' parameter must be at most the {backbone.n_features} features of the "
            + (f"backbone {config.backbone!r}" if config.adapter is None else "adapter")
            + f". Got {config.n_select}."
        )
    size = config.size or backbone.preprocessing.size
    if size < backbone.least_size:
        raise InvalidInputError(
            f"The 'size' parameter must be at least {backbone.least_size} pixels for the backbone {config.backbone!r}. "
            f"Got {size}."
        )
    try_out(backbone, size, device)


def refuse_few_sets(n_select: int, n_per_class: int, n_classes: int) -> None:
    """Raise where there are not as many sets of features as classes."""
    sets = math.comb(n_select, n_per_class)
    if sets < n_classes:
        raise InvalidInputError(
            f"The 'n_select' parameter must allow a different set of features for each of the {n_classes} classes. "
            f"Got {n_select}, which has only {sets} sets of n_per_class = {n_per_class}; raise n_select."
        )


def refuse_other_classes(known: tuple[str, ...], given: tuple[str, ...]) -> None:
    """Raise where the classes of images are not those of a model."""
    if known == given:
        return
    missing = [name for name in known if name not in given][:5]
    foreign = [name for name in given if name not in known][:5]
    parts = [f"{what} {', '.join(names)}" for what, names in (("without", missing), ("with", foreign)) if names] or [
        "in another order"
    ]
    raise InvalidInputError(
        f"The 'data' must have the {len(known)} classes that the model knows, in their order. Got {len(given)} "
        f"classes, {' and '.join(parts)}; name and sort them like those of the run."
    )


def refuse_other_cropping(known: str | None, given: str | None) -> None:
    """Raise where images are known to be cropped in another way than those that a model was trained on."""
    if known is not None and given is not None and known != given:
        raise InvalidInputError(
            f"The 'data' must show the same part of a photograph as those of the run, {known!r}. Got {given!r}, on "
            "which its accuracy would be that of another task; choose between names such as 'cub' and 'cub-cropped'."
        )


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first of CUDA, MPS and CPU that is there.

    Raises:
        InvalidInputError: There is no such device.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available() and not has_gpu():
        raise InvalidInputError(
            f"The 'device' parameter must leave a GPU to each of the processes that work on this machine. Got {name!r} "
            f"for process {local_rank() + 1} on a machine with {torch.cuda.device_count()} GPUs; start as many "
            "processes as there are GPUs, or name what it is to use: 'cuda:0', 'cpu', …"
        )
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInputError(
            f"The 'device' parameter must name a device of this machine, such as 'cpu'. Got {name!r} ({reason}); "
            "'auto' picks one that works."
        ) from error
    return device
