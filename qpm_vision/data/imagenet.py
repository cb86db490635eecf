"""ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs, 1,000 classes."""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qpm_opt import InvalidInputError
from qpm_vision.data._annotations import listed, read_by_id, read_lines, read_mat, wrong_file
from qpm_vision.data._published import (
    Standard,
    assemble,
    find_root,
    folder_names,
    image_names,
    require_same_classes,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from qpm_vision.data.base import ImageData

__all__ = ["load_imagenet"]

_log = logging.getLogger(__name__)

_STANDARD: Final = Standard("ImageNet", n_classes=1000, n_train=1_281_167, n_test=50_000)
_TREE: Final = "ILSVRC/Data/CLS-LOC"  # where the images lie in the archive of Kaggle
_WNID: Final = re.compile(r"n\d{8}")
_NUMBER: Final = re.compile(r"ILSVRC2012_val_(\d{8})")
_NAMES: Final = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
_SOLUTION: Final = "LOC_val_solution.csv"
_DEVKIT: Final = "ILSVRC2012_devkit_t12/data"
_TRUTH: Final = "ILSVRC2012_validation_ground_truth.txt"
_META: Final = "meta.mat"


def load_imagenet(folder: str | os.PathLike[str]) -> ImageData:
    """ImageNet: `train` to learn from, `val` to measure on.

    `train` has a folder for each class, such as `n01440764`; classes are in the order of these names. `val` is the
    same, or all images lie in it, and `LOC_val_solution.csv` or the development kit (`ILSVRC2012_devkit_t12/data` with
    `ILSVRC2012_validation_ground_truth.txt` and `meta.mat`) says which class each of them has. A class is called by the
    first of its words in `LOC_synset_mapping.txt`, `synset_words.txt`, `words.txt` or `meta.mat`, with the name of its
    folder behind where several have that word; without such a file by the name of its folder.

    Only names are looked at: a damaged file is an error that names it when it is read.

    Args:
        folder: The folder with `train` and `val`, or that with `ILSVRC/Data/CLS-LOC`.

    Raises:
        InvalidInputError: Files are missing, or do not fit together.
    """
    given = Path(folder).expanduser()
    root = find_root(given, _STANDARD.title, ("train", "val"), [_TREE])
    tables = _Tables(dict.fromkeys((given, root)))
    wnids = _classes(root / "train")
    if not wnids:
        raise InvalidInputError(
            f"The folder {str(root / 'train')!r} must hold a folder such as n01440764 for each class. "
            f"Got {listed(folder_names(root / 'train')) or 'no folders'}. For other data use 'folder:{given}'."
        )
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    files = [f"train/{wnid}/{name}" for wnid in wnids for name in image_names(root / "train" / wnid)]
    labels = [label_of[file.split("/", 2)[1]] for file in files]
    n_train = len(files)
    validation = _classes(root / "val")
    if validation:
        require_same_classes([root / "train", root / "val"], [label_of, validation])
        files += [f"val/{wnid}/{name}" for wnid in wnids for name in image_names(root / "val" / wnid)]
        labels += [label_of[file.split("/", 2)[1]] for file in files[n_train:]]
    else:
        names = image_names(root / "val")
        files += [f"val/{name}" for name in names]
        labels += _labels(root / "val", names, tables.validation_classes(root / "val"), label_of)
    return assemble(
        "imagenet",
        _STANDARD,
        root,
        files,
        labels,
        [position < n_train for position in range(len(files))],
        _class_names(wnids, tables.words()),
        cropping="whole",
        check_files=False,
    )


def _classes(place: Path) -> list[str]:
    return [name for name in folder_names(place) if _WNID.fullmatch(name)]


def _labels(place: Path, names: Sequence[str], class_of: Mapping[str, str], label_of: Mapping[str, int]) -> list[int]:
    """Labels of the images that lie side by side."""
    stems = [Path(name).stem for name in names]
    unknown = [stem for stem in stems if stem not in class_of]
    if unknown:
        raise InvalidInputError(
            f"The images in {str(place)!r} must all have a class in {_SOLUTION} or {_TRUTH}. "
            f"Got none for {len(unknown)} of {len(names)}: {listed(unknown)}. Remove them, or copy the file again."
        )
    untrained = sorted({class_of[stem] for stem in stems if class_of[stem] not in label_of})
    if untrained:
        raise InvalidInputError(
            f"The images in {str(place)!r} must be of classes that are in train. Got {len(untrained)} others: "
            f"{listed(untrained)}. Add their folders to train, or remove these images."
        )
    return [label_of[class_of[stem]] for stem in stems]


def _class_names(wnids: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """The first word of each class, told apart where several have the same ("crane" is a bird and a machine)."""
    first = [words.get(wnid, wnid).split(",")[0].strip() or wnid for wnid in wnids]
    # Without regard to case: pictures are named after classes, and "Cardigan" is a dog.
    count = Counter(name.casefold() for name in first)
    return [f"{name} ({wnid})" if count[name.casefold()] > 1 else name for name, wnid in zip(first, wnids, strict=True)]


class _Tables:
    """The files that say what classes are called and which one validation images have."""

    def __init__(self, places: Mapping[Path, None]) -> None:
        self._places = [place / inside for place in places for inside in ("", _DEVKIT)]

    def _find(self, name: str) -> Path | None:
        return next((place / name for place in self._places if (place / name).is_file()), None)

    def words(self) -> dict[str, str]:
        """What classes are called, by folder name, as synonyms with commas between them."""
        for name in _NAMES:
            path = self._find(name)
            if path is not None:
                return read_by_id(path)
        meta = self._find(_META)
        if meta is not None:
            return dict(self._read_meta(meta).values())
        _log.warning("no %s: classes are called by their folders", ", ".join((*_NAMES, _META)))
        return {}

    def validation_classes(self, place: Path) -> dict[str, str]:
        """The class of each validation image, by the name of the image without its ending."""
        solution, truth, meta = (self._find(name) for name in (_SOLUTION, _TRUTH, _META))
        if solution is not None:
            return _read_solution(solution)
        if truth is None or meta is None:
            missing = " and ".join(name for name, path in ((_TRUTH, truth), (_META, meta)) if path is None)
            looked = " and ".join(repr(str(path)) for path in self._places)
            raise InvalidInputError(
                f"The images in {str(place)!r} must lie in class folders, or {_SOLUTION}, or {_TRUTH} with {_META}, "
                f"must say which class they have. Got no {_SOLUTION} and no {missing}; looked in {looked}. Put the "
                "development kit beside train and val."
            )
        wnid_of = {number: wnid for number, (wnid, _) in self._read_meta(meta).items()}
        lines = read_lines(truth)
        for number, line in lines:
            if not line.isdigit() or int(line) not in wnid_of:
                raise wrong_file(truth, f"hold the numbers of classes in {_META}", f"{line!r} in line {number}")
        return {f"ILSVRC2012_val_{number:08d}": wnid_of[int(line)] for number, line in lines}

    @staticmethod
    def _read_meta(path: Path) -> dict[int, tuple[str, str]]:
        """Folder name and words of each class, by the number that the ground truth has for it."""
        table = read_mat(path, "synsets", ("ILSVRC2012_ID", "WNID", "words", "num_children"))
        # The others are concepts above the classes, such as "animal".
        return {
            int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"]))
            for row in table
            if int(row["num_children"]) == 0
        }


def _read_solution(path: Path) -> dict[str, str]:
    """The class of each image, the first word of its boxes: `ILSVRC2012_val_00000001,n01751748 111 108 441 193`."""
    rows = csv.reader(line for _, line in read_lines(path))
    if next(rows) != ["ImageId", "PredictionString"]:
        raise wrong_file(path, "begin with 'ImageId,PredictionString'", "another first row")
    found = {}
    for row in rows:
        words = row[1].split() if len(row) == 2 else []
        if not words or not _WNID.fullmatch(words[0]):
            raise wrong_file(path, "have an image and a class such as n01751748 in each row", f"{','.join(row)!r}")
        found[row[0]] = words[0]
    return found
