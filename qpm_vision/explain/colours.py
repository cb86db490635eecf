"""One colour for each feature: told apart by colour-blind people, and different for features that meet in a class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["PALETTE", "feature_colours"]

PALETTE = ("#e69f00", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#0072b2", "#f0e442", "#882255")
"""The colours of Okabe and Ito without black, and a wine red; all stand out on grey."""


def feature_colours(weights: npt.ArrayLike) -> tuple[str, ...]:
    """Give every feature a colour of `PALETTE`.

    Features that describe a common class get different colours as far as there are enough; the colours are used
    equally often otherwise. They depend on the weights alone: a feature keeps its colour in every picture of a model.

    Args:
        weights: W, (n_classes, n_select) of 0/1.

    Returns:
        n_select colours as #rrggbb.
    """
    matrix = np.asarray(weights) > 0
    together = matrix.T.astype(np.int64) @ matrix.astype(np.int64)
    np.fill_diagonal(together, 0)
    n_features = matrix.shape[1]
    chosen = np.full(n_features, -1)
    # The most entangled features choose first: they have the fewest colours left later.
    for feature in np.argsort(-(together > 0).sum(axis=1), kind="stable"):
        clashes = np.zeros(len(PALETTE), dtype=np.int64)
        used = np.zeros(len(PALETTE), dtype=np.int64)
        for other in np.flatnonzero(chosen >= 0):
            clashes[chosen[other]] += together[feature, other]
            used[chosen[other]] += 1
        chosen[feature] = np.lexsort((used, clashes))[0]
    return tuple(PALETTE[index] for index in chosen)
