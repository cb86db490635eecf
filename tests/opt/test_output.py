"""Standard output and error that are closed, full, of another encoding, or that nobody reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qpm_opt import Assignment, AssignmentProblem, solve_assignment, steady_output


def bash(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    labels = ["caf\u00e9", "\ud55c\uad6d", "c"]
    problem = AssignmentProblem(np.random.default_rng(0).random((3, 7)), n_select=4, n_per_class=2, class_labels=labels)
    problem.save(folder / "p.npz")
    solve_assignment(problem).save(folder / "r.npz")
    return folder


@pytest.mark.parametrize("redirection", ["2>&-", "<&- >&-", ">&- 2>&-"])
def test_closed_streams_lose_no_result(stored: Path, tmp_path: Path, redirection: str) -> None:
    out = tmp_path / "out.npz"
    done = bash(f"{sys.executable} -m qpm_opt.cli solve {stored}/p.npz {out} --solver local_search {redirection}")
    assert done.returncode == 0, done.stderr
    assert Assignment.load(out).solution is not None  # and nothing was printed into it
    if redirection == "2>&-":
        assert "written to" in done.stdout
    if redirection == "<&- >&-":
        assert "it is closed" in done.stderr
        assert "written to" in done.stderr


SEVERAL = """
import sys
from qpm_opt.cli import main
for command in sys.argv[1:]:
    try:
        code = main(command.split())
    except SystemExit as end:
        code = end.code
    sys.stderr.write(f"{command.split()[0]}: code {code}\\n")
"""


def test_what_a_full_disk_does_not_take_is_told_elsewhere(stored: Path) -> None:
    p, r = stored / "p.npz", stored / "r.npz"
    commands = f"'--help' 'solve --help' '--version' 'show {r} --classes' 'verify {p} {r}'"
    done = bash(f"{sys.executable} -c '{SEVERAL}' {commands} >/dev/full")
    assert done.returncode == 0, done.stderr
    first = "Standard output cannot be written (No space left on device); it follows here:\n"
    assert done.stderr.count(first) == 5
    for said in ("positional arguments", "--mip-gap", "qpm 0.", "c: 0", "verified"):
        assert said in done.stderr
    codes = re.findall(r"^(\S+): code (\d)", done.stderr, re.MULTILINE)
    assert codes == [("--help", "0"), ("solve", "0"), ("--version", "0"), ("show", "2"), ("verify", "0")]


def test_characters_that_an_encoding_lacks_stay_apart(stored: Path) -> None:
    commands = f"'solve --help' 'show {stored}/r.npz --classes'"
    done = bash(f"{sys.executable} -c '{SEVERAL}' {commands}", PYTHONIOENCODING="ascii:strict")
    assert "solve: code 0\nshow: code 0" in done.stderr
    assert "\n\\ud55c\\uad6d: " in done.stdout


def test_streams_come_back_and_failures_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with steady_output() as output:
        sys.stdout.write("one\n")
        sys.stderr.write("two\n")
        assert output.lost is None
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("one\n", "two\n")


def test_a_reader_that_is_behind_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(reader, "rb") as theirs, os.fdopen(writer, "w") as ours, ThreadPoolExecutor() as pool:
        received = pool.submit(theirs.read, 300_000)
        monkeypatch.setattr(sys, "stdout", ours)
        with steady_output():
            sys.stdout.write("x" * 300_000)
        assert received.result(timeout=20) == b"x" * 300_000
