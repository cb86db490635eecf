"""Files that a program reads and writes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from qpm_opt.errors import InvalidInputError

__all__ = ["hold_lock", "refuse_overwriting"]

AnyPath = str | os.PathLike[str]


def hold_lock(path: AnyPath) -> AbstractContextManager[object]:
    """Hold a lock until the context, or this process, ends, also when it is killed.

    Where the platform or the file system has no locks, nobody is kept out.

    Args:
        path: The file that stands for the lock; made where it does not exist, and left behind.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The file cannot be written, or is no file.
    """
    try:
        import fcntl
    except ImportError:
        return nullcontext()
    # Not to wait for a reader, where somebody put a pipe.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    stream = os.fdopen(descriptor, "a")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "it is not a file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise
    except OSError:  # a file system without locks
        pass
    return stream


def refuse_overwriting(target: AnyPath, inputs: Iterable[AnyPath | None]) -> None:
    """Raise where a file to be written is one of those that it is made from, by whatever name or link.

    Args:
        target: What will be written.
        inputs: What is read; None stands for what was not given.

    Raises:
        InvalidInputError: It is one of them; names both.
    """
    for given in inputs:
        if given is not None and _is_same(target, given):
            raise InvalidInputError(
                f"What is written must not take the place of what is read. Got {os.fspath(target)!r}, which is the "
                f"file {os.fspath(given)!r}; choose another name."
            )


def _is_same(one: AnyPath, other: AnyPath) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them does not exist
        return False
