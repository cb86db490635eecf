"""How far heat maps can be trusted: deletion and insertion, stability under shifts, pointing at known parts.

`measure_faithfulness` does all of it for a run, beside Grad-CAM and integrated gradients where Captum is installed.

The names below are loaded when they are first used: measuring takes more to import than reading what was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpm_vision._lazy import lazy_names

if TYPE_CHECKING:
    from qpm_vision.faithfulness.curves import PerturbationCurves, area_under_curve, perturbation_curves
    from qpm_vision.faithfulness.locate import locate_features
    from qpm_vision.faithfulness.meaning import Meaning, find_meanings
    from qpm_vision.faithfulness.means import GroupMeans
    from qpm_vision.faithfulness.measure import measure_faithfulness
    from qpm_vision.faithfulness.perturbation import Perturbed, perturb
    from qpm_vision.faithfulness.picture import draw_faithfulness
    from qpm_vision.faithfulness.pointing import box_areas, heat_in_box, pointing_accuracy, pointing_hits
    from qpm_vision.faithfulness.reach import input_shares, place_areas
    from qpm_vision.faithfulness.result import Faithfulness, Pointing
    from qpm_vision.faithfulness.saliency import METHODS, PeerUnavailableError
    from qpm_vision.faithfulness.stability import shift_stability, shifted
    from qpm_vision.faithfulness.verdict import Verdict, judge

__all__ = [
    "METHODS",
    "Faithfulness",
    "GroupMeans",
    "Meaning",
    "PeerUnavailableError",
    "PerturbationCurves",
    "Perturbed",
    "Pointing",
    "Verdict",
    "area_under_curve",
    "box_areas",
    "draw_faithfulness",
    "find_meanings",
    "heat_in_box",
    "input_shares",
    "judge",
    "locate_features",
    "measure_faithfulness",
    "perturb",
    "perturbation_curves",
    "place_areas",
    "pointing_accuracy",
    "pointing_hits",
    "shift_stability",
    "shifted",
]

_HOMES = {
    "curves": ("PerturbationCurves", "area_under_curve", "perturbation_curves"),
    "locate": ("locate_features",),
    "meaning": ("Meaning", "find_meanings"),
    "means": ("GroupMeans",),
    "measure": ("measure_faithfulness",),
    "perturbation": ("Perturbed", "perturb"),
    "picture": ("draw_faithfulness",),
    "pointing": ("box_areas", "heat_in_box", "pointing_accuracy", "pointing_hits"),
    "reach": ("input_shares", "place_areas"),
    "result": ("Faithfulness", "Pointing"),
    "saliency": ("METHODS", "PeerUnavailableError"),
    "stability": ("shift_stability", "shifted"),
    "verdict": ("Verdict", "judge"),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
