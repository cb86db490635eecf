"""Reading arrays of an .npz file: only those that are asked for, and only what their headers and sizes bear out."""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from qpm_vision._reading import open_file, shortened

__all__ = ["MOST_BYTES", "Member", "read_arrays"]

MOST_BYTES: Final = 2 << 30
"""Bytes of all arrays of a file together; those of a run on 21,000 classes of ImageNet have a fifth of it."""

_HEADER: Final = 1 << 14
"""Bytes in which the header of an array must end; NumPy's own limit is lower."""

_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Member:
    """What an array of a file must be.

    Attributes:
        axes: The length of each axis, or a name: axes of one name have one length in the whole file. None: any.
        kinds: Kinds of dtype, as NumPy abbreviates them.
        optional: Whether the file may lack it.
        least: The least value; below all by default.
        finite: Whether all values must be finite.
    """

    axes: tuple[str | int, ...] | None = None
    kinds: str = "f"
    optional: bool = False
    least: float = -math.inf
    finite: bool = True


_ANYTHING: Final = Member(kinds="biufcU", finite=False)


def read_arrays(
    path: str | os.PathLike[str], members: Mapping[str, Member] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a file by name; what else is in it is not looked at.

    Args:
        path: The file.
        members: Which arrays, and what they must be; by default all, of any shape and kind of numbers or texts.

    Raises:
        ValueError: It is no .npz file, is damaged, lacks an array, or holds another one than it should.
        OSError: It is missing, or cannot be read.
    """
    try:
        with open_file(path) as stream, zipfile.ZipFile(stream) as archive:
            if members is None:
                members = dict.fromkeys((name.removesuffix(".npy") for name in archive.namelist()), _ANYTHING)
            headers = {}
            for name, member in members.items():
                header = _header(archive, name)
                if header is not None:
                    headers[name] = header
                elif not member.optional:
                    raise ValueError(f"it lacks the array {name!r}")
            _refuse_misfits(members, headers)
            arrays = {name: _read(archive, name) for name in headers}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
        # RuntimeError: an archive that claims encryption or a newer version of the format.
        raise ValueError(f"it is no whole .npz file: {shortened(error)}") from error
    except MemoryError:
        raise ValueError("its arrays need more memory than there is") from None
    for name, array in arrays.items():
        _refuse_values(name, members[name], array)
    return arrays


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Shape and dtype of an array; None where there is none of that name."""
    places = [info for info in archive.infolist() if info.filename == f"{name}.npy"]
    if not places:
        return None
    if len(places) > 1:
        raise ValueError(f"the array {name!r} is there twice")
    (info,) = places
    if info.compress_type not in _COMPRESSIONS:
        raise ValueError(f"the array {name!r} is packed in an unknown way")
    with archive.open(info) as member:
        start = io.BytesIO(member.read(_HEADER))
    try:
        shape, dtype = _parsed(start)
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the array {name!r} has no header that can be read") from error
    if dtype.hasobject:
        raise ValueError(f"the array {name!r} holds objects instead of numbers")
    claimed = math.prod(shape) * dtype.itemsize
    if any(size < 0 for size in shape) or claimed != info.file_size - start.tell():
        raise ValueError(
            f"the array {name!r} claims the shape {shortened(shape)}, for which it has the wrong number of bytes"
        )
    return shape, dtype


def _parsed(start: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(start)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(start)
    else:
        raise ValueError(f"version {version}")
    return shape, dtype


def _refuse_misfits(
    members: Mapping[str, Member], headers: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
) -> None:
    """Raise where arrays are of other dtypes or shapes than they should be, do not fit together, or are too large."""
    lengths: dict[str, tuple[int, str]] = {}
    for name, (shape, dtype) in headers.items():
        member = members[name]
        if dtype.kind not in member.kinds:
            raise ValueError(f"the array {name!r} has the dtype {shortened(dtype)}")
        if member.axes is None:
            continue
        if len(shape) != len(member.axes):
            raise ValueError(f"the array {name!r} has {len(shape)} dimensions instead of {len(member.axes)}")
        for size, axis in zip(shape, member.axes, strict=True):
            expected, like = (axis, "") if isinstance(axis, int) else lengths.setdefault(axis, (size, name))
            if size != expected:
                fit = f"as that of {like!r} has" if like else "as it should have"
                raise ValueError(f"the array {name!r} has the shape {shape}, not {expected} {fit}")
    total = sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values())
    if total > MOST_BYTES:
        raise ValueError(f"its arrays take {total:,} bytes, more than {MOST_BYTES:,}")


def _read(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    with archive.open(f"{name}.npy") as member:
        array: npt.NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _refuse_values(name: str, member: Member, array: npt.NDArray[Any]) -> None:
    if array.dtype.kind == "f" and member.finite and not np.isfinite(array).all():
        raise ValueError(f"the array {name!r} holds infinite values or NaN")
    if array.size and array.dtype.kind in "fiu" and array.min() < member.least:
        raise ValueError(f"the array {name!r} holds {array.min()}, which is below {member.least:g}")
