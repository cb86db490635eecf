"""Pictures straight from a run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from qpm_opt import InvalidInputError
from qpm_vision._data_identity import data_identity, identity_differences
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.config import RunConfig
from qpm_vision.data import ImageData, load_data
from qpm_vision.explain.explainer import Explainer
from qpm_vision.explain.gallery import Gallery
from qpm_vision.explain.pictures import draw_class, draw_comparison, draw_overview
from qpm_vision.feature_names import feature_names
from qpm_vision.model import QPMClassifier
from qpm_vision.run_folder import RunFolder, RunFolderError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["load_explainer", "plot_class", "plot_comparison", "plot_overview"]

Run = Explainer | RunFolder | str | os.PathLike[str]


def load_explainer(
    run: RunFolder | str | os.PathLike[str],
    *,
    data: ImageData | None = None,
    device: torch.device | str = "cpu",
) -> Explainer:
    """Load what pictures need from a finished run.

    Args:
        run: The run folder.
        data: Its data; loaded again by default, which needs them at the same place.
        device: Where to compute.

    Raises:
        RunFolderError: The run is not finished, or its files are damaged.
        InvalidInputError: The data have changed since.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    folder.require("explanation", "is not finished")
    config = RunConfig.from_dict(folder.config())
    images = load_data(config.data, **config.division) if data is None else data
    changed = identity_differences(folder.read_json("data.json"), data_identity(images))
    if changed:
        raise InvalidInputError(
            f"The data {config.data!r} have changed since the run in {str(folder.path)!r} was made ({changed}). "
            "Restore them, or run again in a new folder."
        )
    model, preprocessing, _ = load_checkpoint(folder.path / "qpm.safetensors")
    if not isinstance(model, QPMClassifier):
        raise RunFolderError(f"The file {str(folder.path / 'qpm.safetensors')!r} holds no interpretable model.")
    gallery = Gallery.from_arrays(folder.read_npz("gallery.npz"))
    names = feature_names(folder)
    return Explainer(model, images.train, preprocessing, gallery, images.class_names, device, names)


def plot_class(run: Run, class_: str | int, fig: Figure | None = None) -> tuple[Figure, npt.NDArray[Any]]:
    """Draw the features of one class: on its best training images, and in the classes that share them.

    Args:
        run: A run folder or an `Explainer`.
        class_: Name or position of the class.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, a row for each feature under a row for the plain images.
    """
    return draw_class(_explainer(run), class_, fig)


def plot_comparison(
    run: Run, first: str | int, second: str | int, fig: Figure | None = None
) -> tuple[Figure, npt.NDArray[Any]]:
    """Draw what two classes share and what tells them apart.

    Args:
        run: A run folder or an `Explainer`.
        first: Name or position of a class.
        second: Name or position of another class.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, a row for each feature under a row for the plain images.
    """
    return draw_comparison(_explainer(run), first, second, fig)


def plot_overview(
    run: Run, classes: Sequence[str | int] | None = None, fig: Figure | None = None
) -> tuple[Figure, npt.NDArray[Any]]:
    """Draw several classes, a row each, with all their features.

    Args:
        run: A run folder or an `Explainer`.
        classes: Names or positions; by default a few that share features with each other.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, a row for each class.
    """
    return draw_overview(_explainer(run), classes, fig)


def _explainer(run: Run) -> Explainer:
    return run if isinstance(run, Explainer) else load_explainer(run)
