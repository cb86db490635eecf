"""The problem in numbers that solvers can work with: of a familiar size, and none beyond what can matter.

Solvers have absolute tolerances, and double precision holds sixteen digits: an entry of −1e7 for "do not use" leaves
few of them to the entries of about one that decide. Two changes keep every optimal solution and every bound:

- Multiplying everything by a power of two, which is exact.
- Raising what is hopeless. With U = Σ_c (the k best σA[c]) + (the n_select best b), no assignment has more than U, and
  one that uses a pair (c, f) no more than U − (t_c − σA[c,f]), t_c being the last of the k best. Where that lies below
  the objective L of a known assignment, no optimal one uses the pair, and any value between σA[c,f] and t_c − (U − L)
  will do as well. The same holds for biases and, lowered, for penalties. Every assignment then has at least its true
  objective, so that bounds remain bounds, and those above L have just that.

Nothing is raised where no single number outweighs all that is added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.problem import AssignmentProblem
from qpm_opt.search_space import SearchSpace
from qpm_opt.swap_search import climb, greedy_set, random_set, tabu_search

__all__ = ["Conditioned", "conditioned"]

_TYPICAL_OBJECTIVE = 1e3
"""The size that objectives are brought to; to solvers' tolerances of 1e-6 to 1e-9 nothing that counts is small then."""

_ROOM = 4.0
"""What is hopeless stays so many times U − L below t_c: beyond any tolerance, yet of the size of U − L."""

_LEAST_ROOM = 2.0**-10
"""The same in units of U, for where U − L is nothing: what is this far below needs no raising."""

_ROUNDS = 6
"""A better assignment makes more entries hopeless, and that better ones are found; it settles after two or three."""

_SETTLED = 0.5

_SMALL = 2_000
_PATIENCE = 20
"""With up to so many (class, feature) pairs the search goes on for so many moves; with more, to climb will do."""
_RANDOM_SETS = 20
"""Sets to try where classes cannot be told apart within the greedy one."""


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A problem to be solved in place of another one.

    Attributes:
        problem: It has the optimal assignments of the other one, and at least the objective of any, times `unit`.
        unit: A power of two.
        known: (selected, weights) of a good assignment, where one had to be found; None otherwise.
    """

    problem: AssignmentProblem
    unit: float
    known: tuple[IntArray, npt.NDArray[np.bool_]] | None = None


@dataclass(frozen=True, eq=False)
class _Reach:
    """What classes and features gain at most.

    Attributes:
        thresholds: (n_classes,) t, the last of the values that a class takes if it may choose among all features.
        bias: The last of the biases that are added up.
        most: U.
        size: What U is added up from, in absolute values.
    """

    thresholds: FloatArray
    bias: float
    most: float
    size: float


def conditioned(problem: AssignmentProblem, keep_going: Callable[[], bool] = lambda: True) -> Conditioned:
    """The problem in numbers of a familiar size.

    Args:
        problem: Any problem.
        keep_going: Asked before each step of the search for a good assignment.
    """
    reach = _reach(problem)
    if _largest_loss(problem, reach) <= reach.size:
        unit = _unit(reach.size)
        return Conditioned(_multiplied(problem, unit), unit)
    easier, unit = problem, 1.0
    known: tuple[IntArray, npt.NDArray[np.bool_]] | None = None
    best, room = -np.inf, np.inf
    for _ in range(_ROUNDS):
        found = _good_assignment(easier, keep_going)
        if found is None:
            break
        total = problem.terms(*found).total
        if known is None or total > best:
            known, best = found, total
        before, room = room, _ROOM * max(reach.most - best, 0.0) + _LEAST_ROOM * reach.size
        unit = _unit(max(reach.size, _size(problem, *known)))
        easier = _multiplied(_raised(problem, reach, room), unit)
        if room > _SETTLED * before or not keep_going():
            break
    if known is None:
        unit = _unit(reach.size)
        easier = _multiplied(problem, unit)
    return Conditioned(easier, unit, known)


def _open_pairs(problem: AssignmentProblem) -> npt.NDArray[np.bool_]:
    """(n_classes, n_features) bool: pairs that are neither locked nor of a feature that cannot be kept."""
    is_open = ~(problem.required_mask | problem.forbidden_mask)
    usable = np.zeros(problem.n_features, dtype=bool)
    usable[problem.candidates] = True
    return is_open & usable


def _reach(problem: AssignmentProblem) -> _Reach:
    values = problem.scale * problem.class_similarity
    free = problem.n_per_class - problem.required_mask.sum(axis=1)
    ranked = -np.sort(-np.where(_open_pairs(problem), values, -np.inf), axis=1)
    taken = ranked[np.arange(problem.n_features) < free[:, None]]
    # A class that takes no open pair gains nothing by any: they may all be raised.
    thresholds = np.where(free > 0, ranked[np.arange(len(free)), np.maximum(free, 1) - 1], np.inf)
    forced = problem.forced_features
    others = -np.sort(-problem.feature_bias[np.setdiff1d(problem.candidates, forced)])
    biases = others[: problem.n_select - len(forced)]
    constant = float(values[problem.required_mask].sum()) + float(problem.feature_bias[forced].sum())
    return _Reach(
        thresholds=thresholds,
        bias=float(biases[-1]) if len(biases) else np.inf,
        most=constant + float(taken.sum()) + float(biases.sum()),
        size=float(np.abs(taken).sum()) + float(np.abs(biases).sum()),
    )


def _largest_loss(problem: AssignmentProblem, reach: _Reach) -> float:
    """By how much a single pair, bias or penalty lowers the objective at most."""
    values = np.where(_open_pairs(problem), problem.scale * problem.class_similarity, np.inf).min(axis=1)
    losses = reach.thresholds - values
    bias = reach.bias - float(problem.feature_bias[problem.candidates].min())
    return max(
        float(np.max(losses, where=np.isfinite(losses), initial=0.0)),
        bias if math.isfinite(bias) else 0.0,
        float(problem.redundancy.data.max(initial=0.0)),
    )


def _size(problem: AssignmentProblem, selected: IntArray, weights: npt.NDArray[np.bool_]) -> float:
    """What the objective of an assignment is added up from, in absolute values, without what every assignment has."""
    open_pairs = _open_pairs(problem)[:, selected] & weights
    values = problem.scale * np.abs(problem.class_similarity[:, selected][open_pairs])
    free = selected[~np.isin(selected, problem.forced_features)]
    charged = problem.redundancy[selected][:, selected].sum() / 2.0
    return float(values.sum()) + float(np.abs(problem.feature_bias[free]).sum()) + float(charged)


def _raised(problem: AssignmentProblem, reach: _Reach, room: float) -> AssignmentProblem:
    """The problem with nothing left that lowers the objective by more than `room`."""
    values, is_open = problem.class_similarity, _open_pairs(problem)
    least = (np.where(np.isfinite(reach.thresholds), reach.thresholds, 0.0) - room) / problem.scale
    raised = np.maximum(values, least[:, None])
    # What is locked away, and what a class without free places has, is never added up.
    raised = np.where(is_open & np.isfinite(reach.thresholds)[:, None], raised, 0.0)
    raised = np.where(problem.required_mask, values, raised)
    bias = problem.feature_bias.copy()
    others = np.setdiff1d(np.arange(problem.n_features), problem.forced_features)
    if math.isfinite(reach.bias):
        bias[others] = np.maximum(bias[others], reach.bias - room)
    penalties = problem.redundancy.copy()
    penalties.data = np.minimum(penalties.data, room)
    return problem._with_values(raised, penalties, bias)


def _multiplied(problem: AssignmentProblem, unit: float) -> AssignmentProblem:
    if unit == 1.0:
        return problem
    penalties = problem.redundancy.copy()
    penalties.data = penalties.data * unit
    return problem._with_values(problem.class_similarity * unit, penalties, problem.feature_bias * unit)


def _unit(size: float) -> float:
    """The power of two that brings objectives to a familiar size."""
    return 1.0 if size == 0.0 else 2.0 ** round(math.log2(_TYPICAL_OBJECTIVE) - math.log2(size))


def _good_assignment(
    problem: AssignmentProblem, keep_going: Callable[[], bool]
) -> tuple[IntArray, npt.NDArray[np.bool_]] | None:
    """What a short swap search finds; None where it finds no set within which classes can be told apart."""
    space, rng = SearchSpace.of(problem), np.random.default_rng(0)
    chosen = climb(space, greedy_set(space), keep_going)
    patience = _PATIENCE if space.values.size <= _SMALL else 0
    found = tabu_search(
        space, chosen, rng, patience=patience, keep_going=keep_going, on_improvement=lambda _found: None
    )
    if found is not None:
        return space.features[found.chosen], found.weights
    for _ in range(_RANDOM_SETS):
        if not keep_going():
            break
        chosen = random_set(space, rng)
        _, weights = space.exact(chosen)
        if weights is not None:
            return space.features[chosen], weights
    return None
