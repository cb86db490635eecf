"""What pictures need to know about a model: its images, maps, features, classes and colours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from qpm_opt import InvalidInputError, normal_text
from qpm_vision._torch_state import plain_torch
from qpm_vision.data.base import ImageSet
from qpm_vision.explain.gallery import Gallery
from qpm_vision.explain.heatmaps import overlay, strength
from qpm_vision.feature_names import feature_label
from qpm_vision.model import QPMClassifier
from qpm_vision.preprocessing import Preprocessing

__all__ = ["Explainer", "View", "closest_pair"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class View:
    """One training image as the model sees it.

    Attributes:
        image: (H, W, 3) in [0, 1], resized and cropped like the model's input.
        presence: (n_select, h, w) in [0, 1], each feature relative to its own scale.
    """

    image: FloatArray
    presence: FloatArray


class Explainer:
    """Ties a model to its training images.

    Args:
        model: The interpretable model.
        images: Its training images, in the order that the gallery was collected in.
        preprocessing: The preprocessing of the model.
        gallery: What `collect_gallery` found.
        class_names: A name for each class.
        device: Where to compute.
        feature_names: Names that people gave to features, by their numbers.

    Attributes:
        selected: Numbers of the kept features in the backbone, (n_select,).
        weights: W, (n_classes, n_select) of 0/1.
    """

    def __init__(
        self,
        model: QPMClassifier,
        images: ImageSet,
        preprocessing: Preprocessing,
        gallery: Gallery,
        class_names: Sequence[str],
        device: torch.device | str = "cpu",
        feature_names: Mapping[int, str] | None = None,
    ) -> None:
        self.model = model.to(device).eval()
        self.images = images
        self.gallery = gallery
        self.class_names = tuple(class_names)
        self.feature_names = dict(feature_names or {})
        self.selected = np.asarray(model.selected.cpu()).astype(np.int64)
        self.weights = np.asarray(model.weight.detach().cpu() > 0).astype(np.uint8)
        self.n_images = int(gallery.n_images.sum())
        self._device = torch.device(device)
        self.preprocessing = preprocessing
        self._views: dict[int, View] = {}
        expected = (len(self.class_names), len(self.selected))
        if self.weights.shape != expected or gallery.best_of_pair.shape[:2] != expected:
            raise InvalidInputError(
                f"The model, the gallery and the class names must agree on (n_classes, n_select). Got "
                f"{self.weights.shape}, {gallery.best_of_pair.shape[:2]} and {expected}; they stem from different runs."
            )
        if self.n_images != len(images):
            raise InvalidInputError(
                f"The 'images' parameter must be the {self.n_images} training images that the gallery was made from. "
                f"Got {len(images)} images; load the data of the run with its test share and seed."
            )

    def class_index(self, name: str | int) -> int:
        """The position of a class, given by name or position.

        Raises:
            InvalidInputError: There is no such class; names the most similar ones.
        """
        if isinstance(name, int) and 0 <= name < len(self.class_names):
            return name
        every = [normal_text(known) for known in self.class_names]
        wanted = normal_text(str(name))
        if wanted in every:
            return every.index(wanted)
        # A part will do where it is unmistakable: the 송 of "U+C1A1_송", the 042 of "042 House Wren".
        having = [index for index, known in enumerate(every) if wanted in known.replace("_", " ").split()]
        if len(having) == 1:
            return having[0]
        close = difflib.get_close_matches(wanted, every, n=3, cutoff=0.4) or every[:5]
        raise InvalidInputError(
            f"The 'class' parameter must name one of the {len(self.class_names)} classes. Got {name!r}; "
            f"did you mean {' or '.join(repr(item) for item in close)}?"
        )

    def column_of(self, feature: int) -> int:
        """The column of W of a kept feature, given by its number in the backbone.

        Raises:
            InvalidInputError: It is not kept; names the kept ones.
        """
        found = np.flatnonzero(self.selected == feature)
        if len(found) != 1:
            raise InvalidInputError(
                f"The 'feature' parameter must be the number of a kept feature, as pictures and tables name them. Got "
                f"{feature!r}; kept are {', '.join(map(str, self.selected))}."
            )
        return int(found[0])

    def features_of(self, index: int) -> list[int]:
        """Columns of W that describe a class."""
        return [int(column) for column in np.flatnonzero(self.weights[index])]

    def feature_label(self, column: int) -> str:
        """What a column of W is called: "feature 17", or its name with the number."""
        return feature_label(int(self.selected[column]), self.feature_names)

    def classes_with(self, column: int) -> list[int]:
        """Classes that a column of W describes."""
        return [int(index) for index in np.flatnonzero(self.weights[:, column])]

    def best_images(self, index: int, number: int, column: int | None = None) -> list[int]:
        """Training images that show a class best, or a feature in a class; fewer where there are not so many."""
        found = self.gallery.best_of_class[index] if column is None else self.gallery.best_of_pair[index, column]
        return [int(position) for position in found[:number] if position >= 0]

    def view(self, position: int) -> View:
        """A training image and where the features are in it; kept for the next call."""
        if position not in self._views:
            pixels = self.preprocessing.transform()(self.images.image(position))
            with plain_torch(), torch.no_grad():
                maps = self.model(pixels[None].to(self._device)).maps[0].float().cpu().numpy()
            presence = strength(maps, self.gallery.scale)
            self._views[position] = View(self.preprocessing.picture(pixels), presence)
        return self._views[position]

    def heat(self, position: int, column: int, colour: str) -> FloatArray:
        """A training image in grey with one feature in this colour (#rrggbb), (H, W, 3)."""
        view = self.view(position)
        return overlay(view.image, view.presence[column], colour)


def closest_pair(weights: npt.ArrayLike, similarity: npt.ArrayLike | None = None) -> tuple[int, int]:
    """The two classes that are told apart by fewest features; of several pairs the most similar one.

    Args:
        weights: W, (n_classes, n_select) of 0/1, at least two classes.
        similarity: (n_classes, n_classes), larger for classes that are more alike, to break ties.

    Returns:
        Positions of the two classes, the smaller one first.

    Example:
        >>> closest_pair([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]])
        (0, 2)
    """
    matrix = np.asarray(weights).astype(np.int64)
    if len(matrix) < 2:
        raise InvalidInputError(f"The 'weights' parameter must have at least 2 classes to compare. Got {len(matrix)}.")
    first, second = np.triu_indices(len(matrix), 1)
    shared = (matrix @ matrix.T)[first, second]
    sizes = matrix.sum(axis=1)
    different = sizes[first] + sizes[second] - 2 * shared
    alike = np.zeros(len(first)) if similarity is None else np.asarray(similarity, dtype=np.float64)[first, second]
    best = np.lexsort((-alike, different))[0]
    return int(first[best]), int(second[best])
