"""Processes of a sweep: none outlives it, and what stops them is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from qpm_opt import AssignmentProblem, InvalidInputError, SolverError, sweep

RNG = np.random.default_rng(0)
PAIRS = np.triu(RNG.random((300, 300)), 1)
SLOW = AssignmentProblem(RNG.random((60, 300)), PAIRS + PAIRS.T, n_select=20, n_per_class=4)
"""Takes longer than any test."""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("end", "after"), [(signal.SIGTERM, 0.2), (signal.SIGKILL, 2.0), (signal.SIGINT, 0.2)])
def test_no_process_outlives_a_sweep(tmp_path: Path, end: signal.Signals, after: float) -> None:
    SLOW.save(tmp_path / "p.npz")
    command = [sys.executable, "-m", "qpm_opt.cli", "sweep", str(tmp_path / "p.npz"), str(tmp_path / "out")]
    command += ["--n-select", "20", "--n-per-class", "4", "--workers", "1"]
    # Not ignored, as it is where tests run in the background. A process that lives on holds the pipe.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=listening) as process:
        limit = time.monotonic() + 60
        while _n_children(process.pid) < 2:  # one of them keeps the accounts of multiprocessing
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        time.sleep(after)
        process.send_signal(end)
        printed, _ = process.communicate(timeout=10)
    assert process.returncode == (130 if end == signal.SIGINT else -end)
    assert b"Traceback" not in printed


def _n_children(pid: int) -> int:
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())


def test_a_killed_process_is_told(tmp_path: Path) -> None:
    def kill() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.01)
        time.sleep(0.5)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    with ThreadPoolExecutor() as pool:
        pool.submit(kill)
        with pytest.raises(SolverError, match="was killed, most often because memory ran out"):
            sweep(SLOW, tmp_path, n_select=[20], n_per_class=[4], workers=1)


def test_a_daemonic_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(InvalidInputError, match="which a daemonic process such as"):
        sweep(SLOW, tmp_path, n_select=[20], n_per_class=[4])


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\nfrom qpm_opt import AssignmentProblem, sweep\n"
        "problem = AssignmentProblem(np.eye(4), n_select=4, n_per_class=2)\n"
        f"sweep(problem, {str(tmp_path / 'out')!r}, n_select=[4], n_per_class=[2])\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith('Put the call under `if __name__ == "__main__":`.')
    assert "bootstrapping" not in done.stderr
