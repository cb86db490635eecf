"""A page about a finished run: what describes each class, what tells classes apart, and where the model errs.

`write_report` makes one HTML file that needs no network, or a folder where images are files of their own. Programs that
serve the page take its parts: `gather_report` returns what it shows as plain data, and `render_page` the page itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpm_vision._lazy import lazy_names

if TYPE_CHECKING:
    from qpm_vision.report.contents import Report
    from qpm_vision.report.gather import gather_report
    from qpm_vision.report.render import Written, render_page
    from qpm_vision.report.write import write_report

__all__ = ["Report", "Written", "gather_report", "render_page", "write_report"]

# Loaded when they are first used: a run keeps what a report needs, with parts of this package.
_HOMES = {
    "contents": ("Report",),
    "gather": ("gather_report",),
    "render": ("Written", "render_page"),
    "write": ("write_report",),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
