"""The check of a data source: everything is looked at once, and findings are made of what was seen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError
from qpm_vision.data import ImageData, JoinedImages
from qpm_vision.data._split import check_split, stratified_split
from qpm_vision.data_check.counts import count_findings
from qpm_vision.data_check.finding import Finding, Seen, sorted_findings
from qpm_vision.data_check.giveaways import RULE, find_giveaways
from qpm_vision.data_check.left_out import left_out_findings, unreadable_files
from qpm_vision.data_check.looks import Looks, look_at
from qpm_vision.data_check.similar import MOST_BITS, NEAR, near_pairs, same_pictures
from qpm_vision.data_check.source import UNDIVIDED, Source, read_source, told_unreadable
from qpm_vision.data_check.twins import twin_findings
from qpm_vision.run_folder import RunFolder

__all__ = ["CHECK", "Check", "check_data", "quick_check", "read_check"]

CHECK = "check.json"
"""What a run folder has of a check: of names and numbers, or a full one that was put there."""


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        name: Of the data.
        complete: Whether all images were looked at; else only names and numbers.
        images: Images that can be read.
        parts: Names of the parts, "train" and "test" first.
        classes: Of each class, its name and its images in each part.
        findings: What matters most first.
        rules: How images were judged, in words.
        seconds: That it took.
        source: Where the images are from; None where only names and numbers were looked at.
    """

    name: str
    complete: bool
    images: int
    parts: list[str]
    classes: list[tuple[str, list[int]]]
    findings: list[Finding]
    rules: list[str]
    seconds: float
    source: Source | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "format": "qpm-data-check-1",
            "name": self.name,
            "complete": self.complete,
            "images": self.images,
            "parts": self.parts,
            "classes": [{"name": name, "images": dict(zip(self.parts, n, strict=True))} for name, n in self.classes],
            "findings": [finding.to_dict() for finding in self.findings],
            "rules": self.rules,
            "seconds": round(self.seconds, 3),
        }


def check_data(
    spec: str,
    *,
    test_share: float = 0.25,
    validation_share: float = 0.0,
    seed: int = 0,
    on_images: Callable[[int, int], None] | None = None,
) -> Check:
    """Look at all images of a data source.

    Args:
        spec: What `load_data` takes.
        test_share: Part of each class that training would keep for testing, where the data come undivided.
        validation_share: Part of the training images that it would set aside.
        seed: Of that division.
        on_images: Called with the number of images seen so far and the number of all.

    Raises:
        InvalidInputError: There are no such data, or none of the images can be read.
    """
    began = time.perf_counter()
    check_split(test_share, seed)
    source = read_source(spec, test_share=test_share, seed=seed)
    n = len(source.images)
    looks = look_at(source.images, None if on_images is None else lambda done: on_images(done, n))
    readable = np.array([position not in looks.reasons for position in range(n)], dtype=bool)
    if not readable.any():
        raise InvalidInputError(
            f"The data {spec!r} must hold images that can be read. Got {n}, none of which can; the first: "
            f"{source.images.name(0)} ({looks.reasons[0]})."
        )
    parts = _divided(source, readable, test_share, seed)
    labels = source.images.labels
    counts = np.stack(
        [
            np.bincount(labels[readable & (parts == part)], minlength=len(source.class_names))
            for part in range(len(source.part_names))
        ]
    )
    findings = [
        *count_findings(counts, source, validation_share=validation_share),
        *twin_findings(same_pictures(looks.digests), near_pairs(looks.hashes, looks.small), source, parts),
        *find_giveaways(looks, labels, np.flatnonzero(readable & (parts == 0)), source.class_names),
        *left_out_findings([*source.left_out, *told_unreadable(looks.reasons, source.images)]),
        *_wrong_endings(looks, source),
    ]
    return Check(
        source.name,
        True,
        int(readable.sum()),
        list(source.part_names),
        _classes(source.class_names, counts),
        sorted_findings(findings),
        [_TWINS, f"Giveaways: {RULE}"],
        time.perf_counter() - began,
        source,
    )


def quick_check(data: ImageData, spec: str | None, *, validation_share: float = 0.0) -> Check:
    """What names and numbers say, without decoding an image: for the moment before a training.

    Args:
        data: The images as training has them.
        spec: Where they were loaded from, to see which files are left out; None where nothing says so.
        validation_share: Share of the training images that was set aside.
    """
    began = time.perf_counter()
    train = data.train if data.validation is None else JoinedImages(data.train, data.validation)
    images = JoinedImages(train, data.test)
    parts = np.repeat([0, 1], [len(train), len(data.test)])
    left_out = unreadable_files(data.skipped)
    tested_on: str | None = None
    extra: tuple[str, ...] = ()
    nested = 0
    known = None if spec is None else _folder_of(spec)
    if known is not None:
        left_out = (*known.left_out, *left_out)
        tested_on, extra, nested = known.tested_on, known.part_names[2:], known.nested
    source = Source(data.name, images, parts, ("train", "test", *extra), data.class_names, left_out, tested_on, nested)
    labels = images.labels
    counts = np.stack([np.bincount(labels[parts == part], minlength=len(data.class_names)) for part in range(2)])
    findings = [
        *count_findings(counts, source, validation_share=validation_share),
        *left_out_findings(left_out),
    ]
    return Check(
        data.name,
        False,
        len(images),
        ["train", "test"],
        _classes(data.class_names, counts),
        sorted_findings(findings),
        [],
        time.perf_counter() - began,
    )


def read_check(folder: RunFolder) -> dict[str, Any] | None:
    """What a run folder has of a check; None where it has none.

    Raises:
        RunFolderError: The file is damaged.
    """
    return folder.read_json(CHECK, _FORM) if (folder.path / CHECK).exists() else None


_FORM = {"complete": bool, "findings": [{"level": str, "title": str, "text": str, "cure": str}]}

_TWINS = (
    "Twins: the same pictures have the same pixels. Nearly the same are those whose perceptual hashes differ in at "
    f"most {MOST_BITS} of 64 bits and which, scaled to 32 × 32 pixels and brought to the same brightness and contrast, "
    f"differ by at most {NEAR:.0%} of their contrast, and nowhere much. That finds other sizes, compression and "
    "brightness, but neither crops nor mirror images."
)


def _folder_of(spec: str) -> Source | None:
    name, _, _ = spec.partition(":")
    try:
        source = read_source(spec, test_share=0.5, seed=0) if name == "folder" or _is_folder(spec) else None
    except (InvalidInputError, OSError):  # the folder may have changed since, and training has its images
        return None
    return source


def _is_folder(spec: str) -> bool:
    from pathlib import Path

    return Path(spec).expanduser().is_dir()


def _divided(source: Source, readable: npt.NDArray[np.bool_], test_share: float, seed: int) -> npt.NDArray[np.int64]:
    """Parts as training has them."""
    if (source.parts != UNDIVIDED).all():
        return source.parts
    parts = np.zeros(len(source.parts), dtype=np.int64)
    positions = np.flatnonzero(readable)
    _, test = stratified_split(source.images.labels[positions], test_share=test_share, seed=seed)
    parts[positions[test]] = 1
    return parts


def _classes(names: tuple[str, ...], counts: npt.NDArray[np.int64]) -> list[tuple[str, list[int]]]:
    return [(name, counts[:, label].tolist()) for label, name in enumerate(names)]


_ENDINGS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".mpo"},
    "PNG": {".png"},
    "GIF": {".gif"},
    "BMP": {".bmp"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
}


def _wrong_endings(looks: Looks, source: Source) -> list[Finding]:
    wrong: list[tuple[int, str]] = []
    for position, kind in enumerate(looks.formats):
        path = source.images.file(position)
        if kind in _ENDINGS and path is not None and path.suffix.lower() not in _ENDINGS[kind]:
            wrong.append((position, f"{kind} named {path.suffix}"))
    if not wrong:
        return []
    kinds = Counter(kind for _, kind in wrong)
    return [
        Finding(
            "wrong ending",
            "note",
            f"{len(wrong):,} image{' has' if len(wrong) == 1 else 's have'} the ending of another format",
            "They are read all the same: "
            + ", ".join(f"{count:,} × {kind}" for kind, count in kinds.most_common())
            + ".",
            "Nothing need be done here; other programs may stumble over them.",
            {"files": dict(kinds)},
            [[Seen(source.images.name(position), "", "") for position, _ in wrong[:5]]],
        )
    ]
