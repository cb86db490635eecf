"""From what a page shows to HTML: one file with everything in it, or a folder where images are files of their own."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from qpm_opt import InvalidInputError
from qpm_vision._text import utf8
from qpm_vision.explain.colours import PALETTE
from qpm_vision.report.contents import Report
from qpm_vision.report.pictures import Picture
from qpm_vision.run_folder import RunFolder, RunFolderError

__all__ = ["Written", "refuse_foreign_folder", "render_page", "save_file", "save_folder"]

_VIEWS = (
    "overview",
    "features",
    "feature",
    "classes",
    "class",
    "pair",
    "images",
    "image",
    "faithfulness",
    "optimisation",
    "missing",
)
_SCRIPT = (
    "dom.js",
    "data.js",
    "pictures.js",
    "parts.js",
    "charts.js",
    "tools.js",
    "views/overview.js",
    "views/matrix.js",
    "views/features.js",
    "views/classes.js",
    "views/pair.js",
    "views/images.js",
    "views/faithfulness.js",
    "views/optimisation.js",
    "search.js",
    "main.js",
)
_INDEX = "index.html"
_IMAGES = "images"
_MARK = '<meta name="generator" content="qpm '
"""What a page of ours begins with, so that a folder is never taken for one of ours that is not."""


@dataclass(frozen=True)
class Written:
    """A report on disk.

    Attributes:
        path: The page.
        n_bytes: Size of the page and its images.
        n_images: Images that are files of their own.
    """

    path: Path
    n_bytes: int
    n_images: int

    def __str__(self) -> str:
        size = f"{self.n_bytes / 1e6:.1f} MB" if self.n_bytes >= 1e5 else f"{self.n_bytes / 1e3:.0f} kB"
        return f"{self.path} ({size}{f' with {self.n_images:,} images' if self.n_images else ''})"


def render_page(report: Report, *, inline: bool = True) -> Iterator[str]:
    """The page, in pieces.

    Args:
        report: What it shows.
        inline: Whether images are part of it; otherwise it looks for them in the folder `images` beside it, by the keys
            of `report.images`.

    A program that serves the page may put a script behind it. It finds `window.qpmReport`: to put controls on the cards
    and pages of features and on the pages of classes it adds functions to `tools.card`, `tools.feature` and
    `tools.class`, which get a position and return an element, and calls `refresh`.
    """
    assets = resources.files(__package__) / "assets"
    script = "\n".join(assets.joinpath("script", *name.split("/")).read_text(encoding="utf-8") for name in _SCRIPT)
    budgets = sorted({len(entry.features) for entry in report.classes})
    values: dict[str, Any] = {
        "report": report,
        "per_class": str(budgets[0]) if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]}",
        "views": _VIEWS,
        "style": Markup((assets / "report.css").read_text(encoding="utf-8")),
        "script": Markup(f'(() => {{\n"use strict";\n{script}\n}})();'),
        "data": htmlsafe_json_dumps(
            {**report.to_dict(), "palette": PALETTE}, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ),
        "pictures": (_encoded(picture, inline) for picture in report.pictures),
    }
    return _environment().get_template("report.html.j2").generate(values)


def save_file(report: Report, path: str | os.PathLike[str]) -> Written:
    """Write the page with everything in it; it appears whole or not at all.

    Raises:
        RunFolderError: It cannot be written.
    """
    target = Path(path)
    RunFolder(target.parent).write(target.name, lambda stream: _write(render_page(report), stream))
    return Written(target, target.stat().st_size, 0)


def save_folder(report: Report, path: str | os.PathLike[str]) -> Written:
    """Write the page into a folder, with its images beside it; a report that was there before is replaced at the end.

    Raises:
        InvalidInputError: The folder holds something else.
        RunFolderError: It cannot be written.
    """
    target = Path(path)
    refuse_foreign_folder(target)
    made: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=".writing-"))
        made.chmod(0o755)
        n_bytes = _fill(report, made)
        _take_place(made, target)
    except OSError as error:
        raise RunFolderError(
            f"Cannot write {str(target)!r}: {error.strerror or error}. What was there before is untouched."
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    return Written(target / _INDEX, n_bytes, len(report.pictures))


def _take_place(made: Path, target: Path) -> None:
    """Put a new folder in the place of another one, or of none."""
    if not target.exists():
        made.rename(target)
        return
    old = made.with_name(made.name + "-old")
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(report: Report, folder: Path) -> int:
    """Write page and images; returns their size."""
    images = folder / _IMAGES
    images.mkdir()
    n_bytes = 0
    for entry, picture in zip(report.images, report.pictures, strict=True):
        n_bytes += (images / f"{entry.key}.{report.maps.image}").write_bytes(picture.thumbnail)
    with (folder / _INDEX).open("wb") as stream:
        return n_bytes + _write(render_page(report, inline=False), stream)


def refuse_foreign_folder(folder: Path) -> None:
    """Raise where something else than a report is in the place of one.

    Raises:
        InvalidInputError: There is.
    """
    if not folder.exists():
        return
    try:
        if folder.is_dir() and not any(folder.iterdir()):
            return
        with (folder / _INDEX).open(encoding="utf-8") as stream:
            ours = _MARK in stream.read(2000)
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise InvalidInputError(
            f"The 'out' parameter must name a new or empty folder, or one with an earlier report. Got {str(folder)!r}, "
            "which holds something else; choose another folder."
        )


def _write(pieces: Iterator[str], stream: Any) -> int:
    return sum(stream.write(utf8(piece)) for piece in pieces)


def _encoded(picture: Picture, inline: bool) -> str:
    """Image, maps and contributions as base64 with spaces between them."""
    parts = (picture.thumbnail if inline else b"", picture.maps, picture.contributions)
    return " ".join(base64.b64encode(part).decode("ascii") for part in parts)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("qpm_vision.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
