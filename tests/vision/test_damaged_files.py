"""Files of a run that were damaged, or written by somebody else: one sentence, bounded memory, and nothing hangs."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import qpm_vision
from qpm_opt import InvalidInputError, QPMError
from qpm_vision._reading import parse_json, parse_yaml
from qpm_vision._work import read_statistics
from qpm_vision.checkpoint import CheckpointError, load_checkpoint
from qpm_vision.cli import main
from qpm_vision.feature_names import read_names
from qpm_vision.pipeline import run
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.steering import Steering
from qpm_vision.training_state import TrainingStateFile
from tests.vision.tiny import tiny_backbone, tiny_config, tiny_data

Damage = Callable[[Path], Any]
MOST_MEMORY = 64 << 20


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


@pytest.fixture
def bounded() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


# -- ways to damage ------------------------------------------------------------------------------------------------


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    with path.open("ab") as stream:
        stream.truncate(20 << 30)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _npy_header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _member(name: str, content: bytes | Callable[[Any], Any]) -> Damage:
    """Put something else in place of an array, or beside the arrays."""

    def damage(path: Path) -> None:
        with np.load(path) as data:
            arrays = {key: data[key] for key in data.files if key != name}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, value in arrays.items():
                with archive.open(f"{key}.npy", "w") as member:
                    np.lib.format.write_array(member, value)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(content) if isinstance(content, bytes) else content(member)

    return damage


def _array(name: str, value: Any) -> Damage:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(value), allow_pickle=True)
    return _member(name, stream.getvalue())


def _zeros(shape: tuple[int, ...]) -> Callable[[Any], None]:
    def write(member: Any) -> None:
        member.write(_npy_header(shape))
        left = int(np.prod(shape)) * 8
        while left:
            left -= member.write(bytes(min(left, 1 << 22)))

    return write


def _json(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(path: Path) -> None:
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return damage


def _inserted(text: str) -> Damage:
    return lambda path: path.write_text(path.read_text().replace("{", "{" + text + ",", 1))


def _header(**changes: Any) -> Damage:
    def damage(path: Path) -> None:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata()
            tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118
        save_file(tensors, path, {**metadata, "qpm": json.dumps({**json.loads(metadata["qpm"]), **changes})})

    return damage


ANYWHERE = [_pipe, _folder, _device, _sparse, _cut, _empty]


# -- all commands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ANYWHERE)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.json", ["info", "RUN"]),
        ("stages.json", ["info", "RUN"]),
        ("metrics.json", ["info", "RUN"]),
        ("statistics.npz", ["steer", "RUN", "--dry-run", "--ban", "1"]),
        ("gallery.npz", ["predict", "RUN", "photo.png"]),
        ("qpm.safetensors", ["predict", "RUN", "photo.png"]),
        ("qpm.safetensors", ["export", "RUN", "model.pt2"]),
        ("names.csv", ["name", "RUN"]),
        ("config.json", ["train", "data", "RUN"]),
    ],
)
@pytest.mark.usefixtures("bounded")
def test_every_command_says_one_sentence(
    copy: RunFolder, capsys: pytest.CaptureFixture[str], name: str, command: list[str], damage: Damage
) -> None:
    if name == "names.csv":
        (copy.path / name).write_text("feature,name\n1,round\n")
        if damage is _cut:
            pytest.skip("a table that is cut may be one")
    damage(copy.path / name)
    assert main([str(copy.path) if part == "RUN" else part for part in command]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert name in told[0]
    assert len(told[0]) < 700


def test_scores_without_a_model_are_not_a_finished_run(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.path / "qpm.safetensors").unlink()
    assert main(["info", str(copy.path)]) == 2
    assert "qpm.safetensors' is missing. Train again with `--redo fine-tuning`" in capsys.readouterr().err
    with pytest.raises(RunFolderError, match=r"qpm\.safetensors.*missing"):
        run(tiny_config(), copy.path, data=tiny_data())


def test_the_remedy_that_is_named_helps(copy: RunFolder) -> None:
    _empty(copy.path / "gallery.npz")
    with pytest.raises(RunFolderError, match="--redo explanation"):
        qpm_vision.load_model(copy.path)
    run(tiny_config(), copy.path, data=tiny_data(), redo="explanation")
    assert qpm_vision.load_model(copy.path).gallery is not None


@pytest.mark.parametrize("damage", [_pipe, _folder, _device, _sparse])
def test_a_history_that_is_no_file(copy: RunFolder, damage: Damage) -> None:
    damage(copy.path / "history.csv")
    with pytest.raises(RunFolderError, match=r"history\.csv' is damaged.*Delete it"):
        copy.history()


# -- JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "Infinity is no number"),
        ("1e400", "1e400 is too large"),
        ("1" + "0" * 30, "more than 18 digits"),
        ("1" + "0" * 5000, "more than 18 digits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"a": ', "Expecting value"),
    ],
)
def test_json_that_means_nothing(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", _inserted('"x": Infinity')),
        ("config.json", _inserted('"x": ' + "[" * 100_000 + "]" * 100_000)),
        ("config.json", _json(lambda data: data.update(n_select=-4))),
        ("config.json", _json(lambda data: data["dense"].update(epochs="many"))),
        ("stages.json", _inserted('"x": NaN')),
        ("stages.json", _json(lambda data: data["dense"].update(seconds=1e300))),
        ("stages.json", _json(lambda data: data["dense"].update(seconds="nan"))),
        ("metrics.json", _json(lambda data: data.clear())),
        ("metrics.json", _json(lambda data: data.update(dense=None))),
        ("metrics.json", _json(lambda data: data["qpm"].update(accuracy_test="high"))),
        ("metrics.json", _json(lambda data: data["qpm"].update(accuracy_test=1e300))),
        ("metrics.json", _json(lambda data: data["qpm"].update(features=[4]))),
        ("metrics.json", lambda path: path.write_text('{"x": "' + "a" * (20 << 20) + '"}')),
    ],
)
def test_values_of_json_that_are_no_such_values(
    copy: RunFolder, capsys: pytest.CaptureFixture[str], name: str, damage: Damage
) -> None:
    damage(copy.path / name)
    assert main(["info", str(copy.path)]) == 2
    told = capsys.readouterr().err.strip()
    assert f"{name}' is damaged" in told
    assert len(told) < 700


# -- arrays --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_member("A", _npy_header((10**6, 10**6))), r"'A' claims the shape \(1000000, 1000000\)"),
        (_member("A", _zeros((8, 1 << 21))), r"'mean' has the shape"),
        (_member("A", _npy_header((-2, 3)) + bytes(48)), "'A' claims the shape"),
        (_member("A", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{"), "no header"),
        (_member("A", b"hello"), "no header"),
        (_array("A", np.array([{}])), "objects instead of numbers"),
        (_array("A", "text"), "dtype <U4"),
        (_array("A", 1.0), "0 dimensions instead of 2"),
        (_array("A", np.full((4, 8), np.nan)), "infinite values or NaN"),
        (_array("A", np.ones((4, 8), complex)), "dtype complex128"),
        (_array("A", np.ones((3, 8))), "'class_counts' has the shape"),
        (_array("class_counts", [-1, 1, 1, 1]), "below 0"),
        (lambda path: path.write_bytes(_npy_header((8,)) + bytes(64)), "no whole .npz"),
        (lambda path: path.write_bytes(_npy_header((10**12,)) + bytes(64)), "no whole .npz"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "lacks the array 'A'"),
    ],
)
def test_arrays_that_are_not_what_they_claim(copy: RunFolder, damage: Damage, message: str) -> None:
    damage(copy.path / "statistics.npz")
    with pytest.raises(RunFolderError, match=rf"statistics\.npz' is damaged.*{message}.*--redo statistics"):
        read_statistics(copy)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("damage", [_member("other", _zeros((1 << 24,))), _array("other", np.array([{}]))])
def test_arrays_of_others_are_not_read(copy: RunFolder, damage: Damage) -> None:
    before = read_statistics(copy)
    damage(copy.path / "statistics.npz")
    np.testing.assert_array_equal(read_statistics(copy)["A"], before["A"])


@pytest.mark.parametrize(
    "damage",
    [
        _array("best_of_class", np.full((4, 6), 2**62)),
        _array("best_of_class", np.full((4, 6), -2)),
        _array("scale", np.ones(3, np.float32)),
    ],
)
def test_a_gallery_that_does_not_fit(copy: RunFolder, damage: Damage) -> None:
    damage(copy.path / "gallery.npz")
    with pytest.raises(RunFolderError, match=r"gallery\.npz' is damaged.*--redo explanation"):
        qpm_vision.load_model(copy.path)


# -- models --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("hello\n"),
        lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        lambda path: path.write_bytes(struct.pack("<Q", 99_000_000) + b"{}"),
        _header(n_classes=10**12),
        _header(n_classes=10**17, extra={}),
        _header(n_classes=-4),
        _header(n_classes="4"),
        _header(n_classes=10**40),
        _header(n_select=10**9),
        _header(dropout="much"),
        _header(backbone=5),
        _header(backbone_description={"adapter": 10**9, "frozen": None}),
        _header(extra=None),
        _header(extra={"class_names": [1, 2, 3, 4]}),
        _header(extra={"class_names": ["north"] * 4}),
        _header(preprocessing="none"),
        _header(kind=["qpm"]),
    ],
)
def test_models_that_are_nonsense(copy: RunFolder, damage: Damage) -> None:
    damage(copy.path / "qpm.safetensors")
    with pytest.raises(CheckpointError, match=r"qpm\.safetensors"):
        load_checkpoint(copy.path / "qpm.safetensors")


@pytest.mark.parametrize(
    "state",
    [
        {"epoch": 10**9},
        {"epoch": -1},
        {"sums": [0.0]},
        {"history": [7]},
        {"batches": -3},
        {"batches": None},
    ],
)
def test_a_training_begins_anew_from_a_nonsense_state(tmp_path: Path, state: dict[str, Any]) -> None:
    model = tiny_backbone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    path = tmp_path / "dense.training.safetensors"
    known = {"epoch": 1, "batches": 0, "sums": [0.0] * 5, "seconds": 0.0, "history": []}
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, {"training": json.dumps({"identity": {}, "state": known})})
    assert TrainingStateFile(path, {}).load(model, optimizer) is not None
    save_file(tensors, path, {"training": json.dumps({"identity": {}, "state": {**known, **state}})})
    assert TrainingStateFile(path, {}).load(model, optimizer) is None
    save_file({"model/x": torch.zeros(2)}, path, {"training": json.dumps({"identity": {}, "state": known})})
    assert TrainingStateFile(path, {}).load(model, optimizer) is None


# -- texts that people write ---------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 1,000,000 values"),
        ("a: &a [*a]", "part of itself"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("ban: [1]\nban: [2]", "'ban' is there twice"),
        ("[" * 100_000, "nested too deeply"),
        ("- " * 3_000, "nested too deeply"),
        ("a: 2026-99-99", "month must be in"),
        ("? [1, 2]\n: 3", "unhashable"),
        ("x" * (2 << 20), "more than 1,048,576 characters"),
    ],
)
def test_yaml_that_is_a_trap(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)
    with pytest.raises(InvalidInputError, match=message):
        Steering.from_text(text)
    (tmp_path / "settings.yaml").write_text(text)
    assert main(["train", "digits", str(tmp_path / "run"), "--config", str(tmp_path / "settings.yaml")]) == 2
    assert "settings.yaml" in capsys.readouterr().err


def test_yaml_may_repeat_a_little() -> None:
    assert parse_yaml("a: &a {epochs: 3}\nb: *a\nc: {<<: *a, beta: 1}")["c"] == {"epochs": 3, "beta": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"feature,name\n1," + b"a" * 200_000 + b"\n", "field larger than field limit"),
        (b"feature,name\n" + b"9" * 5000 + b",a\n", "must be its number"),
        (b"feature,name\n1,red,crown\n", "2 cells in every row"),
        (b'feature,name\n1,"abc\n', "unexpected end of data"),
        ("feature,name\n1,a\n".encode("utf-16"), "UTF-8"),
    ],
)
def test_tables_of_names_that_cannot_be_read(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        read_names(path, [1, 2])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(QPMError, match=r"names\.csv"):
        read_names(path, [1, 2])
