"""From a picture to the tensor that a model was trained on; the settings belong to the model and are kept with it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from qpm_opt import InvalidInputError

__all__ = ["AUGMENTATIONS", "MAP_AUGMENTATIONS", "Augmentation", "Flip", "ImageTransform", "Preprocessing"]

Augmentation: TypeAlias = Callable[[Image.Image], Image.Image]
"""Changes a square RGB image at random, keeping its size; draws from PyTorch's global generator; can be pickled."""

_INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
_LONGEST = 16
"""Times that a picture may be longer than wide to be resized whole, which rounds differently than a part of it."""
_SHIFT_SHARE = 1 / 16
_PAPER_JITTER = 0.1
_PAPER_PADDING = 4


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become input: resize the short side to size / crop, cut out the centre, normalise.

    Pixels p in [0, 255] become (p / 255 - mean) / std, channel by channel. The long side follows the short one, so
    that the aspect is kept; what is not square loses its ends.

    Attributes:
        size: Side of the input in pixels.
        mean: Mean of red, green and blue, in units of the full scale.
        std: The same for the divisor, above 0.
        interpolation: "bilinear", "bicubic", "lanczos" or "nearest"; all but the last average when they shrink.
        crop: Share of the short side that is kept, above 0 and at most 1.

    Raises:
        InvalidInputError: A value is malformed.

    Example:
        >>> preprocessing = Preprocessing(2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> preprocessing.transform()(Image.new("RGB", (8, 6), "white"))[0]
        tensor([[1., 1.],
                [1., 1.]])
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    crop: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise _wrong("size", "an integer of at least 1, the side of the input in pixels", self.size)
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise _wrong("std", "three numbers above 0", self.std)
        if self.interpolation not in _INTERPOLATIONS:
            raise _unknown("interpolation", self.interpolation, _INTERPOLATIONS)
        if not _is_number(self.crop) or not 0 < self.crop <= 1:
            raise _wrong("crop", "a number above 0 and at most 1, the share that is kept", self.crop)

    def transform(self, augmentation: str = "none") -> ImageTransform:
        """What turns one picture into a tensor.

        Args:
            augmentation: A name in `AUGMENTATIONS`; "none" for evaluation.

        Raises:
            InvalidInputError: There is no such augmentation.
        """
        if augmentation not in AUGMENTATIONS:
            raise _unknown("augmentation", augmentation, AUGMENTATIONS)
        return ImageTransform(self, AUGMENTATIONS[augmentation](self.size))

    def picture(self, pixels: torch.Tensor) -> npt.NDArray[np.float32]:
        """What a model sees, to look at: normalised pixels (3, H, W) as an image (H, W, 3) in [0, 1]."""
        image = pixels.numpy().transpose(1, 2, 0) * np.asarray(self.std, dtype=np.float32)
        image += np.asarray(self.mean, dtype=np.float32)
        return np.asarray(np.clip(image, 0.0, 1.0), dtype=np.float32)

    def visible(
        self, box: tuple[float, float, float, float], image_size: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Where a box of an image lies in the input.

        Args:
            box: Left, upper, right and lower edge in pixels of the image.
            image_size: Its width and height.

        Returns:
            The edges in shares of the side of the input, between 0 and 1; left = right or upper = lower where nothing
            of the box is to be seen.
        """
        scaled, start = _placed(image_size, self)
        factors = [after / before for after, before in zip(scaled, image_size, strict=True)]
        left, upper, right, lower = (
            min(max((edge * factors[axis % 2] - start[axis % 2]) / self.size, 0.0), 1.0)
            for axis, edge in enumerate(box)
        )
        return left, upper, right, lower

    def steps(self) -> list[str]:
        """What is done to an image, in words that are exact enough to do it without this package."""
        short, size = _short_side(self), self.size
        middle = f"left = round((width - {size}) / 2) and upper = round((height - {size}) / 2)"
        return [
            "Turn the image as its EXIF orientation says. Make it RGB of 8 bits, transparent places white.",
            f"Resize it so that the short side has {short} pixels, the long one floor({short} * long / short).",
            f"Use the {self.interpolation} resampling of Pillow; leave the image as it is where it has that size.",
            f"Cut out {size} x {size} pixels from {middle} on, a half rounded to the even number.",
            "Turn pixels p from 0 to 255 into (p / 255 - mean) / std, channel by channel, as float32.",
            f"Put channels first, and images into batches: (batch, 3, {size}, {size}).",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
            InvalidInputError: A key is unknown or missing, or a value is malformed.
        """
        known = [item.name for item in fields(cls)]
        for name in data:
            if name not in known:
                raise _unknown("preprocessing", name, known)
        missing = [name for name in ("size", "mean", "std") if name not in data]
        if missing:
            raise InvalidInputError(f"The preprocessing must have the keys size, mean and std. Missing: {missing}.")
        return cls(**data)


@dataclass(frozen=True)
class ImageTransform:
    """One picture in, one tensor out; can be pickled, so that other processes can load images.

    Attributes:
        preprocessing: What is done to every picture.
        augmentation: What is done to the resized picture before it is normalised; None: nothing.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation | None = None

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """The picture, of any size and mode, as a float32 tensor (3, size, size)."""
        settings = self.preprocessing
        resized = _resized(image if image.mode == "RGB" else image.convert("RGB"), settings)
        if self.augmentation is not None:
            resized = self.augmentation(resized)
        pixels = np.array(resized, dtype=np.float32)
        pixels -= np.multiply(settings.mean, 255).astype(np.float32)
        pixels /= np.multiply(settings.std, 255).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _resized(image: Image.Image, settings: Preprocessing) -> Image.Image:
    scaled, (left, top) = _placed(image.size, settings)
    if max(scaled) > _LONGEST * min(scaled):
        return _resized_middle(image, settings, scaled, (left, top))
    if scaled != image.size:
        image = image.resize(scaled, _INTERPOLATIONS[settings.interpolation])
    if scaled == (settings.size, settings.size):
        return image
    return image.crop((left, top, left + settings.size, top + settings.size))


def _resized_middle(
    image: Image.Image, settings: Preprocessing, scaled: tuple[int, int], start: tuple[int, int]
) -> Image.Image:
    """What is cut out, without the ends that are not seen: of a line of pixels they would take gigabytes."""
    factors = [before / after for before, after in zip(image.size, scaled, strict=True)]
    left, upper, right, lower = (
        min((start[axis % 2] + (settings.size if axis > 1 else 0)) * factors[axis % 2], image.size[axis % 2])
        for axis in range(4)
    )
    return image.resize(
        (settings.size, settings.size), _INTERPOLATIONS[settings.interpolation], box=(left, upper, right, lower)
    )


def _short_side(settings: Preprocessing) -> int:
    return max(settings.size, round(settings.size / settings.crop))


def _placed(image_size: tuple[int, int], settings: Preprocessing) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height that an image is resized to, and the left and upper edge of what is cut out then."""
    short = _short_side(settings)
    width, height = image_size
    scaled = (
        (short, max(short, short * height // width))
        if width <= height
        else (max(short, short * width // height), short)
    )
    left, top = (round((side - settings.size) / 2) for side in scaled)
    return scaled, (left, top)


# -- augmentations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shift:
    """Moves the picture by up to `reach` pixels each way and repeats its border where it leaves a gap."""

    reach: int

    def __call__(self, image: Image.Image) -> Image.Image:
        down, right = torch.randint(-self.reach, self.reach + 1, (2,)).tolist()
        pixels = np.asarray(image)
        rows = _moved(pixels.shape[0], down)
        columns = _moved(pixels.shape[1], right)
        return Image.fromarray(pixels.take(rows, axis=0).take(columns, axis=1))


def _moved(side: int, by: int) -> npt.NDArray[np.intp]:
    return np.clip(np.arange(side, dtype=np.intp) - by, 0, side - 1)


@dataclass(frozen=True)
class Flip:
    """Mirrors every other picture, left for right."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture or its mirror image, at random."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if int(torch.randint(2, ())) else image


class _Paper:
    """Flip, colour jitter, TrivialAugment and a random crop of the padded picture (QPM, Norrenbrock et al.)."""

    def __init__(self, size: int) -> None:
        from qpm_vision import _torchvision  # noqa: F401  (first: it makes the next import work)

        try:
            from torchvision.transforms import v2
        except ModuleNotFoundError as error:
            raise InvalidInputError(
                "The augmentation 'paper' needs torchvision, which is not installed: pip install torchvision, or "
                "choose the augmentation 'shift'."
            ) from error
        self._size = size
        self._steps = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(_PAPER_JITTER, _PAPER_JITTER, _PAPER_JITTER),
                v2.TrivialAugmentWide(),
                v2.RandomCrop(size, padding=_PAPER_PADDING),
            ]
        )

    def __call__(self, image: Image.Image) -> Image.Image:
        changed: Image.Image = self._steps(image)
        return changed

    def __reduce__(self) -> tuple[type[_Paper], tuple[int]]:
        # Built anew in the other process, where torchvision may have to be made importable first.
        return _Paper, (self._size,)


def _none(size: int) -> None:  # noqa: ARG001
    return None


def _flip(size: int) -> Flip:  # noqa: ARG001
    return Flip()


def _shift(size: int) -> _Shift:
    return _Shift(max(1, round(size * _SHIFT_SHARE)))


AUGMENTATIONS: dict[str, Callable[[int], Augmentation | None]] = {
    "flip": _flip,
    "none": _none,
    "paper": _Paper,
    "shift": _shift,
}
"""By name, what makes the augmentation for images of a size.

"none": nothing. "shift": moves by up to a sixteenth of the size each way, for small images and short trainings.
"flip": mirrors every other image, left for right. "paper": flip, colour jitter of 0.1, TrivialAugment, random crop with
a padding of 4 pixels. Neither of both is for images whose classes a mirror changes, such as letters.
"""

MAP_AUGMENTATIONS = ("none", "flip")
"""Those that can also act on maps: a mirrored map stands for the map of the mirrored image."""


# -- checks --------------------------------------------------------------------------------------------------------


def _three(name: str, value: Any) -> tuple[float, float, float]:
    try:
        numbers = tuple(value)
    except TypeError:
        numbers = ()
    if len(numbers) != 3 or not all(_is_number(number) for number in numbers):
        raise _wrong(name, "three finite numbers, for red, green and blue", value)
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, expected: str, value: Any) -> InvalidInputError:
    return InvalidInputError(f"The '{name}' parameter must be {expected}. Got {value!r}.")


def _unknown(name: str, value: Any, known: Any) -> InvalidInputError:
    close = difflib.get_close_matches(str(value), list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return InvalidInputError(f"The '{name}' parameter must be one of {', '.join(sorted(known))}. Got {value!r}.{hint}")
