"""From a finished run to everything that its page shows: looks at the images, and has the rest assembled."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError
from qpm_vision._data_identity import read_identity
from qpm_vision._progress import Reporter, SilentReporter
from qpm_vision._torch_state import plain_torch
from qpm_vision._work import Work, read_assignment, read_problem, read_threshold
from qpm_vision.config import RunConfig
from qpm_vision.data import ImageData, ImageSet, load_data
from qpm_vision.data_check import read_check
from qpm_vision.evaluation import read_metrics
from qpm_vision.explain import Explainer, load_explainer
from qpm_vision.report.assemble import Material, assemble
from qpm_vision.report.confusion import confusions, most_confused
from qpm_vision.report.contents import Report
from qpm_vision.report.faithfulness import heat_map_test
from qpm_vision.report.kept_sight import kept_sight
from qpm_vision.report.pictures import take_pictures
from qpm_vision.report.selection import amounts, select_images
from qpm_vision.report.sight import MOST_IMAGES, Sight, evenly_spread, look
from qpm_vision.run_folder import RunFolder
from qpm_vision.steered_run import told_origin

__all__ = ["SPLITS", "gather_report"]

SPLITS = ("train", "test")
"""Where the images of a report may come from."""

_TASKS = {"train": "training images", "test": "test images"}


@plain_torch()
def gather_report(
    run: RunFolder | str | os.PathLike[str],
    *,
    images: str = "train",
    max_classes: int | None = None,
    data: ImageData | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Report:
    """Gather what the page of a run shows.

    Confusions are always those of test images; all that is pictured comes from the images asked for.

    Args:
        run: The folder of a finished run.
        images: "train" or "test": which images to show.
        max_classes: Classes to show pictures of, those that are confused most; None for all. Everything else is shown
            of every class.
        data: The data of the run; loaded again by default, which needs them at the same place.
        device: Where to compute.
        reporter: Told about progress; nobody by default.

    Raises:
        InvalidInputError: An argument is out of range, or the data have changed since.
        RunFolderError: The run is not finished, or its files are damaged.
    """
    if images not in SPLITS:
        raise InvalidInputError(f"The 'images' parameter must be one of {', '.join(SPLITS)}. Got {images!r}.")
    if max_classes is not None and (isinstance(max_classes, bool) or max_classes < 1):
        raise InvalidInputError(f"The 'max_classes' parameter must be an integer of at least 1. Got {max_classes!r}.")
    folder = RunFolder.open(run)
    folder.require("explanation", "is not finished")
    config = dataclasses.replace(RunConfig.of(folder), device=device)
    known = load_data(config.data, **config.division) if data is None else data
    work = Work(config, folder, SilentReporter() if reporter is None else reporter, known)
    problem, assignment = read_problem(folder), read_assignment(folder)
    explainer = load_explainer(folder, data=known, device=work.device)
    with work.report:
        tested = _look(work, explainer, known.test, np.arange(len(known.test)), "test")
        source, seen = known.test, tested
        if images == "train":
            source = known.train
            seen = _look(work, explainer, source, evenly_spread(source.labels, MOST_IMAGES), "train")
        mistakes = confusions(tested.labels, tested.predicted)
        pictured = most_confused(mistakes, work.n_classes, max_classes)
        wanted = amounts(len(pictured))
        selection = select_images(seen, pictured, wanted)
        rows = selection.rows()
        shown = source.subset(seen.positions[rows])
        pictures = take_pictures(
            explainer.model,
            work.batches(shown, explainer.preprocessing),
            explainer.preprocessing,
            scale=explainer.gallery.scale,
            side=wanted.side,
            device=work.device,
            on_images=work.counter("pictures", len(rows)),
        )
    return assemble(
        Material(
            config=config,
            identity=read_identity(folder),
            origin=told_origin(folder),
            scores=read_metrics(folder),
            threshold=read_threshold(folder),
            problem=problem,
            assignment=assignment,
            preprocessing=explainer.preprocessing,
            feature_names=explainer.feature_names,
            class_names=explainer.class_names,
            n_train=np.bincount(known.train.labels, minlength=work.n_classes),
            split=images,
            seen=seen,
            tested=tested,
            pictured=pictured,
            selection=selection,
            image_names=[shown.name(place) for place in range(len(shown))],
            pictures=pictures,
            side=min(wanted.side, explainer.preprocessing.size),
            faithfulness=heat_map_test(folder, explainer.model),
            check=read_check(folder),
        )
    )


def _look(work: Work, explainer: Explainer, images: ImageSet, positions: npt.NDArray[np.int64], split: str) -> Sight:
    """What the run kept about these images, or else what the model says."""
    kept = kept_sight(work.folder, explainer.model, split, positions)
    if kept is not None:
        return kept
    return look(
        explainer.model,
        work.batches(images.subset(positions), explainer.preprocessing),
        positions,
        scale=explainer.gallery.scale,
        device=work.device,
        on_images=work.counter(_TASKS[split], len(positions)),
    )
