"""Images that are the same, and images that are nearly so."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_BITS", "NEAR", "near_pairs", "same_pictures"]

MOST_BITS = 6
"""Bits of 64 in which perceptual hashes of nearly equal images may differ."""

NEAR = 0.12
"""Difference of nearly equal images, after brightness and contrast were made equal, as a share of their contrast."""
_NEAR_SPOT = 0.5
"""The same for the worst of 8 × 8 places: what differs in one place only, such as a stroke of a letter, differs."""

_FLAT = 3.0
"""Contrast (standard deviation of 0…255) below which an image has nothing to be recognised by."""
_BANDS = MOST_BITS + 1
_BLOCK = 1 << 22


def same_pictures(digests: list[bytes]) -> list[list[int]]:
    """Positions of images with the same pixels, in groups of at least two, the largest first."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for position, digest in enumerate(digests):
        if digest:
            groups[digest].append(position)
    return sorted((group for group in groups.values() if len(group) > 1), key=lambda group: (-len(group), group[0]))


def near_pairs(hashes: npt.NDArray[np.uint64], small: npt.NDArray[np.uint8]) -> list[tuple[float, int, int]]:
    """Pairs of images that are the same but for scaling, compression, brightness or contrast: (difference, i, j).

    Candidates have perceptual hashes that differ in at most `MOST_BITS` bits. Since simple drawings have similar
    hashes without being the same, the images themselves decide: scaled down to 32 × 32 pixels, mean and deviation made
    equal, they differ by at most `NEAR` of their contrast, and nowhere much.

    Args:
        hashes: (n,) 64 bits of each.
        small: (n, 32, 32, 3), the images scaled down.

    Returns:
        The least different first, i < j; exact copies among them.
    """
    kept = np.flatnonzero(small.reshape(len(small), -1).std(axis=1) > _FLAT)
    coarse = _coarse(small, kept)
    found: list[tuple[float, int, int]] = []
    for first, second in _candidates(hashes[kept]):
        # Means over places differ no more than the pixels do: what is too different here is so in full.
        alike = _coarse_differences(coarse, first, second) <= NEAR
        first, second = first[alike], second[alike]
        for begin in range(0, len(first), 4096):
            one, other = kept[first[begin : begin + 4096]], kept[second[begin : begin + 4096]]
            whole, spot = _differences(small[one], small[other])
            good = (whole <= NEAR) & (spot <= _NEAR_SPOT)
            found += zip(whole[good].tolist(), one[good].tolist(), other[good].tolist(), strict=True)
    return sorted({(value, min(i, j), max(i, j)) for value, i, j in found})


def _candidates(hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Pairs whose hashes differ in few bits.

    Of as many bands as bits may differ and one more, two such hashes have one in common: only hashes that do are
    compared, each pair in the first of their common bands.
    """
    edges = np.linspace(0, 64, _BANDS + 1).round().astype(int).tolist()
    masks = [((1 << high) - 1) ^ ((1 << low) - 1) for low, high in itertools.pairwise(edges)]
    for band, mask in enumerate(masks):
        values = hashes & np.uint64(mask)
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0, True])
        for begin, end in itertools.pairwise(starts.tolist()):
            if end - begin > 1:
                yield from _within(hashes, order[begin:end], [np.uint64(earlier) for earlier in masks[:band]])


def _within(
    hashes: npt.NDArray[np.uint64], members: npt.NDArray[np.int64], earlier: list[np.uint64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    step = max(1, _BLOCK // len(members))
    own = hashes[members]
    for begin in range(0, len(members), step):
        differing = own[begin : begin + step, None] ^ own[None, :]
        close = _bits(differing) <= MOST_BITS
        rows, columns = np.nonzero(close)
        bits = differing[rows, columns]
        new = columns > begin + rows
        for mask in earlier:
            new &= (bits & mask) != 0
        rows, columns = rows[new], columns[new]
        if len(rows):
            yield members[begin + rows], members[columns]


def _bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts: npt.NDArray[np.uint8] = np.bitwise_count(values)
        return counts
    return np.unpackbits(values[..., None].view(np.uint8), axis=-1).sum(axis=-1, dtype=np.uint8)  # type: ignore[no-any-return]


def _differences(
    one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Root mean square of the difference in units of the contrast: over all, and over the worst place."""
    first, second = (_standardised(part) for part in (one, other))
    squares = ((first - second) ** 2).mean(axis=3)
    n, side = len(squares), squares.shape[1] // 8
    spots = squares.reshape(n, 8, side, 8, side).mean(axis=(2, 4)).reshape(n, -1).max(axis=1)
    return np.sqrt(squares.mean(axis=(1, 2))), np.sqrt(spots)


def _coarse(small: npt.NDArray[np.uint8], kept: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(n, 64) means over 8 × 8 places of the standardised images."""
    coarse = np.empty((len(kept), 64), dtype=np.float32)
    for begin in range(0, len(kept), 1024):
        values = _standardised(small[kept[begin : begin + 1024]]).mean(axis=3)
        places = values.reshape(len(values), 8, values.shape[1] // 8, 8, -1).mean(axis=(2, 4))
        coarse[begin : begin + 1024] = places.reshape(len(values), -1)
    return coarse


def _coarse_differences(
    coarse: npt.NDArray[np.float32], first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    result = np.empty(len(first), dtype=np.float32)
    for begin in range(0, len(first), 1 << 16):
        part = slice(begin, begin + (1 << 16))
        result[part] = np.sqrt(((coarse[first[part]] - coarse[second[part]]) ** 2).mean(axis=1))
    return result


def _standardised(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = pixels.astype(np.float32)
    values -= values.mean(axis=(1, 2, 3), keepdims=True)
    values /= values.std(axis=(1, 2, 3), keepdims=True)
    return values
