"""PyTorch's threads beside other processes: how many there are, and that those which wait leave the processor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from threadpoolctl import threadpool_info
from torch import nn

from qpm_vision import Backbone, openmp


@pytest.fixture(autouse=True)
def _number_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in openmp._NUMBER + openmp._WAITING:
        monkeypatch.delenv(name, raising=False)


def _share() -> None:
    Backbone(nn.Conv2d(3, 4, 1), n_features=4)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor is shared with nobody")
@pytest.mark.skipif(any(name in os.environ for name in openmp._WAITING), reason="the environment says how to wait")
def test_threads_that_wait_leave_the_processor() -> None:
    if "libgomp" not in {info["prefix"] for info in threadpool_info()}:
        pytest.skip("PyTorch has another OpenMP")
    _share()
    torch.set_num_threads(2)
    numbers = torch.ones(100_000)
    numbers.add_(1)
    before = time.process_time() - time.thread_time()
    for _ in range(100):
        numbers.add_(1)  # shared by two threads
        time.sleep(0.003)  # while one of them waits for more to do
    assert time.process_time() - time.thread_time() - before < 0.1


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("name", openmp._WAITING)
def test_what_the_environment_says_about_waiting_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[str] = []
    monkeypatch.setattr(openmp, "_wait_briefly", lambda file, _: waiting.append(file))
    monkeypatch.setenv(name, "1000")
    _share()
    assert not waiting
    monkeypatch.delenv(name)
    _share()
    assert waiting


def test_the_threads_of_llvm_and_intel_are_told_to_wait_briefly() -> None:
    told: list[int] = []
    openmp._wait_briefly("libiomp5.so", SimpleNamespace(kmp_set_blocktime=told.append, GOMP_parallel=None))
    assert told == [0]


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(
    ("has", "available", "environment", "expected"),
    [
        (8, 8, {}, 8),
        (8, 2, {}, 2),  # PyTorch's own number, in a container with a quota
        (4, 2, {}, 2),  # a thread for each core of two processors
        (3, 2, {}, 3),  # torch.set_num_threads
        (1, 2, {}, 1),
        (8, 2, {"OMP_NUM_THREADS": "8"}, 8),
        (8, 2, {"MKL_NUM_THREADS": "8"}, 8),
    ],
)
def test_there_are_no_more_threads_than_processors_unless_somebody_wants_them(
    has: int, available: int, environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(openmp, "available_processors", lambda: available)
    monkeypatch.setattr(openmp, "_wait_briefly", lambda _file, _library: None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    torch.set_num_threads(has)
    _share()
    assert torch.get_num_threads() == expected
