"""Data sets: where images and labels come from.

`load_data` understands

- `digits`: handwritten digits that come with scikit-learn;
- `fashion-mnist`, or `fashion-mnist:DIR`: clothing, from IDX files on this machine;
- `cub:DIR`, `cub-cropped:DIR`: CUB-200-2011, birds, whole or cropped by their bounding boxes;
- `travelingbirds:DIR`: TravelingBirds, the same birds in front of other backgrounds;
- `cars:DIR`, `cars-cropped:DIR`: Stanford Cars, whole or cropped by their bounding boxes;
- `aircraft:DIR`: FGVC-Aircraft, without the copyright notices;
- `imagenet:DIR`: ImageNet (ILSVRC 2012);
- `csv:FILE`: a table of paths and labels;
- `folder:DIR`, or simply a path: one folder of images per class, such as those that `draw_hangul` makes.

Nothing is downloaded: DIR is where the files of a data set lie, in the form in which it was published.
`register_data` adds further names.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from qpm_opt import InvalidInputError
from qpm_vision.data._split import check_split, stratified_split
from qpm_vision.data.aircraft import load_aircraft
from qpm_vision.data.base import (
    ArrayImages,
    CachedImages,
    FileImages,
    ImageData,
    ImageSet,
    JoinedImages,
    PreparedImages,
    SkippedImage,
)
from qpm_vision.data.csv_table import load_csv
from qpm_vision.data.cub import load_cub
from qpm_vision.data.digits import load_digits_data
from qpm_vision.data.fashion_mnist import load_fashion_mnist
from qpm_vision.data.hangul import draw_hangul
from qpm_vision.data.image_folder import load_image_folder
from qpm_vision.data.imagenet import load_imagenet
from qpm_vision.data.images import UnreadableImageError, read_image
from qpm_vision.data.loading import LoadingError, make_loader
from qpm_vision.data.parts import Parts
from qpm_vision.data.stanford_cars import load_stanford_cars
from qpm_vision.data.traveling_birds import load_traveling_birds

__all__ = [
    "ArrayImages",
    "CachedImages",
    "FileImages",
    "ImageData",
    "ImageSet",
    "JoinedImages",
    "LoadingError",
    "Parts",
    "PreparedImages",
    "SkippedImage",
    "UnreadableImageError",
    "data_names",
    "draw_hangul",
    "load_aircraft",
    "load_csv",
    "load_cub",
    "load_data",
    "load_image_folder",
    "load_imagenet",
    "load_stanford_cars",
    "load_traveling_birds",
    "make_loader",
    "read_image",
    "register_data",
]

DataLoaderFunction = Callable[[str, float, int], ImageData]


def load_data(
    spec: str | os.PathLike[str], *, test_share: float = 0.25, validation_share: float = 0.0, seed: int = 0
) -> ImageData:
    """Load a data set.

    Args:
        spec: A name from the list above such as `digits` or `cub:DIR`, a registered name, or a path to a folder.
        test_share: Part of each class that is kept for testing, for data that come undivided.
        validation_share: Part of the training images of each class that is set aside for validation.
        seed: Of both divisions.

    Raises:
        InvalidInputError: There are no such data, or a folder does not hold what it should.

    Example:
        >>> data = load_data("digits")
        >>> len(data.train), len(data.test), data.class_names[:3]
        (1347, 450, ('0', '1', '2'))
    """
    check_split(test_share, seed)
    if (
        isinstance(validation_share, bool)
        or not isinstance(validation_share, (int, float))
        or not (0 <= validation_share < 1)
    ):
        raise InvalidInputError(
            f"The 'validation_share' parameter must be a number of at least 0 and below 1. Got {validation_share!r}."
        )
    data = _load(spec, test_share, seed)
    if not validation_share:
        return data
    kept, held_out = stratified_split(data.train.labels, test_share=validation_share, seed=seed)
    return replace(data, train=data.train.subset(kept), validation=data.train.subset(held_out))


def _load(spec: str | os.PathLike[str], test_share: float, seed: int) -> ImageData:
    if not isinstance(spec, (str, os.PathLike)) or not os.fspath(spec):
        raise InvalidInputError(f"The 'spec' parameter must be {_expected()}. Got {spec!r}.")
    if isinstance(spec, str):
        name, _, argument = spec.partition(":")
        if name in _REGISTRY:
            return _REGISTRY[name](argument, test_share, seed)
        path = Path(spec).expanduser()
        if not path.exists() and not path.is_absolute() and len(path.parts) == 1:
            near = difflib.get_close_matches(name, _REGISTRY, n=1)
            raise InvalidInputError(
                f"The 'spec' parameter must be {_expected()}. Got {spec!r}, which is none of them"
                + (f"; did you mean {near[0]!r}?" if near else ".")
            )
    return load_image_folder(spec, test_share=test_share, seed=seed)


def register_data(name: str, load: DataLoaderFunction) -> None:
    """Make a data set known to `load_data`.

    Args:
        name: What to call it, without a colon or slash; must be new.
        load: Called with what follows the colon in `name:…` (empty if nothing does), `test_share` and `seed`.

    Raises:
        InvalidInputError: The name cannot be used or is taken.
    """
    if not isinstance(name, str) or len(name) < 2 or set(name) & set(":/\\") or name in _REGISTRY:
        raise InvalidInputError(
            "The 'name' parameter must be a new name of at least 2 characters without colon and slash. "
            f"Got {name!r}; taken are {', '.join(data_names())}."
        )
    _REGISTRY[name] = load


def data_names() -> tuple[str, ...]:
    """The names that `load_data` knows, sorted."""
    return tuple(sorted(_REGISTRY))


def _digits(argument: str, test_share: float, seed: int) -> ImageData:
    if argument:
        raise InvalidInputError(f"The data 'digits' must be given without anything behind. Got 'digits:{argument}'.")
    return load_digits_data(test_share=test_share, seed=seed)


def _fashion_mnist(argument: str, test_share: float, seed: int) -> ImageData:  # noqa: ARG001 - comes divided
    return load_fashion_mnist(argument or None)


def _csv(argument: str, test_share: float, seed: int) -> ImageData:
    return load_csv(_required("csv:FILE", "a table", argument), test_share=test_share, seed=seed)


def _folder(argument: str, test_share: float, seed: int) -> ImageData:
    return load_image_folder(_required("folder:DIR", "a folder", argument), test_share=test_share, seed=seed)


def _published(name: str, load: Callable[[str], ImageData]) -> DataLoaderFunction:
    """A data set that comes divided, out of a folder."""

    def from_folder(argument: str, test_share: float, seed: int) -> ImageData:  # noqa: ARG001 - comes divided
        return load(_required(f"{name}:DIR", "a folder", argument))

    return from_folder


def _required(form: str, what: str, argument: str) -> str:
    if not argument:
        raise InvalidInputError(f"The data {form!r} must name {what}. Got none behind the colon.")
    return argument


_PUBLISHED: dict[str, Callable[[str], ImageData]] = {
    "aircraft": load_aircraft,
    "cars": load_stanford_cars,
    "cars-cropped": partial(load_stanford_cars, cropped=True),
    "cub": load_cub,
    "cub-cropped": partial(load_cub, cropped=True),
    "imagenet": load_imagenet,
    "travelingbirds": load_traveling_birds,
}
_REGISTRY: dict[str, DataLoaderFunction] = {
    "csv": _csv,
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "folder": _folder,
    **{name: _published(name, load) for name, load in _PUBLISHED.items()},
}


def _expected() -> str:
    return f"the path of a folder of images or one of {', '.join(data_names())} (folder:DIR, cub:DIR and so on)"
