"""The folder of a run: what lies in it, which stages are finished, and files that are whole or absent.

Every file is written to a temporary neighbour that then takes its place, so a process that is killed at any moment
leaves the former version or the new one. A stage counts as finished once `stages.json` says so, which is written last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError, QPMError, hold_lock
from qpm_vision._forms import Form, require_form
from qpm_vision._npz import Member, read_arrays
from qpm_vision._reading import file_size, open_file, parse_json, read_rows, read_text, shortened
from qpm_vision._text import utf8

__all__ = ["STAGES", "STEERING", "RunFolder", "RunFolderError", "StageRecord", "require_stage"]

STAGES = ("dense", "statistics", "assignment", "fine-tuning", "evaluation", "explanation")
"""The stages of a run, in their order."""

FORMAT = 1
"""Version of the layout of the folder."""

CONFIG = "config.json"
STAGE_FILE = "stages.json"
HISTORY = "history.csv"
LOCK = ".lock"

STEERING = "steering.json"
"""What a run was steered to, and from which other run; in runs that were not there is no such file."""

_MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What fails where the content of a file is not what it should be."""

_MOST_SECONDS = 1e9
"""Of a stage: 30 years."""

_FRESH_FOLDER = "Choose a new or empty folder for the run."


class RunFolderError(QPMError):
    """A run folder is missing, in use, damaged or no run folder; the message names the file and the remedy."""


def require_stage(stage: str) -> None:
    """Raise where there is no such stage.

    Raises:
        InvalidInputError: There is none.
    """
    if stage not in STAGES:
        raise InvalidInputError(f"The 'stage' parameter must be one of {', '.join(STAGES)}. Got {stage!r}.")


@dataclass(frozen=True)
class StageRecord:
    """What is noted about a finished stage.

    Attributes:
        seconds: Wall-clock seconds that it took.
        finished: When it ended, ISO 8601 with time zone.
    """

    seconds: float
    finished: str


class RunFolder:
    """Reads and writes the files of one run.

    `create` makes a folder (or takes an empty one), `open` takes one that a run has begun.

    Attributes:
        path: Where it is.
        figures: Where its pictures are.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self.path = Path(os.fsdecode(path))
        except TypeError as error:
            raise InvalidInputError(
                f"The path of a run folder must be a text or a path. Got {path!r} of type {type(path).__name__}."
            ) from error
        if not os.fspath(path):  # Path would take it for the current folder
            raise InvalidInputError("The path of a run folder must not be empty; write '.' for the current folder.")
        self.figures = self.path / "figures"
        self._locked: tuple[int, int] | None = None

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> RunFolder:
        """Begin a run in a new or empty folder.

        Args:
            path: The folder.
            config: What is kept in `config.json`.

        Raises:
            RunFolderError: There is something else at that place, or it cannot be written to.
        """
        folder = cls(path)
        folder.refuse_foreign_content()
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise folder._unusable(error) from error
        folder.write_config(config)
        return folder

    def refuse_foreign_content(self) -> None:
        """Raise where a file, or a folder with other things than a run in it, is in the place of the folder.

        Raises:
            RunFolderError: There is.
        """
        try:
            names = sorted(item.name for item in self.path.iterdir() if not item.name.startswith("."))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from error
        if names and not self.has_run:
            raise RunFolderError(
                f"The folder {str(self.path)!r} is no run folder: it has no {CONFIG}, but holds {', '.join(names[:3])}"
                f"{', …' if len(names) > 3 else ''}. {_FRESH_FOLDER}"
            )

    def _unusable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"Cannot use {str(self.path)!r} as a run folder: {error.strerror or error}. {_FRESH_FOLDER}"
        )

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Keep the configuration, in place of an earlier one."""
        self.write_json(CONFIG, {"format": FORMAT, **config})

    @property
    def is_begun(self) -> bool:
        """Whether anything was trained here yet."""
        return bool(self.stages() or self.history() or any(self.training_state(stage).exists() for stage in STAGES))

    def training_state(self, stage: str) -> Path:
        """Where a stage that trains a model keeps how far it has come."""
        return self.path / f"{stage}.training.safetensors"

    @classmethod
    def open(cls, path: RunFolder | str | os.PathLike[str]) -> RunFolder:
        """Take the folder of a run that was begun before; one that is taken already is as it was.

        Raises:
            RunFolderError: There is none at that place.
        """
        if isinstance(path, RunFolder):
            return path
        folder = cls(path)
        if not folder.path.is_dir():
            raise RunFolderError(f"The run folder {str(path)!r} does not exist. `qpm-vision train DATA OUT` makes one.")
        if not folder.has_run:
            raise RunFolderError(
                f"The folder {str(path)!r} is no run folder: it has no {CONFIG}. Give the OUT of `qpm-vision train`."
            )
        return folder

    @property
    def is_steered(self) -> bool:
        """Whether its features come from steering another run."""
        return (self.path / STEERING).is_file()

    @property
    def has_run(self) -> bool:
        """Whether a run was begun here, in a folder that may be damaged since."""
        return os.path.lexists(self.path / CONFIG)

    def config(self) -> dict[str, Any]:
        """What was given to `create`.

        Raises:
            RunFolderError: The file is damaged, or of a newer layout.
        """
        data = self.read_json(CONFIG)
        version = data.pop("format", None)
        if version != FORMAT or type(version) is not int:
            raise RunFolderError(
                f"The run folder {str(self.path)!r} has the layout {shortened(repr(version))}; this version of "
                f"qpm reads {FORMAT}. Use the version of qpm that made it, or a new folder."
            )
        return data

    # -- stages ------------------------------------------------------------------------------------------------------

    def stages(self) -> dict[str, StageRecord]:
        """The finished stages, in their order; a stage after an unfinished one does not count.

        Raises:
            RunFolderError: `stages.json` is damaged.
        """
        if not os.path.lexists(self.path / STAGE_FILE):
            return {}
        data = self.read_json(STAGE_FILE)
        records: dict[str, StageRecord] = {}
        with self.reading(STAGE_FILE):
            for stage in STAGES:
                if stage not in data:
                    break
                seconds, finished = data[stage]["seconds"], data[stage]["finished"]
                if not isinstance(seconds, int | float) or not 0 <= seconds < _MOST_SECONDS:
                    raise ValueError(f"{stage} took {seconds!r} seconds")
                datetime.fromisoformat(finished)
                records[stage] = StageRecord(float(seconds), finished)
        return records

    def require(self, stage: str, otherwise: str) -> None:
        """Raise where a stage is not finished.

        Args:
            stage: The stage.
            otherwise: What is wrong with the run then, such as "has no finished model".

        Raises:
            RunFolderError: It is not.
        """
        finished = self.stages()
        if stage not in finished:
            raise RunFolderError(
                f"The run in {str(self.path)!r} {otherwise}: it has the stages {', '.join(finished) or 'none'}. "
                "Continue it with the command that began it."
            )

    def require_files(self) -> None:
        """Raise where a finished stage lacks a file that it wrote, as in a copy that was not completed.

        Raises:
            RunFolderError: It does; names the first such file.
        """
        finished = self.stages()
        for name, stage in _WRITTEN_BY.items():
            if stage in finished and name not in _LATER:
                with self.reading(name):
                    file_size(self.path / name)

    def mark_finished(self, stage: str, seconds: float) -> None:
        """Note that a stage is finished; everything it leaves must be written by then."""
        records = self.stages()
        records[stage] = StageRecord(round(seconds, 3), datetime.now(UTC).isoformat(timespec="seconds"))
        self.write_json(STAGE_FILE, {name: asdict(record) for name, record in records.items()})

    def forget_from(self, stage: str) -> None:
        """Let a stage and all that follow it count as not begun; their files stay until they are written again.

        Raises:
            InvalidInputError: There is no such stage.
        """
        require_stage(stage)
        kept = STAGES[: STAGES.index(stage)]
        records = {name: asdict(record) for name, record in self.stages().items() if name in kept}
        self.write_json(STAGE_FILE, records)
        for name in STAGES[STAGES.index(stage) :]:
            self.training_state(name).unlink(missing_ok=True)

    # -- history -----------------------------------------------------------------------------------------------------

    def history(self) -> list[dict[str, str]]:
        """The rows of `history.csv` as text, empty where there is none."""
        try:
            _, rows = read_rows(read_text(self.path / HISTORY))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise self._damaged(HISTORY, error) from error
        return [dict(row) for _, row in rows]

    def write_history(self, stage: str, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Put the epochs of a stage in place of those that were there of it, behind those of other stages."""
        rows: list[Mapping[str, Any]] = [row for row in self.history() if row.get("stage") != stage]
        rows += ({"stage": stage, **epoch} for epoch in epochs)
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["stage", "epoch"]
        self.write_csv(HISTORY, columns, ([row.get(name, "") for name in columns] for row in rows))

    # -- files -------------------------------------------------------------------------------------------------------

    def write(self, name: str, write: Callable[[IO[bytes]], Any]) -> Path:
        """Let `write` fill a temporary file that then takes the place of `name`.

        Args:
            name: Path inside the folder.
            write: Gets a binary stream.

        Returns:
            Where the file lies.

        Raises:
            RunFolderError: The file cannot be written (disk full, no permission); the former version is untouched.
        """
        return self.write_path(name, lambda path: _fill(path, write))

    def write_path(self, name: str, write: Callable[[Path], Any]) -> Path:
        """Like `write`, for code that wants a path instead of a stream."""
        with self.replacing(name) as path:
            write(path)
        return self.path / name

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Like `write_path`, around a block that fills the path it is given; nothing stays of a block that fails."""
        target = self.path / name
        self._require_place()
        temporary: Path | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, made = tempfile.mkstemp(dir=target.parent, prefix=".writing-", suffix=target.suffix)
            os.close(handle)
            temporary = Path(made)
            yield temporary
            mask = os.umask(0)  # mkstemp makes private files; those of a run are as readable as any other of the user
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(target)
        except BrokenPipeError:  # of standard output, when the block prints as well: a file has no reader that leaves
            raise
        except OSError as error:
            raise RunFolderError(
                f"Cannot write {str(target)!r}: {error.strerror or error}. What was there before is untouched."
            ) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> Path:
        """Write JSON, indented; NaN and infinity are refused by the standard and here."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.write(name, lambda stream: stream.write(utf8(text)))

    def write_csv(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
        """Write a table with a header."""
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        return self.write(name, lambda stream: stream.write(utf8(buffer.getvalue())))

    def write_npz(self, name: str, arrays: Mapping[str, npt.ArrayLike]) -> Path:
        """Write arrays; never pickles."""
        plain = {key: np.asarray(value) for key, value in arrays.items()}
        objects = [key for key, value in plain.items() if value.dtype.hasobject]
        if objects:
            raise InvalidInputError(f"The array {objects[0]!r} cannot be stored in {name}: its dtype is object.")

        def save(stream: IO[bytes]) -> None:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for key, value in plain.items():
                    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, value, allow_pickle=False)

        return self.write(name, save)

    def read_json(self, name: str, form: Form | None = None) -> dict[str, Any]:
        """Read a JSON object.

        Args:
            name: Path inside the folder.
            form: What it must hold; anything by default.

        Raises:
            RunFolderError: The file is missing or damaged.
        """
        with self.reading(name):
            data = parse_json(read_text(self.path / name))
            if not isinstance(data, dict):
                raise TypeError(f"a {type(data).__name__} instead of an object")
            if form is not None:
                require_form(data, form)
            return data

    def read_npz(self, name: str, members: Mapping[str, Member] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Read arrays.

        Args:
            name: Path inside the folder.
            members: Which arrays, and what they must be; others are not looked at. By default all.

        Raises:
            RunFolderError: The file is missing or damaged.
        """
        with self.reading(name):
            return read_arrays(self.path / name, members)

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Around a block that reads a file, or makes something of what it says: what fails is the file's fault.

        Raises:
            RunFolderError: The block fails; names the file and the remedy.
        """
        try:
            yield
        except RunFolderError:
            raise
        except (OSError, InvalidInputError, *_MALFORMED) as error:
            raise self._damaged(name, error) from error

    def digest(self, name: str) -> str:
        """SHA-256 of a file, hexadecimal.

        Raises:
            RunFolderError: The file is missing or cannot be read.
        """
        with self.reading(name), open_file(self.path / name) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _damaged(self, name: str, error: Exception) -> RunFolderError:
        path = str(self.path / name)
        if isinstance(error, FileNotFoundError):
            return RunFolderError(f"The file {path!r} is missing. {_remedy(name)}")
        reason = f"it has no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        return RunFolderError(f"The file {path!r} is damaged ({shortened(reason)}). {_remedy(name)}")

    # -- lock --------------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process from working in the folder; the system frees it even when the process is killed.

        Where the platform has no such locks (Windows), nothing is locked.

        Raises:
            RunFolderError: Another process holds it.
        """
        try:
            if os.path.lexists(self.path / LOCK):
                file_size(self.path / LOCK)  # says what is there in its place
            held = hold_lock(self.path / LOCK)
        except BlockingIOError as error:
            raise RunFolderError(
                f"Another process is working in {str(self.path)!r}. Wait until it ends, or use another folder."
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunFolderError(
                f"Cannot write to {str(self.path / LOCK)!r}: {reason}. Allow writing, or use another folder."
            ) from error
        with held:
            self._locked = _identity(self.path)
            try:
                yield
            finally:
                self._locked = None

    def _require_place(self) -> None:
        """Raise where the folder that is locked lies elsewhere by now: a run must not be scattered over two."""
        if self._locked is not None and _identity(self.path) != self._locked:
            raise RunFolderError(
                f"The run folder {str(self.path)!r} was moved or deleted while a run worked in it. What was finished "
                "is where it was moved to: the same command with that folder continues."
            )

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}, finished={list(self.stages())})"


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another that takes its place; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


_WRITTEN_BY = {
    "dense.safetensors": "dense",
    "statistics.npz": "statistics",
    "problem.npz": "assignment",
    "assignment.npz": "assignment",
    "threshold.json": "assignment",
    "qpm.safetensors": "fine-tuning",
    "metrics.json": "evaluation",
    "gallery.npz": "explanation",
}


_LATER = ("sight.npz",)
"""Files that runs of earlier versions lack."""

_REMEDIES = {
    CONFIG: "Restore it from a copy, or use a new folder.",
    "data.json": "Restore it from a copy, or use a new folder.",
    STEERING: "Steer again into a new folder.",
    STAGE_FILE: "Delete it and train again: everything not noted as finished is done again.",
    HISTORY: "Delete it: the epochs that it lists are lost, the models are not.",
}


def _remedy(name: str) -> str:
    stage = _WRITTEN_BY.get(name)
    if stage is None:
        return _REMEDIES.get(name, "Delete it, and repeat the command that wrote it.")
    return f"Train again with `--redo {stage}`, which repeats that stage and what follows it."


def _fill(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    with path.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
