"""TravelingBirds: the birds of CUB-200-2011 in front of other backgrounds (Koh et al., ICML 2020)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError
from qpm_vision.data._annotations import listed
from qpm_vision.data._published import Standard, assemble, folder_names, image_names, require_same_classes
from qpm_vision.data.cub import CUB_FILES, CubTables, read_cub_relation, read_cub_tables, species_name

if TYPE_CHECKING:
    import os

    from qpm_vision.data.base import ImageData

__all__ = ["load_traveling_birds"]

_log = logging.getLogger(__name__)

_STANDARD: Final = Standard("TravelingBirds", n_classes=200, n_train=5994, n_test=5794)
_VARIANTS: Final = ("CUB_fixed", "CUB_random", "CUB_black")
_PARTS: Final = ("train", "test")
_CUB_FOLDERS: Final = ("CUB_200_2011", "CUB200/CUB_200_2011", "CUB/CUB_200_2011", "CUB")


def load_traveling_birds(folder: str | os.PathLike[str]) -> ImageData:
    """TravelingBirds with the split of CUB-200-2011: 5,994 training and 5,794 test images.

    In `CUB_fixed` the backgrounds go with the species, and they change between `train` and `test`. As it is
    distributed, each of the two holds every bird of CUB; `CUB_random` and `CUB_black` are one tree of them. Which
    birds are for training then comes from CUB-200-2011, so that no bird is in both parts; its folder is looked for
    beside. It gives `class_relation` too. Where `train` and `test` hold different birds, it is not needed.

    Args:
        folder: One of `CUB_fixed`, `CUB_random` and `CUB_black`, or the folder that holds them, of which the first that
            is there is taken.

    Raises:
        InvalidInputError: Files are missing or do not fit together, or the split is not known.
    """
    given = Path(folder).expanduser()
    variant = next((given / name for name in _VARIANTS if (given / name).is_dir()), given)
    trees = _trees(variant)
    files = [f"{name}/{image}" for name, image_lists in trees.birds.items() for image in image_lists[0]]
    second = {f"{name}/{image}" for name, image_lists in trees.birds.items() for image in image_lists[-1]}
    cub = _find_cub(variant)
    tables = None if cub is None else read_cub_tables(cub)
    if second.isdisjoint(files):
        in_train = [True] * len(files) + [False] * len(second)
        files = [*(f"train/{file}" for file in files), *(f"test/{file}" for file in sorted(second))]
    elif tables is None:
        raise InvalidInputError(
            f"The birds in {str(variant)!r} must be divided by the tables of CUB-200-2011 ({', '.join(CUB_FILES)}): "
            f"the same are in training and test. Got no folder with these tables; looked for "
            f"{', '.join(_CUB_FOLDERS)} in {' and '.join(repr(str(place)) for place in _places(variant))}. Put "
            "CUB_200_2011, or a link to it, beside."
        )
    else:
        files, in_train = _files_by_tables(trees, tables)
    folders = list(trees.birds)
    label_of = {name: label for label, name in enumerate(folders)}
    return assemble(
        "travelingbirds",
        _STANDARD,
        variant.resolve().parent,
        # The name of the variant belongs to the name of an image: the same bird is in each of them.
        [f"{variant.resolve().name}/{file}" for file in files],
        [label_of[Path(file).parent.name] for file in files],
        in_train,
        [species_name(name) for name in folders],
        cropping="whole",
        class_relation=None if cub is None or tables is None else _relation(cub, tables, folders),
    )


@dataclass(frozen=True)
class _Trees:
    """The images of a variant.

    Attributes:
        divided: Whether there are `train` and `test`.
        birds: Names of the images of each class folder, in `train` and in `test` or in the only tree.
    """

    divided: bool
    birds: dict[str, list[list[str]]]


def _trees(variant: Path) -> _Trees:
    if not variant.is_dir():
        raise InvalidInputError(f"The folder of {_STANDARD.title} must be a folder. Got {str(variant)!r}, no folder.")
    divided = all((variant / part).is_dir() for part in _PARTS)
    halves = [variant / part for part in _PARTS] if divided else [variant]
    classes = [folder_names(half) for half in halves]
    if divided:
        require_same_classes(halves, classes)
    birds = {name: [image_names(half / name) for half in halves] for name in classes[0]}
    if not any(any(image_lists) for image_lists in birds.values()):
        raise InvalidInputError(
            f"The folder of {_STANDARD.title} must hold {', '.join(_VARIANTS)}, or train/ and test/, or folders such "
            f"as 001.Black_footed_Albatross. Got {listed(folder_names(variant)) or 'no folders'} in {str(variant)!r}."
        )
    return _Trees(divided, birds)


def _places(variant: Path) -> list[Path]:
    """Folders in which that of CUB-200-2011 may lie."""
    return [variant, variant.resolve().parent, variant.resolve().parent.parent]


def _find_cub(variant: Path) -> Path | None:
    candidates = [place / name for place in _places(variant) for name in _CUB_FOLDERS]
    found = next((path for path in candidates if all((path / name).is_file() for name in CUB_FILES)), None)
    if found is None:
        _log.warning("no CUB_200_2011 beside %s, so nothing is known about how alike the species are", variant)
    return found


def _files_by_tables(trees: _Trees, tables: CubTables) -> tuple[list[str], list[bool]]:
    """Files of the classes that are there, each from the part that it is for, and whether that is training."""
    files, in_train = [], []
    for file, train in zip(tables.files, tables.in_train.tolist(), strict=True):
        if file.split("/")[0] in trees.birds:
            part = _PARTS[0 if train else 1]
            files.append(f"{part}/{file}" if trees.divided else file)
            in_train.append(train)
    return files, in_train


def _relation(cub: Path, tables: CubTables, folders: list[str]) -> npt.NDArray[np.float64] | None:
    """How alike the classes are, in their order here."""
    relation = read_cub_relation(cub, tables)
    if relation is None:
        return None
    unknown = [name for name in folders if name not in tables.folders]
    if unknown:
        raise InvalidInputError(
            f"The class folders of {_STANDARD.title} must be those of CUB-200-2011 in {str(cub)!r}. Got others: "
            f"{listed(unknown)}. Rename or remove them."
        )
    positions = [tables.folders.index(name) for name in folders]
    return relation[np.ix_(positions, positions)]
