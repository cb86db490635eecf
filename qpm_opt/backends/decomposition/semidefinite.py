"""The doubly nonnegative bound: what cutting planes leave open where many pairs are penalised.

With Y = [1 xᵀ; x X], X standing for s sᵀ, K features to choose and q = (K, −1, …, −1)/‖·‖,

    maximise    T(x) + b·x − ½⟨P, X⟩,        T(x) = min over t of Σ_c (k t_c + Σ_f max(0, a_cf − t_c) x_f)
    subject to  diag X = x,  Σ x = K,  0 ≤ Y ≤ 1,  Y positive semidefinite,  Y q = 0.

Alternating directions split Y (box, arrow, cardinality: closed form and one bisection) from M (positive semidefinite on
q's complement: one eigendecomposition); the multiplier Z settles between them, and the thresholds follow x.

Only a working set of features takes part in that. A feature outside enters Y as the average chosen one, c = x/K, which
keeps W positive semidefinite, and a pair of features of which one is outside is charged to that one; where that makes
up a good part of what is left, those of the highest prices φ join; those that a certificate rules out leave. After some
iterations look-alike classes pay for what they share (overlaps), which changes a and b, kept features get thresholds of
their own (conditional_values), triangle and larger inequalities come in (triangles, quadric), and classes are bounded
with and without single features (disjunctions); all but the overlaps are charged to b and P.

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
from qpm_opt.backends.decomposition.charges import Charges
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.conditional_values import ConditionalValues
from qpm_opt.backends.decomposition.disjunctions import Disjunctions
from qpm_opt.backends.decomposition.overlaps import DistinctValues, class_kinds, overlaps_at
from qpm_opt.backends.decomposition.quadric import QuadricInequalities
from qpm_opt.backends.decomposition.triangles import Triangles
from qpm_opt.search_space import SearchSpace

__all__ = ["CHOSEN_EVERY", "SemidefiniteBound", "SemidefiniteCertificate"]

Single = npt.NDArray[np.float32]

_PENALTIES = {0: 5.0, 20: 2.0, 40: 1.0}
"""Penalty parameter from an iteration on, in units of twice the mean penalty of a pair."""

_OVERRELAXED = 1.6
"""Over-relaxation, until inequalities come in: with it their multipliers would overshoot."""

_OVERLAPS_FROM = 40
_CONDITIONAL_FROM = 60
_INEQUALITIES_FROM = 80
_DISJUNCTIONS_FROM = 100
CHOSEN_EVERY = 20
"""So many iterations after each other, overlaps, features with thresholds of their own, inequalities and disjunctions
are chosen anew. Each time is a jolt; certificates are best asked for just before it, after a multiple of this number.
"""

_OVERLAPS_PACE = 0.3
"""How much newly chosen overlaps count against all before, while the pace is full."""

_FULL_PACE = 100
"""Iterations after which overlaps and thresholds follow more and more slowly, with one by their number: at full pace
they would keep the bound in motion, a fiftieth above where it settles.
"""

_STEP = 0.05
_MEMORY = 0.05
"""Share of the way to its best place that a threshold goes in an iteration if that place keeps its direction from it
over some twenty iterations. With few classes it often does not: where the thresholds of 30 always went so far, it
moved around 1.2 % for good, and it settles at 0.5.
"""

_EMPTY = 1e-12

_MANY_CLASSES = 200
"""With fewer classes, what single ones do averages out less: the weights of disjunctions follow more slowly, in
proportion to the root of their number.
"""

_LEAST_CHARGE = 0.03
"""Features outside of the working set join it, which disturbs the iteration, when they are charged this share of what
lies between the bound and the value of the first set.
"""

_LEAST_GROWTH = 50
_FIRST_SHIFT = 1e-6
_ROUNDING = 1e-11


@dataclass(frozen=True, eq=False)
class SemidefiniteCertificate:
    """A bound and what it says about single features.

    Attributes:
        bound: Safe upper bound on the objective.
        without: (n,) bound on solutions without a feature.
        including: (n,) bound on solutions with it, minus infinity where it has been left out.
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
        working: (n,) bool, features to begin with; `chosen` and enough others always belong to them. None: all.
    """

    def __init__(
        self,
        space: SearchSpace,
        classes: ClassValues,
        chosen: IntArray,
        working: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self._value = space.relaxed_value(chosen)
        self._calm = min(1.0, float(np.sqrt(len(classes.budgets) / _MANY_CLASSES)))
        self._space, self._own_classes, self._kinds = space, classes, class_kinds(space)
        self._classes, self._distinct = classes, DistinctValues.of(classes, [])
        self._set_free(np.flatnonzero(~space.forced), np.flatnonzero(space.forced))
        self._class_values = classes  # of the working set, once there is one
        self._everything = len(space.features)
        charged = self._penalties[self._penalties > 0.0]
        self._unit = 2.0 * float(charged.mean()) if len(charged) else 1.0
        self._rho = _PENALTIES[0] * self._unit
        self.iterations = 0
        self._inequalities = (Triangles(), QuadricInequalities())
        self._conditional = ConditionalValues(self._k, len(classes.budgets))
        self._disjunctions = Disjunctions(self._k, len(classes.budgets))

        start = np.isin(self._free, chosen)
        self._set_working(np.flatnonzero(start | (True if working is None else working[self._free])))
        n = len(self._working)
        uniform = np.full(n, self._k / n)
        apart = np.full((n, n), self._k * (self._k - 1) / max(1, n * (n - 1)))
        np.fill_diagonal(apart, self._k / n)
        corner = np.concatenate([[1.0], start[self._working]])
        spread = np.block([[np.ones((1, 1)), uniform[None, :]], [uniform[:, None], apart]])
        self._m: Single = (0.5 * np.outer(corner, corner) + 0.5 * spread).astype(np.float32)
        self._u: Single = np.zeros_like(self._m)  # the multiplier Z divided by the penalty parameter
        self._x = 0.5 * corner[1:] + 0.5 * uniform
        self._thresholds = self._class_values.thresholds(self._working_x())
        self._drift, self._unrest = np.zeros(len(classes.budgets)), np.zeros(len(classes.budgets))

    @property
    def x(self) -> FloatArray:
        """(n,) fractional features of the last iteration."""
        x = np.zeros(self._everything)
        x[self._forced] = 1.0
        x[self._free[self._working]] = self._x
        return x

    def step(self) -> None:
        """One iteration."""
        if self.iterations in _PENALTIES:
            changed = _PENALTIES[self.iterations] * self._unit
            self._u *= np.float32(self._rho / changed)
            self._rho = changed
        self.iterations += 1
        self._follow()
        working = self._working
        worth = self._class_values.worth(self._thresholds)[: len(working)] + self._bias[working] + self._charges.bias
        y = self._m - self._u
        inner = np.arange(1, len(working) + 1)
        self._x = x = _capped(
            (2.0 * y[0, 1:].astype(np.float64) + y[inner, inner]) / 3.0 + worth / (3.0 * self._rho), self._k
        )
        self._move_thresholds()
        half = self._half_penalties
        if self._is_charged:
            half = half + np.float32(0.5) * self._charges.penalties.astype(np.float32)
        y[1:, 1:] -= half * np.float32(1.0 / self._rho)
        np.clip(y, 0.0, 1.0, out=y)
        y[0, 0] = 1.0
        y[0, 1:] = y[1:, 0] = y[inner, inner] = x
        direction = _direction(len(working), self._k).astype(np.float32)
        if self.iterations < _INEQUALITIES_FROM:
            y *= np.float32(_OVERRELAXED)
            y += np.float32(1.0 - _OVERRELAXED) * self._m
        y += self._u
        self._m = _positive_part(_projected(y, direction))
        np.subtract(y, self._m, out=self._u)

    def _move_thresholds(self) -> None:
        """Part of the way to where they would be best at x, less where that place goes to and fro."""
        away = self._class_values.thresholds(self._working_x()) - self._thresholds
        self._drift += _MEMORY * (away - self._drift)
        self._unrest += _MEMORY * (np.abs(away) - self._unrest)
        steadiness = np.abs(self._drift) / np.maximum(self._unrest, _EMPTY)
        self._thresholds += _STEP * self._pace * steadiness * away

    def _follow(self) -> None:
        """Let all that is charged follow the last iteration."""
        pairs, number = self._m[1:, 1:], self.iterations
        anew = number % CHOSEN_EVERY == 1
        if number >= _OVERLAPS_FROM and anew:
            self._charge_overlaps()
        if number >= _CONDITIONAL_FROM:
            if anew:
                self._conditional.choose(self._x, self._thresholds, self._class_values)
            self._conditional.follow(self._x, pairs, self._class_values, self._pace)
        if number >= _INEQUALITIES_FROM:
            for inequalities in self._inequalities:
                if anew:
                    inequalities.separate(pairs)
                inequalities.ascend(pairs, self._rho)
        if number >= _DISJUNCTIONS_FROM:
            self._follow_disjunctions(anew)
        if self._is_charged:
            self._set_charges()

    def _follow_disjunctions(self, anew: bool) -> None:
        x, pairs, values, options = self._x, self._m[1:, 1:], self._class_values, self._disjunctions
        if anew:
            options.choose(x, pairs, values)
        options.follow(x, pairs, values, self._pace)
        if anew:
            before = self._conditional.at(x, pairs, self._thresholds, values)
            options.weigh(x, pairs, values, before, self._pace * self._calm)
            self._conditional.weigh(options.rest)

    def _charge_overlaps(self) -> None:
        classes = self._own_classes
        fresh = DistinctValues.of(classes, overlaps_at(self._space, classes, self._kinds, self.x))
        is_first = self.iterations < _OVERLAPS_FROM + CHOSEN_EVERY
        self._distinct = self._distinct.mixed(fresh, 1.0 if is_first else _OVERLAPS_PACE * self._pace)
        self._classes = self._classes.changed(self._distinct.values)
        self._add_distinct()
        some = self._working_and_forced
        self._class_values = self._class_values.changed(self._distinct.values[:, some])

    def _set_free(self, free: IntArray, forced: IntArray) -> None:
        space = self._space
        self._free, self._forced, self._k = free, forced, space.n_select - len(forced)
        self._penalties = space.penalties[np.ix_(free, free)]
        self._own_bias = space.bias[free] - space.penalties[np.ix_(forced, free)].sum(axis=0)
        self._own_constant = space.constant + space.set_value(forced)
        self._add_distinct()

    def _add_distinct(self) -> None:
        self._bias = self._own_bias + self._distinct.bias[self._free]
        self._constant = self._own_constant + self._distinct.constant + float(self._distinct.bias[self._forced].sum())

    @property
    def _pace(self) -> float:
        return min(1.0, _FULL_PACE / self.iterations)

    @property
    def _is_charged(self) -> bool:
        return self.iterations >= min(_CONDITIONAL_FROM, _INEQUALITIES_FROM)

    def _set_charges(self) -> None:
        n = len(self._working)
        self._charges = self._conditional.charges(self._thresholds, self._class_values, n)
        self._charges += self._disjunctions.charges(self._thresholds, self._class_values, n)
        for inequalities in self._inequalities:
            self._charges += inequalities.charges(n)

    def _set_working(self, working: IntArray) -> None:
        self._working = working
        self._charges = Charges.none(len(working))
        self._half_penalties: Single = (0.5 * self._penalties[np.ix_(working, working)]).astype(np.float32)
        some = self._working_and_forced
        self._class_values = ClassValues.of(self._classes.values[:, some], self._classes.budgets)

    @property
    def _working_and_forced(self) -> IntArray:
        return np.concatenate([self._free[self._working], self._forced])

    def _working_x(self) -> FloatArray:
        return np.concatenate([self._x, np.ones(len(self._forced))])

    def restrict(self, kept: npt.NDArray[np.bool_], forced: npt.NDArray[np.bool_]) -> bool:
        """Leave features out and force others, at no loss of what the multiplier Z proves by itself.

        The constant stands for the forced ones too from then on, so that Z becomes Eᵀ Z E, where E copies its entry.
        Inequalities, thresholds and options that involve features that leave or are forced are given up.

        Args:
            kept: (n,) bool, features that stay; none that has left comes back.
            forced: (n,) bool, those of them that every solution keeps, all that were forced before among them.

        Returns:
            Whether enough features are left in the working set; nothing has changed where not.
        """
        working = self._free[self._working]
        stay, fixed = kept[working] & ~forced[working], forced[working]
        if not 0 < self._space.n_select - forced.sum() < stay.sum():
            return False
        self._set_free(np.flatnonzero(kept & ~forced), np.flatnonzero(forced))
        inside, corner = np.append(True, stay), np.append(False, fixed)
        moved = self._u[np.ix_(corner, inside)].sum(axis=0)
        own = self._u[np.ix_(corner, corner)].sum()
        self._m, self._u = self._m[np.ix_(inside, inside)], self._u[np.ix_(inside, inside)]
        self._u[0] += moved
        self._u[:, 0] += moved
        self._u[0, 0] += own
        self._x = self._x[stay]
        places = np.where(stay, np.cumsum(stay) - 1, -1)
        for inequalities in self._inequalities:
            inequalities.renumber(places)
        self._disjunctions.renumber(places, self._k)
        self._conditional.renumber(places, self._k)
        self._conditional.weigh(self._disjunctions.rest)
        self._set_working(np.searchsorted(self._free, working[stay]))
        return True

    def certificate(self) -> SemidefiniteCertificate:
        """The bound that the present multiplier proves; features that it charges too little join the working set."""
        self._set_charges()
        z = 0.5 * self._rho * (self._u.astype(np.float64) + self._u.T)  # single precision leaves it a little askew
        w = _dominating(z, _direction(len(self._working), self._k)) - z
        base, size = self._base(w)
        best, phi = self._prices(float(w[0, 0]) + self._charges.constant, base)
        best += _ROUNDING * (size + abs(best) + float(np.abs(phi).sum()))
        k = self._k
        last = -np.partition(-phi, k - 1)[k - 1]
        following = -np.partition(-phi, k)[k] if len(phi) > k else -np.inf
        inside = phi >= last
        without = np.full(self._everything, best)
        including = np.full(self._everything, -np.inf)
        including[self._forced] = best
        without[self._free] = np.where(inside, best - phi + following, best)
        including[self._free] = np.where(inside, best, best - last + phi)
        self._take_in(phi, best)
        return SemidefiniteCertificate(best, without, including)

    def _base(self, w: FloatArray) -> tuple[FloatArray, float]:
        """φ of all free features without their class values, and how large the numbers in it are."""
        k, working = self._k, self._working
        outside = np.setdiff1d(np.arange(len(self._free)), working)
        charges = self._charges
        d = w[1:, 1:] - 0.5 * (self._penalties[np.ix_(working, working)] + charges.penalties)
        base = self._bias.copy()
        base[working] += charges.bias + 2.0 * w[0, 1:] + d.diagonal()
        np.fill_diagonal(d, -np.inf)
        ranked = -np.partition(-d, k - 2, axis=1)[:, : k - 1] if k > 1 else np.zeros((len(working), 0))
        base[working] += ranked.sum(axis=1)
        if len(outside):
            share, image, own = self._average(w[1:, 1:])
            base[outside] += 2.0 * float(share @ w[0, 1:]) + own
            if k > 1:
                inward = 2.0 * image - ranked.min(axis=1) - self._penalties[np.ix_(outside, working)]
                own_lines = self._conditional.beyond(self._thresholds, self._classes, self._free[outside])
                inward[:, self._conditional.features] -= own_lines
                linear, gain = self._disjunctions.slopes(
                    self._thresholds, self._classes.values[:, self._free[outside]], len(working)
                )
                base[outside] += linear
                inward += gain.T
                among = own - 0.5 * self._penalties[np.ix_(outside, outside)]
                np.fill_diagonal(among, -np.inf)
                pairs = np.concatenate([inward, among], axis=1)
                base[outside] -= np.partition(-pairs, k - 2, axis=1)[:, : k - 1].sum(axis=1)
        single = abs(float(w[0, 0])) + k * float(np.abs(base).max())
        return base, abs(charges.constant) + single + k * k * float(np.abs(w).max())

    def _average(self, matrix: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray, float]:
        """The share c of each working feature in the average chosen one; the matrix times c, and c times that."""
        share = self._x / self._x.sum()
        image = matrix @ share
        return share, image, float(share @ image)

    def _prices(self, constant: float, base: FloatArray) -> tuple[float, FloatArray]:
        """The bound and its φ."""
        classes, k, thresholds = self._classes, self._k, self._thresholds
        phi = base + classes.worth(thresholds, self._free)
        at = float(classes.budgets @ thresholds) + float(classes.worth(thresholds, self._forced).sum())
        return self._constant + constant + at - float(np.partition(-phi, k - 1)[:k].sum()), phi

    def _take_in(self, phi: FloatArray, bound: float) -> None:
        """Extend the working set, and the multiplier with it: a new feature begins as the average chosen one."""
        n, k = len(self._working), self._k
        outside = np.setdiff1d(np.arange(len(phi)), self._working)
        inside = -np.partition(-phi[self._working], k - 1)[:k]
        charged = float(-np.partition(-phi, k - 1)[:k].sum()) - float(inside.sum())
        if charged <= _LEAST_CHARGE * max(bound - self._value, 0.0):
            return
        wanting = int((phi[outside] > inside.min()).sum())
        count = max(_LEAST_GROWTH, min(wanting, n // 2))
        fresh = outside[np.argsort(-phi[outside], kind="stable")[:count]]
        size = n + 1 + len(fresh)
        m, u = np.zeros((size, size), dtype=np.float32), np.zeros((size, size), dtype=np.float32)
        m[: n + 1, : n + 1], u[: n + 1, : n + 1] = self._m, self._u
        share, image, own = self._average(self._u[1:, 1:])
        u[n + 1 :, 0] = share @ self._u[0, 1:]
        u[n + 1 :, 1 : n + 1] = image
        u[n + 1 :, n + 1 :] = own
        u[: n + 1, n + 1 :] = u[n + 1 :, : n + 1].T
        self._m, self._u = m, u
        self._set_working(np.concatenate([self._working, fresh]))
        self._x = np.concatenate([self._x, np.zeros(len(fresh))])


def _direction(n: int, k: int) -> FloatArray:
    """The unit vector q for n features of which k are chosen."""
    direction = np.full(n + 1, -1.0)
    direction[0] = k
    unit: FloatArray = direction / np.linalg.norm(direction)
    return unit


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
