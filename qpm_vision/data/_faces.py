"""Font faces that truly draw Hangul.

Whether a face draws a syllable is seen from what it draws: character tables promise glyphs that turn out to be boxes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import struct
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from qpm_opt import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Face", "RejectedFace", "draw_aligned", "draw_glyph", "find_faces", "glyph_fault", "open_face", "sift_faces"]

_log = logging.getLogger(__name__)

_FOLDERS: Final = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
_SUFFIXES: Final = frozenset({".otf", ".ttc", ".ttf", ".otc"})
_MOST_IN_COLLECTION: Final = 256
_CHECK_PIXELS: Final = 96
_ABSENT: Final = "\U0010ffff"  # no character, so every font draws what it draws for characters it lacks

Bitmap = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Face:
    """A face of a font file.

    Attributes:
        name: Family and style, in ASCII letters, digits and hyphens; unique among faces that are used.
        file: The font file.
        index: Position of the face in a collection, else 0.
    """

    name: str
    file: Path
    index: int


@dataclass(frozen=True)
class RejectedFace:
    """A face that is not used, and why."""

    face: Face
    reason: str


def find_faces(folders: Iterable[str | os.PathLike[str]] | None = None) -> tuple[list[Face], list[RejectedFace]]:
    """All faces in all font files below these folders, and files that cannot be opened; sorted by file and index.

    Args:
        folders: Where to look; by default where systems keep fonts.

    Raises:
        InvalidInputError: A given folder is missing.
    """
    faces: list[Face] = []
    rejected: list[RejectedFace] = []
    for file in sorted(_font_files(folders)):
        try:
            count = _faces_in(file)
        except OSError as error:
            rejected.append(RejectedFace(Face(_slug(file.stem), file, 0), _cannot_open(error)))
            continue
        for index in range(count):
            face = Face(_slug(file.stem), file, index)
            try:
                family, style = open_face(face, _CHECK_PIXELS).getname()
            except (OSError, ValueError) as error:
                rejected.append(RejectedFace(face, _cannot_open(error)))
                if index == 0:
                    break  # the file is damaged, and so is what it says about the number of its faces
                continue
            faces.append(replace(face, name=_slug(f"{family or file.stem}-{style or 'Regular'}")))
    return faces, rejected


def sift_faces(
    faces: Sequence[Face],
    syllables: Sequence[str],
    *,
    draw: Callable[[Face, Sequence[str]], Iterator[Bitmap]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Face], list[RejectedFace]]:
    """Faces that draw every syllable and each differently, without copies of one another; sorted by name.

    Args:
        faces: Candidates. Of copies the first is kept.
        syllables: Characters that must be drawn.
        draw: Draws texts with a face, one (h, w) uint8 bitmap of the ink alone for each; Pillow by default.
        progress: Called with the number of candidates looked at and of all.
    """
    kept: list[Face] = []
    rejected: list[RejectedFace] = []
    first_with: dict[bytes, Face] = {}
    for done, face in enumerate(faces, 1):
        try:
            fault, digest = glyph_fault(syllables, (draw or _draw_all)(face, [_ABSENT, *syllables]))
        except (OSError, ValueError) as error:
            fault, digest = f"it cannot be drawn with ({error})", b""
        if fault is None and digest in first_with:
            fault = f"it draws every syllable like {first_with[digest].name} ({first_with[digest].file.name})"
        if fault is None:
            first_with[digest] = face
            kept.append(face)
        else:
            _log.debug("%s, face %d: %s", face.file, face.index, fault)
            rejected.append(RejectedFace(face, fault))
        if progress is not None:
            progress(done, len(faces))
    return _uniquely_named(kept), rejected


def glyph_fault(syllables: Sequence[str], bitmaps: Iterable[Bitmap]) -> tuple[str | None, bytes]:
    """What is wrong with how syllables are drawn (None: nothing), and a digest of all drawings.

    Args:
        syllables: Characters.
        bitmaps: First what is drawn for a character that no font has, then one (h, w) uint8 bitmap per syllable,
            cut to its ink. They are drawn one by one, and not beyond the first fault.
    """
    drawings = iter(bitmaps)
    box = _fingerprint(next(drawings))
    seen: dict[bytes, str] = {}
    everything = hashlib.sha256()
    for syllable, bitmap in zip(syllables, drawings, strict=True):
        called = f"U+{ord(syllable):04X} {syllable}"
        if not bitmap.size or not bitmap.any():
            return f"it draws nothing for {called}", b""
        fingerprint = _fingerprint(bitmap)
        if fingerprint == box:
            return f"it lacks {called} and draws a stand-in", b""
        if fingerprint in seen:
            return f"it draws {called} like {seen[fingerprint]}", b""
        seen[fingerprint] = called
        everything.update(fingerprint)
    return None, everything.digest()


def open_face(face: Face, pixels: int) -> ImageFont.FreeTypeFont:
    """The face at this size.

    Raises:
        OSError: The file cannot be read or has no outlines.
    """
    return ImageFont.truetype(str(face.file), pixels, index=face.index, layout_engine=ImageFont.Layout.BASIC)


def draw_glyph(font: ImageFont.FreeTypeFont, text: str) -> Bitmap:
    """What a font draws, cut to its ink: (h, w) uint8, 255 is ink; (0, 0) if there is none."""
    left, top, right, bottom = font.getbbox(text)
    width, height = int(right - left) + 4, int(bottom - top) + 4
    if width <= 4 or height <= 4:
        return np.zeros((0, 0), dtype=np.uint8)
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), text, fill=255, font=font)
    box = canvas.getbbox()
    return np.zeros((0, 0), dtype=np.uint8) if box is None else np.asarray(canvas.crop(box))


def draw_aligned(font: ImageFont.FreeTypeFont, texts: Sequence[str]) -> dict[str, Bitmap]:
    """What a font draws from the same origin on a canvas that takes all: (h, w) uint8 for each text, 255 is ink.

    Texts for which it draws nothing, or the stand-in for a character that it lacks, are left out.
    """
    texts = [_ABSENT, *texts]
    edges = np.array([font.getbbox(text) for text in texts])
    left, top = (int(edge) - 2 for edge in edges[:, :2].min(axis=0))
    right, bottom = (int(edge) + 2 for edge in edges[:, 2:].max(axis=0))
    drawn = {}
    for text in texts:
        canvas = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(canvas).text((-left, -top), text, fill=255, font=font)
        drawn[text] = np.asarray(canvas)
    stand_in = drawn.pop(_ABSENT)
    return {text: bitmap for text, bitmap in drawn.items() if bitmap.any() and not np.array_equal(bitmap, stand_in)}


def _draw_all(face: Face, texts: Sequence[str]) -> Iterator[Bitmap]:
    font = open_face(face, _CHECK_PIXELS)
    return (draw_glyph(font, text) for text in texts)


def _fingerprint(bitmap: Bitmap) -> bytes:
    return hashlib.sha256(repr(bitmap.shape).encode() + bitmap.tobytes()).digest()


def _font_files(folders: Iterable[str | os.PathLike[str]] | None) -> set[Path]:
    places = [Path(folder).expanduser() for folder in (_FOLDERS if folders is None else folders)]
    if folders is not None:
        missing = [str(place) for place in places if not place.is_dir()]
        if missing:
            raise InvalidInputError(f"The 'font_folders' parameter must list folders. Got {missing[0]!r}, no folder.")
    # A link and the file that it leads to are one font.
    return {
        (Path(folder) / name).resolve()
        for place in places
        for folder, _, names in os.walk(place)
        for name in names
        if Path(name).suffix.lower() in _SUFFIXES
    }


def _faces_in(file: Path) -> int:
    with file.open("rb") as stream:
        start = stream.read(12)
    if start[:4] != b"ttcf" or len(start) < 12:
        return 1
    count: int = struct.unpack(">I", start[8:])[0]
    return min(count, _MOST_IN_COLLECTION)


def _cannot_open(error: Exception) -> str:
    return f"the file cannot be opened ({error})"


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-") or "font"


def _uniquely_named(faces: Sequence[Face]) -> list[Face]:
    """Faces sorted by name, with numbers behind names that occur several times."""
    # Compared without case: file systems may not tell Gothic.png from gothic.png.
    taken: set[str] = set()
    result = []
    for face in sorted(faces, key=lambda face: (face.name.casefold(), face.name, face.file.name, face.index)):
        name, number = face.name, 2
        while name.casefold() in taken:
            name, number = f"{face.name}-{number}", number + 1
        taken.add(name.casefold())
        result.append(replace(face, name=name))
    return sorted(result, key=lambda face: (face.name.casefold(), face.name))
