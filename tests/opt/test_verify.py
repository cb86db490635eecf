"""The independent check: it finds every kind of violation, in words."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from qpm_opt import Assignment, AssignmentProblem, InvalidInputError, NoSolutionError, Terms, solve_assignment, verify

A = np.random.default_rng(0).random((5, 8))
R = np.triu(np.random.default_rng(1).random((8, 8)), 1)


def problem(**changes: Any) -> AssignmentProblem:
    arguments: dict[str, Any] = {"n_select": 5, "n_per_class": 2}
    return AssignmentProblem(A, R + R.T, A[0], **{**arguments, **changes})


@pytest.fixture(scope="module")
def good() -> Assignment:
    return solve_assignment(problem(), solver="pyomo")


def changed(good: Assignment, **parts: Any) -> Assignment:
    selected, weights, terms = good.solution
    solution = (parts.pop("selected", selected), parts.pop("weights", weights), parts.pop("terms", terms))
    return dataclasses.replace(good, solution=solution, **parts)


def test_a_good_solution_passes(good: Assignment) -> None:
    checked = verify(problem(), good)
    assert checked.ok
    assert bool(checked)
    assert checked.objective == pytest.approx(good.objective)
    assert str(checked).startswith("verified: every constraint holds, objective ")


def _swapped(good: Assignment) -> np.ndarray:
    weights = good.weights.copy()
    weights[1] = weights[0]
    return weights


def _one_more(good: Assignment) -> np.ndarray:
    weights = good.weights.copy()
    weights[2, np.flatnonzero(weights[2] == 0)[0]] = 1
    return weights


def _half(good: Assignment) -> np.ndarray:
    return good.weights * 0.5


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (_swapped, "classes 0 and 1 have the same features"),
        (_one_more, "class 2 must have 2 features, got 3"),
        (_half, "weights must be 0 or 1"),
        (lambda good: good.weights[:, :4], r"weights must have shape \(5, 5\).*got \(5, 4\)"),
        (lambda good: good.weights[:4], r"weights must have shape \(5, 5\).*got \(4, 5\)"),
    ],
)
def test_wrong_weights(good: Assignment, weights: Any, message: str) -> None:
    checked = verify(problem(), changed(good, weights=weights(good)))
    assert not checked
    assert re.search(message, str(checked))


def test_wrong_selections(good: Assignment) -> None:
    outside = np.setdiff1d(np.arange(8), good.selected)
    other = good.selected.copy()
    other[0] = outside[0]
    assert "must be sorted" in str(verify(problem(), changed(good, selected=good.selected[::-1])))
    assert "do not exist: there are 8" in str(verify(problem(), changed(good, selected=good.selected + 8)))
    assert "is claimed to be" in str(verify(problem(), changed(good, selected=np.sort(other))))
    short = changed(good, selected=good.selected[:4], weights=good.weights[:, :4])
    assert "n_select = 5 features must be selected, got 4" in str(verify(problem(), short))


def test_locks(good: Assignment) -> None:
    kept = int(good.selected[0])
    absent = int(np.setdiff1d(np.arange(8), good.selected)[0])
    user = int(np.flatnonzero(good.weights[:, 0])[0])
    idle = int(np.flatnonzero(good.weights[:, 0] == 0)[0])
    for locks, message in (
        ({"excluded_features": [kept]}, f"excluded features are selected: [{kept}]"),
        ({"required_features": [absent]}, f"required features are not selected: [{absent}]"),
        ({"forbidden_pairs": [(user, kept)]}, f"forbidden pair of class {user} and feature {kept} is used"),
        ({"required_pairs": [(idle, kept)]}, f"required pair of class {idle} and feature {kept} is missing"),
        ({"required_pairs": [(0, absent)]}, f"required pair of class 0 and feature {absent} is missing"),
    ):
        assert message in str(verify(problem(**locks), good))
    dead = A.copy()
    dead[:, kept] = 0.0
    checked = verify(AssignmentProblem(dead, None, A[0], n_select=5, n_per_class=2), good)
    assert f"dead features are selected: [{kept}]" in str(checked)


def test_violations_name_what_has_names() -> None:
    named = problem(class_labels=[*"abcde"], feature_labels=[*"stuvwxyz"])
    found = solve_assignment(named, time_limit=10)
    letter = "stuvwxyz"[int(found.selected[0])]
    user = "abcde"[int(np.flatnonzero(found.weights[:, 0])[0])]
    text = str(verify(named.replaced(forbidden_pairs=[(user, letter)]), found))
    assert f"pair of class {user!r} and feature {letter!r} is used" in text
    weights = found.weights.copy()
    weights[1] = weights[0]
    assert "classes 'a' and 'b' have the same features ['" in str(verify(named, changed(found, weights=weights)))


@pytest.mark.parametrize("term", ["similarity", "redundancy", "bias"])
def test_wrong_claims(good: Assignment, term: str) -> None:
    terms: Terms = dataclasses.replace(good.terms, **{term: getattr(good.terms, term) + 0.01})
    text = str(verify(problem(), changed(good, terms=terms)))
    name = {"similarity": "Z_A", "redundancy": "Z_R", "bias": "Z_B"}[term]
    assert f"{name} is claimed to be" in text
    assert "objective is claimed to be" in text
    text = str(verify(problem(), changed(good, terms=dataclasses.replace(good.terms, **{term: float("nan")}))))
    assert "is claimed to be nan" in text


def test_wrong_bounds(good: Assignment) -> None:
    assert "lies below the objective" in str(verify(problem(), dataclasses.replace(good, bound=good.objective - 1)))
    assert "bound nan" in str(verify(problem(), dataclasses.replace(good, bound=float("nan"))))


def test_small_numbers_are_checked_too() -> None:
    small = AssignmentProblem(A * 1e-12, (R + R.T) * 1e-12, A[0] * 1e-12, n_select=5, n_per_class=2)
    good = solve_assignment(small, solver="pyomo")
    assert verify(small, good).ok
    assert "lies below" in str(verify(small, dataclasses.replace(good, bound=good.objective * 0.999)))
    worse = dataclasses.replace(good.terms, bias=good.terms.bias * 1.01)
    assert "is claimed" in str(verify(small, changed(good, terms=worse)))


def test_wrong_names_and_sizes(good: Assignment) -> None:
    assert "there is no bound" in str(verify(problem(), dataclasses.replace(good, bound=None)))
    assert "chosen from 77 features" in str(verify(problem(), dataclasses.replace(good, n_features=77)))
    assert "class labels are not" in str(verify(problem(), dataclasses.replace(good, class_labels=tuple("edcba"))))
    labelled = dataclasses.replace(good, feature_labels=tuple("abcdefgh"))
    assert "feature labels are not" in str(verify(problem(), labelled))


def test_all_violations_are_said_at_once(good: Assignment) -> None:
    weights = _one_more(good)
    weights[1] = weights[0]
    checked = verify(problem(excluded_features=[int(good.selected[0])]), changed(good, weights=weights))
    assert len(checked.violations) >= 3
    assert str(checked).startswith(f"{len(checked.violations)} violations:")


def test_nothing_to_verify() -> None:
    empty = dataclasses.replace(solve_assignment(problem(), solver="pyomo"), solution=None)
    with pytest.raises(NoSolutionError):
        verify(problem(), empty)


@pytest.mark.parametrize("tolerance", [float("nan"), -1.0, "much"])
def test_a_tolerance_is_a_number(tolerance: Any, good: Assignment) -> None:
    with pytest.raises(InvalidInputError, match="'tolerance' parameter must be"):
        verify(problem(), good, tolerance=tolerance)
