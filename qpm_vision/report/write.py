"""A report from a run folder to a file or a folder."""

from __future__ import annotations

import os
from pathlib import Path

from qpm_opt import InvalidInputError
from qpm_vision._progress import Reporter
from qpm_vision.data import ImageData
from qpm_vision.report.gather import gather_report
from qpm_vision.report.render import Written, refuse_foreign_folder, save_file, save_folder
from qpm_vision.run_folder import RunFolder

__all__ = ["write_report"]

_PAGE = "report.html"
_FOLDER = "report"
_ENDINGS = (".html", ".htm")


def write_report(
    run: RunFolder | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    folder: bool = False,
    images: str = "train",
    max_classes: int | None = None,
    data: ImageData | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Written:
    """Write a page about a finished run: classes, features, what tells classes apart, where the model errs.

    Args:
        run: The run folder.
        out: A file that ends in .html, which then holds everything, or a folder, where images are files of their own;
            by default `report.html` in the run folder.
        folder: Write a folder; by default `report` in the run folder.
        images: "train" or "test": which images to show.
        max_classes: Classes to show pictures of, those that are confused most; None for all.
        data: The data of the run; loaded again by default, which needs them at the same place.
        device: Where to compute.
        reporter: Told about progress; nobody by default.

    Returns:
        Where it is, and how large.

    Raises:
        InvalidInputError: An argument is out of range, or the data have changed since.
        RunFolderError: The run is not finished or damaged, or the page cannot be written.
    """
    place = RunFolder.open(run)
    named_file = out is not None and Path(out).suffix.lower() in _ENDINGS
    if folder and named_file:
        raise InvalidInputError(
            f"The 'out' parameter must name a folder if a folder is to be written. Got {str(out)!r}; leave .html out."
        )
    as_folder = folder or (out is not None and not named_file)
    target = Path(out) if out is not None else place.path / (_FOLDER if as_folder else _PAGE)
    if as_folder:
        refuse_foreign_folder(target)  # before the work, not after it
    report = gather_report(place, images=images, max_classes=max_classes, data=data, device=device, reporter=reporter)
    return save_folder(report, target) if as_folder else save_file(report, target)
