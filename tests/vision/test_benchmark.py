"""The benchmark of extraction and training runs and prints its ratios."""

from __future__ import annotations

import pytest

from benchmarks.vision import main


def test_it_measures_both_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", "32", "--batch", "4", "--batches", "1", "--classes", "5", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "extraction: bare forward pass" in printed
    assert "training step: cross-entropy" in printed
