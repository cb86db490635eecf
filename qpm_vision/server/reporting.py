"""The report of the run: whether it is there, and writing it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from qpm_vision._progress import SilentReporter
from qpm_vision.report import write_report
from qpm_vision.run_folder import RunFolder
from qpm_vision.server.jobs import Tell

__all__ = ["MOST_WRITING", "report_file", "report_state", "write"]

MOST_WRITING = 1
"""Reports that are written at the same time."""

_LAST_STAGE = "explanation"


def report_file(folder: RunFolder) -> Path:
    """Where the report lies, or would lie."""
    return folder.path / "report.html"


def report_state(folder: RunFolder) -> dict[str, bool]:
    """Whether there is a report, whether the run was finished anew since, and whether one can be written."""
    path, last = report_file(folder), folder.stages().get(_LAST_STAGE)
    there = path.is_file()
    outdated = there and last is not None and path.stat().st_mtime < datetime.fromisoformat(last.finished).timestamp()
    return {"there": there, "outdated": outdated, "possible": last is not None}


def write(folder: RunFolder, tell: Tell) -> dict[str, Any]:
    """Write the report, in the place of an earlier one.

    Args:
        folder: The run.
        tell: Told the task under way, and how many of how many of its images are done.

    Raises:
        QPMError: The run is not finished, or its images are no longer where they were.
    """
    return {"written": str(write_report(folder, report_file(folder), reporter=_Teller(tell)))}


class _Teller(SilentReporter):
    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        self._tell({"task": task, "done": done, "total": total, "detail": detail})
