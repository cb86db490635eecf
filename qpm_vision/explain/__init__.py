"""Pictures of what a model sees: features of a class, two classes compared, an overview.

`plot_class`, `plot_comparison` and `plot_overview` take a run folder or an `Explainer` and return (figure, axes).
"""

from __future__ import annotations

from qpm_vision.explain.explainer import Explainer, View, closest_pair
from qpm_vision.explain.from_run import load_explainer, plot_class, plot_comparison, plot_overview
from qpm_vision.explain.gallery import Gallery, collect_gallery
from qpm_vision.explain.heatmaps import overlay, strength, upsample

__all__ = [
    "Explainer",
    "Gallery",
    "View",
    "closest_pair",
    "collect_gallery",
    "load_explainer",
    "overlay",
    "plot_class",
    "plot_comparison",
    "plot_overview",
    "strength",
    "upsample",
]
