"""Files of a run that people change here, in other tabs and by other programs; none is overwritten unseen."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qpm_opt import InvalidInputError, QPMError
from qpm_vision._reading import open_file
from qpm_vision.feature_names import NAMES, all_names, write_names
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.steering import Steering

__all__ = ["DRAFT_FILE", "NAMES_FILE", "ConflictError", "KeptFile", "Seen"]

Content = TypeVar("Content")

_writing = threading.Lock()


class ConflictError(InvalidInputError):
    """The file is not the one that was read before."""


@dataclass(frozen=True)
class Seen(Generic[Content]):
    """What a file holds.

    Attributes:
        content: It, empty where the file is missing or malformed.
        version: Changes with the bytes of the file; empty where there is none.
        error: Why the file cannot be understood, or None.
    """

    content: Content
    version: str
    error: str | None


@dataclass(frozen=True)
class KeptFile(Generic[Content]):
    """A file that is changed by those who have seen what it holds.

    Attributes:
        name: In the run folder.
        empty: Makes what a missing file stands for.
        read: Reads the file, which is there.
        write: Writes it, whole or not at all.
    """

    name: str
    empty: Callable[[], Content]
    read: Callable[[RunFolder], Content]
    write: Callable[[RunFolder, Content], Any]

    def look(self, folder: RunFolder) -> Seen[Content]:
        """Read it.

        Raises:
            RunFolderError: The file is there but cannot be opened.
        """
        version = self._version(folder)  # before the content: at worst it is too old, which a change is refused for
        if not version:
            return Seen(self.empty(), "", None)
        try:
            return Seen(self.read(folder), version, None)
        except QPMError as error:
            return Seen(self.empty(), version, f"{folder.path / self.name} is not understood: {error}")

    def replace(self, folder: RunFolder, content: Content, version: str) -> Seen[Content]:
        """Keep this in the place of the version that its author has seen.

        Raises:
            ConflictError: The file has changed since, or holds something that is not understood.
            InvalidInputError: The content is malformed.
            RunFolderError: It cannot be written.
        """
        with _writing:
            present = self.look(folder)
            if present.version != version:
                raise ConflictError(
                    f"{self.name} was changed in another tab or by another program. Load it again to see it; nothing "
                    "was saved."
                )
            if present.error is not None:
                raise ConflictError(f"{present.error} Correct or move it first; nothing was saved.")
            self.write(folder, content)
            return self.look(folder)

    def _version(self, folder: RunFolder) -> str:
        path = folder.path / self.name
        try:
            with open_file(path) as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            raise RunFolderError(f"Cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}.") from error


_DRAFT = "steer.yaml"


def _write_steering(folder: RunFolder, steering: Steering) -> None:
    folder.write(_DRAFT, lambda stream: stream.write(steering.to_yaml().encode()))


DRAFT_FILE = KeptFile(_DRAFT, Steering, lambda folder: Steering.from_yaml(folder.path / _DRAFT), _write_steering)
"""The steering that is worked on."""

NAMES_FILE: KeptFile[dict[int, str]] = KeptFile(NAMES, dict, all_names, write_names)
"""The names of features."""
