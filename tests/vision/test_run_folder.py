"""The folder of a run: whole files, stages, history, lock and what is said when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.run_folder import STAGES, RunFolder, RunFolderError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"data": "digits", "seed": 3})


def test_config_survives(folder: RunFolder) -> None:
    again = RunFolder.open(folder.path)
    assert again.config() == {"data": "digits", "seed": 3}
    assert again.has_run


def test_stages_are_kept_in_their_order(folder: RunFolder) -> None:
    assert folder.stages() == {}
    folder.mark_finished("dense", 1.23456)
    folder.mark_finished("statistics", 2.0)
    records = RunFolder.open(folder.path).stages()
    assert list(records) == ["dense", "statistics"]
    assert records["dense"].seconds == 1.235
    assert "T" in records["dense"].finished


def test_a_stage_behind_a_gap_does_not_count(folder: RunFolder) -> None:
    folder.write_json("stages.json", {"statistics": {"seconds": 1, "finished": "now"}})
    assert folder.stages() == {}


def test_forgetting_a_stage_forgets_what_follows(folder: RunFolder) -> None:
    for stage in STAGES:
        folder.mark_finished(stage, 1.0)
    folder.forget_from("assignment")
    assert list(folder.stages()) == ["dense", "statistics"]
    with pytest.raises(InvalidInputError, match=r"'stage'.*dense.*Got 'cooking'"):
        folder.forget_from("cooking")


def test_history_keeps_rows_with_different_columns_and_drops_a_stage(folder: RunFolder) -> None:
    folder.write_history("dense", [{"epoch": 1, "loss": 0.75}])
    folder.write_history("dense", [{"epoch": 1, "loss": 0.5}])
    folder.write_history("fine-tuning", [{"epoch": 1, "loss": 0.25, "diversity": -0.1}])
    assert folder.history() == [
        {"stage": "dense", "epoch": "1", "loss": "0.5", "diversity": ""},
        {"stage": "fine-tuning", "epoch": "1", "loss": "0.25", "diversity": "-0.1"},
    ]
    folder.write_history("fine-tuning", [])
    assert [row["stage"] for row in folder.history()] == ["dense"]


def test_arrays_survive_and_objects_are_refused(folder: RunFolder) -> None:
    arrays = {"A": np.arange(6.0).reshape(2, 3), "dead": np.array([True, False]), "name": np.array("x")}
    folder.write_npz("statistics.npz", arrays)
    read = folder.read_npz("statistics.npz")
    assert set(read) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == value.dtype
    with pytest.raises(InvalidInputError, match="dtype is object"):
        folder.write_npz("statistics.npz", {"bad": np.array([{}])})


def test_a_failing_write_leaves_the_former_file_and_no_rest(folder: RunFolder) -> None:
    folder.write_json("metrics.json", {"accuracy": 0.5})

    def fail(stream: object) -> None:
        stream.write(b'{"accuracy"')  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with pytest.raises(RunFolderError, match=r"No space left on device.*untouched"):
        folder.write("metrics.json", fail)
    assert folder.read_json("metrics.json") == {"accuracy": 0.5}
    assert sorted(item.name for item in folder.path.iterdir()) == ["config.json", "metrics.json"]


@pytest.mark.parametrize(
    ("name", "remedy"), [("statistics.npz", "--redo statistics"), ("gallery.npz", "--redo explanation")]
)
@pytest.mark.parametrize("content", [None, b"", b"not an archive", b"PK\x03\x04 cut"])
def test_damaged_arrays_are_named_with_the_remedy(
    folder: RunFolder, name: str, remedy: str, content: bytes | None
) -> None:
    if content is not None:
        (folder.path / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=name) as caught:
        folder.read_npz(name)
    assert remedy in str(caught.value)
    assert ("missing" if content is None else "damaged") in str(caught.value)


def test_a_cut_archive_is_noticed(folder: RunFolder) -> None:
    path = folder.write_npz("statistics.npz", {"A": np.random.default_rng(0).random((50, 50))})
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(RunFolderError, match="damaged"):
        folder.read_npz("statistics.npz")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"dense": 3}', '{"dense": {"seconds": "long"}}'])
def test_damaged_stage_file(folder: RunFolder, content: str) -> None:
    (folder.path / "stages.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"stages\.json.*Delete it and train again"):
        folder.stages()


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match=r"no run folder.*thesis\.tex.*new or empty"):
        RunFolder.create(tmp_path, {})
    with pytest.raises(RunFolderError, match=r"no run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match=r"does not exist.*qpm-vision train"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="Choose a new or empty folder"):
        RunFolder.create(tmp_path / "thesis.tex", {})
    assert issubclass(RunFolderError, QPMError)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_newer_layout_is_refused(folder: RunFolder) -> None:
    data = json.loads((folder.path / "config.json").read_text())
    (folder.path / "config.json").write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(RunFolderError, match="layout 99"):
        folder.config()


@pytest.mark.skipif(os.name == "nt", reason="no such locks on Windows")
def test_the_lock_excludes_a_second_process_and_dies_with_its_owner(folder: RunFolder) -> None:
    code = textwrap.dedent(
        f"""
        import sys
        from qpm_vision.run_folder import RunFolder
        with RunFolder({str(folder.path)!r}).lock():
            print("locked", flush=True)
            sys.stdin.read()
        """
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunFolderError, match="Another process is working"), folder.lock():
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        for stream in (other.stdin, other.stdout):
            if stream is not None:
                stream.close()
    with folder.lock():
        pass


def test_a_folder_that_is_moved_while_a_run_works_in_it_is_not_made_anew(folder: RunFolder, tmp_path: Path) -> None:
    with folder.lock():
        folder.write_json("data.json", {})
        folder.path.rename(tmp_path / "elsewhere")
        with pytest.raises(RunFolderError, match="was moved or deleted while a run worked in it"):
            folder.write_json("metrics.json", {})
        assert not folder.path.exists()
        RunFolder.create(folder.path, {})  # another folder in its place is not that of the run either
        with pytest.raises(RunFolderError, match="was moved or deleted"):
            folder.write_json("metrics.json", {})
    folder.write_json("metrics.json", {})


def test_files_are_as_readable_as_others(folder: RunFolder, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert (folder.path / "config.json").stat().st_mode == plain.stat().st_mode
