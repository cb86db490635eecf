"""HTML for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpm_opt.solution import Assignment

_MOST_CLASSES = 30


def assignment_table(assignment: Assignment, summary: list[tuple[str, str]]) -> str:
    """A summary, and for the first classes the names of their features."""
    rows = "".join(f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in summary)
    html = f"<table><caption>Assignment by {escape(assignment.solver)}</caption>{rows}</table>"
    if assignment.solution is None:
        return html
    frame = assignment.to_frame()
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(str(name))}</th>"
        f"<td>{escape(', '.join(str(label) for label in frame.columns[row.to_numpy() > 0]))}</td></tr>"
        for name, row in frame.head(_MOST_CLASSES).iterrows()
    )
    more = len(frame) - _MOST_CLASSES
    note = f"<p>… and {more} more classes</p>" if more > 0 else ""
    return f"{html}<details><summary>Features of each class</summary><table>{body}</table>{note}</details>"
