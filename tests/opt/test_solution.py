"""The result: what it says, what it raises, how it prints, draws and is stored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from qpm_opt import Assignment, AssignmentProblem, InvalidInputError, NoSolutionError, SolutionStatus, Termination
from qpm_opt import solve_assignment as solve
from tests.contract.test_agreement import infeasible_problem

mpl.use("Agg")

FRAME = pd.DataFrame(
    np.random.default_rng(0).random((4, 7)),
    index=["cat", "dog", "<owl>", "fox"],
    columns=[f"part {i}" for i in range(7)],
)


@pytest.fixture(scope="module")
def result() -> Assignment:
    return solve(FRAME, n_select=4, n_per_class=2)


@pytest.fixture(scope="module")
def empty() -> Assignment:
    found = solve(infeasible_problem(), solver="pyomo")
    assert found.solution is None
    return found


def test_fields(result: Assignment) -> None:
    assert result.selected.tolist() == sorted(result.selected.tolist())
    assert result.weights.shape == (4, 4)
    assert set(np.unique(result.weights)) == {0, 1}
    assert result.objective == pytest.approx(result.terms.similarity + result.terms.redundancy + result.terms.bias)
    assert result.bound >= result.objective - 1e-9
    assert result.gap == pytest.approx(0, abs=1e-6)
    assert (result.status, result.termination) == (SolutionStatus.OPTIMAL, Termination.OPTIMAL)
    assert result.runtime > 0


def test_absent_things_are_none_or_raise(empty: Assignment) -> None:
    assert (empty.status, empty.termination) == (SolutionStatus.NONE, Termination.INFEASIBLE)
    assert empty.bound is None
    assert empty.gap is None
    for name in ("selected", "weights", "terms", "objective", "selected_labels"):
        with pytest.raises(NoSolutionError, match=r"no '\w+'.*'infeasible' before it.*Ask 'status' first\."):
            getattr(empty, name)
    for method in (empty.to_frame, empty.plot):
        with pytest.raises(NoSolutionError):
            method()
    data = empty.to_dict()
    assert data["objective"] is data["selected"] is data["weights"] is data["terms"] is None
    assert "objective" not in repr(empty)


def test_no_bound_is_no_gap(result: Assignment) -> None:
    without = dataclasses.replace(result, bound=None)
    assert without.gap is None
    assert "bound        none" in repr(without)


def test_frame(result: Assignment) -> None:
    frame = result.to_frame()
    assert frame.index.tolist() == FRAME.index.tolist()
    assert frame.columns.tolist() == [FRAME.columns[f] for f in result.selected]
    assert (frame.index.name, frame.columns.name) == ("class", "feature")
    assert np.array_equal(frame.to_numpy(), result.weights)
    plain = solve(FRAME.to_numpy(), n_select=4, n_per_class=2).to_frame()
    assert plain.index.tolist() == [0, 1, 2, 3]
    assert plain.columns.tolist() == result.selected.tolist()


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("which", ["result", "empty"])
def test_stored_results_are_the_same(which: str, suffix: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kept: Assignment = request.getfixturevalue(which)
    kept.save(tmp_path / f"r{suffix}")
    back = Assignment.load(tmp_path / f"r{suffix}")
    assert back.to_dict() == kept.to_dict()
    assert back.trace == kept.trace
    if kept.solution is not None:
        assert back.weights.dtype == kept.weights.dtype
        assert back.selected.dtype == kept.selected.dtype


def test_json_is_json(result: Assignment, tmp_path: Path) -> None:
    result.save(tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert data["class_labels"] == ["cat", "dog", "<owl>", "fox"]
    assert data["selected"] == result.selected.tolist()


def test_damaged_files(result: Assignment, tmp_path: Path) -> None:
    for name, text in (("a.json", "{"), ("b.json", "[1]"), ("c.json", '{"selected": []}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidInputError, match=r"damaged|must hold a JSON object|no stored assignment"):
            Assignment.load(tmp_path / name)
    with pytest.raises(InvalidInputError, match="does not exist"):
        Assignment.load(tmp_path / "d.json")
    AssignmentProblem(FRAME, n_select=4, n_per_class=2).save(tmp_path / "p.npz")
    with pytest.raises(InvalidInputError, match=r"must hold a qpm_opt\.Assignment\. Got qpm_opt\.AssignmentProblem"):
        Assignment.load(tmp_path / "p.npz")


def test_an_objective_that_its_terms_deny_is_refused(result: Assignment) -> None:
    good = result.to_dict()
    assert Assignment.from_dict({**good, "objective": good["objective"] * (1 + 1e-12)}).objective == result.objective
    for wrong in (good["objective"] * 1.001, 1e9, None):
        with pytest.raises(InvalidInputError, match=r"objective|finite number"):
            Assignment.from_dict({**good, "objective": wrong})


def test_malformed_content_is_refused(result: Assignment) -> None:
    good = result.to_dict()
    for name, value in (
        ("weights", [1, 0]),
        ("weights", [[2, 0, 0, 0]]),
        ("selected", [[0]]),
        ("selected", [0, 1, 2, 99]),
        ("feature_labels", ["a"]),
        ("class_labels", ["a"]),
        ("runtime", None),
        ("bound", "x"),
        ("bound", float("nan")),
        ("trace", [{"time": "a", "objective": None, "bound": 1.0}]),
        ("terms", None),
        ("trace", [{"x": 1}]),
        ("status", "great"),
    ):
        with pytest.raises(InvalidInputError, match="no stored assignment"):
            Assignment.from_dict({**good, name: value})


def test_a_result_cannot_be_changed(result: Assignment) -> None:
    for array in (result.selected, result.weights):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_repr(result: Assignment) -> None:
    text = repr(result)
    for part in (
        "Assignment by pyomo",
        "optimal",
        "objective",
        "gap 0.0000%",
        "4 classes, 4 of 7 features, 2 per class",
    ):
        assert part in text
    assert text.splitlines()[-1].startswith("└")


def test_html(result: Assignment, empty: Assignment) -> None:
    html = result._repr_html_()
    assert "&lt;owl&gt;" in html
    assert "<owl>" not in html
    assert "part" in html
    assert "no solution" in empty._repr_html_() or "none" in empty._repr_html_()


def test_plots(result: Assignment) -> None:
    from matplotlib.figure import Figure

    for kind in ("matrix", "convergence"):
        figure, ax = result.plot(kind)
        assert ax.get_title()
        figure.canvas.draw()
    own = Figure().subplots()
    figure, ax = result.plot("matrix", ax=own)
    assert ax is own
    assert figure is own.get_figure()
    names = {label.get_text() for label in ax.get_yticklabels()}
    assert names == {"cat", "dog", "<owl>", "fox"}
    with pytest.raises(InvalidInputError, match=r"'kind'.*'matrx'.*Did you mean 'matrix'"):
        result.plot("matrx")
