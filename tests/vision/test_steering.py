"""Steering: what is refused, what it does to the problem, and the difference that it reports."""

from __future__ import annotations

import json
import unicodedata
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpm_opt import (
    Assignment,
    AssignmentProblem,
    InfeasibleProblemError,
    InvalidInputError,
    Progress,
    Termination,
    solve_assignment,
    verify,
)
from qpm_vision._cli_steer import _steering
from qpm_vision.cli import _parser
from qpm_vision.statistics import scale_bias
from qpm_vision.steering import Steering, closest_class_pairs, solve_steered, steered_problem

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fly")
N_FEATURES = 14
EDGE = -(np.linspace(0.0, 1.0, N_FEATURES) ** 2)
OFFSET = np.random.default_rng(9).uniform(0.2, 1.0, N_FEATURES)


def _problem(seed: int = 0, **changes: Any) -> AssignmentProblem:
    A = np.random.default_rng(seed).uniform(-1, 1, (len(CLASSES), N_FEATURES))
    A[:, 13] = 0.0  # dead
    sizes = {"n_select": 6, "n_per_class": 3, **changes}
    return AssignmentProblem(
        A,
        _penalties(A),
        0.1 * np.random.default_rng(seed + 1).normal(size=N_FEATURES),
        excluded_features=[13],
        class_labels=CLASSES,
        **sizes,
    )


def _penalties(A: Any) -> Any:
    similar = np.zeros((N_FEATURES, N_FEATURES))
    similar[:13, :13] = np.clip(np.corrcoef(A[:, :13].T) - 0.3, 0.0, None)
    np.fill_diagonal(similar, 0.0)
    return 20.0 * similar


@pytest.fixture(scope="module")
def solved() -> tuple[AssignmentProblem, Assignment]:
    problem = _problem()
    return problem, solve_assignment(problem)


# -- what is written -----------------------------------------------------------------------------------------------


FULL = Steering(
    ban=(3, "red crown"),
    require=(1,),
    forbid={"ant": (2,)},
    assign={"bee": (1, 4)},
    prefer={5: 0.25, "long beak": -1},
    border_bias=-0.5,
    centre_bias=0.25,
    stay=0.1,
    contrast=(("ant", "bee"),),
    closest_pairs=2,
)


def test_yaml_and_json_give_the_same_back(tmp_path: Path) -> None:
    path = tmp_path / "steer.yaml"
    path.write_text(FULL.to_yaml(), encoding="utf-8")
    assert Steering.from_yaml(path) == FULL
    assert Steering.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_what_changes_nothing_is_false_and_empty(tmp_path: Path) -> None:
    path = tmp_path / "steer.yaml"
    for text in ("", "ban: []\n", "ban:\nforbid: {ant: []}\n"):
        path.write_text(text)
        assert not Steering.from_yaml(path)
        assert Steering.from_yaml(path).to_dict() == {}
    assert FULL


def test_numbers_may_be_text_and_of_numpy_and_yaml_may_read_a_class_as_a_number(tmp_path: Path) -> None:
    assert Steering(ban=("17", np.int64(3))).ban == (17, 3)  # type: ignore[arg-type]
    assert Steering(ban=17) == Steering(ban=(17, 17))  # type: ignore[arg-type]
    path = tmp_path / "steer.yaml"
    path.write_text("assign: {7: [1]}")
    assert Steering.from_yaml(path).assign == {"7": (1,)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"bann": [1]}, r"key 'bann', which is not known\. Did you mean 'ban'\?"),
        ([1], r"must have keys such as 'ban'.*Got a list"),
        ({"ban": {"a": 1}}, r"'ban' parameter must hold a list of features.*Got \{'a': 1\}"),
        ({"ban": [-1]}, r"'ban' parameter must hold features.*Got -1"),
        ({"ban": [True]}, r"'ban'.*Got True"),
        ({"ban": [1.5]}, r"'ban'.*Got 1\.5"),
        ({"require": [""]}, r"'require'.*Got ''"),
        ({"forbid": ["ant"]}, r"'forbid' parameter must hold names of classes, each with a list"),
        ({"assign": {False: [1]}}, r"'assign'.*quote them in YAML.*Got False"),
        ({"prefer": [17]}, r"'prefer' parameter must hold features, each with a number.*Got \[17\]"),
        ({"prefer": {17: "much"}}, r"'prefer' parameter must hold a number\. Got 'much'"),
        ({"prefer": {17: float("nan")}}, r"'prefer' parameter must hold a finite number"),
        ({"border_bias": float("inf")}, r"'border_bias'.*finite"),
        ({"centre_bias": "much"}, r"'centre_bias' parameter must hold a number\. Got 'much'"),
        ({"border_bias": 10**400}, r"'border_bias'.*at most 1,000,000"),
        ({"ban": ["\ud800"]}, r"'ban'.*Got '.ud800'"),
        ({"forbid": {"\ud800": [1]}}, r"'forbid' parameter must hold names of classes"),
        ({"closest_pairs": -1}, r"'closest_pairs' parameter must hold a whole number"),
        ({"contrast": [["ant"]]}, r"'contrast'.*pairs of different classes.*Got \['ant'\]"),
        ({"contrast": [["ant", "ant"]]}, r"'contrast'.*pairs of different classes"),
        ({"contrast": "ant"}, r"'contrast'.*Got 'ant'"),
        ({"ban": [1], "require": [1]}, r"both bans and requires feature 1"),
        ({"ban": [1], "assign": {"ant": [1]}}, r"bans feature 1 and assigns it to class 'ant'"),
        ({"forbid": {"ant": [1]}, "assign": {"ant": [1]}}, r"both forbids feature 1 for class 'ant' and assigns"),
    ],
)
def test_malformed(data: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Steering.from_dict(data)


@pytest.mark.parametrize("content", [b"ban: [", b"\xff\xfe", b"- 1", b"!!python/object:os.system {}", None])
def test_a_file_that_is_no_steering_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "steer.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"steer\.yaml"):
        Steering.from_yaml(path)


# -- what it means for a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steering", "message"),
    [
        (Steering(ban=(14,)), r"'ban' parameter must hold numbers of features from 0 to 13\. Got 14"),
        (Steering(ban=("red crow",)), r"'ban'.*Got 'red crow'\. Did you mean 'red crown'\?"),
        (Steering(forbid={"aunt": (1,)}), r"'forbid' parameter must name classes.*Got 'aunt'\. Did you mean 'ant'\?"),
        (Steering(contrast=(("ant", "horse"),)), r"'contrast'.*Got 'horse'.*Known: ant, bee"),
        (Steering(ban=("red crown",), require=(3,)), "both bans and requires feature 3"),
        (Steering(require=(13,)), r"Feature 13 cannot be required, because it does not vary"),
        (Steering(assign={"ant": (13,)}), r"Feature 13 cannot be required"),
        (Steering(assign={"ant": (0, 1, 2, 4)}), r"give class 'ant' at most the 3 features .*Got 4"),
        (Steering(require=tuple(range(7))), "require 7 features, more than n_select = 6"),
        (Steering(ban=tuple(range(8))), "at most the number of features that can be kept, 5"),
        (Steering(closest_pairs=16), r"'closest_pairs' parameter must be at most 15, the pairs of 6 classes\. Got 16"),
    ],
)
def test_what_does_not_fit_the_run(
    solved: tuple[AssignmentProblem, Assignment], steering: Steering, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        solve_steered(*solved, steering, edge=EDGE, names={3: "red crown"})


def test_what_an_earlier_steering_banned_says_so(solved: tuple[AssignmentProblem, Assignment]) -> None:
    first = solve_steered(*solved, Steering(ban=(0,)), edge=EDGE)
    with pytest.raises(
        InfeasibleProblemError, match="Feature 0 cannot be required, because an earlier steering banned"
    ):
        solve_steered(first.problem, first.assignment, Steering(require=(0,)), edge=EDGE)


def test_contrast_needs_two_features_a_class() -> None:
    problem = _problem(n_per_class=1)
    with pytest.raises(InfeasibleProblemError, match="n_per_class = 1"):
        solve_steered(problem, solve_assignment(problem), Steering(closest_pairs=1), edge=EDGE)


def test_what_a_solver_proves_infeasible_is_an_error() -> None:
    """Two classes with two features each that the other must not have cannot share two of three."""
    problem = _problem()
    apart = Steering(assign={"ant": (0, 1), "fly": (2, 3)}, forbid={"ant": (2, 3)}, contrast=(("ant", "fly"),))
    with pytest.raises(InfeasibleProblemError, match="No assignment satisfies this steering, as the solver has proven"):
        solve_steered(problem, solve_assignment(problem), apart, edge=EDGE)


def test_names_and_numbers_mean_the_same(solved: tuple[AssignmentProblem, Assignment]) -> None:
    names = {3: "red crown", 5: "long beak"}
    resolved = FULL.resolved(N_FEATURES, CLASSES, names)
    assert resolved.ban == (3,)
    assert resolved.prefer == {5: -1.0}
    assert Steering(ban=(5, 3)).resolved(N_FEATURES, CLASSES, {}) == Steering(ban=(3, 5)).resolved(
        N_FEATURES, CLASSES, {}
    )


def test_biases_are_added_to_b(solved: tuple[AssignmentProblem, Assignment]) -> None:
    problem, previous = solved
    steering = Steering(prefer={2: 0.5, 4: -0.25}, border_bias=2.0, stay=0.125)
    expected = problem.feature_bias - 2.0 * scale_bias(EDGE)
    expected[2] += 0.5
    expected[4] -= 0.25
    expected[previous.selected] += 0.125
    changed = steered_problem(problem, previous, steering, edge=EDGE)
    np.testing.assert_allclose(changed.feature_bias, expected)
    inside, border = 0, 13
    assert changed.feature_bias[border] - problem.feature_bias[border] > 0
    assert changed.feature_bias[inside] - problem.feature_bias[inside] < 0.125 + 1e-12


def test_centre_bias_prefers_what_peaks_near_the_middle(solved: tuple[AssignmentProblem, Assignment]) -> None:
    problem, previous = solved
    changed = steered_problem(problem, previous, Steering(centre_bias=2.0), edge=EDGE, offset=OFFSET)
    added = changed.feature_bias - problem.feature_bias
    assert added[13] == 0  # dead
    assert added[:13].mean() == pytest.approx(0.0)
    assert np.abs(added).max() == pytest.approx(2.0 * np.sqrt(10) * 0.1)
    np.testing.assert_allclose(np.corrcoef(added[:13], OFFSET[:13])[0, 1], -1.0)


@pytest.mark.parametrize(("strength", "chosen"), [(1e4, slice(None, 6)), (-1e4, slice(-6, None))])
def test_a_strong_centre_bias_decides_alone(
    solved: tuple[AssignmentProblem, Assignment], strength: float, chosen: slice
) -> None:
    steered = solve_steered(*solved, Steering(centre_bias=strength), edge=EDGE, offset=OFFSET, time_limit=None)
    assert set(steered.assignment.selected.tolist()) == set(np.argsort(OFFSET[:13])[chosen].tolist())


def test_centre_bias_needs_offsets_that_differ(solved: tuple[AssignmentProblem, Assignment]) -> None:
    with pytest.raises(InvalidInputError, match=r"'centre_bias'.*earlier version.*--redo statistics"):
        solve_steered(*solved, Steering(centre_bias=1.0), edge=EDGE)
    with pytest.raises(InvalidInputError, match=r"'centre_bias'.*all peak equally far"):
        solve_steered(*solved, Steering(centre_bias=1.0), edge=EDGE, offset=np.ones(N_FEATURES))


def test_closest_pairs_are_those_of_the_largest_correlation() -> None:
    A = np.random.default_rng(3).normal(size=(7, 30))
    correlation = np.corrcoef(A)
    expected = sorted(combinations(range(7), 2), key=lambda pair: -correlation[pair])
    assert closest_class_pairs(A, 21) == expected
    assert closest_class_pairs(np.zeros((3, 4)), 3) == [(0, 1), (0, 2), (1, 2)]


def test_contrasted_classes_differ_in_one_feature(solved: tuple[AssignmentProblem, Assignment]) -> None:
    steered = solve_steered(*solved, Steering(contrast=(("fly", "ant"),), closest_pairs=1), edge=EDGE)
    W = steered.assignment.weights.astype(int)
    assert (W @ W.T)[CLASSES.index("ant"), CLASSES.index("fly")] == 2
    assert (W @ W.T)[closest_class_pairs(solved[0].class_similarity, 1)[0]] == 2


_features = st.integers(0, 12)


@st.composite
def _steerings(draw: st.DrawFn) -> Steering:
    order = draw(st.permutations(range(13)))
    ban = order[: draw(st.integers(0, 3))]
    require = order[3 : 3 + draw(st.integers(0, 2))]
    forbid = {name: tuple(order[5:7]) for name in draw(st.lists(st.sampled_from(CLASSES[:3]), unique=True))}
    assign = dict.fromkeys(draw(st.lists(st.sampled_from(CLASSES[3:]), unique=True)), (order[7],))
    prefer = draw(st.dictionaries(_features, st.floats(-30, 30), max_size=3))
    return Steering(
        tuple(ban),
        tuple(require),
        forbid,
        assign,
        prefer,
        border_bias=draw(st.floats(-9, 9)),
        centre_bias=draw(st.sampled_from((0.0, -4.0, 4.0))),
        stay=draw(st.sampled_from((0.0, 5.0))),
    )


@given(_steerings())
@settings(max_examples=12, deadline=None)
def test_the_result_is_that_of_a_cold_solve_and_the_difference_is_right(steering: Steering) -> None:
    problem = _problem()
    previous = _PREVIOUS
    steered = solve_steered(problem, previous, steering, edge=EDGE, offset=OFFSET, time_limit=None)
    cold = solve_assignment(steered.problem, time_limit=None)
    assert verify(steered.problem, steered.assignment).ok
    assert steered.assignment.objective == pytest.approx(cold.objective, abs=1e-6)
    assert steered.assignment.termination is Termination.OPTIMAL
    assert steered.assignment.bound is not None
    assert steered.assignment.bound >= cold.objective - 1e-6
    kept = set(steered.assignment.selected.tolist())
    assert not kept & set(steering.ban)
    assert kept >= set(steering.require)
    frame = steered.assignment.to_frame()
    for name, features in steering.assign.items():
        assert frame.loc[name, list(features)].all()
    for name, features in steering.forbid.items():
        assert not frame.loc[name, [f for f in features if f in kept]].any()

    diff = steered.diff
    old, new = (
        {(name, f) for name in CLASSES for f in table.columns if table.loc[name, f]}
        for table in (previous.to_frame(), frame)
    )
    assert {(c.name, f) for c in diff.classes for f in c.lost} == old - new
    assert {(c.name, f) for c in diff.classes for f in c.gained} == new - old
    assert set(diff.features_in) == kept - set(previous.selected.tolist())
    assert set(diff.features_out) == set(previous.selected.tolist()) - kept
    assert all(count == sum(f == g for _, g in new) for f, count in diff.features_in.items())
    assert diff.before.total == previous.objective
    assert diff.objective == steered.assignment.objective
    former = problem.scale * sum(problem.class_similarity[CLASSES.index(n), f] for n, f in new)
    former += sum(problem.feature_bias[f] for f in kept)
    former -= sum(problem.redundancy.toarray()[f, g] for f, g in combinations(sorted(kept), 2))
    assert diff.after.total == pytest.approx(former)
    assert diff.price == pytest.approx(previous.objective - former)
    assert diff.price >= -1e-6
    json.dumps(steered.to_dict(), allow_nan=False)


_PREVIOUS = solve_assignment(_problem(), time_limit=None)


def test_the_bound_of_the_run_proves_a_steering_that_changes_nothing() -> None:
    """Requiring what is kept needs no proof of its own, whatever the back end can do."""
    steering = Steering(require=_PREVIOUS.selected[:2].tolist(), prefer={int(_PREVIOUS.selected[0]): 1.0})
    steered = solve_steered(_problem(), _PREVIOUS, steering, edge=EDGE, solver="local_search")
    assert steered.assignment.termination is Termination.OPTIMAL
    assert not steered.diff.classes
    assert steered.diff.price == pytest.approx(0.0)
    assert steered.diff.objective - steered.diff.before.total == pytest.approx(1.0)


def test_the_difference_as_text(solved: tuple[AssignmentProblem, Assignment]) -> None:
    most = int(solved[1].selected[solved[1].weights.sum(axis=0).argmax()])
    steered = solve_steered(*solved, Steering(ban=(most,)), edge=EDGE)
    text = steered.table({most: "red crown"})
    assert f"features out  red crown ({most}) in" in text
    assert f"classes       {len(steered.diff.classes)} of 6 change" in text
    assert f"of at most {steered.diff.bound:.3f} with what was asked for, gap" in text
    assert "and 1 more" in steered.diff.table(most=len(steered.diff.classes) - 1)
    assert repr(steered).startswith(f"Steered({{'ban': [{most}]}})\nsolved        by ")


def test_a_search_that_is_stopped_gives_the_best_so_far(solved: tuple[AssignmentProblem, Assignment]) -> None:
    def stop(state: Progress) -> None:
        if state.objective is not None:
            raise KeyboardInterrupt

    kept = int(solved[1].selected[0])
    steered = solve_steered(*solved, Steering(ban=(kept,)), edge=EDGE, solver="decomposition", progress=stop)
    assert steered.assignment.termination is Termination.INTERRUPTED
    assert verify(steered.problem, steered.assignment).ok


def test_joined_adds_up() -> None:
    both = Steering(ban=(1,), forbid={"ant": (2,)}, prefer={5: 1.0}, stay=0.5).joined(
        Steering(ban=(1, 3), forbid={"ant": (4,), "bee": (2,)}, prefer={5: 2.0})
    )
    assert both == Steering(ban=(1, 3), forbid={"ant": (2, 4), "bee": (2,)}, prefer={5: 2.0}, stay=0.5)
    with pytest.raises(InfeasibleProblemError):
        both.joined(Steering(require=(3,)))


def test_two_spellings_of_a_class_or_a_name_are_one() -> None:
    composed, apart = (unicodedata.normalize(form, "한국") for form in ("NFC", "NFD"))
    written = Steering(forbid={composed: (1,), apart: (2, apart)}, contrast=((apart, "ant"),))
    assert written.forbid == {composed: (1, 2, composed)}
    resolved = written.resolved(N_FEATURES, [apart, "ant"], {5: apart})
    assert resolved.forbid == {composed: (1, 2, 5)}
    assert resolved.contrast == (("ant", composed),)


def test_a_zero_on_the_command_line_is_stronger_than_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("{stay: 2.0, border_bias: 1.0, closest_pairs: 3, ban: [1]}")
    options = ["steer", "RUN", "--file", str(tmp_path / "s.yaml"), "--stay", "0", "--closest-pairs", "0"]
    steering = _steering(_parser().parse_args(options))
    assert (steering.stay, steering.closest_pairs, steering.border_bias, steering.ban) == (0.0, 0, 1.0, (1,))
