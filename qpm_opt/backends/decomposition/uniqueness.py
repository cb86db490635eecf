"""Uniqueness in the bound: prices that make classes avoid each other, or, in contrastive pairs, seek each other.

Given multipliers λ[c,T] ≥ 0 for classes c and sets T of as many features as the class takes, and μ[T] = max_c λ[c,T],
no two of the classes may have all of T, so of the rows Σ_{f∈T} W[c,f] ≤ k − 1 + z[c,T], Σ_c z[c,T] ≤ 1 the Lagrangian

    Σ_c Σ_f (A[c,f] − Σ_{T∋f} λ[c,T]) W[c,f] + Σ_T ((k − 1) Σ_c λ[c,T] + μ[T])

bounds what the classes gain together. A contrastive pair of classes c and d that share at least m features, written
with v_f ≤ W[c,f], v_f ≤ W[d,f] and Σ v ≥ m, adds p_f to A[c,f], ν − p_f to A[d,f] and −ν m to the constant, for any
0 ≤ p_f ≤ ν. Either way it is the same problem with other values and a constant, so it serves the linear program as one
more cut on Σ_c θ_c. The multipliers come from a small linear program over the classes in question at a given point, in
which W is explicit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
import numpy.typing as npt

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.backends.decomposition.class_values import ClassValues
from qpm_opt.backends.decomposition.cuts import LinearCut
from qpm_opt.backends.decomposition.linear_program import Row, add_columns, add_rows, new_solver
from qpm_opt.search_space import SearchSpace

__all__ = ["Prices", "price_collisions", "priced_cuts"]

_WHOLE = 1e-6
_ROUNDS = 12
_NEGLIGIBLE = 1e-9

FeatureSet = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Prices:
    """Other values for some classes, and what has to be added for that.

    Attributes:
        classes: The classes, which have to be bounded together.
        values: (len(classes), n) their new values.
        constant: What to add to the sum of their values.
    """

    classes: IntArray
    values: FloatArray
    constant: float


def priced_cuts(space: SearchSpace, prices: Sequence[Prices], x: FloatArray) -> list[LinearCut]:
    """The cuts on Σ_c θ_c that prices give, with the best thresholds at x."""
    cuts = []
    for item in prices:
        budgets = space.budgets[item.classes]
        classes = ClassValues.of(item.values, budgets)
        thresholds = classes.thresholds(x)
        constant = item.constant + float(budgets @ thresholds)
        cuts.append(LinearCut.of(item.classes, constant, classes.slopes(thresholds).sum(axis=0)))
    return cuts


def price_collisions(space: SearchSpace, classes: ClassValues, x: FloatArray) -> list[Prices]:
    """Prices for the classes that would take the same features at x, one item for each group that hangs together.

    Args:
        space: The problem.
        classes: Its class values.
        x: (n,) fractional features.
    """
    required = space.required
    whole = _whole_sets(classes.order, space.budgets, x, required)
    owners: dict[FeatureSet, set[int]] = {}
    for c, own in enumerate(whole):
        if own is not None:
            owners.setdefault(own, set()).add(c)
    rivals = {key: set(members) for key, members in owners.items() if len(members) > 1}
    contrasts = space.problem.contrastive_pairs
    if not rivals and not len(contrasts):
        return []
    program = _Assignments(space, classes, x, required)
    for _ in range(_ROUNDS):
        taken = program.solve(rivals)
        if taken is None:
            return []
        found: dict[FeatureSet, set[int]] = {}
        for c, own in taken.items():
            if own is not None:
                found.setdefault(own, set()).add(c)
        for key, members in found.items():
            members |= {c for c in owners.get(key, set()) if c not in taken}
        fresh = {key: members for key, members in found.items() if len(members) > 1}
        fresh = {key: members for key, members in fresh.items() if not members <= rivals.get(key, set())}
        if not fresh:
            break
        for key, members in fresh.items():
            rivals.setdefault(key, set()).update(members)
    return program.prices()


def _whole_sets(
    order: IntArray, budgets: IntArray, x: FloatArray, required: npt.NDArray[np.bool_]
) -> list[FeatureSet | None]:
    """What every class takes at x, where that is a set of whole features."""
    filled = np.cumsum(x[order], axis=1)
    found: list[FeatureSet | None] = []
    for c, budget in enumerate(budgets.tolist()):
        end = int(np.searchsorted(filled[c], budget - _WHOLE))
        picked = order[c, : end + 1]
        picked = picked[x[picked] > _WHOLE] if budget else picked[:0]
        whole = len(picked) == budget and bool((x[picked] > 1.0 - _WHOLE).all())
        found.append(tuple(sorted([*picked.tolist(), *np.flatnonzero(required[c]).tolist()])) if whole else None)
    return found


@dataclass
class _Assignments:
    """The linear program over W of the classes that collide or belong to contrastive pairs, W ≤ x."""

    space: SearchSpace
    classes: ClassValues
    x: FloatArray
    required: npt.NDArray[np.bool_]
    _multipliers: dict[tuple[int, FeatureSet], float] = field(default_factory=dict)
    _attractions: list[tuple[int, int, float, float, FloatArray]] = field(default_factory=list)

    def solve(self, rivals: dict[FeatureSet, set[int]]) -> dict[int, FeatureSet | None] | None:
        """What each class takes, None in place of a fractional answer; None where there is no answer."""
        space, x = self.space, self.x
        contrasts = space.problem.contrastive_pairs.tolist()
        members = sorted(set().union(*rivals.values(), *((c, d) for c, d, _ in contrasts)))
        support = np.flatnonzero(x > _WHOLE)
        features: dict[int, list[int]] = {}
        for c in members:
            own = support[space.values[c, support] > -space.barrier]
            best = own[np.argsort(-space.values[c, own], kind="stable")]
            room = np.cumsum(x[best])
            # The features beyond some more units of room are never worth it, unless very many classes collide.
            end = int(np.searchsorted(room, space.budgets[c] + 4 + np.log2(1 + len(members)))) + 1
            features[c] = best[:end].tolist()
        columns = [(c, f) for c in members for f in features[c]]
        place = {column: index for index, column in enumerate(columns)}
        used = [(c, key) for key in sorted(rivals) for c in sorted(rivals[key])]
        shared = [
            (number, f)
            for number, (c, d, _) in enumerate(contrasts)
            for f in support.tolist()
            if (self.required[c, f] or (c, f) in place)
            and (self.required[d, f] or (d, f) in place)
            and not (self.required[c, f] and self.required[d, f])
        ]
        n_w, first_v = len(columns), len(columns) + len(used)
        solver = new_solver(presolve=True)
        cost = np.concatenate([[-space.values[c, f] for c, f in columns], np.zeros(len(used) + len(shared))])
        upper = np.concatenate([[x[f] for _, f in columns], np.ones(len(used)), [x[f] for _, f in shared]])
        add_columns(solver, cost, np.zeros(len(cost)), upper)
        rows: list[Row] = []
        for c in members:
            own_columns = [place[c, f] for f in features[c]]
            budget = float(space.budgets[c])
            rows.append(_row(budget, budget, own_columns))
        first_shared = len(rows)
        for index, (c, key) in enumerate(used):
            free = [f for f in key if not self.required[c, f]]
            if any((c, f) not in place for f in free):
                rows.append(_row(-np.inf, np.inf, []))
                continue
            entries = [place[c, f] for f in free]
            rows.append(_row(-np.inf, len(free) - 1.0, entries, less=[n_w + index]))
        for key in sorted(rivals):
            entries = [n_w + index for index, (_, other) in enumerate(used) if other == key]
            rows.append(_row(-np.inf, 1.0, entries))
        first_contrast = len(rows)
        both = [int((self.required[c] & self.required[d]).sum()) for c, d, _ in contrasts]
        for number, (_, _, least) in enumerate(contrasts):
            entries = [first_v + index for index, (other, _) in enumerate(shared) if other == number]
            rows.append(_row(float(least - both[number]), np.inf, entries))
        first_side = len(rows)
        for index, (number, f) in enumerate(shared):
            rows += [
                _row(-np.inf, 0.0, [first_v + index], less=[place[c, f]])
                for c in contrasts[number][:2]
                if not self.required[c, f]
            ]
        add_rows(solver, rows)
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution = solver.getSolution()
        duals = np.array(solution.row_dual)
        charged = zip(used, duals[first_shared : first_shared + len(used)].tolist(), strict=True)
        self._multipliers = {pair: -dual for pair, dual in charged if dual < -_NEGLIGIBLE}
        self._attractions = []
        row = first_side
        at_first: dict[tuple[int, int], float] = {}
        for number, f in shared:
            for side, c in enumerate(contrasts[number][:2]):
                if not self.required[c, f]:
                    if side == 0:
                        at_first[number, f] = -float(duals[row])
                    row += 1
        for number, (c, d, least) in enumerate(contrasts):
            strength = float(duals[first_contrast + number])
            if strength > _NEGLIGIBLE:
                known = {f: p for (other, f), p in at_first.items() if other == number}
                split = self._split(c, d, strength, known)
                self._attractions.append((c, d, strength, strength * (least - both[number]), split))
        values = np.array(solution.col_value)[:n_w]
        taken: dict[int, FeatureSet | None] = {}
        for c in members:
            amounts = values[[place[c, f] for f in features[c]]]
            picked = [f for f, amount in zip(features[c], amounts.tolist(), strict=True) if amount > _WHOLE]
            whole = len(picked) == space.budgets[c] and bool((amounts[amounts > _WHOLE] > 1.0 - _WHOLE).all())
            fixed = np.flatnonzero(self.required[c]).tolist()
            taken[c] = tuple(sorted([*picked, *fixed])) if whole else None
        return taken

    def prices(self) -> list[Prices]:
        """The prices of the last solution, one item for each group of classes that sets tie together."""
        leader: dict[int, int] = {}

        def lead(c: int) -> int:
            while leader.setdefault(c, c) != c:
                c = leader[c]
            return c

        charged: dict[FeatureSet, dict[int, float]] = {}
        for (c, key), multiplier in self._multipliers.items():
            charged.setdefault(key, {})[c] = multiplier
        for c, d, _, _, _ in self._attractions:
            leader[lead(d)] = lead(c)
        for by_class in charged.values():
            first, *others = [lead(c) for c in by_class]
            for other in others:
                leader[lead(other)] = lead(first)
        groups: dict[int, list[int]] = {}
        tied = {c for by_class in charged.values() for c in by_class}
        tied |= {c for attraction in self._attractions for c in attraction[:2]}
        for c in sorted(tied):
            groups.setdefault(lead(c), []).append(c)
        found = []
        for root, members in groups.items():
            values = self.space.values[members].copy()
            row = {c: index for index, c in enumerate(members)}
            constant = 0.0
            for key, by_class in charged.items():
                if lead(next(iter(by_class))) != root:
                    continue
                constant += max(by_class.values())
                for c, multiplier in by_class.items():
                    free = [f for f in key if not self.required[c, f]]
                    values[row[c], free] -= multiplier
                    constant += (len(free) - 1) * multiplier
            for c, d, strength, price, split in self._attractions:
                if lead(c) == root:
                    values[row[c]] += split
                    values[row[d]] += np.where(self.required[c] & self.required[d], 0.0, strength - split)
                    constant -= price
            found.append(Prices(np.array(members), values, constant))
        return found

    def _split(self, c: int, d: int, strength: float, known: dict[int, float]) -> FloatArray:
        """(n,) what sharing a feature is worth to class c; the rest of `strength` is what it is worth to class d."""
        space = self.space
        threshold = self.classes.thresholds(self.x)[c]
        split = np.clip(threshold - space.values[c], 0.0, strength)  # what a feature lacks, where the answer is silent
        for f, share in known.items():
            split[f] = min(max(share, 0.0), strength)
        # Where only one of the classes has a choice, all is up to it if the other has the feature anyway.
        choice_c, choice_d = (space.values[own] > -space.barrier for own in (c, d))
        split[~choice_d] = np.where(choice_c & self.required[d], strength, 0.0)[~choice_d]
        split[~choice_c & choice_d] = np.where(self.required[c], 0.0, strength)[~choice_c & choice_d]
        return np.asarray(split, dtype=np.float64)


def _row(lower: float, upper: float, plus: list[int], less: Sequence[int] = ()) -> Row:
    """Lower ≤ Σ_plus z − Σ_less z ≤ upper."""
    signs = np.concatenate([np.ones(len(plus)), -np.ones(len(less))])
    return Row(lower, upper, np.array([*plus, *less], dtype=np.int64), signs)
