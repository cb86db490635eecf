"""How many images there are of each class in each part, and where they are too few."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qpm_vision.data_check.finding import Finding, Seen
from qpm_vision.data_check.source import Source

__all__ = ["CONFIDENCE", "count_findings", "least_held_out"]

CONFIDENCE = 0.9
"""Of sets of classes that are to hold the right one, for which calibration images are counted."""
_UNEVEN = 3.0
"""Largest by smallest class from which the accuracy over all images says little about small classes."""
_FEW_TESTED = 20
"""Test images of a class below which a recall is known to some 20 points at best."""
_VALIDATION = ("val", "valid", "validation")


def least_held_out(confidence: float) -> int:
    """Images of a class that must be held out for sets with this confidence to be other than everything.

    Example:
        >>> least_held_out(0.9), least_held_out(0.95)
        (9, 19)
    """
    return math.ceil(round(1 / (1 - confidence), 9)) - 1


def count_findings(counts: npt.NDArray[np.int64], source: Source, *, validation_share: float) -> list[Finding]:
    """What the numbers say.

    Args:
        counts: (n_parts, n_classes) images that can be read.
        source: Where they are from.
        validation_share: Share of the training images that is to be set aside.
    """
    return [
        *_one_part_only(counts, source.class_names),
        *_imbalance(counts[0], source.class_names),
        *_few(counts, source.class_names, validation_share),
        *_split(source),
        *_nested(source),
    ]


def _one_part_only(counts: npt.NDArray[np.int64], names: Sequence[str]) -> list[Finding]:
    found = []
    for here, there, what in ((1, 0, "test"), (0, 1, "training")):
        lone = [names[label] for label in np.flatnonzero((counts[here] > 0) & (counts[there] == 0)).tolist()]
        if lone:
            other = "training" if what == "test" else "test"
            title = f"{_classes(lone)} in {what} only"
            text = f"{_listed(lone)}: {'has' if len(lone) == 1 else 'have'} no {other} images that can be read. "
            text += "No model can get them right." if what == "test" else "Nothing is measured on them."
            cure = "Add images, remove the classes, or see whether folders are spelled differently."
            found.append(Finding("one split only", "wrong", title, text, cure, {"classes": lone, "part": what}))
    return found


def _imbalance(train: npt.NDArray[np.int64], names: Sequence[str]) -> list[Finding]:
    there = np.flatnonzero(train)
    if len(there) < 2:
        return []
    least, most = (int(there[at(train[there])]) for at in (np.argmin, np.argmax))
    ratio = float(train[most] / train[least])
    if ratio < _UNEVEN:
        return []
    return [
        Finding(
            "imbalance",
            "doubtful",
            f"Classes differ {ratio:.1f}-fold in size: {int(train[least]):,} to {int(train[most]):,} training images",
            f"{names[least]!r} is the smallest class, {names[most]!r} the largest. Accuracy over all images then says "
            "little about small classes, and a model that is trained as usual prefers the large ones.",
            "Train with --class-weights balanced or --sampling balanced, and look at macro accuracy and recalls.",
            {
                "smallest": [names[least], int(train[least])],
                "largest": [names[most], int(train[most])],
                "ratio": ratio,
            },
        )
    ]


def _few(counts: npt.NDArray[np.int64], names: Sequence[str], validation_share: float) -> list[Finding]:
    found = []
    train, test = counts[0], counts[1]
    share = validation_share or 0.1
    least = least_held_out(CONFIDENCE)
    # As `stratified_split` does it: one at least, where there are two.
    held_out = np.where(train > 1, np.clip(np.round(train * share), 1, np.maximum(train - 1, 1)), 0).astype(int)
    short: list[int] = np.flatnonzero((train > 0) & (held_out < least)).tolist()
    if short:
        smallest = min(short, key=lambda label: int(train[label]))
        chosen = f"A validation share of {share:g}" + ("" if validation_share else ", say,")
        enough = math.ceil((least - 0.5) / train[smallest] * 100) / 100
        found.append(
            Finding(
                "few",
                "doubtful" if validation_share else "note",
                f"Too few images to hold {least} of every class out: {_classes([names[i] for i in short])}",
                f"{chosen} leaves fewer than {least} of {_listed([names[i] for i in short])}; {names[smallest]!r} has "
                f"{int(train[smallest])} training images, of which {int(held_out[smallest])} would be held out. "
                f"Sets of classes that hold the right one {CONFIDENCE:.0%} of the time, for each class, need "
                f"{least} of each (1 / {1 - CONFIDENCE:.1g} − 1). For all classes together {least} are enough, and "
                f"there would be {int(held_out.sum()):,}.",
                "Add images of these classes" + (f", or hold a share of {enough:g} out." if enough < 0.5 else "."),
                {
                    "share": share,
                    "needed_of_each_class": least,
                    "confidence": CONFIDENCE,
                    "held_out": {names[i]: int(held_out[i]) for i in short},
                    "held_out_of_all": int(held_out.sum()),
                },
            )
        )
    untested: list[int] = np.flatnonzero((test > 0) & (test < _FEW_TESTED)).tolist()
    if untested:
        fewest = min(untested, key=lambda label: int(test[label]))
        found.append(
            Finding(
                "few",
                "note",
                f"Few test images: {_classes([names[i] for i in untested])} of fewer than {_FEW_TESTED}",
                f"The recall of {names[fewest]!r} is measured on {int(test[fewest])}: look at its interval. "
                f"Also {_listed([names[i] for i in untested if i != fewest])}."
                if len(untested) > 1
                else f"The recall of {names[fewest]!r} is measured on {int(test[fewest])}: look at its interval.",
                "Add test images, or read scores of single classes with their intervals.",
                {"test_images": {names[i]: int(test[i]) for i in untested}},
            )
        )
    return found


def _split(source: Source) -> list[Finding]:
    found = []
    if source.tested_on is not None and source.tested_on.lower() in _VALIDATION:
        found.append(
            Finding(
                "split",
                "note",
                f"{source.tested_on}/ is used as the test set",
                "There is no test/. Scores on images with which settings were chosen are too good.",
                "Add test/ with images that nothing was chosen with, or keep this in mind.",
                {"tested_on": source.tested_on},
            )
        )
    unused = [name.removesuffix(" (not used)") for name in source.part_names[2:]]
    if unused:
        found.append(
            Finding(
                "split",
                "note",
                f"{', '.join(f'{name}/' for name in unused)} {'is' if len(unused) == 1 else 'are'} not used",
                f"Training looks at train/ and {source.tested_on}/. To choose the best epoch it sets training images "
                "aside.",
                "Nothing need be done; move the images into train/ and set --validation-share to use them.",
                {"unused": unused},
            )
        )
    return found


def _nested(source: Source) -> list[Finding]:
    if not source.nested:
        return []
    return [
        Finding(
            "nested",
            "note",
            f"{source.nested:,} images lie in folders within the folders of classes",
            "They count to the class of the outer folder.",
            "If the inner folders are classes of their own, move them one level up.",
            {"images": source.nested},
        )
    ]


def _classes(names: Sequence[str]) -> str:
    return f"class {names[0]!r}" if len(names) == 1 else f"{len(names)} classes"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def as_seen(source: Source, index: int, part: int) -> Seen:
    """An image as an example."""
    return Seen(
        source.images.name(index),
        source.class_names[int(source.images.labels[index])],
        source.part_names[part],
        index,
    )
