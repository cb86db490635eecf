"""The command line, qpm-vision: one function for each command, and their arguments.

Results go to standard output, progress to standard error. Exit codes: 0 well, 1 no image could be read, 2 a mistake
that the message explains, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from qpm_opt import InvalidInputError, QPMError, parse_arguments, printable, steady_output

if TYPE_CHECKING:
    from qpm_vision.config import RunConfig
    from qpm_vision.data import ImageData
    from qpm_vision.run_folder import RunFolder

__all__ = ["main"]

_LONGEST_NAME = 200
"""Bytes of the name of a file without its ending; file systems allow 255."""

DEMO_FOLDER = "qpm-demo"
DEMO: dict[str, Any] = {
    "backbone": "efficientnet-lite0-stride16",  # on images this small the coarser maps have 2 × 2 places only
    "size": 64,
    "n_select": 20,
    "n_per_class": 5,
    "solve_seconds": 20.0,
}

_PACKAGES = (
    "qpm",
    "torch",
    "torchvision",
    "timm",
    "torchmetrics",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyomo",
    "highspy",
    "ortools",
    "matplotlib",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the name of the program; those of the process by default.

    Returns:
        The exit code.
    """
    with steady_output() as output:
        arguments = parse_arguments(_parser(), argv)
        arguments.unread = lambda: output.unread
        logging.basicConfig(
            level=logging.DEBUG if arguments.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
        )
        for noisy in ("matplotlib", "PIL"):
            logging.getLogger(noisy).setLevel(logging.INFO if arguments.verbose else logging.ERROR)
        try:
            status: int | None = arguments.command(arguments)
        except QPMError as error:
            print(f"qpm-vision: {printable(str(error))}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"\nqpm-vision: {_interrupted(getattr(arguments, 'out', None), arguments.name)}", file=sys.stderr)
            return 130
        # Who redirects figures to a full disk has part of them there; other commands leave more than what they print.
        return status or (2 if arguments.command in _PRINTED_ONLY and output.lost else 0)


# -- commands ------------------------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> None:
    from qpm_vision.config import RunConfig

    _train_and_show(RunConfig("digits", **DEMO, device=arguments.device), arguments.out, arguments.redo)


def _train(arguments: argparse.Namespace) -> None:
    _train_and_show(_configured(arguments), arguments.out, arguments.redo)


def _data_hangul(arguments: argparse.Namespace) -> None:
    from qpm_vision.data.hangul import draw_hangul

    summary = draw_hangul(arguments.out, n_classes=arguments.classes, size=arguments.size, seed=arguments.seed)
    print(summary)
    print(f"Train on it: qpm-vision train {arguments.out} RUN")


def _check(arguments: argparse.Namespace) -> None:
    from qpm_vision._cli_check import check

    check(arguments, _absolute(arguments.data))


def _evaluate(arguments: argparse.Namespace) -> None:
    from qpm_vision._cli_evaluate import evaluate

    evaluate(arguments, None if arguments.data is None else _absolute(arguments.data))


def _compare(arguments: argparse.Namespace) -> None:
    from qpm_vision._comparison_table import comparison_table
    from qpm_vision._progress import make_reporter
    from qpm_vision.compare import METHODS, NEIGHBOURS, compare_run

    methods = NEIGHBOURS if arguments.methods is None else tuple(name.strip() for name in arguments.methods.split(","))
    rows = compare_run(
        arguments.run,
        methods=METHODS if methods == ("all",) else methods,
        seeds=arguments.seeds,
        n_select=arguments.n_select,
        n_per_class=arguments.n_per_class,
        out=arguments.out,
        device=arguments.device,
        reporter=make_reporter(),
    )
    print(comparison_table(rows))
    target = Path(arguments.run) / "compare" if arguments.out is None else Path(arguments.out)
    print(f"\nwritten to {target / 'compare.csv'} and {target / 'compare.md'}")


def _steer(arguments: argparse.Namespace) -> None:
    from qpm_vision._cli_steer import steer

    steer(arguments)


def _serve(arguments: argparse.Namespace) -> None:
    try:
        from qpm_vision.server import serve
    except ImportError as error:
        raise QPMError(
            f'The server needs packages that are not installed: pip install "qpm[serve]" ({error}).'
        ) from error

    serve(arguments.run, port=arguments.port, on_listening=_tell_address)


def _tell_address(address: str) -> None:
    print(f"Open {address}\nCtrl-C ends the server; nothing that was saved is lost.", flush=True)


def _explain(arguments: argparse.Namespace) -> None:
    from qpm_vision import explain
    from qpm_vision._targets import refuse_inputs
    from qpm_vision.run_folder import RunFolder

    folder = RunFolder.open(arguments.run)
    if arguments.out is not None:
        refuse_inputs(arguments.out, folder.path, [arguments.image])
    if arguments.image is not None:
        figure, _ = explain.plot_image(folder, arguments.image)
        name = f"image-{Path(arguments.image).stem}"
    elif arguments.matrix:
        figure, _ = explain.plot_matrix(folder)
        name = "matrix"
    else:
        explainer = explain.load_explainer(folder, data=_moved_data(folder, arguments.data))
        if arguments.compare is not None:
            figure, _ = explain.plot_comparison(explainer, *arguments.compare)
            name = f"comparison-{'-'.join(arguments.compare)}"
        elif arguments.class_name is not None:
            figure, _ = explain.plot_class(explainer, arguments.class_name)
            name = f"class-{arguments.class_name}"
        elif arguments.feature is not None:
            figure, _ = explain.plot_feature(explainer, arguments.feature)
            name = f"feature-{arguments.feature}"
        else:
            figure, _ = explain.plot_overview(explainer)
            name = "classes"
    target = folder.figures / f"{_file_name(name)}.png" if arguments.out is None else Path(arguments.out)
    known = figure.canvas.get_supported_filetypes()
    if target.suffix[1:].lower() not in known:
        raise InvalidInputError(
            f"The '--out' option must end in one of {', '.join(sorted(known))}. Got {str(target)!r}; use a name that "
            "ends in .png."
        )
    RunFolder(target.parent).write_path(target.name, lambda path: figure.savefig(path, dpi=150))
    print(target)


def _faithfulness(arguments: argparse.Namespace) -> None:
    from qpm_vision._progress import make_reporter
    from qpm_vision.faithfulness.measure import FIGURE, measure_faithfulness
    from qpm_vision.faithfulness.result import RESULT
    from qpm_vision.faithfulness.verdict import judge
    from qpm_vision.run_folder import RunFolder

    folder = RunFolder.open(arguments.run)
    result = measure_faithfulness(
        folder,
        images=arguments.images,
        seed=arguments.seed,
        data=_moved_data(folder, arguments.data),
        device=arguments.device,
        reporter=make_reporter(),
    )
    print(f"{result}\n\n{judge(result)}")
    print(f"\nwritten to {folder.path / RESULT} and {folder.path / FIGURE}")


def _report(arguments: argparse.Namespace) -> None:
    from qpm_vision._progress import make_reporter
    from qpm_vision.report import write_report
    from qpm_vision.run_folder import RunFolder

    folder = RunFolder.open(arguments.run)
    written = write_report(
        folder,
        arguments.out,
        folder=arguments.folder,
        images=arguments.images,
        max_classes=arguments.max_classes,
        data=_moved_data(folder, arguments.data),
        device=arguments.device,
        reporter=make_reporter(),
    )
    print(written)


def _name(arguments: argparse.Namespace) -> None:
    from qpm_vision.feature_names import feature_names, kept_features, names_table, read_names, write_names
    from qpm_vision.run_folder import RunFolder

    folder = RunFolder.open(arguments.run)
    kept = kept_features(folder)
    if arguments.names is None:
        print(names_table(kept, feature_names(folder)), end="")
        return
    told = {**feature_names(folder), **read_names(arguments.names, kept)}  # what the table leaves out keeps its name
    names = {number: name for number, name in told.items() if name}
    print(f"{write_names(folder, names)}: {len(names)} of {len(kept)} features have names")


def _predict(arguments: argparse.Namespace) -> int:
    from qpm_vision._cli_predict import predict_images

    return predict_images(
        arguments.run,
        arguments.images,
        json_file=arguments.json,
        csv_file=arguments.csv,
        device=arguments.device,
        top=arguments.top,
        batch_size=arguments.batch_size,
        unread=arguments.unread,
    )


def _export(arguments: argparse.Namespace) -> None:
    from qpm_vision.export import export_model

    done = export_model(arguments.run, arguments.out)
    print(f"{done.path}\n{done.sidecar}")
    print(
        f"compared with the model on random images, batches of {' and '.join(map(str, done.batch_sizes))}: largest "
        f"absolute difference {done.difference:.2g}"
    )


def _recipe(arguments: argparse.Namespace) -> None:
    from qpm_vision.recipes import recipe_names, recipe_text

    if arguments.recipe is None:
        for name in recipe_names():
            print(f"{name:<16}{recipe_text(name).splitlines()[0].removeprefix('# ')}")
    else:
        print(recipe_text(arguments.recipe), end="")


def _info(arguments: argparse.Namespace) -> None:
    if arguments.run is None:
        _print_installation()
    else:
        from qpm_vision.run_folder import RunFolder

        _print_run(RunFolder.open(arguments.run))


_PRINTED_ONLY = (_evaluate, _info, _name, _predict, _recipe)
"""Commands whose result is what they print."""


# -- what commands share -------------------------------------------------------------------------------------------


def _moved_data(folder: RunFolder, spec: str | None) -> ImageData | None:
    """The data of a run from where they are now; None where they are still where they were."""
    if spec is None:
        return None
    from qpm_vision.config import RunConfig
    from qpm_vision.data import load_data

    config = RunConfig.of(folder)
    return load_data(spec, **config.division)


def _train_and_show(config: RunConfig, out: str, redo: str | None) -> None:
    from qpm_vision._progress import make_reporter
    from qpm_vision.pipeline import run

    folder = run(config, out, reporter=make_reporter(), redo=redo)
    if os.environ.get("RANK", "0") != "0":  # of several processes that shared the run, one tells
        return
    _print_scores(folder)
    drawn = [path for path in (folder.figures / "classes.png", folder.figures / "comparison.png") if path.exists()]
    if drawn:
        print(f"\nSee {' and '.join(map(str, drawn))}")
    print(f"More pictures: qpm-vision explain {out} --class NAME")


def _print_scores(folder: RunFolder) -> None:
    from qpm_vision.evaluation import read_metrics, score_table

    metrics = read_metrics(folder)
    print(
        score_table(
            [
                ("dense", metrics["dense"]),
                ("QPM before fine-tuning", metrics["qpm_before_fine_tuning"]),
                ("QPM", metrics["qpm"]),
            ]
        )
    )
    seconds = {stage: record.seconds for stage, record in folder.stages().items()}
    parts = ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items())
    print(f"\nSeconds: {sum(seconds.values()):.0f} ({parts})")


def _configured(arguments: argparse.Namespace) -> RunConfig:
    """Options over a file, over a recipe, over the configuration of the folder or, in a new one, the default recipe."""
    from dataclasses import replace

    from qpm_vision.config import RunConfig, merged
    from qpm_vision.recipes import DEFAULT, read_recipe
    from qpm_vision.run_folder import RunFolder

    data = _absolute(arguments.data)
    folder = RunFolder(arguments.out)
    settings = RunConfig.of(folder).to_dict() if folder.has_run else read_recipe(DEFAULT)
    if arguments.recipe is not None:
        settings = merged(settings, read_recipe(arguments.recipe))
    if arguments.config is not None:
        settings = merged(settings, _read_settings(Path(arguments.config)))
    base = RunConfig.from_dict({**settings, "data": data})
    given = vars(arguments)
    for stage in ("dense", "fine_tuning"):
        options = {"epochs": f"{stage}_epochs", **{name: name for name in _TRAINING_OPTIONS}}
        changes = {name: given[option] for name, option in options.items() if given[option] is not None}
        if "epochs" in changes:
            changes["least_steps"] = 0
        if changes:
            base = replace(base, **{stage: replace(getattr(base, stage), **changes)})
    given["weights"] = None if arguments.weights is None else _absolute(arguments.weights)
    if arguments.backbone is not None and arguments.backbone.startswith("hf:"):
        given["backbone"] = _absolute(arguments.backbone)
    changes = {name: given[name] for name in _RUN_OPTIONS if given[name] is not None}
    return replace(base, **changes)


_TRAINING_OPTIONS = ("batch_size", "augmentation", "class_weights", "sampling")
_RUN_OPTIONS = (
    "backbone",
    "weights",
    "adapter",
    "size",
    "n_select",
    "n_per_class",
    "threshold",
    "solver",
    "solve_seconds",
    "seed",
    "test_share",
    "validation_share",
    "precision",
    "micro_batch",
    "device",
    "workers",
    "compile",
    "tensorboard",
)


def _read_settings(path: Path) -> dict[str, Any]:
    from qpm_vision._reading import parse_yaml, read_given_text, shortened

    try:
        data = parse_yaml(read_given_text(path))  # JSON is YAML
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"The '--config' option must name a JSON or YAML file. Cannot read {str(path)!r}: {shortened(error)}"
        ) from error
    if not isinstance(data, dict):
        raise InvalidInputError(f"The file {str(path)!r} must hold keys and values. Got a {type(data).__name__}.")
    return {key: value for key, value in data.items() if key != "format"}


def _absolute(spec: str) -> str:
    """The data with an absolute path where it has one, so that the run can be used from other folders."""
    kind, colon, rest = spec.partition(":")
    if colon and Path(rest).exists():
        return f"{kind}:{Path(rest).resolve()}"
    return str(Path(spec).resolve()) if spec and Path(spec).exists() else spec


def _file_name(text: str) -> str:
    name = "".join(character if character.isalnum() or character in "-_+." else "_" for character in text)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    begin = name.encode()[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{begin}-{hashlib.sha256(text.encode(errors='backslashreplace')).hexdigest()[:8]}"


def _interrupted(out: str | None, command: str) -> str:
    from qpm_vision.run_folder import RunFolder

    folder = None if out is None else RunFolder(out)
    if folder is None or not folder.has_run or command not in ("demo", "train", "steer"):
        return "stopped."
    try:
        finished = list(folder.stages())
    except QPMError as error:
        return f"stopped. {error}"
    return f"stopped. Finished: {', '.join(finished) or 'no stage yet'}. The same command continues from there."


def _print_installation() -> None:
    for name in _PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        print(f"{name:<14} {version}")
    print(f"{'Python':<14} {platform.python_version()} on {platform.platform()}")
    import torch

    from qpm_opt import backend_names
    from qpm_vision.backbones import backbone_names
    from qpm_vision.openmp import share_processors

    share_processors()  # as a run would
    devices = ["cpu"]
    devices += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    print(f"{'devices':<14} {', '.join(devices)}; {torch.get_num_threads()} threads")
    print(f"{'backbones':<14} {', '.join(backbone_names())}, timm:NAME, hf:DIR, my.module:build")
    print(f"{'solvers':<14} {', '.join(filter(_is_installed, backend_names()))}")


def _is_installed(solver: str) -> bool:
    from qpm_opt import BackendUnavailableError, backend_version

    try:
        backend_version(solver)
    except BackendUnavailableError:
        return False
    return True


def _print_run(folder: RunFolder) -> None:
    from qpm_vision.config import RunConfig
    from qpm_vision.steered_run import told_origin

    print(json.dumps(RunConfig.of(folder).to_dict(), indent=2, ensure_ascii=False))
    origin = told_origin(folder)
    if origin is not None:
        print(f"\nsteered from {origin}")
    stages = folder.stages()
    print("\nstages:")
    for stage, record in stages.items():
        print(f"  {stage:<12} {record.seconds:8.1f} s   {record.finished}")
    folder.require_files()
    if "evaluation" in stages:
        print()
        _print_scores(folder)
    else:
        print("  (not finished)")


# -- arguments -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Names the nearest command or option when one is mistyped."""

    def error(self, message: str) -> NoReturn:
        known = set(_words(self))
        for word in message.replace("=", " ").split():
            word = word.strip("'\",():")
            close = difflib.get_close_matches(word, known - {word}, n=1, cutoff=0.6)
            if word not in known and close:
                message += f" (did you mean {close[0]!r}?)"
                break
        super().error(message)


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Options and choices of a parser and of its commands: an unknown option is refused by the outermost parser."""
    for action in parser._actions:
        yield from action.option_strings
        yield from map(str, action.choices or ())
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _words(command)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="qpm-vision",
        description="Train image classifiers whose every class is described by a handful of shared features.",
    )
    parser.set_defaults(verbose=False)
    parser.add_argument("--version", action="version", version=f"qpm {importlib.metadata.version('qpm')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="name", parser_class=_Parser)

    demo = _command(commands, "demo", _demo, "train on small digits, in a few minutes without a GPU")
    demo.add_argument("out", nargs="?", default=DEMO_FOLDER, metavar="OUT", help="run folder (default: %(default)s)")
    demo.add_argument("--device", default="auto", help="cpu, cuda, … (default: what is there)")
    _redo(demo)

    data = commands.add_parser("data", help="make a data set", description="Make a data set.")
    kinds = data.add_subparsers(required=True, metavar="KIND", dest="kind", parser_class=_Parser)
    hangul = _command(kinds, "hangul", _data_hangul, "draw Korean syllables with the fonts of this machine")
    hangul.add_argument("out", metavar="OUT", help="new folder for the images")
    hangul.add_argument("--classes", type=int, default=200, help="number of syllables (default: %(default)s)")
    hangul.add_argument("--size", type=int, default=64, help="side in pixels (default: %(default)s)")
    hangul.add_argument("--seed", type=int, default=0, help="seed (default: %(default)s)")

    _check_options(_command(commands, "check", _check, "question data before training on them: a page of findings"))

    train = _command(commands, "train", _train, "train, choose features, fine-tune, evaluate and draw")
    _train_options(train)

    evaluate = _command(commands, "evaluate", _evaluate, "score the models of a run")
    evaluate.add_argument("run", metavar="RUN", help="run folder")
    evaluate.add_argument(
        "--data", help="other images of the same classes; all are scored unless they come divided (default: the run's)"
    )
    evaluate.add_argument("--out", metavar="FILE", help="JSON file to write, scores of each class in it")
    evaluate.add_argument(
        "--confusion", metavar="FILE", help="write which classes the model takes for which: .csv, .png, .pdf or .svg"
    )
    evaluate.add_argument("--size", type=int, help="expected side of the images; an error if the model has another")
    evaluate.add_argument("--device", default="auto", help="cpu, cuda, … (default: what is there)")

    compare = _command(commands, "compare", _compare, "QPM and other ways to choose features, from one dense model")
    compare.add_argument("run", metavar="RUN", help="run folder whose dense model and statistics are finished")
    compare.add_argument(
        "--methods",
        help="some of dense, qpm, greedy, random, sldd, qsenn, qpm-no-redundancy, qpm-no-bias, qpm-no-similarity, with "
        "commas, or all (default: the first six)",
    )
    compare.add_argument("--seeds", type=int, default=3, help="how often each is fine-tuned (default: %(default)s)")
    for option, meaning in (("--n-select", "features to keep"), ("--n-per-class", "features of each class")):
        compare.add_argument(
            option, type=_numbers, default=(), metavar="N[,N…]", help=f"{meaning}, with commas to try several"
        )
    compare.add_argument("--out", metavar="DIR", help="folder for results; the same again continues (RUN/compare)")
    compare.add_argument("--device", default="auto", help="cpu, cuda, … (default: what is there)")

    _steer_options(_command(commands, "steer", _steer, "ban, require or prefer features, and fine-tune again"))

    serve = _command(commands, "serve", _serve, "a local page on which features can be steered")
    serve.add_argument("run", metavar="RUN", help="run folder whose features are chosen")
    serve.add_argument("--port", type=int, default=8642, help="port on 127.0.0.1; 0: any that is free (default: 8642)")

    explain = _command(commands, "explain", _explain, "draw what describes classes, and what tells two apart")
    explain.add_argument("run", metavar="RUN", help="run folder")
    what = explain.add_mutually_exclusive_group()
    what.add_argument("--class", dest="class_name", metavar="NAME", help="the features of one class")
    what.add_argument("--compare", nargs=2, metavar=("A", "B"), help="what two classes share and what tells them apart")
    what.add_argument("--feature", type=int, metavar="N", help="the classes that a feature describes, by its number")
    what.add_argument("--image", metavar="FILE", help="why an image gets its class and not the next one")
    what.add_argument("--matrix", action="store_true", help="which class has which feature")
    explain.add_argument("--data", help="where the images of the run are now (default: where they were)")
    explain.add_argument("--out", metavar="FILE", help="picture to write, .png, .pdf or .svg (default: in RUN/figures)")

    faithfulness = _command(
        commands, "faithfulness", _faithfulness, "measure how far the heat maps of a run can be trusted"
    )
    faithfulness.add_argument("run", metavar="RUN", help="run folder")
    faithfulness.add_argument(
        "--images", type=int, default=100, metavar="N", help="test images to perturb (default: %(default)s)"
    )
    faithfulness.add_argument("--seed", type=int, default=0, help="of their choice and all else that is random")
    faithfulness.add_argument("--data", help="where the images of the run are now (default: where they were)")
    faithfulness.add_argument("--device", default="auto", help="cpu, cuda, … (default: what is there)")

    report = _command(commands, "report", _report, "write a page about a run: classes, features, mistakes")
    report.add_argument("run", metavar="RUN", help="run folder")
    report.add_argument(
        "--out", metavar="PATH", help="page to write, .html, or a folder (default: report.html in the run folder)"
    )
    report.add_argument("--folder", action="store_true", help="write a folder whose images are files of their own")
    report.add_argument("--images", default="train", metavar="SPLIT", help="show train or test images (default: train)")
    report.add_argument(
        "--max-classes", type=int, metavar="N", help="pictures of this many classes, those confused most (default: all)"
    )
    report.add_argument("--data", help="where the images of the run are now (default: where they were)")
    report.add_argument("--device", default="auto", help="cpu, cuda, … (default: what is there)")

    name = _command(commands, "name", _name, "give features names, which all pictures and tables then use")
    name.add_argument("run", metavar="RUN", help="run folder")
    name.add_argument(
        "names",
        nargs="?",
        metavar="CSV",
        help="table with the columns feature and name (default: print the one in use)",
    )

    predict = _command(commands, "predict", _predict, "classify images, and say which features decided")
    predict.add_argument("run", metavar="RUN", help="run folder")
    predict.add_argument(
        "images", nargs="+", metavar="IMAGE_OR_FOLDER", help="images, and folders to search for images with all in them"
    )
    predict.add_argument(
        "--json", metavar="FILE", help="write JSON Lines, an image a line, in place of the table; - for standard output"
    )
    predict.add_argument("--csv", metavar="FILE", help="write a table with commas, the same way")
    predict.add_argument("--top", type=int, default=2, metavar="N", help="most likely classes to list (default: 2)")
    predict.add_argument("--batch-size", type=int, default=32, help="images computed at once (default: %(default)s)")
    predict.add_argument("--device", default="auto", help="cpu, cuda, … (default: what is there)")

    export = _command(commands, "export", _export, "write the model as a graph that other programs run")
    export.add_argument("run", metavar="RUN", help="run folder")
    export.add_argument(
        "out", metavar="OUT", help="file to write: .pt2 (torch.export) or .onnx; a .json of that name comes with it"
    )

    recipe = _command(commands, "recipe", _recipe, "list recipes, or print one, to be changed and given to --config")
    recipe.add_argument("recipe", nargs="?", metavar="NAME", help="name of a recipe")

    info = _command(commands, "info", _info, "versions, devices, backbones and solvers; or what a run is")
    info.add_argument("run", nargs="?", metavar="RUN", help="run folder")
    return parser


def _command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int | None], about: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + "."
    )
    parser.set_defaults(command=function)
    parser.add_argument("--verbose", action="store_true", help="show what the libraries log")
    return parser


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="what `qpm-vision train` takes")
    parser.add_argument(
        "--out", metavar="FILE", default="check.html", help="page to write, .html (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON too")
    parser.add_argument("--seed", type=int, default=0, help="of the division that training would make (default: 0)")
    parser.add_argument(
        "--test-share", type=float, default=0.25, help="where the data have no test set (default: %(default)s)"
    )
    parser.add_argument(
        "--validation-share", type=float, default=0.0, help="share of the training images to set aside (default: 0)"
    )


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        help="digits, fashion-mnist, cub:DIR, cub-cropped:DIR, travelingbirds:DIR, cars:DIR, cars-cropped:DIR, "
        "aircraft:DIR, imagenet:DIR, csv:FILE, folder:DIR or a path of folders, one for each class",
    )
    parser.add_argument("out", metavar="OUT", help="run folder; the same one again continues")
    parser.add_argument(
        "--config", metavar="FILE", help="JSON or YAML with settings, such as config.json of another run"
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--backbone", help="see `qpm-vision info`: resnet50, timm:NAME, hf:DIR, … (default: efficientnet-lite0)"
    )
    model.add_argument(
        "--weights", help="file or folder with its weights, or random (default: those that it comes with)"
    )
    model.add_argument(
        "--adapter",
        type=int,
        metavar="N",
        help="freeze the backbone, compute its maps once, and train N features behind it (512 in the recipe frozen)",
    )
    model.add_argument(
        "--size", type=int, help="side of the images in pixels (default: what the backbone was made for)"
    )
    model.add_argument("--n-select", type=int, help="features to keep (default: 50)")
    model.add_argument("--n-per-class", type=int, help="features of each class (default: 5)")
    training = parser.add_argument_group("training")
    training.add_argument("--recipe", metavar="NAME", help="see `qpm-vision recipe` (default: small)")
    training.add_argument(
        "--dense-epochs", type=int, help="epochs of the dense model (small: 5, more for few images; paper-cub: 150)"
    )
    training.add_argument(
        "--fine-tuning-epochs", type=int, help="epochs of the interpretable model (small: 4, more; paper-cub: 40)"
    )
    training.add_argument("--batch-size", type=int, help="images in a batch (small: 32; paper-cub: 16)")
    training.add_argument("--augmentation", help="none, flip, shift or paper (small: shift)")
    training.add_argument(
        "--class-weights", help="none, or balanced: images of small classes count more in the loss (default: none)"
    )
    training.add_argument(
        "--sampling", help="none, or balanced: an epoch draws as many images of each class (default: none)"
    )
    training.add_argument("--seed", type=int, help="of everything random (default: 0)")
    training.add_argument("--test-share", type=float, help="where the data have no test set (default: 0.25)")
    training.add_argument(
        "--validation-share", type=float, help="share of the training images to choose the best epoch with (default: 0)"
    )
    training.add_argument("--tensorboard", action="store_const", const=True, help="write epochs for TensorBoard too")
    _redo(training)
    machine = parser.add_argument_group("machine (several GPUs: torchrun --nproc-per-node N -m qpm_vision train …)")
    machine.add_argument("--device", help="cpu, cuda, … (default: what is there)")
    machine.add_argument(
        "--workers",
        type=int,
        help="processes that load images (default: one for each core beside a GPU, else none)",
    )
    machine.add_argument("--precision", help="of the backbone: float32 (default) or bfloat16")
    machine.add_argument("--micro-batch", type=int, help="most images to train on at once, if memory is short")
    machine.add_argument("--compile", action="store_const", const=True, help="let PyTorch compile the backbone")
    choice = parser.add_argument_group("choice of features")
    choice.add_argument("--threshold", type=_threshold, help="turan or a number (default: searched)")
    choice.add_argument("--solver", help="see `qpm-vision info` (default: auto)")
    choice.add_argument("--solve-seconds", type=float, help="time limit of the solver (default: 60)")


def _steer_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder whose features are chosen")
    parser.add_argument(
        "out", nargs="?", metavar="NEWRUN", help="new run folder; the same command again continues (not for --dry-run)"
    )
    what = parser.add_argument_group(
        "what to change (features by number, or by name where they have one; what is given more than once adds up)"
    )
    what.add_argument("--file", metavar="YAML", help="a steering; the options below are added to it")
    listed: dict[str, Any] = {"action": "append", "default": [], "metavar": "F[,F…]"}
    what.add_argument("--ban", **listed, help="features that are not kept")
    what.add_argument("--require", **listed, help="features that are kept")
    of_class: dict[str, Any] = {"action": "append", "default": [], "metavar": "CLASS:F[,F…]"}
    what.add_argument("--forbid", **of_class, help="features that do not describe a class")
    what.add_argument("--assign", **of_class, help="features that describe a class")
    what.add_argument(
        "--prefer", action="append", default=[], metavar="F=X", help="add X to the bias of a feature; below 0: avoid it"
    )
    for place, meant in (("border", "on the border of their maps"), ("centre", "near the middle of their maps")):
        what.add_argument(
            f"--{place}-bias",
            type=float,
            metavar="X",
            help=f"above 0: prefer features that peak {meant}; below 0: those that do not",
        )
    what.add_argument("--stay", type=float, metavar="X", help="add X to the bias of each feature that is kept now")
    what.add_argument(
        "--contrast",
        nargs=2,
        action="append",
        default=[],
        metavar=("A", "B"),
        help="two classes that share all features but one",
    )
    what.add_argument("--closest-pairs", type=int, metavar="N", help="the same for the N pairs of most similar classes")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, write and train nothing")
    parser.add_argument("--solve-seconds", type=float, help="time limit of the solver (default: 20)")
    parser.add_argument("--device", help="cpu, cuda, … (default: that of the run)")


def _redo(parser: Any) -> None:
    parser.add_argument("--redo", metavar="STAGE", help="repeat this stage and what follows it")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas, such as 20,30; got {text!r}") from error


def _threshold(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
