"""Reading one image file, whatever it holds, as an upright 8-bit RGB picture."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from qpm_opt import QPMError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "UnreadableImageError", "read_image", "upright_rgb"]

IMAGE_SUFFIXES: Final = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
"""Endings of file names that are taken for images, in lower case."""

_HEIF: Final = frozenset({".heic", ".heif"})

MAX_PIXELS: Final = 178_956_970
"""Images with more pixels are refused: a file of a few kB can unfold to many GB."""

TOO_LARGE: Final = "there is too little memory to decode it"
"""Why an image cannot be read that is larger than what is free."""

_AT_ONCE: Final = 1 << 20

_log = logging.getLogger(__name__)


class UnreadableImageError(QPMError):
    """An image file cannot be read.

    Attributes:
        path: The file.
        reason: Why, as a clause without a full stop.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"The image {str(self.path)!r} cannot be read: {reason}. Replace the file or take it away.")

    def __reduce__(self) -> tuple[type[UnreadableImageError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


def read_image(path: str | os.PathLike[str], *, at_least: int | None = None) -> Image.Image:
    """Read an image file as an upright 8-bit RGB picture.

    Turned as its EXIF orientation says. Transparent places become white. 16-bit grey is scaled to 8 bits. Other
    numbers (32-bit integers, floats) are scaled from the smallest of 0…1 (floats), 0…255 and 0…65535 that holds them,
    else from their own range. Of several frames the first counts.

    Args:
        path: The file.
        at_least: Allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep this many
            pixels: much faster for large photographs.

    Raises:
        UnreadableImageError: The file is missing, empty, damaged, cut off, no image, or has more than `MAX_PIXELS`
            pixels.
    """
    try:
        _refuse_non_files(path)
        _know_heif(path)
        with _quiet(), Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(
                    path, f"it has {image.width}×{image.height} pixels, more than the {MAX_PIXELS:,} allowed"
                )
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            kind = image.format
            return _as_rgb(_upright(image), kind)
    except UnreadableImageError:
        raise
    # A decoder that meets damaged bytes may raise anything: OSError, SyntaxError, struct.error, KeyError, …
    except Exception as error:
        raise UnreadableImageError(path, _reason(error)) from error


def _know_heif(path: str | os.PathLike[str]) -> None:
    """Let Pillow read HEIC, the format of many phones, if the package for it is there."""
    if Path(path).suffix.lower() not in _HEIF:
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise UnreadableImageError(
            path, "it is a HEIC image, which needs a package: pip install pillow-heif; or convert it to JPEG"
        ) from error
    pillow_heif.register_heif_opener()


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture that was opened elsewhere as `read_image` would have read it; the one given stays as it is."""
    with _quiet():
        return _as_rgb(_upright(image), image.format)


def _refuse_non_files(path: str | os.PathLike[str]) -> None:
    # Only regular files: opening a pipe would wait for ever.
    status = os.stat(path)  # noqa: PTH116 - Path(path) would refuse nothing more
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImageError(path, "it is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError(path, "it is a device or a pipe, not a file")
    if status.st_size == 0:
        raise UnreadableImageError(path, "it is empty (0 bytes)")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if isinstance(error, PermissionError):
        return "reading it is not permitted"
    if isinstance(error, UnidentifiedImageError):
        return "it is not in an image format known here"
    if isinstance(error, MemoryError):
        return TOO_LARGE
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than the {MAX_PIXELS:,} pixels allowed"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"it is damaged ({' '.join(text.split()).rstrip('.') or type(error).__name__})"


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # noqa: BLE001 - damaged EXIF raises anything, and the picture itself is whole
        _log.debug("EXIF of %s ignored: %s", getattr(image, "filename", "image"), error)
        return image


def _as_rgb(image: Image.Image, kind: str | None) -> Image.Image:
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        result = Image.fromarray(_as_bytes(image, kind)).convert("RGB")
    elif image.has_transparency_data:
        result = _on_white(image)
    else:
        result = image.convert("RGB")
    result.info = {}
    return result


def _on_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # The key of a 16-bit file, whose pixels were already brought to 8 bits by dropping their low bytes.
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode == "La":
        image = image.convert("LA")
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, coloured).convert("RGB")


def _as_bytes(image: Image.Image, kind: str | None) -> npt.NDArray[np.uint8]:
    rows: npt.NDArray[Any] = np.asarray(image)
    # In parts: as numbers of double precision all pixels of a file of a few kB could take many gigabytes.
    parts = [rows[start : start + _AT_ONCE // rows.shape[1] + 1] for start in _starts(rows)]
    ranges_of_parts = [(part[kept].min(), part[kept].max()) for part in parts if (kept := np.isfinite(part)).any()]
    if not ranges_of_parts:
        raise ValueError("no pixel is a finite number")
    low = float(min(lowest for lowest, _ in ranges_of_parts))
    high = float(max(highest for _, highest in ranges_of_parts))
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in {"PNG", "PPM"}):
        bottom, top = 0.0, 65535.0
    else:
        ranges = ([1.0] if image.mode == "F" else []) + [255.0, 65535.0]
        bottom, top = next(((0.0, limit) for limit in ranges if low >= 0 and high <= limit), (low, high))
    key = image.info.get("transparency")
    result = np.empty(rows.shape, dtype=np.uint8)
    for start, part in zip(_starts(rows), parts, strict=True):
        values = np.nan_to_num(part.astype(np.float64), nan=low, posinf=high, neginf=low)
        scaled = np.rint((values - bottom) / max(top - bottom, 1e-300) * 255.0)
        if isinstance(key, int):
            scaled = np.where(values == key, 255.0, scaled)
        result[start : start + len(part)] = np.clip(scaled, 0, 255)
    return result


def _starts(rows: npt.NDArray[Any]) -> range:
    """First rows of the parts of an array that have about `_AT_ONCE` numbers each."""
    return range(0, len(rows), _AT_ONCE // rows.shape[1] + 1)


class _Quiet:
    """Silences Pillow's warnings, also when several threads read at once.

    `warnings.catch_warnings` alone is not made for threads: one that leaves would restore the filters under another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._caught.__exit__(None, None, None)


_quiet = _Quiet()
