"""OR-Tools CP-SAT: the problem over booleans with an integer objective.

Real coefficients become integers by one scale factor. Values are rounded up and penalties down, so the integer
objective of every assignment is at least its true one times the scale: CP-SAT's bound, divided by the scale, is a bound
on the problem itself, with the rounding already in it. The scale is as fine as 1e-9 of the largest possible objective
needs, and coarser only where 64-bit sums would overflow.
"""

from __future__ import annotations

import math
from importlib.metadata import version as package_version
from types import MappingProxyType
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from qpm_opt._validation import FloatArray, IntArray, nearest
from qpm_opt.backends._background import run_interruptibly
from qpm_opt.backends._native_options import native_option
from qpm_opt.backends._rounds import RoundResult, offer_greedy_start, solve_in_rounds
from qpm_opt.backends.base import Capabilities, Request
from qpm_opt.backends.search_log import SearchLog
from qpm_opt.errors import InvalidInputError, SolverError
from qpm_opt.problem import AssignmentProblem
from qpm_opt.processors import available_processors
from qpm_opt.selection import best_weights
from qpm_opt.solution import Termination

__all__ = ["CAPABILITIES", "solve", "version"]

CAPABILITIES = Capabilities(
    proves_optimality=True,
    options=MappingProxyType(
        {"native_options": native_option("CP-SAT", "SatParameters, such as {'log_search_progress': True}")}
    ),
)

_PORTFOLIO = 8
"""Workers unless a number is given, also on fewer cores: a smaller portfolio has none that uses linear programs."""

_PRECISION = 1e-9
_ROUNDING = 1e-12
_LARGEST_SUM = 2.0**52
"""Sums of objective coefficients stay below this: CP-SAT reports its bound as a double."""


def version() -> str:
    """Version of OR-Tools."""
    return package_version("ortools")


def solve(problem: AssignmentProblem, request: Request, log: SearchLog) -> Termination:
    """Build the model and solve it in rounds."""
    _configured_solver(request)  # a wrong native option is refused before the model is built
    offer_greedy_start(problem, log)
    model = _Model(problem, request, log)
    if log.remaining() <= 0.0:
        return Termination.TIME_LIMIT
    return solve_in_rounds(model, problem, request, log)


def _configured_solver(request: Request) -> cp_model.CpSolver:
    """A solver with the requested settings; a parameter that CP-SAT does not know is refused."""
    solver = cp_model.CpSolver()
    parameters = solver.parameters
    parameters.random_seed = request.seed % 2**31
    parameters.num_workers = request.threads or max(_PORTFOLIO, available_processors())
    # A single thread takes the strategies in turns, the only way in which CP-SAT is repeatable.
    parameters.interleave_search = request.threads == 1
    parameters.catch_sigint_signal = False  # Ctrl-C comes in the main thread, which stops the search
    for name, value in (request.options["native_options"] or {}).items():
        known = [word for word in dir(parameters) if word.islower() and not word.startswith("_")]
        if name not in known:
            raise InvalidInputError(f"CP-SAT has no parameter {name!r}.{nearest(name, known)}")
        try:
            setattr(parameters, name, value)
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"CP-SAT does not take {value!r} for its parameter {name!r}: {error}.") from error
    return solver


def _integer_scale(problem: AssignmentProblem, values: FloatArray, penalties: FloatArray, bias: FloatArray) -> float:
    """Factor that turns objective coefficients, those of what is not locked, into integers."""
    n_select = problem.n_select
    terms = int(problem.n_per_class.sum()) + n_select + min(len(penalties), n_select * (n_select - 1) // 2)
    values, bias = np.abs(values), np.abs(bias)
    largest = (
        values.max(initial=0.0) * problem.n_per_class.sum()
        + penalties.max(initial=0.0) * n_select * (n_select - 1) / 2
        + bias.max(initial=0.0) * n_select
    )
    everything = values.sum() + penalties.sum() + bias.sum()
    if largest == 0.0:
        return 1.0
    scale = min(terms / (_PRECISION * largest), _LARGEST_SUM / everything)
    return 2.0 ** math.floor(math.log2(scale))  # a power of two adds no rounding of its own


class _Model:
    """The CP-SAT model; a `Relaxation` to which uniqueness is added in rounds."""

    def __init__(self, problem: AssignmentProblem, request: Request, log: SearchLog) -> None:
        self._problem, self._request = problem, request
        self._model = model = cp_model.CpModel()
        features = problem.candidates
        values = problem.scale * problem.class_similarity
        pairs = problem.redundancy[features][:, features].tocoo()
        upper = pairs.row < pairs.col
        first, second, penalties = features[pairs.row[upper]], features[pairs.col[upper]], pairs.data[upper]
        forced = problem.forced_features
        free = np.setdiff1d(features, forced)
        is_open = ~(problem.required_mask | problem.forbidden_mask)[:, features]
        bias = problem.feature_bias
        self._scale = scale = _integer_scale(problem, values[:, features][is_open], penalties, bias[free])
        # What every solution has is no matter of the objective: however large, it leaves all digits to the rest.
        self._constant = float(values[problem.required_mask].sum()) + float(bias[forced].sum())

        self._keep = {f: model.new_bool_var("") for f in features.tolist()}
        for f in forced.tolist():
            model.add(self._keep[f] == 1)
        model.add(sum(self._keep.values()) == problem.n_select)
        variables: list[Any] = []
        coefficients: list[int] = []
        self._use: list[dict[int, Any]] = []
        for c in range(problem.n_classes):
            if log.remaining() <= 0.0:
                return
            row: dict[int, Any] = {}
            for f in features[~problem.forbidden_mask[c, features]].tolist():
                row[f] = variable = model.new_bool_var("")
                model.add_implication(variable, self._keep[f])
                if problem.required_mask[c, f]:
                    model.add(variable == 1)
                    continue
                variables.append(variable)
                coefficients.append(math.ceil(values[c, f] * scale))
            model.add(sum(row.values()) == int(problem.n_per_class[c]))
            self._use.append(row)
        for c, d, least in problem.contrastive_pairs.tolist():
            shared = []
            for f in self._use[c].keys() & self._use[d].keys():
                both = model.new_bool_var("")
                model.add_implication(both, self._use[c][f])
                model.add_implication(both, self._use[d][f])
                shared.append(both)
            model.add(sum(shared) >= least)
        for f in free.tolist():
            variables.append(self._keep[f])
            coefficients.append(math.ceil(bias[f] * scale))
        self._together: list[tuple[int, int, Any]] = []
        for i, j, penalty in zip(first.tolist(), second.tolist(), penalties.tolist(), strict=True):
            if log.remaining() <= 0.0:
                return
            both = model.new_bool_var("")
            model.add_bool_or([self._keep[i].negated(), self._keep[j].negated(), both])
            self._together.append((i, j, both))
            variables.append(both)
            coefficients.append(-math.floor(penalty * scale))
        model.maximize(cp_model.LinearExpr.weighted_sum(variables, coefficients))

    def forbid_sharing(self, features: tuple[int, ...], classes: list[int]) -> None:
        """See `Relaxation`."""
        owners = []
        for c in classes:
            row = self._use[c]
            if any(f not in row for f in features):
                continue
            owner = self._model.new_bool_var("")
            self._model.add_bool_or([*(row[f].negated() for f in features), owner])
            owners.append(owner)
        self._model.add_at_most_one(owners)

    def solve(self, log: SearchLog, mip_gap: float) -> RoundResult:
        """See `Relaxation`."""
        solver = _configured_solver(self._request)
        # CP-SAT's gap is relative to its own objective, which lacks the constant.
        if self._constant == 0.0:
            solver.parameters.relative_gap_limit = mip_gap
        elif log.objective is not None:
            solver.parameters.absolute_gap_limit = mip_gap * abs(log.objective) * log.unit * self._scale
        limit = log.remaining()
        if math.isfinite(limit):
            solver.parameters.max_time_in_seconds = limit
        self._hint(log)

        seen = _SeenSolutions(self._keep)
        bounds: list[float] = []
        solver.best_bound_callback = bounds.append

        def poll() -> None:
            while seen.found:
                selected = seen.found.pop(0)
                weights = best_weights(self._problem, selected)
                if weights is not None:
                    log.offer(selected, weights, "CP-SAT")
            if bounds:
                lowest = min(bounds)
                bounds.clear()
                log.tighten(self._true_bound(lowest), "CP-SAT")
            log.report_now_and_then("CP-SAT is searching")

        status = run_interruptibly(lambda: solver.solve(self._model, seen), poll=poll, cancel=solver.stop_search)
        poll()
        if status == cp_model.MODEL_INVALID:
            if self._request.options["native_options"]:
                raise InvalidInputError(
                    f"CP-SAT does not take the 'native_options' {dict(self._request.options['native_options'])}."
                )
            raise SolverError(f"CP-SAT calls its model invalid: {self._model.validate()}.")
        if status == cp_model.INFEASIBLE:
            return RoundResult(Termination.INFEASIBLE)
        # With its strategies in turns CP-SAT stops when the next turn might take too long, well before its time is up.
        stopped = Termination.TIME_LIMIT if log.remaining() < 0.5 * limit else Termination.SOLVER_LIMIT
        termination = Termination.OPTIMAL if status == cp_model.OPTIMAL else stopped
        # Without a solution CP-SAT still answers with values and a bound that mean nothing.
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return RoundResult(stopped)
        weights = np.zeros(self._problem.class_similarity.shape, dtype=bool)
        for c, row in enumerate(self._use):
            weights[c, [f for f, variable in row.items() if solver.boolean_value(variable)]] = True
        selected = np.array([f for f, variable in self._keep.items() if solver.value(variable)], dtype=np.int64)
        return RoundResult(termination, selected, weights, self._true_bound(solver.best_objective_bound))

    def _true_bound(self, scaled: float) -> float:
        bound = scaled / self._scale
        return self._constant + bound + _ROUNDING * (abs(self._constant) + abs(bound))

    def _hint(self, log: SearchLog) -> None:
        self._model.clear_hints()
        if log.best is None:
            return
        selected, weights, _ = log.best
        kept = set(selected.tolist())
        for f, variable in self._keep.items():
            self._model.add_hint(variable, f in kept)
        for row, chosen in zip(self._use, weights, strict=True):
            own = set(selected[chosen > 0].tolist())
            for f, variable in row.items():
                self._model.add_hint(variable, f in own)
        for i, j, variable in self._together:
            self._model.add_hint(variable, i in kept and j in kept)


class _SeenSolutions(cp_model.CpSolverSolutionCallback):  # type: ignore[misc]
    """Collects the kept features of every improving solution; runs in CP-SAT's thread."""

    def __init__(self, keep: dict[int, Any]) -> None:
        super().__init__()
        self._keep = keep
        self.found: list[IntArray] = []

    def on_solution_callback(self) -> None:
        """Called by CP-SAT."""
        self.found.append(
            np.array([f for f, variable in self._keep.items() if self.boolean_value(variable)], dtype=np.int64)
        )
