"""From a list of files to a data set: every image is looked at once, and part is set aside for testing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError
from qpm_vision.data._annotations import listed
from qpm_vision.data._scan import Scan, scan_images
from qpm_vision.data._split import stratified_split
from qpm_vision.data.base import CachedImages, FileImages, ImageData, ImageSet, SkippedImage

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Listing", "read_and_divide"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """Files with their classes.

    Attributes:
        source: What lists them, for messages.
        paths: The files, in the order of the data set.
        names: What each image is called.
        labels: (N,) their classes.
        parts: (N,) 0 for training, 1 for test; all 0 where nothing divides them.
        class_names: One name per class.
        divided: Whether the source says what is for training and what for testing.
        complete: Of each part from the first on that must have images of every class, what it is called.
    """

    source: Path
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    divided: bool
    complete: tuple[str, ...]


def read_and_divide(
    listing: Listing,
    name: str,
    *,
    test_share: float,
    seed: int,
    cache_bytes: int,
    class_relation: npt.NDArray[np.float64] | None = None,
) -> ImageData:
    """The data set of all files that can be read; the others are in `skipped`.

    Args:
        listing: The files.
        name: What to call the data set.
        test_share: Part of each class that is kept for testing where the listing is not divided.
        seed: Of that division.
        cache_bytes: Decoded images are kept in memory if all together need no more than this.
        class_relation: (n_classes, n_classes) float64, or None.

    Raises:
        InvalidInputError: A class has no readable image, or there are too few to divide.
    """
    scan = scan_images(listing.paths, keep_bytes=cache_bytes)
    skipped = tuple(SkippedImage(listing.paths[position], reason) for position, reason in sorted(scan.reasons.items()))
    if skipped:
        _log.warning(
            "%d of %d images cannot be read and are left out; the first: %s (%s)",
            len(skipped),
            len(listing.paths),
            skipped[0].path,
            skipped[0].reason,
        )
    train, test = _divide(listing, scan, test_share, seed)
    return ImageData(
        name=name,
        train=_image_set(listing, train, scan),
        test=_image_set(listing, test, scan),
        class_names=listing.class_names,
        skipped=skipped,
        class_relation=class_relation,
        divided=listing.divided,
    )


def _divide(
    listing: Listing, scan: Scan, test_share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the readable training and test images."""
    readable = np.array([position not in scan.reasons for position in range(len(listing.paths))], dtype=bool)
    for part, place in enumerate(listing.complete):
        counts = np.bincount(listing.labels[readable & (listing.parts == part)], minlength=len(listing.class_names))
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            lost = np.isin(listing.labels, empty) & (listing.parts == part)
            unreadable = next((scan.reasons[i] for i in sorted(scan.reasons) if lost[i]), None)
            raise InvalidInputError(
                f"Every class in {place} must have at least one readable image. "
                f"Got none in {listed(listing.class_names[label] for label in empty)}"
                + (f" (a file there cannot be read: {unreadable})" if unreadable else "")
                + ". Add images or remove these classes."
            )
    if listing.divided:
        return np.flatnonzero(readable & (listing.parts == 0)), np.flatnonzero(readable & (listing.parts == 1))
    positions = np.flatnonzero(readable)
    train, test = stratified_split(listing.labels[positions], test_share=test_share, seed=seed)
    if not len(test):
        raise InvalidInputError(
            f"The data {str(listing.source)!r} must hold a class with at least 2 images, one of them for testing. "
            "Got one image per class. Add images."
        )
    untested = sorted(set(listing.labels) - set(listing.labels[positions[test]]))
    if untested:
        _log.warning(
            "classes with a single readable image cannot be tested, it is trained on: %s",
            listed(listing.class_names[label] for label in untested),
        )
    return positions[train], positions[test]


def _image_set(listing: Listing, positions: npt.NDArray[np.int64], scan: Scan) -> ImageSet:
    files = FileImages(
        [listing.paths[position] for position in positions],
        listing.labels[positions],
        listing.class_names,
        names=[listing.names[position] for position in positions],
    )
    if scan.pixels is None:
        return files
    return CachedImages(files, [scan.pixels[int(position)] for position in positions])
