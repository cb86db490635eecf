"""What was measured about the heat maps of a run, where it was, and of the model that the page shows."""

from __future__ import annotations

from qpm_opt import InvalidInputError
from qpm_vision.faithfulness.result import RESULT, TITLES, Faithfulness
from qpm_vision.faithfulness.verdict import judge
from qpm_vision.model import QPMClassifier
from qpm_vision.report.contents import HeatMapTest
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.training_state import weights_digest

__all__ = ["heat_map_test"]

_NEVER = "Whether the heat maps of this model say what decides has not been measured."
_STALE = "The heat maps were measured before this model was trained again, so that the figures are of another one."
_UNREADABLE = "The heat maps were measured, but the figures cannot be read: damaged, or of another version of qpm."


def heat_map_test(folder: RunFolder, model: QPMClassifier) -> HeatMapTest:
    """What `measure_faithfulness` left in a run; says why there is nothing to show where there is nothing of the model.

    Args:
        folder: Of the run.
        model: Its finished model.
    """
    if not (folder.path / RESULT).exists():
        return HeatMapTest(_NEVER)
    try:
        measured = Faithfulness.from_dict(folder.read_json(RESULT))
    except (RunFolderError, InvalidInputError):
        return HeatMapTest(_UNREADABLE)
    if measured.model != weights_digest(model):
        return HeatMapTest(_STALE)
    return HeatMapTest(None, measured, judge(measured), TITLES)
