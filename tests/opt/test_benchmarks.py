"""The benchmarks: instances by name, runs in processes of their own, tables and plots."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmarks import runner
from benchmarks.__main__ import main
from benchmarks.instances import LADDER, SUITES, load_instance
from benchmarks.report import _plot_gaps, _plot_profile, load_runs, markdown_table
from benchmarks.runner import Run, measure, measure_into, unavailable
from benchmarks.targets import TARGETS, target_table
from qpm_opt import AssignmentProblem


def test_instances_have_the_size_and_the_penalties_of_their_name() -> None:
    problem = load_instance("generated-12x80-10%")
    assert (problem.n_classes, problem.n_features) == (12, 80)
    assert problem.n_penalised / (80 * 79 / 2) == pytest.approx(0.1, abs=0.01)
    assert load_instance("generated-12x80-none").n_penalised == 0
    first, second = (load_instance(f"generated-12x80-seed{seed}-turan") for seed in (0, 1))
    assert (first.class_similarity != second.class_similarity).any()
    with pytest.raises(ValueError, match="There is no instance 'nothing'"):
        load_instance("nothing")


def test_the_real_features_come_with_the_project() -> None:
    problem = load_instance("hangul-turan")
    assert (problem.n_classes, problem.n_features, problem.n_select) == (200, 1280, 50)
    assert 0 < len(problem.dead_features) < 40


def test_all_registered_names_are_understood() -> None:
    from benchmarks.instances import _NAME

    for name in [*TARGETS, *LADDER, *(name for suite in SUITES.values() for name in suite)]:
        assert _NAME.fullmatch(name)


def test_a_run_from_a_file_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.npz"
    load_instance("generated-6x40-turan").save(path)
    out = tmp_path / "out"
    command = ["run", "--instance", str(path), "--solver", "decomposition", "--solver", "greedy", "--out", str(out)]
    assert main([*command, "--time-limit", "20"]) == 0
    assert "| mine.npz |" in capsys.readouterr().out
    table = pd.read_csv(out / "runs.csv").set_index("solver")
    ours = table.loc["decomposition"]
    assert ours["gap"] <= 1e-4
    assert ours["to_proof"] >= ours["first"]
    assert ours["peak_memory"] > 20
    assert ours["objective"] >= table.loc["greedy", "objective"]
    assert pd.isna(table.loc["greedy", "bound"])
    assert (out / "gap_over_time.png").stat().st_size > 5_000
    assert len(load_runs(out)) == 2
    assert main(["report", str(out)]) == 0


def test_a_solver_that_cannot_run_says_so(tmp_path: Path) -> None:
    reason = unavailable("pyomo:no-such-solver")
    assert reason is not None
    assert "no solver" in reason
    run = measure(str(tmp_path / "missing.npz"), "greedy", 0, 1.0)
    assert (run.termination, run.objective) == ("failed", None)
    assert "failed" in markdown_table([run])


def test_what_a_run_told_before_it_was_ended_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_GRACE", -56.0)
    run = measure("generated-100x512-threshold", "decomposition", 0, 60.0)
    assert (run.termination, run.runtime, run.n_classes) == ("ended from outside", None, 100)
    assert run.objective is not None
    assert run.gap is not None
    assert run.gap == run.gap_at(60.0)
    assert "ended from outside" in markdown_table([run])


def test_targets_are_read_off_the_trace() -> None:
    def ended(trace: list[tuple[float, float | None, float | None]]) -> Run:
        return Run(
            "hangul-threshold", 200, 1280, 50, 0.2, "decomposition", "1", 0, 300.0, "", objective=100.0, trace=trace
        )

    run = ended([(1.0, 100.0, None), (50.0, 100.0, 102.0), (200.0, 100.0, 101.6)])
    assert run.gap_at(10.0) is None
    assert run.gap_at(60.0) == pytest.approx(0.02)
    table = target_table([run])
    assert "| 60 s | 2.5 % | 2.000 % | yes |" in table
    assert "| 300 s | 1.5 % | 1.600 % | no |" in table


def test_to_resume_keeps_finished_runs_and_nothing_else(tmp_path: Path) -> None:
    asked = (tmp_path, "generated-6x40-turan", "greedy", 0)
    first = measure_into(*asked, 5.0)
    assert measure_into(*asked, 5.0, resume=True) == first  # the same to the microsecond: it was not run again
    for changed in (
        measure_into(*asked, 5.0),
        measure_into(*asked, 6.0, resume=True),
        measure_into(tmp_path, "generated-6x40-turan", "greedy", 1, 5.0, resume=True),
    ):
        assert (changed.objective, changed.runtime != first.runtime) == (first.objective, True)
    replace(first, termination="failed").save(tmp_path)
    assert measure_into(*asked, 5.0, resume=True).termination == first.termination
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


def test_instances_that_a_solver_was_spared_count_as_not_reached() -> None:
    def ended(instance: str, solver: str) -> Run:
        size = int(instance.partition("x")[0])
        return Run(instance, size, 50, 10, 0.1, solver, "1", 0, 60.0, "", objective=1.0, to_1_percent=2.0)

    runs = [ended(instance, "decomposition") for instance in ("30x50", "10x50", "20x50")] + [ended("10x50", "cpsat")]
    figure = Figure()
    assert _plot_profile(figure, runs)
    reached = {line.get_label(): max(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert reached == {"decomposition (ours)": pytest.approx(100.0), "CP-SAT, plain model": pytest.approx(100.0 / 3.0)}
    rows = markdown_table(runs).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| 10x50", "| 10x50", "| 20x50", "| 30x50"]


def test_every_panel_shows_its_smallest_gap() -> None:
    def ended(size: int, bound: float) -> Run:
        trace = [(1.0, 100.0, 900.0), (2.0, 100.0, bound)]
        return Run(f"{size}x50", size, 50, 10, 0.1, "decomposition", "1", 0, 60.0, "", objective=100.0, trace=trace)

    figure = Figure()
    assert _plot_gaps(figure, [ended(10, 150.0), ended(20, 100.01)])
    for place in figure.axes:
        bottom, top = place.get_ylim()
        assert bottom < 0.01
        assert top == pytest.approx(200.0)


def test_a_run_that_came_back_with_nothing_says_how_it_ended() -> None:
    run = Run("10x50", 10, 50, 10, 0.1, "pyomo", "1", 0, 60.0, "time limit", runtime=60.0, peak_memory=300.0)
    assert "| time limit | – | 300 MB |" in markdown_table([run])


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "decomposition   available" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="resource is a module of Unix")
def test_problems_are_problems() -> None:
    assert isinstance(load_instance("generated-6x40-threshold"), AssignmentProblem)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked up in /proc")
def test_a_run_ends_with_whoever_waits_for_it() -> None:
    code = """
        import multiprocessing, benchmarks.runner
        context = multiprocessing.get_context("spawn")
        receiving, sending = context.Pipe()
        work = (sending, "generated-100x512-turan", "pyomo", 0, 60.0, None)
        process = context.Process(target=benchmarks.runner._work, args=work)
        process.start()
        receiving.recv()  # solving begins
        print(process.pid, flush=True)
        process.join()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        pid = waiting.stdout.readline().strip()
        assert _is_running(pid)
        waiting.kill()
    deadline = time.monotonic() + 20.0
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(pid)


def _is_running(pid: str) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_text())
    except OSError:
        return False
