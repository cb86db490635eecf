"""Names of classes and features in the pictures of a run, whatever is in them, and pictures that fail."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import qpm_vision
from qpm_vision import explain
from qpm_vision._progress import SilentReporter
from qpm_vision.explain.confusion import draw_confusion
from qpm_vision.explain.matrix import draw_matrix
from qpm_vision.explain.page import wrapped
from qpm_vision.pipeline import run
from qpm_vision.run_folder import STAGES
from tests.vision.conftest import Reported
from tests.vision.tiny import tiny_config

NAMES = ("Ba$$in", r"$\frac{x_1", "bell\x07 \u202etwo\nlines", "L" * 200)
SHOWN = ("Ba$$in", r"$\frac{x_1", "bell two lines", "LLLL")
FEATURES = (r"$\beta$ of $", "a^{", "[/red]", "F" * 60)


def drawn(figure: Figure) -> str:
    """Draw it, so that text that cannot be drawn fails, and return all of its text."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(figure).draw()
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())
    return "\n".join(text.get_text() for text in texts)


def test_all_pictures_show_names_letter_by_letter(reported: Reported) -> None:
    explainer = explain.load_explainer(reported.folder, data=reported.data)
    explainer.class_names = NAMES
    explainer.feature_names = dict(zip(explainer.selected.tolist(), FEATURES, strict=True))
    candidates = replace(explain.load_candidates(reported.folder, data=reported.data), class_names=NAMES)
    predictor = replace(qpm_vision.load_model(reported.folder, device="cpu"), class_names=NAMES)

    own = Figure(figsize=(8, 8))
    found = [
        drawn(explain.plot_class(explainer, 0, own)[0]),
        drawn(explain.plot_comparison(explainer, 0, 1)[0]),
        drawn(explain.plot_overview(explainer)[0]),
        drawn(explain.plot_feature(explainer, int(explainer.selected[0]))[0]),
        drawn(explain.plot_candidate(candidates, 0)[0]),
        drawn(predictor.explain(reported.data.test.image(0)).plot()[0]),
        drawn(explain.plot_matrix(explainer)[0]),
    ]
    text = "\n".join(found)
    for name in (*SHOWN, *FEATURES[:3]):
        assert name in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "L" * 50 not in text


def test_long_names_of_features_leave_room_for_the_matrix() -> None:
    figure, ax = draw_matrix([[1, 0], [0, 1]], ["a", "b"], ["F" * 300, "G" * 300])
    drawn(figure)
    assert ax.get_position().height * figure.get_figheight() > 0.4


def test_the_beginning_of_a_long_name_is_kept() -> None:
    assert wrapped("L" * 50 + ", second", 22, 1) == "L" * 20 + " …"
    assert wrapped("a wren and another wren", 22, 1) == "a wren and another …"
    assert wrapped("a wren", 22, 1) == "a wren"


def test_a_picture_that_fails_costs_nothing_else(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all others are drawn, whatever the classes are called."""

    def fail(*_: object) -> None:
        raise ValueError("no such glyph")

    said: list[str] = []

    class Told(SilentReporter):
        def message(self, text: str) -> None:
            said.append(text)

    copy = tmp_path / "run"
    shutil.copytree(reported.folder.path, copy)
    for picture in (copy / "figures").iterdir():
        picture.unlink()
    monkeypatch.setattr("qpm_vision.pipeline.plot_comparison", fail)
    folder = run(tiny_config(), copy, data=reported.data, reporter=Told(), redo="explanation")
    assert list(folder.stages()) == list(STAGES)
    assert {path.stem for path in folder.figures.iterdir()} == {"classes", "assignment", "confusion", "convergence"}
    (note,) = [text for text in said if "could not be drawn" in text]
    assert "figures/comparison.png" in note
    assert "no such glyph" in note
    assert "--redo explanation" in note


def test_a_long_name_without_spaces_keeps_its_beginning_beside_the_confusion() -> None:
    figure = draw_confusion(np.diag([1, 2]), ["Donau" + "dampf" * 40, "one two"])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["Donaudampfdampfdampfdam…", "one two"]
