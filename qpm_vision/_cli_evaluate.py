"""What `qpm-vision evaluate` does."""

from __future__ import annotations

import argparse
from pathlib import Path

from qpm_opt import InvalidInputError
from qpm_vision._progress import make_reporter
from qpm_vision._targets import refuse_inputs
from qpm_vision.class_scores import by_class, class_table, write_confusion
from qpm_vision.evaluation import score_table
from qpm_vision.explain.confusion import draw_confusion
from qpm_vision.pipeline import evaluate_run
from qpm_vision.run_folder import RunFolder

__all__ = ["evaluate"]

_PICTURES = (".png", ".pdf", ".svg")
_MOST_SHOWN = 40
"""Classes up to which a row is printed for each; the file has all of them."""


def evaluate(arguments: argparse.Namespace, data: str | None) -> None:
    """Score the models of a run, print the figures, and write what was asked for.

    Args:
        arguments: Of the command.
        data: Other images; None: those of the run.

    Raises:
        InvalidInputError: The name of a file does not say what to write.
    """
    target = None if arguments.confusion is None else Path(arguments.confusion)
    if target is not None and target.suffix.lower() not in (".csv", *_PICTURES):
        raise InvalidInputError(
            f"The '--confusion' option must end in .csv, {', '.join(_PICTURES[:-1])} or {_PICTURES[-1]}. "
            f"Got {str(target)!r}; use a name that ends in .csv for numbers, in .png for a picture."
        )
    for file_name in (arguments.out, arguments.confusion):
        if file_name is not None:
            refuse_inputs(file_name, arguments.run, [(data or "").partition(":")[2]])
    with make_reporter() as report:
        scores = evaluate_run(arguments.run, data=data, size=arguments.size, device=arguments.device, reporter=report)
    class_names = RunFolder.open(arguments.run).read_json("data.json")["class_names"]
    classes = by_class(scores, class_names)
    print(score_table([(name, figures.to_dict()) for name, figures in scores.items()]))
    worst = sorted(classes["qpm"], key=lambda entry: (entry["recall"] is None, entry["recall"], entry["name"]))
    print(f"\nClasses of the QPM on test images, the lowest recall first\n{class_table(worst[:_MOST_SHOWN])}")
    if len(worst) > _MOST_SHOWN:
        print(f"… and {len(worst) - _MOST_SHOWN} more; --out FILE has all of them")
    if arguments.out is not None:
        file = Path(arguments.out)
        figures = {name: {**figures.to_dict(), "by_class": classes[name]} for name, figures in scores.items()}
        RunFolder(file.parent).write_json(file.name, figures)
        print(f"written to {file}")
    if target is not None:
        place, found = RunFolder(target.parent), scores["qpm"].by_class
        if target.suffix.lower() == ".csv":
            write_confusion(place, target.name, found, class_names)
        else:
            figure = draw_confusion(found.confusion, class_names)
            place.write_path(target.name, lambda path: figure.savefig(path, dpi=150))
        print(f"written to {target}")
