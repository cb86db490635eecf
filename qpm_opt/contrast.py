"""The best distinct feature sets where some classes must share features, given the kept features.

Such classes cannot be served one by one, nor by a matching, so a small integer program takes over: the classes of the
pairs, with W and the shared features explicit. Every other class takes its best set. Where two sets of the result
coincide, the classes join the program and may not share that set; without a coincidence the result is optimal, because
all that was left out are constraints.

A solver's tolerances are absolute, so the program sees what each class loses against its best set, not what it gains,
and no more of it than matters: what loses more than a solution that is known is as bad at just that loss. Solved again
with ever less to lose, numbers of any size come out exactly.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.errors import SolverError

__all__ = ["contrasting_sets"]

BoolArray = npt.NDArray[np.bool_]

_LARGEST_LOSS = 2.0**16
"""What the most that a class can lose becomes for the solver, to whose tolerances of 1e-6 a loss is nothing."""

_INFEASIBLE = 2
"""SciPy's number for that."""

_DIGITS = 1e3
"""A solution that loses less than the most by this factor is found again with less to lose."""


def contrasting_sets(
    values: FloatArray, budgets: IntArray, required: BoolArray, forbidden: BoolArray, pairs: IntArray
) -> BoolArray | None:
    """Distinct sets of columns, one for each row, of the largest total value, some rows sharing columns.

    Args:
        values: (n_classes, n_select) value of a column for a class.
        budgets: (n_classes,) number of columns that a class takes.
        required: (n_classes, n_select) bool, columns that a class must take.
        forbidden: (n_classes, n_select) bool, columns that it must not take.
        pairs: (m, 3) two classes and the number of columns that they share at least.

    Returns:
        (n_classes, n_select) bool, or None where no such matrix exists.
    """
    alone = _best_alone(values, budgets, required, forbidden)
    if alone is None:
        return None
    members = np.unique(pairs[:, :2])
    sets: list[IntArray] = []
    while True:
        solved = _solve(values, budgets, required, forbidden, pairs, members, sets)
        if solved is None:
            return None
        weights = alone.copy()
        weights[members] = solved
        owners: dict[bytes, list[int]] = {}
        for row, packed in enumerate(np.packbits(weights, axis=1)):
            owners.setdefault(packed.tobytes(), []).append(row)
        shared = [rows for rows in owners.values() if len(rows) > 1]
        if not shared:
            return weights
        sets += [np.flatnonzero(weights[rows[0]]) for rows in shared]
        members = np.union1d(members, np.concatenate(shared))


def _best_alone(values: FloatArray, budgets: IntArray, required: BoolArray, forbidden: BoolArray) -> BoolArray | None:
    """The best columns of every class by itself."""
    keys = np.where(required, np.inf, np.where(forbidden, -np.inf, values))
    if (required.sum(axis=1) > budgets).any() or ((~forbidden).sum(axis=1) < budgets).any():
        return None
    order = np.argsort(-keys, axis=1, kind="stable")
    weights = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(weights, order, np.arange(values.shape[1]) < budgets[:, None], axis=1)
    return weights


def _solve(
    values: FloatArray,
    budgets: IntArray,
    required: BoolArray,
    forbidden: BoolArray,
    pairs: IntArray,
    members: IntArray,
    sets: list[IntArray],
) -> BoolArray | None:
    """The rows of `members`, of which at most one may have each of `sets`."""
    width = values.shape[1]
    place = {int(c): index for index, c in enumerate(members)}
    n_use, n_shared = len(members) * width, len(pairs) * width
    owners = [(index, c) for index, own in enumerate(sets) for c in members if budgets[c] == len(own)]
    total = n_use + n_shared + len(owners)

    def use(c: int) -> list[int]:
        return list(range(place[c] * width, (place[c] + 1) * width))

    rows: list[tuple[list[int], list[float], float, float]] = [
        (use(c), [1.0] * width, float(budgets[c]), float(budgets[c])) for c in members.tolist()
    ]
    for number, (first, second, least) in enumerate(pairs.tolist()):
        shared = list(range(n_use + number * width, n_use + (number + 1) * width))
        rows.append((shared, [1.0] * width, float(least), np.inf))
        for c in (first, second):
            rows += [([s, w], [1.0, -1.0], -np.inf, 0.0) for s, w in zip(shared, use(c), strict=True)]
    for index, own in enumerate(sets):
        ones = []
        for number, (other, c) in enumerate(owners):
            if other == index:
                owner = n_use + n_shared + number
                ones.append(owner)
                entries = [use(int(c))[column] for column in own.tolist()]
                rows.append(([*entries, owner], [1.0] * len(entries) + [-1.0], -np.inf, len(own) - 1.0))
        rows.append((ones, [1.0] * len(ones), -np.inf, 1.0))

    low, high = np.zeros(total), np.ones(total)
    low[:n_use] = required[members].ravel()
    high[:n_use] = ~forbidden[members].ravel()
    matrix = sp.csr_array(
        (
            np.array([value for row in rows for value in row[1]]),
            np.array([column for row in rows for column in row[0]], dtype=np.int64),
            np.concatenate([[0], np.cumsum([len(row[0]) for row in rows])]),
        ),
        shape=(len(rows), total),
    )
    program = partial(
        milp,
        integrality=np.concatenate([np.ones(n_use), np.zeros(total - n_use)]),
        bounds=Bounds(low, high),
        constraints=LinearConstraint(matrix, np.array([row[2] for row in rows]), np.array([row[3] for row in rows])),
        options={"mip_rel_gap": 0.0},
    )
    gains, best, most = _against_the_best(values, budgets, required, forbidden, members)
    least, found = np.inf, None
    while True:
        scale = _LARGEST_LOSS / most if most > 0.0 else 1.0
        answer = program(np.concatenate([-np.clip(gains, -most, most).ravel() * scale, np.zeros(total - n_use)]))
        if answer.x is None:
            if answer.status != _INFEASIBLE and found is None:
                raise SolverError(f"HiGHS found no distinct sets of features: {answer.message}")
            return found
        chosen = np.asarray(answer.x[:n_use].reshape(len(members), width) > 0.5)
        loss = best - float(gains[chosen].sum())
        if loss < least:
            least, found = loss, chosen
        if least <= 0.0 or least * _DIGITS >= most:
            return found
        most = least


def _against_the_best(
    values: FloatArray, budgets: IntArray, required: BoolArray, forbidden: BoolArray, members: IntArray
) -> tuple[FloatArray, float, float]:
    """What features gain against the last one that a class would take, the sum of its best, and the most to lose."""
    locked = required[members] | forbidden[members]
    free = budgets[members] - required[members].sum(axis=1)
    ranked = -np.sort(-np.where(locked, -np.inf, values[members]), axis=1)
    last = np.where(free > 0, ranked[np.arange(len(free)), np.maximum(free, 1) - 1], 0.0)
    gains = np.where(locked, 0.0, values[members] - last[:, None])
    rank, n_open = np.arange(values.shape[1]), (~locked).sum(axis=1)
    ranked = np.where(np.isfinite(ranked), ranked - last[:, None], 0.0)
    best = float(ranked[rank < free[:, None]].sum())
    worst = float(ranked[(rank >= (n_open - free)[:, None]) & (rank < n_open[:, None])].sum())
    return gains, best, best - worst
