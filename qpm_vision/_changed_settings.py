"""Which stage of a run each setting first counts in, so that a change keeps the stages in front of it."""

from __future__ import annotations

from collections.abc import Iterable

from qpm_opt import InvalidInputError
from qpm_vision.config import RunConfig, differences
from qpm_vision.run_folder import STAGES, RunFolder

__all__ = ["accepted_changes", "first_affected", "is_kept"]

_FIRST_COUNTS_IN = {
    "n_select": "assignment",
    "n_per_class": "assignment",
    "threshold": "assignment",
    "solver": "assignment",
    "solve_seconds": "assignment",
    "fine_tuning": "fine-tuning",
}
"""Stages behind the first one by the settings that they are the first to look at; all other settings count from the
first stage on. Settings that count in none may change anyway (`config.FREE_KEYS`)."""


def first_affected(settings: Iterable[str]) -> str:
    """The first stage in which one of these settings counts.

    Args:
        settings: At least one name, such as "n_select" or "fine_tuning.epochs".

    Example:
        >>> first_affected(["fine_tuning.epochs", "n_select"])
        'assignment'
    """
    return min((_FIRST_COUNTS_IN.get(name.split(".")[0], STAGES[0]) for name in settings), key=STAGES.index)


def is_kept(place: RunFolder, stage: str, redo: str | None) -> bool:
    """Whether a stage is finished, or under way, and stays so when the stages from `redo` on are repeated."""
    if redo is not None and STAGES.index(redo) <= STAGES.index(stage):
        return False
    return stage in place.stages() or place.training_state(stage).exists()


def accepted_changes(place: RunFolder, config: RunConfig, redo: str | None) -> str:
    """What a configuration changes about a run, in words; nothing where it is that of the run.

    Args:
        place: A folder that has a run.
        config: What the run is to go on with.
        redo: The stage that is to be repeated with all that follow it.

    Raises:
        InvalidInputError: A stage that is kept was done with another configuration.
        RunFolderError: The configuration of the folder is damaged.
    """
    # Through RunConfig, because a folder of an earlier version lacks keys whose defaults it used.
    changed = differences(RunConfig.of(place).to_dict(), config.to_dict())
    if not changed:
        return ""
    listed = ", ".join(f"{key}: {old!r} → {new!r}" for key, (old, new) in changed.items())
    first = first_affected(changed)
    if is_kept(place, first, redo):
        # The features of a steered run are not chosen again.
        again = not place.is_steered or STAGES.index(first) > STAGES.index("assignment")
        remedy = f"`--redo {first}` (redo={first!r}) to repeat what depends on them, " if again else ""
        raise InvalidInputError(
            f"The run in {str(place.path)!r} was begun with another configuration ({listed}). "
            f"Use the former values to continue it, {remedy}or a new folder for a new run."
        )
    return listed
