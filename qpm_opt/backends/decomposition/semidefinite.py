"""The doubly nonnegative bound: what cutting planes leave open where many pairs are penalised.

With Y = [1 xᵀ; x X], X standing for s sᵀ, K features to choose and q = (K, −1, …, −1)/‖·‖,

    maximise    T(x) + b·x − ½⟨P, X⟩,        T(x) = min over t of Σ_c (k t_c + Σ_f max(0, a_cf − t_c) x_f)
    subject to  diag X = x,  Σ x = K,  0 ≤ Y ≤ 1,  Y positive semidefinite,  Y q = 0.

Alternating directions split Y (box, arrow, cardinality: closed form and one bisection) from M (positive semidefinite on
q's complement: one eigendecomposition); the multiplier Z settles between them, and the thresholds follow x.

Any Z gives a bound, converged or not. With V ⪰ Z on q's complement, V positive semidefinite, W = V − Z satisfies
⟨W, Y⟩ ≥ 0 for every feasible Y, so for every t

    bound = Σ_c k t_c + W₀₀ + sum of the K largest φ,    D = W[1:, 1:] − ½P,
    φ_i = b_i + Σ_c max(0, a_ci − t_c) + 2 W[0, i] + D_ii + sum of the K − 1 largest D_ij, j ≠ i.

The iterations run in single precision. V is the positive part of Z as single precision sees it, plus δ times the
identity, and that V − Z really is positive semidefinite on the complement is certified by a Cholesky factorisation in
double precision, with δ raised until it succeeds and far above the factorisation's own rounding error. Features that
every solution keeps are not part of Y: they enter b, t and K.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.search_space import SearchSpace

__all__ = ["SemidefiniteBound", "SemidefiniteCertificate"]

Single = npt.NDArray[np.float32]

_PENALTIES = {0: 5.0, 20: 2.0, 40: 1.0}
"""Penalty parameter from an iteration on, in units of twice the mean penalty of a pair."""

_DAMPING = 0.8
_THRESHOLD_STEPS = 60
_FIRST_SHIFT = 1e-6
_ROUNDING = 1e-11


@dataclass(frozen=True, eq=False)
class SemidefiniteCertificate:
    """A bound and what it says about single features.

    Attributes:
        bound: Safe upper bound on the objective; uniqueness is left out.
        without: (n,) bound on solutions without a feature.
        including: (n,) bound on solutions with it.
    """

    bound: float
    without: FloatArray
    including: FloatArray


class SemidefiniteBound:
    """The iteration; `step` it, then ask for a `certificate`.

    Args:
        space: The problem.
        classes: Its class values.
        chosen: (n_select,) a good set of features to start from.
    """

    def __init__(self, space: SearchSpace, classes: ClassValues, chosen: IntArray) -> None:
        forced, free = np.flatnonzero(space.forced), np.flatnonzero(~space.forced)
        self._forced, self._free = forced, free
        n = len(free)
        self._n, self._k = n, space.n_select - len(forced)
        self._penalties = space.penalties[np.ix_(free, free)]
        self._bias = space.bias[free] - space.penalties[np.ix_(forced, free)].sum(axis=0)
        self._constant = space.constant + space.set_value(forced)
        self._classes = classes
        self._everything = len(space.features)
        charged = self._penalties[self._penalties > 0.0]
        self._unit = 2.0 * float(charged.mean()) if len(charged) else 1.0
        self._rho = _PENALTIES[0] * self._unit
        self.iterations = 0

        direction = np.full(n + 1, -1.0)
        direction[0] = self._k
        self._q = (direction / np.linalg.norm(direction)).astype(np.float32)
        uniform = np.full(n, self._k / n)
        start = np.isin(free, chosen).astype(np.float64)
        apart = np.full((n, n), self._k * (self._k - 1) / max(1, n * (n - 1)))
        np.fill_diagonal(apart, self._k / n)
        corner = np.concatenate([[1.0], start])
        spread = np.block([[np.ones((1, 1)), uniform[None, :]], [uniform[:, None], apart]])
        self._m: Single = (0.5 * np.outer(corner, corner) + 0.5 * spread).astype(np.float32)
        self._u: Single = np.zeros_like(self._m)  # the multiplier Z divided by the penalty parameter
        self._half_penalties: Single = (0.5 * self._penalties).astype(np.float32)
        self._thresholds = classes.thresholds(self._full(0.5 * start + 0.5 * uniform))

    @property
    def x(self) -> FloatArray:
        """(n,) fractional features of the last iteration."""
        return self._full(self._x)

    def step(self) -> None:
        """One iteration."""
        if self.iterations in _PENALTIES:
            changed = _PENALTIES[self.iterations] * self._unit
            self._u *= np.float32(self._rho / changed)
            self._rho = changed
        self.iterations += 1
        worth = self._classes.slopes(self._thresholds).sum(axis=0)[self._free] + self._bias
        y = self._m - self._u
        inner = np.arange(1, self._n + 1)
        self._x = x = _capped(
            (2.0 * y[0, 1:].astype(np.float64) + y[inner, inner]) / 3.0 + worth / (3.0 * self._rho), self._k
        )
        y[1:, 1:] -= self._half_penalties * np.float32(1.0 / self._rho)
        np.clip(y, 0.0, 1.0, out=y)
        y[0, 0] = 1.0
        y[0, 1:] = y[1:, 0] = y[inner, inner] = x
        best = self._classes.thresholds(self._full(x))
        self._thresholds = _DAMPING * self._thresholds + (1.0 - _DAMPING) * best
        y += self._u
        self._m = _positive_part(_projected(y, self._q))
        np.subtract(y, self._m, out=self._u)

    def certificate(self) -> SemidefiniteCertificate:
        """The bound that the present multiplier proves."""
        z = self._u.astype(np.float64) * self._rho
        w = _dominating(z, self._q.astype(np.float64)) - z
        k = self._k
        d = w[1:, 1:] - 0.5 * self._penalties
        own = d.diagonal().copy()
        np.fill_diagonal(d, -np.inf)
        partners = -np.partition(-d, k - 2, axis=1)[:, : k - 1].sum(axis=1) if k > 1 else np.zeros(self._n)
        base = self._bias + 2.0 * w[0, 1:] + own + partners
        constant = self._constant + float(w[0, 0])
        size = abs(w[0, 0]) + float(np.abs(base).max()) * k

        thresholds, best, best_phi, best_at = self._thresholds, np.inf, base, 0.0
        budgets = self._classes.budgets
        for number in range(_THRESHOLD_STEPS):
            slopes = self._classes.slopes(thresholds)
            phi = base + slopes.sum(axis=0)[self._free]
            at = float(budgets @ thresholds) + float(slopes[:, self._forced].sum())
            top = np.argpartition(-phi, k - 1)[:k]
            value = constant + at + float(phi[top].sum())
            if value < best:
                best, best_phi, best_at = value, phi, at
            kept = np.concatenate([self._free[top], self._forced])
            slope = budgets - (self._classes.values[:, kept] > thresholds[:, None]).sum(axis=1)
            length = float(slope @ slope)
            if length == 0.0:
                break
            thresholds = thresholds - 0.002 * abs(best) * 0.97**number / length * slope
        slack = _ROUNDING * (size + abs(best_at) + float(np.abs(best_phi).sum()))
        best += slack

        ranked = np.sort(best_phi)[::-1]
        last, following = ranked[k - 1], ranked[k] if self._n > k else -np.inf
        inside = best_phi >= last
        without = np.full(self._everything, best)
        including = np.full(self._everything, best)
        without[self._free] = np.where(inside, best - best_phi + following, best)
        including[self._free] = np.where(inside, best, best - last + best_phi)
        return SemidefiniteCertificate(best, without, including)

    def _full(self, x: FloatArray) -> FloatArray:
        everything = np.ones(self._everything)
        everything[self._free] = x
        return everything


def _capped(target: FloatArray, total: int) -> FloatArray:
    """The point of {0 ≤ x ≤ 1, Σ x = total} nearest to `target`."""
    low, high = float(target.min()) - 1.0, float(target.max())
    for _ in range(60):
        middle = (low + high) / 2.0
        if np.clip(target - middle, 0.0, 1.0).sum() > total:
            low = middle
        else:
            high = middle
    return np.clip(target - (low + high) / 2.0, 0.0, 1.0)


def _projected(matrix: npt.NDArray[np.floating], q: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """The matrix restricted to the complement of the unit vector q."""
    image = matrix @ q
    half = image - (0.5 * (q @ image)) * q
    return matrix - np.outer(half, q) - np.outer(q, half)


def _positive_part(matrix: npt.NDArray[np.floating]) -> Single:
    values, vectors = linalg.eigh(matrix, driver="evd", check_finite=False)
    positive = values > 0.0
    return np.asarray((vectors[:, positive] * values[positive]) @ vectors[:, positive].T, dtype=np.float32)


def _dominating(z: FloatArray, q: FloatArray) -> FloatArray:
    """A positive semidefinite matrix V with V − z positive semidefinite on the complement of q, certified."""
    q = q / np.linalg.norm(q)
    restricted = _projected(z, q)
    size = max(float(np.abs(restricted).max()), 1e-300)
    v = _positive_part(restricted.astype(np.float32)).astype(np.float64)
    v = (v + v.T) / 2.0
    # In q's own direction anything is allowed; a large entry there keeps the factorisation from failing in it.
    rest = _projected(v - z, q) + size * np.outer(q, q)
    shift = _FIRST_SHIFT * size
    while True:
        trial = rest.copy()
        # Half of the shift is kept back for the rounding errors of the factorisation and of the sums above.
        trial[np.diag_indices(len(trial))] += 0.5 * shift
        try:
            linalg.cholesky(trial, lower=True, overwrite_a=True, check_finite=False)
        except linalg.LinAlgError:
            shift *= 2.0
            continue
        v[np.diag_indices(len(v))] += shift
        return v
