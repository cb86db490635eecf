"""What the parts of the objective cost, and what it would cost to describe a class otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_opt import Assignment, AssignmentProblem

__all__ = ["Prices", "Swap", "charged_pairs", "prices", "swaps"]


@dataclass(frozen=True)
class Prices:
    """How the objective comes about, in its own units.

    Attributes:
        best_of_all: Similarity if every class had its most similar features of all, whatever others have.
        best_of_kept: The same out of the kept features. What is lost on the way is the price of keeping few features,
            chosen with an eye on redundancy and bias as well.
        similarity: Z_A: as it is, no two classes alike. What is lost on the way is the price of uniqueness.
        redundancy: Z_R, not positive: the penalties of kept pairs.
        bias: Z_B.
    """

    best_of_all: float
    best_of_kept: float
    similarity: float
    redundancy: float
    bias: float


@dataclass(frozen=True)
class Swap:
    """One feature of a class exchanged for another kept one.

    Attributes:
        feature: Column that the class would get.
        instead_of: Column that it would give up: the one whose loss costs least, as far as no class has that set yet.
        cost: By how much the objective would fall; negative where it would rise.
        taken_by: The class that already has the set of a cheaper exchange for this feature, or None.
    """

    feature: int
    instead_of: int
    cost: float
    taken_by: int | None


def prices(problem: AssignmentProblem, assignment: Assignment) -> Prices:
    """How the objective of an assignment comes about."""
    A, selected = problem.class_similarity, assignment.selected
    terms = problem.terms(selected, assignment.weights)
    return Prices(
        best_of_all=problem.scale * _best_sum(A[:, problem.candidates], problem.n_per_class),
        best_of_kept=problem.scale * _best_sum(A[:, selected], problem.n_per_class),
        similarity=terms.similarity,
        redundancy=terms.redundancy,
        bias=terms.bias,
    )


def charged_pairs(problem: AssignmentProblem, assignment: Assignment) -> list[tuple[int, int, float]]:
    """Pairs of kept features that are penalised, as (column, column, penalty), the dearest first."""
    kept = problem.redundancy[assignment.selected][:, assignment.selected].tocoo()
    pairs = [
        (int(row), int(column), float(value))
        for row, column, value in zip(kept.row, kept.col, kept.data, strict=True)
        if row < column
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def swaps(problem: AssignmentProblem, assignment: Assignment, number: int) -> list[list[Swap]]:
    """For each class the exchanges of one feature that cost least, at most one for each feature that it could get.

    Only sets are offered that no other class has, and that the locks of the problem allow. The kept features stay the
    same, so the objective changes by the similarity alone, and the cost is exact.

    Args:
        problem: What was solved.
        assignment: What was found.
        number: How many for a class, at most.
    """
    weights = assignment.weights > 0
    owners = {row.tobytes(): index for index, row in enumerate(weights)}
    return [
        sorted(_swaps_of(problem, assignment.selected, weights, owners, index), key=lambda swap: swap.cost)[:number]
        for index in range(len(weights))
    ]


def _swaps_of(
    problem: AssignmentProblem,
    selected: npt.NDArray[np.int64],
    weights: npt.NDArray[np.bool_],
    owners: Mapping[bytes, int],
    index: int,
) -> Iterator[Swap]:
    """The cheapest exchange of one class for each feature that it could get."""
    values = problem.class_similarity[index, selected]
    givable = np.flatnonzero(weights[index] & ~problem.required_mask[index, selected])
    givable = givable[np.argsort(values[givable], kind="stable")]
    gettable = np.flatnonzero(~weights[index] & ~problem.forbidden_mask[index, selected])
    partners = list(_partners(problem, index))
    for feature in gettable.tolist():
        taken_by = None
        for column in givable.tolist():
            row = weights[index].copy()
            row[feature], row[column] = True, False
            owner = owners.get(row.tobytes())
            if owner is None and all((row & weights[other]).sum() >= least for other, least in partners):
                cost = problem.scale * float(values[column] - values[feature])
                yield Swap(feature, column, cost, taken_by)
                break
            if taken_by is None:
                taken_by = owner


def _partners(problem: AssignmentProblem, index: int) -> Iterator[tuple[int, int]]:
    """Classes that a class must share features with, and how many at least."""
    for first, second, least in problem.contrastive_pairs.tolist():
        if index in (first, second):
            yield second if first == index else first, least


def _best_sum(values: npt.NDArray[np.float64], budgets: npt.NDArray[np.int64]) -> float:
    """Sum of the largest `budgets` entries of each row."""
    ordered = -np.sort(-values, axis=1)
    return float(ordered[np.arange(values.shape[1]) < budgets[:, None]].sum())
