"""Q-SENN (Norrenbrock et al., AAAI 2024): a sparse layer whose weights are −1, 0 or +1 times a scale of the class.

Q-SENN repeats: fit a sparse layer over the features that are kept, quantise it, fine-tune the backbone with it. The
features are chosen once, as in the SLDD-Model; each repetition fits the layer anew to the features as fine-tuning left
them. What trains in between is up to the caller.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qpm_vision.baselines.choice import Choice
from qpm_vision.baselines.sparse_path import PooledFeatures, sparse_layer

__all__ = ["q_senn_of", "quantised", "refit_q_senn"]


def quantised(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Replace the weights of each class by their signs times the mean size of those that are not 0.

    That is the scale with the least squared error for these signs.

    Args:
        weights: (n_classes, n_select).

    Returns:
        The same shape; a class without weights stays without.

    Example:
        >>> quantised(np.array([[3.0, 0.0, -1.0], [0.0, 0.0, 0.0]]))
        array([[ 2.,  0., -2.],
               [ 0.,  0.,  0.]])
    """
    used = (weights != 0).sum(axis=1, keepdims=True)
    scale = np.abs(weights).sum(axis=1, keepdims=True) / np.maximum(used, 1)
    return np.asarray(np.sign(weights) * scale + 0.0, dtype=np.float64)


def q_senn_of(sldd: Choice) -> Choice:
    """The first choice of Q-SENN: that of the SLDD-Model, quantised."""
    return Choice(sldd.selected, quantised(sldd.weights), sldd.bias)


def refit_q_senn(selected: npt.NDArray[np.int64], features: PooledFeatures, n_per_class: int) -> Choice:
    """A new quantised layer over the same features.

    Args:
        selected: The kept features of the backbone, (n_select,).
        features: Pooled training features of the model so far, (n_images, n_select), in the order of `selected`.
        n_per_class: Weights of a class other than 0, on average.
    """
    layer = sparse_layer(features, n_per_class * features.n_classes)
    return Choice(selected, quantised(layer.weights), layer.bias)
