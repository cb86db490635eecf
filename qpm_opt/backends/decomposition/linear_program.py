"""HiGHS as a simplex method for programs that grow: quiet, on one thread, with rows and columns in plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from qpm_opt._validation import FloatArray, IntArray

__all__ = ["FlatRows", "Row", "add_columns", "add_rows", "new_solver"]


@dataclass(eq=False)
class Row:
    """lower ≤ values·z[columns] ≤ upper.

    Attributes:
        permanent: Whether it must stay.
        age: For how many solves it has not been binding.
    """

    lower: float
    upper: float
    columns: IntArray
    values: FloatArray
    permanent: bool = False
    age: int = 0


@dataclass(frozen=True, eq=False)
class FlatRows:
    """Many rows in one array each."""

    lower: FloatArray
    upper: FloatArray
    lengths: IntArray
    columns: IntArray
    values: FloatArray

    @classmethod
    def of(cls, rows: Sequence[Row]) -> FlatRows:
        """Put rows, at least one, one behind the other."""
        return cls(
            np.array([row.lower for row in rows]),
            np.array([row.upper for row in rows]),
            np.array([len(row.columns) for row in rows]),
            np.concatenate([row.columns for row in rows]).astype(np.int64),
            np.concatenate([row.values for row in rows]).astype(np.float64),
        )


def new_solver(*, presolve: bool) -> Any:
    """An empty program, to be minimised."""
    solver = highspy.Highs()
    solver.silent()
    settings = {"threads": 1, "parallel": "off", "solver": "simplex", "presolve": "choose" if presolve else "off"}
    for name, value in settings.items():
        solver.setOptionValue(name, value)
    return solver


def add_columns(solver: Any, cost: FloatArray, lower: FloatArray, upper: FloatArray) -> None:
    """Add columns that no row has yet."""
    none = np.zeros(0, dtype=np.int32)
    solver.addCols(len(cost), cost, lower, upper, 0, none, none, np.zeros(0, dtype=np.float64))


def add_rows(solver: Any, rows: Sequence[Row]) -> None:
    """Add rows, at least one."""
    flat = FlatRows.of(rows)
    solver.addRows(
        len(rows),
        np.where(np.isfinite(flat.lower), flat.lower, -highspy.kHighsInf),
        np.where(np.isfinite(flat.upper), flat.upper, highspy.kHighsInf),
        len(flat.columns),
        np.concatenate([[0], np.cumsum(flat.lengths)[:-1]]).astype(np.int32),
        flat.columns.astype(np.int32),
        flat.values,
    )
