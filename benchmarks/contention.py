"""What other processes on the machine cost: one thread, all threads and the default beside none, one and two of them.

    python -m benchmarks.contention [--part solver --part training --competitors 0 1 2 --turns N --image-size 128]

The solver's problem is one of maximum diversity, the 50 of 500 random points in space that are farthest from each
other (A = 0, r = largest distance − distance); the step of training is that of EfficientNet-Lite0 up to its fifth stage
with the diversity loss. "All threads" is what the libraries do when they are left alone. The three ways live in
processes of their own and take turns; their medians are printed, and how many times that of the better one of the first
two the default took. That should be at most 1.3; the exit status is 1 where it is more. A competitor is a process that
counts. Takes some three minutes on a machine without other work, whose load is printed with the rest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

_MOST = 1.3
"""How many times as long as the better one of one and all threads the default may take."""

_TIME_LIMIT = 20.0
"""Seconds after which a solve is stopped; it counts with them."""

_POINTS, _CHOSEN, _DIMENSIONS = 500, 50, 3
_BATCH = 16

WAYS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    # What GNU's OpenMP does by itself: once it is said in the environment, nothing changes it.
    "all threads": {"GOMP_SPINCOUNT": "300000"},
    "default": {},
}
"""Environments."""

_COUNT = "from itertools import count\nfor _ in count(): pass"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_NUMBERS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; the exit status says whether every ratio is small enough."""
    options = _options(arguments)
    if options.work:
        _work(options)
        return 0
    print(f"{os.cpu_count()} processors, load of the last minute before it began {os.getloadavg()[0]:.1f}\n")
    print("| what | competitors | one thread | all threads | default | default / better | at most 1.3 |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    met = True
    for part in options.part or list(PARTS):
        with ExitStack() as stack:
            ways = {way: stack.enter_context(_worker(way, part, options)) for way in WAYS}
            for number in options.competitors:
                with _competitors(number):
                    times = _in_turns(ways, options.turns or PARTS[part][1])
                ratio = times["default"] / min(times["one thread"], times["all threads"])
                met &= ratio <= _MOST
                figures = " | ".join(f"{times[way]:.2f} s" for way in WAYS)
                print(
                    f"| {part} | {number} | {figures} | {ratio:.2f} | {'yes' if ratio <= _MOST else 'no'} |", flush=True
                )
    return 0 if met else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contention", description=__doc__.partition("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="what to measure (default: both)")
    parser.add_argument("--competitors", type=int, nargs="+", default=[0, 1, 2], help="numbers of other processes")
    parser.add_argument("--turns", type=int, help="turns of the three ways (default: 2 of the solver, 7 of the step)")
    parser.add_argument("--image-size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--work", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _in_turns(ways: dict[str, Callable[[], float]], turns: int) -> dict[str, float]:
    """The median of each."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, measure in ways.items():
            times[way].append(measure())
    return {way: median(seconds) for way, seconds in times.items()}


@contextmanager
def _competitors(number: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", _COUNT]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


# -- the process of one way ----------------------------------------------------------------------------------------


@contextmanager
def _worker(way: str, part: str, options: argparse.Namespace) -> Iterator[Callable[[], float]]:
    """A process that does a piece of work whenever it is asked to; gives what asks it, and returns seconds."""
    command = [sys.executable, "-m", "benchmarks.contention", "--work", way, "--part", part]
    command += ["--image-size", str(options.image_size)]
    clean = {name: value for name, value in os.environ.items() if name not in _WAITING + _NUMBERS}
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        env={**clean, **WAYS[way]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asking, answers = process.stdin, process.stdout

        def measure() -> float:
            asking.write("\n")
            return float(answers.readline())

        try:
            measure()  # everything is imported, and warm
            yield measure
        finally:
            process.kill()


def _work(options: argparse.Namespace) -> None:
    work = PARTS[options.part[0]][0](options.work, options)
    for _ in sys.stdin:  # ends with the parent
        begin = time.perf_counter()
        work()
        print(time.perf_counter() - begin, flush=True)


def _solver(way: str, _options: argparse.Namespace) -> Callable[[], None]:
    from qpm_opt import solve_assignment

    redundancy = _spread_points()
    threads = {"one thread": 1, "all threads": os.cpu_count() or 1, "default": None}[way]

    def solve() -> None:
        solve_assignment(
            np.zeros((1, _POINTS)),
            redundancy,
            n_select=_CHOSEN,
            n_per_class=_CHOSEN,
            solver="decomposition",
            threads=threads,
            time_limit=_TIME_LIMIT,
        )

    return solve


def _spread_points() -> npt.NDArray[np.float64]:
    """Penalties of the problem of maximum diversity."""
    points = np.random.default_rng(0).uniform(0.0, 10.0, (_POINTS, _DIMENSIONS))
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    penalties: npt.NDArray[np.float64] = distances.max() - distances
    np.fill_diagonal(penalties, 0.0)
    return penalties


def _training(_way: str, options: argparse.Namespace) -> Callable[[], None]:
    import torch

    from qpm_vision import DenseClassifier, build_backbone, feature_diversity_loss

    model = DenseClassifier(build_backbone("efficientnet-lite0-local", weights="random"), 10).train()
    images = torch.randn(_BATCH, 3, options.image_size, options.image_size)
    labels = torch.arange(_BATCH) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        output = model(images)
        loss = torch.nn.functional.cross_entropy(output.logits, labels)
        loss = loss + feature_diversity_loss(output.maps, output.logits, model.weight, 0.196)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


PARTS: dict[str, tuple[Callable[[str, argparse.Namespace], Callable[[], None]], int]] = {
    "solver": (_solver, 2),
    "training step": (_training, 7),
}
"""What is measured, and in how many turns."""


if __name__ == "__main__":
    sys.exit(main())
