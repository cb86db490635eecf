"""What is different between two assignments of the same features to the same classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qpm_opt import Assignment, AssignmentProblem, Terms

__all__ = ["AssignmentDiff", "ClassChange", "diff_assignments"]

_SHOWN = 20


@dataclass(frozen=True)
class ClassChange:
    """How the description of a class changes.

    Attributes:
        name: The class.
        lost: Features that describe it no more, by number, sorted.
        gained: Features that describe it now and did not before.
    """

    name: str
    lost: tuple[int, ...]
    gained: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class AssignmentDiff:
    """From one assignment to another.

    Attributes:
        before: Terms of the old assignment in the old problem.
        after: Terms of the new assignment in the old problem too, so that both can be compared.
        objective: The objective of the new assignment in the new problem, in which a bias may have been added.
        bound: Proven upper bound on it, or None.
        gap: (bound − objective) / |objective| of the new assignment, or None.
        features_out: Features that are kept no more, each with the number of classes that it described.
        features_in: Features that are kept now and were not before, each with the number of classes that it describes.
        classes: The classes whose description changes, in their order.
        n_classes: How many classes there are.
    """

    before: Terms
    after: Terms
    objective: float
    bound: float | None
    gap: float | None
    features_out: Mapping[int, int]
    features_in: Mapping[int, int]
    classes: tuple[ClassChange, ...]
    n_classes: int

    @property
    def price(self) -> float:
        """What the new assignment is worth less in the old problem; negative where a better one was found."""
        return self.before.total - self.after.total

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; features as a list of number and count."""
        return {
            "objective_before": self.before.total,
            "objective_after": self.after.total,
            "price": self.price,
            "objective_changed": self.objective,
            "bound": self.bound,
            "gap": self.gap,
            "terms_before": asdict(self.before),
            "terms_after": asdict(self.after),
            "features_out": [{"feature": f, "classes": count} for f, count in self.features_out.items()],
            "features_in": [{"feature": f, "classes": count} for f, count in self.features_in.items()],
            "classes": [
                {"class": change.name, "lost": list(change.lost), "gained": list(change.gained)}
                for change in self.classes
            ],
            "n_classes": self.n_classes,
        }

    def table(self, names: Mapping[int, str] | None = None, *, most: int | None = _SHOWN) -> str:
        """The difference as lines of text.

        Args:
            names: Names of features, shown beside their numbers.
            most: Of how many classes the change is listed; None: of all.
        """
        known = {} if names is None else names
        share = f", {self.price / abs(self.before.total):.2%}" if self.before.total else ""
        certificate = (
            "none"
            if self.bound is None
            else f"{self.objective:.3f} of at most {self.bound:.3f} with what was asked for, gap {self.gap:.2%}"
        )
        lines = [
            f"objective     {self.before.total:10.3f} → {self.after.total:10.3f}",
            f"  similarity  {self.before.similarity:10.3f} → {self.after.similarity:10.3f}",
            f"  redundancy  {self.before.redundancy:10.3f} → {self.after.redundancy:10.3f}",
            f"  bias        {self.before.bias:10.3f} → {self.after.bias:10.3f}",
            f"price         {self.price:10.3f}{share}",
            f"certificate   {certificate}",
            f"features out  {_counted(self.features_out, known)}",
            f"features in   {_counted(self.features_in, known)}",
            f"classes       {len(self.classes)} of {self.n_classes} change",
        ]
        shown = self.classes[:most]
        width = max((len(change.name) for change in shown), default=0)
        lines += [
            f"  {change.name:<{width}}  − {_listed(change.lost, known)}   + {_listed(change.gained, known)}"
            for change in shown
        ]
        if len(shown) < len(self.classes):
            lines.append(f"  and {len(self.classes) - len(shown)} more")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"AssignmentDiff\n{self.table()}"


def diff_assignments(
    old_problem: AssignmentProblem, old: Assignment, new_problem: AssignmentProblem, new: Assignment
) -> AssignmentDiff:
    """Compare a solution of a problem with one of a changed problem.

    Args:
        old_problem: The problem before the change.
        old: A solution of it.
        new_problem: A problem of the same classes and features.
        new: A solution of it.

    Raises:
        NoSolutionError: One of the assignments holds none.
    """
    before, after = _sets(old), _sets(new)
    labels = new_problem.class_labels
    changes = (
        ClassChange(str(position if labels is None else labels[position]), tuple(sorted(a - b)), tuple(sorted(b - a)))
        for position, (a, b) in enumerate(zip(before, after, strict=True))
        if a != b
    )
    return AssignmentDiff(
        before=old.terms,
        after=old_problem.terms(new.selected, new.weights),
        objective=new.objective,
        bound=new.bound,
        gap=new.gap,
        features_out=_uses(old, np.setdiff1d(old.selected, new.selected).tolist()),
        features_in=_uses(new, np.setdiff1d(new.selected, old.selected).tolist()),
        classes=tuple(changes),
        n_classes=new_problem.n_classes,
    )


def _sets(assignment: Assignment) -> list[set[int]]:
    return [set(assignment.selected[row > 0].tolist()) for row in assignment.weights]


def _uses(assignment: Assignment, features: Iterable[int]) -> dict[int, int]:
    counts = dict(zip(assignment.selected.tolist(), assignment.weights.sum(axis=0).tolist(), strict=True))
    return {feature: int(counts[feature]) for feature in features}


def _label(feature: int, names: Mapping[int, str]) -> str:
    return f"{names[feature]} ({feature})" if feature in names else str(feature)


def _listed(features: Iterable[int], names: Mapping[int, str]) -> str:
    return ", ".join(_label(feature, names) for feature in features) or "none"


def _counted(uses: Mapping[int, int], names: Mapping[int, str]) -> str:
    listed = (
        f"{_label(feature, names)} in {count} class{'' if count == 1 else 'es'}" for feature, count in uses.items()
    )
    return ", ".join(listed) or "none"
