"""Runs that are steered: what they take over, that they stand alone, go on where they stop, and what is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qpm_vision
import qpm_vision.pipeline as pipeline
import qpm_vision.steered_run as steered_run
from qpm_opt import Assignment, AssignmentProblem, InfeasibleProblemError, InvalidInputError, solve_assignment, verify
from qpm_vision import cli
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.feature_names import all_names
from qpm_vision.model import QPMClassifier
from qpm_vision.report import gather_report
from qpm_vision.run_folder import STAGES, STEERING, RunFolder, RunFolderError
from qpm_vision.steered_run import propose_steering, steer_run, told_origin
from qpm_vision.steering import Steered, Steering
from tests.vision.tiny import tiny_config, tiny_data

pytestmark = pytest.mark.usefixtures("tiny_registered")


@pytest.fixture
def parent(finished: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(finished.path, tmp_path / "parent"))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without scores and pictures, which take most of their time here and know nothing of steering."""
    monkeypatch.setitem(pipeline._STAGES, "evaluation", lambda work: work.folder.write_json("metrics.json", {}))
    monkeypatch.setitem(
        pipeline._STAGES, "explanation", lambda work: work.folder.write_npz("gallery.npz", {"best_of_class": [[0]]})
    )


def _kept(folder: RunFolder) -> list[int]:
    return [int(feature) for feature in Assignment.load(folder.path / "assignment.npz").selected]


def _files(folder: RunFolder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder.path)): path.read_bytes()
        for path in sorted(folder.path.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_a_steered_run_is_finished_stands_alone_and_says_where_it_comes_from(parent: RunFolder, tmp_path: Path) -> None:
    before, banned = _files(parent), _kept(parent)[0]
    seen: list[Steered] = []

    def look(steered: Steered) -> None:
        assert not (tmp_path / "child").exists()
        seen.append(steered)

    child = steer_run(parent, Steering(ban=(banned,)), tmp_path / "child", data=tiny_data(), on_proposal=look)
    assert _files(parent) == before
    assert list(child.stages()) == list(STAGES)
    problem = AssignmentProblem.load(child.path / "problem.npz")
    result = Assignment.load(child.path / "assignment.npz")
    assert verify(problem, result).ok
    assert banned in problem.excluded_features
    assert banned not in result.selected
    assert result.objective == pytest.approx(solve_assignment(problem, time_limit=None).objective)
    assert {row["stage"] for row in child.history()} == {"dense", "fine-tuning"}
    dense = [row for row in child.history() if row["stage"] == "dense"]
    assert dense == [row for row in parent.history() if row["stage"] == "dense"]

    record = child.read_json(STEERING)
    assert record["parent"]["path"] == str(parent.path.resolve())
    assert record["steering"] == {"ban": [banned]}
    assert record["diff"] == seen[0].diff.to_dict()
    assert banned in [row["feature"] for row in record["diff"]["features_out"]]
    assert (child.path / "dense.safetensors").samefile(parent.path / "dense.safetensors")
    origin = f"{parent.path.name}; ban: [{banned}]; price {record['diff']['price']:.3f}"
    assert (told_origin(child), told_origin(parent)) == (origin, None)
    assert ("Steered from", origin) in gather_report(child, data=tiny_data(), device="cpu").protocol

    shutil.rmtree(parent.path)
    model, _, _ = load_checkpoint(child.path / "qpm.safetensors")
    assert isinstance(model, QPMClassifier)
    np.testing.assert_array_equal(model.selected.numpy(), result.selected)
    again = steer_run(parent.path, Steering(ban=(banned,)), child.path, data=tiny_data())
    assert again.path == child.path


@pytest.mark.usefixtures("brief")
def test_files_are_copied_where_they_cannot_be_linked(
    parent: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    banned = _kept(parent)[0]
    child = steer_run(parent, Steering(ban=(banned,)), tmp_path / "child", data=tiny_data())
    for name in ("dense.safetensors", "statistics.npz"):
        assert not (child.path / name).samefile(parent.path / name)
        assert (child.path / name).read_bytes() == (parent.path / name).read_bytes()


@pytest.mark.usefixtures("brief")
def test_doing_the_parent_again_does_not_change_the_child(parent: RunFolder, tmp_path: Path) -> None:
    child = steer_run(parent, Steering(ban=(_kept(parent)[0],)), tmp_path / "child", data=tiny_data())
    before = _files(child)
    changed = replace(tiny_config(), dense=replace(tiny_config().dense, epochs=1))
    parent.write_config(changed.to_dict())
    pipeline.run(changed, parent.path, data=tiny_data(), redo="dense")
    assert _files(child) == before
    assert (parent.path / "dense.safetensors").read_bytes() != before["dense.safetensors"]
    with pytest.raises(InvalidInputError, match="was begun from another run"):
        steer_run(parent, Steering(ban=(_kept(child)[0],)), child.path, data=tiny_data())


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("moment", ["steering.json", "statistics.npz", "problem", "dense", "assignment", "fine-tuning"])
def test_a_run_that_is_stopped_anywhere_goes_on(
    parent: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    steering, out = Steering(ban=(_kept(parent)[0],)), tmp_path / "child"
    with monkeypatch.context() as patch:
        _stop_at(patch, moment)
        with pytest.raises(KeyboardInterrupt):
            steer_run(parent, steering, out, data=tiny_data())
    assert not list(out.rglob(".writing-*"))
    if moment == "fine-tuning":
        (parent.path / "qpm.safetensors").unlink()
        shutil.rmtree(parent.path)
    proposals: list[Steered] = []
    child = steer_run(parent.path, steering, out, data=tiny_data(), on_proposal=proposals.append)
    assert list(child.stages()) == list(STAGES)
    assert bool(proposals) == (moment != "fine-tuning")
    result = Assignment.load(child.path / "assignment.npz")
    assert verify(AssignmentProblem.load(child.path / "problem.npz"), result).ok
    model, _, _ = load_checkpoint(child.path / "qpm.safetensors")
    np.testing.assert_array_equal(model.selected.numpy(), result.selected)  # type: ignore[union-attr]


def _stop_at(patch: pytest.MonkeyPatch, moment: str) -> None:
    """Ctrl-C right before a file is written, a stage noted or, of fine-tuning, begun."""

    def wrap(owner: Any, name: str, position: int) -> None:
        original = getattr(owner, name)

        def stop(*arguments: Any, **options: Any) -> Any:
            if arguments[position] == moment:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        patch.setattr(owner, name, stop)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    wrap(RunFolder, "write_json", 1)
    wrap(RunFolder, "mark_finished", 1)
    wrap(steered_run, "_share", 2)
    if moment == "problem":
        patch.setattr(AssignmentProblem, "save", interrupt)
    if moment == "fine-tuning":
        patch.setitem(pipeline._STAGES, "fine-tuning", interrupt)


@pytest.mark.usefixtures("brief")
def test_a_steered_run_can_be_steered_and_keeps_what_was_asked_before(parent: RunFolder, tmp_path: Path) -> None:
    first, second = _kept(parent)[:2]
    child = steer_run(parent, Steering(ban=(first,)), tmp_path / "child", data=tiny_data())
    steered = propose_steering(child, Steering(ban=(second,)))
    assert not {first, second} & set(steered.assignment.selected.tolist())


@pytest.mark.usefixtures("brief")
def test_names_of_features_are_understood_and_taken_along(parent: RunFolder, tmp_path: Path) -> None:
    banned = _kept(parent)[0]
    assert all_names(parent) == {}
    parent.write_csv("names.csv", ["feature", "name"], [(banned, "red corner"), (_kept(parent)[1], "")])
    assert all_names(parent) == {banned: "red corner"}
    steered = propose_steering(parent, Steering(ban=("red corner",)))
    assert steered.steering == Steering(ban=(banned,))
    child = steer_run(parent, Steering(ban=("red corner",)), tmp_path / "child", data=tiny_data())
    assert all_names(child) == {banned: "red corner"}
    steer_run(parent, Steering(ban=(banned,)), child.path, data=tiny_data())  # the same in other words
    parent.write_csv("names.csv", ["feature", "name"], [("x", "red corner")])
    with pytest.raises(RunFolderError, match=r"names\.csv"):
        all_names(parent)


def test_centre_bias_takes_the_statistics_of_the_run_and_says_where_they_are_too_old(
    parent: RunFolder, tmp_path: Path
) -> None:
    statistics = parent.read_npz("statistics.npz")
    steered = propose_steering(parent, Steering(centre_bias=1e4))
    alive = np.flatnonzero(~statistics["dead"])
    nearest = sorted(statistics["offset"][alive])[: len(steered.assignment.selected)]
    assert sorted(statistics["offset"][steered.assignment.selected]) == pytest.approx(nearest)
    parent.write_npz("statistics.npz", {name: array for name, array in statistics.items() if name != "offset"})
    with pytest.raises(InvalidInputError, match=r"'centre_bias'.*earlier version"):
        steer_run(parent, Steering(centre_bias=1.0), tmp_path / "child", data=tiny_data())
    assert not (tmp_path / "child").exists()
    propose_steering(parent, Steering(border_bias=-1.0))  # needs nothing new


# -- refusals ------------------------------------------------------------------------------------------------------


def test_nothing_is_written_for_a_steering_that_cannot_be_met(parent: RunFolder, tmp_path: Path) -> None:
    first = _kept(parent)[0]
    for steering, error in (
        (Steering(), InvalidInputError),
        (Steering(ban=(99,)), InvalidInputError),
        (Steering(assign={"nort": (first,)}), InvalidInputError),
        (Steering(ban=tuple(range(6))), InfeasibleProblemError),
        (Steering(ban=("no such name",)), InvalidInputError),
    ):
        with pytest.raises(error):
            steer_run(parent, steering, tmp_path / "child", data=tiny_data())
        assert not (tmp_path / "child").exists()


def test_other_data_are_refused_before_anything_is_written(parent: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="have changed"):
        steer_run(parent, Steering(ban=(_kept(parent)[0],)), tmp_path / "child", data=tiny_data(per_class=10))
    assert not (tmp_path / "child").exists()


def test_folders_with_something_else_are_refused(parent: RunFolder, finished: RunFolder, tmp_path: Path) -> None:
    steering = Steering(ban=(_kept(parent)[0],))
    before = _files(parent)
    other = RunFolder(shutil.copytree(finished.path, tmp_path / "other"))
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("…")
    for out, message in (
        (parent.path, "holds the run that is steered"),
        (other.path, "holds another run"),
        (tmp_path / "papers", "is no run folder"),
    ):
        with pytest.raises(RunFolderError, match=message):
            steer_run(parent, steering, out, data=tiny_data())
    assert _files(parent) == before
    with pytest.raises(RunFolderError, match="does not exist"):
        steer_run(tmp_path / "nowhere", steering, tmp_path / "child", data=tiny_data())
    assert not (tmp_path / "child").exists()


@pytest.mark.usefixtures("brief")
def test_another_steering_in_the_same_folder_is_refused(parent: RunFolder, tmp_path: Path) -> None:
    first, second = _kept(parent)[:2]
    child = steer_run(parent, Steering(ban=(first,)), tmp_path / "child", data=tiny_data())
    with pytest.raises(InvalidInputError, match=rf"with another steering, {{'ban': \[{first}\]}}"):
        steer_run(parent, Steering(ban=(second,)), child.path, data=tiny_data())
    (child.path / STEERING).write_text('{"steering": {}}')
    with pytest.raises(RunFolderError, match=r"steering\.json.*damaged"):
        steer_run(parent, Steering(ban=(second,)), child.path, data=tiny_data())


@pytest.mark.usefixtures("brief")
def test_a_steered_choice_is_not_made_again_without_the_steering(parent: RunFolder, tmp_path: Path) -> None:
    child = steer_run(parent, Steering(ban=(_kept(parent)[0],)), tmp_path / "child", data=tiny_data())
    config = qpm_vision.RunConfig.from_dict(child.config())
    before = _files(child)
    for stage in ("dense", "statistics", "assignment"):
        with pytest.raises(InvalidInputError, match="come from steering another run"):
            pipeline.run(config, child.path, data=tiny_data(), redo=stage)
    assert _files(child) == before
    pipeline.run(config, child.path, data=tiny_data(), redo="fine-tuning")
    assert (child.path / "assignment.npz").read_bytes() == before["assignment.npz"]


def test_a_run_without_features_cannot_be_steered(finished: RunFolder, tmp_path: Path) -> None:
    young = RunFolder(shutil.copytree(finished.path, tmp_path / "young"))
    young.forget_from("assignment")
    with pytest.raises(RunFolderError, match="has no features to steer"):
        propose_steering(young, Steering(ban=(0,)))


# -- command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def _data_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (steered_run, pipeline):
        monkeypatch.setattr(module, "load_data", lambda *_, **__: tiny_data())


@pytest.mark.usefixtures("_data_by_name")
def test_the_command(parent: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = _kept(parent)[:2]
    (tmp_path / "steer.yaml").write_text(f"ban: [{first}]")
    options = ["--file", str(tmp_path / "steer.yaml"), "--prefer", f"{second}=0.5", "--solve-seconds", "5"]
    assert cli.main(["steer", str(parent.path), "--dry-run", *options]) == 0
    out, err = capsys.readouterr()
    assert f"features out  {first} in" in out
    assert sorted(item.name for item in tmp_path.iterdir()) == ["parent", "steer.yaml"]

    child = tmp_path / "child"
    assert cli.main(["steer", str(parent.path), str(child), *options]) == 0
    out, err = capsys.readouterr()
    assert out.index("features out") < out.index("accuracy, test")
    assert "before steering" in out
    assert "fine-tuning done in" in err
    assert RunFolder(child).read_json(STEERING)["steering"] == {"ban": [first], "prefer": {str(second): 0.5}}
    shutil.rmtree(parent.path)
    assert cli.main(["steer", str(parent.path), str(child), *options]) == 0
    out, err = capsys.readouterr()
    assert "already finished" in err
    assert "before steering" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ban", "1"], "NEWRUN"),
        (["--dry-run"], "must ask for a change"),
        (["--dry-run", "--forbid", "north"], "'--forbid' option must be a class, a colon and features. Got 'north'"),
        (["--dry-run", "--assign", "nort:1"], "Did you mean 'north'?"),
        (["--dry-run", "--prefer", "1:2"], "'--prefer' option must be a feature, = and a number"),
        (["--dry-run", "--ban", "1,x"], "No feature of the run has a name"),
        (["--dry-run", "--ban", "1", "--require", "1"], "both bans and requires feature 1"),
        (["--dry-run", "--file", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes(finished: RunFolder, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["steer", str(finished.path), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_classes_with_colons_and_features_of_several_options() -> None:
    from qpm_vision._cli_steer import _steering

    options = "--forbid a:b:1,2 --forbid a:b:3 --ban 4 --ban 5,6 --contrast a b --stay 0.5 --centre-bias -2"
    arguments = cli._parser().parse_args(["steer", "run", "new", *options.split()])
    assert _steering(arguments) == Steering(
        ban=(4, 5, 6), forbid={"a:b": (1, 2, 3)}, centre_bias=-2.0, stay=0.5, contrast=(("a", "b"),)
    )
