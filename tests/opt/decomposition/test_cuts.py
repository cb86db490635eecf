"""Clique cuts hold for every set of features and cut off what they should."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qpm_opt.backends.decomposition.cuts import clique_cuts


@given(st.integers(0, 10_000))
def test_no_set_of_features_is_cut_off(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 9
    linked = np.triu(rng.random((n, n)) < 0.7, 1)
    linked |= linked.T
    weight = rng.random(n)
    cuts = clique_cuts(np.arange(n), weight, np.zeros((n, n)), linked, most=50, least_violation=1e-6)
    for cut in cuts:
        members = cut.members
        assert linked[np.ix_(members, members)].sum() == len(members) * (len(members) - 1)
        for kept in range(len(members) + 1):
            pairs = kept * (kept - 1) / 2
            assert pairs >= cut.alpha * kept - cut.alpha * (cut.alpha + 1) / 2


def test_look_alikes_at_one_half_are_found() -> None:
    linked = ~np.eye(6, dtype=bool)
    cuts = clique_cuts(np.arange(6), np.full(6, 0.5), np.zeros((6, 6)), linked, most=5, least_violation=1e-6)
    assert len(cuts) == 1
    assert cuts[0].members.tolist() == [0, 1, 2, 3, 4, 5]
    # Three of the six are kept: three pairs, where the plain rows ask for none.
    assert cuts[0].alpha == 3
