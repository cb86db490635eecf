"""Streaming class similarity against a plain loop over classes: time, extra memory, agreement.

    python -m benchmarks.streaming_similarity [--images 100000 --features 2048 --classes 1000]

The plain way keeps all features and correlates them, class after class, with the indicator of the class; its time is
measured on a few classes and scaled linearly to all of them. The memory of the streaming way is what a fresh process
needs at its peak beyond its input. Ends with exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from qpm_vision.statistics import class_similarity

AGREEMENT = 1e-9


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table; the exit status says whether every target was met."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    if options.only_memory:
        print(json.dumps(_extra_memory(options)))
        return 0
    memory = _in_fresh_process(sys.argv[1:] if arguments is None else arguments)
    features, labels = _inputs(options)
    A, streaming = np.empty((0, 0)), float("inf")
    for _ in range(options.repeats):
        begin = time.perf_counter()
        A = class_similarity(features, labels, n_classes=options.classes)
        streaming = min(streaming, time.perf_counter() - begin)
    sample = np.random.default_rng(1).choice(options.classes, min(options.sample, options.classes), replace=False)
    begin = time.perf_counter()
    rows = _plain_rows(features, labels, sample)
    plain = (time.perf_counter() - begin) * options.classes / len(sample)
    # The plain rows lack the common divisor, the largest entry of all rows: compare them up to one factor.
    factor = np.abs(rows).max() / np.abs(A[sample]).max()
    difference = float(np.abs(rows - A[sample] * factor).max())
    ratio = plain / streaming
    results = [
        ("time, streaming", f"{streaming:.3f} s", f"best of {options.repeats}, all {options.classes} classes", True),
        ("time, plain loop", f"{plain:.1f} s", f"scaled linearly from {len(sample)} classes", True),
        ("ratio", f"{ratio:.0f} x", f"target >= {options.min_ratio:g} x", ratio >= options.min_ratio),
        (
            "extra memory, streaming",
            f"{memory:.1f} MB",
            f"target <= {options.max_memory:g} MB",
            memory <= options.max_memory,
        ),
        ("difference", f"{difference:.1e}", f"target <= {AGREEMENT:g}", difference <= AGREEMENT),
    ]
    print(
        f"{options.images} images x {options.features} features x {options.classes} classes, float32, "
        f"{features.nbytes / 1e6:.0f} MB, {options.threads} threads"
    )
    for name, figure, note, met in results:
        print(f"{name:<24}{figure:>12}   {note:<40}{'' if met else 'MISSED'}".rstrip())
    return 0 if all(met for *_, met in results) else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--sample", type=int, default=10, help="classes that the plain loop is timed on")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the streaming way, of which the best counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--min-ratio", type=float, default=50.0)
    parser.add_argument("--max-memory", type=float, default=200.0, help="MB")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _inputs(options: argparse.Namespace) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features like those after a ReLU, some of which follow a class; drawn in place, one array and no copy."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, options.classes, options.images)
    features = np.empty((options.images, options.features), dtype=np.float32)
    for begin in range(0, options.images, 1024):
        block = features[begin : begin + 1024]
        rng.standard_normal(dtype=np.float32, out=block)
        np.maximum(block, 0, out=block)
        block[np.arange(len(block)), labels[begin : begin + 1024] % options.features] += 1
    return features, labels


def _plain_rows(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Pearson correlation of every stored feature with the indicator of each class, one class after the other.

    The sums over features that no class changes (their means and variances) are formed again for every class, as a loop
    over `pearsonr` does, yet for all features at once and by matrix products, with no Python loop over features.
    """
    rows = []
    for c in classes:
        indicator = (labels == c).astype(np.float64)
        indicator -= indicator.mean()
        mean = features.mean(axis=0, dtype=np.float64)
        products, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1])
        for begin in range(0, len(features), 256):
            centred = features[begin : begin + 256] - mean
            products += indicator[begin : begin + 256] @ centred
            squares += np.einsum("if,if->f", centred, centred)
        rows.append(products / np.sqrt(squares * (indicator @ indicator)))
    return np.array(rows)


def _extra_memory(options: argparse.Namespace) -> float:
    """Peak resident memory in MB that the streaming way adds to this process, beyond its input."""
    features, labels = _inputs(options)
    class_similarity(features[:64], labels[:64] % 2)
    before = _peak_memory()
    class_similarity(features, labels, n_classes=options.classes)
    return _peak_memory() - before


def _peak_memory() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def _in_fresh_process(arguments: list[str]) -> float:
    command = [sys.executable, "-m", "benchmarks.streaming_similarity", *arguments, "--only-memory"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
