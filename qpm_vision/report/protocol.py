"""What was done, and what the figures of merit mean, in words."""

from __future__ import annotations

from typing import Any

from qpm_vision.config import RunConfig
from qpm_vision.evaluation import score_rows
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.recipes import recipe_names
from qpm_vision.report.contents import Metric
from qpm_vision.training_settings import TrainingSettings

__all__ = ["metrics", "protocol"]

_MEANINGS = {
    "accuracy_test": "Share of all test images that get their right class; large classes count more.",
    "accuracy_test_interval": "Where the share lies for images of the same kind, with 95 % confidence (Wilson).",
    "macro_accuracy_test": "The share of each class, averaged over classes (balanced accuracy); small classes count as "
    "much as large ones.",
    "macro_accuracy_test_interval": "Where it lies with 95 % confidence, from the Wilson intervals of the classes.",
    "accuracy_train": "Share of all training images. Much higher than on test images: learned by heart.",
    "macro_accuracy_train": "The share of each class of training images, averaged over classes.",
    "spatial_diversity": "Whether the features of an image look at different places. 100 %: nowhere the same. "
    "Higher is better.",
    "class_independence": "Whether features are more than detectors of one class. Higher is better.",
    "contrastiveness": "Whether a feature is clearly there or clearly not. 100 %: two separate levels. "
    "Higher is better.",
    "correlation": "How much a feature resembles the one most like it. Lower is better.",
    "structural_grounding": "How far classes with the same known attributes share features. Higher is better.",
    "features": "Features that the model looks at.",
    "features_per_class": "Features that describe one class: what a person has to read.",
    "test_images": "Images that the figures on test images are measured on.",
    "train_images": "Images that the model was trained on.",
}


def metrics(scores: dict[str, Any]) -> list[Metric]:
    """Figures of merit of the dense model and the interpretable one.

    Args:
        scores: The contents of a run's `metrics.json`.
    """
    models = [scores["dense"], scores["qpm_before_fine_tuning"], scores["qpm"]]
    return [
        Metric(title, _MEANINGS[key], dense, "" if before == "–" else before, qpm)
        for title, key, (dense, before, qpm) in score_rows(models)
    ]


def protocol(
    config: RunConfig, identity: dict[str, Any], preprocessing: Preprocessing, origin: str | None
) -> list[tuple[str, str]]:
    """What was done, as (what, how).

    Args:
        config: Of the run.
        identity: The contents of a run's `data.json`.
        preprocessing: Of the models.
        origin: Which run it was steered from, and how; None: from none.
    """
    size = preprocessing.size
    crop = "" if preprocessing.crop == 1 else f", the central {preprocessing.crop:.1%} of the short side"
    return [
        ("Data", identity["name"]),
        ("Images", f"{identity['n_train']:,} for training, {identity['n_test']:,} for testing"),
        ("Part shown", identity.get("cropping") or "whole images"),
        (
            "Preprocessing",
            f"{size} × {size} pixels{crop}, {preprocessing.interpolation}, normalised by mean and deviation",
        ),
        ("Backbone", config.backbone + (f", weights {_last(config.weights)}" if config.weights else "")),
        ("Recipe", _recipe(config)),
        ("Dense model", _described(config.dense.for_images(identity["n_train"]))),
        ("Fine-tuning", _described(config.fine_tuning.for_images(identity["n_train"]))),
        ("Features", f"{config.n_select} kept, {config.n_per_class} for each class"),
        *([] if origin is None else [("Steered from", origin)]),
        ("Precision", config.precision),
        ("Seed", str(config.seed)),
    ]


def _recipe(config: RunConfig) -> str:
    """The recipe whose training settings these are."""
    for name in recipe_names():
        recipe = RunConfig.from_recipe(name, config.data)
        if (recipe.dense, recipe.fine_tuning) == (config.dense, config.fine_tuning):
            return name
    return "settings of this run"


def _described(settings: TrainingSettings) -> str:
    if not settings.epochs:
        return "not trained: the classifier that came with the weights"
    epochs = f"{settings.epochs} epoch{'' if settings.epochs == 1 else 's'}"
    return (
        f"{epochs}, batches of {settings.batch_size}, SGD, learning rate {settings.learning_rate:g} "
        f"({settings.schedule}), augmentation {settings.augmentation}, diversity loss × {settings.beta:g}"
    )


def _last(path: str) -> str:
    """The name of a file: where it lies is nobody else's business."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
