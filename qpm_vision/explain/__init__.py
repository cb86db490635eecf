"""Pictures of what a model sees: classes, two of them compared, features, images, and all assignments at once.

`plot_class`, `plot_comparison`, `plot_overview`, `plot_feature`, `plot_image` and `plot_matrix` take a run folder or an
`Explainer`, `plot_candidate` a run folder or `Candidates`, and a figure (the matrix: axes) to draw into if it is not to
be a new one; they return (figure, axes).
"""

from __future__ import annotations

from qpm_vision.explain.candidates import Candidates
from qpm_vision.explain.explainer import Explainer, View, closest_pair
from qpm_vision.explain.from_run import (
    load_candidates,
    load_explainer,
    plot_candidate,
    plot_class,
    plot_comparison,
    plot_feature,
    plot_image,
    plot_matrix,
    plot_overview,
)
from qpm_vision.explain.gallery import Gallery, collect_gallery
from qpm_vision.explain.heatmaps import overlay, strength, upsample

__all__ = [
    "Candidates",
    "Explainer",
    "Gallery",
    "View",
    "closest_pair",
    "collect_gallery",
    "load_candidates",
    "load_explainer",
    "overlay",
    "plot_candidate",
    "plot_class",
    "plot_comparison",
    "plot_feature",
    "plot_image",
    "plot_matrix",
    "plot_overview",
    "strength",
    "upsample",
]
