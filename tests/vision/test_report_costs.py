"""Prices and exchanges against differences of the objective, classes against all pairs; what a report takes."""

from __future__ import annotations

import shutil
from dataclasses import fields
from itertools import combinations, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qpm_opt import Assignment, AssignmentProblem, solve_assignment
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.data import make_loader
from qpm_vision.model import ModelOutput, QPMClassifier
from qpm_vision.report import Report, gather_report
from qpm_vision.report.costs import charged_pairs, prices, swaps
from qpm_vision.report.findings import find
from qpm_vision.report.kept_sight import FILE, Onlooker, kept_sight
from qpm_vision.report.kinship import (
    difference,
    nearest_classes,
    pairs_one_feature_apart,
)
from qpm_vision.report.sight import Sight, evenly_spread, look
from qpm_vision.run_folder import RunFolder
from tests.vision.conftest import Reported

Weights = npt.NDArray[np.uint8]


def _solved(seed: int, **locks: object) -> tuple[AssignmentProblem, Assignment]:
    rng = np.random.default_rng(seed)
    penalties = np.triu(rng.random((9, 9)) * (rng.random((9, 9)) < 0.4), 1)
    problem = AssignmentProblem(
        rng.normal(size=(6, 9)).round(2),
        penalties + penalties.T,
        rng.normal(size=9),
        n_select=5,
        n_per_class=2,
        **locks,
    )
    return problem, solve_assignment(problem, solver="local_search", time_limit=0.2, seed=seed)


def _exchanged(weights: Weights, index: int, get: int, give: int) -> Weights:
    changed = weights.copy()
    changed[index, [get, give]] = 1, 0
    return changed


def _unique(weights: Weights) -> bool:
    return len(np.unique(weights, axis=0)) == len(weights)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_an_exchange_costs_what_the_objective_loses(seed: int) -> None:
    problem, found = _solved(seed)
    weights, before = found.weights, found.objective
    everything, cheapest = swaps(problem, found, number=99), swaps(problem, found, number=1)
    for index in range(problem.n_classes):
        best: dict[int, float] = {}
        for get, give in product(np.flatnonzero(weights[index] == 0), np.flatnonzero(weights[index])):
            changed = _exchanged(weights, index, int(get), int(give))
            if _unique(changed):
                cost = before - problem.terms(found.selected, changed).total
                best[int(get)] = min(best.get(int(get), np.inf), cost)
        listed = everything[index]
        assert {swap.feature: pytest.approx(swap.cost, abs=1e-6) for swap in listed} == best
        assert [swap.cost for swap in listed] == sorted(swap.cost for swap in listed)
        assert cheapest[index] == listed[:1]
        for swap in listed:
            changed = _exchanged(weights, index, swap.feature, swap.instead_of)
            assert before - problem.terms(found.selected, changed).total == pytest.approx(swap.cost, abs=1e-6)
            if swap.taken_by is not None:
                others = [
                    _exchanged(weights, index, swap.feature, int(give)) for give in np.flatnonzero(weights[index])
                ]
                assert any((other[index] == weights[swap.taken_by]).all() for other in others)


def test_exchanges_respect_locks() -> None:
    problem, found = _solved(3)
    index = 0
    kept = found.selected[found.weights[index] > 0].tolist()
    free = found.selected[found.weights[index] == 0].tolist()
    locked = problem.replaced(required_pairs=[(index, kept[0])], forbidden_pairs=[(index, free[0])])
    listed = swaps(locked, found, number=99)[index]
    assert listed
    assert {int(found.selected[swap.instead_of]) for swap in listed} == {kept[1]}
    assert free[0] not in {int(found.selected[swap.feature]) for swap in listed}
    shared = (found.weights @ found.weights.T)[index]
    other = int(np.flatnonzero((shared == 1) & (np.arange(6) != index))[0])
    tied = problem.replaced(contrastive_pairs=[(index, other, 1)])
    for swap in swaps(tied, found, number=99)[index]:
        assert (
            _exchanged(found.weights, index, swap.feature, swap.instead_of)[index] & found.weights[other]
        ).sum() >= 1


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_prices_add_up_to_the_objective(seed: int) -> None:
    problem, found = _solved(seed)
    price = prices(problem, found)
    assert price.similarity + price.redundancy + price.bias == pytest.approx(found.objective)
    A = problem.class_similarity
    kept = sum(max(A[c, list(pair)].sum() for pair in combinations(found.selected, 2)) for c in range(6))
    everything = sum(max(A[c, list(pair)].sum() for pair in combinations(range(9), 2)) for c in range(6))
    assert price.best_of_kept == pytest.approx(problem.scale * kept)
    assert price.best_of_all == pytest.approx(problem.scale * everything)
    assert price.best_of_all >= price.best_of_kept >= price.similarity - 1e-9
    charged = charged_pairs(problem, found)
    assert -sum(penalty for *_, penalty in charged) == pytest.approx(price.redundancy)
    assert all(first < second for first, second, _ in charged)
    assert [penalty for *_, penalty in charged] == sorted((penalty for *_, penalty in charged), reverse=True)


# -- relations -----------------------------------------------------------------------------------------------------


def _weights(seed: int, n_classes: int = 9, n_select: int = 8, budget: int = 3) -> Weights:
    rng = np.random.default_rng(seed)
    sets = list(combinations(range(n_select), budget))
    weights = np.zeros((n_classes, n_select), dtype=np.uint8)
    for row, place in zip(weights, rng.choice(len(sets), n_classes, replace=False), strict=True):
        row[list(sets[place])] = 1
    return weights


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_what_differs_against_sets(seed: int) -> None:
    weights = _weights(seed)
    sets = [set(np.flatnonzero(row).tolist()) for row in weights]
    alike = np.random.default_rng(seed).random((9, 9))
    apart = [pair for pair in combinations(range(9), 2) if len(sets[pair[0]] - sets[pair[1]]) == 1]
    assert pairs_one_feature_apart(weights).tolist() == [list(pair) for pair in apart]
    for index in range(9):
        near = nearest_classes(weights, alike, index, 4)
        for entry in near:
            assert entry == difference(weights, index, entry.class_index)
            assert set(entry.own) == sets[index] - sets[entry.class_index]
            assert set(entry.other) == sets[entry.class_index] - sets[index]
            assert entry.shared == len(sets[index] & sets[entry.class_index]) > 0
        others = sorted(
            (other for other in range(9) if other != index and sets[index] & sets[other]),
            key=lambda other: (-len(sets[index] & sets[other]), -alike[index, other]),
        )
        assert [entry.class_index for entry in near] == others[:4]


def test_findings_name_what_is_wrong() -> None:
    weights = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0]])
    correlation = np.zeros((4, 4))
    correlation[0, 2] = correlation[2, 0] = 0.9
    problem, solved = _solved(0)
    cheaper = swaps(problem, solved, 1)[0]
    tested = [(3, 4), (4, 10), (9, 10)]
    found = find(
        weights, [(0, 1, 4), (2, 1, 3), (1, 0, 2)], tested, [0.99, 0.6, None, None], correlation, [[], cheaper, []], 1e9
    )
    kinds = [(item.kind, item.classes, item.features, item.value) for item in found]
    assert kinds == [
        ("confused", [0, 1], [0, 2], 6.0),
        ("confused", [1, 2], [1, 0], 3.0),
        ("weak class", [1], [], 0.4),
        ("weak feature", [], [1], 0.6),
        ("twins", [], [0, 2], 0.9),
        ("idle", [], [3], 0.0),
    ]
    gain = type(cheaper[0])(feature=3, instead_of=0, cost=-2.5, taken_by=None)
    (last,) = find(weights[:, :3], [], [], [None] * 3, np.zeros((3, 3)), [[], [gain], []], 100.0)
    assert (last.kind, last.classes, last.features, last.value) == ("gain", [1], [3, 0], -2.5)


# -- what a report takes -------------------------------------------------------------------------------------------


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each forward pass from now on."""
    counts: list[int] = []
    forward = QPMClassifier.forward

    def counting(model: QPMClassifier, images: Tensor) -> ModelOutput:
        counts.append(len(images))
        return forward(model, images)

    monkeypatch.setattr(QPMClassifier, "forward", counting)
    return counts


def _same(report: Report, other: Report) -> bool:
    return report.to_dict() == other.to_dict() and report.pictures == other.pictures


@pytest.mark.parametrize("images", ["train", "test"])
def test_a_report_computes_nothing_but_its_pictures(
    reported: Reported, images: str, passed: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unwanted(*_: object, **__: object) -> None:
        raise AssertionError("a report neither solves nor draws")

    monkeypatch.setattr("qpm_vision._work.solve_assignment", unwanted)
    monkeypatch.setattr("matplotlib.figure.Figure.__init__", unwanted)
    known = gather_report(reported.folder, data=reported.data, device="cpu", images=images)
    assert sum(passed) == len(known.pictures)
    passed.clear()
    # A run of a former version kept nothing: the report is the same, of one look at each image.
    old = RunFolder(shutil.copytree(reported.folder.path, tmp_path / "old"))
    (old.path / FILE).unlink()
    looked = gather_report(old, data=reported.data, device="cpu", images=images)
    every = len(reported.data.test) + (len(reported.data.train) if images == "train" else 0)
    assert sum(passed) == every + len(known.pictures)
    assert _same(known, looked)


def test_what_was_kept_of_another_model_or_other_images_is_not_used(
    reported: Reported, passed: list[int], tmp_path: Path
) -> None:
    model, _, _ = load_checkpoint(reported.folder.path / "qpm.safetensors")
    assert isinstance(model, QPMClassifier)
    folder = RunFolder(shutil.copytree(reported.folder.path, tmp_path / "run"))
    positions = np.arange(len(reported.data.test))
    kept = kept_sight(folder, model, "test", positions)
    assert kept is not None
    assert kept_sight(folder, model, "test", positions[1:]) is None
    arrays = folder.read_npz(FILE)
    folder.write_npz(FILE, {**arrays, "test/score": arrays["test/score"][1:]})
    assert kept_sight(folder, model, "test", positions) is None
    folder.write_npz(FILE, {name: value for name, value in arrays.items() if name != "test/score"})
    assert kept_sight(folder, model, "test", positions) is None
    (folder.path / FILE).write_bytes(b"broken")
    assert kept_sight(folder, model, "test", positions) is None
    (folder.path / FILE).unlink()
    assert kept_sight(folder, model, "test", positions) is None
    folder.require_files()  # a run of an older version, which kept nothing, is whole
    folder.write_npz(FILE, arrays)
    with torch.no_grad():
        model.mean += 1
    assert kept_sight(folder, model, "test", positions) is None
    assert not passed


def test_of_many_images_the_onlooker_takes_those_that_a_report_takes(
    reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, preprocessing, _ = load_checkpoint(reported.folder.path / "qpm.safetensors")
    assert isinstance(model, QPMClassifier)
    monkeypatch.setattr("qpm_vision.report.kept_sight.MOST_IMAGES", 20)
    train, scale = reported.data.train, np.full(4, 0.5, dtype=np.float32)
    onlooker = Onlooker(model, train.labels)
    every = list(make_loader(train, preprocessing.transform(), batch_size=7))
    model.eval()
    with torch.no_grad():
        for pixels, labels in every:
            onlooker(model(pixels), labels)
    seen, positions = onlooker.sight(scale), evenly_spread(train.labels, 20)
    chosen = make_loader(train.subset(positions), preprocessing.transform(), batch_size=20)
    looked = look(model, chosen, positions, scale=scale)
    assert seen is not None
    for item in fields(Sight):
        np.testing.assert_allclose(getattr(seen, item.name), getattr(looked, item.name), atol=1e-5)
    monkeypatch.setattr("qpm_vision.report.kept_sight._MOST_WAITING", 100)
    full = Onlooker(model, train.labels)
    with torch.no_grad():
        full(model(every[0][0]), every[0][1])
        full(model(every[1][0]), every[1][1])
    assert full.sight(scale) is None
