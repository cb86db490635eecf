"""Searches for the assignment that a steering leads to."""

from __future__ import annotations

from typing import Any

from qpm_opt import Progress
from qpm_vision.run_folder import RunFolder
from qpm_vision.server.jobs import Tell
from qpm_vision.steered_run import propose_steering
from qpm_vision.steering import Steering

__all__ = ["MOST_RUNNING", "search"]

MOST_RUNNING = 2
"""Searches at the same time, such as those of two tabs."""


def search(folder: RunFolder, steering: Steering, seconds: float, tell: Tell) -> dict[str, Any]:
    """Solve again as a steering wants it.

    Args:
        folder: The run.
        steering: What is to change.
        seconds: Time limit.
        tell: Told time, objective, bound, gap and message of the solver.

    Returns:
        `Steered.to_dict`.

    Raises:
        QPMError: No assignment can satisfy the steering, or none was found.
    """

    def look(state: Progress) -> None:
        tell({name: getattr(state, name) for name in ("time", "objective", "bound", "gap", "message")})

    return propose_steering(folder, steering, time_limit=seconds, progress=look).to_dict()
