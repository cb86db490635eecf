"""What is printed, wherever that goes, and names of files and classes that no encoding or terminal is made for."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from qpm_vision import cli
from qpm_vision._data_identity import data_identity
from qpm_vision._progress import BarReporter, LineReporter
from qpm_vision._text import readable
from qpm_vision.checkpoint import load_checkpoint, save_checkpoint
from qpm_vision.data import load_image_folder
from qpm_vision.model import DenseClassifier
from qpm_vision.predict import Predictor
from qpm_vision.run_folder import RunFolder
from tests.vision.conftest import Reported
from tests.vision.tiny import tiny_backbone

FULL = Path("/dev/full")
ON_POSIX = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
UNDECODABLE = os.fsdecode(b"caf\xe9")


class Told(io.TextIOWrapper):
    """Takes the place of standard error."""

    def __init__(self) -> None:
        self.taken = io.BytesIO()
        super().__init__(self.taken, "utf-8")

    def getvalue(self) -> str:
        return self.taken.getvalue().decode()


def photo(folder: Path, name: str = "photo") -> Path:
    path = folder / f"{name}.png"
    with path.open("wb") as stream:
        Image.new("RGB", (20, 20), (200, 40, 0)).save(stream, "PNG")
    return path


def outcome(*arguments: object) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("command", ["train", "info", "predict", "help", "recipe"])
@pytest.mark.parametrize("kind", ["ascii", pytest.param("full", marks=ON_POSIX), "closed"])
def test_no_stream_costs_a_result(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, kind: str
) -> None:
    arguments, said = {
        "train": (["train", "tiny", reported.folder.path], "accuracy, test"),
        "info": (["info", reported.folder.path], "accuracy, test"),
        "predict": (["predict", reported.folder.path, photo(tmp_path)], "photo.png"),
        "help": (["--help"], "usage:"),
        "recipe": (["recipe", "small"], "backbone:"),
    }[command]
    taken = io.BytesIO()
    raw: Any = FULL.open("wb", buffering=0) if kind == "full" else taken
    stdout = None if kind == "closed" else io.TextIOWrapper(io.BufferedWriter(raw) if kind == "full" else raw, "ascii")
    stderr = Told()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        patched.setattr(sys, "stderr", stderr)
        code = outcome(*arguments)
    if kind == "full":
        raw.close()
    if kind == "ascii":
        assert said in taken.getvalue().decode("ascii")
        assert code == 0
    else:
        assert "Standard output cannot be written" in stderr.getvalue()
        assert said in stderr.getvalue()
        assert code == (2 if kind == "full" and command not in ("train", "help") else 0)


def test_json_on_a_stream_of_another_encoding_is_json(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = io.BytesIO()
    with monkeypatch.context() as patched:
        stdout = io.TextIOWrapper(taken, "ascii")  # closes what it wraps when nobody holds it any more
        patched.setattr(sys, "stdout", stdout)
        assert outcome("predict", reported.folder.path, photo(tmp_path, "\uac00"), "--json", "-") == 0
    assert json.loads(taken.getvalue().splitlines()[0])["image"] == str(tmp_path / "\uac00.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of this kind are of POSIX")
def test_where_nobody_reads_prediction_ends(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        photo(tmp_path, str(number))
    seen: list[int] = []
    look = Predictor._look
    monkeypatch.setattr(Predictor, "_look", lambda self, pixels: (seen.append(1), look(self, pixels))[1])
    ends: list[int] = []
    for more in ([], ["--json", "-", "--csv", str(tmp_path / "out.csv")]):
        reading, writing = os.pipe()
        os.close(reading)
        seen.clear()
        with monkeypatch.context() as patched:
            stdout = os.fdopen(writing, "wb", buffering=0)
            patched.setattr(sys, "stdout", io.TextIOWrapper(stdout, "utf-8"))  # type: ignore[arg-type]
            assert outcome("predict", reported.folder.path, tmp_path, "--batch-size", 1, *more) == 0
            stdout.close()
        ends.append(len(seen))
    assert ends[0] < 5
    assert ends[1] == 20  # the table is for somebody else
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 21


# -- names of files that are no UTF-8 ------------------------------------------------------------------------------


@pytest.fixture
def undecodable(tmp_path: Path) -> Path:
    """Images, one of which cannot be read, in folders and files whose names are no UTF-8."""
    try:
        (tmp_path / UNDECODABLE).mkdir()
    except OSError:
        pytest.skip("the file system takes no such names")
    photo(tmp_path / UNDECODABLE, UNDECODABLE)
    photo(tmp_path / UNDECODABLE)
    (tmp_path / UNDECODABLE / f"{UNDECODABLE}-empty.png").touch()
    (tmp_path / "plain").mkdir()
    for name in ("0", "1"):
        photo(tmp_path / "plain", name)
    return tmp_path


def test_names_that_are_no_utf8_keep_their_rows(reported: Reported, undecodable: Path) -> None:
    out = undecodable / "out"
    out.mkdir()
    folder = undecodable / UNDECODABLE
    arguments = ["predict", reported.folder.path, folder, "--csv", out / "a.csv", "--json", out / "a.jsonl"]
    assert outcome(*arguments) == 0
    with (out / "a.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [Path(row["image"]).stem for row in rows] == [r"caf\udce9-empty", r"caf\udce9", "photo"]
    assert [bool(row["class"]) for row in rows] == [False, True, True]
    lines = [json.loads(line) for line in (out / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[-1] == {"images": 3, "unreadable": 1}
    assert all(Path(line["image"]).exists() for line in lines[:-1])


def test_classes_whose_folders_are_no_utf8_have_names(undecodable: Path) -> None:
    data = load_image_folder(undecodable, test_share=0.5)
    assert data.class_names == (r"caf\xe9", "plain")
    names = [data.train.name(place) for place in range(len(data.train))]
    names += [data.test.name(place) for place in range(len(data.test))]
    assert r"caf\xe9/caf\xe9.png" in names
    folder = RunFolder(undecodable)
    folder.write_json("data.json", data_identity(data))
    assert folder.read_json("data.json")["class_names"] == list(data.class_names)
    folder.write_csv("skipped.csv", ["path"], [[str(item.path)] for item in data.skipped])
    assert r"caf\udce9-empty.png" in (undecodable / "skipped.csv").read_text(encoding="utf-8")


def test_paths_that_are_no_utf8_come_back_from_json_and_checkpoints(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("config.json", {"data": UNDECODABLE})
    assert folder.read_json("config.json") == {"data": UNDECODABLE}
    torch.manual_seed(0)
    backbone = tiny_backbone()
    inside = tmp_path / UNDECODABLE
    try:
        inside.mkdir()
    except OSError:
        pytest.skip("the file system takes no such names")
    file = save_checkpoint(
        inside / "m.safetensors", DenseClassifier(backbone, 2), backbone.preprocessing, {"data": UNDECODABLE}
    )
    assert load_checkpoint(file, backbone=tiny_backbone())[2]["data"] == UNDECODABLE


def test_readable_names_of_other_files_stay_as_they_are() -> None:
    assert readable("na\u00efve \uac00 \U0001f426.png") == "na\u00efve \uac00 \U0001f426.png"
    assert readable("\ud800") == r"\ud800"


# -- names that terminals would act on -----------------------------------------------------------------------------


@pytest.mark.parametrize("reporter", [LineReporter, BarReporter])
def test_messages_are_no_markup_and_move_no_cursor(reporter: Any) -> None:
    stream = io.StringIO()
    with reporter(stream) as report:
        report.message("[red]a :cat: b[/]\x1b[31m\x07")
    assert r"[red]a :cat: b[/]\x1b[31m\x07" in stream.getvalue()


def test_rows_of_a_table_are_one_line_each(
    reported: Reported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome("predict", reported.folder.path, photo(tmp_path, "a\nb\x1b[2J")) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert r"a b\x1b[2J.png" in out


def test_files_get_names_that_a_file_system_takes() -> None:
    long = cli._file_name("class-" + "\uac00" * 300)
    assert len(long.encode()) <= 200
    assert cli._file_name("class-" + "\uac00" * 301) != long
    assert cli._file_name("class-../a b") == "class-.._a_b"
