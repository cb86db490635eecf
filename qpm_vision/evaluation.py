"""All figures of merit of a model, from one pass over its training images and one over its test images."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision._arrays import sums_device
from qpm_vision._forms import NUMBER, SHARE
from qpm_vision.class_scores import ClassScores
from qpm_vision.distributed import sum_over_processes
from qpm_vision.run_folder import STAGES, RunFolder

__all__ = [
    "GROUNDING_PAIRS",
    "MOST_VALUES",
    "Scored",
    "Scores",
    "evaluate",
    "read_metrics",
    "score_rows",
    "score_table",
]

Batches = Iterable[tuple[Tensor, Tensor]]

MOST_VALUES = 1 << 25
"""Feature values that contrastiveness looks at, at most: a mixture is fitted to each feature, 1.2 µs for a value.

33 million are all images of a model of 50 features up to 670,000 images. Where there are more, every m-th image counts.
"""

_SPATIAL_FEATURES = 5
GROUNDING_PAIRS = 50
"""Entries of a given similarity of classes that structural grounding looks at: the largest ones."""

_log = logging.getLogger(__name__)


class Scored(Protocol):
    """What `evaluate` needs of a model: logits, maps and features of images, and the weights between the last two."""

    @property
    def weight(self) -> Tensor:
        """(n_classes, n_features)."""

    def eval(self) -> Any:
        """Turn off what is random."""

    def __call__(self, images: Tensor) -> Any:
        """Logits (B, n_classes), maps (B, n_features, h, w) and pooled features (B, n_features)."""


@dataclass(frozen=True)
class Scores:
    """Figures of merit (QPM, Norrenbrock et al., ICLR 2025); None where one does not apply or nothing is there for it.

    Attributes:
        accuracy_test: Share of all test images that are classified correctly.
        accuracy_test_low: Lower end of its interval (Wilson, 95 %).
        accuracy_test_high: Upper end.
        macro_accuracy_test: Mean over the classes that have test images of the share of each that is classified
            correctly, also called balanced accuracy: small classes count as much as large ones.
        macro_accuracy_test_low: Lower end of its interval (95 %, from the Wilson intervals of the classes).
        macro_accuracy_test_high: Upper end.
        accuracy_train: Share of all training images, un-augmented.
        macro_accuracy_train: Mean over classes, for these.
        spatial_diversity: SID@5 on test images.
        class_independence: On training images.
        contrastiveness: On training images.
        correlation: On training images.
        structural_grounding: Of the weights, over the 50 most similar pairs of classes; None without a given
            similarity of classes, and for a dense model.
        features: Features in use.
        features_per_class: Features of a class, on average.
        contrastiveness_images: Training images that contrastiveness was computed from.
        test_images: Test images.
        train_images: Training images.
        by_class: What became of the test images of each class; not in `to_dict`.
    """

    accuracy_test: float
    accuracy_test_low: float
    accuracy_test_high: float
    macro_accuracy_test: float
    macro_accuracy_test_low: float
    macro_accuracy_test_high: float
    accuracy_train: float | None
    macro_accuracy_train: float | None
    spatial_diversity: float
    class_independence: float | None
    contrastiveness: float | None
    correlation: float | None
    structural_grounding: float | None
    features: int
    features_per_class: float
    contrastiveness_images: int
    test_images: int
    train_images: int
    by_class: ClassScores = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, float | int | None]:
        """By name, for JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "by_class"}


def evaluate(
    model: Scored,
    train: Batches | None,
    test: Batches,
    *,
    n_train: int = 0,
    class_relation: npt.ArrayLike | None = None,
    binary: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_images: Callable[[int], None] | None = None,
) -> Scores:
    """Score a model in eval mode, without gradients, keeping no maps and no pixels.

    A dense model's weights count by size, |w|, for the spatial diversity, and it has no structural grounding.

    Args:
        model: The model, on `device`.
        train: Un-augmented training batches (images (B, 3, H, W), labels (B,)); None to leave out what is defined on
            them. Where several processes evaluate one model, each gives its share, here and of `test`.
        test: Test batches.
        n_train: Number of training images.
        class_relation: Given similarity of classes, (n_classes, n_classes).
        binary: Whether the weights are a 0/1 assignment.
        seed: Of the mixtures behind contrastiveness.
        device: Where to compute.
        on_images: Called with the number of images seen so far, in both passes together.

    Raises:
        InvalidInputError: There are no images.
    """
    # Here, because torchmetrics takes seconds to import, and most of what imports this module scores nothing.
    from qpm_vision.metrics import (
        ClassIndependence,
        Contrastiveness,
        FeatureCorrelation,
        SpatialDiversity,
        compactness,
        structural_grounding,
    )

    weights = model.weight.detach().abs().float().cpu()
    n_classes, n_features = weights.shape
    model.eval()
    diversity = SpatialDiversity(weights, k=min(_SPATIAL_FEATURES, n_features))
    # Beside a GPU, what the processor computes for each batch takes longer than the forward pass: the processes that
    # load images keep all cores.
    place = sums_device(model.weight)
    independence = ClassIndependence(n_features, n_classes).to(place)
    correlated = FeatureCorrelation(n_features).to(place)
    contrast = Contrastiveness(seed=seed).to(place)
    step = max(1, math.ceil(n_train * n_features / MOST_VALUES))
    tested, trained = (torch.zeros(n_classes, n_classes, dtype=torch.int64) for _ in range(2))
    seen_train = seen_test = contrast_images = 0
    with torch.no_grad():
        for images, labels in test:
            output = model(images.to(device, non_blocking=True))
            diversity.update(output.maps, output.logits)
            _count(tested, output.logits, labels)
            seen_test += len(labels)
            _tell(on_images, seen_test)
        for images, labels in train or ():
            output = model(images.to(device, non_blocking=True))
            features = output.features.float()
            independence.update(features, labels)
            correlated.update(features)
            sample = features[(-seen_train) % step :: step]
            if len(sample):
                contrast.update(sample)
            contrast_images += len(sample)
            _count(trained, output.logits, labels)
            seen_train += len(labels)
            _tell(on_images, seen_test + seen_train)
    counts = torch.tensor([seen_train, seen_test, contrast_images])
    seen_train, seen_test, contrast_images = sum_over_processes(counts).tolist()
    if not seen_test or (train is not None and not seen_train):
        raise InvalidInputError(
            f"The 'train' and 'test' parameters must hold images. Got {seen_train} and {seen_test}; "
            "nothing can be scored."
        )
    if step > 1:
        _log.info("contrastiveness from every %d-th of %d training images", step, seen_train)
    on_test, on_train = (ClassScores(sum_over_processes(matrix).numpy()) for matrix in (tested, trained))
    sizes = compactness(weights)
    grounded = class_relation is not None and binary
    return Scores(
        accuracy_test=on_test.accuracy,
        accuracy_test_low=on_test.accuracy_interval[0],
        accuracy_test_high=on_test.accuracy_interval[1],
        macro_accuracy_test=on_test.macro_accuracy,
        macro_accuracy_test_low=on_test.macro_accuracy_interval[0],
        macro_accuracy_test_high=on_test.macro_accuracy_interval[1],
        accuracy_train=on_train.accuracy if seen_train else None,
        macro_accuracy_train=on_train.macro_accuracy if seen_train else None,
        spatial_diversity=diversity.compute(),
        class_independence=_number(independence.compute()) if seen_train else None,
        contrastiveness=contrast.compute() if contrast_images > 1 else None,
        correlation=correlated.compute() if seen_train else None,
        structural_grounding=structural_grounding(weights, class_relation, GROUNDING_PAIRS)
        if grounded and class_relation is not None
        else None,
        features=int(sizes["features"]),
        features_per_class=sizes["features_per_class"],
        contrastiveness_images=contrast_images,
        test_images=seen_test,
        train_images=seen_train,
        by_class=on_test,
    )


_ROWS = (
    ("accuracy, test (all images)", "accuracy_test", "%"),
    ("macro accuracy, test (mean of classes)", "macro_accuracy_test", "%"),
    ("accuracy, training (all images)", "accuracy_train", "%"),
    ("macro accuracy, training (mean of classes)", "macro_accuracy_train", "%"),
    ("spatial diversity (SID@5)", "spatial_diversity", "%"),
    ("class independence", "class_independence", "%"),
    ("contrastiveness", "contrastiveness", "%"),
    ("correlation", "correlation", "%"),
    ("structural grounding", "structural_grounding", "%"),
    ("features", "features", "d"),
    ("features per class", "features_per_class", "g"),
    ("images, test", "test_images", "d"),
    ("images, training", "train_images", "d"),
)


_FIGURES = {**{f"{item.name}?": NUMBER for item in fields(Scores) if item.name != "by_class"}, "accuracy_test": SHARE}
_METRICS = {
    "dense": _FIGURES,
    "qpm": _FIGURES,
    "qpm_before_fine_tuning": {"accuracy_test": SHARE},
    "assignment": {
        "solver": str,
        "status": str,
        "termination": str,
        "objective": float,
        "bound": NUMBER,
        "gap": NUMBER,
        "objective_similarity": float,
        "objective_redundancy": float,
        "objective_bias": float,
    },
    "seconds?": {f"{stage}?": float for stage in (*STAGES, "total")},
}


def read_metrics(folder: RunFolder) -> dict[str, Any]:
    """The figures of a run, by model.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    return folder.read_json("metrics.json", _METRICS)


def score_rows(models: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """Title, name and a cell for each model of every figure that at least one model has.

    Args:
        models: Figures of each model, as `Scores.to_dict` gives them.
    """
    rows = []
    for title, key, form in _ROWS:
        values = [figures.get(key) for figures in models]
        if any(value is not None for value in values):
            rows.append((title, key, [_formatted(value, form) for value in values]))
            ends = [(figures.get(f"{key}_low"), figures.get(f"{key}_high")) for figures in models]
            if any(low is not None for low, _ in ends):
                rows.append(("  95 % interval", f"{key}_interval", [_span(low, high) for low, high in ends]))
    return rows


def score_table(columns: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """A plain table: a row for each figure, a column for each model; figures that no model has are left out.

    Args:
        columns: Heading and figures of each model, as `Scores.to_dict` gives them.

    Example:
        >>> print(score_table([("dense", {"accuracy_test": 0.5}), ("QPM", {"accuracy_test": 0.25})]))
                                          dense     QPM
        accuracy, test (all images)      50.0 %  25.0 %
    """
    rows = [("", [heading for heading, _ in columns])]
    rows += [(title, cells) for title, _, cells in score_rows([figures for _, figures in columns])]
    first = max(len(title) for title, _ in rows)
    widths = [max(len(cells[place]) for _, cells in rows) for place in range(len(columns))]
    lines = []
    for title, cells in rows:
        padded = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{title.ljust(first)}      {padded}".rstrip())
    return "\n".join(lines)


def _formatted(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if form == "%" else f"{value:,.10g}"


def _span(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f} %"


def _count(confusion: Tensor, logits: Tensor, labels: Tensor) -> None:
    n_classes = len(confusion)
    places = labels.cpu() * n_classes + logits.argmax(dim=1).cpu()
    confusion += torch.bincount(places, minlength=n_classes**2).reshape(confusion.shape)


def _tell(listener: Callable[[int], None] | None, count: int) -> None:
    if listener is not None:
        listener(count)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
