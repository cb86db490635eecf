"""Processors that a process may use: its affinity, and quotas of control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from qpm_opt import available_processors, processors, solve_assignment
from qpm_opt.backends.decomposition import search


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processors, "_ROOT", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


def _version_1(path: str, mount: str, quota: str) -> dict[str, str]:
    return {
        "proc/self/cgroup": f"5:memory:/x\n4:cpu,cpuacct:{path}\n0::/",
        f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us": quota,
        f"sys/fs/cgroup/{mount}/cpu.cfs_period_us": "100000",
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1600000 100000"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "nonsense"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "100000 0"}, 8),
        # of the service around the one of the process
        (
            {
                "proc/self/cgroup": "0::/a/b/c",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/b/c/cpu.max": "500000 100000",
            },
            3,
        ),
        ({"proc/self/cgroup": "1:cpu:/\n0::/u", "sys/fs/cgroup/unified/u/cpu.max": "400000 100000"}, 4),
        (_version_1("/docker/1f", "cpu,cpuacct", "200000"), 2),  # mounted as the root within a container
        (_version_1("/docker/1f", "cpu/docker/1f", "200000"), 2),
        (_version_1("/", "cpu", "-1"), 8),
    ],
)
def test_a_quota_counts_like_processors(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    _write(tmp_path, files)
    assert available_processors() == expected


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {5, 7}, raising=False)
    assert available_processors() == 2


def test_a_system_without_affinity_has_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert available_processors() == 6


def test_the_decomposition_branches_on_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    seen: list[int] = []

    class Noted(search.Search):
        def run(self) -> search.Termination:
            seen.append(self._threads)
            return super().run()

    monkeypatch.setattr("qpm_opt.backends.decomposition.Search", Noted)
    objectives = set()
    for quota, threads in (("max", None), ("200000", None), ("100000", None), ("100000", 3)):
        _write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": f"{quota} 100000"})
        A = [[0.9, 0.1, 0.4, 0.3], [0.2, 0.8, 0.5, 0.3], [0.5, 0.5, 0.1, 0.7]]
        objectives.add(
            solve_assignment(A, n_select=3, n_per_class=2, solver="decomposition", threads=threads).objective
        )
    assert seen == [4, 2, 1, 3]
    assert len(objectives) == 1
