"""Several processes that work on one run: who am I, sums over all of them, waiting for each other.

`torchrun` and `accelerate launch` start such processes and tell each who it is by environment variables. Everything
here also works, and does nothing, in a process that was started alone.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from qpm_opt import QPMError

if TYPE_CHECKING:
    from qpm_vision.data import ImageSet

__all__ = [
    "DistributedError",
    "from_main",
    "gathered",
    "has_gpu",
    "is_main",
    "local_rank",
    "process_group",
    "rank",
    "share",
    "sum_over_processes",
    "wait",
    "world_size",
]

Value = TypeVar("Value")

# While the first process solves and draws, the others wait for it.
_PATIENCE = timedelta(days=7)


_LOST = re.compile(r"gloo|nccl|DistBackendError|DistNetworkError|DistStoreError", re.IGNORECASE)


class DistributedError(QPMError):
    """Several processes that share a run cannot work together, or do so no more."""


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes of this run, and leave them at the end; nothing where there are none.

    Sums of tensors on GPUs go through NCCL, others through Gloo. A process computes on the GPU of its local rank.

    Raises:
        DistributedError: The others cannot be joined, or one of them ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    with_gpus = torch.cuda.is_available()
    if has_gpu():
        torch.cuda.set_device(local_rank())
    _end_with_launcher()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if with_gpus else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"The processes of this run cannot be joined ({_first_line(error)}). Start all of them with torchrun, or "
            "unset WORLD_SIZE to work alone."
        ) from error
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, QPMError) or not _LOST.search(f"{type(error).__name__} {error}"):
            raise
        raise DistributedError(
            f"Another process of this run ended or cannot be reached any more ({_first_line(error)}); it may say why. "
            "What is finished is kept, and the same command continues."
        ) from error
    finally:
        dist.destroy_process_group()


def _end_with_launcher() -> None:
    """End this process soon after torchrun has ended, were it by SIGKILL: the others are gone then, or about to go."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # a shell, for one, may end before the processes that it started
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="end_with_launcher", daemon=True).start()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". This is typically")[0]


def local_rank() -> int:
    """Number of this process among those of this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def has_gpu() -> bool:
    """Whether there is a GPU for this process alone."""
    return torch.cuda.is_available() and local_rank() < torch.cuda.device_count()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and talks."""
    return rank() == 0


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place; each must call it with a tensor of the same shape and dtype."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def gathered(value: Value) -> list[Value]:
    """What each process has, in the order of their ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_main(value: Value) -> Value:
    """What the first process has."""
    if world_size() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values)
    result: Value = values[0]
    return result


def share(images: ImageSet) -> ImageSet:
    """The images that fall to this process: each goes to one of them; all of them where it is alone."""
    if world_size() == 1:
        return images
    return images.subset(np.arange(rank(), len(images), world_size()))


def wait() -> None:
    """Go on when every process has come here."""
    if world_size() > 1:
        dist.all_reduce(torch.zeros(1))  # on the CPU, so that no GPU spins while it waits
