"""SLDD-Model (Norrenbrock et al., 2022): features by a grouped path, then a sparse layer of real weights with bias."""

from __future__ import annotations

from qpm_vision.baselines.choice import Choice
from qpm_vision.baselines.sparse_path import PooledFeatures, features_on_path, sparse_layer

__all__ = ["choose_sldd"]


def choose_sldd(features: PooledFeatures, n_select: int, n_per_class: int) -> Choice:
    """Keep the features that a group-sparse layer uses first, then fit n_per_class weights per class on average.

    Both steps follow a path of falling elastic-net regularisation (Wong et al., 2021) over standardised features: the
    first with a penalty on the norm of each feature's weights, until `n_select` features are in use; the second with
    the penalty on single weights, over these features only. A class may have more or fewer weights than others.

    Args:
        features: Pooled training features of the dense model.
        n_select: Features to keep.
        n_per_class: Weights of a class other than 0, on average.

    Raises:
        InvalidInputError: Fewer than `n_select` features vary.
    """
    selected = features_on_path(features, n_select)
    layer = sparse_layer(features.columns(selected), n_per_class * features.n_classes)
    return Choice(selected, layer.weights, layer.bias)
