"""What is moved into the objective of the semidefinite bound, and leaves it valid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qpm_opt._validation import FloatArray

__all__ = ["Charges"]


@dataclass(frozen=True, eq=False)
class Charges:
    """To be added to the problem: penalties (n, n), symmetric and with an empty diagonal, bias (n,) and constant."""

    penalties: FloatArray
    bias: FloatArray
    constant: float

    @classmethod
    def none(cls, n: int) -> Charges:
        """Nothing, over n features."""
        return cls(np.zeros((n, n)), np.zeros(n), 0.0)

    @classmethod
    def of_gain(cls, gain: FloatArray, bias: FloatArray, constant: float) -> Charges:
        """What adds Σ_ij gain_ij s_i s_j (n, n), bias·s and the constant to the objective."""
        bias = bias + gain.diagonal()
        penalties = -(gain + gain.T)
        np.fill_diagonal(penalties, 0.0)
        return cls(penalties, bias, constant)

    def __add__(self, other: Charges) -> Charges:
        """Both together."""
        return Charges(self.penalties + other.penalties, self.bias + other.bias, self.constant + other.constant)
