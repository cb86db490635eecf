"""The benchmarks of the vision side run and print their figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import html_report, scale
from benchmarks.chromium import chromium_path
from benchmarks.scale import GeneratedImages, Trace
from benchmarks.vision import main
from qpm_vision.run_folder import STAGES


def test_it_measures_all_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", "32", "--batch", "4", "--batches", "1", "--classes", "5", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "extraction: bare forward pass" in printed
    assert "training step: cross-entropy" in printed
    assert "times as fast" in printed


@pytest.mark.slow
@pytest.mark.skipif(chromium_path() is None, reason="no Chromium is installed on this machine")
def test_the_report_of_a_generated_run_keeps_its_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("playwright")
    assert html_report.main(["--classes", "60", "--run", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "report.html" in printed
    assert "slowest search, ms" in printed
    assert "MISSED" not in printed


# -- many images ---------------------------------------------------------------------------------------------------


def test_generated_images_are_the_same_again_and_tell_classes_apart() -> None:
    images, again = GeneratedImages(40, 20, seed=1), GeneratedImages(40, 20, seed=1)
    pixels = [np.asarray(images.image(position), dtype=float) for position in range(40)]
    for position in (39, 3):
        np.testing.assert_array_equal(again.image(position), pixels[position])
    assert images.labels.tolist()[:20] == images.labels.tolist()[20:]
    colours = [image.mean((0, 1)) for image in pixels]
    same_class = np.abs(colours[0] - colours[20]).max()
    assert 0 < same_class < 8
    assert np.abs(colours[0] - colours[1]).max() > 8


def test_a_small_scale_run_leaves_table_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two runs in this process: starting others and importing everything there would take longer than the runs.
    monkeypatch.setattr(scale, "_PARTS", (2, 1))
    monkeypatch.setattr(scale, "_in_fresh_process", lambda options, number: scale._watched_run(vars(options), number))
    backbone = ["--backbone", "tests.vision.tiny:tiny_backbone", "--size", "16", "--features", "7"]
    assert scale.main(["--quick", "--images", "200", "--classes", "10", *backbone, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in (*STAGES, "evaluating dense", "looking for the best images"):
        assert f"| {name} |" in printed
    assert (tmp_path / "scale_memory.png").stat().st_size > 10_000
    runs = json.loads((tmp_path / "scale.json").read_text())
    assert [number for number, _, _ in runs] == [100, 200]
    for number, _, progress in runs:
        assert progress["statistics"][-1][0] == number


def _trace(number: int, memory: float, slower: float) -> Trace:
    trace = Trace(number)
    trace.memory = [(stage, share, memory) for stage in STAGES for share in (0.0, 0.3, 0.9, 1.0)]
    half = number // 2
    for task in scale._TASKS:
        trace.progress[task] = [(0, 0.0), (half, half * 0.001), (number, half * 0.001 * (1 + slower))]
    return trace


@pytest.mark.parametrize(
    ("memory", "slower", "kept"), [(500.0, 1.0, True), (540.0, 1.0, False), (500.0, 1.3, False), (500.0, 0.7, True)]
)
def test_growing_memory_and_time_are_seen(memory: float, slower: float, kept: bool) -> None:
    table, judged = scale._judged([_trace(100, 500.0, 1.0), _trace(200, 500.0, 1.0), _trace(400, memory, slower)])
    assert judged is kept
    assert f"| {slower:.2f} |" in table
