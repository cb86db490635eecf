"""Progress of a run: a bar on a terminal, plain lines elsewhere, nothing by default."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TextIO

from qpm_opt import printable

__all__ = ["BarReporter", "LineReporter", "Reporter", "SilentReporter", "make_reporter"]

SECONDS_BETWEEN_LINES = 10.0


class Reporter(Protocol):
    """What a run tells about itself."""

    def message(self, text: str) -> None:
        """Tell something worth a line of its own."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Tell how far a task is; `done == total` ends it."""

    def result(self, text: str, *, last: bool) -> None:
        """Tell a result of many that follow each other, such as that of an epoch."""

    def __enter__(self) -> Reporter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SilentReporter:
    """Tells nothing."""

    def message(self, text: str) -> None:
        """Drop it."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Drop it."""

    def result(self, text: str, *, last: bool) -> None:  # noqa: ARG002
        """A message."""
        self.message(text)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""


class LineReporter(SilentReporter):
    """Plain lines for logs and pipes: messages at once, progress and results that follow each other every few seconds.

    Of a task that was told about the end is told too, of results that follow each other the first and the last one.

    Args:
        stream: Where to write.
        every: Seconds between two lines of progress.
        clock: Gives seconds.
    """

    def __init__(
        self, stream: TextIO, every: float = SECONDS_BETWEEN_LINES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._every = every
        self._clock = clock
        self._last = clock()
        self._task: str | None = None  # the one that was told about last, until it ends
        self._results = False  # whether results came since the last message

    def message(self, text: str) -> None:
        """Write the line."""
        self._results = False
        self._write(printable(text))

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Write a line if the last one is old enough, or this one ends the task."""
        if self._is_due() or (done == total and task == self._task):
            self._write(f"{task}: {done}/{total}{_after(detail)}")
            self._task = None if done == total else task

    def result(self, text: str, *, last: bool) -> None:
        """Write the line if it is the first or the last of its kind, or the last line is old enough."""
        if last or not self._results or self._is_due():
            self._write(text)
        self._results = not last

    def _is_due(self) -> bool:
        return self._clock() - self._last >= self._every

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
        self._last = self._clock()


class BarReporter(SilentReporter):
    """A bar for the task under way, with messages above it.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=Console(file=stream),
            transient=True,
        )
        self._task: tuple[str, int] | None = None

    def message(self, text: str) -> None:
        """Print above the bar."""
        from rich.text import Text

        self._bar.console.print(Text(printable(text)))  # as it is: no markup, no ":cat:" that becomes a picture

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Move the bar; another task replaces it."""
        from rich.progress import TaskID

        if self._task is None or self._task[0] != task:
            if self._task is not None:
                self._bar.remove_task(TaskID(self._task[1]))
            self._task = (task, int(self._bar.add_task(task, total=total, detail="")))
        self._bar.update(TaskID(self._task[1]), completed=done, total=total, detail=detail)

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()


def make_reporter(stream: TextIO | None = None) -> Reporter:
    """A bar where the stream is a terminal, lines elsewhere.

    Args:
        stream: Standard error by default, so that results on standard output stay clean.
    """
    target = sys.stderr if stream is None else stream
    if target.isatty():
        return BarReporter(target)
    return LineReporter(target)


def _after(detail: str) -> str:
    return f", {detail}" if detail else ""
