"""One colour for each feature: told apart by colour-blind people, and different for features that meet in a class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["PALETTE", "feature_colours"]

PALETTE = (
    *("#e69f00", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#0072b2", "#f0e442", "#882255"),
    *("#44aa99", "#999933", "#332288", "#aa4499"),
)
"""The colours of Okabe and Ito without black, and some of Tol's muted ones; all stand out on grey."""


def feature_colours(weights: npt.ArrayLike) -> tuple[str, ...]:
    """Give every feature a colour of `PALETTE`.

    Features that describe a common class get different colours as far as there are enough; the colours are used
    equally often otherwise. There are far fewer colours than features, so a picture is coloured for what it shows: its
    features are known by their numbers, and told apart by their colours.

    Args:
        weights: W of the classes that a picture shows, (n_classes, n_select) of 0/1. A row of their union makes all
            their features different.

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
