"""Pictures straight from a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt
import torch

from qpm_opt import Assignment, InvalidInputError
from qpm_vision._data_identity import data_identity, identity_differences, read_identity
from qpm_vision._torch_state import plain_torch
from qpm_vision._work import read_problem
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.config import RunConfig
from qpm_vision.data import ImageData, load_data
from qpm_vision.explain.candidates import Candidates
from qpm_vision.explain.explainer import Explainer
from qpm_vision.explain.feature import draw_feature
from qpm_vision.explain.gallery import read_gallery
from qpm_vision.explain.matrix import draw_matrix
from qpm_vision.explain.pictures import draw_class, draw_comparison, draw_overview
from qpm_vision.feature_names import feature_names
from qpm_vision.model import DenseClassifier, QPMClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.run_folder import RunFolder, RunFolderError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from qpm_vision._image_input import ImageInput
    from qpm_vision.predict import Predictor

__all__ = [
    "load_candidates",
    "load_explainer",
    "plot_candidate",
    "plot_class",
    "plot_comparison",
    "plot_feature",
    "plot_image",
    "plot_matrix",
    "plot_overview",
]

Model = TypeVar("Model", DenseClassifier, QPMClassifier)
Run = Explainer | RunFolder | str | os.PathLike[str]


@plain_torch()
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
    folder = RunFolder.open(run)
    folder.require("explanation", "is not finished")
    images = _data_of(folder, data)
    model, preprocessing = _model_of(folder, "qpm.safetensors", QPMClassifier, "interpretable")
    gallery = read_gallery(folder, n_classes=model.n_classes, n_select=len(model.selected))
    names = feature_names(folder)
    return Explainer(model, images.train, preprocessing, gallery, images.class_names, device, names)


@plain_torch()
def load_candidates(run: RunFolder | str | os.PathLike[str], *, data: ImageData | None = None) -> Candidates:
    """Load what pictures of any feature need, also of those that a run does not keep.

    Args:
        run: The run folder.
        data: Its data; loaded again by default, which needs them at the same place.

    Raises:
        RunFolderError: The run has no features yet, or its files are damaged.
        InvalidInputError: The data have changed since.
    """
    folder = RunFolder.open(run)
    folder.require("assignment", "has no assignment")
    images = _data_of(folder, data)
    model, preprocessing = _model_of(folder, "dense.safetensors", DenseClassifier, "dense")
    similarity = read_problem(folder).class_similarity
    return Candidates(model.eval(), images.train, preprocessing, similarity, images.class_names)


def _data_of(folder: RunFolder, data: ImageData | None) -> ImageData:
    """The data of a run, which must be what they were."""
    config = RunConfig.of(folder)
    images = load_data(config.data, **config.division) if data is None else data
    changed = identity_differences(read_identity(folder), data_identity(images))
    if changed:
        raise InvalidInputError(
            f"The data {config.data!r} have changed since the run in {str(folder.path)!r} was made ({changed}). "
            "Restore them, or run again in a new folder."
        )
    return images


def _model_of(folder: RunFolder, name: str, kind: type[Model], called: str) -> tuple[Model, Preprocessing]:
    """A model of a run, which must be of that kind, and its preprocessing."""
    model, preprocessing, _ = load_checkpoint(folder.path / name)
    if not isinstance(model, kind):
        raise RunFolderError(f"The file {str(folder.path / name)!r} holds no {called} model.")
    return model, preprocessing


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


def plot_feature(run: Run, feature: int, fig: Figure | None = None) -> tuple[Figure, npt.NDArray[Any]]:
    """Draw one feature: where it is in the classes that it describes, in which others it is strong, its distribution.

    Args:
        run: A run folder or an `Explainer`.
        feature: Its number in the backbone, as pictures and tables have it.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes in one row, the images first.
    """
    return draw_feature(_explainer(run), feature, fig)


def plot_candidate(
    run: Candidates | RunFolder | str | os.PathLike[str], feature: int, fig: Figure | None = None
) -> tuple[Figure, npt.NDArray[Any]]:
    """Draw any feature of the backbone, kept or not, as it is before fine-tuning: what a steering would bring in.

    Args:
        run: A run folder or `Candidates`.
        feature: Its number in the backbone.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes in one row, an image each of the classes that the feature is most similar to.
    """
    return (run if isinstance(run, Candidates) else load_candidates(run)).draw(feature, fig)


def plot_image(run: Predictor | Run, image: ImageInput, fig: Figure | None = None) -> tuple[Figure, npt.NDArray[Any]]:
    """Draw why an image gets its class and not the next one: the features of both on it, and what each adds.

    Args:
        run: A run folder, whose data are not needed, an `Explainer`, or what `load_model` gave.
        image: One image, as for `Predictor.explain`.
        fig: Where to draw; a new figure by default.

    Returns:
        The figure and its axes, a row for the predicted class and one for the runner-up.
    """
    # Here, because using a model draws with this package.
    from qpm_vision.predict import Predictor, load_model

    if isinstance(run, Explainer):
        run = Predictor(run.model, run.preprocessing, run.class_names, run.gallery)
    predictor = run if isinstance(run, Predictor) else load_model(run)
    return predictor.explain(image).plot(fig)


def plot_matrix(run: Assignment | Run, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw which class has which feature, with similar classes beside each other.

    Args:
        run: A run folder, whose data are not needed, an `Explainer` or an `Assignment`.
        ax: Where to draw; a new figure by default.

    Returns:
        The figure and its axes.
    """
    if isinstance(run, Explainer):
        return draw_matrix(run.weights, run.class_names, _named(run.selected.tolist(), run.feature_names), ax)
    names: dict[int, str] = {}
    if not isinstance(run, Assignment):
        folder = RunFolder.open(run)
        folder.require("assignment", "has no assignment")
        names = feature_names(folder)
        run = Assignment.load(folder.path / "assignment.npz")
    frame = run.to_frame()
    return draw_matrix(frame.to_numpy(), [str(name) for name in frame.index], _named(list(frame.columns), names), ax)


def _named(features: Sequence[Any], names: Mapping[int, str]) -> list[str]:
    """Names of features where they have any, numbers else: there is not room for both."""
    return [names.get(feature, str(feature)) for feature in features]


def _explainer(run: Run) -> Explainer:
    return run if isinstance(run, Explainer) else load_explainer(run)
