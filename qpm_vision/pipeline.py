"""A run from images to pictures: six stages, each of which leaves its results in the run folder.

    dense         the backbone and a linear classifier, trained            dense.safetensors, history.csv
    statistics    A, R, b, means and deviations, from one pass             statistics.npz
    assignment    which features are kept and describe which class         problem.npz, threshold.json, assignment.npz
    fine-tuning   the interpretable model, backbone trained                qpm.safetensors, history.csv
    evaluation    figures of merit of both models, and of each class       metrics.json, confusion-*.csv
    explanation   pictures, what the model says about all images           gallery.npz, sight.npz, figures/*.png

A second run in the same folder goes on behind the last finished stage, and inside of one that trains a model behind the
last epoch (`dense.training.safetensors`, `fine-tuning.training.safetensors`); the pass behind the statistics keeps its
sums as well (`statistics.partial.npz`). Where images that were set aside chose an earlier epoch than the last one, the
model of that one is kept too (`dense-last.safetensors`, `qpm-last.safetensors`). Several processes can share a run; see
`qpm_vision.distributed`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qpm_opt import InvalidInputError
from qpm_vision._changed_settings import accepted_changes, is_kept
from qpm_vision._data_identity import data_identity, read_identity
from qpm_vision._epoch_log import epoch_log
from qpm_vision._preflight import (
    refuse_changed_data,
    refuse_misfit,
    refuse_other_classes,
    refuse_other_cropping,
    refuse_solving_steered,
)
from qpm_vision._progress import Reporter, SilentReporter
from qpm_vision._torch_state import plain_torch
from qpm_vision._work import Work, live_features, make_problem, read_assignment, read_statistics
from qpm_vision.backbones import load_head
from qpm_vision.checkpoint import require_preprocessing
from qpm_vision.class_scores import ClassScores, by_class, read_confusion, write_confusion
from qpm_vision.config import RunConfig
from qpm_vision.data import ImageData, JoinedImages, load_data
from qpm_vision.data._workers import refuse_unguarded_script
from qpm_vision.data_check import CHECK, quick_check
from qpm_vision.distributed import from_main, is_main, process_group, share, wait
from qpm_vision.evaluation import Scores
from qpm_vision.explain import (
    Explainer,
    closest_pair,
    collect_gallery,
    plot_comparison,
    plot_matrix,
    plot_overview,
)
from qpm_vision.explain.confusion import draw_confusion
from qpm_vision.explain.convergence import draw_convergence
from qpm_vision.explain.gallery import Gallery
from qpm_vision.explain.saving import save_picture
from qpm_vision.extraction import extract, forget_extraction
from qpm_vision.feature_cache import FeatureCache
from qpm_vision.feature_names import NAMES, feature_names
from qpm_vision.model import Classifier, DenseClassifier, QPMClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.report.kept_sight import Onlooker, keep_sights
from qpm_vision.report.sight import Sight, look
from qpm_vision.run_folder import STAGES, RunFolder, require_stage
from qpm_vision.training import chosen_by, confusions
from qpm_vision.training_settings import TrainingSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["evaluate_run", "run"]

_COARSE = 4
_SUMS = "statistics.partial.npz"

_log = logging.getLogger(__name__)


@plain_torch()
def run(
    config: RunConfig | None,
    folder: str | os.PathLike[str],
    *,
    data: ImageData | None = None,
    reporter: Reporter | None = None,
    redo: str | None = None,
) -> RunFolder:
    """Do all stages of a run that are not finished yet.

    Args:
        config: What to do; None: what the folder says. Settings that first count in a stage that is not begun or
            is repeated may differ from those of the folder.
        folder: A new or empty folder, or one in which the run was begun.
        data: The images; by default those that `config.data` names.
        reporter: Told about progress; nobody by default.
        redo: A stage to repeat, with all that follow it.

    Returns:
        The run folder.

    Raises:
        InvalidInputError: A stage that is kept was done with another configuration, or this one does not fit the data
            or the backbone.
        RunFolderError: The folder is none, in use, or damaged.
        QPMError: Anything else that goes wrong on the way; what is finished stays finished.
    """
    refuse_unguarded_script()
    with process_group():
        report = reporter if reporter is not None and is_main() else SilentReporter()
        return _run(config, RunFolder(folder), data, report, redo)


def _run(
    config: RunConfig | None, place: RunFolder, data: ImageData | None, report: Reporter, redo: str | None
) -> RunFolder:
    if redo is not None:
        require_stage(redo)
    refuse_solving_steered(place, redo)
    begun, changes = place.has_run and place.is_begun, ""
    if place.has_run:
        former = RunConfig.of(place)
        config = former if config is None else config
        changes = accepted_changes(place, config, redo)
        if redo is None and len(place.stages()) == len(STAGES) and config.data == former.data:
            place.require_files()
            report.message(f"{place.path}: already finished")
            return place
    elif config is None:
        raise InvalidInputError(
            f"The 'config' parameter must say what to do in the new folder {str(place.path)!r}. Got None, which "
            "continues a run; give a RunConfig."
        )
    else:
        place.refuse_foreign_content()
    images = load_data(config.data, **config.division) if data is None else data
    identity = data_identity(images)
    # Where nothing is kept, the images may be divided in another way.
    if begun and (is_kept(place, STAGES[0], redo) or config.division == former.division):
        refuse_changed_data(place, config.data, identity)
    refuse_misfit(config, images, trained=is_kept(place, "dense", redo) and "dense" in place.stages())
    if is_kept(place, "statistics", redo) and not is_kept(place, "assignment", redo):
        live_features(read_statistics(place), config.n_select)
    wait()  # until every process has seen the folder as it was
    with _begin(place, config, images, identity, redo) if is_main() else nullcontext(), report:
        report.message(_described(images))
        if changes:
            report.message(f"{place.path}: changed settings: {changes}")
        useful = len(images.class_names) * config.n_per_class
        if config.n_select > useful:
            report.message(
                f"note: {len(images.class_names)} classes of {config.n_per_class} features each use {useful} of the "
                f"{config.n_select} features at most; fewer (--n-select) are found faster, and are shared by classes"
            )
        finished = from_main(place.stages())
        if is_main() and "dense" not in finished:
            _question(place, images, config, named=data is None, report=report)
        if (place.path / NAMES).exists() and "fine-tuning" not in finished:
            report.message(f"note: {NAMES} was written for features as they were; see whether they still fit")
        if finished:
            report.message(f"{place.path}: {', '.join(finished)} already finished")
        work = Work(config, place, report, images)
        cache = FeatureCache(place.path / "maps")
        for stage in STAGES:
            if stage in finished:
                continue
            report.message(f"{stage} …")
            began = time.perf_counter()
            work.cache_maps(cache)
            if is_main() or stage in _BY_ALL:
                _STAGES[stage](work)
            seconds = time.perf_counter() - began
            if is_main():
                place.mark_finished(stage, seconds)
            wait()
            report.message(f"{stage} done in {seconds:.1f} s")
        if is_main():
            cache.remove()
        _note_times(place)
    return place


def _question(place: RunFolder, images: ImageData, config: RunConfig, *, named: bool, report: Reporter) -> None:
    """Tell and keep what names and numbers of the images say; what a full check left there before stays."""
    if (place.path / CHECK).exists():
        return
    found = quick_check(images, config.data if named else None, validation_share=config.validation_share)
    place.write_json(CHECK, found.to_dict())
    for finding in found.findings:
        if finding.level != "note":
            report.message(f"data: {finding.title}. {finding.cure}")
    report.message("data: `qpm-vision check` also looks for copies, contradictions and what gives classes away")


@contextmanager
def _begin(
    place: RunFolder, config: RunConfig, images: ImageData, identity: dict[str, Any], redo: str | None
) -> Iterator[None]:
    """Write what a run is, with the folder locked as long as the run works in it."""
    if not place.has_run:
        RunFolder.create(place.path, config.to_dict())
    with place.lock():
        if redo is not None:
            place.forget_from(redo)
            if STAGES.index(redo) <= STAGES.index("statistics"):
                forget_extraction(place.path / _SUMS)
        place.write_config(config.to_dict())
        place.write_json("data.json", identity)
        place.write_csv("skipped.csv", ["path", "reason"], [[str(item.path), item.reason] for item in images.skipped])
        yield


@plain_torch()
def evaluate_run(
    run_folder: RunFolder | str | os.PathLike[str],
    data: ImageData | str | None = None,
    *,
    size: int | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> dict[str, Scores]:
    """Score the models of a run, each under the preprocessing that its checkpoint holds.

    Args:
        run_folder: A run whose fine-tuning is finished.
        data: Other images of the same classes, or what `load_data` takes; by default the data of the run. All images of
            a source that has no test set of its own are scored as test images; figures that are defined on training
            images are then left out.
        size: What the side of the images is expected to be; nothing by default.
        device: Where to compute.
        reporter: Told about progress; nobody by default.

    Returns:
        Scores of "dense" and "qpm".

    Raises:
        InvalidInputError: The classes or the cropping differ from those of the run, or its own data have changed.
        ProtocolMismatchError: The models were made for another size.
        RunFolderError: The run has no finished models, or they are damaged.
    """
    folder = run_folder if isinstance(run_folder, RunFolder) else RunFolder.open(run_folder)
    config = dataclasses.replace(RunConfig.of(folder), device=device)
    folder.require("fine-tuning", "has no finished model")
    # Of other images none are set aside for validation: nothing is trained on them.
    division = config.division if data is None else {**config.division, "validation_share": 0.0}
    images = data if isinstance(data, ImageData) else load_data(data or config.data, **division)
    identity = read_identity(folder)
    refuse_other_classes(tuple(identity["class_names"]), images.class_names)
    refuse_other_cropping(identity.get("cropping"), images.cropping)
    if data is None:
        refuse_changed_data(folder, config.data, data_identity(images))
    elif not isinstance(data, ImageData) and not images.divided:
        everything = JoinedImages(images.train, images.test)
        images = dataclasses.replace(images, train=everything.subset([]), test=everything)
    work = Work(config, folder, SilentReporter() if reporter is None else reporter, images)
    return {name: _scores(work, name, size) for name in _MODELS}


def _described(data: ImageData) -> str:
    skipped = f", {len(data.skipped)} skipped (see skipped.csv)" if data.skipped else ""
    return (
        f"{data.name}: {len(data.class_names)} classes, {len(data.train):,} training and {len(data.test):,} test images"
        + skipped
    )


# -- stages --------------------------------------------------------------------------------------------------------


def _dense(work: Work) -> None:
    backbone, preprocessing = work.untrained()
    with torch.no_grad():
        side = min(backbone.eval()(torch.zeros(1, 3, preprocessing.size, preprocessing.size)).shape[2:])
    model = work.prepared(DenseClassifier(backbone, work.n_classes))
    if side < _COARSE:
        work.report.message(
            f"note: the maps have {side} × {side} places only, so pictures cannot show exactly where a feature is; "
            "a larger size, or a backbone of a smaller stride, gives more"
        )
    if not (work.config.compile or work.folder.training_state("dense").exists()):  # compiled for it, it takes minutes
        work.tell_constant_features(model, preprocessing)
    if not work.config.dense.epochs:
        load_head(model.head, work.config.backbone, work.config.weights)
    _train(work, "dense", "dense", model, preprocessing, work.config.dense)


def _statistics(work: Work) -> None:
    model, preprocessing = work.load("dense.safetensors", DenseClassifier)
    state = work.folder.path / _SUMS
    statistics, locality = extract(
        model,
        work.data.train,
        preprocessing,
        n_classes=work.n_classes,
        batch_size=work.config.dense.batch_size,
        state=state,
        workers=work.workers,
        device=work.device,
        on_images=work.counter("statistics", len(work.data.train)),
    )
    if not is_main():
        return
    dead = statistics.dead()
    if dead.any():
        work.report.message(f"{int(dead.sum())} of {len(dead)} features never vary and are not selected")
    work.folder.write_npz(
        "statistics.npz",
        {
            "A": statistics.class_similarity(),
            "mean": statistics.mean(),
            "std": statistics.std(),
            "b": locality.bias(),
            "peak": locality.peak(),
            "edge": locality.edge(),
            "offset": locality.offset(),
            "dead": dead,
            "class_counts": statistics.class_counts(),
        },
    )
    forget_extraction(state)


def _assignment(work: Work) -> None:
    config = work.config
    work.report.message("searching the threshold of the penalties")
    problem, penalties = make_problem(config, read_statistics(work.folder), class_names=work.data.class_names)
    problem.save(work.folder.path / "problem.npz")
    work.folder.write_json(
        "threshold.json",
        {
            "threshold": penalties.threshold,
            "clique": None if penalties.clique is None else [int(feature) for feature in penalties.clique],
            "n_penalised": int(penalties.n_penalised),
            "share": float(penalties.share),
            "proven": bool(penalties.proven),
        },
    )
    result = work.solve(problem)
    gap = "no bound" if result.gap is None else f"gap {result.gap:.2%}"
    work.report.message(f"assignment by {result.solver}: objective {result.objective:.4f}, {gap}")
    idle = int((~result.weights.any(axis=0)).sum())
    if idle:
        work.report.message(f"note: {idle} of the {config.n_select} kept features describe no class; fewer would do")
    result.save(work.folder.path / "assignment.npz")


def _fine_tuning(work: Work) -> None:
    model, preprocessing = _untuned(work)
    _train(work, "fine-tuning", "qpm", model, preprocessing, work.config.fine_tuning)


def _evaluation(work: Work) -> None:
    scores = {name: _scores(work, name) for name in _MODELS}
    metrics: dict[str, Any] = {name: found.to_dict() for name, found in scores.items()}
    model, preprocessing = _untuned(work)
    untuned = ClassScores(confusions(model, work.batches(share(work.data.test), preprocessing), work.device))
    before, after = untuned.accuracy, scores["qpm"].accuracy_test
    metrics["qpm_before_fine_tuning"] = {"accuracy_test": before, "macro_accuracy_test": untuned.macro_accuracy}
    if after < before:
        work.report.message(
            f"note: fine-tuning lowered the test accuracy from {before:.1%} to {after:.1%} of all images; more "
            "epochs or another learning rate may help"
        )
    metrics["by_class"] = by_class(scores, work.data.class_names)
    result = read_assignment(work.folder)
    metrics["assignment"] = {
        "solver": result.solver,
        "status": result.status.value,
        "termination": result.termination.value,
        "objective": result.objective,
        "bound": result.bound,
        "gap": result.gap,
        **{f"objective_{name}": value for name, value in dataclasses.asdict(result.terms).items()},
    }
    if is_main():
        for name, found in scores.items():
            write_confusion(work.folder, f"confusion-{name}.csv", found.by_class, work.data.class_names)
        work.folder.write_json("metrics.json", metrics)


def _explanation(work: Work) -> None:
    model, preprocessing = work.load("qpm.safetensors", QPMClassifier)
    images = work.data.train
    # What a report would see: it takes images, not cached maps, and computes in full precision.
    watched = work.frozen is None and work.config.precision == "float32"
    onlooker = Onlooker(model, images.labels) if watched else None
    gallery: Gallery = collect_gallery(
        model,
        work.batches(images, preprocessing),
        n_classes=work.n_classes,
        n_images=len(images),
        device=work.device,
        on_images=work.counter("looking for the best images", len(images)),
        on_output=onlooker,
    )
    work.folder.write_npz("gallery.npz", gallery.to_arrays())
    if onlooker is not None:
        keep_sights(
            work.folder,
            model,
            {"train": onlooker.sight(gallery.scale), "test": _test_sight(work, model, preprocessing, gallery)},
        )
    names = feature_names(work.folder)
    similarity = np.corrcoef(read_statistics(work.folder)["A"])
    result = read_assignment(work.folder)
    with work.whole(model):
        explainer = Explainer(model, images, preprocessing, gallery, work.data.class_names, work.device, names)
        figures: dict[str, Callable[[], Figure]] = {
            "classes": lambda: plot_overview(explainer)[0],
            "comparison": lambda: plot_comparison(explainer, *closest_pair(explainer.weights, similarity))[0],
            "assignment": lambda: plot_matrix(explainer)[0],
            "convergence": lambda: draw_convergence(result),
            "confusion": lambda: draw_confusion(
                read_confusion(work.folder, "confusion-qpm.csv", work.n_classes), work.data.class_names
            ),
        }
        for name, draw in figures.items():
            again = "`--redo explanation` draws all pictures again."
            save_picture(work.folder, f"figures/{name}.png", draw, work.report, again)


def _test_sight(work: Work, model: QPMClassifier, preprocessing: Preprocessing, gallery: Gallery) -> Sight:
    images = work.data.test
    return look(
        model,
        work.batches(images, preprocessing),
        np.arange(len(images)),
        scale=gallery.scale,
        device=work.device,
        on_images=work.counter("looking at the test images", len(images)),
    )


_STAGES: dict[str, Callable[[Work], None]] = {
    "dense": _dense,
    "statistics": _statistics,
    "assignment": _assignment,
    "fine-tuning": _fine_tuning,
    "evaluation": _evaluation,
    "explanation": _explanation,
}


_BY_ALL = frozenset({"dense", "statistics", "fine-tuning", "evaluation"})
"""Stages in which all processes of a run work; in the others they wait for the first one."""

_MODELS: dict[str, type[Any]] = {"dense": DenseClassifier, "qpm": QPMClassifier}
"""Models of a run by the name of their file, which ends in .safetensors."""


# -- what stages share ---------------------------------------------------------------------------------------------


def _scores(work: Work, name: str, size: int | None = None) -> Scores:
    model, preprocessing = work.load(f"{name}.safetensors", _MODELS[name])
    if size is not None:
        require_preprocessing(preprocessing, dataclasses.replace(preprocessing, size=size))
    return work.score(name, model, preprocessing)


def _untuned(work: Work) -> tuple[QPMClassifier, Preprocessing]:
    """The interpretable model as the assignment makes it, its backbone that of the dense model."""
    dense, preprocessing = work.load("dense.safetensors", DenseClassifier)
    statistics = read_statistics(work.folder)
    result = read_assignment(work.folder)
    selected = result.selected
    model = QPMClassifier(
        dense.backbone, selected, result.weights, statistics["mean"][selected], statistics["std"][selected]
    )
    return work.prepared(model), preprocessing


def _train(
    work: Work,
    stage: str,
    name: str,
    model: Classifier,
    preprocessing: Preprocessing,
    settings: TrainingSettings,
) -> None:
    """Train the model of a stage and write it by its name, with that of the last epoch where another one was chosen."""
    folder = work.folder
    epochs = settings.for_images(len(work.data.train)).epochs

    def note(history: list[dict[str, Any]], trained: Classifier) -> None:
        if not is_main():
            return
        folder.write_history(stage, history)
        log(history[-1])
        if len(history) == epochs:
            held_out = [row.get(chosen_by(settings), 0.0) for row in history]
            last = folder.path / f"{name}-last.safetensors"
            if held_out[-1] < max(held_out):
                work.save(last, trained, preprocessing)
            else:
                last.unlink(missing_ok=True)

    if epochs:
        with epoch_log(folder.path / "tensorboard" / stage, wanted=work.config.tensorboard and is_main()) as log:
            work.train(stage, model, preprocessing, settings, state=folder.training_state(stage), on_epoch=note)
    if is_main():
        work.save(folder.path / f"{name}.safetensors", model, preprocessing)
        folder.training_state(stage).unlink(missing_ok=True)  # not needed any more


def _note_times(place: RunFolder) -> None:
    seconds = {stage: record.seconds for stage, record in place.stages().items()}
    metrics = place.read_json("metrics.json")
    place.write_json("metrics.json", {**metrics, "seconds": {**seconds, "total": round(sum(seconds.values()), 3)}})
