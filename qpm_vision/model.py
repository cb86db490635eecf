"""The dense classifier, the interpretable one of few features and a binary head, and one of few real weights."""

from __future__ import annotations

import copy
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qpm_opt import InvalidInputError
from qpm_vision.backbones import Backbone

__all__ = ["Classifier", "DenseClassifier", "ModelOutput", "QPMClassifier", "SparseClassifier"]

_LEAST_DEVIATION = 1e-6


class ModelOutput(NamedTuple):
    """What a model says about a batch.

    Attributes:
        logits: Class scores, (B, n_classes).
        maps: Maps of the features that the head uses, (B, n_features, h, w).
        features: Their spatial means, (B, n_features); never normalised, also where the head normalises them.
    """

    logits: Tensor
    maps: Tensor
    features: Tensor


class DenseClassifier(nn.Module):
    """Backbone, average pooling, linear layer.

    Args:
        backbone: Gives the maps; kept, not copied.
        n_classes: Number of classes, at least 1.

    Example:
        >>> model = DenseClassifier(Backbone(nn.Conv2d(3, 4, 1)), n_classes=2)
        >>> [tuple(part.shape) for part in model(torch.zeros(5, 3, 8, 8))]
        [(5, 2), (5, 4, 8, 8), (5, 4)]
    """

    def __init__(self, backbone: Backbone, n_classes: int) -> None:
        super().__init__()
        if isinstance(n_classes, bool) or not isinstance(n_classes, int | np.integer) or n_classes < 1:
            raise InvalidInputError(f"The 'n_classes' parameter must be an integer of at least 1. Got {n_classes!r}.")
        self.backbone = _checked_backbone(backbone)
        self.head = nn.Linear(backbone.n_features, int(n_classes))

    @property
    def weight(self) -> Tensor:
        """Weights of the head, (n_classes, n_features)."""
        return self.head.weight

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.head.out_features

    def forward(self, images: Tensor) -> ModelOutput:
        """Classify images (B, 3, H, W)."""
        maps = self.backbone(images)
        features = maps.mean((2, 3))
        return ModelOutput(self.head(features), maps, features)


class _SelectedClassifier(nn.Module):
    """Select, average-pool, normalise, dropout; what follows is a fixed head, which subclasses check and apply."""

    selected: Tensor
    weight: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        selected: npt.ArrayLike | Tensor,
        weights: npt.ArrayLike | Tensor,
        mean: npt.ArrayLike | Tensor,
        std: npt.ArrayLike | Tensor,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise InvalidInputError(f"The 'dropout' parameter must be at least 0 and below 1. Got {dropout!r}.")
        self.backbone = _checked_backbone(backbone)
        self.register_buffer("selected", _checked_selected(selected, backbone.n_features))
        self.register_buffer("weight", self._checked_weights(weights, len(self.selected)))
        self.register_buffer("mean", _checked_row("mean", mean, len(self.selected)))
        self.register_buffer("std", _checked_row("std", std, len(self.selected)))
        if bool((self.std < 0).any()):
            raise InvalidInputError(
                "The 'std' parameter must hold standard deviations, which are not negative. Got "
                f"{float(self.std.min())}."
            )
        self.dropout = nn.Dropout(dropout)

    @staticmethod
    def _checked_weights(weights: npt.ArrayLike | Tensor, n_select: int) -> Tensor:
        raise NotImplementedError

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.weight.shape[0]

    def _logits(self, features: Tensor) -> Tensor:
        """Class scores of normalised features (B, n_select)."""
        return features @ self.weight.T

    def forward(self, images: Tensor) -> ModelOutput:
        """Classify images (B, 3, H, W); maps and features are those of the selected features, in their order."""
        maps = self.backbone(images).index_select(1, self.selected)
        features = maps.mean((2, 3))
        return ModelOutput(self._logits(self.dropout(self.normalise(features))), maps, features)

    def normalise(self, features: Tensor) -> Tensor:
        """What the head weights: (F - μ) / max(σ, 1e-6) of pooled features (B, n_select)."""
        return (features - self.mean) / self.std.clamp(min=_LEAST_DEVIATION)


class QPMClassifier(_SelectedClassifier):
    """Few features and a binary head: select, average-pool, normalise, dropout, binary weights, no bias.

    logits = dropout((F - μ) / max(σ, 1e-6)) Wᵀ for the pooled kept features F (QPM, Norrenbrock et al., ICLR 2025).
    Only the backbone has parameters; selection, μ, σ and W are buffers, fixed and part of the state.

    Args:
        backbone: Gives the maps; kept, not copied.
        selected: Kept features of the backbone, (n_select,) different integers, in the order of W's columns.
        weights: W, (n_classes, n_select) of 0 and 1.
        mean: μ of the kept features over the training images, (n_select,).
        std: Their standard deviation σ, (n_select,), not negative.
        dropout: Share of features that is dropped while training.

    Attributes:
        selected: (n_select,) int64.
        weight: W, float32.
        mean: float32.
        std: float32.

    Raises:
        InvalidInputError: Shapes or values are not as said.

    Example:
        >>> backbone = Backbone(nn.Conv2d(3, 4, 1))
        >>> model = QPMClassifier(backbone, [1, 3], [[1, 0], [0, 1], [1, 1]], mean=[0, 0], std=[1, 1])
        >>> [tuple(part.shape) for part in model(torch.zeros(5, 3, 8, 8))]
        [(5, 3), (5, 2, 8, 8), (5, 2)]
    """

    @classmethod
    def from_dense(
        cls,
        dense: DenseClassifier,
        selected: npt.ArrayLike | Tensor,
        weights: npt.ArrayLike | Tensor,
        mean: npt.ArrayLike | Tensor,
        std: npt.ArrayLike | Tensor,
        dropout: float = 0.1,
    ) -> QPMClassifier:
        """Start from a trained dense model, which stays as it is: its backbone is copied.

        Args:
            dense: The trained model.
            selected: As for the class; `mean` and `std` are those of the selected features.
            weights: As for the class.
            mean: As for the class.
            std: As for the class.
            dropout: As for the class.
        """
        model = cls(copy.deepcopy(dense.backbone), selected, weights, mean, std, dropout)
        return model.to(dense.weight.device)

    @staticmethod
    def _checked_weights(weights: npt.ArrayLike | Tensor, n_select: int) -> Tensor:
        array = _weight_matrix(weights, n_select)
        if not np.isin(array, (0, 1)).all():
            raise InvalidInputError(
                "The 'weights' parameter must hold 0 and 1 only. Got other values; round them first."
            )
        return torch.from_numpy(array.astype(np.float32))

    def validate(self) -> None:
        """Check the buffers again, after they were filled from elsewhere.

        Raises:
            InvalidInputError: They are not what the constructor takes.
        """
        type(self)(self.backbone, self.selected, self.weight, self.mean, self.std, self.dropout.p)


class SparseClassifier(_SelectedClassifier):
    """Few features and a fixed head of real weights and a bias, as the neighbours of QPM have it.

    logits = dropout((F - μ) / max(σ, 1e-6)) Wᵀ + bias (SLDD-Model, Norrenbrock et al., 2022; Q-SENN, AAAI 2024).
    Only the backbone has parameters.

    Args:
        backbone: Gives the maps; kept, not copied.
        selected: Kept features, as for `QPMClassifier`.
        weights: W, (n_classes, n_select) finite, most of them 0.
        bias: (n_classes,), finite.
        mean: μ of the kept features over the training images, (n_select,).
        std: Their standard deviation σ, (n_select,), not negative.
        dropout: Share of features that is dropped while training.

    Attributes:
        selected: (n_select,) int64.
        weight: W, float32.
        bias: float32.
        mean: float32.
        std: float32.

    Raises:
        InvalidInputError: Shapes or values are not as said.

    Example:
        >>> backbone = Backbone(nn.Conv2d(3, 4, 1))
        >>> model = SparseClassifier(backbone, [1, 3], [[0.5, 0], [0, -2]], [0, 0.1], mean=[0, 0], std=[1, 1])
        >>> tuple(model(torch.zeros(5, 3, 8, 8)).logits.shape)
        (5, 2)
    """

    bias: Tensor

    def __init__(
        self,
        backbone: Backbone,
        selected: npt.ArrayLike | Tensor,
        weights: npt.ArrayLike | Tensor,
        bias: npt.ArrayLike | Tensor,
        mean: npt.ArrayLike | Tensor,
        std: npt.ArrayLike | Tensor,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(backbone, selected, weights, mean, std, dropout)
        self.register_buffer("bias", _checked_row("bias", bias, self.n_classes, "classes"))

    @staticmethod
    def _checked_weights(weights: npt.ArrayLike | Tensor, n_select: int) -> Tensor:
        array = _weight_matrix(weights, n_select).astype(np.float32)
        if not np.isfinite(array).all():
            raise InvalidInputError(
                f"The 'weights' parameter must be finite. Got {int((~np.isfinite(array)).sum())} NaN or infinite "
                "entries; fit them again with more regularisation."
            )
        return torch.from_numpy(array)

    def _logits(self, features: Tensor) -> Tensor:
        return super()._logits(features) + self.bias

    def validate(self) -> None:
        """Check the buffers again, after they were filled from elsewhere.

        Raises:
            InvalidInputError: They are not what the constructor takes.
        """
        type(self)(self.backbone, self.selected, self.weight, self.bias, self.mean, self.std, self.dropout.p)


Classifier: TypeAlias = DenseClassifier | QPMClassifier | SparseClassifier
"""What is trained, saved and scored."""


# -- checks --------------------------------------------------------------------------------------------------------


def _checked_backbone(backbone: Backbone) -> Backbone:
    if not isinstance(backbone, Backbone):
        raise InvalidInputError(
            f"The 'backbone' parameter must be a Backbone. Got a {type(backbone).__name__}; wrap it: Backbone(module)."
        )
    return backbone


def _array(name: str, value: npt.ArrayLike | Tensor, ndim: int) -> npt.NDArray[np.generic]:
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    except ValueError as error:
        raise InvalidInputError(f"The '{name}' parameter must be an array of numbers. Got rows that differ.") from error
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"The '{name}' parameter must hold numbers. Got dtype {array.dtype}.")
    if array.ndim != ndim or not array.size:
        raise InvalidInputError(
            f"The '{name}' parameter must have {ndim} dimension{'s'[: ndim - 1]} and at least one entry. Got shape "
            f"{array.shape}."
        )
    return array


def _checked_selected(selected: npt.ArrayLike | Tensor, n_features: int) -> Tensor:
    array = _array("selected", selected, 1)
    whole = array.dtype.kind in "iu"
    if not whole or int(array.min()) < 0 or int(array.max()) >= n_features:
        raise InvalidInputError(
            f"The 'selected' parameter must hold indices of features, integers from 0 to {n_features - 1}. Got "
            + (f"values from {array.min()} to {array.max()}." if whole else f"dtype {array.dtype}.")
        )
    if len(np.unique(array)) < len(array):
        values, counts = np.unique(array, return_counts=True)
        raise InvalidInputError(
            f"The 'selected' parameter must name each feature once. Got {values[counts > 1].tolist()} more than once."
        )
    return torch.from_numpy(array.astype(np.int64))


def _weight_matrix(weights: npt.ArrayLike | Tensor, n_select: int) -> npt.NDArray[np.generic]:
    array = _array("weights", weights, 2)
    if array.shape[1] != n_select:
        raise InvalidInputError(
            f"The 'weights' parameter must have a column for each of the {n_select} selected features. Got shape "
            f"{array.shape}; pass the columns of the selection only, in its order."
        )
    return array


def _checked_row(name: str, value: npt.ArrayLike | Tensor, length: int, what: str = "selected features") -> Tensor:
    array = _array(name, value, 1).astype(np.float32)
    if array.shape != (length,):
        remedy = "pass one for each class" if what == "classes" else f"for values of all features pass {name}[selected]"
        raise InvalidInputError(
            f"The '{name}' parameter must have an entry for each of the {length} {what}. Got shape {array.shape}; "
            f"{remedy}."
        )
    if not np.isfinite(array).all():
        raise InvalidInputError(
            f"The '{name}' parameter must be finite. Got {int((~np.isfinite(array)).sum())} NaN or infinite entries; "
            "compute it over at least one image."
        )
    return torch.from_numpy(array)
