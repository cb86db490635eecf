"""The linearised problem as a Pyomo model, for HiGHS or any mixed-integer solver that Pyomo drives.

Variables s and W are binary; y[i,j] ≥ s[i] + s[j] − 1, y ≥ 0, exists for penalised pairs only, where the objective
pushes it down; W[c,f] ≤ s[f] needs no product. Uniqueness is added in rounds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.common.errors import ApplicationError
from pyomo.common.log import LoggingIntercept
from pyomo.common.tempfiles import TempfileManager

from qpm_opt._validation import nearest
from qpm_opt.backends import _highs
from qpm_opt.backends._native_options import native_option
from qpm_opt.backends._rounds import RoundResult, offer_greedy_start, solve_in_rounds
from qpm_opt.backends.base import Capabilities, Request
from qpm_opt.backends.search_log import SearchLog
from qpm_opt.errors import BackendUnavailableError, InvalidInputError, SolverError
from qpm_opt.problem import AssignmentProblem
from qpm_opt.selection import best_weights
from qpm_opt.solution import Termination

__all__ = ["PyomoBackend", "variant"]

_BOUND_SLACK = 1e-9

_NATIVE = MappingProxyType({"native_options": native_option("the solver", "HiGHS' {'mip_heuristic_effort': 0.2}")})


@dataclass(frozen=True)
class _Driven:
    """What a solver that Pyomo starts calls the common settings, None where it has no such setting."""

    time_limit: str | None
    gap: str | None = None
    threads: str | None = None
    seed: str | None = None
    install: str = ""
    always: Mapping[str, Any] = field(default_factory=dict)


_DRIVEN: dict[str, _Driven] = {
    "cbc": _Driven(
        "sec",
        "ratioGap",
        "threads",
        "randomCbcSeed",
        "the program cbc (Debian: apt-get install coinor-cbc)",
        {"timeMode": "elapsed"},  # it counts processor time otherwise
    ),
    "glpk": _Driven("tmlim", "mipgap", None, None, "the program glpsol (Debian: apt-get install glpk-utils)"),
    "gurobi": _Driven("TimeLimit", "MIPGap", "Threads", "Seed", "gurobipy and a licence (pip install gurobipy)"),
    "scip": _Driven("limits/time", "limits/gap", None, "randomization/randomseedshift", "pip install pyscipopt"),
}


_hushing = threading.Lock()


@contextmanager
def _hushed(module: str) -> Iterator[None]:
    """Keep what Pyomo says in a module of its own from its log; one thread at a time, or they would undo each other."""
    with _hushing, LoggingIntercept(module=module):
        yield


_PLUGINS = {"scip": "scip_direct"}
"""Pyomo's name of a solver where it differs: SCIP through its Python package rather than as a program."""


def variant(solver: str) -> PyomoBackend:
    """The back end for one solver."""
    return PyomoBackend(solver)


class PyomoBackend:
    """A `Backend` that builds a Pyomo model and has one solver solve it."""

    def __init__(self, solver: str) -> None:
        self._solver = solver
        names = _DRIVEN.get(solver, _Driven(None))
        in_process = solver == "highs"
        self.CAPABILITIES = Capabilities(
            proves_optimality=True,
            warm_start=in_process or solver == "gurobi",
            threads=in_process or names.threads is not None,
            seed=in_process or names.seed is not None,
            gap=in_process or names.gap is not None,
            progress=in_process,
            interrupt=in_process,
            options=_NATIVE,
        )

    def version(self) -> str:
        """Version of the solver."""
        if self._solver == "highs":
            return _highs.version()
        number = self._factory().version()
        return ".".join(str(part) for part in number) if number else "unknown"

    def solve(self, problem: AssignmentProblem, request: Request, log: SearchLog) -> Termination:
        """Build the model and solve it in rounds."""
        if self._solver == "highs":
            _highs.check_options(request.options["native_options"])
        else:
            self._factory()
        offer_greedy_start(problem, log)
        try:
            with _hushed("pyomo.core"):  # it reports the way out of a rule as an error
                model = _Model(problem, log)
        except _OutOfTimeError:
            return Termination.TIME_LIMIT
        relaxation = (
            _HighsRelaxation(model, request)
            if self._solver == "highs"
            else _DrivenRelaxation(model, request, self._solver, self._factory)
        )
        return solve_in_rounds(relaxation, problem, request, log)

    def _factory(self) -> Any:
        with _hushed("pyomo"):  # an unknown solver is said below, in one line
            solver = pyo.SolverFactory(_PLUGINS.get(self._solver, self._solver))
            try:
                available = solver.available(exception_flag=False)
            except (AttributeError, RuntimeError, NotImplementedError):
                available = False
        if not available:
            known = _DRIVEN.get(self._solver)
            hint = (
                f"it needs {known.install}" if known else f"see Pyomo's documentation.{nearest(self._solver, _DRIVEN)}"
            )
            raise BackendUnavailableError(f"Pyomo finds no solver {self._solver!r}; {hint.rstrip('.')}.")
        return solver


class _OutOfTimeError(Exception):
    """The time limit ran out while the model was built."""


class _Model:
    """The Pyomo model and how to read and set its variables."""

    def __init__(self, problem: AssignmentProblem, log: SearchLog) -> None:
        self.problem = problem
        self._log = log
        features = problem.candidates
        values = problem.scale * problem.class_similarity
        allowed = np.zeros(values.shape, dtype=bool)
        allowed[:, features] = ~problem.forbidden_mask[:, features]
        triangle = problem.redundancy[features][:, features].tocoo()
        upper = triangle.row < triangle.col
        first, second = features[triangle.row[upper]].tolist(), features[triangle.col[upper]].tolist()
        penalties = dict(zip(zip(first, second, strict=True), triangle.data[upper].tolist(), strict=True))
        forced = set(problem.forced_features.tolist())
        required = {(int(c), int(f)) for c, f in problem.required_pairs}

        # Solvers have absolute tolerances: the largest coefficient of the objective becomes about a thousand. What is
        # locked does not count.
        largest = max(
            float(np.abs(values[allowed & ~problem.required_mask]).max(initial=0.0)),
            float(np.abs(problem.feature_bias[np.setdiff1d(features, problem.forced_features)]).max(initial=0.0)),
            max(penalties.values(), default=0.0),
        )
        self._unit = unit = 2.0 ** (math.floor(math.log2(largest)) - 10) if largest > 0.0 else 1.0
        self._slack = _BOUND_SLACK * largest

        model = self.model = pyo.ConcreteModel()
        model.keep = pyo.Var(
            features.tolist(), domain=pyo.Binary, bounds=lambda _, f: self._timed((1 if f in forced else 0, 1))
        )
        self.pairs = [(int(c), int(f)) for c, f in np.argwhere(allowed)]
        model.use = pyo.Var(
            self.pairs, domain=pyo.Binary, bounds=lambda _, c, f: self._timed((1 if (c, f) in required else 0, 1))
        )
        model.together = pyo.Var(list(penalties), bounds=(0, 1))
        model.size = pyo.Constraint(expr=pyo.quicksum(model.keep.values()) == problem.n_select)
        by_class: list[list[int]] = [[] for _ in range(problem.n_classes)]
        for c, f in self.pairs:
            by_class[c].append(f)
        model.budget = pyo.Constraint(
            range(problem.n_classes),
            rule=lambda m, c: pyo.quicksum(m.use[c, f] for f in by_class[c]) == int(problem.n_per_class[c]),
        )
        model.only_kept = pyo.Constraint(self.pairs, rule=lambda m, c, f: self._timed(m.use[c, f] <= m.keep[f]))
        model.both = pyo.Constraint(
            list(penalties), rule=lambda m, i, j: self._timed(m.together[i, j] >= m.keep[i] + m.keep[j] - 1)
        )
        # Features that two classes of a contrastive pair share; at most one of three has to be whole for that.
        shared = [
            (number, f)
            for number, (c, d, _) in enumerate(problem.contrastive_pairs.tolist())
            for f in np.flatnonzero(allowed[c] & allowed[d]).tolist()
        ]
        model.shared = pyo.Var(shared, bounds=(0, 1))
        for side in (0, 1):
            model.add_component(
                f"shared_by_{side}",
                pyo.Constraint(
                    shared,
                    rule=lambda m, number, f, side=side: (
                        m.shared[number, f] <= m.use[int(problem.contrastive_pairs[number, side]), f]
                    ),
                ),
            )
        model.contrast = pyo.ConstraintList()
        for number, (_, _, least) in enumerate(problem.contrastive_pairs.tolist()):
            terms = [model.shared[other, f] for other, f in shared if other == number]
            model.contrast.add(pyo.quicksum(terms) >= least if terms else pyo.Constraint.Infeasible)
        model.objective = pyo.Objective(
            expr=pyo.quicksum(values[c, f] / unit * model.use[c, f] for c, f in self.pairs)
            + pyo.quicksum(float(problem.feature_bias[f]) / unit * model.keep[f] for f in features.tolist())
            - pyo.quicksum(penalty / unit * model.together[pair] for pair, penalty in penalties.items()),
            sense=pyo.maximize,
        )
        model.owner = pyo.VarList(domain=pyo.NonNegativeReals)
        model.distinct = pyo.ConstraintList()

    def true_bound(self, bound: float) -> float:
        """A solver's bound in the units of the problem, rounded up by what its tolerances may hide."""
        bound *= self._unit
        return bound + self._slack + _BOUND_SLACK * abs(bound)

    def _timed(self, thing: Any) -> Any:
        if self._log.remaining() <= 0.0:
            raise _OutOfTimeError
        return thing

    def forbid_sharing(self, features: tuple[int, ...], classes: list[int]) -> None:
        """See `Relaxation`."""
        model = self.model
        owners = []
        for c in classes:
            if any((c, f) not in model.use for f in features):
                continue
            owner = model.owner.add()
            model.distinct.add(pyo.quicksum(model.use[c, f] for f in features) <= len(features) - 1 + owner)
            owners.append(owner)
        model.distinct.add(pyo.quicksum(owners) <= 1)

    def set_values(self, log: SearchLog) -> bool:
        """Give every variable its value in the incumbent; False where there is none."""
        if log.best is None:
            return False
        model = self.model
        selected, weights, _ = log.best
        kept = set(selected.tolist())
        used = {(int(c), int(selected[column])) for c, column in np.argwhere(weights)}
        for f, variable in model.keep.items():
            variable.set_value(int(f in kept))
        for pair, variable in model.use.items():
            variable.set_value(int(pair in used))
        for (i, j), variable in model.together.items():
            variable.set_value(int(i in kept and j in kept))
        for (number, f), variable in model.shared.items():
            variable.set_value(int(all((int(c), f) in used for c in self.problem.contrastive_pairs[number, :2])))
        for variable in model.owner.values():
            variable.set_value(0)
        for row in model.distinct.values():
            # An owner is one where its class has just the set in question: the least value that its row allows.
            excess = math.ceil(pyo.value(row.body) - pyo.value(row.upper) - 1e-6)
            owner = next((v for v in _variables(row) if v.parent_component() is model.owner), None)
            if excess > 0 and owner is not None:
                owner.set_value(1)
        return True

    def read(self, value_of: Any, termination: Termination, bound: float | None) -> RoundResult:
        """The solution that a function from variables to values describes."""
        selected = np.array([f for f, variable in self.model.keep.items() if value_of(variable) > 0.5], dtype=np.int64)
        weights = np.zeros(self.problem.class_similarity.shape, dtype=bool)
        for (c, f), variable in self.model.use.items():
            weights[c, f] = value_of(variable) > 0.5
        return RoundResult(termination, selected, weights, None if bound is None else self.true_bound(bound))


def _variables(row: Any) -> list[Any]:
    from pyomo.core.expr.visitor import identify_variables

    return list(identify_variables(row.body))


class _HighsRelaxation:
    """HiGHS in this process: callbacks, warm start and interruption."""

    def __init__(self, model: _Model, request: Request) -> None:
        self._model, self._request = model, request
        self.forbid_sharing = model.forbid_sharing

    def solve(self, log: SearchLog, mip_gap: float) -> RoundResult:
        """See `Relaxation`."""
        model, problem = self._model, self._model.problem
        has_start = model.set_values(log)
        if log.remaining() <= 0.0:
            return RoundResult(Termination.TIME_LIMIT)
        matrix = _highs.compile_model(model.model)
        if log.remaining() <= 0.0:
            return RoundResult(Termination.TIME_LIMIT)
        column = {id(variable): number for number, variable in enumerate(matrix.columns)}
        keep = np.array([column[id(variable)] for variable in model.model.keep.values()])
        features = np.array(list(model.model.keep.keys()), dtype=np.int64)

        def on_solution(values: Any) -> None:
            selected = features[values[keep] > 0.5]
            weights = best_weights(problem, selected)
            if weights is not None:
                log.offer(selected, weights, "HiGHS")

        outcome = _highs.solve(
            matrix,
            start=np.array([float(v.value or 0.0) for v in matrix.columns]) if has_start else None,
            time_limit=log.remaining(),
            mip_gap=mip_gap,
            threads=self._request.threads,
            seed=self._request.seed,
            native_options=self._request.options["native_options"],
            on_solution=on_solution,
            on_bound=lambda bound: log.tighten(model.true_bound(bound), "HiGHS"),
            on_wait=lambda: log.report_now_and_then("HiGHS is searching"),
        )
        if outcome.values is None:
            bound = None if outcome.bound is None else model.true_bound(outcome.bound)
            return RoundResult(outcome.termination, bound=bound)
        values = outcome.values
        return model.read(lambda variable: values[column[id(variable)]], outcome.termination, outcome.bound)


class _DrivenRelaxation:
    """A solver that Pyomo starts, as a program or through its own Python interface."""

    def __init__(self, model: _Model, request: Request, solver: str, factory: Any) -> None:
        self._model, self._request, self._solver, self._factory = model, request, solver, factory
        self.forbid_sharing = model.forbid_sharing

    def solve(self, log: SearchLog, mip_gap: float) -> RoundResult:
        """See `Relaxation`."""
        names = _DRIVEN.get(self._solver, _Driven(None))
        solver = self._factory()
        settings = {
            # Some solvers take the gap relative to the bound, others relative to the objective: this much is safe.
            names.gap: mip_gap / (1.0 + mip_gap),
            names.threads: self._request.threads,
            names.seed: self._request.seed if names.seed else None,
            names.time_limit: log.remaining() if math.isfinite(log.remaining()) else None,
        }
        if names.time_limit is None and math.isfinite(log.remaining()):
            raise InvalidInputError(
                f"How to give {self._solver!r} a time limit is not known. Pass time_limit=None and its own setting "
                "through native_options."
            )
        if self._solver == "glpk" and settings["tmlim"] is not None:
            settings["tmlim"] = min(max(1, math.ceil(settings["tmlim"])), 10**6)  # whole seconds, few enough for it
        for name, value in {**names.always, **settings, **(self._request.options["native_options"] or {})}.items():
            if name is not None and value is not None:
                solver.options[name] = value
        warm = {"warmstart": True} if self._solver == "gurobi" and self._model.set_values(log) else {}
        try:
            with TempfileManager.new_context():  # removes the files of a solve that Ctrl-C ends
                results = solver.solve(self._model.model, load_solutions=False, **warm)
        except (ValueError, RuntimeError, OSError, ApplicationError) as error:
            raise SolverError(f"{self._solver} failed: {error}") from error
        # GLPK says the same of a search that ended at the gap as of one that ran out of time.
        at_gap = log.remaining() > 0.0 and names.gap is not None and not self._request.options["native_options"]
        return self._read(results, mip_gap if names.gap else 0.0, at_gap=at_gap)

    def _read(self, results: Any, mip_gap: float, *, at_gap: bool) -> RoundResult:
        """What became of a solve.

        A bound is taken from a finished one alone: the figure that Pyomo passes on from an unfinished one has the wrong
        sign with some solvers.
        """
        condition = results.solver.termination_condition
        conditions = pyo.TerminationCondition
        if condition in (conditions.infeasible, conditions.infeasibleOrUnbounded):
            return RoundResult(Termination.INFEASIBLE)
        proven = condition == conditions.optimal or (at_gap and condition == conditions.feasible)
        if not proven and condition not in (
            conditions.maxTimeLimit,
            conditions.feasible,
            conditions.intermediateNonInteger,
            conditions.other,
            conditions.unknown,
        ):
            raise SolverError(f"{self._solver} stopped with the condition '{condition}': {results.solver.message}.")
        termination = Termination.OPTIMAL if proven else Termination.TIME_LIMIT
        if len(results.solution) == 0:
            return RoundResult(termination)
        with _hushed("pyomo.core"):  # it warns of every solution that is not proven optimal
            self._model.model.solutions.load_from(results)
        bound = None
        if proven:
            value = float(pyo.value(self._model.model.objective))
            bound = value + mip_gap * abs(value)
        return self._model.read(lambda variable: variable.value or 0.0, termination, bound)
