"""Where any feature of the backbone is, also one that the model does not keep: for choosing features by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from qpm_opt import InvalidInputError, literal_text
from qpm_vision._spread import spread_positions
from qpm_vision._torch_state import plain_torch
from qpm_vision.data.base import ImageSet
from qpm_vision.explain.colours import PALETTE
from qpm_vision.explain.heatmaps import overlay, strength
from qpm_vision.explain.page import CELL, AxesGrid, new_page, put_caption, put_image, wrapped
from qpm_vision.model import DenseClassifier
from qpm_vision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Candidates"]

_CLASSES = 6
_LOOKED_AT = 4
"""Images of each class among which the one is taken that shows the feature best: few, so that nobody has to wait."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """All features of a dense model, on the images of the classes that each is most similar to.

    Attributes:
        model: The dense model that features are chosen from.
        images: Its training images.
        preprocessing: Its preprocessing.
        similarity: A, (n_classes, n_features).
        class_names: A name for each class.
    """

    model: DenseClassifier
    images: ImageSet
    preprocessing: Preprocessing
    similarity: npt.NDArray[np.float64]
    class_names: Sequence[str]

    @literal_text
    def draw(self, feature: int, fig: Figure | None = None) -> tuple[Figure, AxesGrid]:
        """Draw a feature on one image each of the classes that it is most similar to.

        Args:
            feature: Its number in the backbone.
            fig: Where to draw; a new figure by default.

        Returns:
            The figure and its axes in one row.

        Raises:
            InvalidInputError: There is no such feature.
        """
        n_features = self.similarity.shape[1]
        if not 0 <= feature < n_features:
            raise InvalidInputError(
                f"The 'feature' parameter must be the number of a feature of the backbone, 0 to {n_features - 1}. "
                f"Got {feature}."
            )
        classes = np.argsort(-self.similarity[:, feature], kind="stable")[:_CLASSES]
        positions = [self._some_images(int(index)) for index in classes]
        pixels, maps = self._maps(np.concatenate(positions), feature)
        scale = float(maps.max())
        figure, grid = new_page(
            fig,
            1,
            [CELL] * _CLASSES,
            title=f"Feature {feature} before fine-tuning",
            subtitle="Where it is in the classes that it is most similar to, the most similar one first.",
            note="Colour shows where the feature is active and how strongly. Full colour: the highest activation in "
            f"{len(maps)} training images of these classes.",
            label=0.0,
        )
        begin = 0
        for ax, index, own in zip(grid[0], classes.tolist(), positions, strict=False):
            best = begin + int(maps[begin : begin + len(own)].mean(axis=(1, 2)).argmax())
            begin += len(own)
            image = self.preprocessing.picture(pixels[best])
            put_image(ax, overlay(image, strength(maps[best], scale), PALETTE[0]))
            put_caption(ax, wrapped(self.class_names[index], 20, 2))
        for ax in grid[0, len(classes) :]:
            ax.set_axis_off()
        return figure, grid[0]

    def _some_images(self, index: int) -> npt.NDArray[np.int64]:
        own = np.flatnonzero(self.images.labels == index)
        return own[spread_positions(len(own), _LOOKED_AT)]

    def _maps(self, positions: npt.NDArray[np.int64], feature: int) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
        """Images as the model takes them, and the maps (n, h, w) of a feature on them."""
        transform = self.preprocessing.transform()
        pixels = torch.stack([transform(self.images.image(position)) for position in positions.tolist()])
        with plain_torch(), torch.no_grad():
            maps = self.model(pixels).maps[:, feature]
        return pixels, np.asarray(maps.float().numpy())
