"""Stored problems and results: damaged ones are refused in a sentence, and no file takes more memory than it should."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qpm_opt import (
    Assignment,
    AssignmentProblem,
    InvalidInputError,
    _storage,
    cli,
    penalties_from_similarity,
    solve_assignment,
)

RNG = np.random.default_rng(0)
PAIRS = np.triu(RNG.random((7, 7)), 1)
PROBLEM = AssignmentProblem(
    RNG.random((4, 7)),
    PAIRS + PAIRS.T,
    n_select=4,
    n_per_class=2,
    class_labels=[*"abcd"],
    contrastive_pairs=[(0, 1, 1)],
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are soon reached."""
    monkeypatch.setattr(_storage, "_SMALL", 2**22)


@pytest.fixture(scope="module")
def result() -> Assignment:
    return solve_assignment(PROBLEM, solver="local_search")


# -- records that cannot be written to -----------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))])
def test_copies_stay_read_only(copied: Callable[[Any], Any], result: Assignment) -> None:
    problem = copied(PROBLEM)
    assert problem.candidates.tolist() == list(range(7))  # cached as well
    problem = copied(problem)
    penalties = copied(penalties_from_similarity(PAIRS + PAIRS.T, n_select=3))
    solved = copied(result)
    arrays = [value for value in vars(problem).values() if isinstance(value, np.ndarray)]
    arrays += [problem.redundancy.data, problem.redundancy.indices, penalties.matrix.data, penalties.clique]
    arrays += [solved.selected, solved.weights]
    assert len(arrays) > 10
    for array in arrays:
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert solved.objective == result.objective
    assert problem.replaced(n_select=5).n_select == 5


# -- damaged files -------------------------------------------------------------------------------------------------


def repacked(path: Path, out: Path, **members: bytes | None) -> Path:
    """A copy of an archive in which members have other bytes."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = members.get(name.removesuffix(".npy"), old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in members.items():
            if f"{name}.npy" not in old.namelist() and content is not None:
                new.writestr(f"{name}.npy", content)
    return out


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


def announced(shape: tuple[int, ...], dtype: str = "<f8", content: bytes = b"\0" * 64) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


BOMB = b"\0" * 2**20
LABELS = json.dumps({"classes": [*"abcd"], "features": None})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"class_similarity": announced((4, 2**40))}, r"damaged.*array of shape \(4, 1099511627776\) takes another"),
        ({"class_similarity": announced((2**62, 2**62))}, "takes another number of bytes"),
        ({"class_similarity": announced((-1, 4))}, "damaged|takes another"),
        ({"class_similarity": announced((4096, 2**11), content=BOMB * 64)}, "must hold at most 4 MiB of arrays"),
        ({"class_similarity": npy(np.full((4, 7), np.inf))}, "must be finite"),
        ({"class_similarity": npy(np.full((4, 7), 1e300))}, "scale the problem"),
        ({"class_similarity": None}, "it lacks 'class_similarity'"),
        ({"n_select": npy(2**62)}, "'n_select' parameter must be at most n_features"),
        ({"n_select": npy([1, 2])}, "malformed"),
        ({"n_per_class": npy(np.full(4, 2**62))}, "n_per_class"),
        ({"redundancy_row": npy(np.full(21, 2**62))}, "positions i < j < 7"),
        ({"redundancy_row": npy(np.zeros(21))}, "must be two lists of positions"),
        ({"redundancy_row": npy(np.zeros(21, int)), "redundancy_column": npy(np.ones(21, int))}, "once each"),
        ({"required_features": npy([10**18])}, "between 0 and 6"),
        ({"labels": npy(np.array("[" * 100_000))}, "malformed"),
        ({"labels": npy(np.array(LABELS.replace('"a"', "Infinity")))}, "no finite number|must hold strings"),
        ({"labels": npy(np.array([object()], dtype=object))}, "Python objects, which are never read"),
        ({"labels": b"no array"}, "it starts like no such file"),
        ({"kind": npy("x" * 2_000)}, "must hold a qpm_opt.AssignmentProblem. Got nothing known"),
    ],
)
def test_damaged_problems_are_refused(tmp_path: Path, members: dict[str, bytes | None], message: str) -> None:
    PROBLEM.save(tmp_path / "p.npz")
    path = repacked(tmp_path / "p.npz", tmp_path / "damaged.npz", **members)
    del members
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match=message):
        AssignmentProblem.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_members_of_others_are_not_read(tmp_path: Path) -> None:
    PROBLEM.save(tmp_path / "p.npz")
    path = repacked(tmp_path / "p.npz", tmp_path / "more.npz", notes=announced((2**13, 2**10), content=BOMB * 64))
    tracemalloc.start()
    loaded = AssignmentProblem.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24
    assert np.array_equal(loaded.class_similarity, PROBLEM.class_similarity)


def test_what_is_mostly_zero_is_written_so_that_it_can_be_read(tmp_path: Path) -> None:
    A = np.zeros((200, 4_500))
    A[:, :20] = 1.0
    problem = AssignmentProblem(A, n_select=15, n_per_class=4)
    problem.save(tmp_path / "p.npz")
    assert np.array_equal(AssignmentProblem.load(tmp_path / "p.npz").class_similarity, A)


def test_arrays_that_go_by_another_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.npz").write_bytes(npy(np.eye(4)))
    np.savez(tmp_path / "q.npz", np.eye(4))
    (tmp_path / "q.npz").rename(tmp_path / "A.npy")
    (tmp_path / "B.npy").write_bytes(announced((2**20, 2**20)))
    for name, message in (
        ("p.npz", "it is a single array; name it .npy"),
        ("A.npy", "it starts like no such file"),
        ("B.npy", "takes another number of bytes"),
    ):
        assert cli.main(["solve", str(tmp_path / name), str(tmp_path / "r.npz")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime": float("inf")},
        {"runtime": "1"},
        {"n_features": 10**30},
        {"n_features": 2.5},
        {"seed": -1},
        {"bound": float("nan")},
        {"trace": [{"time": float("inf"), "objective": None, "bound": None}]},
        {"terms": {"similarity": float("inf"), "redundancy": 0.0, "bias": 0.0}},
        {"selected": [0, 10**30, 2, 3]},
        {"selected": [3, 2, 1, 0]},
        {"weights": [[0.5] * 4] * 4},
        {"class_labels": "abcd"},
        {"class_labels": ["a", "a", "b", "c"]},
        {"class_labels": ["a", 0.5, "b", "c"]},
        {"solver": ["x"]},
        {"status": "none"},
    ],
)
def test_damaged_results_are_refused(tmp_path: Path, changes: dict[str, Any], result: Assignment) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**result.to_dict(), **changes}))
    with pytest.raises(InvalidInputError, match=r"is no stored assignment|is damaged or is no JSON file"):
        Assignment.load(path)
    arrays = {name: npy(changes.pop(name)) for name in ("selected", "weights") if name in changes}
    record = {key: value for key, value in result.to_dict().items() if key not in ("selected", "weights")}
    result.save(tmp_path / "r.npz")
    if not any(b"object" in array or b"|O" in array for array in arrays.values()):
        arrays["record"] = npy(np.array(json.dumps({**record, **changes})))
        with pytest.raises(InvalidInputError, match="malformed"):
            Assignment.load(repacked(tmp_path / "r.npz", tmp_path / "damaged.npz", **arrays))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no /dev/zero")
def test_numbers_of_too_many_digits_and_endless_files(
    tmp_path: Path, result: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(result.to_dict())
    path = tmp_path / "r.json"
    for number in ("1e400", "9" * 5_000):
        path.write_text(text.replace('"seed": 0', f'"seed": {number}'))
        with pytest.raises(InvalidInputError, match="is damaged or is no JSON file"):
            Assignment.load(path)
    monkeypatch.setattr(_storage, "_MOST_JSON", 2**20)
    endless = {"r.json": "is longer than 1 MiB", "r.npz": "no regular file", "A.npy": "no regular file"}
    for name, message in endless.items():
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(InvalidInputError, match=message):
            (_storage.read_npy if name == "A.npy" else Assignment.load)(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
@pytest.mark.parametrize(("name", "read"), [("r.npz", Assignment.load), ("A.npy", _storage.read_npy)])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / name)  # which nobody writes to
    with pytest.raises(InvalidInputError, match="no regular file"):
        read(tmp_path / name)
