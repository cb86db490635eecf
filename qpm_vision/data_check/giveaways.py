"""Whether a simple fact about a file tells its class: then a model may learn the camera instead of the thing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_vision.class_scores import ClassScores, count_confusions, wilson
from qpm_vision.data_check.finding import Finding
from qpm_vision.data_check.looks import Looks

__all__ = ["RULE", "find_giveaways"]

_FOLDS = 5
_MOST_IMAGES = 20_000
_SKILL = {"file": 0.25, "content": 0.5}
"""How far between chance (0) and always right (1) the mean over classes must be, at the lower end of its interval."""
_CLEAR = 0.8
"""How much more often a class must be recognised than others are taken for it."""

RULE = (
    "a decision tree on one fact alone, cross-validated on the training images. Told where its macro accuracy, at "
    "the lower end of a 95 % interval, goes at least a quarter of the way from chance to 100 % (half of it for colour, "
    "which may be what classes are about), or where a class is recognised at least 80 points more often than others "
    "are taken for it."
)


@dataclass(frozen=True)
class _Fact:
    title: str
    source: str
    values: npt.NDArray[np.float64]
    cure: str


def find_giveaways(
    looks: Looks, labels: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], class_names: Sequence[str]
) -> list[Finding]:
    """Facts that give classes away.

    Args:
        looks: What was seen.
        labels: (n,) classes.
        rows: Images to ask about, those for training.
        class_names: One for each class.
    """
    counts = np.bincount(labels[rows], minlength=len(class_names))
    rows = rows[counts[labels[rows]] >= _FOLDS]
    if len(np.unique(labels[rows])) < 2:
        return []
    rows = np.random.default_rng(0).permutation(rows)[:_MOST_IMAGES]
    rows = rows[np.bincount(labels[rows], minlength=len(class_names))[labels[rows]] >= _FOLDS]
    present, own = np.unique(labels[rows], return_inverse=True)
    found = []
    for fact in _facts(looks, rows):
        if np.all(fact.values == fact.values[0]):
            continue
        scores = ClassScores(count_confusions(own, _guessed(fact.values, own, len(present)), len(present)))
        finding = _judged(fact, scores, [class_names[label] for label in present])
        if finding is not None:
            found.append(finding)
    return sorted(found, key=lambda item: -float(item.numbers["macro_accuracy"]))


def _facts(looks: Looks, rows: npt.NDArray[np.int64]) -> Iterator[_Fact]:
    sizes = looks.sizes[rows].astype(np.float64)
    same = "Bring the images of all classes to the same {}, or take them from the same sources."
    if len(np.unique(sizes, axis=0)) > 1:
        yield _Fact("size in pixels", "file", sizes, same.format("size before training"))
        yield _Fact("aspect ratio", "file", sizes[:, :1] / sizes[:, 1:], same.format("aspect ratio, cropped,"))
    for title, texts in (("colour mode of the file", looks.modes), ("file format", looks.formats)):
        _, numbers = np.unique([texts[row] for row in rows], return_inverse=True)
        yield _Fact(title, "file", numbers[:, None].astype(np.float64), same.format(f"{title.split(' of')[0]}"))
    bytes_ = looks.bytes[rows].astype(np.float64)
    yield _Fact(
        "bytes for each pixel",
        "file",
        (bytes_ / np.maximum(sizes.prod(axis=1), 1))[:, None],
        "Compress the images of all classes alike, from the least compressed ones that there are.",
    )
    small = looks.small[rows].reshape(len(rows), -1, 3)
    yield _Fact(
        "mean colour",
        "content",
        small.mean(axis=1, dtype=np.float64),
        "If colour is not what the classes are about, take images with other light and backgrounds.",
    )


def _guessed(values: npt.NDArray[np.float64], own: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.int64]:
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_leaf_nodes=2 * n_classes, min_samples_leaf=3, class_weight="balanced", random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guessed: npt.NDArray[np.int64] = cross_val_predict(
            tree, values, own, cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        )
    return guessed


def _judged(fact: _Fact, scores: ClassScores, names: Sequence[str]) -> Finding | None:
    chance = 1 / len(names)
    low = scores.macro_accuracy_interval[0]
    skilled = (low - chance) / (1 - chance) >= _SKILL[fact.source]
    given = _given_away(scores, names)
    if not skilled and not given:
        return None
    listed = ", ".join(repr(name) for name in given[:8]) + (" …" if len(given) > 8 else "")
    what = f"{fact.title[0].upper()}{fact.title[1:]}"
    return Finding(
        "giveaway",
        "doubtful",
        f"{what} gives {'the class' if skilled and len(given) != 1 else 'class ' + listed} away",
        f"From the {fact.title} alone, a simple rule gets a macro accuracy of {scores.macro_accuracy:.0%}, where "
        f"guessing gets {chance:.0%}. A model can do well on test images of the same kind without "
        "looking at what is in them."
        + (f" Nearly all images of {listed} are recognised by it." if given else "")
        + (" That may be what your classes are about." if fact.source == "content" else ""),
        fact.cure,
        {
            "fact": fact.title,
            "macro_accuracy": scores.macro_accuracy,
            "macro_accuracy_low": low,
            "chance": chance,
            "classes": list(given),
        },
    )


def _given_away(scores: ClassScores, names: Sequence[str]) -> list[str]:
    """Classes that are recognised far more often than others are taken for them, as far as their images can tell."""
    found = []
    total = int(scores.images.sum())
    for index, name in enumerate(names):
        images, right = int(scores.images[index]), int(scores.right[index])
        taken = int(scores.confusion[:, index].sum()) - right
        low, high = wilson(right, images)[0], wilson(taken, total - images)[1]
        if right / images - taken / (total - images) >= _CLEAR and low - high >= _CLEAR / 2:
            found.append(name)
    return found
