"""Whether memory and time for an image stay the same however many images there are.

    python -m benchmarks.scale                       # 1,000 classes, 12,500, 25,000 and 50,000 images
    python -m benchmarks.scale --quick               # seconds

Whole runs on images that are generated when they are read, each in a process of its own: one epoch of both trainings,
statistics, an assignment with a time limit, evaluation and pictures. Resident memory is sampled all along; time is that
of the processor, which other work on the machine disturbs less than the clock. Ends with exit status 1 where the memory
of a stage grows with the images, or the time for an image grows on the way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from qpm_vision import ImageData, RunConfig, TrainingSettings, backbone_names, run
from qpm_vision._progress import SilentReporter
from qpm_vision.data import ImageSet
from qpm_vision.evaluation import MOST_VALUES
from qpm_vision.run_folder import STAGES

__all__ = ["GeneratedImages", "main"]

MOST_GROWTH = 32.0
"""MB by which a stage's peak may differ between a quarter of the images and all: labels, order, the allocator."""

ALLOWED = dict.fromkeys(("evaluation", "explanation"), 4 * MOST_VALUES / 2**20)
"""MB on top of that. Contrastiveness keeps the values of features up to this bound, from which on it draws a sample;
what it frees may stay with the allocator in the stage behind.
"""

MOST_SLOWER = 1.15
"""Time for an image in the second half of a pass over that in the first half, at most."""

_BATCH = 64
_COLOURS = ("#56b4e9", "#e69f00", "#0072b2")
_SECONDS_BETWEEN_SAMPLES = 0.1
_PARTS = (4, 2, 1)
_TEST_SHARE = 10
_SIDE = 32
_STEPS_OF_A_CLASS = 10
_PLACES = np.array([1, _STEPS_OF_A_CLASS, _STEPS_OF_A_CLASS**2])
_CHANNELS = np.array([0, 2, 4]) * np.pi / 3
_Y, _X = (np.mgrid[:_SIDE, :_SIDE] / _SIDE - 0.5).astype(np.float32)
_TASKS = ("dense", "statistics", "fine-tuning", "evaluating dense", "evaluating qpm", "looking for the best images")


class GeneratedImages(ImageSet):
    """Images of 32 × 32 pixels that are drawn when they are asked for; the same for the same seed and position.

    A class is three digits: the colour of the ground, the direction of stripes, the place of a spot. Each image has a
    noise of its own and another phase of the stripes.
    """

    def __init__(self, number: int, n_classes: int, seed: int) -> None:
        super().__init__(np.arange(number) * 7 % n_classes, [f"class {index}" for index in range(n_classes)])
        self._seed = seed

    def image(self, position: int) -> Image.Image:
        """An image, 8-bit RGB."""
        rng = np.random.default_rng([self._seed, position])
        digits = self.labels[position] // _PLACES % _STEPS_OF_A_CLASS
        colour, direction, place = (digits * (2 * np.pi / _STEPS_OF_A_CLASS)).tolist()
        along = _X * math.cos(direction / 2) + _Y * math.sin(direction / 2)
        grey = 30 * np.sin(20 * along + np.float32(rng.uniform(0, 6)))
        grey += 120 * np.exp(-100 * ((_X - 0.3 * math.cos(place)) ** 2 + (_Y - 0.3 * math.sin(place)) ** 2))
        ground = 108 + 60 * np.cos(colour + _CHANNELS)
        pixels = rng.integers(0, 40, (_SIDE, _SIDE, 3), dtype=np.uint8) + (grey[..., None] + ground.astype(np.float32))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def name(self, position: int) -> str:
        """`generated` and the position."""
        return f"generated {position}"


@dataclass
class Trace:
    """What was seen of one run.

    Attributes:
        n_images: Training images.
        memory: (stage, share of the stage's clock time, resident memory in MB), over time.
        progress: By task, (images done, seconds of the processor since the run began).
    """

    n_images: int
    memory: list[tuple[str, float, float]] = field(default_factory=list)
    progress: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def peak(self, stage: str) -> float:
        """The largest memory of a stage."""
        return max(memory for name, _, memory in self.memory if name == stage)

    def growth(self, stage: str) -> float:
        """By how much memory is higher in the last fifth of a stage than in its second one, at the median."""
        early, late = (
            [memory for name, share, memory in self.memory if name == stage and begin <= share < begin + 0.2]
            for begin in (0.2, 0.8)
        )
        return float(np.median(late) - np.median(early)) if early and late else 0.0

    def cost(self, task: str, begin: float = 0.0, end: float = 1.0) -> float:
        """Milliseconds of the processor for an image, between two shares of a pass."""
        points = np.array(self.progress[task])
        seconds = np.interp(np.array([begin, end]) * points[-1, 0], points[:, 0], points[:, 1])
        return float(1000 * (seconds[1] - seconds[0]) / ((end - begin) * points[-1, 0]))

    def slowdown(self, task: str) -> float:
        """Cost of an image in the second half of a pass over that in the first half, its very beginning left out."""
        return self.cost(task, 0.5, 1.0) / self.cost(task, 0.05, 0.5)


class _Watch(SilentReporter):
    """Notes how far a run is, and samples the memory of this process in a thread."""

    def __init__(self, n_images: int) -> None:
        self._trace = Trace(n_images)
        self._stage = ""
        self._samples: list[tuple[str, float, float]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def message(self, text: str) -> None:
        """Follow the stages."""
        stage = text.removesuffix(" …")
        if stage in STAGES:
            self._stage = stage
            self._note()
        elif " done in " in text:
            self._note()
            self._stage = ""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:  # noqa: ARG002
        """Note how many images of a pass are done; a training counts steps."""
        if task in _TASKS:
            images = done * _BATCH if task in STAGES[::3] else done
            self._trace.progress.setdefault(task, [(0, time.process_time())]).append((images, time.process_time()))

    def measured(self) -> Trace:
        """End the sampling."""
        self._end.set()
        self._thread.join()
        for stage in STAGES:
            samples = [(moment, memory) for name, moment, memory in self._samples if name == stage]
            begin, end = samples[0][0], samples[-1][0]
            self._trace.memory += [(stage, (moment - begin) / max(end - begin, 1e-9), mb) for moment, mb in samples]
        return self._trace

    def _sample(self) -> None:
        while not self._end.wait(_SECONDS_BETWEEN_SAMPLES):
            self._note()

    def _note(self) -> None:
        if self._stage:
            self._samples.append((self._stage, time.monotonic(), _resident_memory()))


def _resident_memory() -> float:
    """MB of this process now (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--images", type=int, default=50_000, help="training images of the largest run")
    parser.add_argument(
        "--backbone", default="timm:test_efficientnet", help=f"{', '.join(backbone_names())}, timm:NAME"
    )
    parser.add_argument("--size", type=int, default=48, help="side to which the images are scaled")
    parser.add_argument("--features", type=int, default=50, help="features that are kept, 5 for each class")
    parser.add_argument("--solve-seconds", type=float, default=20.0)
    parser.add_argument("--quick", action="store_true", help="other defaults: 20 classes, 800 images; no judgement")
    parser.add_argument("--out", type=Path, default=Path("results/scale"))
    if parser.parse_known_args(arguments)[0].quick:
        parser.set_defaults(classes=20, images=800, size=32, features=10, solve_seconds=1.0)
    options = parser.parse_args(arguments)
    if options.images < _PARTS[0] * options.classes:
        parser.error(f"--images must be at least {_PARTS[0]} times --classes. Got {options.images}.")
    options.out.mkdir(parents=True, exist_ok=True)
    traces = []
    for part in _PARTS:
        traces.append(_in_fresh_process(options, options.images // part))
        print(f"{traces[-1].n_images} images done", flush=True)
    rows = [(trace.n_images, trace.memory, trace.progress) for trace in traces]
    (options.out / "scale.json").write_text(json.dumps(rows), encoding="utf-8")
    table, kept = _judged(traces)
    (options.out / "scale.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    print(_draw(traces, options.out / "scale_memory.png"))
    return 0 if kept or options.quick else 1


def _in_fresh_process(options: argparse.Namespace, n_images: int) -> Trace:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_watched_run, (vars(options), n_images))


def _watched_run(options: dict[str, Any], n_images: int) -> Trace:
    torch.set_num_threads(1)
    short = TrainingSettings(epochs=1, batch_size=_BATCH, augmentation="none", learning_rate=0.05)
    config = RunConfig(
        "generated",
        backbone=options["backbone"],
        weights="random",
        size=options["size"],
        n_select=options["features"],
        dense=short,
        fine_tuning=short,
        threshold="turan",
        solve_seconds=options["solve_seconds"],
        device="cpu",
    )
    train, test = (
        GeneratedImages(number, options["classes"], seed)
        for seed, number in enumerate((n_images, n_images // _TEST_SHARE))
    )
    watch = _Watch(n_images)
    folder = options["out"] / f"run-{n_images}-{time.time_ns()}"
    run(
        config,
        folder,
        data=ImageData("generated", train=train, test=test, class_names=train.class_names),
        reporter=watch,
    )
    return watch.measured()


def _judged(traces: Sequence[Trace]) -> tuple[str, bool]:
    """Two tables, and whether nothing grows."""
    kept = True
    head = [f"{trace.n_images:,} images" for trace in traces]
    lines = ["| peak memory, MB | " + " | ".join(head) + " | growth within | flat |", "|" + " --- |" * (len(head) + 3)]
    for stage in STAGES:
        peaks = [trace.peak(stage) for trace in traces]
        within = traces[-1].growth(stage)
        flat = peaks[-1] - peaks[0] <= MOST_GROWTH + ALLOWED.get(stage, 0.0)
        kept &= flat
        cells = [stage, *(f"{peak:.0f}" for peak in peaks), f"{within:+.0f}", "yes" if flat else "no"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| ms for an image | " + " | ".join(head) + " | second half / first | flat |"]
    lines.append("|" + " --- |" * (len(head) + 3))
    for task in _TASKS:
        slower = traces[-1].slowdown(task)
        flat = slower <= MOST_SLOWER
        kept &= flat
        cells = [task, *(f"{trace.cost(task):.2f}" for trace in traces), f"{slower:.2f}", "yes" if flat else "no"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines), kept


def _draw(traces: Sequence[Trace], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1)
    for trace, colour in zip(traces, _COLOURS, strict=False):
        label = f"{trace.n_images:,} images"
        places = [STAGES.index(stage) + share for stage, share, _ in trace.memory]
        above.plot(places, [memory for _, _, memory in trace.memory], color=colour, label=label, linewidth=1.2)
        for number, task in enumerate(_TASKS):
            edges = np.linspace(0, 1, 11)
            costs = [trace.cost(task, *pair) for pair in itertools.pairwise(edges)]
            below.plot(number + (edges[:-1] + edges[1:]) / 2, costs, color=colour, linewidth=1.2)
    for axes, names in ((above, STAGES), (below, _TASKS)):
        axes.set_xticks(np.arange(len(names)) + 0.5, names)
        axes.tick_params(axis="x", length=0, labelsize=8)
        for border in range(1, len(names)):
            axes.axvline(border, color="0.85", linewidth=0.8, zorder=0)
        axes.set_xlim(0, len(names))
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    above.set_ylabel("resident memory, MB")
    above.legend(frameon=False, loc="lower right")
    below.set_ylabel("processor time for an image, ms")
    figure.savefig(path, dpi=130)
    return path


if __name__ == "__main__":
    sys.exit(main())
