"""The command line of the optimiser, as a user meets it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qpm_opt import Assignment, AssignmentProblem, cli
from tests.contract.test_agreement import infeasible_problem

A = pd.DataFrame(np.random.default_rng(0).random((5, 9)), index=[*"abcde"], columns=[f"f{i}" for i in range(9)])


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    AssignmentProblem(A, n_select=4, n_per_class=2).save(tmp_path / "problem.npz")
    return tmp_path / "problem.npz"


def test_solve_verify_show(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stored.parent / "result.npz"
    assert cli.main(["solve", str(stored), str(out)]) == 0
    printed = capsys.readouterr()
    assert "5 classes, 9 features" in printed.out
    assert "status       optimal" in printed.out
    assert f"written to {out}" in printed.out
    assert "pyomo" in printed.err  # progress goes there
    assert cli.main(["verify", str(stored), str(out)]) == 0
    assert "verified" in capsys.readouterr().out
    assert cli.main(["show", str(out), "--classes", "--plot", str(stored.parent / "p.png")]) == 0
    shown = capsys.readouterr().out
    assert "\na: f" in shown
    assert (stored.parent / "p.png").stat().st_size > 1000
    assert cli.main(["show", str(stored)]) == 0
    assert "AssignmentProblem" in capsys.readouterr().out


def test_a_result_of_another_problem_fails_the_check(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stored.parent / "result.json"
    assert cli.main(["solve", str(stored), str(out), "--solver", "cpsat", "--threads", "1"]) == 0
    AssignmentProblem(A[::-1].to_numpy(), n_select=4, n_per_class=2).save(stored)
    assert cli.main(["verify", str(stored), str(out)]) == 1
    assert "is claimed to be" in capsys.readouterr().out


def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    A.to_csv(tmp_path / "A.csv")
    similarity = A.corr()
    similarity.to_csv(tmp_path / "R.csv")
    np.save(tmp_path / "b.npy", np.linspace(0, 1, 9))
    arguments = ["solve", str(tmp_path / "A.csv"), str(tmp_path / "r.json"), "--similarity", str(tmp_path / "R.csv")]
    arguments += ["--bias", str(tmp_path / "b.npy"), "--n-select", "4", "--n-per-class", "2"]
    assert cli.main(arguments) == 0
    assert "Penalties(n_features=9" in capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["class_labels"] == [*"abcde"]
    assert result["terms"]["bias"] > 0


def test_a_start_and_options(stored: Path) -> None:
    first, second = stored.parent / "1.npz", stored.parent / "2.npz"
    assert cli.main(["solve", str(stored), str(first), "--solver", "local_search", "--option", "restarts=1"]) == 0
    assert cli.main(["solve", str(stored), str(second), "--start", str(first), "--time-limit", "0"]) == 0
    assert Assignment.load(second).trace[0].objective == pytest.approx(Assignment.load(first).objective)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npz", "OUT.npz"], "'nowhere.npz' does not exist"),
        (["PROBLEM", "OUT.txt"], "must end in .npz or .json"),
        (["PROBLEM", "nowhere/OUT.npz"], "folder 'nowhere' for the result does not exist"),
        (["PROBLEM", "OUT.npz", "--n-select", "3"], "'--n-select' goes with a table"),
        (["PROBLEM", "OUT.npz", "--solver", "cpsta"], "Did you mean 'cpsat'"),
        (["PROBLEM", "OUT.npz", "--option", "restarts"], "must be NAME=VALUE"),
        (["PROBLEM", "OUT.npz", "--option", "seed=5"], "Got 'seed'"),
        (["PROBLEM", "OUT.npz", "--option", "native_options={[]:1}"], "must be a mapping of names"),
        (["PROBLEM", "/"], "must end in"),
        (["PROBLEM", "OUT.npz", "--solver", "local_search", "--option", "restart=2"], "Did you mean 'restarts'"),
        (["table.txt", "OUT.npz"], "must be a .csv or .npy file"),
        (["table.csv", "OUT.npz"], "'table.csv' does not exist"),
        (["table.csv", "OUT.npz", "--redundancy", "a.csv", "--similarity", "b.csv"], "not both"),
        (["PROBLEM", "OUT.npz", "--time-limit", "-3"], "'time_limit'"),
    ],
)
def test_mistakes(arguments: list[str], message: str, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled = [{"PROBLEM": str(stored)}.get(a, a.replace("OUT", str(stored.parent / "out"), 1)) for a in arguments]
    if "nowhere/OUT" in arguments[1]:
        filled[1] = "nowhere/out.npz"
    assert cli.main(["solve", *filled]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_no_solution_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    infeasible_problem().save(tmp_path / "p.npz")
    out = tmp_path / "r.json"
    assert cli.main(["solve", str(tmp_path / "p.npz"), str(out)]) == 1
    assert json.loads(out.read_text())["termination"] == "infeasible"
    assert cli.main(["verify", str(tmp_path / "p.npz"), str(out)]) == 1
    assert cli.main(["show", str(out)]) == 0
    assert cli.main(["show", str(out), "--classes"]) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_without_the_characters_loses_nothing(stored: Path, encoding: str) -> None:
    out = stored.parent / "r.npz"
    code = f"from qpm_opt.cli import main; raise SystemExit(main(['solve', {str(stored)!r}, {str(out)!r}]))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert Assignment.load(out).status.value == "optimal"


@pytest.mark.parametrize("redirection", ["2>&1 | head -1", "2>/dev/full", ">/dev/full", "| true"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_listener_that_went_away_loses_nothing(stored: Path, redirection: str, unbuffered: str) -> None:
    out, code = stored.parent / "r.npz", stored.parent / "code"
    command = f"({sys.executable} -m qpm_opt.cli solve {stored} {out}; echo $? > {code}) {redirection}"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    subprocess.run(["bash", "-c", command], env=environment, check=False, capture_output=True, timeout=60)
    assert code.read_text() == "0\n"
    assert Assignment.load(out).status.value == "optimal"


def test_tables_with_other_labels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    A.to_csv(tmp_path / "A.csv")
    pd.Series(np.arange(9.0), index=A.columns[::-1]).to_csv(tmp_path / "b.csv")
    sizes = ["--n-select", "4", "--n-per-class", "2"]
    arguments = ["solve", str(tmp_path / "A.csv"), str(tmp_path / "r.npz"), "--bias", str(tmp_path / "b.csv"), *sizes]
    assert cli.main(arguments) == 2
    assert "'feature_bias' parameter must carry the labels" in capsys.readouterr().err
    pd.Series(np.arange(9.0), index=A.columns).to_csv(tmp_path / "b.csv")
    assert cli.main(arguments) == 0
    plain = pd.DataFrame(A.to_numpy())  # numbers for names, in the first row and in the first column
    plain.to_csv(tmp_path / "A.csv")
    plain.corr().to_csv(tmp_path / "R.csv")
    arguments = ["solve", str(tmp_path / "A.csv"), str(tmp_path / "r.npz"), "--similarity", str(tmp_path / "R.csv")]
    assert cli.main([*arguments, *sizes]) == 0


def test_ctrl_c_writes_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    AssignmentProblem(rng.random((60, 300)), n_select=20, n_per_class=4).save(tmp_path / "p.npz")
    command = [sys.executable, "-m", "qpm_opt.cli", "solve", str(tmp_path / "p.npz"), str(tmp_path / "r.npz")]
    command += ["--solver", "local_search", "--option", "restarts=1000000", "--mip-gap", "0"]
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # it is ignored where tests run in the background
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as process:
        assert process.stderr is not None
        while "objective" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    result = Assignment.load(tmp_path / "r.npz")
    assert result.termination.value == "interrupted"
    assert result.weights.shape == (60, 20)


def test_backends(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backends"]) == 0
    table = capsys.readouterr().out
    for word in ("cpsat", "local_search", "pyomo", "proves optimality", "deterministic"):
        assert word in table


def test_show_wants_a_result_for_pictures(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(stored), "--classes"]) == 2
    assert "show an assignment" in capsys.readouterr().err
    assert cli.main(["solve", str(stored), str(stored.parent / "r.npz")]) == 0
    assert cli.main(["show", str(stored.parent / "r.npz"), "--plot", "picture.unknown"]) == 2
    assert "Cannot write the picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f0,f1,f2\n1,0,1\n0,1,1\n", "Got the number 1 under 'f0'"),
        ("3,1,4\n1,0,1\n0,1,1\n", "must have names in its first row and column"),
        ("f0,f1\n0.5,0.1\n", "Got the number 0.5 under 'f0'"),
        (";f0;f1\na;1;0\n", "separated by commas"),
    ],
)
def test_tables_without_names_are_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "A.csv").write_text(text)
    assert cli.main(["solve", str(tmp_path / "A.csv"), str(tmp_path / "r.npz")]) == 2
    assert message in capsys.readouterr().err


def test_other_files_are_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    A.to_csv(tmp_path / "A.csv")
    assert cli.main(["show", str(tmp_path / "A.csv")]) == 2
    assert cli.main(["verify", str(tmp_path / "A.csv"), str(tmp_path / "A.csv")]) == 2
    assert "pickle" not in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.01, 2.5, 9.0])
def test_progress_that_nobody_watches_is_a_line_in_ten_seconds(seconds: float) -> None:
    now = 0.0
    stream = io.StringIO()
    with cli._Ticker(stream, clock=lambda: now) as ticker:
        for done in range(1, 301):
            now += seconds
            ticker.tell(f"{done}/300", last=done == 300)
    lines = stream.getvalue().splitlines()
    assert (lines[0], lines[-1]) == ("1/300", "300/300")
    assert 300 * seconds / 20 <= len(lines) <= 300 * seconds / 10 + 2


def test_a_sweep_of_quick_points_tells_the_first_and_the_last(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--n-select", "4,5,6,7", "--n-per-class", "2", "--solver", "local_search", "--time-limit", "0.05"]
    assert cli.main(["sweep", str(stored), str(stored.with_name("sweep")), *sizes]) == 0
    lines = [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines() if "/" in line.partition(" ")[0]]
    assert lines == ["1/4", "4/4"]


def test_nothing_is_written_over_what_it_is_made_from(
    stored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stored.parent
    monkeypatch.chdir(folder)
    A.to_csv("A.csv")
    assert cli.main(["solve", "problem.npz", "r.npz", "--solver", "local_search"]) == 0
    Path("soft.npz").symlink_to("problem.npz")
    Path("hard.npz").hardlink_to("problem.npz")
    Path("table.npz").symlink_to("A.csv")
    Path("picture.png").symlink_to("r.npz")
    (folder / "out" / "points").mkdir(parents=True)
    Path("out/points/select4-class2-given.npz").hardlink_to("problem.npz")
    Path("out/sweep.csv").symlink_to(folder / "A.csv")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    sizes = ["--n-select", "4", "--n-per-class", "2"]
    for command in (
        ["solve", "problem.npz", "problem.npz"],
        ["solve", "problem.npz", f"../{folder.name}/./problem.npz"],
        ["solve", "problem.npz", "soft.npz"],
        ["solve", "soft.npz", "problem.npz"],
        ["solve", "problem.npz", "hard.npz"],
        ["solve", "A.csv", "table.npz", *sizes],
        ["solve", "problem.npz", "r.npz", "--start", "r.npz"],
        ["show", "r.npz", "--plot", "picture.png"],
        ["sweep", "problem.npz", "out", *sizes],
        ["sweep", "A.csv", "out", *sizes],
    ):
        assert cli.main(command) == 2, command
        assert "must not take the place of what is read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_options_that_would_do_nothing_are_refused(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(stored), "--kind", "matrix"]) == 2
    assert "Got it alone; add '--plot FILE'" in capsys.readouterr().err
    assert cli.main(["sweep", str(stored), str(stored.parent / "out"), "--n-select", "1:999999999999:1"]) == 2
    assert "at most 10000 numbers" in capsys.readouterr().err


def test_what_does_not_fit_into_memory_is_said(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def solve(*_: object, **__: object) -> None:
        np.empty((2**20, 2**38))

    monkeypatch.setattr("qpm_opt.cli.solve_assignment", solve)
    assert cli.main(["solve", str(stored), str(stored.with_name("result.npz"))]) == 2
    assert "must fit into memory. Got Unable to allocate" in capsys.readouterr().err


def test_names_do_not_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = A.rename(index={"a": "\x1b[2Ja"}, columns={f"f{i}": f"\x1b[31mf{i}" for i in range(9)})
    AssignmentProblem(table, n_select=4, n_per_class=2).save(tmp_path / "problem.npz")
    out = str(tmp_path / "result.npz")
    assert cli.main(["solve", str(tmp_path / "problem.npz"), out, "--solver", "local_search"]) == 0
    assert cli.main(["show", out, "--classes"]) == 0
    assert cli.main(["show", str(tmp_path / "\x1b[2J.npz")]) == 2
    printed = "".join(capsys.readouterr())
    assert "\x1b" not in printed
    assert "\\x1b[2Ja: \\x1b[31mf" in printed
