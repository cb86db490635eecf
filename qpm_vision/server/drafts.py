"""The steering that is kept in the run folder, safe from being overwritten unseen."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

from qpm_opt import InvalidInputError
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.steering import Steering

__all__ = ["DRAFT", "ConflictError", "Draft", "read_draft", "write_draft"]

DRAFT = "steer.yaml"

_writing = threading.Lock()


class ConflictError(InvalidInputError):
    """The file is not the one that was read before."""


@dataclass(frozen=True)
class Draft:
    """What `steer.yaml` holds.

    Attributes:
        steering: It, empty where the file is missing or malformed.
        version: Changes with the content of the file.
        error: Why the file cannot be read, or None.
    """

    steering: Steering
    version: str
    error: str | None


def read_draft(folder: RunFolder) -> Draft:
    """Read it.

    Raises:
        RunFolderError: The file is there but cannot be opened.
    """
    try:
        content = (folder.path / DRAFT).read_bytes()
    except FileNotFoundError:
        return Draft(Steering(), "", None)
    except OSError as error:
        raise RunFolderError(f"Cannot read {str(folder.path / DRAFT)!r}: {error.strerror or error}.") from error
    version = hashlib.sha256(content).hexdigest()
    try:
        return Draft(Steering.from_text(content.decode()), version, None)
    except (InvalidInputError, UnicodeDecodeError) as error:
        return Draft(Steering(), version, f"{folder.path / DRAFT} is not understood: {error}")


def write_draft(folder: RunFolder, steering: Steering, version: str) -> Draft:
    """Keep a steering in the place of the version that its author has seen.

    Raises:
        ConflictError: The file has changed since, or holds something that is not understood.
        RunFolderError: It cannot be written.
    """
    with _writing:
        present = read_draft(folder)
        if present.version != version:
            raise ConflictError(
                f"{DRAFT} was changed in another tab or by another program. Load it again to see it; nothing was saved."
            )
        if present.error is not None:
            raise ConflictError(f"{present.error} Correct or move it first; nothing was saved.")
        folder.write(DRAFT, lambda stream: stream.write(steering.to_yaml().encode()))
        return read_draft(folder)
