"""Disks that are full, and pictures that would take more memory than there is."""

from __future__ import annotations

import errno
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qpm_vision import load_model
from qpm_vision._row_file import mapped_rows
from qpm_vision.data.images import UnreadableImageError, read_image
from qpm_vision.export import export_model
from qpm_vision.preprocessing import ImageTransform, Preprocessing
from qpm_vision.run_folder import RunFolderError
from tests.vision.conftest import Reported


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_a_graph_is_complete_before_it_is_written(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """What writes archives and graphs to a path itself ends the process, or raises errors of its own."""
    if ending == "onnx":
        pytest.importorskip("onnxscript")
    target = tmp_path / f"model.{ending}"
    target.write_bytes(b"before")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        export_model(reported.folder, target)
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_archives_are_not_written_to_files_by_pytorch(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    save = torch.export.save

    def note(program: Any, target: Any) -> None:
        given.append(target)
        save(program, target)

    monkeypatch.setattr(torch.export, "save", note)
    export_model(reported.folder, tmp_path / "model.pt2")
    assert [type(target) for target in given] == [io.BytesIO]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is reserved on POSIX")
def test_mapped_files_have_their_room_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = mapped_rows(tmp_path / "a.npy", (3, 4))
    values[:] = 7
    assert (np.load(tmp_path / "a.npy") == 7).all()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunFolderError, match="No space left"):
        mapped_rows(tmp_path / "b.npy", (3, 4))
    assert not (tmp_path / "b.npy").exists()


# -- pictures ------------------------------------------------------------------------------------------------------

GREY = (0.5, 0.5, 0.5)


@pytest.mark.parametrize("size", [(1, 65_000), (65_000, 1), (3, 20_000)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_of_a_line_only_what_is_seen_is_resized(size: tuple[int, int], interpolation: str) -> None:
    preprocessing = Preprocessing(224, GREY, GREY, interpolation)
    Image.Image.resize, resize = _small_only, Image.Image.resize  # type: ignore[method-assign]
    _small_only.resize = resize  # type: ignore[attr-defined]
    try:
        pixels = preprocessing.transform()(Image.new("RGB", size, "white"))
    finally:
        Image.Image.resize = resize  # type: ignore[method-assign]
    assert pixels.shape == (3, 224, 224)
    assert (pixels == 1).all()


def _small_only(self: Image.Image, size: tuple[int, int], *arguments: Any, **options: Any) -> Image.Image:
    assert max(size) <= 224
    resized: Image.Image = _small_only.resize(self, size, *arguments, **options)  # type: ignore[attr-defined]
    return resized


@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("size", [(20, 700), (700, 20)])
def test_the_middle_of_a_long_picture_is_what_cutting_it_out_gives(size: tuple[int, int], crop: float) -> None:
    rows, columns = np.mgrid[: size[1], : size[0]]
    waves = [127 + 100 * np.sin(rows / 5 + columns / 7 + shift) for shift in range(3)]
    image = Image.fromarray(np.stack(waves, axis=2).astype(np.uint8))
    preprocessing = Preprocessing(32, (0.0, 0.0, 0.0), (1 / 255,) * 3, "bicubic", crop=crop)
    found = preprocessing.transform()(image)
    short = round(32 / crop)
    scaled = (short, short * 700 // 20) if size[0] < size[1] else (short * 700 // 20, short)
    left, top = (round((side - 32) / 2) for side in scaled)
    whole = image.resize(scaled, Image.Resampling.BICUBIC).crop((left, top, left + 32, top + 32))
    difference = np.abs(found.numpy().transpose(1, 2, 0) - np.asarray(whole, dtype=np.float32))
    assert difference.max() <= 2.01


def test_an_image_for_which_memory_does_not_suffice_is_an_error_of_its_own(
    reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = ImageTransform.__call__
    large = Image.new("RGB", (30, 30))

    def call(self: ImageTransform, image: Image.Image) -> torch.Tensor:
        if image.size == large.size:
            raise MemoryError
        return transform(self, image)

    monkeypatch.setattr(ImageTransform, "__call__", call)
    model = load_model(reported.folder, device="cpu")
    errors: list[UnreadableImageError] = []
    small = Image.new("RGB", (20, 20))
    found = list(model.stream([small, large, small], on_unreadable=errors.append))
    assert [prediction.image_name for prediction in found] == ["image 0", "image 2"]
    assert [str(error.path) for error in errors] == ["image 1"]
    assert "too little memory" in errors[0].reason
    with pytest.raises(UnreadableImageError, match="too little memory"):
        model.predict(large)
    with pytest.raises(UnreadableImageError, match="too little memory"):
        model.explain(large)


def test_a_large_grey_picture_takes_a_few_times_its_own_memory(tmp_path: Path) -> None:
    """16 bits a pixel: a file of a few kB can hold 178 million of them."""
    path = tmp_path / "grey.png"
    values = np.zeros((1500, 2000), dtype=np.uint16)
    values[700, 900] = 65_535
    Image.fromarray(values).save(path)
    tracemalloc.start()
    try:
        image = read_image(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * values.size  # of which 8 are a copy in double precision of the part at work
    assert image.getpixel((900, 700)) == (255, 255, 255)
    assert image.getpixel((0, 0)) == (0, 0, 0)
