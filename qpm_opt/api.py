"""One function that solves: it picks a back end, checks what is asked of it, and verifies what comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qpm_opt._validation import (
    Default,
    IntArray,
    feature_positions,
    finite_number,
    nearest,
    positive_number,
    whole_number,
)
from qpm_opt.backends import BACKENDS, backend_names, load_backend
from qpm_opt.backends._blas_threads import blas_threads
from qpm_opt.backends.base import Backend, Request
from qpm_opt.backends.search_log import Progress, SearchLog
from qpm_opt.conditioning import conditioned
from qpm_opt.errors import InvalidInputError, SolverError, UnsupportedError
from qpm_opt.problem import AssignmentProblem, Terms
from qpm_opt.search_space import SearchSpace
from qpm_opt.selection import best_weights, is_valid_selection
from qpm_opt.solution import Assignment, SolutionStatus, Termination
from qpm_opt.swap_search import greedy_set
from qpm_opt.verify import verify

__all__ = ["pick_solver", "solve_assignment"]

logger = logging.getLogger(__name__)

_MOST_THREADS = 1_024

_N_SELECT, _N_PER_CLASS = Default(50), Default(5)

_PARTS = (
    "required_features",
    "excluded_features",
    "required_pairs",
    "forbidden_pairs",
    "contrastive_pairs",
    "class_labels",
    "feature_labels",
)
"""Arguments of `AssignmentProblem` that `solve_assignment` passes on."""

_ROUNDING = 1e-8
"""Relative difference of objectives that counts as none: CP-SAT's integers and the tolerances of solvers leave it."""

_WRONG = 1e-6
"""Relative difference from which `verify` says that a bound lies below an objective."""

_EXACT_PAIRS = 100
"""Up to this many (class, feature) pairs the plain model is proven optimal as fast as anything."""


def pick_solver(problem: AssignmentProblem) -> str:
    """The back end that `solver="auto"` stands for: the plain model for toys, the decomposition for everything else."""
    return "pyomo" if problem.class_similarity.size <= _EXACT_PAIRS else "decomposition"


def solve_assignment(
    class_similarity: Any,
    redundancy: Any = None,
    feature_bias: Any = None,
    *,
    n_select: int = _N_SELECT,
    n_per_class: Any = _N_PER_CLASS,
    solver: str = "auto",
    time_limit: float | None = 300.0,
    mip_gap: float = 1e-4,
    seed: int = 0,
    threads: int | None = None,
    start: Assignment | Iterable[Any] | None = None,
    upper_bound: float | None = None,
    progress: Callable[[Progress], Any] | None = None,
    **options: Any,
) -> Assignment:
    """Choose the features to keep and those that describe each class (the binary quadratic program of QPM).

    Args:
        class_similarity: A, (n_classes, n_features); or an `AssignmentProblem`, which then says everything about the
            problem itself.
        redundancy: r, symmetric (n_features, n_features) pair penalties, see `penalties_from_similarity`.
        feature_bias: b, (n_features,).
        n_select: Features to keep.
        n_per_class: Features of a class, one number or one for each class.
        solver: "auto", or a name that `qpm-opt backends` lists.
        time_limit: Seconds, model building included. None: no limit.
        mip_gap: Stop at (bound − objective)/|objective| ≤ mip_gap. Problems of up to 2,000 (class, feature) pairs are
            solved to the end by the exact back ends.
        seed: Seed of everything random.
        threads: Threads. None: what the back end likes; the decomposition branches on the processors there are, four at
            most, and leaves linear algebra to one thread, which other processes can hold up least.
        start: A former result, or features (positions or labels), to start from. Features that may not be kept any
            more are replaced, so the result of a similar problem will do.
        upper_bound: A bound that is known to hold for the objective of every assignment, such as the one proven for the
            same problem with fewer locks. The search ends where it meets it.
        progress: Called with a `Progress` at every improvement; a KeyboardInterrupt raised in it stops the search.
        **options: Locks and labels of `AssignmentProblem` where arrays are given, and settings of the back end.

    Returns:
        The best assignment found, verified. Ctrl-C and the time limit end the search, not the result: look at
        `termination` and `status`.

    Raises:
        InvalidInputError: An argument is wrong.
        InfeasibleProblemError: The constraints contradict each other, seen before solving.
        UnsupportedError: The back end does not honour an argument.
        BackendUnavailableError: The back end is not installed.
        SolverError: The back end failed.

    Example:
        >>> result = solve_assignment([[0.9, 0.1, 0.4], [0.2, 0.8, 0.5]], n_select=2, n_per_class=1)
        >>> result.selected.tolist(), result.weights.tolist(), result.status.value
        ([0, 1], [[1, 0], [0, 1]], 'optimal')
    """
    problem, settings = _problem(
        class_similarity, redundancy, feature_bias, n_select=n_select, n_per_class=n_per_class, options=options
    )
    limit = None if time_limit is None else positive_number("time_limit", time_limit)
    if progress is not None and not callable(progress):
        raise InvalidInputError(f"The 'progress' parameter must be a function of a Progress. Got {progress!r}.")
    name = pick_solver(problem) if solver == "auto" else solver
    if solver == "auto":
        logger.info("solver='auto' picked %r for %d × %d", name, problem.n_classes, problem.n_features)
    backend = load_backend(name)
    log = SearchLog(problem, limit, progress)
    known = None if upper_bound is None else finite_number("upper_bound", upper_bound)
    first = None if start is None else _repaired_start(problem, start)
    request = Request(
        mip_gap=positive_number("mip_gap", mip_gap, zero_allowed=True),
        seed=whole_number("seed", seed, least=0),
        threads=None if threads is None else _checked_threads(threads),
        start=first,
        options=_checked_options(name, backend, settings),
    )
    _refuse_unsupported(name, backend, request, asks_for_start=start is not None)
    version = backend.version()
    try:
        with blas_threads(request.threads):
            if known is not None:
                log.tighten(known, "given bound")
            if first is not None:
                weights = best_weights(problem, first)
                if weights is not None:
                    log.offer(first, weights, "start")
            easier = conditioned(problem, lambda: log.remaining() > 0.0)
            if easier.known is not None:
                log.offer(*easier.known, "first assignment")
                if request.start is None and backend.CAPABILITIES.warm_start:
                    request = replace(request, start=easier.known[0])
            log.unit = easier.unit
            log.report(f"{name} {version}: searching")
            termination = backend.solve(easier.problem, request, log)
    except KeyboardInterrupt:
        termination = Termination.INTERRUPTED
    if known is not None and log.best is not None and known < log.best[2].total - _WRONG * _size(log.best[2]):
        raise InvalidInputError(
            f"The 'upper_bound' parameter must be no less than the objective of any assignment. Got {known:.9g}, but "
            f"there is one of {log.best[2].total:.9g}; leave it out."
        )
    return _result(problem, log, termination, request, name, version)


def _problem(
    class_similarity: Any,
    redundancy: Any,
    feature_bias: Any,
    *,
    n_select: int,
    n_per_class: Any,
    options: Mapping[str, Any],
) -> tuple[AssignmentProblem, dict[str, Any]]:
    """The problem, and the options that are not about it."""
    own = {name: value for name, value in options.items() if name in _PARTS}
    rest = {name: value for name, value in options.items() if name not in _PARTS}
    if not isinstance(class_similarity, AssignmentProblem):
        return (
            AssignmentProblem(
                class_similarity, redundancy, feature_bias, n_select=n_select, n_per_class=n_per_class, **own
            ),
            rest,
        )
    twice = [name for name, value in (("redundancy", redundancy), ("feature_bias", feature_bias)) if value is not None]
    twice += list(own)
    twice += [] if n_select is _N_SELECT else ["n_select"]
    twice += [] if n_per_class is _N_PER_CLASS else ["n_per_class"]
    if twice:
        raise InvalidInputError(
            f"The '{twice[0]}' parameter must not be given beside an AssignmentProblem, which holds it already. "
            f"Leave it out, or pass problem.replaced({twice[0]}=…)."
        )
    return class_similarity, rest


def _checked_options(name: str, backend: Backend, given: Mapping[str, Any]) -> dict[str, Any]:
    known = backend.CAPABILITIES.options
    settings = {option: known[option].default for option in known}
    for option, value in given.items():
        if option not in known:
            every = [*known, "time_limit", "mip_gap", "seed", "threads", "start", "upper_bound", "progress", *_PARTS]
            raise InvalidInputError(f"The back end {name!r} has no option {option!r}.{nearest(option, every)}")
        default = known[option].default
        if isinstance(default, int):
            value = whole_number(option, value, least=1)
        elif default is None and value is not None and not _is_mapping_of_names(value):
            raise InvalidInputError(f"The '{option}' parameter must be a mapping of names to values. Got {value!r}.")
        settings[option] = value
    return settings


def _is_mapping_of_names(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _checked_threads(threads: Any) -> int:
    number = whole_number("threads", threads, least=1)
    if number > _MOST_THREADS:
        raise InvalidInputError(f"The 'threads' parameter must be at most {_MOST_THREADS}. Got {number}.")
    return number


def _refuse_unsupported(name: str, backend: Backend, request: Request, *, asks_for_start: bool) -> None:
    can = backend.CAPABILITIES
    asked = {
        "start": (asks_for_start, can.warm_start),
        "threads": (request.threads is not None and request.threads > 1, can.threads),
    }
    for argument, (wanted, supported) in asked.items():
        if wanted and not supported:
            capability = {"start": "warm_start", "threads": "threads"}[argument]
            able = [other for other in BACKENDS if _supports(other, capability)]
            raise UnsupportedError(
                f"The back end {name!r} does not support the '{argument}' parameter. Leave it out, or use one of "
                f"{', '.join(able) or ', '.join(backend_names())}."
            )


def _supports(name: str, capability: str) -> bool:
    try:
        return bool(getattr(load_backend(name).CAPABILITIES, capability))
    except ImportError:
        return False


def _repaired_start(problem: AssignmentProblem, start: Assignment | Iterable[Any]) -> IntArray | None:
    """Features to start from: those given that may be kept, filled up greedily; None where they admit no assignment."""
    if isinstance(start, Assignment):
        if start.n_features != problem.n_features:
            raise InvalidInputError(
                f"The 'start' parameter must come from a problem of the same {problem.n_features} features. "
                f"Got one of {start.n_features}."
            )
        if start.solution is None:
            return None
        given = start.selected.tolist()
    else:
        given = feature_positions("start", start, problem.n_features, problem.feature_labels)
    selected = np.unique(np.array(given, dtype=np.int64))
    if not is_valid_selection(problem, selected):
        space = SearchSpace.of(problem)
        selected = space.features[greedy_set(space, space.to_local(selected))]
        logger.info("start: %d of its features kept, the rest filled up", len(np.intersect1d(selected, given)))
    return selected


def _is_proven(log: SearchLog, mip_gap: float) -> bool:
    """Whether the gap is small enough, up to rounding relative to the terms that make up the objective."""
    if log.best is None or log.bound is None:
        return False
    terms = log.best[2]
    allowed = max(mip_gap * (1.0 + _ROUNDING) * abs(terms.total), _ROUNDING * _size(terms))
    return log.bound - terms.total <= allowed


def _size(terms: Terms) -> float:
    """What rounding is relative to."""
    return abs(terms.similarity) + abs(terms.redundancy) + abs(terms.bias)


def _result(
    problem: AssignmentProblem, log: SearchLog, termination: Termination, request: Request, name: str, version: str
) -> Assignment:
    if log.best is None:
        status = SolutionStatus.NONE
    elif _is_proven(log, request.mip_gap):
        status, termination = SolutionStatus.OPTIMAL, Termination.OPTIMAL
    else:
        status = SolutionStatus.FEASIBLE
        if termination is Termination.OPTIMAL:  # the solver's own rounding left more than that
            termination = Termination.SEARCH_FINISHED
    result = Assignment(
        termination=termination,
        status=status,
        solution=log.best,
        bound=log.bound,
        runtime=log.elapsed(),
        solver=name,
        solver_version=version,
        seed=request.seed,
        trace=tuple(log.trace),
        n_features=problem.n_features,
        class_labels=problem.class_labels,
        feature_labels=problem.feature_labels,
    )
    if log.best is not None:
        checked = verify(problem, result)
        if not checked.ok or termination is Termination.INFEASIBLE:
            raise SolverError(
                f"The back end {name!r} returned an invalid result; please report this.\n{checked}\n{result!r}"
            )
    return result
