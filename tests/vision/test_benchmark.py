"""The benchmarks run and print what they measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import html_report
from benchmarks.chromium import chromium_path
from benchmarks.vision import main


def test_it_measures_both_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", "32", "--batch", "4", "--batches", "1", "--classes", "5", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "extraction: bare forward pass" in printed
    assert "training step: cross-entropy" in printed


@pytest.mark.slow
@pytest.mark.skipif(chromium_path() is None, reason="no Chromium is installed on this machine")
def test_the_report_of_a_generated_run_keeps_its_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("playwright")
    assert html_report.main(["--classes", "60", "--run", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "report.html" in printed
    assert "slowest search, ms" in printed
    assert "MISSED" not in printed
