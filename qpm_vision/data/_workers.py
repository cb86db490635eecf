"""Processes that load batches, none of which outlives this one or keeps it waiting for ever.

Batches come in anonymous memory, so that /dev/shm may be as small as containers make it. Each process has a line of its
own: when one is killed, the others do not wait for a lock that it held, and the end of its line is seen at once.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from qpm_opt import InvalidInputError, QPMError, end_with_parent

__all__ = ["Batch", "LoadingError", "Workers", "in_pinned_memory", "pinned_ahead", "refuse_unguarded_script"]

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Images, or what is computed on in their place, and labels (B,) int64."""

SECONDS_AT_REST = 60
"""How long a process that owes a batch may go without computing before it counts as hanging."""

_SECONDS_STOPPED = 5
"""The same for one that was stopped by a signal."""

_SECONDS_UNSEEN = 600
"""The same where the system does not say whether it computes."""

_AHEAD = 2
"""Batches that each process has been asked for at a time."""

_ALIGNMENT = 64

_GUARD = "the script that starts it must do so under `if __name__ == '__main__':`"

_AGAIN = (
    "What was finished is kept, and the same command continues; if it happens again, use fewer 'workers' (0: none) or "
    "smaller batches."
)

_log = logging.getLogger(__name__)


class LoadingError(QPMError, RuntimeError):
    """Images cannot be loaded, or a process that loads them was killed, failed or hangs; what is finished is kept."""


def refuse_unguarded_script() -> None:
    """Raise in a process that `multiprocessing` starts while it still imports the script that started it.

    Raises:
        LoadingError: The script, imported a second time, would begin all over again.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise LoadingError(
            "A run that loads images in processes of its own began again in one of them, because each process imports "
            f"the script: {_GUARD}."
        )


class Workers:
    """Processes that make batches by number, in order; started when batches are first asked for.

    Args:
        make: Makes a batch from the number of a pass and that of a batch; must be picklable where processes are not
            forked. Its errors are raised where the batch is asked for.
        number: How many processes, at least one.
    """

    def __init__(self, make: Callable[[int, int], Batch], number: int) -> None:
        self._make, self._number = make, number
        self._all: list[_Worker] = []
        self._ticket = 0
        weakref.finalize(self, _end, self._all, os.getpid())

    def start(self) -> bool:
        """Start the processes that are not there yet, or as many as there can be; whether there is one.

        Raises:
            LoadingError: The script has no `__main__` guard.
            InvalidInputError: The images or the transform cannot be sent to a process.
        """
        refuse_unguarded_script()
        if self._all:
            return True
        if multiprocessing.current_process().daemon:
            _log.warning("a daemonic process may not start others, so that it loads the images itself ('workers' is 0)")
            return False
        try:
            for _ in range(self._number):
                self._all.append(_started(self._make))
        except OSError as error:
            _log.warning(
                "only %d of %d processes that load images could be started (%s)", len(self._all), self._number, error
            )
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            self.close()
            raise InvalidInputError(
                "The 'images' and 'transform' parameters must be picklable where processes load images and are not "
                f"forked. Got {type(error).__name__}: {error}; use functions of modules, or workers=0."
            ) from error
        return bool(self._all)

    def batches(self, number: int, first: int, last: int) -> Iterator[Batch]:
        """The batches of a pass from `first` up to `last`; to be called behind `start`.

        A pass may be left early, but only one is under way at a time.

        Raises:
            LoadingError: A process was killed, ended or hangs. All are ended; the next pass starts new ones.
            QPMError: What `make` raised.
        """
        self._ticket += 1
        ticket, workers, asked = self._ticket, list(self._all), first
        for index in range(first, last):
            if ticket != self._ticket:
                raise RuntimeError("this pass over the images ended when another one over the same loader began")
            try:
                while asked < min(last, index + _AHEAD * len(workers)):
                    workers[asked % len(workers)].ask(ticket, number, asked)
                    asked += 1
                for worker in workers:  # those whose turn comes later as well: the sooner it is known, the better
                    worker.require_life()
                result = workers[index % len(workers)].result(ticket)
            except LoadingError:
                self.close()
                raise
            if isinstance(result, Exception):
                raise result
            yield result

    def close(self) -> None:
        """End all processes at once."""
        _end(self._all, os.getpid())


@dataclass
class _Worker:
    """One process and the line to it."""

    process: Any
    line: Connection
    is_ready: bool = False

    def ask(self, ticket: int, number: int, index: int) -> None:
        with suppress(OSError):  # the process has ended, as who wants the result will see
            self.line.send((ticket, number, index))

    def require_life(self) -> None:
        """Raise if the process has ended."""
        if self.process.exitcode is not None:
            raise self._ended()

    def result(self, ticket: int) -> Batch | Exception:
        """What came of the first thing asked for with this ticket; what was asked for before is dropped."""
        while True:
            self._wait()
            try:
                message = self.line.recv()
                if message is None:
                    self.is_ready = True
                    continue
                answered, content = message
                if not isinstance(content, Exception):
                    content = _received(self.line, content)
            except (EOFError, ConnectionError) as error:
                raise self._ended() from error
            except (OSError, RuntimeError, pickle.UnpicklingError) as error:
                raise LoadingError(f"What a loading process sent cannot be read ({error}). {_AGAIN}") from error
            if answered == ticket:
                result: Batch | Exception = content
                return result

    def _wait(self) -> None:
        """Wait until there is something to read, as long as there is hope."""
        idle, before = 0, _activity(self.process.pid)
        # Seconds are counted by looks, so that those in which this process itself is suspended do not count.
        while not (known := wait([self.line, self.process.sentinel], 1.0)):
            now = _activity(self.process.pid)
            idle = 0 if now is not None and before is not None and now[1] - before[1] > 0.05 else idle + 1
            if idle == 0:
                before = now
            limit = _SECONDS_UNSEEN if now is None else _SECONDS_STOPPED if now[0] in "Tt" else SECONDS_AT_REST
            if idle >= limit:
                what = "was stopped by a signal" if now is not None and now[0] in "Tt" else "hangs"
                raise LoadingError(
                    f"A process that loads images {what}: for {idle} seconds it has neither computed nor delivered "
                    f"anything. Look whether the disk that holds the images answers. {_AGAIN}"
                )

        if self.line not in known:
            raise self._ended()

    def _ended(self) -> LoadingError:
        self.process.join(1.0)
        code = self.process.exitcode
        if not self.is_ready and multiprocessing.get_start_method() != "fork":
            return LoadingError(
                f"A process that loads images ended before it began (exit code {code}). Each process imports the "
                f"script: {_GUARD}. Or load images in this process, with 'workers' 0."
            )
        how = f"ended (exit code {code})"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            how += ", as systems do when memory runs out" if -code == signal.SIGKILL else ""
        return LoadingError(f"A process that loads images {how}. {_AGAIN}")


def _started(make: Callable[[int, int], Batch]) -> _Worker:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_work, args=(make, there), name="qpm-loader", daemon=True)
    try:
        process.start()
    except BaseException:
        here.close()
        raise
    finally:
        there.close()  # open in the process alone, whose end then ends the line
    return _Worker(process, here)


def _end(workers: list[_Worker], owner: int) -> None:
    if os.getpid() != owner:  # a fork, whose parent still needs them
        return
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join(1.0)
        worker.line.close()
    workers.clear()


# -- in the processes ----------------------------------------------------------------------------------------------


def _work(make: Callable[[int, int], Batch], line: Connection) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks for batches
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    try:
        line.send(None)
        while True:
            ticket, number, index = line.recv()
            try:
                batch = make(number, index)
            except Exception as error:  # noqa: BLE001  raised again where the batch is asked for
                line.send((ticket, _portable(error)))
            else:
                _send(line, ticket, batch)
    except (EOFError, BrokenPipeError, ConnectionError):
        pass  # nobody asks any more


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  whatever an error of others does when it is copied
        return LoadingError(f"Images could not be loaded ({type(error).__name__}: {error}).")
    return error if isinstance(error, QPMError) else LoadingError(f"{type(error).__name__}: {error}")


# -- batches from process to process -------------------------------------------------------------------------------

_Layout: TypeAlias = tuple[int, bool, list[tuple[int, tuple[int, ...], torch.dtype]]]
"""Bytes, whether they lie in memory that is shared, and offset, shape and dtype of each tensor."""


def _send(line: Connection, ticket: int, batch: Batch) -> None:
    tensors, end = [], 0
    for tensor in batch:
        tensors.append((end, tuple(tensor.shape), tensor.dtype))
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    memory = _anonymous(end)
    buffer: Any = bytearray(end) if memory is None else mmap.mmap(memory, end)
    for tensor, into in zip(batch, _laid_out(buffer, tensors), strict=True):
        into.copy_(tensor)
    layout: _Layout = (end, memory is not None, tensors)
    line.send((ticket, layout))
    if memory is None:
        line.send_bytes(buffer)
    else:
        try:
            send_handle(line, memory, os.getppid())
        finally:
            os.close(memory)


def _received(line: Connection, layout: _Layout) -> Batch:
    size, shared, tensors = layout
    if not shared:
        return _laid_out(bytearray(line.recv_bytes(size)), tensors)
    memory = recv_handle(line)
    try:
        buffer = mmap.mmap(memory, size)
    finally:
        os.close(memory)
    return _laid_out(buffer, tensors)


def _laid_out(buffer: Any, tensors: list[tuple[int, tuple[int, ...], torch.dtype]]) -> Batch:
    images, labels = (
        torch.frombuffer(buffer, dtype=dtype, count=torch.Size(shape).numel(), offset=offset).view(shape)
        for offset, shape, dtype in tensors
    )
    return images, labels


def _anonymous(size: int) -> int | None:
    """A file descriptor of memory that another process can be given, or None where there is no such thing."""
    if sys.platform != "linux":
        return None
    try:
        memory = os.memfd_create("qpm-batch")
    except OSError:  # as many files as allowed are open, or a sandbox forbids it
        return None
    try:
        os.ftruncate(memory, size)
    except OSError:
        os.close(memory)
        return None
    return memory


def _activity(pid: int) -> tuple[str, float] | None:
    """State of a process, such as "S" for sleeping, and seconds that it has computed; None where that is unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


# -- on the way to a GPU -------------------------------------------------------------------------------------------


def pinned_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches in pinned memory, which a thread copies them to while the one before is computed on."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(_AHEAD)
    left = threading.Event()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def put(item: Batch | BaseException | None) -> None:
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def fetch() -> None:
        try:
            if device is not None:
                torch.cuda.set_device(device)
            for batch in batches:
                put(in_pinned_memory(batch))
                if left.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001  raised where the batch is asked for
            put(error)

    thread = threading.Thread(target=fetch, name="qpm-pin", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        thread.join()


def in_pinned_memory(batch: Batch) -> Batch:
    """A batch in memory that a GPU copies from while the processor goes on; as it is where there is no GPU."""
    return (batch[0].pin_memory(), batch[1].pin_memory()) if torch.cuda.is_available() else batch
