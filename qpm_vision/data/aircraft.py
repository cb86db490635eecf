"""FGVC-Aircraft: 10,000 photographs of aircraft, 100 variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qpm_vision.data._annotations import listed, read_by_id, read_lines, wrong_file
from qpm_vision.data._published import Standard, assemble, find_root

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from qpm_vision.data.base import ImageData

__all__ = ["load_aircraft"]

_STANDARD: Final = Standard("FGVC-Aircraft", n_classes=100, n_train=6667, n_test=3333)
_VARIANTS: Final = "variants.txt"
_PARTS: Final = ("images_variant_trainval.txt", "images_variant_test.txt")
_BANNER: Final = 20  # rows of pixels below that hold the name of the photographer


def load_aircraft(folder: str | os.PathLike[str]) -> ImageData:
    """FGVC-Aircraft with its own split: 6,667 images for training and validation, 3,333 for testing.

    The 20 rows of pixels with the copyright notice are cut off below. Images are read when they are asked for.

    Args:
        folder: The folder with `variants.txt`, or one of those above it in the archive.

    Raises:
        InvalidInputError: Files are missing, or do not fit together.
    """
    inside = ("data", "fgvc-aircraft-2013b/data")
    root = find_root(folder, _STANDARD.title, (_VARIANTS, *_PARTS, "images"), inside)
    variants = [line for _, line in read_lines(root / _VARIANTS)]
    label_of = {variant: label for label, variant in enumerate(variants)}
    if len(label_of) < len(variants):
        raise wrong_file(root / _VARIANTS, "name each variant once", "repeated lines")
    parts = [_read_part(root / name, label_of) for name in _PARTS]
    both = [image for image in parts[0] if image in parts[1]]
    if both:
        raise wrong_file(root / _PARTS[1], f"share no image with {_PARTS[0]}", f"{len(both)} of them: {listed(both)}")
    images = parts[0] | parts[1]
    return assemble(
        "aircraft",
        _STANDARD,
        root / "images",
        [f"{image}.jpg" for image in images],
        list(images.values()),
        [image in parts[0] for image in images],
        variants,
        trim_bottom=_BANNER,
        cropping="whole",
    )


def _read_part(path: Path, label_of: dict[str, int]) -> dict[str, int]:
    """The label of each image of a part."""
    images = read_by_id(path)
    unknown = [image for image, variant in images.items() if variant not in label_of]
    if unknown:
        raise wrong_file(
            path,
            f"give each image one of the {len(label_of)} variants of {_VARIANTS}",
            f"others for {len(unknown)} images, such as {images[unknown[0]]!r} for {unknown[0]!r}",
        )
    return {image: label_of[variant] for image, variant in images.items()}
