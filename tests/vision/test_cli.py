"""The command line: what it prints, exit codes, and messages without tracebacks."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import qpm_vision
from qpm_opt import InvalidInputError
from qpm_vision import cli
from qpm_vision._progress import BarReporter, LineReporter, SilentReporter, make_reporter
from qpm_vision.config import RunConfig
from qpm_vision.evaluation import score_table
from qpm_vision.run_folder import STAGES, RunFolder
from tests.vision.tiny import TINY, registered, tiny_data

OPTIONS = (
    f"--backbone {TINY} --n-select 4 --n-per-class 2 --dense-epochs 1 --fine-tuning-epochs 1 --batch-size 16 "
    "--augmentation none --device cpu --solve-seconds 5"
).split()


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The data "tiny" exist, and the backbone for them."""
    for module in ("qpm_vision.pipeline", "qpm_vision.explain.from_run"):
        original = getattr(__import__(module, fromlist=["load_data"]), "load_data")  # noqa: B009

        def load(spec: str, _original: Any = original, **options: Any) -> Any:
            return tiny_data() if spec == "tiny" else _original(spec, **options)

        monkeypatch.setattr(f"{module}.load_data", load)
    with registered():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli") / "run"


def _train(folder: Path, *more: str) -> int:
    return cli.main(["train", "tiny", str(folder), *OPTIONS, *more])


def _ensure(folder: Path) -> None:
    if not (folder / "metrics.json").exists():
        assert _train(folder) == 0


def test_train_prints_a_table_and_where_the_pictures_are(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(trained) == 0
    out, err = capsys.readouterr()
    assert "accuracy, test" in out
    assert "QPM before fine-tuning" in out
    assert str(trained / "figures" / "classes.png") in out
    for stage in STAGES:
        assert f"{stage} done in" in err
    config = RunConfig.from_dict(RunFolder.open(trained).config())
    assert (config.backbone, config.n_select, config.dense.epochs, config.fine_tuning.batch_size) == (TINY, 4, 1, 16)


def test_a_second_train_needs_no_options_and_says_that_all_is_finished(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _ensure(trained)
    assert cli.main(["train", "tiny", str(trained)]) == 0
    out, err = capsys.readouterr()
    assert "already finished" in err
    assert "accuracy, test" in out


def test_a_changed_option_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ensure(trained)
    capsys.readouterr()
    assert cli.main(["train", "tiny", str(trained), "--n-select", "5"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("qpm-vision: ")
    assert "n_select: 4 → 5" in err
    assert "Traceback" not in err


def test_settings_of_another_run_are_taken(trained: Path, tmp_path: Path) -> None:
    _ensure(trained)
    arguments = cli._parser().parse_args(
        ["train", "tiny", str(tmp_path / "new"), "--config", str(trained / "config.json"), "--seed", "5"]
    )
    config = cli._configured(arguments)
    assert config == replace(RunConfig.from_dict(RunFolder(trained).config()), seed=5)


@pytest.mark.parametrize("content", ["[1]", "a: [", None])
def test_broken_settings(tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_text(content)
    assert cli.main(["train", "tiny", str(tmp_path / "run"), "--config", str(path)]) == 2
    assert "settings.yaml" in capsys.readouterr().err


def test_evaluate(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ensure(trained)
    capsys.readouterr()
    assert cli.main(["evaluate", str(trained), "--size", "16"]) == 0
    assert "spatial diversity" in capsys.readouterr().out
    assert cli.main(["evaluate", str(trained), "--size", "32"]) == 2
    assert "32" in capsys.readouterr().err


def test_explain(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ensure(trained)
    capsys.readouterr()
    assert cli.main(["explain", str(trained), "--class", "north"]) == 0
    assert Path(capsys.readouterr().out.strip()) == trained / "figures" / "class-north.png"
    number = RunFolder.open(trained).read_npz("assignment.npz")["selected"][0]
    photo = tmp_path / "photo.png"
    tiny_data().test.image(0).save(photo)
    for options, name in (
        (["--feature", str(number)], f"feature-{number}"),
        (["--image", str(photo)], "image-photo"),
        (["--matrix"], "matrix"),
    ):
        assert cli.main(["explain", str(trained), *options]) == 0
        assert Path(capsys.readouterr().out.strip()) == trained / "figures" / f"{name}.png"
    target = tmp_path / "new" / "pair.svg"
    assert cli.main(["explain", str(trained), "--compare", "north", "west", "--out", str(target)]) == 0
    assert "<svg" in target.read_text()
    capsys.readouterr()
    assert cli.main(["explain", str(trained), "--class", "nort"]) == 2
    assert "'north'" in capsys.readouterr().err
    assert cli.main(["explain", str(trained), "--out", str(tmp_path / "picture.xyz")]) == 2
    assert ".png" in capsys.readouterr().err


def test_info(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ensure(trained)
    capsys.readouterr()
    assert cli.main(["info", str(trained)]) == 0
    out = capsys.readouterr().out
    assert '"n_select": 4' in out
    assert "explanation" in out
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("torch", TINY, "cpsat", "devices"):
        assert word in out
    assert cli.main(["info", str(trained / "figures")]) == 2
    assert "no run folder" in capsys.readouterr().err


def test_ctrl_c_says_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import qpm_vision.pipeline as pipeline

    def stop(work: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(pipeline._STAGES, "assignment", stop)
    assert _train(tmp_path / "run") == 130
    err = capsys.readouterr().err
    assert "Finished: dense, statistics. The same command continues" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["tarin"], "did you mean 'train'"),
        (["demo", "--redu", "dense"], "did you mean '--redo'"),
        (["train", "tiny", "x", "--n-selekt", "4"], "did you mean '--n-select'"),
        ([], "COMMAND"),
    ],
)
def test_typing_mistakes(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert hint in capsys.readouterr().err


def test_a_wrong_value_is_no_typing_mistake_in_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "tiny", "x", "--n-select", "3.5"])
    assert capsys.readouterr().err.rstrip().endswith("invalid int value: '3.5'")


def test_demo_is_the_digits_at_64_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[RunConfig, str]] = []
    monkeypatch.setattr(cli, "_train_and_show", lambda config, out, redo: seen.append((config, out)))
    assert cli.main(["demo"]) == 0
    (config, out) = seen[0]
    assert (config.data, config.size, config.backbone) == ("digits", 64, "efficientnet-lite0-stride16")
    assert out == "qpm-demo"
    assert (config.n_select, config.n_per_class) == (20, 5)


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli._absolute("birds") == str(tmp_path / "birds")
    assert cli._absolute("folder:birds") == f"folder:{tmp_path / 'birds'}"
    assert cli._absolute("digits") == "digits"
    assert cli._file_name("class-\uac00 (U+AC00)/x") == "class-\uac00__U+AC00__x"


# -- progress ------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_rare_and_messages_immediate() -> None:
    stream = io.StringIO()
    report = LineReporter(stream, every=3600)
    for done in range(1000):
        report.advance("dense", done, 1000)
    report.message("hello")
    assert stream.getvalue() == "hello\n"
    eager = LineReporter(stream, every=0)
    eager.advance("dense", 1, 2, "loss 0.5")
    assert stream.getvalue() == "hello\ndense: 1/2, loss 0.5\n"


@pytest.mark.parametrize("seconds", [0.2, 3.1, 9.0])
def test_at_most_a_line_in_ten_seconds_however_slow_a_batch(seconds: float) -> None:
    stream, clock = io.StringIO(), Clock()
    report = LineReporter(stream, clock=clock)
    for done in range(1, 201):
        clock.now += seconds
        report.advance("dense", done, 200)
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 200 * seconds / 10 + 1
    assert len(lines) >= 200 * seconds / 20
    assert lines[-1] == "dense: 200/200"
    report.advance("dense", 200, 200)  # a total that was too low is told once
    report.advance("short", 1, 2)
    report.advance("short", 2, 2)  # not worth a line: the task was never told about
    assert stream.getvalue().splitlines() == lines


def test_short_epochs_are_told_as_seldom_as_batches() -> None:
    stream, clock = io.StringIO(), Clock()
    report = LineReporter(stream, clock=clock)
    report.message("dense …")
    for task, seconds, epochs in (("dense", 0.5, 100), ("fine-tuning", 12.0, 3)):
        for epoch in range(1, epochs + 1):
            clock.now += seconds
            report.result(f"{task}, epoch {epoch}/{epochs}", last=epoch == epochs)
    lines = stream.getvalue().splitlines()
    told = [line for line in lines if line.startswith("dense, ")]
    assert told[0] == "dense, epoch 1/100"
    assert told[-1] == "dense, epoch 100/100"
    assert len(told) <= 50 / 10 + 2
    assert lines[-3:] == [f"fine-tuning, epoch {epoch}/3" for epoch in (1, 2, 3)]
    listened: list[str] = []
    listener = SilentReporter()
    listener.message = listened.append  # type: ignore[method-assign]
    listener.result("every one", last=False)
    assert listened == ["every one"]


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    assert isinstance(make_reporter(io.StringIO()), LineReporter)
    with make_reporter(stream) as report:
        assert isinstance(report, BarReporter)
        report.advance("dense", 1, 4)
        report.advance("solving [1]", 2, 4, "gap 3 %")
        report.message("note [bold]")
    assert "note [bold]" in stream.getvalue()
    with SilentReporter() as silent:
        silent.advance("x", 1, 1)
        silent.message("nothing")


def test_table_leaves_out_what_nobody_has() -> None:
    table = score_table([("a", {"accuracy_test": 1.0, "features": 1280}), ("b", {"accuracy_test": None})])
    assert "structural" not in table
    assert table.splitlines()[1].split() == ["accuracy,", "test", "(all", "images)", "100.0", "%", "–"]
    assert table.splitlines()[2].split() == ["features", "1,280", "–"]


# -- the face of the package ---------------------------------------------------------------------------------------


def test_public_names_are_sorted_lazy_and_there() -> None:
    assert qpm_vision.__all__ == sorted(qpm_vision.__all__)
    for name in qpm_vision.__all__:
        assert getattr(qpm_vision, name) is not None
    assert {name for names in qpm_vision._HOMES.values() for name in names} == set(qpm_vision.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qpm_vision.nothing
    assert "run" in dir(qpm_vision)


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )


def test_importing_is_cheap_and_says_what_is_missing() -> None:
    done = _python("import sys, qpm_vision; print('torch' in sys.modules, 'matplotlib' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr
    done = _python("import sys; sys.modules['torch'] = None; import qpm_vision")
    assert done.returncode != 0
    assert 'pip install "qpm[vision]"' in done.stderr.splitlines()[-1]


def test_only_scoring_and_drawing_wait_for_the_libraries_they_need() -> None:
    slow = ["torchmetrics", "torchvision", "sklearn", "matplotlib", "transformers"]
    done = _python(
        "import sys, qpm_vision.report.write, qpm_vision.pipeline, qpm_vision.predict; "
        f"print([name for name in {slow} if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_help_needs_no_torch_at_run_time() -> None:
    done = _python(
        "import sys; from qpm_vision.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    assert "demo" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_errors_are_values_too() -> None:
    with pytest.raises(ValueError, match=r"'redo'|'stage'"):
        RunFolder(Path("nowhere")).forget_from("x")
    assert issubclass(InvalidInputError, ValueError)
    assert json.loads(json.dumps(RunConfig("digits").to_dict()))["data"] == "digits"


def test_a_configuration_file_counts_when_a_run_goes_on(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ensure(trained)
    changed = trained.parent / "changed.yaml"
    changed.write_text("n_select: 5\n")
    assert _train(trained, "--config", str(changed), "--n-select", "4") == 0  # options are stronger than the file
    assert cli.main(["train", "tiny", str(trained), "--config", str(changed)]) == 2
    assert "n_select: 4 → 5" in capsys.readouterr().err
    assert cli.main(["train", "tiny", str(trained), "--config", "nowhere.yaml"]) == 2
    assert "qpm-vision: The '--config' option must name" in capsys.readouterr().err
    changed.write_text("{")
    assert cli.main(["train", "tiny", str(trained.parent / "new"), "--config", str(changed)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("qpm-vision: The '--config' option must name")
    assert len(error.splitlines()) == 1


def test_scores_can_be_kept(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ensure(trained)
    assert cli.main(["evaluate", str(trained), "--out", str(tmp_path / "s.json"), "--device", "cpu"]) == 0
    assert "images, test" in capsys.readouterr().out
    assert json.loads((tmp_path / "s.json").read_text())["qpm"]["test_images"] == 24


@pytest.mark.parametrize("tool", ["qpm_opt", "qpm_vision"])
def test_version(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        __import__(f"{tool}.cli", fromlist=["main"]).main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("qpm 0.")


@pytest.mark.parametrize("words", [["train", "", "run"], ["predict", "run", ""], ["evaluate", "run", "--data", ""]])
def test_nothing_is_not_the_current_folder(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert f"argument {words.index('') + 1} is empty" in capsys.readouterr().err
    with pytest.raises(InvalidInputError, match="must not be empty"):
        RunFolder("")
