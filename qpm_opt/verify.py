"""An independent check of a solution, straight from the definition of the problem.

Nothing here is shared with a solver, nor with the code that evaluates incumbents: constraints and objective are written
out again as plain loops over the problem's data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qpm_opt._validation import label_at, positive_number
from qpm_opt.problem import AssignmentProblem
from qpm_opt.solution import Assignment, SolutionStatus

__all__ = ["Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        violations: One sentence for each violated constraint or wrong claim; empty where all is well.
        objective: The objective, computed from the data; None where the solution is too malformed for that.
    """

    violations: tuple[str, ...]
    objective: float | None

    @property
    def ok(self) -> bool:
        """Whether nothing is violated."""
        return not self.violations

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:
            return f"verified: every constraint holds, objective {self.objective:.9g}"
        return "\n".join([f"{len(self.violations)} violations:", *(f"  - {text}" for text in self.violations)])


def verify(problem: AssignmentProblem, assignment: Assignment, *, tolerance: float = 1e-6) -> Verification:
    """Check every constraint and claim of an assignment.

    Args:
        problem: The problem that it should solve.
        assignment: What was found; also one that was changed or loaded from a file.
        tolerance: Largest accepted difference of objective terms, relative to the sizes of all that is added up.

    Raises:
        NoSolutionError: The assignment holds no solution.
        InvalidInputError: The tolerance is no number, or below 0.
    """
    tolerance = positive_number("tolerance", tolerance, zero_allowed=True)
    selected: list[int] = [int(f) for f in assignment.selected]
    weights = np.asarray(assignment.weights)
    found: list[str] = []
    if weights.shape != (problem.n_classes, len(selected)):
        found.append(
            f"the weights must have shape ({problem.n_classes}, {len(selected)}), a row for each class and a column "
            f"for each selected feature, got {weights.shape}"
        )
        return Verification(tuple(found), None)
    outside = [f for f in selected if not 0 <= f < problem.n_features]
    if outside:
        found.append(f"the selected features {outside} do not exist: there are {problem.n_features}")
        return Verification(tuple(found), None)

    found += _check_names(problem, assignment)
    found += _check_selection(problem, selected)
    found += _check_weights(problem, selected, weights)
    similarity, redundancy, bias, size = _objective(problem, selected, weights)
    total = similarity + redundancy + bias
    room = tolerance * size
    claims = {
        "Z_A": (assignment.terms.similarity, similarity),
        "Z_R": (assignment.terms.redundancy, redundancy),
        "Z_B": (assignment.terms.bias, bias),
        "objective": (assignment.objective, total),
    }
    for name, (claimed, true) in claims.items():
        if not abs(claimed - true) <= room:
            found.append(f"{name} is claimed to be {claimed:.9g}, but is {true:.9g}")
    if assignment.bound is not None and not assignment.bound >= total - room:
        found.append(f"the bound {assignment.bound:.9g} lies below the objective {total:.9g}")
    if assignment.status is SolutionStatus.OPTIMAL and assignment.bound is None:
        found.append("the status is optimal, but there is no bound that would prove it")
    return Verification(tuple(found), total)


def _check_names(problem: AssignmentProblem, assignment: Assignment) -> list[str]:
    found = []
    if assignment.n_features != problem.n_features:
        found.append(f"it was chosen from {assignment.n_features} features, but the problem has {problem.n_features}")
    for what in ("class", "feature"):
        given, true = (getattr(one, f"{what}_labels") for one in (assignment, problem))
        if given is not None and given != true:
            found.append(f"the {what} labels are not those of the problem")
    return found


def _check_selection(problem: AssignmentProblem, selected: list[int]) -> list[str]:
    found = []
    if len(selected) != problem.n_select:
        found.append(f"n_select = {problem.n_select} features must be selected, got {len(selected)}")
    if selected != sorted(set(selected)):
        found.append("the selected features must be sorted and different")
    chosen = set(selected)
    named = partial(label_at, labels=problem.feature_labels)
    missing = [named(int(f)) for f in problem.required_features if int(f) not in chosen]
    if missing:
        found.append(f"required features are not selected: {missing}")
    banned = [named(int(f)) for f in problem.excluded_features if int(f) in chosen]
    if banned:
        found.append(f"excluded features are selected: {banned}")
    forced = {int(f) for f in problem.required_features} | {int(f) for _, f in problem.required_pairs}
    penalised = set(problem.redundancy.tocoo().row.tolist())
    dead = [
        named(f)
        for f in selected
        if f not in forced and f not in penalised and not problem.class_similarity[:, f].any()
    ]
    if dead:
        found.append(f"dead features are selected: {dead}")
    return found


def _check_weights(problem: AssignmentProblem, selected: list[int], weights: Any) -> list[str]:
    found = []
    if not np.isin(weights, (0, 1)).all():
        found.append("weights must be 0 or 1")
    name = partial(label_at, labels=problem.class_labels)
    feature = partial(label_at, labels=problem.feature_labels)
    sets: dict[frozenset[int], int] = {}
    for c, row in enumerate(weights.tolist()):
        own = frozenset(f for f, value in zip(selected, row, strict=True) if value)
        if len(own) != problem.n_per_class[c]:
            found.append(f"class {name(c)!r} must have {problem.n_per_class[c]} features, got {len(own)}")
        if own in sets:
            found.append(
                f"classes {name(sets[own])!r} and {name(c)!r} have the same features {[*map(feature, sorted(own))]}"
            )
        sets.setdefault(own, c)
    index = {f: column for column, f in enumerate(selected)}
    for c, f in problem.required_pairs.tolist():
        if f not in index or not weights[c, index[f]]:
            found.append(f"the required pair of class {name(c)!r} and feature {feature(f)!r} is missing")
    for c, f in problem.forbidden_pairs.tolist():
        if f in index and weights[c, index[f]]:
            found.append(f"the forbidden pair of class {name(c)!r} and feature {feature(f)!r} is used")
    for c, d, least in problem.contrastive_pairs.tolist():
        both = sum(1 for a, b in zip(weights[c].tolist(), weights[d].tolist(), strict=True) if a and b)
        if both < least:
            found.append(f"classes {name(c)!r} and {name(d)!r} must share at least {least} features, got {both}")
    return found


def _objective(problem: AssignmentProblem, selected: list[int], weights: Any) -> tuple[float, float, float, float]:
    """Z_A, Z_R, Z_B by compensated sums over the definition, and the sum of the sizes of their summands."""
    used = [
        float(problem.class_similarity[c, f])
        for c, row in enumerate(weights.tolist())
        for f, value in zip(selected, row, strict=True)
        if value
    ]
    scale = 1000.0 / math.fsum(problem.n_per_class.tolist())
    chosen = set(selected)
    pairs = problem.redundancy.tocoo()
    charged = [
        float(value)
        for i, j, value in zip(pairs.row.tolist(), pairs.col.tolist(), pairs.data.tolist(), strict=True)
        if i < j and i in chosen and j in chosen
    ]
    biases = [float(problem.feature_bias[f]) for f in selected]
    size = scale * math.fsum(map(abs, used)) + math.fsum(charged) + math.fsum(map(abs, biases))
    return scale * math.fsum(used), -math.fsum(charged), math.fsum(biases), size
