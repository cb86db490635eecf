"""A grid over the sizes of the problem, to choose n_select and n_per_class by.

Every point of the grid is solved in a process of its own, starting from the nearest point that is finished, and stored
at once, so a sweep that is stopped goes on where it was. With a Dask scheduler the processes are those of its cluster.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qpm_opt._sweep_folder import FORMAT, INFEASIBLE, SweepPoint, file_of, fingerprint, open_folder, write_points
from qpm_opt._validation import FloatArray, items, labels_of, positive_number, require_same_labels, whole_number
from qpm_opt._worker_pool import end_preparation, worker_pool
from qpm_opt.api import solve_assignment
from qpm_opt.backends import backend_version
from qpm_opt.errors import BackendUnavailableError, InfeasibleProblemError, InvalidInputError, QPMError
from qpm_opt.problem import AssignmentProblem
from qpm_opt.processors import available_processors
from qpm_opt.redundancy import checked_similarity, penalties_from_similarity, share_threshold
from qpm_opt.search_space import SearchSpace
from qpm_opt.solution import Assignment
from qpm_opt.swap_search import climb

__all__ = ["SweepPoint", "sweep"]

logger = logging.getLogger(__name__)

_AS_GIVEN = "given"
_CONNECT_SECONDS = 10.0
_MOST_POINTS = 10_000


def sweep(
    problem: AssignmentProblem,
    folder: str | os.PathLike[str],
    *,
    n_select: Sequence[int],
    n_per_class: Sequence[int],
    penalised: Sequence[str] = (_AS_GIVEN,),
    similarity: Any = None,
    solver: str = "auto",
    time_limit: float = 60.0,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[int, int, SweepPoint], Any] | None = None,
) -> pd.DataFrame:
    """Solve a problem for every combination of sizes.

    Args:
        problem: The problem, whose own sizes do not matter.
        folder: Where points are stored: `points/*.npz` (assignments), `sweep.csv` (the table) and `sweep.json`. Points
            that it holds already are not solved again, unless they failed.
        n_select: Numbers of kept features.
        n_per_class: Numbers of features of a class.
        penalised: Which pairs are penalised: "given" as in `problem`, and, with `similarity`, "threshold", "turan", or
            shares such as "5%".
        similarity: R, (n_features, n_features), from which penalties are made.
        solver: See `solve_assignment`.
        time_limit: Seconds for each point.
        seed: Seed of each point.
        workers: Points solved at a time on this machine; by default one for every two processors.
        scheduler: Address of a Dask scheduler, whose cluster is used instead of this machine.
        progress: Called with the number of finished points, of all points, and the point just finished.

    Returns:
        One row for each point with the fields of `SweepPoint`, in the order of the grid.

    Raises:
        InvalidInputError: An argument is wrong, the folder holds the sweep of another problem, another sweep is at
            work in it, or this process may not start others.
        BackendUnavailableError: The solver is not installed, or a scheduler is given, but Dask is not installed or not
            reached.
        SolverError: A process was killed; points that are finished are stored.
    """
    grid = _grid(n_select, n_per_class, penalised, has_similarity=similarity is not None)
    if not isinstance(problem, AssignmentProblem):
        raise InvalidInputError(
            f"The 'problem' parameter must be an AssignmentProblem. Got a {type(problem).__name__}."
        )
    if progress is not None and not callable(progress):
        raise InvalidInputError(f"The 'progress' parameter must be a function. Got {progress!r}.")
    _refuse_unknown_solver(solver, scheduler)
    values = _similarity(similarity, problem)
    width = _width(workers)
    settings = {
        "solver": solver,
        "time_limit": positive_number("time_limit", time_limit),
        "seed": whole_number("seed", seed, least=0),
    }
    out = _folder(folder)
    mark = {"format": FORMAT, "problem": fingerprint(problem, values), **settings}
    end_preparation()
    with open_folder(out, mark) as finished:
        waiting = [point for point in grid if point.name not in finished]
        if not waiting:
            return write_points(out, mark, grid, finished)
        with _executor(min(width, len(waiting)), scheduler) as executor:
            running: dict[Future[tuple[SweepPoint, Assignment | None]], SweepPoint] = {}
            at_once = width if scheduler is None else len(waiting)
            try:
                while waiting or running:
                    while waiting and len(running) < at_once:
                        point = waiting.pop(0)
                        start = _nearest_start(out, finished, point)
                        task = executor.submit(_solve_point, problem, values, point, settings, start)
                        running[task] = point
                    for task in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[task]
                        point, assignment = task.result()
                        if assignment is not None:
                            assignment.save(file_of(out, point))
                        finished[point.name] = point
                        table = write_points(out, mark, grid, finished)
                        if progress is not None:
                            progress(len(table), len(grid), point)
            except BaseException:
                for task in running:
                    task.cancel()
                raise
        return write_points(out, mark, grid, finished)


def _folder(folder: str | os.PathLike[str]) -> Path:
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise InvalidInputError(f"The 'folder' parameter must be the path of a folder. Got {folder!r}.")
    return Path(folder)


def _refuse_unknown_solver(solver: str, scheduler: str | None) -> None:
    if scheduler is not None and not isinstance(scheduler, str):
        raise InvalidInputError(f"The 'scheduler' parameter must be an address. Got {scheduler!r}.")
    if solver == "auto":
        return
    try:
        backend_version(solver)
    except BackendUnavailableError:
        if scheduler is None:  # the cluster may have what this machine lacks
            raise


def _similarity(similarity: Any, problem: AssignmentProblem) -> FloatArray | None:
    """The similarity as numbers, of the features of the problem."""
    if similarity is None:
        return None
    values = checked_similarity(similarity)
    if len(values) != problem.n_features:
        raise InvalidInputError(
            f"The 'similarity' parameter must have a row for each of the {problem.n_features} features of 'problem'. "
            f"Got {len(values)}."
        )
    require_same_labels("similarity", labels_of(similarity, "index"), problem.feature_labels, "'problem'")
    return values


def _grid(
    n_select: Sequence[int], n_per_class: Sequence[int], penalised: Sequence[str], *, has_similarity: bool
) -> list[SweepPoint]:
    sizes = [
        [whole_number(name, value, least=1) for value in items(name, values, "whole numbers")]
        for name, values in (("n_select", n_select), ("n_per_class", n_per_class))
    ]
    kinds = [str(kind) for kind in items("penalised", penalised, "'given', 'threshold', 'turan' or shares like '5%'")]
    for name, values in (("n_select", sizes[0]), ("n_per_class", sizes[1]), ("penalised", kinds)):
        if not values or len(set(values)) < len(values):
            raise InvalidInputError(f"The '{name}' parameter must hold different values, at least one. Got {values}.")
    for kind in kinds:
        if kind not in (_AS_GIVEN, "threshold", "turan"):
            _share(kind)
        if kind != _AS_GIVEN and not has_similarity:
            raise InvalidInputError(
                f"The 'penalised' value {kind!r} needs the 'similarity' parameter, from which penalties are made."
            )
    if has_similarity and kinds == [_AS_GIVEN]:
        raise InvalidInputError(
            "The 'similarity' parameter makes penalties where 'penalised' asks for them: 'threshold', 'turan' or "
            "shares like '5%'. Got 'given' alone; add one of these, or leave the similarity out."
        )
    count = len(sizes[0]) * len(sizes[1]) * len(kinds)
    if count > _MOST_POINTS:
        raise InvalidInputError(f"A sweep must have at most {_MOST_POINTS} points. Got {count}; take wider steps.")
    return [SweepPoint(select, own, kind) for kind in kinds for select, own in product(*sizes)]


def _share(kind: str) -> float:
    try:
        share = float(kind.removesuffix("%")) / 100.0
    except ValueError:
        share = -1.0
    if not kind.endswith("%") or not 0.0 < share < 1.0:
        raise InvalidInputError(
            f"The 'penalised' parameter must hold 'given', 'threshold', 'turan' or shares like '5%'. Got {kind!r}."
        )
    return share


def _width(workers: int | None) -> int:
    if workers is None:
        return max(1, available_processors() // 2)
    return whole_number("workers", workers, least=1)


@contextmanager
def _executor(width: int, scheduler: str | None) -> Iterator[Executor]:
    if scheduler is None:
        with worker_pool("A sweep", width) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise BackendUnavailableError('A Dask scheduler needs distributed: pip install "qpm[dask]".') from error
    try:
        client = Client(scheduler, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise BackendUnavailableError(f"There is no Dask scheduler at {scheduler!r}: {error}.") from error
    with client:
        yield client.get_executor(pure=False)  # type: ignore[no-untyped-call]


def _nearest_start(out: Path, finished: dict[str, SweepPoint], point: SweepPoint) -> Assignment | None:
    """The result of the solved point that differs least, kept features first."""
    solved = [other for other in finished.values() if other.objective is not None]
    if not solved:
        return None
    nearest = min(
        solved,
        key=lambda other: (
            abs(np.log(other.n_select / point.n_select)),
            other.penalised != point.penalised,
            abs(other.n_per_class - point.n_per_class),
        ),
    )
    try:
        return Assignment.load(file_of(out, nearest))
    except QPMError:  # a start is a help, not a need
        return None


def _solve_point(
    base: AssignmentProblem,
    similarity: FloatArray | None,
    point: SweepPoint,
    settings: dict[str, Any],
    start: Assignment | None,
) -> tuple[SweepPoint, Assignment | None]:
    """Solve one point; runs in another process."""
    try:
        problem = _problem_at(base, similarity, point)
        result = solve_assignment(problem, start=start, **settings)
    except InfeasibleProblemError as error:
        return replace(point, status=f"{INFEASIBLE}: {error}"), None
    except QPMError as error:
        return replace(point, status=f"failed: {error}"), None
    share = problem.penalised_share
    if result.solution is None:
        return replace(point, penalised_share=share, seconds=result.runtime, status=result.termination.value), None
    space = SearchSpace.of(problem)
    chosen = space.to_local(result.selected)
    own = space.relaxed_value(chosen) - space.set_value(chosen)
    # What could be had if redundancy cost nothing: the same search without penalties, from here.
    careless = replace(space, penalties=np.zeros_like(space.penalties), bias=np.zeros_like(space.bias))
    most = careless.relaxed_value(climb(careless, chosen, lambda: True))
    terms = result.terms
    return (
        replace(
            point,
            penalised_share=share,
            objective=result.objective,
            bound=result.bound,
            gap=result.gap,
            similarity=terms.similarity,
            lost_to_redundancy=most - own,
            lost_to_uniqueness=own - terms.similarity,
            redundancy=terms.redundancy,
            bias=terms.bias,
            seconds=result.runtime,
            status=result.status.value,
        ),
        result,
    )


def _problem_at(base: AssignmentProblem, similarity: FloatArray | None, point: SweepPoint) -> AssignmentProblem:
    if point.penalised == _AS_GIVEN or similarity is None:
        return base.replaced(n_select=point.n_select, n_per_class=point.n_per_class)
    threshold: Any = {"threshold": None, "turan": "turan"}.get(point.penalised)
    if point.penalised not in ("threshold", "turan"):
        threshold = share_threshold(similarity, _share(point.penalised))
    penalties = penalties_from_similarity(similarity, n_select=point.n_select, threshold=threshold)
    return base.replaced(redundancy=penalties, n_select=point.n_select, n_per_class=point.n_per_class)
