"""Turning what people pass into clean, read-only NumPy arrays, or saying exactly why not."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, KeysView, Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from qpm_opt.conversion import plain_array
from qpm_opt.errors import InvalidInputError
from qpm_opt.text import normal_text

_LARGEST = 1e100

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Default(int):
    """The default of an argument, which can be told from the same number when somebody gives it."""


def float_array(name: str, value: Any, ndim: int) -> FloatArray:
    """Finite float64 copy of the wanted number of dimensions, read-only."""
    array = plain_array(name, value)
    if array.ndim != ndim:
        raise InvalidInputError(
            f"The '{name}' parameter must have {ndim} dimension{'s' if ndim > 1 else ''}. "
            f"Got shape {tuple(int(size) for size in array.shape)}."
        )
    array = np.array(array, dtype=np.float64, order="C")
    require_finite(name, array)
    require_moderate(name, array)
    array.setflags(write=False)
    return array


def require_finite(name: str, array: FloatArray) -> None:
    """Raise when there is a NaN or an infinity, with their number and the first position."""
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(index) for index in np.argwhere(bad)[0])
        raise InvalidInputError(
            f"The '{name}' parameter must be finite. Got {int(bad.sum())} NaN or infinite entries, the first at "
            f"{list(first)}. A feature without variance has no correlation: give it zeros, which marks it as dead."
        )


def labels_of(value: Any, axis: str) -> tuple[str | int, ...] | None:
    """The labels that a pandas object carries on its 'index' or 'columns', None where they are the plain positions."""
    index = getattr(value, axis, None)
    if index is None or callable(index) or not hasattr(value, "iloc"):
        return None
    labels = tuple(_plain_label(item) for item in index)
    return None if labels == tuple(range(len(labels))) else labels


def require_same_labels(name: str, given: tuple[Any, ...] | None, expected: tuple[Any, ...] | None, owner: str) -> None:
    """Raise where two pandas objects carry the labels of one axis in another order, or other labels.

    Where `owner` has no labels, only a permutation of the positions counts as another order.
    """
    if given is None or given == expected:
        return
    if expected is None:
        expected = tuple(range(len(given)))
        if set(given) != set(expected):
            return
    raise InvalidInputError(
        f"The '{name}' parameter must carry the labels of {owner} in the same order. "
        f"Got {list(given[:3])}… instead of {list(expected[:3])}…; reindex it."
    )


def items(name: str, value: Any, what: str) -> list[Any]:
    """The items of any iterable but a string or a mapping."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidInputError(f"The '{name}' parameter must be a list of {what}. Got {value!r}.")
    if hasattr(value, "detach"):
        value = plain_array(name, value)
    try:
        if hasattr(value, "itertuples"):  # a frame, which otherwise lists its columns
            return [tuple(row) for row in value.itertuples(index=False)]
        return list(value)
    except TypeError:  # an array without dimensions
        raise InvalidInputError(f"The '{name}' parameter must be a list of {what}. Got {value!r}.") from None


def ordered_items(name: str, value: Any, what: str) -> list[Any]:
    """The items of any iterable whose order means something."""
    if isinstance(value, Set) and not isinstance(value, KeysView):  # the keys of a dictionary do have one
        raise InvalidInputError(
            f"The '{name}' parameter must be a list of {what}, in order. Got a {type(value).__name__}, which has none; "
            "pass a list."
        )
    return items(name, value, what)


def require_moderate(name: str, array: FloatArray) -> None:
    """Raise where sums of products, or quotients, would leave the range of float64."""
    largest = float(np.abs(array).max(initial=0.0))
    if largest > _LARGEST or 0.0 < largest < 1.0 / _LARGEST:
        raise InvalidInputError(
            f"The '{name}' parameter must have a largest entry between {1 / _LARGEST:g} and {_LARGEST:g}, or zeros. "
            f"Got {largest:g}; scale the problem."
        )


def label_tuple(name: str, value: Iterable[Any] | None, length: int) -> tuple[str | int, ...] | None:
    """Labels as a tuple of strings (in the spelling of `normal_text`) or ints, as many as needed and no two alike."""
    if value is None:
        return None
    labels = tuple(_plain_label(item) for item in ordered_items(name, value, "labels"))
    if len(labels) != length:
        raise InvalidInputError(f"The '{name}' parameter must have {length} entries. Got {len(labels)}.")
    wrong = [label for label in labels if not isinstance(label, (str, int)) or isinstance(label, bool)]
    if wrong:
        raise InvalidInputError(
            f"The '{name}' parameter must hold strings or integers. Got {wrong[0]!r} of type {type(wrong[0]).__name__}."
        )
    if len(set(labels)) != length:
        twice = next(label for position, label in enumerate(labels) if label in labels[:position])
        raise InvalidInputError(f"The '{name}' parameter must not repeat a label. Got {twice!r} more than once.")
    return labels


def whole_number(name: str, value: Any, *, least: int) -> int:
    """An int that is at least `least`; refuses booleans and fractions."""
    if isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(f"The '{name}' parameter must be a whole number. Got the boolean {value}.")
    try:
        number = operator.index(value)
    except TypeError:
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            number = int(value)
        else:
            raise InvalidInputError(
                f"The '{name}' parameter must be a whole number. Got {value!r} of type {type(value).__name__}."
            ) from None
    if not least <= number < 2**63:
        limit = f"at least {least}" if number < least else "below 2**63"
        raise InvalidInputError(f"The '{name}' parameter must be {limit}. Got {number}.")
    return number


def finite_number(name: str, value: Any) -> float:
    """A finite float."""
    number = _float(name, value)
    if not np.isfinite(number):
        raise InvalidInputError(f"The '{name}' parameter must be finite. Got {value!r}.")
    return number


def positive_number(name: str, value: Any, *, zero_allowed: bool = False) -> float:
    """A finite float above zero (or not below it)."""
    number = _float(name, value)
    if not np.isfinite(number) or number < 0 or (number == 0 and not zero_allowed):
        least = "0 or more" if zero_allowed else "above 0"
        raise InvalidInputError(f"The '{name}' parameter must be a finite number {least}. Got {value!r}.")
    return number


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError(
            f"The '{name}' parameter must be a number. Got {value!r} of type {type(value).__name__}."
        ) from None


def _plain_label(label: Any) -> Any:
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, str):  # members of enumerations are text and numbers too, and stored as such
        return normal_text(str.__str__(label))
    return int(label) if isinstance(label, int) and not isinstance(label, bool) else label


def position(name: str, value: Any, length: int, labels: Sequence[str | int] | None, what: str) -> int:
    """The index that a label or, where labels are not integers themselves, a position stands for."""
    value = _plain_label(value)
    has_integer_labels = labels is not None and any(isinstance(label, int) for label in labels)
    if isinstance(value, str) or (has_integer_labels and isinstance(value, int) and not isinstance(value, bool)):
        if labels is None:
            raise InvalidInputError(
                f"The '{name}' parameter names the {what} {value!r}, but the problem has no {what} labels; "
                f"give its position, or pass {what}_labels."
            )
        if value not in labels:
            raise InvalidInputError(
                f"The '{name}' parameter names the {what} {value!r}, which does not exist.{nearest(value, labels)}"
            )
        return labels.index(value)
    index = whole_number(name, value, least=0)
    if index >= length:
        raise InvalidInputError(
            f"The '{name}' parameter must hold positions of {what}s between 0 and {length - 1}. Got {index}."
        )
    return index


def feature_positions(name: str, value: Any, n_features: int, labels: Sequence[str | int] | None) -> list[int]:
    """Positions of features that are given by label, by position, or as a mask with a boolean for each feature."""
    given = items(name, value, "features")
    if any(item is pd.NA for item in given):
        raise InvalidInputError(f"The '{name}' parameter must have no missing values. Got <NA>; fill or drop them.")
    if not given or not all(isinstance(item, (bool, np.bool_)) for item in given):
        return [position(name, item, n_features, labels, "feature") for item in given]
    if len(given) != n_features:
        raise InvalidInputError(
            f"The '{name}' parameter must, as a mask, have one entry for each of the {n_features} features. Got "
            f"{len(given)} booleans; give positions, or a mask of all features."
        )
    require_same_labels(name, labels_of(value, "index"), None if labels is None else tuple(labels), "the features")
    return [int(index) for index in np.flatnonzero(given)]


def nearest(word: Any, known: Iterable[Any]) -> str:
    """A sentence that names the most similar known words, to be put behind an error message."""
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    listed = ", ".join(sorted(names)[:12]) + (", …" if len(names) > 12 else "")
    return f" Known: {listed}." if names else ""


def label_at(index: int, labels: Sequence[str | int] | None) -> str | int:
    """How to name what stands at a position: by its label where there are labels, which may be integers themselves."""
    return index if labels is None else labels[index]
