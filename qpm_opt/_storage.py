"""Reading and writing `.npz` and text files that are either whole or absent."""

from __future__ import annotations

import json
import math
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from qpm_opt.errors import InvalidInputError, QPMError

Arrays = dict[str, npt.NDArray[Any]]

_NPY: Final = b"\x93NUMPY"
_SMALL: Final = 2**26
"""Bytes of arrays that any file may hold."""

_MOST_RATIO: Final = 50
"""How many times smaller than its arrays a larger file may be; zeros could be a thousand times smaller."""

_MOST_KIND: Final = 1_000
_MOST_JSON: Final = 2**28


def write_npz(path: str | os.PathLike[str], kind: str, arrays: Mapping[str, Any]) -> None:
    """Write arrays and the name of what they describe; refuses object arrays, which would be pickled."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise InvalidInputError(f"The array '{name}' cannot be stored: its dtype is object.")
    target = Path(path)
    if target.suffix != ".npz":
        raise InvalidInputError(f"The 'path' parameter must end in .npz. Got {str(target)!r}.")
    every = {"kind": np.array(kind), **arrays}
    size = sum(np.asarray(array).nbytes for array in every.values())

    def write(stream: IO[bytes]) -> None:
        np.savez_compressed(stream, **every)
        if size > _most_bytes(stream.tell()):  # mostly zeros: what is written can be read again
            stream.seek(0)
            stream.truncate()
            np.savez(stream, **every)

    _write_atomically(target, write)


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


def read_npz(path: str | os.PathLike[str], kind: str, names: Sequence[str], optional: Sequence[str] = ()) -> Arrays:
    """Read arrays of a file that `write_npz` wrote for `kind`; nothing else in it is looked at.

    Args:
        path: The file.
        kind: What it must describe.
        names: The arrays.
        optional: Arrays that may be missing.

    Raises:
        InvalidInputError: The file is missing, damaged or of another kind, or its arrays would take far more memory
            than such a file needs.
    """
    with _opened_archive(path) as archive:
        found = _kind(archive)
        if found != kind:
            raise InvalidInputError(f"The file {str(path)!r} must hold a {kind}. Got {found}.")
        there = {name: _members(archive)[name] for name in (*names, *optional) if name in _members(archive)}
        missing = [name for name in names if name not in there]
        if missing:
            raise InvalidInputError(f"The file {str(path)!r} holds a malformed {kind}: it lacks {missing[0]!r}.")
        limit = _most_bytes(Path(path).stat().st_size)
        size = sum(member.file_size for member in there.values())
        if size > limit:
            raise InvalidInputError(
                f"The file {str(path)!r} must hold at most {limit // 2**20:,} MiB of arrays, by its own size. Got "
                f"{size // 2**20:,} MiB, as no file of such a {kind} has; write it anew with its 'save'."
            )
        return {name: _array(archive, member) for name, member in there.items()}


def _most_bytes(file_size: int) -> int:
    return max(_SMALL, _MOST_RATIO * file_size)


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
    with _opened_archive(path) as archive:
        return _kind(archive)


@contextmanager
def _opened_archive(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    try:
        _require_file(path)
        with Path(path).open("rb") as stream:
            if stream.read(len(_NPY)) == _NPY:
                raise ValueError("it is a single array; name it .npy")
            with zipfile.ZipFile(stream) as archive:
                yield archive
    except FileNotFoundError:
        raise InvalidInputError(f"The file {str(path)!r} does not exist.") from None
    except InvalidInputError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        IndexError,
        SyntaxError,  # of a header that is no Python literal
        MemoryError,
        OverflowError,
        RecursionError,
        struct.error,
        RuntimeError,  # NotImplementedError among them: an archive that claims encryption or an unknown compression
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error) or type(error).__name__
        raise InvalidInputError(f"The file {str(path)!r} is damaged or is no .npz file ({reason}).") from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {member.filename.removesuffix(".npy"): member for member in archive.infolist()}


def _kind(archive: zipfile.ZipFile) -> str:
    member = _members(archive).get("kind")
    return "nothing known" if member is None or member.file_size > _MOST_KIND else str(_array(archive, member))


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as stream:
        require_whole_array(stream, member.file_size)
    with archive.open(member) as stream:
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def read_npy(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read the array of an `.npy` file, which must be as long as it says."""
    try:
        _require_file(path)
        with Path(path).open("rb") as stream:
            require_whole_array(stream, Path(path).stat().st_size)
            stream.seek(0)
            array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        raise InvalidInputError(f"The file {str(path)!r} does not exist.") from None
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, OverflowError, RecursionError) as error:
        raise InvalidInputError(f"The file {str(path)!r} is damaged or is no .npy file ({error}).") from error
    return array


def _require_file(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for what has no end, such as /dev/zero, or no beginning: to open a pipe waits for a writer."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError("it is no regular file")


def require_whole_array(stream: IO[bytes], size: int) -> None:
    """Read the header of an array, and raise ValueError where what it announces is not what follows."""
    start = stream.read(len(_NPY))
    if start != _NPY:
        raise ValueError("it starts like no such file")
    version = tuple(stream.read(2))
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError("an array is of an unknown version")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    if stream.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"an array of shape {shape} takes another number of bytes")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    try:
        with Path(path).open("rb") as stream:
            text = stream.read(_MOST_JSON + 1)
        if len(text) > _MOST_JSON:
            raise ValueError(f"it is longer than {_MOST_JSON // 2**20} MiB")
        data = parse_json(text.decode())
    except FileNotFoundError:
        raise InvalidInputError(f"The file {str(path)!r} does not exist.") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInputError(f"The file {str(path)!r} is damaged or is no JSON file ({error}).") from error
    if not isinstance(data, dict):
        raise InvalidInputError(f"The file {str(path)!r} must hold a JSON object. Got a {type(data).__name__}.")
    return data


def parse_json(text: str) -> Any:
    """Parse JSON as the standard has it; raises ValueError at NaN, Infinity and numbers that become infinite."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number
