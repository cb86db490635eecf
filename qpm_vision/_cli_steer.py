"""What `qpm-vision steer` does: the options as a steering, what it changes, and the run that comes of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from qpm_opt import InvalidInputError
from qpm_vision._progress import make_reporter
from qpm_vision.evaluation import read_metrics, score_table
from qpm_vision.feature_names import all_names
from qpm_vision.run_folder import RunFolder
from qpm_vision.steered_run import SOLVE_SECONDS, propose_steering, steer_run
from qpm_vision.steering import Steered, Steering

__all__ = ["steer"]


def steer(arguments: argparse.Namespace) -> None:
    """Do it.

    Raises:
        InvalidInputError: An option is malformed, or the steering does not fit the run.
        QPMError: See `steer_run`.
    """
    steering = _steering(arguments)
    limit = SOLVE_SECONDS if arguments.solve_seconds is None else arguments.solve_seconds
    if arguments.dry_run:
        if not steering:
            raise InvalidInputError("The options must ask for a change. Got none; give --ban, --require or another.")
        with make_reporter() as report:
            steered = propose_steering(arguments.run, steering, time_limit=limit, reporter=report)
        _show(arguments.run, steered)
        return
    if arguments.out is None:
        raise InvalidInputError("The argument NEWRUN must name a folder for the steered run. Give one, or --dry-run.")
    folder = steer_run(
        arguments.run,
        steering,
        arguments.out,
        time_limit=limit,
        device=arguments.device,
        reporter=make_reporter(),
        on_proposal=lambda steered: _show(arguments.run, steered),
    )
    _show_scores(RunFolder(arguments.run), folder)


def _show(run: str, steered: Steered) -> None:
    print(steered.table(all_names(RunFolder(run))), flush=True)


def _show_scores(parent: RunFolder, folder: RunFolder) -> None:
    metrics = read_metrics(folder)
    columns = [
        ("dense", metrics["dense"]),
        ("steered before fine-tuning", metrics["qpm_before_fine_tuning"]),
        ("steered", metrics["qpm"]),
    ]
    if parent.has_run and "evaluation" in parent.stages():
        columns.insert(1, ("before steering", read_metrics(parent)["qpm"]))
    print(f"\n{score_table(columns)}")
    print(f"\nWhat was changed: {folder.path / 'steering.json'}")


def _steering(arguments: argparse.Namespace) -> Steering:
    numbers = {name: getattr(arguments, name) for name in ("border_bias", "centre_bias", "stay", "closest_pairs")}
    given: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    options = Steering(
        ban=_split(arguments.ban),
        require=_split(arguments.require),
        forbid=_of_classes("--forbid", arguments.forbid),
        assign=_of_classes("--assign", arguments.assign),
        prefer=dict(_preference(text) for text in arguments.prefer),
        contrast=tuple((first, second) for first, second in arguments.contrast),
        **given,
    )
    if arguments.file is None:
        return options
    return replace(Steering.from_yaml(arguments.file).joined(options), **given)  # a 0 on the command line counts too


def _split(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for text in texts for part in text.split(","))


def _of_classes(option: str, texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, colon, features = text.rpartition(":")  # names of classes may have colons in them
        if not colon or not name:
            raise InvalidInputError(f"The '{option}' option must be a class, a colon and features. Got {text!r}.")
        found[name] = (*found.get(name, ()), *features.split(","))
    return found


def _preference(text: str) -> tuple[str, float]:
    feature, _, number = text.rpartition("=")
    try:
        return feature, float(number)
    except ValueError as error:
        raise InvalidInputError(
            f"The '--prefer' option must be a feature, = and a number, such as 17=0.1. Got {text!r}."
        ) from error
