"""How far heat maps can be trusted: deletion and insertion, stability under shifts, pointing at known parts.

`measure_faithfulness` does all of it for a run, beside Grad-CAM and integrated gradients where Captum is installed.
"""

from __future__ import annotations

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
