"""What a solver found: the assignment, why the search stopped, and how good it is at least."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from qpm_opt import _storage
from qpm_opt._read_only import ReadOnlyArrays
from qpm_opt._validation import IntArray, label_tuple, whole_number
from qpm_opt.errors import InvalidInputError, NoSolutionError
from qpm_opt.problem import Terms
from qpm_opt.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Assignment", "SolutionStatus", "Termination", "TracePoint", "relative_gap"]

Label = str | int


class Termination(Enum):
    """Why a search stopped; says nothing about what it holds."""

    OPTIMAL = "optimal"
    """The gap fell to `mip_gap` or below, or to what rounding cannot tell from 0."""
    TIME_LIMIT = "time limit"
    """`time_limit` ran out."""
    SOLVER_LIMIT = "solver limit"
    """The solver behind the back end stopped at a limit of its own, such as one set through `native_options`."""
    INTERRUPTED = "interrupted"
    """Ctrl-C, or a KeyboardInterrupt out of the progress callback."""
    SEARCH_FINISHED = "search finished"
    """All that was asked for is done, without a proof."""
    INFEASIBLE = "infeasible"
    """There is no assignment that meets the constraints, proven."""


class SolutionStatus(Enum):
    """What a result holds; says nothing about why the search stopped."""

    OPTIMAL = "optimal"
    """A solution whose gap is proven to be at most `mip_gap`."""
    FEASIBLE = "feasible"
    """A solution without that proof."""
    NONE = "none"
    """No solution."""


@dataclass(frozen=True)
class TracePoint:
    """A moment of a search.

    Attributes:
        time: Seconds since the start.
        objective: Best objective so far, None before the first solution.
        bound: Best proven upper bound so far, None before the first.
    """

    time: float
    objective: float | None
    bound: float | None


def relative_gap(objective: float | None, bound: float | None) -> float | None:
    """(bound − objective) / |objective|, 0 where they are equal; None where one is missing or the objective is zero."""
    if objective is None or bound is None:
        return None
    if bound <= objective:
        return 0.0
    return (bound - objective) / abs(objective) if objective else None


@dataclass(frozen=True, eq=False, repr=False)
class Assignment(ReadOnlyArrays):
    """The result of `solve_assignment`.

    `selected`, `weights`, `terms` and `objective` raise `NoSolutionError` where there is no solution; `bound` and `gap`
    are None where nothing is proven.

    Attributes:
        termination: Why the search stopped.
        status: What is held.
        solution: (selected, weights, terms), or None.
        bound: Proven upper bound on the objective of every assignment, uniqueness included, or None.
        runtime: Seconds.
        solver: Name of the back end.
        solver_version: Its version.
        seed: Seed of the run.
        trace: How the incumbent and the bound came about.
        n_features: Number of features there were to choose from.
        class_labels: Names of the classes, or None.
        feature_labels: Names of all features, or None.
    """

    KIND: ClassVar[str] = "qpm_opt.Assignment"
    """What files of results say that they hold."""

    termination: Termination
    status: SolutionStatus
    solution: tuple[IntArray, npt.NDArray[np.uint8], Terms] | None
    bound: float | None
    runtime: float
    solver: str
    solver_version: str
    seed: int
    trace: tuple[TracePoint, ...]
    n_features: int
    class_labels: tuple[Label, ...] | None = None
    feature_labels: tuple[Label, ...] | None = None

    @property
    def selected(self) -> IntArray:
        """(n_select,) sorted positions of the kept features."""
        return self._required("selected")[0]

    @property
    def weights(self) -> npt.NDArray[np.uint8]:
        """(n_classes, n_select) of 0/1, columns in the order of `selected`."""
        return self._required("weights")[1]

    @property
    def terms(self) -> Terms:
        """Z_A, Z_R and Z_B."""
        return self._required("terms")[2]

    @property
    def objective(self) -> float:
        """Z_A + Z_R + Z_B."""
        return self._required("objective")[2].total

    @property
    def gap(self) -> float | None:
        """(bound − objective) / |objective|; None without a bound, and where the objective alone is zero."""
        return relative_gap(self.objective, self.bound) if self.solution else None

    @property
    def selected_labels(self) -> tuple[Label, ...]:
        """Names of the kept features; their positions where there are no names."""
        labels = self.feature_labels
        return tuple(int(index) if labels is None else labels[index] for index in self.selected)

    def _require_fitting_labels(self) -> None:
        if self.feature_labels is not None:
            _require(
                len(self.feature_labels) == self.n_features, "there are more or fewer feature labels than features"
            )
        if self.solution is not None:
            selected, weights, _ = self.solution
            _require(bool(((selected >= 0) & (selected < self.n_features)).all()), "a selected feature does not exist")
            if self.class_labels is not None:
                _require(len(self.class_labels) == len(weights), "there are more or fewer class labels than classes")

    def _required(self, name: str) -> tuple[IntArray, npt.NDArray[np.uint8], Terms]:
        if self.solution is None:
            raise NoSolutionError(
                f"There is no '{name}': {self.solver} stopped with termination '{self.termination.value}' before it "
                f"held a solution (after {self.runtime:.1f} s). Ask 'status' first"
                + ("." if self.termination is Termination.INFEASIBLE else ", or give it more time.")
            )
        return self.solution

    # -- other forms -------------------------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """W as a frame: a row for each class, a column for each kept feature, with their names."""
        weights = self.weights
        rows = self.class_labels if self.class_labels is not None else range(len(weights))
        return pd.DataFrame(
            weights,
            index=pd.Index(list(rows), name="class"),
            columns=pd.Index(list(self.selected_labels), name="feature"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python values that JSON can hold; what is absent is None."""
        held = self.solution
        return {
            "termination": self.termination.value,
            "status": self.status.value,
            "selected": None if held is None else held[0].tolist(),
            "weights": None if held is None else held[1].tolist(),
            "terms": None if held is None else asdict(held[2]),
            "objective": None if held is None else held[2].total,
            "bound": self.bound,
            "gap": self.gap,
            "runtime": self.runtime,
            "solver": self.solver,
            "solver_version": self.solver_version,
            "seed": self.seed,
            "trace": [asdict(point) for point in self.trace],
            "n_features": self.n_features,
            "class_labels": None if self.class_labels is None else list(self.class_labels),
            "feature_labels": None if self.feature_labels is None else list(self.feature_labels),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Assignment:
        """The inverse of `to_dict`.

        Raises:
            InvalidInputError: Something is missing or malformed.
        """
        try:
            solution = None
            if data["selected"] is not None:
                selected, weights = np.array(data["selected"]), np.array(data["weights"])
                terms = Terms(**{name: _finite(value) for name, value in data["terms"].items()})
                _require(selected.ndim == 1 and selected.dtype.kind in "iu", "'selected' is no list of positions")
                _require(bool((np.diff(selected) > 0).all()), "'selected' is not in order")
                _require(weights.ndim == 2 and weights.shape[1] == len(selected), "'weights' has another shape")
                _require(weights.dtype.kind in "iu", "'weights' holds other values than 0 and 1")
                _require(bool(np.isin(weights, (0, 1)).all()), "'weights' holds other values than 0 and 1")
                stated = _finite(data["objective"])
                _require(
                    math.isclose(
                        stated, terms.total, rel_tol=1e-9, abs_tol=1e-9 * sum(map(abs, asdict(terms).values()))
                    ),
                    f"its terms come to {terms.total!r}, not to the objective {stated!r}",
                )
                solution = frozen_solution(selected, weights, terms)
            n_features = whole_number("n_features", data["n_features"], least=1)
            found = cls(
                termination=Termination(data["termination"]),
                status=SolutionStatus(data["status"]),
                solution=solution,
                bound=_number(data["bound"]),
                runtime=_finite(data["runtime"]),
                solver=_text(data["solver"]),
                solver_version=_text(data["solver_version"]),
                seed=whole_number("seed", data["seed"], least=0),
                trace=tuple(
                    TracePoint(_finite(point["time"]), _number(point["objective"]), _number(point["bound"]))
                    for point in data["trace"]
                ),
                n_features=n_features,
                class_labels=label_tuple("class_labels", data["class_labels"], _length(data["class_labels"])),
                feature_labels=label_tuple("feature_labels", data["feature_labels"], _length(data["feature_labels"])),
            )
            _require((solution is None) == (found.status is SolutionStatus.NONE), "its status and what it holds differ")
            found._require_fitting_labels()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidInputError(f"This is no stored assignment ({type(error).__name__}: {error}).") from error
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to `.npz` (arrays, and JSON text for the rest) or `.json`; the file appears whole or not at all."""
        data = self.to_dict()
        if os.fspath(path).endswith(".json"):
            _storage.write_text(path, json.dumps(data) + "\n")
            return
        arrays = {name: np.array(data.pop(name)) for name in ("selected", "weights") if data[name] is not None}
        _storage.write_npz(path, self.KIND, {**arrays, "record": np.array(json.dumps(data))})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Assignment:
        """Read what `save` wrote.

        Raises:
            InvalidInputError: The file is missing, damaged or holds something else.
        """
        if os.fspath(path).endswith(".json"):
            return cls.from_dict(_storage.read_json(path))
        arrays: dict[str, Any] = _storage.read_npz(path, cls.KIND, ("record",), optional=("selected", "weights"))
        with _storage.refusing_malformed(path, cls.KIND):
            return cls.from_dict({**_storage.parse_json(str(arrays.pop("record"))), **arrays})

    # -- pictures and text -------------------------------------------------------------------------------------------

    def plot(self, kind: str = "matrix", ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the class × feature matrix (`kind="matrix"`) or objective and bound over time (`kind="convergence"`).

        Needs matplotlib (`pip install "qpm[plot]"`).

        Args:
            kind: What to draw.
            ax: Where to draw; a new figure by default.
        """
        from qpm_opt import _plots

        return _plots.draw(self, kind, ax)

    def __repr__(self) -> str:
        lines = [f"Assignment by {self.solver}"]
        lines += [f"├ {name:<12} {text}" for name, text in self._summary()]
        lines[-1] = "└" + lines[-1][1:]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from qpm_opt import _html

        return _html.assignment_table(self, self._summary())

    def _summary(self) -> list[tuple[str, str]]:
        rows = [("status", self.status.value), ("termination", f"{self.termination.value} after {self.runtime:.2f} s")]
        if self.solution is not None:
            terms = self.terms
            rows.append(
                ("objective", f"{terms.total:.6g} = {terms.similarity:.6g} {terms.redundancy:+.6g} {terms.bias:+.6g}")
            )
        if self.bound is None:
            rows.append(("bound", "none"))
        else:
            gap = "" if self.gap is None else f" (gap {self.gap:.4%})"
            rows.append(("bound", f"{self.bound:.6g}{gap}"))
        if self.solution is not None:
            weights = self.weights
            sums = weights.sum(axis=1)
            budget = f"{sums.min()}" if sums.min() == sums.max() else f"{sums.min()} to {sums.max()}"
            rows.append(
                (
                    "size",
                    f"{len(weights)} classes, {weights.shape[1]} of {self.n_features} features, {budget} per class",
                )
            )
            shown = ", ".join(printable(str(label)) for label in self.selected_labels[:12])
            rows.append(("features", shown + (", …" if weights.shape[1] > 12 else "")))
        return rows


def frozen_solution(
    selected: npt.NDArray[Any], weights: npt.NDArray[Any], terms: Terms
) -> tuple[IntArray, npt.NDArray[np.uint8], Terms]:
    """Read-only copies of the arrays of a solution, in their proper types."""
    kept, assigned = np.array(selected, dtype=np.int64), np.array(weights, dtype=np.uint8, order="C")
    kept.setflags(write=False)
    assigned.setflags(write=False)
    return kept, assigned, terms


def _number(value: Any) -> float | None:
    return None if value is None else _finite(value)


def _finite(value: Any) -> float:
    _require(isinstance(value, int | float) and math.isfinite(value), f"{value!r} is no finite number")
    return float(value)


def _text(value: Any) -> str:
    _require(isinstance(value, str), f"{value!r} is no text")
    return str(value)


def _length(labels: Any) -> int:
    _require(labels is None or isinstance(labels, list | tuple), f"{labels!r} is no list of labels")
    return len(labels or ())


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
