"""Looking once at every file, so that no unreadable one stops an epoch half-way."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from qpm_vision.data.images import UnreadableImageError, read_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Scan", "scan_images"]

_log = logging.getLogger(__name__)

_BATCH: Final = 1024
_SECONDS_BETWEEN_LINES: Final = 10.0


@dataclass(frozen=True)
class Scan:
    """What reading all files gave.

    Attributes:
        reasons: Why a file cannot be read, by its position.
        pixels: Decoded (H, W, 3) uint8 images by position, those that can be read; None if they would need too much
            memory.
    """

    reasons: dict[int, str]
    pixels: dict[int, npt.NDArray[np.uint8]] | None


def scan_images(paths: Sequence[Path], *, keep_bytes: int) -> Scan:
    """Decode every image once, several at a time.

    Args:
        paths: The files.
        keep_bytes: Keep the decoded pixels as long as all of them together need no more memory than this.
    """
    reasons: dict[int, str] = {}
    pixels: dict[int, npt.NDArray[np.uint8]] = {}
    total = 0
    overfull = threading.Event()
    if keep_bytes <= 0:
        overfull.set()

    def read(path: Path) -> npt.NDArray[np.uint8] | str | None:
        try:
            if overfull.is_set():
                # All bytes of a JPEG are still looked at, but only an eighth of its size is computed.
                read_image(path, at_least=1)
                return None
            return np.asarray(read_image(path))
        except UnreadableImageError as error:
            return error.reason

    told = time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _BATCH):
            for position, result in enumerate(pool.map(read, paths[start : start + _BATCH]), start):
                if isinstance(result, str):
                    reasons[position] = result
                elif result is not None and not overfull.is_set():
                    pixels[position] = result
                    total += result.nbytes
                    if total > keep_bytes:
                        overfull.set()
                        pixels.clear()
            if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                _log.info("looked at %d of %d images", min(start + _BATCH, len(paths)), len(paths))
    return Scan(reasons, None if overfull.is_set() else pixels)
