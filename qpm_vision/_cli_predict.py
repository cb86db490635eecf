"""What `qpm-vision predict` does; results are written as they come, so that memory does not grow with their number."""

from __future__ import annotations

import codecs
import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from qpm_opt import InvalidInputError, printable
from qpm_vision._image_input import find_images
from qpm_vision._progress import LineReporter, Reporter, make_reporter
from qpm_vision._targets import refuse_inputs
from qpm_vision.data.images import UnreadableImageError
from qpm_vision.predict import Contribution, Prediction, Predictor, load_model
from qpm_vision.run_folder import RunFolder

__all__ = ["predict_images"]

_WIDEST = 40


class _Writer(Protocol):
    def add(self, prediction: Prediction) -> None: ...

    def add_unreadable(self, error: UnreadableImageError) -> None: ...

    def end(self, n_images: int, n_unreadable: int) -> None: ...


def predict_images(
    run: str,
    images: Sequence[str],
    *,
    json_file: str | None = None,
    csv_file: str | None = None,
    device: str = "auto",
    top: int = 2,
    batch_size: int = 32,
    unread: Callable[[], bool] = lambda: False,
) -> int:
    """Classify images and folders of images; print a table where no other result is asked for.

    The JSON file has an object a line (JSON Lines): one for each image, with "error" instead of a class where it cannot
    be read, and a last one with "images" and "unreadable", the numbers of them, which says that the file is complete.

    Args:
        run: The run folder.
        images: Files and folders.
        json_file: Where to write JSON Lines; "-": to standard output.
        csv_file: The same for a table with commas.
        device: Where to compute.
        top: How many of the most likely classes are listed, at least 2.
        batch_size: Images that are computed at once.
        unread: Says whether nobody reads standard output any more; where all results go there, that is the end.

    Returns:
        The exit code: 1 if there was no image that could be read, otherwise 0.

    Raises:
        InvalidInputError: An option is out of range, or both results are to go to the same place.
        RunFolderError: The run has no finished model, or a file cannot be written.
    """
    if top < 2:
        raise InvalidInputError(f"The '--top' option must be at least 2, the class and the runner-up. Got {top}.")
    if json_file is not None and json_file == csv_file:
        raise InvalidInputError(f"The '--json' and '--csv' options must name different files. Got {json_file!r} twice.")
    for target in (json_file, csv_file):
        if target not in (None, "-") and Path(target).exists():
            refuse_inputs(target, run, (file for path in images for file in find_images(path, lambda _: None)))
    predictor = load_model(run, device=device)
    total = sum(1 for path in images for _ in find_images(path, lambda _: None))
    # Kept, because a bar takes the place of sys.stdout while it moves, and prints to its own terminal.
    out = sys.stdout
    # On a terminal the rows are the progress, and a bar would be drawn between them.
    shown = json_file is None and csv_file is None
    rows = out.isatty() and (shown or "-" in (json_file, csv_file))
    report: Reporter = LineReporter(sys.stderr, every=math.inf) if rows else make_reporter()
    with ExitStack() as open_files:
        writers: list[_Writer] = []
        if json_file is not None:
            writers.append(_JsonLines(open_files.enter_context(_opened(json_file, out)), top))
        if csv_file is not None:
            writers.append(_Csv(open_files.enter_context(_opened(csv_file, out)), top))
        if shown:
            writers.append(_Table(out, predictor, top))
        with report:
            printed_only = {json_file, csv_file} <= {None, "-"}
            enough = unread if printed_only else lambda: False
            n_images, n_unreadable = _write(predictor, images, writers, report, total, batch_size, enough)
    for file in (json_file, csv_file):
        if file not in (None, "-"):
            report.message(f"written to {file}")
    return 1 if n_images == n_unreadable else 0


def _write(
    predictor: Predictor,
    images: Sequence[str],
    writers: Sequence[_Writer],
    report: Reporter,
    total: int,
    batch_size: int,
    enough: Callable[[], bool],
) -> tuple[int, int]:
    """Numbers of images, and of those that cannot be read."""
    n_read = n_unreadable = 0

    def on_unreadable(error: UnreadableImageError) -> None:
        nonlocal n_unreadable
        n_unreadable += 1
        report.message(f"cannot be read: {error.path}: {error.reason}")
        for writer in writers:
            writer.add_unreadable(error)

    for prediction in predictor.stream(images, batch_size=batch_size, on_unreadable=on_unreadable):
        n_read += 1
        for writer in writers:
            writer.add(prediction)
        done = n_read + n_unreadable
        report.advance("predicting", done, max(done, total))
        if enough():
            return done, n_unreadable
    n_images = n_read + n_unreadable
    for writer in writers:
        writer.end(n_images, n_unreadable)
    report.message(f"{n_images:,} image{'' if n_images == 1 else 's'}, {n_unreadable:,} of them cannot be read")
    return n_images, n_unreadable


@contextmanager
def _opened(file: str, out: TextIO) -> Iterator[TextIO]:
    """A stream that takes the place of the file when all is written; `out` for "-"."""
    if file == "-":
        yield out
        return
    target = Path(file)
    with RunFolder(target.parent).replacing(target.name) as path, _writing(path) as text:
        yield text


def _writing(path: Path) -> TextIO:
    # Names of files may hold bytes that are no UTF-8: see `utf8`.
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


# -- formats -------------------------------------------------------------------------------------------------------


class _JsonLines:
    def __init__(self, stream: TextIO, top: int) -> None:
        self._stream, self._top = stream, top
        # Elsewhere the escapes of the stream would take the place of characters, and are none of JSON.
        self._ascii = codecs.lookup(stream.encoding or "utf-8").name != "utf-8"

    def add(self, prediction: Prediction) -> None:
        self._line(prediction.to_dict(self._top))

    def add_unreadable(self, error: UnreadableImageError) -> None:
        self._line({"image": str(error.path), "error": error.reason})

    def end(self, n_images: int, n_unreadable: int) -> None:
        self._line({"images": n_images, "unreadable": n_unreadable})

    def _line(self, value: dict[str, Any]) -> None:
        self._stream.write(json.dumps(value, ensure_ascii=self._ascii, allow_nan=False) + "\n")
        self._stream.flush()  # another program may be reading along


class _Csv:
    def __init__(self, stream: TextIO, top: int) -> None:
        self._writer, self._top = csv.writer(stream, lineterminator="\n"), top
        others = [title for place in range(2, top + 1) for title in (f"class_{place}", f"score_{place}")]
        self._columns = ["image", "class", "score", *others, "features", "instead", "error"]
        self._writer.writerow(self._columns)

    def add(self, prediction: Prediction) -> None:
        best = prediction.best(self._top)
        ranked = [cell for name, score, _ in best for cell in (name, score)] + [""] * (2 * (self._top - len(best)))
        found = [_contributions(items, "{:.6g}") for items in (prediction.features, prediction.instead)]
        self._writer.writerow([prediction.image_name, *ranked, *found, ""])

    def add_unreadable(self, error: UnreadableImageError) -> None:
        self._writer.writerow([str(error.path), *[""] * (len(self._columns) - 2), error.reason])

    def end(self, n_images: int, n_unreadable: int) -> None:
        pass


class _Table:
    """Columns of a width that is known before the first image; what is longer pushes its row to the right."""

    def __init__(self, stream: TextIO, predictor: Predictor, top: int) -> None:
        self._stream, self._top = stream, min(top, len(predictor.class_names))
        self._class = min(_WIDEST, max(len("class"), *map(len, predictor.class_names)))
        self._row("image", "class", "score", "runner-up" if top == 2 else "next", "features")

    def add(self, prediction: Prediction) -> None:
        following = ", ".join(f"{name} {score:.1%}" for name, score, _ in prediction.best(self._top)[1:])
        found = _contributions(prediction.features, "{:+.2f}")
        self._row(prediction.image_name, prediction.class_name, f"{prediction.score:.1%}", following, found)

    def add_unreadable(self, error: UnreadableImageError) -> None:
        pass  # said on standard error

    def end(self, n_images: int, n_unreadable: int) -> None:
        pass

    def _row(self, image: str, name: str, score: str, following: str, found: str) -> None:
        width = (self._class + 7) * (self._top - 1)
        row = f"{image:<{_WIDEST}}  {name:<{self._class}}  {score:>6}  {following:<{width}}  {found}"
        self._stream.write(printable(" ".join(row.splitlines())) + "\n")


def _contributions(items: Sequence[Contribution], form: str) -> str:
    return ", ".join(f"{_called(item)}: {form.format(item.contribution)}" for item in items)


def _called(item: Contribution) -> str:
    return str(item.feature) if item.name is None else item.label
