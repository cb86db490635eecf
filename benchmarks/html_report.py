"""The HTML report of a large run: how long it takes, how large it is, how fast a browser shows and searches it.

    python -m benchmarks.html_report [--classes 1000 --run DIR --folder]

The run is generated: images of 112 pixels with the spectrum of photographs and a few shapes that depend on the class, a
small backbone of random weights, an epoch of training. It is kept in DIR (default: results/html-report/run) and used
again. Limits for 1,000 classes: 3 minutes, 60 MB, first paint after 2 s, an answer of the search after 100 ms.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.chromium import open_chromium
from qpm_vision import RunConfig, RunFolder, register_backbone, run, write_report
from qpm_vision._progress import make_reporter
from qpm_vision.backbones import Backbone
from qpm_vision.data import ArrayImages, ImageData
from qpm_vision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = 112
BACKBONE = "generated-for-report"
_FEATURES = 128
_PER_CLASS = (8, 2)
"""Training and test images of a class."""
_SHAPES = 24
_TIMES = 5
"""Every search is repeated as often, and the median taken: other work on the machine delays frames."""
_SEARCHES = ("class 09", "0837", "feature 1", "zzz", "a")


def generated_data(n_classes: int, seed: int = 0) -> ImageData:
    """Images that compress about as badly as photographs: 1/f noise, and on it three shapes that tell the class."""
    names = tuple(f"class {index:04d}" for index in range(n_classes))
    rng = np.random.default_rng(seed)
    bank = np.stack([_clouds(rng) for _ in range(64)])
    shapes = rng.integers(0, 256, (_SHAPES, 3), dtype=np.uint8), rng.integers(0, SIZE - 24, (_SHAPES, 2))
    chosen = np.stack([rng.choice(_SHAPES, 3, replace=False) for _ in range(n_classes)])
    train, test = (_images(count, names, bank, shapes, chosen, rng) for count in _PER_CLASS)
    return ImageData(name="generated", train=train, test=test, class_names=names, divided=True)


def _clouds(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Noise whose amplitude falls with the frequency, in three correlated colours, (SIZE, SIZE, 3) around 0."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None, :])
    amplitude = 1 / np.maximum(frequency, 1 / SIZE)
    layers = [np.fft.ifft2(amplitude * np.fft.fft2(rng.standard_normal((SIZE, SIZE)))).real for _ in range(4)]
    grey, *colours = (layer / layer.std() for layer in layers)
    return np.stack([45 * grey + 12 * colour for colour in colours], axis=2).astype(np.float32)


def _images(
    per_class: int,
    names: tuple[str, ...],
    bank: npt.NDArray[np.float32],
    shapes: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]],
    chosen: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> ArrayImages:
    colours, places = shapes
    labels = np.repeat(np.arange(len(names)), per_class)
    pixels = np.empty((len(labels), SIZE, SIZE, 3), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        cloud = np.roll(bank[rng.integers(len(bank))], rng.integers(0, SIZE, 2), axis=(0, 1))
        image[:] = np.clip(120 + cloud, 0, 255)
        for shape in chosen[label]:
            top, left = places[shape] + rng.integers(-6, 7, 2).clip(-places[shape].min(), 0)
            image[top : top + 18, left : left + 18] = (
                image[top : top + 18, left : left + 18] // 3 + colours[shape] // 3 * 2
            )
    return ArrayImages(pixels, labels, names)


def generated_backbone() -> Backbone:
    """128 features on 7 × 7 maps, of random weights."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 24, 7, stride=4, padding=3),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(48, _FEATURES, 3, stride=2, padding=1),
        nn.ReLU(),
    )
    preprocessing = Preprocessing(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Backbone(module, n_features=_FEATURES, preprocessing=preprocessing)


def generated_run(folder: Path, data: ImageData) -> RunFolder:
    """A finished run of the whole pipeline on these data, at the least effort; continued where it was left."""
    register_backbone(BACKBONE, generated_backbone)
    config = RunConfig(
        "generated", backbone=BACKBONE, n_select=50, n_per_class=5, solve_seconds=20.0, threshold="turan", device="cpu"
    )
    short: dict[str, Any] = {"epochs": 1, "least_steps": 0, "batch_size": 64, "augmentation": "none"}
    tuned = replace(config.fine_tuning, **short, learning_rate=1e-5)  # random features bear no larger one
    config = replace(config, dense=replace(config.dense, **short), fine_tuning=tuned)
    return run(config, folder, data=data, reporter=make_reporter())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status is 1 where a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.html_report", description=__doc__.partition("\n")[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--run", type=Path, default=Path("results/html-report/run"), help="folder of the run")
    parser.add_argument("--folder", action="store_true", help="write a folder whose images are files of their own")
    options = parser.parse_args(arguments)
    data = generated_data(options.classes)
    folder = generated_run(options.run, data)
    began = time.perf_counter()
    written = write_report(folder, folder=options.folder, data=data, device="cpu", reporter=make_reporter())
    results = {"report, s": (time.perf_counter() - began, 180.0), "size, MB": (written.n_bytes / 1e6, 60.0)}
    print(written)
    with open_chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        results |= measured(page, written.path)
    for name, (value, limit) in results.items():
        print(f"{name:<24} {value:10.2f}   limit {limit:g}{'' if value <= limit else '   MISSED'}")
    return int(any(value > limit for value, limit in results.values()))


def measured(page: Page, path: Path) -> dict[str, tuple[float, float]]:
    """How fast a browser shows and searches a page: value and limit by name."""
    page.goto(path.resolve().as_uri(), wait_until="commit")
    page.wait_for_selector(".matrix tbody th")
    painted = page.evaluate(
        """() => new Promise((resolve) => new PerformanceObserver((list, observer) => {
            const entry = list.getEntriesByName("first-contentful-paint")[0];
            if (entry) { observer.disconnect(); resolve(entry.startTime); }
        }).observe({ type: "paint", buffered: true }))"""
    )
    shown = page.evaluate("() => performance.getEntriesByName('first-view')[0].startTime")
    page.wait_for_load_state("load")
    loaded = page.evaluate("() => performance.getEntriesByType('navigation')[0].loadEventEnd")
    answers = [median(_answer(page, text) for _ in range(_TIMES)) for text in _SEARCHES]
    return {
        "first paint, s": (painted / 1000, 2.0),
        "overview shown, s": (shown / 1000, 2.0),
        "all loaded, s": (loaded / 1000, 10.0),
        "slowest search, ms": (max(answers), 100.0),
    }


def _answer(page: Page, text: str) -> float:
    """Milliseconds from typing a text to the painted answer."""
    return float(
        page.evaluate(
            """(text) => new Promise((resolve) => {
                const field = document.getElementById("search");
                field.focus();
                field.value = text;
                const began = performance.now();
                field.dispatchEvent(new Event("input"));
                requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
            })""",
            text,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
