"""What explaining costs: extraction against the bare forward pass, training steps with and without the diversity loss.

    python -m benchmarks.vision [--backbone NAME --size 224 --batch 32 --batches 8 --classes 200 --device cpu
                                 --precision bfloat16 --compile]

Every pair is measured in turns on the same batches, so that a noisy machine disturbs both alike; the medians of both
and of the ratio within a turn are printed. The last pair is a training step of the whole backbone, and one with a
frozen backbone. `python -m benchmarks.streaming_similarity` compares class similarity with a loop over classes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from qpm_vision import DenseClassifier, FeatureStatistics, Locality, backbone_names, build_backbone
from qpm_vision import feature_diversity_loss as diversity
from qpm_vision.backbones import Backbone, adapter_alone, frozen_part
from qpm_vision.config import PRECISIONS
from qpm_vision.extraction import ExtractionSums

_WARM_UP = 2
_BETA = 0.196
_ADAPTER = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vision", description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="efficientnet-lite0", choices=backbone_names())
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="of the backbone")
    parser.add_argument("--compile", action="store_true", help="let PyTorch compile the backbone")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    how = options.precision + (", compiled" if options.compile else "")
    print(f"{options.backbone}, {options.batch} images of {options.size} pixels, {how}, {device.type} ({name})")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(options.batch, 3, options.size, options.size, generator=generator).to(device)
    labels = torch.randint(0, options.classes, (options.batch,), generator=generator).to(device)
    _report("extraction", *_extraction(options, images, labels), options.batch, "bare forward pass", "all statistics")
    _report("training step", *_training(options, images, labels), options.batch, "cross-entropy", "diversity loss too")
    plain, frozen, ratio = _frozen_training(options, images, labels)
    print(
        f"frozen backbone: a step of the whole {options.batch / plain:.1f} images/s, of an adapter "
        f"of {_ADAPTER} features on kept maps {options.batch / frozen:.1f} images/s, {1 / ratio:.1f} times as fast"
    )
    return 0


def _extraction(options: argparse.Namespace, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
    backbone = _prepared(build_backbone(options.backbone, weights="random"), options).eval().to(images.device)
    n_features = backbone.n_features
    sums = ExtractionSums(FeatureStatistics(options.classes, n_features), Locality(n_features))
    labels = labels.cpu()
    # A GPU works while the processor prepares what comes next, so that only a row of batches shows what is waited for.
    row = 16 if images.device.type == "cuda" else 1

    def bare() -> None:
        for _ in range(row):
            backbone(images)

    def full() -> None:
        for _ in range(row):
            maps = backbone(images)
            sums.add(maps, maps.mean((2, 3)), labels)
        sums.settled()  # what waits is part of the price

    with torch.no_grad():
        plain, full_time, ratio = _in_turns(bare, full, options.batches, images.device)
    return plain / row, full_time / row, ratio


def _training(options: argparse.Namespace, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
    step = _stepper(build_backbone(options.backbone, weights="random"), options, images, labels)
    return _in_turns(lambda: step(0.0), lambda: step(_BETA), options.batches, images.device)


def _frozen_training(options: argparse.Namespace, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """A step of the whole backbone against one of an adapter that takes kept maps in half precision."""
    whole = _stepper(build_backbone(options.backbone, weights="random"), options, images, labels)
    adapted = build_backbone(options.backbone, weights="random", adapter=_ADAPTER)
    frozen = frozen_part(adapted)
    assert frozen is not None
    with torch.no_grad():
        kept = frozen.to(images.device).eval()(images).half()
    alone = _stepper(adapter_alone(adapted), options, kept, labels)
    return _in_turns(lambda: whole(_BETA), lambda: alone(_BETA), options.batches, images.device)


def _prepared(backbone: Backbone, options: argparse.Namespace) -> Backbone:
    backbone.precision = getattr(torch, options.precision)
    if options.compile:
        backbone.module.compile()
    return backbone


def _stepper(
    backbone: Backbone, options: argparse.Namespace, inputs: Tensor, labels: Tensor
) -> Callable[[float], None]:
    model = DenseClassifier(_prepared(backbone, options), options.classes).train().to(inputs.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step(beta: float) -> None:
        output = model(inputs.float())
        loss = torch.nn.functional.cross_entropy(output.logits, labels)
        if beta:
            loss = loss + diversity(output.maps, output.logits, model.weight, beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _in_turns(
    first: Callable[[], None], second: Callable[[], None], times: int, device: torch.device
) -> tuple[float, float, float]:
    """Seconds of both and the ratio of the second to the first, each the median over the turns."""
    spent: tuple[list[float], list[float]] = ([], [])
    for number in range(_WARM_UP + times):
        for call, seconds in zip((first, second), spent, strict=True):
            _wait(device)
            begin = time.perf_counter()
            call()
            _wait(device)
            if number >= _WARM_UP:
                seconds.append(time.perf_counter() - begin)
    ratios = [more / less for less, more in zip(*spent, strict=True)]
    return median(spent[0]), median(spent[1]), median(ratios)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _report(what: str, plain: float, full: float, ratio: float, batch: int, plain_name: str, full_name: str) -> None:
    print(
        f"{what}: {plain_name} {batch / plain:.1f} images/s, {full_name} {batch / full:.1f} images/s, "
        f"{100 * (ratio - 1):+.1f} %"
    )


if __name__ == "__main__":
    sys.exit(main())
