"""Sweeps over the sizes of the problem."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.generator import generate_problem_data
from qpm_opt import Assignment, AssignmentProblem, BackendUnavailableError, InvalidInputError, sweep, verify
from qpm_opt._sweep_folder import fingerprint
from qpm_opt.cli import main

DATA = generate_problem_data(8, 24, images_per_class=6, seed=2)
GRID: dict[str, Any] = {"n_select": [6, 8], "n_per_class": [2, 3]}


def _problem() -> AssignmentProblem:
    return AssignmentProblem(DATA.class_similarity, None, DATA.feature_bias, n_select=6, n_per_class=2)


def test_every_point_is_solved_and_stored(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    table = sweep(_problem(), tmp_path, **GRID, progress=lambda done, total, point: seen.append((done, total)))
    assert table[["n_select", "n_per_class"]].to_numpy().tolist() == [[6, 2], [6, 3], [8, 2], [8, 3]]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (table["status"] == "optimal").all()
    assert (table["lost_to_uniqueness"] >= -1e-9).all()
    assert (table["lost_to_redundancy"] >= -1e-9).all()
    for row in table.itertuples():
        stored = Assignment.load(tmp_path / "points" / f"select{row.n_select}-class{row.n_per_class}-given.npz")
        problem = _problem().replaced(n_select=row.n_select, n_per_class=row.n_per_class)
        assert verify(problem, stored).ok
        assert stored.objective == pytest.approx(row.objective)


def test_a_stopped_sweep_goes_on(tmp_path: Path) -> None:
    def stop(done: int, total: int, point: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(_problem(), tmp_path, **GRID, progress=stop, workers=1)
    assert len(json.loads((tmp_path / "sweep.json").read_text())["points"]) == 2
    seen: list[int] = []
    table = sweep(_problem(), tmp_path, **GRID, progress=lambda done, total, point: seen.append(done), workers=1)
    assert seen == [3, 4]
    assert len(table) == 4


def test_penalties_and_infeasible_points_are_part_of_the_table(tmp_path: Path) -> None:
    table = sweep(
        _problem(),
        tmp_path,
        n_select=[3, 8],
        n_per_class=[2],
        penalised=["given", "turan", "20%"],
        similarity=DATA.redundancy_similarity,
    )
    assert len(table) == 6
    small = table[table["n_select"] == 3]
    assert small["status"].str.startswith("infeasible: No two classes").all()
    large = table[table["n_select"] == 8].set_index("penalised")
    assert large.loc["given", "penalised_share"] == 0.0
    assert large.loc["20%", "penalised_share"] == pytest.approx(0.2, abs=0.02)
    assert large.loc["given", "objective"] >= large.loc["20%", "objective"] - 1e-9


def test_bad_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="'penalised' value 'turan' needs the 'similarity'"):
        sweep(_problem(), tmp_path, **GRID, penalised=["turan"])
    with pytest.raises(InvalidInputError, match=r"shares like '5%'\. Got 'lots'"):
        sweep(_problem(), tmp_path, **GRID, penalised=["lots"])
    with pytest.raises(InvalidInputError, match="'n_select' parameter must hold different values"):
        sweep(_problem(), tmp_path, n_select=[], n_per_class=[2])
    monkeypatch.setattr(sys.modules["qpm_opt.sweep"], "_CONNECT_SECONDS", 1.0)
    with pytest.raises(BackendUnavailableError, match="Dask scheduler"):
        sweep(_problem(), tmp_path, **GRID, scheduler="tcp://127.0.0.1:1")
    sweep(_problem(), tmp_path, n_select=[6], n_per_class=[2])
    other = _problem().replaced(feature_bias=np.ones(24))
    with pytest.raises(InvalidInputError, match="whose problem is another one"):
        sweep(other, tmp_path, n_select=[6], n_per_class=[2])


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "problem.npz"
    _problem().save(path)
    assert main(["sweep", str(path), str(tmp_path / "out"), "--n-select", "6:8:2", "--n-per-class", "2"]) == 0
    printed = capsys.readouterr()
    assert "lost_to_uniqueness" in printed.out
    assert "2/2" in printed.err
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 10_000
    assert main(["sweep", str(path), str(tmp_path / "out"), "--n-select", "a"]) == 2
    assert "--n-select" in capsys.readouterr().err


def test_a_dask_cluster_gives_the_same(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        there = sweep(_problem(), tmp_path / "there", **GRID, scheduler=cluster.scheduler_address)
    here = sweep(_problem(), tmp_path / "here", **GRID)
    assert there["objective"].tolist() == pytest.approx(here["objective"].tolist())


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are there sooner than processes."""

    @contextmanager
    def pool(what: str, width: int) -> Iterator[Executor]:
        with ThreadPoolExecutor(width) as threads:
            yield threads

    monkeypatch.setattr(sys.modules["qpm_opt.sweep"], "worker_pool", pool)


@pytest.mark.usefixtures("in_threads")
def test_a_folder_is_of_one_problem_in_every_part(tmp_path: Path) -> None:
    """Same bytes in other roles, and labels that differ in type alone."""
    eye = np.eye(24)
    given: dict[str, Any] = {"n_select": [6], "n_per_class": [2], "solver": "local_search", "workers": 1}
    base = _problem().replaced(class_labels=[*"abcdefgh"], required_features=[3])
    sweep(base, tmp_path, **given)
    others = [
        base.replaced(required_features=(), excluded_features=[3]),
        base.replaced(class_labels=[*"abcdefgx"]),
        base.replaced(feature_labels=range(1, 25), required_features=[4]),
        base.replaced(required_features=(), required_pairs=[("a", 3)]),
        base.replaced(required_pairs=[("a", 5)]),
        base.replaced(contrastive_pairs=[("a", "b", 1)]),
        base.replaced(redundancy=np.ones((24, 24)) - eye),
    ]
    for other in others:
        with pytest.raises(InvalidInputError, match="whose problem is another one"):
            sweep(other, tmp_path, **given)
    sweep(base.replaced(n_select=7, n_per_class=3), tmp_path, **given)  # its own sizes do not matter
    numbers, texts = (_problem().replaced(feature_labels=[kind(i) for i in range(24, 48)]) for kind in (int, str))
    assert fingerprint(numbers, None) != fingerprint(texts, None)
    assert fingerprint(base, eye) != fingerprint(base, None)
    assert fingerprint(base, eye) != fingerprint(base, eye.reshape(12, 48))
    assert fingerprint(base, None) == fingerprint(pickle.loads(pickle.dumps(base)), None)


@pytest.mark.usefixtures("in_threads")
def test_one_sweep_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    given: dict[str, Any] = {"n_per_class": [2], "solver": "local_search", "workers": 1}

    def meanwhile(done: int, total: int, point: object) -> None:
        with pytest.raises(InvalidInputError, match="no other sweep is at work in"):
            sweep(_problem().replaced(excluded_features=[3]), tmp_path, n_select=[7], **given)

    sweep(_problem(), tmp_path, n_select=[6], **given, progress=meanwhile)
    assert len(sweep(_problem(), tmp_path, n_select=[6, 7], **given)) == 2  # it is free again
    (lock,) = tmp_path.glob(".lock")
    lock.unlink()
    os.mkfifo(lock)  # which nobody reads
    with pytest.raises(InvalidInputError, match="must be a folder to write to"):
        sweep(_problem(), tmp_path, n_select=[6], **given)
    for nowhere in ("", None, 5):
        with pytest.raises(InvalidInputError, match="'folder' parameter must be the path"):
            sweep(_problem(), nowhere, n_select=[6], **given)  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_threads")
def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    given: dict[str, Any] = {"n_select": [6, 8], "n_per_class": [2], "solver": "local_search", "workers": 1}
    first = sweep(_problem(), tmp_path, **given)
    stored = tmp_path / "sweep.json"
    content = json.loads(stored.read_text())
    content["points"][0].update(objective=None, status="failed: no solver")
    stored.write_text(json.dumps(content))
    (tmp_path / "points" / "select8-class2-given.npz").unlink()
    seen: list[str] = []
    again = sweep(_problem(), tmp_path, **given, progress=lambda done, total, point: seen.append(point.name))
    assert sorted(seen) == ["select6-class2-given", "select8-class2-given"]
    assert again["objective"].tolist() == pytest.approx(first["objective"].tolist())
    text = stored.read_text()
    for damaged in (
        text[: len(text) // 2],
        "[]",
        re.sub(r'"seconds": [^,]+', '"seconds": Infinity', text),
        re.sub(r'"seconds": [^,]+', '"seconds": 1e999', text),
        text.replace('"n_select": 6', '"n_select": true'),
        text.replace('"given"', "3"),
        text.replace('"bound"', '"bond"'),
    ):
        stored.write_text(damaged)
        with pytest.raises(InvalidInputError, match=r"sweep.json' is damaged; delete the folder to begin anew"):
            sweep(_problem(), tmp_path, **given)


def test_nothing_starts_with_arguments_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["qpm_opt.sweep"], "worker_pool", None)
    similarity = DATA.redundancy_similarity
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"solver": "decompositon"}, "'solver' parameter must name a back end.*Did you mean 'decomposition'"),
        ({"similarity": similarity[:5, :5], "penalised": ["5%"]}, "a row for each of the 24 features"),
        ({"similarity": similarity[:5], "penalised": ["5%"]}, "must be a square matrix"),
        ({"similarity": np.full((24, 24), np.nan), "penalised": ["5%"]}, "'similarity' parameter must be finite"),
        ({"similarity": similarity}, "'given' alone; add one of these"),
        ({"workers": 0}, "'workers'"),
        ({"progress": 3}, "'progress'"),
        ({"time_limit": float("inf")}, "'time_limit'"),
        ({"n_select": range(1, 20_001)}, "at most 10000 points"),
    ]
    for arguments, message in wrong:
        with pytest.raises(InvalidInputError, match=message):
            sweep(_problem(), tmp_path / "out", **{**GRID, **arguments})
    with pytest.raises(BackendUnavailableError, match="Pyomo finds no solver 'nothing'"):
        sweep(_problem(), tmp_path / "out", **GRID, solver="pyomo:nothing")
    assert not (tmp_path / "out").exists()
