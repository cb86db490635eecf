"""A check as a page: one file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import importlib.metadata
import io
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import jinja2
from PIL import Image

from qpm_vision.data import UnreadableImageError
from qpm_vision.data_check.check import Check
from qpm_vision.data_check.finding import Seen
from qpm_vision.run_folder import RunFolder

__all__ = ["write_page"]

_SIDE = 112
_WORDS = {"wrong": "Scores or models will be wrong", "doubtful": "Look at this", "note": "Good to know"}


def write_page(check: Check, path: Path) -> None:
    """Write the page; it appears whole or not at all.

    Raises:
        RunFolderError: It cannot be written.
    """
    text = (resources.files(__package__) / "templates" / "check.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    most = max((counts[0] for _, counts in check.classes), default=1)
    page = environment.from_string(text).render(
        check=check,
        words=_WORDS,
        most=max(most, 1),
        totals=[sum(counts[place] for _, counts in check.classes) for place in range(len(check.parts))],
        made=datetime.now(UTC).date().isoformat(),
        version=importlib.metadata.version("qpm"),
        picture=lambda seen: _picture(check, seen),
        classes=sorted(check.classes, key=lambda entry: (-entry[1][0], entry[0])),
    )
    # A file name that is no UTF-8 stands in the page with its odd bytes replaced.
    RunFolder(path.parent).write(path.name, lambda stream: stream.write(page.encode("utf-8", "replace")))


def _picture(check: Check, seen: Seen) -> str | None:
    """An image as an address that holds it; None where it cannot be read any more."""
    if seen.index is None or check.source is None:
        return None
    try:
        image = check.source.images.image(seen.index)
    except UnreadableImageError:
        return None
    if max(image.size) < _SIDE // 2:
        scale = _SIDE // max(image.size)
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    image.thumbnail((_SIDE, _SIDE))
    held = io.BytesIO()
    image.save(held, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode("ascii")
