"""Text in pictures stands there as it was written, whatever is in it."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from qpm_opt import Assignment, drawable, literal_text, solve_assignment
from qpm_opt._plots import draw_sweep

HOSTILE = ["Ba$$in", "a$b$c", r"$\frac{", r"$\alpha$", "x_{y^2}", "100%", "_hidden", r"\textbf{a} & b"]
UNDRAWABLE = {"two\nlines": "two lines", "bell\x07\x1b[31m": "bell[31m", "\u202egnp.exe": "gnp.exe", "\x07": "U+0007"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result() -> Assignment:
    solved = solve_assignment(
        np.random.default_rng(0).random((8, 12)), n_select=6, n_per_class=2, solver="local_search"
    )
    features = [*HOSTILE, *UNDRAWABLE]
    return replace(solved, class_labels=tuple(HOSTILE), feature_labels=tuple(features))


def drawn(figure: Figure) -> set[str]:
    """Draw it, so that text that cannot be drawn fails, and return all of its text."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that no font has is a warning
        FigureCanvasAgg(figure).draw()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        assert not text.get_text() or not any(mark in text.get_text() for mark in "$\\") or not text.get_parse_math()
    return {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}


@pytest.mark.parametrize("given", [False, True])
def test_names_in_a_matrix_are_no_formulas(result: Assignment, given: bool) -> None:
    ax = Figure(layout="constrained").subplots()
    ax.set_title("drawn before", fontsize=5)
    FigureCanvasAgg(ax.figure).draw()  # type: ignore[arg-type] # its ticks are there already
    figure, _ = result.plot("matrix", ax if given else Figure(layout="constrained").subplots())
    found = drawn(figure)
    assert set(HOSTILE) <= found
    shown = {str(label) for label in result.selected_labels}
    assert {UNDRAWABLE.get(label, label) for label in shown} <= found


def test_a_solver_in_a_title_is_no_formula(result: Assignment) -> None:
    figure, ax = replace(result, solver="my$solver$_1").plot("convergence", Figure().subplots())
    assert ax.get_title().startswith("my$solver$_1")
    drawn(figure)


def test_a_long_name_leaves_room_for_the_matrix(result: Assignment) -> None:
    long = replace(result, class_labels=tuple(f"{number} " + "long " * 60 for number in range(8)))
    figure, ax = long.plot("matrix", Figure(figsize=(6, 4), layout="constrained").subplots())
    drawn(figure)
    assert ax.get_position().width > 0.3


def test_other_text_of_a_figure_stays_as_it_was(result: Assignment) -> None:
    own, other = Figure().subplots(1, 2)
    other.set_title("$x^2$")
    result.plot("matrix", own)
    assert other.title.get_parse_math()
    assert not own.title.get_parse_math()


def test_text_is_literal_also_where_latex_draws_all_other(result: Assignment) -> None:
    with mpl.rc_context({"text.usetex": True}):
        _, ax = result.plot("matrix", Figure().subplots())
        assert not any(label.get_usetex() for label in (ax.title, *ax.get_xticklabels(), *ax.get_yticklabels()))


def test_numbers_may_be_written_as_mathematics() -> None:
    """Their text is made by matplotlib when it draws."""

    @literal_text
    def draw() -> Figure:
        figure = Figure()
        ax = figure.subplots()
        ax.loglog([1, 1000], [1, 1000], label="_shown$")
        ax.set_title("$")
        return figure

    figure = draw()
    FigureCanvasAgg(figure).draw()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert labels
    assert all(label.get_parse_math() for label in labels)


@pytest.mark.parametrize(("text", "shown"), UNDRAWABLE.items())
def test_what_cannot_be_drawn_is_left_out(text: str, shown: str) -> None:
    assert drawable(text) == shown
    assert drawable(drawable(text)) == shown


@pytest.mark.parametrize("text", [*HOSTILE, "", "[red]", "()", "50 %"])
def test_what_can_be_drawn_is_kept(text: str) -> None:
    assert drawable(text) == text


def test_halves_of_characters_are_left_out() -> None:
    assert drawable("caf\udce9") == "caf"
    assert drawable("\udce9") == "U+DCE9"


def test_labels_in_latex_survive_a_table(result: Assignment) -> None:
    pytest.importorskip("jinja2")
    table = result.to_frame().to_latex(escape=True)
    assert r"x\_\{y\textasciicircum 2\}" in table
    assert r"100\%" in table


def test_every_function_that_draws_is_literal() -> None:
    """What returns a figure draws literally, hands on what another one drew, or makes an empty one."""
    hand_on = {"plot", "new_figure", "new_page", "_picture_class", "draw_convergence"}
    for path in [*(ROOT / "qpm_opt").rglob("*.py"), *(ROOT / "qpm_vision").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if re.search(r"-> .*\bFigure\b", text) else ():
            if not isinstance(node, ast.FunctionDef) or node.name in hand_on or node.name.startswith("plot_"):
                continue
            if node.returns is not None and re.search(r"\bFigure\b", ast.unparse(node.returns)):
                decorators = [ast.unparse(item) for item in node.decorator_list]
                assert "literal_text" in decorators, f"{path}: {node.name}"


def test_a_sweep_is_drawn(tmp_path: Path) -> None:
    import pandas as pd

    row = {"n_select": 4, "penalised": "given", "n_per_class": 2, "objective": 1.0, "bound": 1.1}
    row |= {"similarity": 1.0, "lost_to_redundancy": 0.1, "lost_to_uniqueness": 0.0}
    figure = draw_sweep(pd.DataFrame([row, {**row, "n_select": 6}]))
    assert "2 per class" in drawn(figure)
