"""An .npy file that grows row by row and can be mapped into memory; one that was cut off goes on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from qpm_vision._reading import open_file
from qpm_vision.run_folder import RunFolderError

__all__ = ["RowFile", "mapped_rows"]


def mapped_rows(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A new .npy file of float32 that is mapped into memory, with the room that it will need.

    Raises:
        RunFolderError: There is no room: the system would end the process when it writes to the missing part.
    """
    try:
        values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise RunFolderError(f"Cannot write {str(path)!r}: {error.strerror or error}. Make room.") from error
    return values


@dataclass(frozen=True)
class RowFile:
    """A file whose header says from the beginning how many rows there will be.

    Attributes:
        path: Where it is.
        length: Rows when it is whole.
        shape: Of a row.
        dtype: Of the values.
    """

    path: Path
    length: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @cached_property
    def _header(self) -> bytes:
        stream = io.BytesIO()
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length, *self.shape)}
        np.lib.format.write_array_header_1_0(stream, description)
        return stream.getvalue()

    @property
    def _row_size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes when it is whole."""
        return len(self._header) + self.length * self._row_size

    @property
    def size_now(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def n_rows(self) -> int:
        """Whole rows that are there; none where the file has another header."""
        try:
            with open_file(self.path) as stream:
                fits = stream.read(len(self._header)) == self._header
        except (OSError, ValueError):
            return 0
        return min(self.length, (self.size_now - len(self._header)) // self._row_size) if fits else 0

    def rows(self) -> npt.NDArray[Any]:
        """The rows that are there, (n_rows, …), mapped into memory to be read."""
        shape = (self.n_rows, *self.shape)
        if not shape[0]:
            return np.empty(shape, self.dtype)
        # A plain array on the same memory: those of the class memmap are slower to index.
        return np.asarray(np.memmap(self.path, self.dtype, "r", len(self._header), shape))

    @contextmanager
    def appending(self, n_rows: int) -> Iterator[IO[bytes]]:
        """A stream for `write` behind the first `n_rows` rows; what else is there is cut off.

        Raises:
            RunFolderError: The file cannot be written.
        """
        try:
            if not n_rows:
                self.path.unlink(missing_ok=True)  # it may be a pipe, which waits for somebody to read it
            # Unbuffered: a buffer that cannot be written would raise a second time when it is closed.
            stream: IO[bytes] = self.path.open("r+b" if n_rows else "wb", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        with stream:
            if not n_rows:
                self._write(stream, self._header)
            stream.truncate(len(self._header) + n_rows * self._row_size)
            stream.seek(0, io.SEEK_END)
            yield stream

    def write(self, stream: IO[bytes], rows: npt.NDArray[Any]) -> None:
        """Append rows.

        Raises:
            RunFolderError: There is no room; the rows in front of these stay.
        """
        self._write(stream, np.ascontiguousarray(rows, dtype=self.dtype).tobytes())

    def _write(self, stream: IO[bytes], content: bytes) -> None:
        left = memoryview(content)
        try:
            while len(left):
                left = left[stream.write(left) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"Cannot write {str(self.path)!r}: {error.strerror or error}. Make room; the same command goes on behind "
            "what is written."
        )
