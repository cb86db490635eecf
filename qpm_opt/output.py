"""Standard output and error that lose no result: whatever is wrong with them, a program that prints goes on."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

__all__ = ["Output", "steady_output"]

_CLOSED = OSError(errno.EBADF, "it is closed")


@contextmanager
def steady_output() -> Iterator[Output]:
    r"""Make `sys.stdout` and `sys.stderr` such that printing never fails, for as long as the context lasts.

    - A character that the encoding lacks is written as its escape (`\u2013`), so that no two texts become one.
    - Where standard output is full or closed, what is printed goes to standard error, behind a sentence that says so.
    - Where nobody reads any more (`… | head`), and where standard error fails, printing goes on in silence.

    Argument parsers belong inside too: help is output.

    Yields:
        What became of standard output.

    Example:
        >>> with steady_output() as output:
        ...     print("5 – 3")
        5 – 3
        >>> output.lost is None
        True
    """
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    error = _Stream(before[1], None)
    out = _Stream(before[0], error)
    output = Output(out)
    steady = sys.stdout, sys.stderr = _text(before[0], out), _text(before[1], error)
    try:
        yield output
    finally:
        for stream in steady:
            with suppress(ValueError):  # somebody closed it
                stream.flush()
        sys.stdout, sys.stderr = before


@dataclass(frozen=True)
class Output:
    """What became of standard output within `steady_output`."""

    _stream: _Stream

    @property
    def lost(self) -> OSError | None:
        """Why text went to standard error in its place. A listener that went away, or was never wanted, loses none."""
        with suppress(ValueError):
            sys.stdout.flush()
        failure = self._stream.failure
        return None if failure is _CLOSED or _nobody_reads(failure) else failure

    @property
    def unread(self) -> bool:
        """Whether the reader of standard output went away, so that nothing more needs to be computed for it."""
        with suppress(ValueError):
            sys.stdout.flush()
        return _nobody_reads(self._stream.failure)


class _Stream(io.RawIOBase):
    """Hands bytes on to the raw stream of another one, or elsewhere once that fails; never raises."""

    def __init__(self, stream: TextIO | None, instead: _Stream | None) -> None:
        buffer = getattr(stream, "buffer", None)
        self._raw: Any = getattr(buffer, "raw", buffer)
        self._instead = instead
        self.failure: OSError | None = None
        self._told = False
        if stream is None:
            self.failure = _CLOSED
        else:
            with suppress(OSError, ValueError):
                stream.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno()) if self._raw is not None else super().fileno()

    def isatty(self) -> bool:
        return self._raw is not None and bool(self._raw.isatty())

    def write(self, data: Any, /) -> int:
        if self.failure is None:
            try:
                written = self._raw.write(data)
                while written is None:  # the other end made it non-blocking, and is behind
                    select.select([], [self._raw], [])
                    written = self._raw.write(data)
                return int(written)
            except (OSError, ValueError) as error:
                self.failure = error if isinstance(error, OSError) else _CLOSED
        if self._instead is not None and not _nobody_reads(self.failure):
            if not self._told:
                reason = self.failure.strerror or self.failure
                self._instead.write(f"Standard output cannot be written ({reason}); it follows here:\n".encode())
                self._told = True
            self._instead.write_all(bytes(data))
        return len(data)

    def write_all(self, data: bytes) -> None:
        while data:
            data = data[self.write(data) :]


def _nobody_reads(failure: OSError | None) -> bool:
    return isinstance(failure, BrokenPipeError)


def _text(stream: TextIO | None, raw: _Stream) -> TextIO:
    if stream is not None and not hasattr(stream, "buffer"):  # in memory, such as io.StringIO
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=True,  # what is known is seen, even if the next minutes end badly
        write_through=bool(getattr(stream, "write_through", False)),
    )


def _fill_closed_descriptors() -> None:
    """Open what is closed (`2>&-`): the next file would get its number, and be written to by libraries that print."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
