"""A local web page for one run: try out a steering, see what it changes, keep it as a file; read the report."""

from __future__ import annotations

from qpm_vision.server.app import make_app
from qpm_vision.server.listen import serve

__all__ = ["make_app", "serve"]
