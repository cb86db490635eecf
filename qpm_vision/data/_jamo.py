"""Where the jamo of a drawn syllable are, from how the same font face draws other syllables.

A syllable is cut as its composition says: the final from what is above it, then the initial from a vowel beside it,
below it, or both. Where the cuts run is seen from syllables that differ in one jamo alone: ink that they do not have
when the initial is replaced is the initial's, and so on. Each cut is the line that divides the ink by this best and
runs through little of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from qpm_vision.data._faces import Bitmap
from qpm_vision.data._syllables import JAMO_KINDS, Layout, Syllable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DRAWING_PIXELS", "Box", "locate_jamo", "needed_drawings"]

Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge."""

DRAWING_PIXELS: Final = 64
"""Size of the font that syllables are compared at; what follows is in pixels of it."""

_NEAR: Final = 1  # ink that another syllable has moved by so much is the same ink
_CROSSING: Final = 8.0  # a cut through a pixel of ink costs as much as so many pixels on the wrong side
_BAR: Final = 0.7  # rows that are at least this full belong to the bar of a vowel

Mask: TypeAlias = npt.NDArray[np.bool_]
Evidence: TypeAlias = npt.NDArray[np.float64]

# Least and greatest share of the syllable's width and height that a jamo takes; outside of it the cuts went wrong.
_PLAUSIBLE: Final[dict[tuple[Layout, str], tuple[float, float, float, float]]] = {
    ("beside", "initial"): (0.2, 0.85, 0.15, 1.0),
    ("beside", "vowel"): (0.02, 0.6, 0.4, 1.0),
    ("below", "initial"): (0.2, 1.0, 0.15, 0.85),
    ("below", "vowel"): (0.6, 1.0, 0.02, 0.55),
    ("around", "initial"): (0.2, 0.85, 0.15, 0.85),
    ("around", "vowel"): (0.6, 1.0, 0.5, 1.0),
    ("beside", "final"): (0.2, 1.0, 0.15, 0.6),
    ("below", "final"): (0.2, 1.0, 0.15, 0.6),
    ("around", "final"): (0.2, 1.0, 0.15, 0.6),
}


def needed_drawings(syllables: Sequence[Syllable]) -> list[str]:
    """The syllables, and those to compare them with."""
    others = {other.text for syllable in syllables for kind in JAMO_KINDS for other in syllable.with_other(kind)}
    return sorted(others | {syllable.text for syllable in syllables})


def locate_jamo(drawings: Mapping[str, Bitmap], syllables: Sequence[Syllable]) -> dict[str, dict[str, Box]]:
    """The boxes of the jamo of each syllable.

    Args:
        drawings: What one face draws for each of `needed_drawings`, on one canvas from the same origin, at
            `DRAWING_PIXELS`; may lack some.
        syllables: Which to locate the jamo of.

    Returns:
        For each syllable the boxes of its initial, vowel and, if it has one, final, in shares of the box of all its
        ink. A syllable is left out where there is nothing to compare it with, or where a box is not as wide and high
        as its composition allows: the drawings of the face differ in more than the jamo then, as handwriting does.
    """
    ink = {text: bitmap > 127 for text, bitmap in drawings.items()}
    near = {text: _grown(mask) for text, mask in ink.items()}
    located = {}
    for syllable in syllables:
        mask = ink.get(syllable.text)
        if mask is None or not mask.any():
            continue
        kinds = JAMO_KINDS if syllable.final != "none" else JAMO_KINDS[:2]
        others = [
            [near[other.text] for other in syllable.with_other(kind) if other.text in near] if kind in kinds else []
            for kind in JAMO_KINDS
        ]
        if not all(others[place] for place in range(len(kinds))):
            continue
        evidence = np.stack([1 - np.mean(found, axis=0) if found else np.zeros(mask.shape) for found in others])
        boxes = _boxes(dict(zip(kinds, _divided(mask, evidence, syllable), strict=False)), mask)
        if boxes is not None and all(_is_plausible(boxes[kind], syllable.layout, kind) for kind in kinds):
            located[syllable.text] = boxes
    return located


def _divided(mask: Mask, evidence: Evidence, syllable: Syllable) -> tuple[Mask, Mask, Mask]:
    """The ink of initial, vowel and final."""
    initial, vowel, final = evidence
    rows = np.arange(mask.shape[0])[:, None]
    columns = np.arange(mask.shape[1])[None, :]
    if syllable.layout == "below":
        # Vowels that stand below share their long bar, so that replacing one does not take it away. It is where
        # replacing neither the initial nor the final does.
        vowel = vowel + _bar_rows(mask * (1 - np.maximum(initial, final)))[:, None]
    rest = mask
    if syllable.final != "none":
        rest = mask & (rows < _cut(np.maximum(initial, vowel) - final, mask))
    first = rest
    if syllable.layout != "below":
        first = first & (columns < _cut((initial - vowel).T, rest.T))
    if syllable.layout != "beside":
        first = first & (rows < _cut(initial - vowel, first))
    return first, rest & ~first, mask & ~rest


def _bar_rows(staying: Evidence) -> Mask:
    """The fullest row, and the rows above and below it that are nearly as full."""
    fullness = staying.sum(axis=1)
    top = int(fullness.argmax())
    thin = np.flatnonzero(fullness < _BAR * fullness[top])
    bar = np.zeros(len(fullness), dtype=bool)
    bar[max([-1, *thin[thin < top]]) + 1 : min([len(fullness), *thin[thin > top]])] = True
    return bar


def _cut(gain: Evidence, mask: Mask) -> int:
    """The row before which to cut: gain above it and loss below are largest, less what the cut crosses."""
    sums = np.concatenate([[0.0], np.cumsum((gain * mask).sum(axis=1))])
    crossing = np.zeros(len(sums))
    crossing[1:-1] = (mask[:-1] & mask[1:]).sum(axis=1)
    value = 2 * sums - sums[-1] - _CROSSING * crossing
    filled = np.flatnonzero(mask.any(axis=1))
    if len(filled) < 2:
        return len(mask)
    # Neither side is left without ink.
    return int(filled[0] + 1 + value[filled[0] + 1 : filled[-1] + 1].argmax())


def _boxes(parts: Mapping[str, Mask], mask: Mask) -> dict[str, Box] | None:
    if not all(part.any() for part in parts.values()):
        return None
    left, upper, right, lower = _edges(mask)
    width, height = right - left, lower - upper
    boxes = {}
    for kind, part in parts.items():
        edges = _edges(part)
        boxes[kind] = (
            (edges[0] - left) / width,
            (edges[1] - upper) / height,
            (edges[2] - left) / width,
            (edges[3] - upper) / height,
        )
    return boxes


def _edges(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _is_plausible(box: Box, layout: Layout, kind: str) -> bool:
    least_width, most_width, least_height, most_height = _PLAUSIBLE[layout, kind]
    width, height = box[2] - box[0], box[3] - box[1]
    return least_width <= width <= most_width and least_height <= height <= most_height


def _grown(mask: Mask) -> Mask:
    """The mask with what is near it."""
    from scipy.ndimage import maximum_filter

    return np.asarray(maximum_filter(mask, size=2 * _NEAR + 1))
