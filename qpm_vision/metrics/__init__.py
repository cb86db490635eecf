"""Figures of merit of a model (QPM, Norrenbrock et al., ICLR 2025): one file each, a function and an accumulator.

Functions take NumPy arrays and PyTorch tensors and return Python floats. Accumulators have torchmetrics' face
(`update`, `compute`, `reset`, synchronisation across processes) and return the same floats; batches, in any split, give
what the function gives for all images at once. None of them keeps maps.
"""

from __future__ import annotations

from qpm_vision.metrics.class_independence import ClassIndependence, class_independence
from qpm_vision.metrics.compactness import Compactness, compactness
from qpm_vision.metrics.contrastiveness import Contrastiveness, contrastiveness, mixture_overlap
from qpm_vision.metrics.correlation import FeatureCorrelation, correlation
from qpm_vision.metrics.spatial_diversity import SpatialDiversity, spatial_diversity
from qpm_vision.metrics.structural_grounding import StructuralGrounding, structural_grounding

__all__ = [
    "ClassIndependence",
    "Compactness",
    "Contrastiveness",
    "FeatureCorrelation",
    "SpatialDiversity",
    "StructuralGrounding",
    "class_independence",
    "compactness",
    "contrastiveness",
    "correlation",
    "mixture_overlap",
    "spatial_diversity",
    "structural_grounding",
]
