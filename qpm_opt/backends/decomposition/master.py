"""The master: a linear program over kept features s, class values θ and pairs y, in which everything is lazy.

    maximise  Σ_c θ_c + Σ_f b_f s_f − Σ r_ij y_ij     subject to  Σ_f s_f = n_select  and the cuts found so far

Pairs without a variable are not charged, so every state of the program is a relaxation. Its bound is not taken from
the solver: with the solver's multipliers λ, rounded to the sign that their row allows, every point has at most

    Σ_r max over the row's range of λ_r·(row) + Σ_j max over the column's range of (c − Aᵀλ)_j z_j ,

which is summed up here in double precision and rounded up. A solution that the solver takes for optimal within its
tolerances thus never turns into a false bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import highspy
import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.cuts import CliqueCut, LinearCut
from qpm_opt.backends.decomposition.linear_program import FlatRows, Row, add_columns, add_rows, new_solver
from qpm_opt.errors import SolverError
from qpm_opt.search_space import SearchSpace

__all__ = ["Master", "Point"]

_SLICE_SECONDS = 1.0
"""The solver comes back this often, so that Ctrl-C and time limits are noticed."""

_ROUNDING = 1e-11
_OLD = 12
_ROOM_FOR_OLD = 1.5
_LEAST_PURGE = 100
_BINDING = 1e-9


@dataclass(frozen=True, eq=False)
class Point:
    """An optimal, or at the cutoff or time limit a dual feasible, solution of the master.

    Attributes:
        x: (n,) features.
        theta: (n_classes,) class values.
        bound: Safe upper bound on the objective under the bounds of the columns.
        reduced: (n,) reduced costs of the features: moving feature f off its bound lowers `bound` by |reduced[f]|.
        solved: Whether x and theta are an optimal solution.
        feasible: Whether there is a solution at all.
    """

    x: FloatArray
    theta: FloatArray
    bound: float
    reduced: FloatArray
    solved: bool
    feasible: bool


class Master:
    """The linear program and its rows.

    Args:
        space: The problem, in units of the objective.
        theta_range: (2, n_classes) smallest and largest value that each class can have.
    """

    def __init__(self, space: SearchSpace, theta_range: FloatArray) -> None:
        n, n_classes = len(space.features), len(space.budgets)
        self._n, self._n_classes = n, n_classes
        self._penalties = space.penalties
        self._constant = space.constant
        self._pair_column = np.full((n, n), -1, dtype=np.int32)
        self._pairs: list[tuple[int, int]] = []
        self._cost = np.concatenate([space.bias, np.ones(n_classes)])
        self._lower = np.concatenate([space.forced.astype(np.float64), theta_range[0]])
        self._upper = np.concatenate([np.ones(n), theta_range[1]])
        self._rows: list[Row] = []
        self._flat: FlatRows | None = None
        self._least_rows = 0
        self._pair_values = np.zeros(0)
        self._solver = new_solver(presolve=False)  # it would forget where the last solve ended
        add_columns(self._solver, -self._cost, self._lower, self._upper)
        self._add([Row(float(space.n_select), float(space.n_select), np.arange(n), np.ones(n), permanent=True)])

    def copy(self) -> Master:
        """The same program and basis, in a solver of its own."""
        other = copy(self)
        other._solver = new_solver(presolve=False)
        other._solver.passModel(self._solver.getLp())
        other._solver.setBasis(self._solver.getBasis())
        other._rows = [replace(row) for row in self._rows]
        other._pairs = list(self._pairs)
        other._pair_column = self._pair_column.copy()
        other._lower, other._upper = self._lower.copy(), self._upper.copy()
        return other

    @property
    def n_rows(self) -> int:
        """Rows in the program."""
        return len(self._rows)

    @property
    def n_pairs(self) -> int:
        """Pair variables in the program."""
        return len(self._pairs)

    def add_linear(self, cuts: Sequence[LinearCut]) -> None:
        """Add bounds on class values, or on features alone."""
        self._add(
            [
                Row(
                    -np.inf,
                    cut.constant,
                    np.concatenate([self._n + cut.classes, cut.features]),
                    np.concatenate([np.ones(len(cut.classes)), -cut.slopes]),
                )
                for cut in cuts
            ]
        )

    def add_cliques(self, cuts: Sequence[CliqueCut]) -> None:
        """Add clique cuts, with the pair variables that they need."""
        wanted: dict[tuple[int, int], None] = {}
        for cut in cuts:
            first, second = np.triu_indices(len(cut.members), 1)
            for i, j in zip(cut.members[first].tolist(), cut.members[second].tolist(), strict=True):
                if self._pair_column[i, j] < 0:
                    wanted[(i, j)] = None
        self._add_pairs(list(wanted))
        rows = []
        for cut in cuts:
            first, second = np.triu_indices(len(cut.members), 1)
            columns = self._pair_column[cut.members[first], cut.members[second]].astype(np.int64)
            rows.append(
                Row(
                    -cut.alpha * (cut.alpha + 1) / 2,
                    np.inf,
                    np.concatenate([columns, cut.members]),
                    np.concatenate([np.ones(len(columns)), np.full(len(cut.members), -float(cut.alpha))]),
                )
            )
        self._add(rows)

    def set_range(self, lower: FloatArray, upper: FloatArray) -> None:
        """Set the ranges of all features."""
        changed = np.flatnonzero((self._lower[: self._n] != lower) | (self._upper[: self._n] != upper))
        if len(changed):
            self._lower[: self._n], self._upper[: self._n] = lower, upper
            self._solver.changeColsBounds(
                len(changed), changed.astype(np.int32), self._lower[changed], self._upper[changed]
            )

    def solve(self, cutoff: float, seconds: float) -> Point:
        """Solve the program, or stop once its bound falls below `cutoff` or after `seconds`."""
        point = self._run(cutoff, seconds, None)
        if point.feasible and not point.solved and point.bound > cutoff:
            # Stopped at the cutoff, the solver does not always hand out the multipliers that got it there.
            point = self._run(-np.inf, seconds, None)
        if point.feasible:
            solution = self._solver.getSolution()
            self._grow_old(np.array(solution.row_dual))
            self._pair_values = np.array(solution.col_value)[self._n + self._n_classes :]
        return point

    def _run(self, cutoff: float, seconds: float, iteration_limit: int | None) -> Point:
        solver = self._solver
        solver.setOptionValue("objective_bound", -cutoff if np.isfinite(cutoff) else highspy.kHighsInf)
        solver.setOptionValue("simplex_iteration_limit", 2**31 - 1 if iteration_limit is None else iteration_limit)
        known = highspy.HighsModelStatus
        spent = 0.0
        while True:
            before = solver.getRunTime()
            solver.setOptionValue("time_limit", before + min(_SLICE_SECONDS, max(seconds - spent, 0.01)))
            solver.run()
            spent += solver.getRunTime() - before
            status = solver.getModelStatus()
            if status != known.kTimeLimit or spent >= seconds:
                break
        if status == known.kInfeasible:
            nothing = np.zeros(self._n)
            return Point(nothing, np.zeros(self._n_classes), -np.inf, nothing, False, False)
        if status not in (known.kOptimal, known.kTimeLimit, known.kObjectiveBound, known.kIterationLimit):
            raise SolverError(f"HiGHS stopped with the status '{solver.modelStatusToString(status)}'.")
        solution = solver.getSolution()
        values = np.array(solution.col_value)
        bound, reduced = self._safe_bound(np.array(solution.row_dual))
        n = self._n
        x = np.clip(values[:n], 0.0, 1.0)
        return Point(x, values[n : n + self._n_classes], bound, reduced, status == known.kOptimal, True)

    def pair_values(self, features: IntArray) -> FloatArray:
        """Symmetric y of the last solution among some features, zero where there is no variable."""
        columns = self._pair_column[np.ix_(features, features)]
        values = np.concatenate([self._pair_values, [0.0]])
        chosen: FloatArray = values[np.where(columns < 0, -1, columns - self._n - self._n_classes)]
        return chosen

    def probe(self, feature: int, cutoff: float, iterations: int, seconds: float) -> tuple[float, float]:
        """Bounds after fixing a feature to 0 and to 1, from a few iterations each; the program is left as it was."""
        basis = self._solver.getBasis()
        lower, upper = float(self._lower[feature]), float(self._upper[feature])
        found = []
        for value in (0.0, 1.0):
            self._lower[feature] = self._upper[feature] = value
            self._solver.changeColBounds(feature, value, value)
            found.append(self._run(cutoff, seconds, iterations).bound)
            self._solver.setBasis(basis)
        self._lower[feature], self._upper[feature] = lower, upper
        self._solver.changeColBounds(feature, lower, upper)
        return found[0], found[1]

    def purge(self) -> None:
        """Drop rows that have been slack for long, and the pairs that no row needs any more."""
        old = [index for index, row in enumerate(self._rows) if row.age > _OLD and not row.permanent]
        if len(old) < _LEAST_PURGE or self.n_rows < _ROOM_FOR_OLD * self._least_rows:
            return
        self._solver.deleteRows(len(old), np.array(old, dtype=np.int32))
        self._rows = [row for row in self._rows if row.age <= _OLD or row.permanent]
        self._flat = None
        self._least_rows = self.n_rows
        self._drop_unused_pairs()

    def keep_features(self, kept: npt.NDArray[np.bool_]) -> None:
        """Take features that are fixed to 0 out of the program, with their pairs; the others are renumbered."""
        pairs = np.array([kept[i] and kept[j] for i, j in self._pairs], dtype=bool)
        self._keep_columns(np.concatenate([kept, np.ones(self._n_classes, dtype=bool), pairs]))
        self._penalties = self._penalties[np.ix_(kept, kept)]

    def _drop_unused_pairs(self) -> None:
        used = np.zeros(len(self._cost), dtype=bool)
        used[: self._n + self._n_classes] = True
        for row in self._rows:
            used[row.columns] = True
        self._keep_columns(used)

    def _keep_columns(self, kept: npt.NDArray[np.bool_]) -> None:
        gone = np.flatnonzero(~kept)
        if not len(gone):
            return
        self._solver.deleteCols(len(gone), gone.astype(np.int32))
        self._flat = None
        renumbered = np.cumsum(kept) - 1
        for row in self._rows:
            inside = kept[row.columns]
            row.columns, row.values = renumbered[row.columns[inside]], row.values[inside]
        self._cost, self._lower, self._upper = self._cost[kept], self._lower[kept], self._upper[kept]
        pairs = [pair for pair, k in zip(self._pairs, kept[self._n + self._n_classes :].tolist(), strict=True) if k]
        self._pairs = [(int(renumbered[i]), int(renumbered[j])) for i, j in pairs]
        self._n = int(kept[: self._n].sum())
        self._pair_column = np.full((self._n, self._n), -1, dtype=np.int32)
        for column, (i, j) in enumerate(self._pairs):
            self._pair_column[i, j] = self._pair_column[j, i] = self._n + self._n_classes + column
        self._pair_values = np.zeros(len(self._pairs))

    def _add(self, rows: list[Row]) -> None:
        if not rows:
            return
        add_rows(self._solver, rows)
        self._rows += rows
        self._flat = None

    def _add_pairs(self, pairs: list[tuple[int, int]]) -> None:
        if not pairs:
            return
        charge = np.array([self._penalties[i, j] for i, j in pairs])
        add_columns(self._solver, charge, np.zeros(len(pairs)), np.ones(len(pairs)))
        for i, j in pairs:
            self._pair_column[i, j] = self._pair_column[j, i] = self._n + self._n_classes + len(self._pairs)
            self._pairs.append((i, j))
        self._cost = np.concatenate([self._cost, -charge])
        self._lower = np.concatenate([self._lower, np.zeros(len(pairs))])
        self._upper = np.concatenate([self._upper, np.ones(len(pairs))])

    def _safe_bound(self, duals: FloatArray) -> tuple[float, FloatArray]:
        """The bound that multipliers prove, in double precision and rounded up, and the features' reduced costs."""
        if self._flat is None:
            self._flat = FlatRows.of(self._rows)
        flat = self._flat
        low, high = flat.lower, flat.upper
        multipliers = -duals  # the solver minimises
        multipliers = np.where(np.isneginf(low), np.maximum(multipliers, 0.0), multipliers)
        multipliers = np.where(np.isposinf(high), np.minimum(multipliers, 0.0), multipliers)
        ends = np.where(multipliers > 0.0, high, np.where(multipliers < 0.0, low, 0.0))
        rows = multipliers * np.where(multipliers == 0.0, 0.0, ends)
        reduced: FloatArray = self._cost - np.bincount(
            flat.columns, weights=flat.values * np.repeat(multipliers, flat.lengths), minlength=len(self._cost)
        )
        columns = np.maximum(reduced * self._lower, reduced * self._upper)
        size = float(np.abs(rows).sum() + np.abs(columns).sum()) + abs(self._constant)
        own = reduced[: self._n]
        return self._constant + float(rows.sum() + columns.sum()) + _ROUNDING * size, own

    def _grow_old(self, duals: FloatArray) -> None:
        for row, binding in zip(self._rows, (np.abs(duals) > _BINDING).tolist(), strict=True):
            row.age = 0 if binding else row.age + 1
