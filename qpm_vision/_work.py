"""What the stages of a run and a comparison share: models of the run folder, batches, training, solving, scoring."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import (
    Assignment,
    AssignmentProblem,
    InvalidInputError,
    Penalties,
    QPMError,
    available_processors,
    penalties_from_similarity,
    solve_assignment,
    verify,
)
from qpm_vision._forms import NUMBER
from qpm_vision._npz import Member
from qpm_vision._preflight import pick_device
from qpm_vision._progress import Reporter
from qpm_vision._row_file import mapped_rows
from qpm_vision._spread import spread_positions
from qpm_vision.backbones import Backbone, adapter_alone, build_backbone, frozen_part, with_frozen
from qpm_vision.checkpoint import load_checkpoint, save_checkpoint
from qpm_vision.config import MOST_WORKERS, RunConfig
from qpm_vision.data import ImageData, ImageSet, make_loader
from qpm_vision.distributed import share, world_size
from qpm_vision.evaluation import Scores, evaluate
from qpm_vision.feature_cache import FeatureCache
from qpm_vision.model import Classifier, DenseClassifier, QPMClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.statistics import feature_redundancy
from qpm_vision.training import chosen_by, train
from qpm_vision.training_settings import TrainingSettings

__all__ = [
    "MOST_IN_MEMORY",
    "Work",
    "live_features",
    "make_problem",
    "read_assignment",
    "read_problem",
    "read_statistics",
    "read_threshold",
]

MOST_IN_MEMORY = 1 << 30
"""Bytes of pooled features that are kept in memory; more are mapped from a file."""

_SAMPLED = 64
"""Training images that are looked at before the training."""

_OF_FEATURE = Member(("features",))
_STATISTICS = {
    "A": Member(("classes", "features")),
    "mean": _OF_FEATURE,
    "std": Member(("features",), least=0.0),
    "b": _OF_FEATURE,
    "peak": _OF_FEATURE,
    "edge": _OF_FEATURE,
    "offset": Member(("features",), optional=True),
    "dead": Member(("features",), "b"),
    "class_counts": Member(("classes",), "iu", least=0),
}

_log = logging.getLogger(__name__)


def live_features(statistics: Mapping[str, npt.NDArray[Any]], n_select: int) -> npt.NDArray[np.int64]:
    """Features that vary over the training images.

    Raises:
        InvalidInputError: They are fewer than `n_select`.
    """
    dead = statistics["dead"]
    alive = np.flatnonzero(~dead)
    if n_select > len(alive):
        raise InvalidInputError(
            f"The 'n_select' parameter must be at most the {len(alive)} features that vary over the training images "
            f"({int(dead.sum())} of {len(dead)} do not). Got {n_select}; lower it, which keeps what is trained "
            f"(`--redo assignment --n-select {len(alive)}`), or use another backbone."
        )
    return alive


def make_problem(
    config: RunConfig, statistics: Mapping[str, npt.NDArray[Any]], *, class_names: Sequence[str]
) -> tuple[AssignmentProblem, Penalties]:
    """The assignment problem of a run, and the penalties in it.

    Args:
        config: Says `n_select`, `n_per_class`, `threshold` and `seed`.
        statistics: A (n_classes, n_features), b (n_features,) and dead (n_features,) of a run.
        class_names: One for each class.

    Raises:
        InvalidInputError: Too few features vary.
    """
    live_features(statistics, config.n_select)
    penalties = penalties_from_similarity(
        feature_redundancy(statistics["A"]), n_select=config.n_select, threshold=config.threshold, seed=config.seed
    )
    problem = AssignmentProblem(
        statistics["A"],
        penalties,
        statistics["b"],
        n_select=config.n_select,
        n_per_class=config.n_per_class,
        excluded_features=np.flatnonzero(statistics["dead"]),
        class_labels=class_names,
    )
    return problem, penalties


def read_statistics(folder: RunFolder) -> dict[str, npt.NDArray[Any]]:
    """The statistics of a run: A (n_classes, n_features), class_counts (n_classes,), the others (n_features,).

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    return folder.read_npz("statistics.npz", _STATISTICS)


_THRESHOLD = {
    "threshold": NUMBER,
    "clique": ([int], None),
    "n_penalised": int,
    "share": float,
    "proven": bool,
}


def read_threshold(folder: RunFolder) -> dict[str, Any]:
    """What the threshold of a run's penalties is, and how it was found.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    return folder.read_json("threshold.json", _THRESHOLD)


def read_problem(folder: RunFolder) -> AssignmentProblem:
    """The assignment problem of a run.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    try:
        return AssignmentProblem.load(folder.path / "problem.npz")
    except InvalidInputError as error:
        raise RunFolderError(f"{error} Train again with `--redo assignment`.") from error


def read_assignment(folder: RunFolder) -> Assignment:
    """The assignment of a run.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    try:
        return Assignment.load(folder.path / "assignment.npz")
    except InvalidInputError as error:
        raise RunFolderError(f"{error} Train again with `--redo assignment`.") from error


@dataclass
class Work:
    """A run folder with the data and the device; models are loaded from the folder when they are asked for.

    Attributes:
        config: What to do.
        folder: The run folder.
        report: Told about progress.
        data: The images; after `cache_maps` those of a frozen backbone with their maps, which batches then hold.
        frozen: The backbone whose maps are cached; models then have the adapter alone. None: models take images.
    """

    config: RunConfig
    folder: RunFolder
    report: Reporter
    data: ImageData
    frozen: Backbone | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.data.class_names)

    @cached_property
    def device(self) -> torch.device:
        """Where to compute."""
        device = pick_device(self.config.device)
        _log.info("computing on %s", device)
        return device

    @property
    def workers(self) -> int:
        """Processes that load images."""
        if self.config.workers is not None:
            return self.config.workers
        # A processor is busy computing; beside a GPU it is idle, and a GPU waits for a single loading process.
        if self.device.type != "cuda":
            return 0
        return min(MOST_WORKERS, available_processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def untrained(self) -> tuple[Backbone, Preprocessing]:
        """The backbone that the run begins with, and the preprocessing of its images."""
        torch.manual_seed(self.config.seed)
        backbone = build_backbone(
            self.config.backbone,
            weights=self.config.weights,
            size=self.config.size,
            adapter=self.config.adapter,
        )
        preprocessing = backbone.preprocessing
        if self.config.size is not None:
            preprocessing = replace(preprocessing, size=self.config.size)
        return backbone, preprocessing

    def cache_maps(self, cache: FeatureCache) -> None:
        """From now on read the maps of a frozen backbone in place of images; nothing where none is frozen.

        All processes must ask for it.
        """
        if self.config.adapter is None or self.frozen is not None:
            return
        if "dense" in self.folder.stages():
            model, preprocessing = self.load("dense.safetensors", DenseClassifier)
            backbone: Backbone = model.backbone
        else:
            backbone, preprocessing = self.untrained()
        frozen = frozen_part(backbone)
        if frozen is None:
            raise RunFolderError(
                f"The dense model in {str(self.folder.path)!r} must have an adapter behind a frozen backbone. Got one "
                "without; train again with `--redo dense`."
            )
        frozen.precision = getattr(torch, self.config.precision)
        self.data = cache.images(
            self.data,
            frozen,
            preprocessing,
            report=self.report,
            device=self.device,
            batch_size=self.config.dense.batch_size,
            workers=self.workers,
        )
        self.frozen = frozen

    def load(self, name: str, kind: type[Any]) -> tuple[Any, Preprocessing]:
        """A model of the folder, on the device, and its preprocessing.

        Raises:
            RunFolderError: The file is missing, damaged or holds another kind of model.
        """
        stage = "dense" if name.startswith("dense") else "fine-tuning"
        try:
            model, preprocessing, _ = load_checkpoint(self.folder.path / name)
        except QPMError as error:
            raise RunFolderError(f"{error} Train again with `--redo {stage}`.") from error
        if not isinstance(model, kind):
            raise RunFolderError(
                f"The file {str(self.folder.path / name)!r} must hold a {kind.__name__}. Got a {type(model).__name__}; "
                f"train again with `--redo {stage}`."
            )
        return self.prepared(model), preprocessing

    def prepared(self, model: Any) -> Any:
        """A model on the device, its backbone computing in the precision of the run, compiled if that is wanted.

        Where maps are cached, it takes them in place of images.
        """
        if self.frozen is not None:
            model.backbone = adapter_alone(model.backbone)
        model.backbone.precision = getattr(torch, self.config.precision)
        if self.config.compile:
            model.backbone.module.compile()
        return model.to(self.device)

    @contextmanager
    def whole(self, model: Classifier) -> Iterator[None]:
        """Let a model take images, also where maps are cached, as long as the block lasts."""
        backbone = model.backbone
        if self.frozen is not None:
            model.backbone = with_frozen(self.frozen, backbone)
        try:
            yield
        finally:
            model.backbone = backbone

    def save(self, path: str | os.PathLike[str], model: Classifier, preprocessing: Preprocessing) -> None:
        """Write a model, whole, with the names of the classes and the configuration."""
        with self.whole(model):
            save_checkpoint(
                path,
                model,
                preprocessing,
                {"class_names": list(self.data.class_names), "config": self.config.to_dict()},
            )

    def batches(self, images: ImageSet, preprocessing: Preprocessing) -> Iterable[tuple[Tensor, Tensor]]:
        """Un-augmented batches in order; none of no images."""
        if not len(images):
            return []
        loader: Iterable[tuple[Tensor, Tensor]] = make_loader(
            images,
            preprocessing.transform(),
            batch_size=self.config.dense.batch_size,
            workers=self.workers,
            pinned=self.device.type == "cuda",
        )
        return loader

    def tell_constant_features(self, model: Classifier, preprocessing: Preprocessing) -> None:
        """Say before the training where fewer features than are to be kept tell sample images apart.

        Training may wake others, so that this is no error.
        """
        images = self.data.train
        sample = images.subset(spread_positions(len(images), _SAMPLED))
        model.eval()
        with torch.no_grad():
            features = torch.cat(
                [
                    model(pixels.to(self.device)).features.float()
                    for pixels, _ in make_loader(
                        sample, preprocessing.transform(), batch_size=self.config.dense.batch_size
                    )
                ]
            )
        alive = int((features.amax(dim=0) > features.amin(dim=0)).sum())
        if alive < self.config.n_select:
            self.report.message(
                f"note: before training only {alive} of {features.shape[1]} features differ between {len(sample)} "
                f"sample images; unless training wakes others, {self.config.n_select} cannot be kept (--n-select)"
            )

    def counter(self, task: str, total: int) -> Callable[[int], None]:
        """A function that tells the reporter how many of `total` are done, from what this process has done."""
        return lambda done: self.report.advance(task, min(done * world_size(), total), total)

    def solve(self, problem: AssignmentProblem) -> Assignment:
        """Solve with the solver and the time limit of the run.

        Raises:
            QPMError: The solver returned something invalid.
        """
        limit = self.config.solve_seconds
        result = solve_assignment(
            problem,
            solver=self.config.solver,
            time_limit=limit,
            seed=self.config.seed,
            progress=None
            if limit is None
            else lambda state: self.report.advance("solving", min(int(state.time), int(limit)), int(limit)),
        )
        checked = verify(problem, result)
        if not checked.ok:
            raise QPMError(
                f"The solver {result.solver!r} returned an invalid assignment; please report this.\n{checked}"
            )
        return result

    def train(
        self,
        task: str,
        model: Classifier,
        preprocessing: Preprocessing,
        settings: TrainingSettings,
        *,
        state: Path,
        seed: int | None = None,
        on_epoch: Callable[[list[dict[str, Any]], Classifier], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Train on the training images.

        Args:
            task: What to call it.
            model: Trained in place.
            preprocessing: Of the images.
            settings: How.
            state: Where the training keeps how far it has come; to be removed when the model is safe.
            seed: That of the run by default.
            on_epoch: Called after each epoch with the history so far and the model.

        Returns:
            The history, a row for each epoch.
        """
        settings = settings.for_images(len(self.data.train))

        def tell(history: list[dict[str, Any]], trained: Classifier) -> None:
            if on_epoch is not None:
                on_epoch(history, trained)
            row = history[-1]
            measure = chosen_by(settings)
            held_out = row.get(measure)
            self.report.result(
                f"{task}, epoch {row['epoch']}/{settings.epochs}: loss {row['loss']:.4f}, "
                f"training accuracy (all images) {row['accuracy']:.1%}, "
                + ("" if held_out is None else f"{measure.replace('_', ' ')} {held_out:.1%}, ")
                + f"{row['seconds']:.1f} s",
                last=row["epoch"] == settings.epochs,
            )

        try:
            return train(
                model,
                self.data.train,
                settings,
                preprocessing=preprocessing,
                device=self.device,
                seed=self.config.seed if seed is None else seed,
                workers=self.workers,
                micro_batch=self.config.micro_batch,
                validation=self.data.validation,
                state=state,
                on_epoch=tell,
                progress=lambda done, total, detail: self.report.advance(task, done, total, detail),
            )
        except KeyboardInterrupt as stop:
            if str(stop):  # it ended behind a step, and says which
                self.report.message(f"{task} {stop}")
            raise

    def score(self, task: str, model: Classifier, preprocessing: Preprocessing) -> Scores:
        """All figures of merit; those of training images where there are any. All processes must ask for them."""
        data = self.data
        return evaluate(
            model,
            self.batches(share(data.train), preprocessing) if len(data.train) else None,
            self.batches(share(data.test), preprocessing),
            n_train=len(data.train),
            class_relation=data.class_relation,
            binary=isinstance(model, QPMClassifier),
            seed=self.config.seed,
            device=self.device,
            on_images=self.counter(f"evaluating {task}", len(data.train) + len(data.test)),
        )

    def pooled(
        self, task: str, model: Classifier, preprocessing: Preprocessing, n_features: int, scratch: Path | None = None
    ) -> npt.NDArray[np.float32]:
        """Pooled features of the training images as the model gives them, (n_images, n_features).

        Args:
            task: What to call it.
            model: In evaluation mode afterwards.
            preprocessing: Of the images.
            n_features: How many features the model gives.
            scratch: A .npy file to map into memory where the features take more than `MOST_IN_MEMORY`; None to keep
                them in memory anyway.
        """
        shape = (len(self.data.train), n_features)
        values: npt.NDArray[np.float32]
        if scratch is not None and 4 * math.prod(shape) > MOST_IN_MEMORY:
            values = mapped_rows(scratch, shape)
        else:
            values = np.empty(shape, dtype=np.float32)
        tell = self.counter(f"features of {task}", shape[0])
        done = 0
        model.eval()
        with torch.no_grad():
            for images, _ in self.batches(self.data.train, preprocessing):
                values[done : done + len(images)] = model(images.to(self.device)).features.float().cpu().numpy()
                done += len(images)
                tell(done)
        return values
