"""A run that goes on from another one with other features: its assignment is solved again, then it is fine-tuned.

The new run folder shares the dense model and the statistics of its parent as files, so that it stands by itself, and
says in `steering.json` where it comes from, what was asked for and what that changed.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qpm_opt import InvalidInputError, Progress, Termination
from qpm_vision._data_identity import data_identity
from qpm_vision._preflight import refuse_changed_data
from qpm_vision._progress import Reporter, SilentReporter
from qpm_vision._torch_state import plain_torch
from qpm_vision._work import read_assignment, read_problem, read_statistics
from qpm_vision.config import RunConfig
from qpm_vision.data import ImageData, load_data
from qpm_vision.feature_names import NAMES, all_names
from qpm_vision.pipeline import run
from qpm_vision.run_folder import STEERING, RunFolder, RunFolderError
from qpm_vision.steering import Steered, Steering, solve_steered

__all__ = ["SOLVE_SECONDS", "propose_steering", "steer_run", "told_origin"]

SOLVE_SECONDS = 20.0
"""Time limit of the solver where none is given."""

FORMAT = 1
"""Version of the layout of `steering.json`."""

_SHARED = ("dense.safetensors", "statistics.npz", "threshold.json", "data.json", "skipped.csv")
"""What a steered run takes over from its parent as it is."""

_IDENTIFYING = ("dense.safetensors", "problem.npz", "assignment.npz")
"""The files by whose content a parent is known again."""

_INHERITED = ("dense", "statistics")
"""The stages that a steered run has from its parent."""


@plain_torch()
def propose_steering(
    run: RunFolder | str | os.PathLike[str],
    steering: Steering,
    *,
    time_limit: float | None = SOLVE_SECONDS,
    reporter: Reporter | None = None,
    progress: Callable[[Progress], Any] | None = None,
) -> Steered:
    """Solve the problem of a run again as a steering wants it, without writing anything.

    Args:
        run: A run whose features are chosen.
        steering: What is to change.
        time_limit: Seconds for the solver; None: no limit.
        reporter: Told about progress; nobody by default.
        progress: Called with a `qpm_opt.Progress`, beside the reporter; a KeyboardInterrupt raised in it ends the
            search, and the best assignment so far is returned.

    Returns:
        The new assignment, and what is different about it.

    Raises:
        InvalidInputError: The steering does not fit the run.
        InfeasibleProblemError: No assignment can satisfy it.
        RunFolderError: The run has no features yet, or its files are damaged.
    """
    folder = RunFolder.open(run)
    folder.require("assignment", "has no features to steer")
    report = SilentReporter() if reporter is None else reporter

    def tell(state: Progress) -> None:
        if time_limit is not None:
            report.advance("solving", min(int(state.time), int(time_limit)), int(time_limit))
        if progress is not None:
            progress(state)

    statistics = read_statistics(folder)
    return solve_steered(
        read_problem(folder),
        read_assignment(folder),
        steering,
        edge=statistics["edge"],
        offset=statistics.get("offset"),
        names=all_names(folder),
        time_limit=time_limit,
        seed=RunConfig.of(folder).seed,
        progress=tell,
    )


@plain_torch()
def steer_run(
    run_folder: RunFolder | str | os.PathLike[str],
    steering: Steering,
    out: str | os.PathLike[str],
    *,
    time_limit: float | None = SOLVE_SECONDS,
    device: str | None = None,
    data: ImageData | None = None,
    reporter: Reporter | None = None,
    on_proposal: Callable[[Steered], Any] | None = None,
) -> RunFolder:
    """Solve the problem of a run again as a steering wants it, and fine-tune its dense model with the new features.

    Called again with the same arguments, it goes on where it was stopped; the first run may be gone by then.

    Args:
        run_folder: A run whose features are chosen.
        steering: What is to change.
        out: A new or empty folder, or one in which the same was begun.
        time_limit: Seconds for the solver; None: no limit.
        device: Where to compute; by default where the run is configured to.
        data: The images; by default those of the run.
        reporter: Told about progress; nobody by default.
        on_proposal: Called with the new assignment and the difference, before anything is written.

    Returns:
        The new run folder.

    Raises:
        InvalidInputError: The steering does not fit the run or asks for nothing, or the folder holds another steering.
        InfeasibleProblemError: No assignment can satisfy it.
        RunFolderError: A folder is none, in use, or damaged.
        QPMError: Anything else that goes wrong on the way; what is finished stays finished.
    """
    if not steering:
        raise InvalidInputError("The 'steering' parameter must ask for a change. Got none; ban or require a feature.")
    parent = run_folder if isinstance(run_folder, RunFolder) else RunFolder(run_folder)
    place = RunFolder(out)
    report = SilentReporter() if reporter is None else reporter
    place.refuse_foreign_content()
    if place.is_steered and "assignment" in place.stages():
        _refuse_other_steering(place, parent, steering)
    else:
        RunFolder.open(parent.path)
        _refuse_used(place, parent)
        config = RunConfig.of(parent)
        data = load_data(config.data, **config.division) if data is None else data
        refuse_changed_data(parent, config.data, data_identity(data))
        with report:
            steered = propose_steering(parent, steering, time_limit=time_limit, reporter=report)
        if steered.assignment.termination is Termination.INTERRUPTED:
            raise KeyboardInterrupt
        if on_proposal is not None:
            on_proposal(steered)
        # What chose the features of this run: not the solver of its parent, which may not start from an assignment.
        _begin(place, parent, dataclasses.replace(config, solver="auto", solve_seconds=time_limit), steered)
    config = RunConfig.of(place)
    if device is not None:
        config = dataclasses.replace(config, device=device)
    return run(config, place.path, data=data, reporter=reporter)


def _refuse_used(place: RunFolder, parent: RunFolder) -> None:
    """Raise where the new folder holds a run that is no unfinished beginning of this one."""
    same = place.path.exists() and place.path.samefile(parent.path)
    if same or (place.is_begun and not place.is_steered):
        raise RunFolderError(
            f"The folder {str(place.path)!r} holds {'the run that is steered' if same else 'another run'}. Choose a "
            "new or empty folder for the steered run."
        )


def told_origin(folder: RunFolder) -> str | None:
    """Which run a run comes from, what was asked for and what that cost, as a line; None where it was not steered.

    Raises:
        RunFolderError: What is said about it is damaged.
    """
    if not folder.is_steered:
        return None
    known = folder.read_json(STEERING)
    try:
        asked = Steering.from_dict(known["steering"]).to_yaml().strip()
        return (
            f"{Path(known['parent']['path']).name}; {'; '.join(asked.splitlines())}; price {known['diff']['price']:.3f}"
        )
    except (KeyError, TypeError, ValueError, InvalidInputError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: RunFolder, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"The file {str(folder.path / STEERING)!r} is damaged ({error}). Steer again into a new folder."
    )


def _refuse_other_steering(place: RunFolder, parent: RunFolder, steering: Steering) -> None:
    """Raise where a steered run was begun from another run or with another steering."""
    known = place.read_json(STEERING)
    try:
        origin, former = known["parent"], Steering.from_dict(known["steering"])
        same = origin["path"] == _absolute(parent)
        digests = {name: origin[name] for name in _IDENTIFYING}
    except (KeyError, TypeError, InvalidInputError) as error:
        raise _damaged(place, error) from error
    if parent.has_run:
        same = all(parent.digest(name) == digest for name, digest in digests.items())
    problem = read_problem(place)
    labels = tuple(map(str, problem.class_labels or range(problem.n_classes)))
    if not same:
        difference = f"from another run, {origin['path']!r} as it was then"
    elif steering.resolved(problem.n_features, labels, all_names(place)) != former:
        difference = f"with another steering, {former.to_dict()}"
    else:
        return
    raise InvalidInputError(
        f"The steered run in {str(place.path)!r} was begun {difference}. Use a new folder, or the same again to "
        "continue it."
    )


def _begin(place: RunFolder, parent: RunFolder, config: RunConfig, steered: Steered) -> None:
    """Write everything up to the assignment. What is stopped in between is written again, as no stage is noted yet."""
    origin = {"path": _absolute(parent), **{name: parent.digest(name) for name in _IDENTIFYING}}
    if not place.has_run:
        RunFolder.create(place.path, config.to_dict())
    with place.lock():
        place.write_config(config.to_dict())
        place.write_json(STEERING, {"format": FORMAT, "parent": origin, **steered.to_dict()})
        for name in (*_SHARED, NAMES):
            if name != NAMES or (parent.path / name).exists():
                _share(parent.path / name, place, name)
        steered.problem.save(place.path / "problem.npz")
        steered.assignment.save(place.path / "assignment.npz")
        place.write_history("dense", [row for row in parent.history() if row.pop("stage", None) == "dense"])
        records = parent.stages()
        for stage in _INHERITED:
            place.mark_finished(stage, records[stage].seconds)
        place.mark_finished("assignment", steered.assignment.runtime)


def _share(source: Path, place: RunFolder, name: str) -> None:
    """Give a file a second name, or copy it where the file system cannot; files of runs are replaced, never changed."""
    (place.path / name).unlink(missing_ok=True)
    try:
        (place.path / name).hardlink_to(source)
    except OSError:
        place.write_path(name, partial(shutil.copyfile, source))


def _absolute(folder: RunFolder) -> str:
    return str(folder.path.resolve())
