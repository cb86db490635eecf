"""Other ways to choose features and a head: the neighbours of QPM, to compare it with."""

from __future__ import annotations

from qpm_vision.baselines.choice import Choice, assign_distinct
from qpm_vision.baselines.greedy import choose_greedily, greedy_features
from qpm_vision.baselines.q_senn import q_senn_of, quantised, refit_q_senn
from qpm_vision.baselines.random_choice import choose_randomly
from qpm_vision.baselines.sldd import choose_sldd
from qpm_vision.baselines.sparse_path import PooledFeatures, SparseLayer, features_on_path, sparse_layer

__all__ = [
    "Choice",
    "PooledFeatures",
    "SparseLayer",
    "assign_distinct",
    "choose_greedily",
    "choose_randomly",
    "choose_sldd",
    "features_on_path",
    "greedy_features",
    "q_senn_of",
    "quantised",
    "refit_q_senn",
    "sparse_layer",
]
