"""Cuts over the kept features s, the class values θ and the pairs y, as rows of a linear program.

Class cuts are the supporting lines of the class values; clique cuts bind pairs of look-alike features. For a set Q of
features whose pairs all have a penalty, m of them kept means m(m − 1)/2 pairs, and the line through the counts α and
α + 1 of that parabola gives, for every whole α ≥ 1,

    Σ_{e ⊂ Q} y_e ≥ α Σ_{f ∈ Q} s_f − α(α + 1)/2.

The plain row y_ij ≥ s_i + s_j − 1 is the clique of two with α = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

__all__ = ["CliqueCut", "LinearCut", "clique_cuts"]

_LEAST_WEIGHT = 1e-6


@dataclass(frozen=True, eq=False)
class LinearCut:
    """Σ_{c ∈ classes} θ_c ≤ constant + slopes·s, or without classes 0 ≤ constant + slopes·s.

    Attributes:
        classes: Classes whose values are bounded.
        constant: Right-hand side.
        features: Features with a slope.
        slopes: Their slopes.
    """

    classes: IntArray
    constant: float
    features: IntArray
    slopes: FloatArray

    @classmethod
    def of(cls, classes: IntArray, constant: float, slopes: FloatArray) -> LinearCut:
        """The cut with the slopes of all features, of which only those that are not zero are kept."""
        features = np.flatnonzero(slopes)
        return cls(classes, constant, features, slopes[features])

    def at(self, x: FloatArray) -> float:
        """The right-hand side at features x (n,)."""
        return self.constant + float(self.slopes @ x[self.features])


@dataclass(frozen=True, eq=False)
class CliqueCut:
    """Σ_{e ⊂ members} y_e ≥ α Σ_{f ∈ members} s_f − α(α + 1)/2.

    Attributes:
        members: Features with a penalty between any two.
        alpha: α.
    """

    members: IntArray
    alpha: int


def clique_cuts(
    used: IntArray, weight: FloatArray, together: FloatArray, linked: BoolArray, *, most: int, least_violation: float
) -> list[CliqueCut]:
    """Violated clique cuts, greedily from every feature in use, the most violated first.

    Args:
        used: (m,) features in use.
        weight: (m,) how much of them is in use.
        together: (m, m) symmetric value of y among them, zero where there is no such variable yet.
        linked: (m, m) whether they have a penalty.
        most: How many cuts to return.
        least_violation: Cuts violated by less are left out.
    """
    found: dict[tuple[int, ...], tuple[float, int]] = {}
    for seed in range(len(used)):
        members = [seed]
        room = np.where(linked[seed], weight - together[seed], -np.inf)
        total = float(weight[seed])
        covered = 0.0
        while True:
            best = int(np.argmax(room))
            if room[best] <= _LEAST_WEIGHT:
                break
            covered += float(together[best, members].sum())
            members.append(best)
            total += float(weight[best])
            room = np.where(linked[best], room - together[best], -np.inf)
        if len(members) < 2:
            continue
        alpha = max(1, int(np.floor(total)))
        violation = alpha * total - alpha * (alpha + 1) / 2 - covered
        if violation > least_violation:
            found[tuple(sorted(used[members].tolist()))] = (violation, alpha)
    ranked = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))[:most]
    return [CliqueCut(np.array(members, dtype=np.int64), alpha) for members, (_, alpha) in ranked]
