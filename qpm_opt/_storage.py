"""Reading and writing `.npz` and text files that are either whole or absent."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from qpm_opt.errors import InvalidInputError, QPMError


def write_npz(path: str | os.PathLike[str], kind: str, arrays: Mapping[str, Any]) -> None:
    """Write arrays and the name of what they describe; refuses object arrays, which would be pickled."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise InvalidInputError(f"The array '{name}' cannot be stored: its dtype is object.")
    target = Path(path)
    if target.suffix != ".npz":
        raise InvalidInputError(f"The 'path' parameter must end in .npz. Got {str(target)!r}.")
    _write_atomically(target, lambda stream: np.savez_compressed(stream, kind=np.array(kind), **dict(arrays)))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text."""
    _write_atomically(Path(path), lambda stream: stream.write(text.encode()))


def _write_atomically(target: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let `write` fill a temporary file beside the target, which then takes the target's place."""
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise QPMError(f"Cannot write {str(target)!r}: {error.strerror or error}.") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)  # mkstemp makes private files; a result is as readable as any other file of the user
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(target)
    except OSError as error:
        raise QPMError(
            f"Cannot write {str(target)!r}: {error.strerror or error}. What was there before is untouched."
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_npz(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Read all arrays of a file that `write_npz` wrote for `kind`."""
    arrays = _read_arrays(path)
    found = str(arrays.pop("kind", "nothing known"))
    if found != kind:
        raise InvalidInputError(f"The file {str(path)!r} must hold a {kind}. Got {found}.")
    return arrays


@contextmanager
def refusing_malformed(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Turn whatever goes wrong with the content of a readable file into one kind of error."""
    try:
        yield
    except QPMError as error:
        raise InvalidInputError(f"The file {str(path)!r} holds a malformed {kind}: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise InvalidInputError(
            f"The file {str(path)!r} holds a malformed {kind} ({type(error).__name__}: {error})."
        ) from error


def kind_of(path: str | os.PathLike[str]) -> str:
    """What a file that `write_npz` wrote describes."""
    return str(_read_arrays(path).get("kind", "nothing known"))


def _read_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        # Opened here: NumPy leaves a damaged file open.
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except FileNotFoundError:
        raise InvalidInputError(f"The file {str(path)!r} does not exist.") from None
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        RuntimeError,  # NotImplementedError among them: an archive that claims encryption or an unknown compression
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise InvalidInputError(f"The file {str(path)!r} is damaged or is no .npz file ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    # NumPy takes any file that it does not know for a pickle, and says how to load one unsafely.
    return "it starts like no such file" if "pickle" in str(error) else str(error)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInputError(f"The file {str(path)!r} does not exist.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"The file {str(path)!r} is damaged or is no JSON file ({error}).") from error
    if not isinstance(data, dict):
        raise InvalidInputError(f"The file {str(path)!r} must hold a JSON object. Got a {type(data).__name__}.")
    return data
