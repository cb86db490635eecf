"""What there is to check: all images of a data source with classes and parts, also where training would refuse them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError, normal_text
from qpm_vision.data import FileImages, ImageSet, JoinedImages, SkippedImage, data_names, load_data
from qpm_vision.data import image_folder as folders
from qpm_vision.data_check.left_out import LeftOut, left_out_files, unreadable_files

__all__ = ["UNDIVIDED", "Source", "read_source"]

UNDIVIDED = -1
"""Part of an image where part of each class will be set aside at random."""


@dataclass(frozen=True, eq=False)
class Source:
    """All images of a data source.

    Attributes:
        name: What to call it.
        images: All of them, those that cannot be read among them.
        parts: (n,) positions in `part_names`, or `UNDIVIDED`.
        part_names: "train" and "test" first, then those that training does not use.
        class_names: One name for each class.
        left_out: Files that are not among the images.
        tested_on: What the folder of the test images is called, where there is one.
        nested: Images in folders within class folders.
    """

    name: str
    images: ImageSet
    parts: npt.NDArray[np.int64]
    part_names: tuple[str, ...]
    class_names: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    tested_on: str | None = None
    nested: int = 0


def read_source(spec: str, *, test_share: float, seed: int) -> Source:
    """List the images of what `load_data` takes.

    A folder is read even where classes are in one part only, which training refuses.

    Raises:
        InvalidInputError: There are no such data, or nothing that could be checked.
    """
    name, _, argument = spec.partition(":")
    if name == "folder" or name not in data_names():
        root = Path(argument if name == "folder" else spec).expanduser()
        if root.is_dir():
            return _of_folder(root)
    data = load_data(spec, test_share=test_share, seed=seed)
    images = JoinedImages(data.train, data.test)
    parts = np.repeat([0, 1], [len(data.train), len(data.test)])
    return Source(
        data.name,
        images,
        parts if data.divided or name not in ("csv", "folder") else np.full(len(images), UNDIVIDED),
        ("train", "test"),
        data.class_names,
        unreadable_files(data.skipped),
    )


def _of_folder(root: Path) -> Source:
    halves = folders._halves(root)
    extra = _unused(root, halves)
    places = [*halves, *extra]
    trees = [folders._class_folders(place) for place in places]
    class_names = tuple(sorted({name for tree in trees for name in tree}))
    if not class_names:
        folders._list_files(root)  # says what lies there instead
        raise InvalidInputError(f"The data folder {str(root)!r} must hold one folder per class. Got none.")
    label_of = {name: label for label, name in enumerate(class_names)}
    paths: list[Path] = []
    labels: list[int] = []
    parts: list[int] = []
    nested = 0
    for part, tree in enumerate(trees):
        for name, place in tree.items():
            found = folders._image_files(place)
            nested += sum(path.parent != place for path in found)
            paths += found
            labels += [label_of[name]] * len(found)
            parts += [part if len(halves) == 2 else UNDIVIDED] * len(found)
    if not paths:
        folders._list_files(root)
    names = [normal_text(path.relative_to(root).as_posix()) for path in paths]
    return Source(
        root.resolve().name or str(root),
        FileImages(paths, labels, class_names, names=names),
        np.array(parts, dtype=np.int64),
        ("train", "test", *(f"{place.name} (not used)" for place in extra)),
        class_names,
        left_out_files(root, paths),
        halves[1].name if len(halves) == 2 else None,
        nested,
    )


def _unused(root: Path, halves: list[Path]) -> list[Path]:
    """Folders beside training and test that look like a further part."""
    if len(halves) < 2:
        return []
    used = {place.name for place in halves}
    beside: Iterable[Path] = (place for place in folders._folders_in(root) if place.name not in used)
    return [place for place in beside if place.name.lower() in folders._TESTS]


def told_unreadable(reasons: dict[int, str], images: ImageSet) -> tuple[LeftOut, ...]:
    """Images that could not be read when they were looked at."""
    return unreadable_files(
        SkippedImage(Path(images.name(position)), reason) for position, reason in sorted(reasons.items())
    )
