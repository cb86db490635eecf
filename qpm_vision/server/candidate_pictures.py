"""Pictures of features that the run does not keep, drawn when a page asks for them."""

from __future__ import annotations

import threading

from qpm_vision.explain.candidates import Candidates
from qpm_vision.explain.from_run import load_candidates
from qpm_vision.explain.page import to_png
from qpm_vision.run_folder import RunFolder
from qpm_vision.server.jobs import TooManyError

__all__ = ["CandidatePictures"]

_MOST_WAITING = 4
_MOST_KEPT = 100
_DPI = 110


class CandidatePictures:
    """The pictures of one run; its model and images are loaded with the first one.

    Args:
        folder: The run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._candidates: Candidates | None = None
        self._drawn: dict[int, bytes] = {}
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        self._drawing = threading.Lock()

    def png(self, feature: int) -> bytes:
        """The picture of a feature, as a PNG file.

        Raises:
            TooManyError: Several others wait for theirs already.
            InvalidInputError: There is no such feature, or the images are no longer what they were.
            RunFolderError: The run has no features yet, or its files are damaged.
        """
        known = self._drawn.get(feature)
        if known is not None:
            return known
        if not self._waiting.acquire(blocking=False):
            raise TooManyError("Several pictures are being drawn. Ask again in a moment.")
        try:
            with self._drawing:
                if feature not in self._drawn:
                    if self._candidates is None:
                        self._candidates = load_candidates(self._folder)
                    picture = to_png(self._candidates.draw(feature)[0], _DPI)
                    if len(self._drawn) >= _MOST_KEPT:
                        self._drawn.clear()
                    self._drawn[feature] = picture
                return self._drawn[feature]
        finally:
            self._waiting.release()
