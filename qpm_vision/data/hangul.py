"""Drawing a fine-grained data set out of fonts: Hangul syllables, whose parts (jamo) are shared between classes.

A syllable is an initial, a vowel and often a final, so what classes have in common is known exactly. Training and test
images are drawn with different font faces.
"""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.data._faces import (
    Bitmap,
    Face,
    RejectedFace,
    draw_aligned,
    draw_glyph,
    find_faces,
    open_face,
    sift_faces,
)
from qpm_vision.data._jamo import DRAWING_PIXELS, locate_jamo, needed_drawings
from qpm_vision.data._syllables import Syllable, choose_syllables
from qpm_vision.data.parts import BOXES_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["DEBIAN_FONTS", "DrawingError", "HangulSummary", "draw_hangul"]

_log = logging.getLogger(__name__)

DEBIAN_FONTS: Final = (
    "fonts-nanum",
    "fonts-nanum-extra",
    "fonts-unfonts-core",
    "fonts-unfonts-extra",
    "fonts-baekmuk",
    "fonts-alee",
    "fonts-woowa-bm",
    "fonts-hanazono",
)
"""Debian packages whose fonts draw Hangul."""

_FEWEST_FACES: Final = 4
_SIZES: Final = (8, 1024)
_INK_SHARE: Final = 0.84  # of the side of the square, taken by the longer side of what is drawn
_MARKER: Final = ".qpm-hangul.json"
_WORKSHOP: Final = ".qpm-hangul-drawing"
_PARTS: Final = ("train", "test")
_TABLES: Final = ("attributes.csv", "boxes.csv", "fonts.csv", "README.txt")


class DrawingError(QPMError):
    """The images could not be written."""


@dataclass(frozen=True)
class HangulSummary:
    """What was drawn.

    Attributes:
        folder: Where it lies.
        syllables: The classes.
        train_faces: Names of the faces whose images are for training.
        test_faces: Names of the faces that were held out.
        rejected: Faces that were not used, and why.
    """

    folder: Path
    syllables: tuple[Syllable, ...]
    train_faces: tuple[str, ...]
    test_faces: tuple[str, ...]
    rejected: tuple[RejectedFace, ...]

    @property
    def n_train(self) -> int:
        """Number of training images."""
        return len(self.syllables) * len(self.train_faces)

    @property
    def n_test(self) -> int:
        """Number of test images."""
        return len(self.syllables) * len(self.test_faces)

    def __str__(self) -> str:
        return (
            f"{self.folder}: {len(self.syllables)} syllables, {self.n_train:,} training images "
            f"({len(self.train_faces)} faces) and {self.n_test:,} test images ({len(self.test_faces)} other faces); "
            f"{len(self.rejected)} faces not used (see fonts.csv)"
        )


def draw_hangul(
    out: str | os.PathLike[str],
    *,
    n_classes: int = 200,
    size: int = 64,
    seed: int = 0,
    test_every: int = 4,
    font_folders: Iterable[str | os.PathLike[str]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> HangulSummary:
    """Draw Hangul syllables with every installed font face that has them, as a folder that `load_data` reads.

    Black on white, anti-aliased, the longer side of each syllable filling 84 % of the square. Faces are split, not
    images: of the faces sorted by name, every `test_every`-th is drawn for testing only. Weights of one family may
    be on both sides. Beside `train/` and `test/` there are `attributes.csv` (the jamo of each class), `boxes.csv`
    (where they are in each image, as far as that can be told from what the face draws for other syllables),
    `fonts.csv` (every face, its part, or why it was not used) and `README.txt`.

    An earlier drawing in the same folder is replaced once the new one is complete.

    Args:
        out: The folder to make; new, empty, or drawn by this function.
        n_classes: Number of syllables, 2 … 11,172.
        size: Side of the images in pixels, 8 … 1024.
        seed: Of the choice of syllables.
        test_every: Which faces are held out, at least 2.
        font_folders: Where to look for .ttf, .otf and .ttc files; by default where systems keep fonts.
        progress: Called with the number of faces done and of all, first while looking at them, then while drawing.

    Raises:
        InvalidInputError: An argument is out of range, the folder holds other things, or there are too few faces.
        DrawingError: The images cannot be written.
    """
    _check_whole("size", size, *_SIZES)
    _check_whole("test_every", test_every, 2, None)
    _check_whole("seed", seed, 0, None)
    syllables = choose_syllables(n_classes, seed)
    root = Path(out).expanduser()
    _refuse_foreign_content(root)
    faces, unopened = find_faces(font_folders)
    kept, faulty = sift_faces(faces, [syllable.text for syllable in syllables], progress=progress)
    rejected = (*unopened, *faulty)
    _log.info("%d faces draw all %d syllables, %d do not", len(kept), len(syllables), len(rejected))
    _refuse_few_faces(kept, rejected, test_every)
    part_of = {face.name: _PARTS[position % test_every == test_every - 1] for position, face in enumerate(kept)}
    workshop = root / _WORKSHOP
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clear(workshop)
        for part in _PARTS:
            for syllable in syllables:
                (workshop / part / syllable.class_name).mkdir(parents=True)
        compared = needed_drawings(syllables)
        boxes: list[Sequence[object]] = []
        for done, face in enumerate(kept, 1):
            boxes += _draw_face(workshop, part_of[face.name], face, syllables, compared, size)
            if progress is not None:
                progress(done, len(kept))
        _write_csv(workshop / "boxes.csv", BOXES_COLUMNS, boxes)
        _write_attributes(workshop / "attributes.csv", syllables)
        _write_fonts(workshop / "fonts.csv", kept, part_of, rejected)
        (workshop / "README.txt").write_text(_readme(syllables, part_of, size, seed, test_every), encoding="utf-8")
        _move_in(root, workshop, syllables, part_of)
    except OSError as error:
        raise DrawingError(_cannot_write(root, error)) from error
    finally:
        # Nothing is left of it after success; after an error or Ctrl-C it is of no use.
        shutil.rmtree(workshop, ignore_errors=True)
    return HangulSummary(
        folder=root,
        syllables=syllables,
        train_faces=tuple(name for name, part in part_of.items() if part == "train"),
        test_faces=tuple(name for name, part in part_of.items() if part == "test"),
        rejected=rejected,
    )


# -- refusing ------------------------------------------------------------------------------------------------------


def _check_whole(name: str, value: int, least: int, most: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"in {least} … {most}"
        raise InvalidInputError(f"The '{name}' parameter must be a whole number {span}. Got {value!r}.")


def _refuse_foreign_content(root: Path) -> None:
    """Refuse a folder with anything in it that was not drawn here, before a font is opened or a file removed."""
    if root.exists() and not root.is_dir():
        raise InvalidInputError(
            f"The 'out' parameter must be a folder. Got the file {str(root)!r}; choose another name."
        )
    if not root.is_dir():
        return
    try:
        drawn = _drawn_files(root)
        foreign = next(
            (path for path in sorted(_content(root)) if path not in drawn and path.parts[0] != _WORKSHOP), None
        )
    except OSError as error:
        raise InvalidInputError(f"The 'out' parameter must be a folder that can be read. Got: {error}.") from error
    if foreign is not None:
        raise InvalidInputError(
            "The 'out' parameter must be a new or empty folder, or one that holds nothing but an earlier drawing. "
            f"Got {str(root)!r} with {foreign.as_posix()!r} in it; choose another folder, or move that away."
        )


def _content(root: Path) -> set[Path]:
    """Files and empty folders inside, relative."""
    found = set()
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        # A link to a folder is listed as a folder but not entered: it was not drawn, so it is foreign.
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found |= {here / name for name in [*files, *links]}
        if not folders and not files and here != Path():
            found.add(here)
    return found


def _drawn_files(root: Path) -> set[Path]:
    """What an earlier drawing put into the folder, by its own record."""
    try:
        record: Any = json.loads((root / _MARKER).read_text(encoding="utf-8"))
        classes, faces = record["classes"], record["faces"]
        images = {Path(part) / class_name / f"{name}.png" for class_name in classes for name, part in faces.items()}
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s is damaged and taken for a foreign file", root / _MARKER)
        return set()
    # The folders too: they may be empty after somebody has removed images.
    folders = {Path(part) / class_name for class_name in classes for part in _PARTS} | {Path(part) for part in _PARTS}
    return images | folders | {Path(name) for name in (_MARKER, *_TABLES)}


def _refuse_few_faces(kept: Sequence[Face], rejected: Sequence[RejectedFace], test_every: int) -> None:
    if len(kept) < _FEWEST_FACES:
        reason = f", for example {rejected[-1].face.file.name}: {rejected[-1].reason}" if rejected else ""
        raise InvalidInputError(
            f"At least {_FEWEST_FACES} font faces must draw all syllables. Got {len(kept)}, and {len(rejected)} that "
            f"do not{reason}. Install fonts, on Debian: apt-get install {' '.join(DEBIAN_FONTS)}."
        )
    if test_every > len(kept):
        raise InvalidInputError(
            f"The 'test_every' parameter must be at most the number of faces, {len(kept)}. Got {test_every}."
        )


def _cannot_write(root: Path, error: OSError) -> str:
    text = error.strerror or str(error)
    remedies = {
        errno.ENOSPC: "Free some space, or choose a folder on another disk",
        errno.EDQUOT: "Free some of your quota, or choose a folder on another disk",
    }
    remedy = remedies.get(error.errno or 0, "Choose a folder that can be written to")
    return (
        f"The images cannot be written into {str(root)!r}: {text}. {remedy}; "
        "an earlier drawing is only replaced by a complete one."
    )


# -- drawing -------------------------------------------------------------------------------------------------------


def _draw_face(
    workshop: Path, part: str, face: Face, syllables: Sequence[Syllable], compared: Sequence[str], size: int
) -> list[Sequence[object]]:
    """Write the images of a face; returns rows for the table of boxes."""
    # Drawn larger than needed, so that scaling to the same share of the square never enlarges.
    font = open_face(face, max(48, 2 * size))
    located = locate_jamo(draw_aligned(open_face(face, DRAWING_PIXELS), compared), syllables)
    rows: list[Sequence[object]] = []
    for syllable in syllables:
        name = f"{part}/{syllable.class_name}/{face.name}.png"
        ink = draw_glyph(font, syllable.text)
        _compose(ink, size).save(workshop / name)
        left, top, width, height = _fitted(ink.shape, size)
        for kind, box in located.get(syllable.text, {}).items():
            edges = (left + box[0] * width, top + box[1] * height, left + box[2] * width, top + box[3] * height)
            rows.append((name, kind, *(f"{edge:.1f}" for edge in edges)))
    return rows


def _compose(ink: Bitmap, size: int) -> Image.Image:
    """Black on white, in the middle, the longer side filling the same share of a square: mode L."""
    left, top, width, height = _fitted(ink.shape, size)
    paper = Image.new("L", (size, size), 255)
    dark = Image.fromarray(255 - ink).resize((width, height), Image.Resampling.LANCZOS)
    paper.paste(dark, (left, top))
    return paper


def _fitted(shape: tuple[int, ...], size: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of ink of this shape (h, w) in the square."""
    height, width = shape
    scale = _INK_SHARE * size / max(height, width)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    return (size - fitted[0]) // 2, (size - fitted[1]) // 2, *fitted


# -- writing -------------------------------------------------------------------------------------------------------


def _write_attributes(path: Path, syllables: Sequence[Syllable]) -> None:
    rows = [(syllable.class_name, syllable.initial, syllable.vowel, syllable.final) for syllable in syllables]
    _write_csv(path, ("class", "initial", "vowel", "final"), rows)


def _write_fonts(path: Path, kept: Sequence[Face], part_of: dict[str, str], rejected: Sequence[RejectedFace]) -> None:
    rows = [(face.name, str(face.file), face.index, part_of[face.name], "") for face in kept]
    rows += [(item.face.name, str(item.face.file), item.face.index, "rejected", item.reason) for item in rejected]
    _write_csv(path, ("face", "file", "index", "split", "reason"), rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _readme(syllables: Sequence[Syllable], part_of: dict[str, str], size: int, seed: int, test_every: int) -> str:
    counts = {part: sum(value == part for value in part_of.values()) for part in _PARTS}
    jamo = {kind: len({getattr(syllable, kind) for syllable in syllables}) for kind in ("initial", "vowel", "final")}
    made_of = f"{jamo['initial']} initials, {jamo['vowel']} vowels and {jamo['final']} finals (none counted as one)"
    return f"""Hangul syllables drawn with installed fonts, a data set for fine-grained classification
with known attributes.

{len(syllables)} classes out of {made_of};
images of {size}×{size} pixels.

train/CLASS/FACE.png   {counts["train"]} font faces
test/CLASS/FACE.png    {counts["test"]} other font faces: of all sorted by name, each at a multiple of {test_every}
attributes.csv         initial, vowel and final of each class
boxes.csv              where they are in each image, in pixels; images in which that is not certain are missing
fonts.csv              every font face found: its file, and its part or why it was not used

No face is in both parts, but weights of one family can be. Drawn with seed {seed}.
The images are made by qpm_vision.data.draw_hangul; the fonts keep their own licences.
"""


def _move_in(root: Path, workshop: Path, syllables: Sequence[Syllable], part_of: dict[str, str]) -> None:
    """Replace an earlier drawing by the finished one."""
    record = {"classes": [syllable.class_name for syllable in syllables], "faces": part_of}
    (workshop / _MARKER).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    for name in (*_PARTS, *_TABLES):
        _clear(root / name)
    # The record first: if the rest is interrupted, the next run still knows the files for its own.
    for name in (_MARKER, *_TABLES, *_PARTS):
        (workshop / name).replace(root / name)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
