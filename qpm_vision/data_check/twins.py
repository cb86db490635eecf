"""Findings about images that repeat: on both sides of the split, under two classes, or within a part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qpm_vision.data_check.counts import as_seen
from qpm_vision.data_check.finding import Finding, Seen
from qpm_vision.data_check.source import Source

__all__ = ["twin_findings"]

_MOST_EXAMPLES = 6
_MOST_IN_ONE = 4

Groups = Sequence[Sequence[int]]


def twin_findings(
    groups: Groups, pairs: Sequence[tuple[float, int, int]], source: Source, parts: npt.NDArray[np.int64]
) -> list[Finding]:
    """What same and nearly same images mean.

    Args:
        groups: Positions of images with the same pixels.
        pairs: Nearly equal images, (difference, i, j), the least different first.
        source: Where they are from.
        parts: (n,) positions in `source.part_names`.
    """
    same = {(min(i, j), max(i, j)) for group in groups for i in group for j in group if i != j and len(group) < 100}
    near = [[i, j] for _, i, j in pairs if (i, j) not in same]
    found: list[Finding] = []
    for exact, sets in (("exact", groups), ("near", near)):
        for make in (_leak, _contradiction, _repeats):
            found += make(exact, sets, source, parts)
    return found


def _leak(exact: str, groups: Groups, source: Source, parts: npt.NDArray[np.int64]) -> list[Finding]:
    across = [group for group in groups if {0, 1} <= {int(parts[i]) for i in group}]
    if not across:
        return []
    tests = {i for group in across for i in group if parts[i] == 1}
    n_test = int((parts == 1).sum())
    own = "" if source.tested_on or (source.parts >= 0).all() else " Part of each class was set aside at random."
    return [
        Finding(
            f"leak, {exact}",
            "wrong",
            f"{len(tests):,} of {n_test:,} test images {_are(len(tests), exact)} training images",
            f"{len(tests) / n_test:.1%} of the test images {_repeat(exact)}: scores on them say what was "
            "learned by heart." + own,
            "Delete them from the test images, or divide the images so that copies stay together (csv: with a column "
            "split).",
            {"test_images": len(tests), "of": n_test},
            _examples(across, source, parts),
        )
    ]


def _contradiction(exact: str, groups: Groups, source: Source, parts: npt.NDArray[np.int64]) -> list[Finding]:
    labels = source.images.labels
    against = [group for group in groups if len({int(labels[i]) for i in group}) > 1]
    if not against:
        return []
    count = len({i for group in against for i in group})
    return [
        Finding(
            f"contradiction, {exact}",
            "wrong" if exact == "exact" else "doubtful",
            f"{_pictures(len(against), exact)} under more than one class",
            f"{count:,} images in all. Training is told both, and a test counts one of them as wrong.",
            "Look which class is right, and delete the other copy.",
            {"pictures": len(against), "images": count},
            _examples(against, source, parts),
        )
    ]


def _repeats(exact: str, groups: Groups, source: Source, parts: npt.NDArray[np.int64]) -> list[Finding]:
    labels = source.images.labels
    within = [[i for i in group if parts[i] == 0] for group in groups]
    within = [group for group in within if len(group) > 1 and len({int(labels[i]) for i in group}) == 1]
    if not within:
        return []
    count = len({i for group in within for i in group})
    return [
        Finding(
            f"repeats, {exact}",
            "note",
            f"{_pictures(len(within), exact)} more than once among the training images",
            f"{count:,} images in all: each counts as often as it is there, and has copies in training where it is set "
            "aside for validation.",
            "Delete all copies but one.",
            {"pictures": len(within), "images": count},
            _examples(within, source, parts),
        )
    ]


def _examples(groups: Groups, source: Source, parts: npt.NDArray[np.int64]) -> list[list[Seen]]:
    return [[as_seen(source, i, int(parts[i])) for i in group[:_MOST_IN_ONE]] for group in groups[:_MOST_EXAMPLES]]


def _are(count: int, exact: str) -> str:
    return ("is" if count == 1 else "are") + (" also among" if exact == "exact" else " nearly the same as") + " the"


def _repeat(exact: str) -> str:
    return "are there to learn from as well" if exact == "exact" else "hardly differ from one that is learned from"


def _pictures(count: int, exact: str) -> str:
    what = "picture" if exact == "exact" else "pair of nearly equal pictures"
    many = "pictures" if exact == "exact" else "pairs of nearly equal pictures"
    return f"1 {what} is there" if count == 1 else f"{count:,} {many} are there"
