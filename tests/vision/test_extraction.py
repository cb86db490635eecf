"""The pass over the images goes on behind the last kept batch, and two processes share it."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from qpm_vision import extraction
from qpm_vision.data import ImageSet
from qpm_vision.extraction import extract, forget_extraction
from qpm_vision.model import DenseClassifier
from qpm_vision.pipeline import run
from qpm_vision.run_folder import RunFolder
from qpm_vision.statistics import FeatureStatistics, Locality
from tests.vision.test_distributed import ROOT, in_two_processes
from tests.vision.tiny import CLASSES, tiny_backbone, tiny_config, tiny_data

Sums = tuple[FeatureStatistics, Locality]


class Watched(ImageSet):
    """Images that remember which of them were read, and of which one may be broken."""

    def __init__(self, images: ImageSet, broken: int | None = None) -> None:
        super().__init__(images.labels, images.class_names)
        self._images, self._broken = images, broken
        self.read: list[int] = []

    def image(self, position: int) -> Image.Image:
        if position == self._broken:
            raise RuntimeError("ended here")
        self.read.append(position)
        return self._images.image(position)

    def name(self, position: int) -> str:
        return self._images.name(position)


def dense(seed: int = 0) -> DenseClassifier:
    torch.manual_seed(seed)
    return DenseClassifier(tiny_backbone(), len(CLASSES))


def passed(
    images: ImageSet, state: Path | None = None, *, model: DenseClassifier | None = None, **changes: Any
) -> Sums:
    model = dense() if model is None else model
    arguments = {"n_classes": 4, "batch_size": 8, **changes}
    return extract(model, images, tiny_backbone().preprocessing, state=state, **arguments)


def arrays(sums: Sums) -> list[npt.NDArray[Any]]:
    return [array for part in sums for array in part.state().values()]


def assert_same(first: Sums, second: Sums) -> None:
    for one, other in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "SECONDS_BETWEEN_SAVES", 0.0)


def images() -> ImageSet:
    return tiny_data(13).train  # 52: six batches of 8 and one of 4


def test_the_sums_are_those_of_all_features() -> None:
    model = dense().eval()
    statistics, locality = passed(images())
    transform = tiny_backbone().preprocessing.transform()
    with torch.no_grad():
        output = model(torch.stack([transform(images().image(position)) for position in range(52)]))
    whole, maps = FeatureStatistics(4, 8), Locality(8)
    whole.update(output.features, images().labels)
    maps.update(output.maps)
    np.testing.assert_allclose(statistics.class_similarity(), whole.class_similarity(), atol=1e-6)
    np.testing.assert_allclose(statistics.std(), whole.std(), atol=1e-6)
    np.testing.assert_allclose(locality.bias(), maps.bias(), atol=1e-5)


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize("broken", [1, 8, 30, 51])
@pytest.mark.parametrize("workers", [0, 1])
def test_ended_anywhere_it_goes_on_with_the_same_bits(tmp_path: Path, broken: int, workers: int) -> None:
    file = tmp_path / "sums.npz"
    with pytest.raises(RuntimeError, match="ended here"):
        passed(Watched(images(), broken), file)
    rest, told = Watched(images()), list[int]()
    sums = passed(rest, file, workers=workers, on_images=told.append)
    assert_same(sums, passed(images()))
    begun = broken // 8 * 8
    assert told == [*range(begun + 8, 52, 8), 52]
    if not workers:
        assert rest.read == list(range(begun, 52)), "images in front of the kept batches were read again"
    forget_extraction(file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("each_batch")
def test_a_pass_that_was_done_is_not_made_again(tmp_path: Path) -> None:
    file = tmp_path / "sums.npz"
    sums = passed(images(), file)
    again = Watched(images())
    assert_same(passed(again, file), sums)
    assert again.read == []


def test_nothing_is_kept_before_its_time(tmp_path: Path) -> None:
    passed(images(), tmp_path / "sums.npz")
    assert list(tmp_path.iterdir()) == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _lose(path: Path, name: str) -> None:
    folder = RunFolder(path.parent)
    folder.write_npz(path.name, {key: array for key, array in folder.read_npz(path.name).items() if key != name})


def _miscount(path: Path) -> None:
    folder = RunFolder(path.parent)
    folder.write_npz(path.name, {**folder.read_npz(path.name), "done": 8})


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize(
    ("changes", "damage", "why"),
    [
        ({"model": dense(1)}, None, "another pass"),
        ({"images": tiny_data(12).train}, None, "another pass"),
        ({"batch_size": 4}, None, "another pass"),
        ({"n_classes": 5}, None, "another pass"),
        ({}, _cut, "damaged"),
        ({}, lambda path: path.write_bytes(b""), "damaged"),
        ({}, lambda path: _lose(path, "locality/peaks"), "damaged"),
        ({}, lambda path: _lose(path, "identity"), "damaged"),
        ({}, _miscount, "damaged"),
    ],
)
def test_a_state_of_something_else_is_left_aside(
    tmp_path: Path,
    changes: dict[str, Any],
    damage: Callable[[Path], Any] | None,
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "sums.npz"
    with pytest.raises(RuntimeError, match="ended here"):
        passed(Watched(images(), 20), file)
    if damage is not None:
        damage(file)
    arguments = {"images": images(), **changes}
    with caplog.at_level(logging.WARNING):
        sums = passed(state=file, **arguments)
    assert why in caplog.text
    assert_same(sums, passed(**arguments))


@pytest.mark.usefixtures("each_batch")
def test_other_preprocessing_and_other_processes_are_another_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "sums.npz"
    preprocessing = tiny_backbone().preprocessing
    passed(images(), file)
    extract(dense(), images(), replace(preprocessing, size=20), n_classes=4, batch_size=8, state=file)
    assert caplog.text.count("another pass") == 1
    monkeypatch.setattr(extraction, "world_size", lambda: 2)
    monkeypatch.setattr(extraction, "gathered", lambda value: [value])
    passed(images(), file)
    assert caplog.text.count("another pass") == 2


@pytest.mark.usefixtures("each_batch")
def test_a_disk_that_is_full_ends_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qpm_vision.run_folder._fill", full)
    assert_same(passed(images(), tmp_path / "sums.npz"), passed(images()))
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


# -- two processes -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_batch")
def test_two_processes_go_on_and_give_both_the_sums_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sums.npz"
    for number in range(2):  # what two processes leave that end in their third batch
        with monkeypatch.context() as patch:
            patch.setattr(extraction, "rank", lambda number=number: number)
            patch.setattr(extraction, "world_size", lambda: 2)
            patch.setattr(extraction, "share", lambda all_images, n=number: all_images.subset(np.arange(n, 52, 2)))
            with pytest.raises(RuntimeError, match="ended here"):
                passed(Watched(images(), 40 + number), file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sums.1.npz", "sums.npz"]
    code = f"""
        from pathlib import Path
        import numpy as np
        import torch
        from qpm_vision.distributed import process_group, rank
        from tests.vision.test_extraction import Watched, images, passed
        torch.set_num_threads(1)
        watched = Watched(images())
        with process_group():
            statistics, locality = passed(watched, Path({str(file)!r}))
            np.savez(
                {str(tmp_path)!r} + f"/result{{rank()}}.npz",
                A=statistics.class_similarity(), mean=statistics.mean(), std=statistics.std(), b=locality.bias(),
                read=watched.read,
            )
        """
    for process in in_two_processes(code):
        assert process.returncode == 0, process.stderr
    statistics, locality = passed(images())
    for number in range(2):
        result = RunFolder(tmp_path).read_npz(f"result{number}.npz")
        assert result["read"].tolist() == list(range(number + 32, 52, 2))  # not the 16 images of its two batches
        for name, expected in {
            "A": statistics.class_similarity(),
            "mean": statistics.mean(),
            "std": statistics.std(),
            "b": locality.bias(),
        }.items():
            np.testing.assert_allclose(result[name], expected, rtol=1e-9, atol=1e-9, err_msg=name)
    forget_extraction(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result0.npz", "result1.npz"]


# -- a whole run ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_registered")
def test_a_run_killed_in_the_middle_of_the_statistics_ends_like_one_that_was_not(tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from tests.vision.tiny import registered, tiny_config, tiny_data
        from qpm_vision import extraction
        from qpm_vision._progress import SilentReporter
        from qpm_vision.pipeline import run

        extraction.SECONDS_BETWEEN_SAVES = 0.0

        class Kill(SilentReporter):
            def advance(self, task, done, total, detail=""):
                if task == "statistics" and done == 32:
                    os.kill(os.getpid(), signal.SIGKILL)

        with registered():
            run(tiny_config(), {str(tmp_path / "killed")!r}, data=tiny_data(), reporter=Kill())
        """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False)
    assert result.returncode == -signal.SIGKILL
    killed = RunFolder.open(tmp_path / "killed")
    assert list(killed.stages()) == ["dense"]
    assert int(killed.read_npz("statistics.partial.npz")["done"]) == 32
    data = tiny_data()
    watched = Watched(data.train)
    done = run(tiny_config(), tmp_path / "killed", data=replace(data, train=watched))
    assert watched.read[0] == 32
    straight = run(tiny_config(), tmp_path / "straight", data=tiny_data())
    first, second = done.read_npz("statistics.npz"), straight.read_npz("statistics.npz")
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert not list(done.path.glob("statistics.partial*"))


@pytest.mark.usefixtures("tiny_registered")
def test_repeating_the_stage_forgets_the_sums(tmp_path: Path) -> None:
    place = run(tiny_config(), tmp_path / "run", data=tiny_data())
    (place.path / "statistics.partial.1.npz").write_bytes(b"of a process that is gone")
    run(tiny_config(), place.path, data=tiny_data(), redo="statistics")
    assert not list(place.path.glob("statistics.partial*"))
