"""Setting part of the images of each class aside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError

__all__ = ["check_split", "stratified_split"]


def check_split(test_share: float, seed: int) -> None:
    """Refuse a share outside (0, 1) and a seed that is no whole number from 0.

    Raises:
        InvalidInputError: One of them is out of range.
    """
    if isinstance(test_share, bool) or not isinstance(test_share, (int, float)) or not 0 < test_share < 1:
        raise InvalidInputError(
            f"The 'test_share' parameter must be a number between 0 and 1, exclusive. Got {test_share!r}."
        )
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InvalidInputError(f"The 'seed' parameter must be a whole number of at least 0. Got {seed!r}.")


def stratified_split(
    labels: npt.ArrayLike, *, test_share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions for training and for testing, in order; of each class the same share, and of both at least one.

    A class with a single image has it in training. What is drawn for a class does not depend on the other classes.

    Args:
        labels: (N,) whole numbers from 0.
        test_share: Part of each class that goes to testing, in (0, 1).
        seed: Of the draw.

    Raises:
        InvalidInputError: `test_share` or `seed` is out of range.

    Example:
        >>> train, test = stratified_split([0, 0, 0, 0, 1, 1, 2], test_share=0.25, seed=0)
        >>> len(train), len(test)
        (5, 2)
    """
    check_split(test_share, seed)
    known = np.asarray(labels, dtype=np.int64)
    held_out = np.zeros(len(known), dtype=bool)
    for label in np.unique(known):
        members = np.flatnonzero(known == label)
        if len(members) > 1:
            count = min(max(round(len(members) * test_share), 1), len(members) - 1)
            held_out[np.random.default_rng([int(seed), int(label)]).permutation(members)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
