"""Two processes do together what one does alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from qpm_vision import distributed
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.pipeline import run
from qpm_vision.run_folder import STAGES
from tests.vision.tiny import tiny_config, tiny_data

ROOT = Path(__file__).parents[2]


def in_two_processes(code: str) -> list[subprocess.CompletedProcess[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(code)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    results = []
    for process in processes:
        out, errors = process.communicate(timeout=120)
        results.append(subprocess.CompletedProcess(process.args, process.returncode, out, errors))
    return results


def test_alone_everything_is_as_if_it_were_not_there() -> None:
    with distributed.process_group():
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
        assert distributed.gathered("x") == ["x"]
        assert distributed.from_main("x") == "x"
        assert torch.equal(distributed.sum_over_processes(torch.ones(2)), torch.ones(2))
        distributed.wait()


def test_another_process_that_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:6029: Connection reset by peer")
    reset = pytest.raises(distributed.DistributedError, match=r"reset by peer.*same command continues")
    with reset, distributed.process_group():
        raise lost
    with pytest.raises(RuntimeError, match=r"^of another kind$"), distributed.process_group():
        raise RuntimeError("of another kind")


def test_processes_that_cannot_be_joined_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(distributed.DistributedError, match=r"RANK.*torchrun"), distributed.process_group():
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_ends_with_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    output, inherited = os.pipe()
    launcher = os.fork()
    if not launcher:
        if not os.fork():
            distributed._end_with_launcher()
            time.sleep(60)
        time.sleep(0.5)
        os._exit(0)
    os.close(inherited)
    os.waitpid(launcher, 0)
    began = time.monotonic()
    assert os.read(output, 1) == b""
    assert time.monotonic() - began < 10
    os.close(output)


@pytest.mark.usefixtures("tiny_registered")
def test_a_run_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    code = f"""
        from dataclasses import replace
        from tests.vision.tiny import registered, tiny_config, tiny_data
        from qpm_vision.pipeline import run
        with registered():
            run(tiny_config(), {str(tmp_path / "two")!r}, data=tiny_data(13))
        """
    for result in in_two_processes(code):
        assert result.returncode == 0, result.stderr
    one = run(tiny_config(), tmp_path / "one", data=tiny_data(13))
    two = type(one).open(tmp_path / "two")
    assert list(two.stages()) == list(STAGES)
    alone, shared = one.read_npz("statistics.npz"), two.read_npz("statistics.npz")
    dense = [load_checkpoint(folder.path / "dense.safetensors")[0].state_dict() for folder in (one, two)]
    for name, tensor in dense[0].items():  # 52 images in batches of 16: 16, 16, 16, 4
        torch.testing.assert_close(dense[1][name], tensor, atol=1e-5, rtol=1e-4)
    assert alone.keys() == shared.keys()
    np.testing.assert_array_equal(alone["class_counts"], shared["class_counts"])
    np.testing.assert_allclose(alone["A"], shared["A"], atol=1e-3)
    # Dropout, in fine-tuning, differs: each process draws for its own images.
    losses = [[float(row["loss"]) for row in folder.history() if row["stage"] == "dense"] for folder in (one, two)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    figures = [folder.read_json("metrics.json")["dense"] for folder in (one, two)]
    for name, value in figures[0].items():
        assert figures[1][name] == (None if value is None else pytest.approx(value, rel=0.02)), name


@pytest.mark.slow
def test_from_the_command_line_one_process_tells(tmp_path: Path) -> None:
    words = f"train digits {tmp_path / 'run'} --backbone tiny-for-tests --n-select 6 --n-per-class 2 --device cpu"
    words += " --dense-epochs 1 --fine-tuning-epochs 1 --solve-seconds 5"
    code = f"""
        from tests.vision.tiny import registered
        from qpm_vision.cli import main
        with registered():
            raise SystemExit(main({words.split()!r}))
        """
    first, second = in_two_processes(code)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "accuracy, test" in first.stdout
    assert "evaluation done in" in first.stderr
    assert second.stdout == second.stderr == ""
