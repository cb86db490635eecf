"""Files that are no part of the data, by kind, each with what to do about it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qpm_vision.data import SkippedImage
from qpm_vision.data.image_folder import ATTRIBUTES_FILE, BOXES_FILE, passed_over
from qpm_vision.data.images import IMAGE_SUFFIXES
from qpm_vision.data_check.finding import Finding, Seen

__all__ = ["LeftOut", "left_out_files", "left_out_findings", "unreadable_files"]

_OTHER_FORMATS = frozenset(
    f".{ending}"
    for ending in (
        *("arw", "cr2", "cr3", "dng", "nef", "orf", "raf", "rw2"),  # of cameras
        *("dds", "eps", "hif", "icns", "ico", "j2k", "jp2", "jxl", "psd", "svg", "tga"),
    )
)
_BY_PROGRAMS = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".directory", "ehthumbs.db"})
_ABOUT_DATA = frozenset({ATTRIBUTES_FILE, BOXES_FILE, "readme.md", "readme.txt", "readme", "license", "license.txt"})
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
_MOST_SNIFFED = 2_000
_MOST_EXAMPLES = 5


@dataclass(frozen=True)
class LeftOut:
    """Files of one kind that are left out.

    Attributes:
        kind: In words.
        count: How many.
        cure: What to do about it; empty where nothing need be done.
        examples: Some of them.
    """

    kind: str
    count: int
    cure: str
    examples: tuple[str, ...]


def left_out_files(root: Path, used: Sequence[Path]) -> tuple[LeftOut, ...]:
    """All files in a folder that are not used, by kind; nothing is decoded."""
    taken = set(map(os.fspath, used))
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    sniffed = 0
    for place, inside, files in os.walk(root):
        inside.sort()
        for file in sorted(files):
            path = Path(place, file)
            if os.fspath(path) in taken:
                continue
            sniffed += 1
            key = _kind(path, root, sniff=sniffed <= _MOST_SNIFFED)
            if key is not None:
                found[key].append(path.relative_to(root).as_posix())
    return _grouped(found)


def unreadable_files(skipped: Iterable[SkippedImage]) -> tuple[LeftOut, ...]:
    """Files that could not be decoded, by reason."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in skipped:
        found[_why(item)].append(str(item.path))
    return _grouped(found)


def left_out_findings(groups: Sequence[LeftOut]) -> list[Finding]:
    """A finding about all kinds together, those with a cure first; none where nothing is left out."""
    if not groups:
        return []
    ordered = sorted(groups, key=lambda group: (not group.cure, -group.count))
    serious = [group for group in ordered if group.cure]
    total = sum(group.count for group in serious or ordered)
    lines = [f"{group.count:,} × {group.kind}, such as {group.examples[0]}." for group in ordered]
    return [
        Finding(
            "left out",
            "doubtful" if serious else "note",
            f"{total:,} file{'' if total == 1 else 's'} left out" + ("" if serious else ", as it should be"),
            "Nothing is learned from these and nothing measured on them: " + " ".join(lines),
            " ".join(dict.fromkeys(group.cure for group in serious)) or "Nothing need be done.",
            {"files": {group.kind: group.count for group in ordered}},
            [[Seen(name, "", "") for name in group.examples] for group in serious],
        )
    ]


def _kind(path: Path, root: Path, *, sniff: bool) -> tuple[str, str] | None:
    name, ending = path.name.lower(), path.suffix.lower()
    inside = path.relative_to(root).parts
    if name in _BY_PROGRAMS or name.startswith("._") or any(part.lower() in ("__macosx", "@eadir") for part in inside):
        return "file that another program left there", ""
    if any(passed_over(part) for part in inside):
        if ending in IMAGE_SUFFIXES | _OTHER_FORMATS:
            return "image with a hidden name (it or its folder begins with a dot)", "Rename hidden images to use them."
        return "hidden file", ""
    if ending in _OTHER_FORMATS and ending not in IMAGE_SUFFIXES:
        return (
            f"image in a format that is not read, {ending}",
            "Convert them, for example with ImageMagick: magick mogrify -format png *" + ending + ".",
        )
    if ending in IMAGE_SUFFIXES:
        return (
            "image that lies in no folder of a class",
            "Move loose images into the folder of their class, and folders beside train/ and test/ into them.",
        )
    if name in _ABOUT_DATA:
        return None
    if sniff and _begins_like_an_image(path):
        return (
            f"image whose name does not say so ({ending or 'no ending'})",
            "Give images an ending such as .jpg or .png.",
        )
    return f"other file, {ending or 'without ending'}", ""


def _why(item: SkippedImage) -> tuple[str, str]:
    if item.path.suffix.lower() in (".heic", ".heif"):
        return "HEIC image", "HEIC: pip install pillow-heif, or convert them to JPEG."
    if "0 bytes" in item.reason:
        return "empty file (0 bytes)", "Copy empty files again from where they come from, or delete them."
    if "not in an image format" in item.reason:
        return "file that ends like an image and is none", "Replace or delete files that are no images."
    if "pixels" in item.reason:
        return "image that is too large", "Scale images that are too large down."
    if "permitted" in item.reason or "exist" in item.reason:
        return f"image that cannot be opened ({item.reason})", "Give yourself the right to read the files."
    return "damaged image", "Copy damaged images again from where they come from, or delete them."


def _begins_like_an_image(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError:
        return False
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    heif = head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"avif")
    return head.startswith(_BEGINNINGS) or webp or heif


def _grouped(found: dict[tuple[str, str], list[str]]) -> tuple[LeftOut, ...]:
    counts = Counter({key: len(paths) for key, paths in found.items()})
    return tuple(
        LeftOut(kind, count, cure, tuple(found[kind, cure][:_MOST_EXAMPLES]))
        for (kind, cure), count in counts.most_common()
    )
