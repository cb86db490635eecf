"""Image classifiers that explain every class by a handful of shared features.

The names below are loaded when they are first used: `import qpm_vision` itself is cheap.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from qpm_vision._lazy import lazy_names

if TYPE_CHECKING:
    from qpm_vision.backbones import Backbone, backbone_names, build_backbone, register_backbone
    from qpm_vision.checkpoint import load_checkpoint, save_checkpoint
    from qpm_vision.compare import compare_run
    from qpm_vision.config import RunConfig
    from qpm_vision.data import ImageData, load_data, make_loader
    from qpm_vision.evaluation import Scores, evaluate
    from qpm_vision.explain import Explainer, load_explainer, plot_class, plot_comparison, plot_overview
    from qpm_vision.export import Exported, export_model
    from qpm_vision.losses import feature_diversity_loss
    from qpm_vision.model import DenseClassifier, ModelOutput, QPMClassifier, SparseClassifier
    from qpm_vision.pipeline import evaluate_run, run
    from qpm_vision.predict import Explanation, Prediction, Predictor, load_model
    from qpm_vision.preprocessing import Preprocessing
    from qpm_vision.report import write_report
    from qpm_vision.run_folder import RunFolder, RunFolderError
    from qpm_vision.statistics import (
        FeatureStatistics,
        Locality,
        class_similarity,
        feature_redundancy,
        scale_bias,
    )
    from qpm_vision.steered_run import propose_steering, steer_run
    from qpm_vision.steering import Steered, Steering, solve_steered
    from qpm_vision.training import accuracy, train
    from qpm_vision.training_settings import TrainingSettings

__all__ = [
    "Backbone",
    "DenseClassifier",
    "Explainer",
    "Explanation",
    "Exported",
    "FeatureStatistics",
    "ImageData",
    "Locality",
    "ModelOutput",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "QPMClassifier",
    "RunConfig",
    "RunFolder",
    "RunFolderError",
    "Scores",
    "SparseClassifier",
    "Steered",
    "Steering",
    "TrainingSettings",
    "accuracy",
    "backbone_names",
    "build_backbone",
    "class_similarity",
    "compare_run",
    "evaluate",
    "evaluate_run",
    "export_model",
    "feature_diversity_loss",
    "feature_redundancy",
    "load_checkpoint",
    "load_data",
    "load_explainer",
    "load_model",
    "make_loader",
    "plot_class",
    "plot_comparison",
    "plot_overview",
    "propose_steering",
    "register_backbone",
    "run",
    "save_checkpoint",
    "scale_bias",
    "solve_steered",
    "steer_run",
    "train",
    "write_report",
]

_HOMES = {
    "backbones": ("Backbone", "backbone_names", "build_backbone", "register_backbone"),
    "checkpoint": ("load_checkpoint", "save_checkpoint"),
    "compare": ("compare_run",),
    "config": ("RunConfig",),
    "data": ("ImageData", "load_data", "make_loader"),
    "evaluation": ("Scores", "evaluate"),
    "export": ("Exported", "export_model"),
    "explain": ("Explainer", "load_explainer", "plot_class", "plot_comparison", "plot_overview"),
    "losses": ("feature_diversity_loss",),
    "model": ("DenseClassifier", "ModelOutput", "QPMClassifier", "SparseClassifier"),
    "pipeline": ("evaluate_run", "run"),
    "predict": ("Explanation", "Prediction", "Predictor", "load_model"),
    "preprocessing": ("Preprocessing",),
    "report": ("write_report",),
    "run_folder": ("RunFolder", "RunFolderError"),
    "statistics": ("FeatureStatistics", "Locality", "class_similarity", "feature_redundancy", "scale_bias"),
    "steered_run": ("propose_steering", "steer_run"),
    "steering": ("Steered", "Steering", "solve_steered"),
    "training": ("accuracy", "train"),
    "training_settings": ("TrainingSettings",),
}

if importlib.util.find_spec("torch") is None:
    raise ImportError('qpm_vision needs PyTorch and a few more packages: pip install "qpm[vision]"')

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
