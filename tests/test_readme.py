"""What the README promises: its Python runs, its commands exist, and the checks are those that CI runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_optimiser_example_runs_as_printed(tmp_path: Path) -> None:
    code = _blocks("python")[0]
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 5
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "objective" in done.stdout
    assert "feature" in done.stdout


def test_the_vision_example_names_real_things(monkeypatch: pytest.MonkeyPatch) -> None:
    import qpm_vision

    calls = []
    monkeypatch.setattr(qpm_vision, "run", lambda config, folder: calls.append((config, folder)))
    exec(_blocks("python")[1], {})
    config, folder = calls[0]
    assert (config.n_select, config.n_per_class, folder) == (50, 5, "my-run")


def _commands() -> list[list[str]]:
    lines = [line for block in _blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("qpm-opt ", "qpm-vision "))]


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_commands_are_understood(command: list[str]) -> None:
    from qpm_opt import cli as opt
    from qpm_vision import cli as vision

    parser = {"qpm-opt": opt, "qpm-vision": vision}[command[0]]._parser()
    assert callable(parser.parse_args(command[1:]).command)


def test_there_are_commands_and_ci_runs_the_readmes() -> None:
    assert len(_commands()) >= 10
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
    for name in ("demo", "tests"):
        assert README.count(f"<!-- command: {name} -->\n```bash\n") == 1


def test_files_that_it_shows_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).is_file(), target
