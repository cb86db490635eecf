"""Processes that load images: killed, stopped, failing, short of shared memory, and left by who started them."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from qpm_opt import InvalidInputError
from qpm_vision.data import ArrayImages, LoadingError, _workers, make_loader
from qpm_vision.data._workers import pinned_ahead
from qpm_vision.model import DenseClassifier
from qpm_vision.training import train
from qpm_vision.training_settings import TrainingSettings
from tests.vision.tiny import CLASSES, tiny_backbone, tiny_data

ROOT = Path(__file__).parents[2]
N = 12
IMAGES = ArrayImages(
    np.arange(N, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 6), dtype=np.uint8), np.arange(N) % 3, ("a", "b", "c")
)

forked = pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="patches reach forked processes only")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def plain(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()


class At:
    """Does something when it comes to the image of a number, in a loading process."""

    def __init__(self, number: int, action: Any) -> None:
        self.number, self.action, self.owner = number, action, os.getpid()

    def __call__(self, image: Image.Image) -> Tensor:
        if np.asarray(image)[0, 0, 0] == self.number and os.getpid() != self.owner:
            self.action()
        return plain(image)


def values(batches: Any) -> list[float]:
    return [value for images, _ in batches for value in images[:, 0, 0, 0].tolist()]


def processes() -> list[Any]:
    return [process for process in multiprocessing.active_children() if process.name == "qpm-loader"]


# -- memory --------------------------------------------------------------------------------------------------------


@linux
def test_batches_need_no_room_in_dev_shm() -> None:
    loader = make_loader(IMAGES, plain, batch_size=4, workers=2)
    batches = list(loader)
    assert values(batches) == list(range(N))
    mapped = Path("/proc/self/maps").read_text()
    assert "/dev/shm/torch" not in mapped  # where a container's 64 MB are full, it never came
    assert "qpm-batch" in mapped
    batches[0][0].add_(1)  # ours alone


@forked
def test_where_memory_cannot_be_shared_batches_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "_anonymous", lambda _: None)
    large = ArrayImages(np.zeros((4, 300, 300), dtype=np.uint8), [0, 1, 0, 1], ("a", "b"))
    for _ in range(2):
        images, labels = next(iter(make_loader(large, plain, batch_size=4, workers=1)))  # more than a pipe holds
        assert images.shape == (4, 3, 300, 300)
        assert labels.tolist() == [0, 1, 0, 1]


# -- processes that end, fail or hang ------------------------------------------------------------------------------


@forked
@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL, as systems do when memory runs out"),
        (lambda: (faulthandler.disable(), os.kill(os.getpid(), signal.SIGBUS)), "killed by SIGBUS"),
        (lambda: os._exit(3), r"ended \(exit code 3\)"),
        (lambda: sys.exit(4), r"ended \(exit code 4\)"),
    ],
)
def test_a_process_that_ends_is_an_error_at_once(action: Any, message: str) -> None:
    loader, before = make_loader(IMAGES, At(5, action), batch_size=2, workers=2), processes()
    began = time.monotonic()
    with pytest.raises(LoadingError, match=rf"{message}.*same command continues.*fewer 'workers'"):
        list(loader)
    assert time.monotonic() - began < 5
    assert set(processes()) <= set(before)


@forked
def test_a_process_killed_between_two_passes() -> None:
    loader, before = make_loader(IMAGES, plain, batch_size=2, workers=2), processes()
    list(loader)
    os.kill(next(process.pid for process in processes() if process not in before), signal.SIGKILL)
    with pytest.raises(LoadingError, match="SIGKILL"):
        list(loader)
    assert values(loader) == list(range(N))  # by new processes


@forked
@linux
@pytest.mark.parametrize(
    ("action", "message"),
    [(lambda: os.kill(os.getpid(), signal.SIGSTOP), "was stopped by a signal"), (lambda: time.sleep(60), "hangs")],
)
def test_a_process_that_hangs_is_an_error(action: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "_SECONDS_STOPPED", 2)
    monkeypatch.setattr(_workers, "SECONDS_AT_REST", 2)
    before = processes()
    with pytest.raises(LoadingError, match=rf"{message}: for 2 seconds.*disk"):
        list(make_loader(IMAGES, At(5, action), batch_size=2, workers=2))
    assert set(processes()) <= set(before)


@forked
@linux
def test_a_process_that_computes_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute() -> None:
        began = time.monotonic()
        while time.monotonic() - began < 3:
            pass

    monkeypatch.setattr(_workers, "SECONDS_AT_REST", 2)
    assert values(make_loader(IMAGES, At(5, compute), batch_size=2, workers=1)) == list(range(N))


def broken(image: Image.Image) -> Tensor:
    if np.asarray(image)[0, 0, 0] == 5:
        raise KeyError("colour")
    return plain(image)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_others_name_the_image(workers: int) -> None:
    with pytest.raises(LoadingError, match=rf"{IMAGES.name(5)}.*KeyError: 'colour'.*Mend") as caught:
        list(make_loader(IMAGES, broken, batch_size=2, workers=workers))
    assert "Traceback" not in str(caught.value)


class OddError(Exception):
    """Cannot be sent to another process."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


@forked
def test_an_error_that_cannot_be_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OddError(1, 2)

    loader = make_loader(IMAGES, plain, batch_size=2, workers=1)
    monkeypatch.setattr(type(loader._source.passes), "batch", fail)
    with pytest.raises(LoadingError, match="OddError: 1 and 2"):
        list(loader)


@forked
def test_a_training_goes_on_behind_the_step_at_which_a_process_was_killed(tmp_path: Path) -> None:
    class Deadly(ArrayImages):
        owner, left = os.getpid(), tmp_path / "once"

        def image(self, position: int) -> Image.Image:
            if position == 30 and os.getpid() != self.owner and self.left.exists():
                self.left.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().image(position)

    def dense() -> DenseClassifier:
        torch.manual_seed(0)
        return DenseClassifier(tiny_backbone(), len(CLASSES))

    known = tiny_data().train
    images = Deadly([np.asarray(known.image(number)) for number in range(len(known))], known.labels, known.class_names)
    settings = TrainingSettings(epochs=2, learning_rate=0.05, batch_size=8, augmentation="none")
    whole, stopped, again = dense(), dense(), dense()
    train(whole, images, settings, seed=3)
    Deadly.left.touch()
    state, steps = tmp_path / "state.safetensors", []
    with pytest.raises(LoadingError, match="SIGKILL"):
        train(stopped, images, settings, seed=3, workers=2, state=state, progress=lambda done, *_: steps.append(done))
    assert not Deadly.left.exists()
    train(again, images, settings, seed=3, workers=2, state=state, progress=lambda done, *_: steps.append(done))
    assert steps == list(range(1, 13))  # none is done twice
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


# -- processes that cannot be started ------------------------------------------------------------------------------


@pytest.mark.parametrize("possible", [0, 1])
def test_fewer_processes_than_asked_for_will_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, possible: int
) -> None:
    original, left = _workers._started, iter(range(possible))

    def start(make: Any) -> Any:
        if next(left, None) is None:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return original(make)

    monkeypatch.setattr(_workers, "_started", start)
    with caplog.at_level(logging.WARNING):
        assert values(make_loader(IMAGES, plain, batch_size=2, workers=3)) == list(range(N))
    assert f"only {possible} of 3 processes that load images could be started" in caplog.text


def _load_and_tell(line: Any) -> None:
    line.send(values(make_loader(IMAGES, plain, batch_size=2, workers=2)))


def test_a_daemonic_process_loads_in_itself() -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_load_and_tell, args=(there,), daemon=True)
    process.start()
    there.close()
    assert here.recv() == list(range(N))
    process.join()


def test_what_cannot_be_sent_to_a_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(_workers.multiprocessing, "Process", context.Process)
    with pytest.raises(InvalidInputError, match=r"'transform'.*picklable.*workers=0"):
        list(make_loader(IMAGES, lambda image: plain(image), batch_size=2, workers=1))


@pytest.mark.usefixtures("tiny_registered")
def test_a_script_without_guard_is_refused_in_the_process_that_imports_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from qpm_vision.pipeline import run
    from tests.vision.tiny import tiny_config

    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(LoadingError, match="if __name__ == '__main__':"):
        list(make_loader(IMAGES, plain, batch_size=2, workers=1))
    with pytest.raises(LoadingError, match="if __name__ == '__main__':"):
        run(tiny_config(), tmp_path / "run", data=tiny_data())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_script_without_guard_ends_with_a_sentence(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing
            multiprocessing.set_start_method("spawn", force=True)
            from qpm_vision.data import make_loader
            from tests.vision.test_loading_processes import IMAGES, plain
            print(len(list(make_loader(IMAGES, plain, batch_size=2, workers=1))))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
    script.write_text(script.read_text().replace("print(", "if __name__ == '__main__': print("))
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "6\n", done.stderr


# -- without the one that started them -----------------------------------------------------------------------------


@forked
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_one_that_started_it(number: int) -> None:
    """Nor holds its output: the pipe that all of them inherit comes to its end."""
    output, inherited = os.pipe()
    begun, beginning = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.set_inheritable(inherited, True)
        slow = At(5, lambda: os.write(beginning, b"x") and time.sleep(60))
        list(make_loader(IMAGES, slow, batch_size=2, workers=3))
        os._exit(1)
    os.close(inherited)
    os.close(beginning)
    assert os.read(begun, 1) == b"x"
    os.kill(child, number)
    os.waitpid(child, 0)
    ended: list[bytes] = []
    reader = threading.Thread(target=lambda: ended.append(os.read(output, 1)), daemon=True)
    reader.start()
    reader.join(4)
    assert ended == [b""]
    os.close(output)
    os.close(begun)


# -- on the way to a GPU -------------------------------------------------------------------------------------------


def test_batches_fetched_ahead_come_in_order_and_with_their_errors() -> None:
    def batches(fails: bool) -> Any:
        for number in range(6):
            yield torch.full((1,), float(number)), torch.zeros(1)
        if fails:
            raise LoadingError("broken")

    assert [float(images) for images, _ in pinned_ahead(batches(fails=False))] == [0, 1, 2, 3, 4, 5]
    seen = []
    with pytest.raises(LoadingError, match="broken"):
        seen.extend(float(images) for images, _ in pinned_ahead(batches(fails=True)))
    ahead = pinned_ahead(batches(fails=False))
    next(ahead)
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "qpm-pin"]
