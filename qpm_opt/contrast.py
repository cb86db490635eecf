"""The best distinct feature sets where some classes must share features, given the kept features.

Such classes cannot be served one by one, nor by a matching, so a small integer program takes over: the classes of the
pairs, with W and the shared features explicit. Every other class takes its best set. Where two sets of the result
coincide, the classes join the program and may not share that set; without a coincidence the result is optimal, because
all that was left out are constraints.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

from qpm_opt._validation import FloatArray, IntArray

__all__ = ["contrasting_sets"]

BoolArray = npt.NDArray[np.bool_]


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
    size = float(np.abs(values).max()) or 1.0
    cost = np.concatenate([-values[members].ravel() / size, np.zeros(total - n_use)])
    matrix = sp.csr_array(
        (
            np.array([value for row in rows for value in row[1]]),
            np.array([column for row in rows for column in row[0]], dtype=np.int64),
            np.concatenate([[0], np.cumsum([len(row[0]) for row in rows])]),
        ),
        shape=(len(rows), total),
    )
    answer = milp(
        cost,
        integrality=np.concatenate([np.ones(n_use), np.zeros(total - n_use)]),
        bounds=Bounds(low, high),
        constraints=LinearConstraint(matrix, np.array([row[2] for row in rows]), np.array([row[3] for row in rows])),
        options={"mip_rel_gap": 0.0},
    )
    if answer.x is None:
        return None
    return np.asarray(answer.x[:n_use].reshape(len(members), width) > 0.5)
