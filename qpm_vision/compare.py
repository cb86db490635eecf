"""QPM and its neighbours on equal terms: one dense model, one set of statistics, the same fine-tuning, the same scores.

    dense               the dense model as it is
    qpm                 features and assignment of the run's problem
    greedy              features by class similarity alone, then the best assignment
    random              random features, then the best assignment
    sldd                a sparse layer of real weights (SLDD-Model)
    qsenn               the same, quantised, in turns with fine-tuning (Q-SENN)
    qpm-no-redundancy   QPM without penalties
    qpm-no-bias         QPM without the feature bias
    qpm-no-similarity   features by penalties and bias alone; classes are then assigned by similarity, for without it
                        one assignment would be as good as another

Each method × budget × seed leaves a folder of its own, in which `scores.json` is written last:

    compare.json                                   what is compared
    n20-k5/greedy/seed-0/scores.json               figures of merit
                         model.safetensors         the fine-tuned model
                         history.csv               its epochs
                         training-0.safetensors    how far fine-tuning has come, until it is done
    n20-k5/greedy/choice.npz                       features and head (of random ones in the folder of the seed)
    compare.csv, history.csv, compare.md           everything that was asked for last, as tables
"""

from __future__ import annotations

import difflib
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qpm_opt import InvalidInputError
from qpm_vision._comparison_choices import Choices, with_head
from qpm_vision._comparison_measures import (
    epochs_to,
    head_measures,
    kept_redundancy,
    pointing_measures,
    relation_correlation,
)
from qpm_vision._comparison_table import COLUMNS, MEASURES, comparison_markdown
from qpm_vision._data_identity import data_identity
from qpm_vision._forms import NUMBER
from qpm_vision._npz import Member
from qpm_vision._preflight import refuse_changed_data
from qpm_vision._progress import Reporter, SilentReporter
from qpm_vision._spread import spread_positions
from qpm_vision._torch_state import plain_torch
from qpm_vision._work import Work
from qpm_vision.baselines import Choice, refit_q_senn
from qpm_vision.config import RunConfig
from qpm_vision.data import ImageData, ImageSet, load_data
from qpm_vision.evaluation import GROUNDING_PAIRS
from qpm_vision.faithfulness import locate_features
from qpm_vision.feature_cache import FeatureCache
from qpm_vision.metrics import structural_grounding
from qpm_vision.model import Classifier, QPMClassifier, SparseClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.training import accuracy
from qpm_vision.training_settings import TrainingSettings

__all__ = ["ABLATIONS", "METHODS", "NEIGHBOURS", "compare_run"]

NEIGHBOURS = ("dense", "qpm", "greedy", "random", "sldd", "qsenn")
"""What is compared by default."""

ABLATIONS = ("qpm-no-redundancy", "qpm-no-bias", "qpm-no-similarity")
"""QPM without one part of its objective."""

METHODS = (*NEIGHBOURS, *ABLATIONS)
"""All that can be compared."""

Q_SENN_ROUNDS = 4
"""Times that Q-SENN fits, quantises and fine-tunes, as in its paper; the epochs of fine-tuning are shared out."""

LEVEL = 0.01
"""How far below the dense model's accuracy the level lies whose epoch is told."""

_FORMAT = 1
_SETTINGS = "compare.json"
_SCORES = "scores.json"
_PROBE_IMAGES = 1000
_CHOICE = {
    "selected": Member(("features",), "i", least=0),
    "weights": Member(("classes", "features"), "fiub"),
    "seconds": Member((), "fi", least=0),
    "bias": Member(("classes",), optional=True),
}
_ROW = {
    **{f"{measure.key}?": NUMBER for measure in MEASURES},
    "method": str,
    "seed": (int, None),
    "accuracy_test": float,
    "history": [{"epoch": int}],
}

Row = dict[str, Any]


@plain_torch()
def compare_run(
    run_folder: RunFolder | str | os.PathLike[str],
    *,
    methods: Sequence[str] = NEIGHBOURS,
    seeds: int = 3,
    n_select: Sequence[int] = (),
    n_per_class: Sequence[int] = (),
    out: str | os.PathLike[str] | None = None,
    device: str = "auto",
    data: ImageData | None = None,
    reporter: Reporter | None = None,
) -> list[Row]:
    """Fine-tune and score several ways of choosing features, from the dense model of a run.

    What was finished in the folder before is not done again.

    Args:
        run_folder: A run whose statistics are finished.
        methods: Of `METHODS`.
        seeds: How often each method is fine-tuned. Seed s adds s to the seed of the run; it also draws the features of
            "random". The dense model and every other choice are the same for all seeds.
        n_select: Numbers of features to keep; that of the run by default.
        n_per_class: Numbers of features of each class, combined with each of `n_select`; that of the run by default.
        out: Where to; the folder "compare" in that of the run by default.
        device: Where to compute.
        data: The images of the run; by default those that its configuration names.
        reporter: Told about progress; nobody by default.

    Returns:
        A record for each method × seed × budget, with the keys of `COLUMNS`; None where a figure does not apply.

    Raises:
        InvalidInputError: An argument is malformed, the data have changed, or the folder holds another comparison.
        RunFolderError: The run has no statistics, or a file is damaged or in use.
        QPMError: Anything else that goes wrong on the way; what is finished stays finished.
    """
    report = SilentReporter() if reporter is None else reporter
    folder = run_folder if isinstance(run_folder, RunFolder) else RunFolder.open(run_folder)
    config = replace(RunConfig.of(folder), device=device)
    if "statistics" not in folder.stages():
        raise RunFolderError(
            f"The run in {str(folder.path)!r} must have the stages dense and statistics finished. Got "
            f"{', '.join(folder.stages()) or 'none'}; continue it with the command that began it."
        )
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise InvalidInputError(f"The 'seeds' parameter must be an integer of at least 1. Got {seeds!r}.")
    chosen = _checked_methods(methods)
    images = load_data(config.data, **config.division) if data is None else data
    refuse_changed_data(folder, config.data, data_identity(images))
    budgets = list(itertools.product(n_select or (config.n_select,), n_per_class or (config.n_per_class,)))
    comparison = _Comparison(
        Work(config, folder, report, images), RunFolder(folder.path / "compare" if out is None else out)
    )
    for budget in dict.fromkeys(budgets):
        comparison.choices.refuse_misfit(budget)
    jobs = [_Job("dense")] if "dense" in chosen else []
    jobs += [
        _Job(method, seed, *budget)
        for budget in dict.fromkeys(budgets)
        for seed in range(seeds)  # seeds outermost: a comparison that is stopped has all methods
        for method in chosen
        if method != "dense"
    ]
    comparison.begin()
    with comparison.out.lock(), report:
        return comparison.run(jobs)


def _checked_methods(methods: Sequence[str]) -> tuple[str, ...]:
    for name in methods:
        if name not in METHODS:
            close = difflib.get_close_matches(str(name), METHODS, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InvalidInputError(
                f"The 'methods' parameter must name some of {', '.join(METHODS)}. Got {name!r}.{hint}"
            )
    if not methods:
        raise InvalidInputError(f"The 'methods' parameter must name at least one of {', '.join(METHODS)}. Got none.")
    return tuple(name for name in METHODS if name in methods)


@dataclass(frozen=True)
class _Job:
    method: str
    seed: int | None = None
    n_select: int | None = None
    n_per_class: int | None = None

    @property
    def budget(self) -> tuple[int, int]:
        if self.n_select is None or self.n_per_class is None:
            raise ValueError("the dense model has no budget")
        return self.n_select, self.n_per_class

    @property
    def method_folder(self) -> Path:
        return Path("dense") if self.seed is None else Path(f"n{self.n_select}-k{self.n_per_class}") / self.method

    @property
    def folder(self) -> Path:
        return self.method_folder if self.seed is None else self.method_folder / f"seed-{self.seed}"

    def __str__(self) -> str:
        return self.folder.as_posix()


@dataclass
class _Comparison:
    """A run and the folder of its comparison."""

    work: Work
    out: RunFolder

    @cached_property
    def choices(self) -> Choices:
        """What the methods decide."""
        return Choices(self.work, self.out.path / "features.npy")

    def begin(self) -> None:
        """Note what is compared, or see that the folder holds the same comparison.

        Raises:
            RunFolderError: The folder holds something else.
        """
        config = self.work.config
        settings = {
            "format": _FORMAT,
            "dense": self.work.folder.digest("dense.safetensors"),
            **{key: config.to_dict()[key] for key in ("fine_tuning", "threshold", "solver", "solve_seconds", "seed")},
        }
        path = self.out.path
        try:
            names = [item.name for item in path.iterdir() if not item.name.startswith(".")] if path.exists() else []
        except OSError as error:
            raise RunFolderError(
                f"Cannot use {str(path)!r} for a comparison: {error.strerror or error}. Choose a new or empty folder."
            ) from error
        if _SETTINGS in names:
            known = self.out.read_json(_SETTINGS)
            changed = [key for key in settings if known.get(key) != settings[key]]
            if changed:
                raise InvalidInputError(
                    f"The comparison in {str(path)!r} was begun with another {' and '.join(changed)}. Delete it, or "
                    "choose another folder with '--out'."
                )
        elif names:
            raise RunFolderError(
                f"The folder {str(path)!r} holds no comparison, but {', '.join(sorted(names)[:3])}. Choose a new or "
                "empty folder with '--out'."
            )
        self.out.write_json(_SETTINGS, settings)

    # -- all of it ---------------------------------------------------------------------------------------------------

    def run(self, jobs: Sequence[_Job]) -> list[Row]:
        """Do the jobs that are not done, and write the tables after each."""
        report = self.work.report
        finished = [job for job in jobs if self._is_done(job)]
        if finished:
            report.message(f"{self.out.path}: {len(finished)} of {len(jobs)} already finished")
        rows: dict[_Job, Row] = {job: self._read(job) for job in finished}
        cache = FeatureCache(self.out.path / "maps")
        try:
            if len(rows) < len(jobs):
                self.work.cache_maps(cache)
            for job in jobs:
                if job in rows:
                    continue
                report.message(f"{job} …")
                began = time.perf_counter()
                self._do(job)
                rows[job] = self._read(job)
                report.message(
                    f"{job} done in {time.perf_counter() - began:.1f} s, test accuracy (all images) "
                    f"{rows[job]['accuracy_test']:.1%} ({len(rows)} of {len(jobs)})"
                )
                self._write_tables([rows[known] for known in jobs if known in rows])
        except KeyboardInterrupt:
            report.message(f"{len(rows)} of {len(jobs)} finished; the same command continues from there")
            raise
        finally:
            self.choices.scratch.unlink(missing_ok=True)
        cache.remove()
        listed = [rows[job] for job in jobs]
        self._write_tables(listed)
        return [{name: row.get(name) for name in COLUMNS} for row in listed]

    def _is_done(self, job: _Job) -> bool:
        return (self.out.path / job.folder / _SCORES).exists()

    def _read(self, job: _Job) -> Row:
        return self.out.read_json(f"{job.folder.as_posix()}/{_SCORES}", _ROW)

    def _write_tables(self, rows: Sequence[Row]) -> None:
        self.out.write_csv("compare.csv", COLUMNS, ([row.get(name) for name in COLUMNS] for row in rows))
        keys = ("method", "seed", "n_select", "n_per_class")
        epochs = [({key: row[key] for key in keys} | epoch) for row in rows for epoch in row["history"]]
        self._write_epochs("history.csv", epochs, keys)
        self.out.write("compare.md", lambda stream: stream.write(comparison_markdown(rows).encode()))

    def _write_epochs(self, name: str, epochs: Sequence[Row], columns: Sequence[str] = ()) -> None:
        """A table of all that is told about epochs; the given columns come first, and are there without any epoch."""
        every = list(dict.fromkeys([*columns, *(key for epoch in epochs for key in epoch)]))
        self.out.write_csv(name, every, ([epoch.get(key) for key in every] for epoch in epochs))

    # -- one method --------------------------------------------------------------------------------------------------

    def _do(self, job: _Job) -> None:
        if job.seed is None:
            self._score_dense(job)
            return
        choice, seconds = self._choice(job)
        model, preprocessing = self.choices.model(choice)
        before = accuracy(model, self.work.batches(self.work.data.test, preprocessing), self.work.device)
        whole = len(self._probe) == len(self.work.data.test)
        history = [{"epoch": 0, "accuracy_probe": before if whole else self._probed(model, preprocessing)}]
        settings = self.work.config.fine_tuning.for_images(len(self.work.data.train))
        if job.method == "qsenn":
            model = self._in_rounds(job, model, choice.selected, preprocessing, settings, history)
        else:
            self._train(job, model, preprocessing, settings, history)
        measured = self._scores(job, model, preprocessing)
        target = self.out.path / job.folder
        target.mkdir(parents=True, exist_ok=True)
        self.work.save(target / "model.safetensors", model, preprocessing)
        self._finish(
            job,
            {
                **measured,
                "accuracy_before": before,
                "epochs_to_level": epochs_to(self._level - 1e-9, history),
                "seconds_choice": round(seconds, 3),
                "seconds_training": sum(row.get("seconds", 0.0) + row.get("refit_seconds", 0.0) for row in history),
                "history": history,
            },
        )

    def _score_dense(self, job: _Job) -> None:
        model, preprocessing = self.choices.dense()
        alive = np.flatnonzero(~self.choices.statistics["dead"])
        weights = model.weight.detach().cpu().double().numpy()
        self._finish(
            job,
            {
                **self.work.score("dense", model, preprocessing).to_dict(),
                "relation_correlation": relation_correlation(weights, self.work.data.class_relation),
                "kept_redundancy": kept_redundancy(self.choices.redundancy, alive),
                "seconds_training": self.work.folder.stages()["dense"].seconds,
                "history": [],
            },
        )

    def _finish(self, job: _Job, figures: Row) -> None:
        row = {
            "method": job.method,
            "seed": job.seed,
            "n_select": job.n_select,
            "n_per_class": job.n_per_class,
            **figures,
        }
        if row["history"]:
            self._write_epochs(f"{job.folder.as_posix()}/history.csv", row["history"])
        self.out.write_json(f"{job.folder.as_posix()}/{_SCORES}", row)
        for state in (self.out.path / job.folder).glob("training-*.safetensors"):
            state.unlink()

    def _scores(self, job: _Job, model: QPMClassifier | SparseClassifier, preprocessing: Preprocessing) -> Row:
        scores = self.work.score(str(job), model, preprocessing).to_dict()
        weights = model.weight.cpu().double().numpy()
        relation = self.work.data.class_relation
        if relation is not None and isinstance(model, SparseClassifier):
            scores["structural_grounding"] = structural_grounding(weights, relation, GROUNDING_PAIRS)
        selected = model.selected.cpu().numpy()
        return {
            **scores,
            **head_measures(self.choices.problem(job.budget), self.choices.redundancy, relation, selected, weights),
            **self._pointing(job, model, preprocessing),
        }

    def _pointing(self, job: _Job, model: QPMClassifier | SparseClassifier, preprocessing: Preprocessing) -> Row:
        """Whether features are at the parts that they stand for, where the data say what and where those are."""
        test, parts = self.work.data.test, self.work.data.parts
        if parts is None:
            return {}
        found = locate_features(
            model,
            test,
            self.work.batches(test, preprocessing),
            preprocessing,
            parts,
            seed=self.work.config.seed,
            on_images=self.work.counter(f"looking where features of {job} are", len(test)),
        )
        return pointing_measures(found)

    # -- training ----------------------------------------------------------------------------------------------------

    def _train(
        self,
        job: _Job,
        model: Classifier,
        preprocessing: Preprocessing,
        settings: TrainingSettings,
        history: list[Row],
        round_: int = 0,
    ) -> None:
        done = int(history[-1]["epoch"])

        def look(rows: list[Row], trained: Classifier) -> None:
            began = time.perf_counter()
            rows[-1]["accuracy_probe"] = self._probed(trained, preprocessing)
            rows[-1]["probe_seconds"] = round(time.perf_counter() - began, 3)

        rows = self.work.train(
            str(job),
            model,
            preprocessing,
            settings,
            state=self.out.path / job.folder / f"training-{round_}.safetensors",
            seed=self._seed(job) + 10_000 * round_,  # each round has an order of its own
            on_epoch=look,
        )
        history += ({**row, "epoch": done + row["epoch"]} for row in rows)

    def _in_rounds(
        self,
        job: _Job,
        model: QPMClassifier | SparseClassifier,
        selected: npt.NDArray[np.int64],
        preprocessing: Preprocessing,
        settings: TrainingSettings,
        history: list[Row],
    ) -> QPMClassifier | SparseClassifier:
        """Fine-tune, fit and quantise in turns, in as many epochs together as other methods have."""
        shares = [len(part) for part in np.array_split(np.arange(settings.epochs), Q_SENN_ROUNDS) if len(part)]
        for round_, epochs in enumerate(shares):
            began = time.perf_counter()
            if round_:
                pooled = self.choices.kept_features(str(job), model, preprocessing)
                again = refit_q_senn(selected, pooled, job.budget[1])
                model = with_head(model.backbone, again, (pooled.mean, pooled.std)).to(self.work.device)
            refit = time.perf_counter() - began
            first = len(history)
            self._train(job, model, preprocessing, replace(settings, epochs=epochs, least_steps=0), history, round_)
            history[first]["refit_seconds"] = round(refit, 3) if round_ else 0.0
        return model

    def _probed(self, model: Classifier, preprocessing: Preprocessing) -> float:
        return accuracy(model, self.work.batches(self._probe, preprocessing), self.work.device)

    @cached_property
    def _probe(self) -> ImageSet:
        """Test images that are looked at after each epoch: all, or some from everywhere in them."""
        test = self.work.data.test
        return test.subset(spread_positions(len(test), _PROBE_IMAGES))

    @cached_property
    def _level(self) -> float:
        return self._probed(*self.choices.dense()) - LEVEL

    # -- choices -----------------------------------------------------------------------------------------------------

    def _choice(self, job: _Job) -> tuple[Choice, float]:
        """Features and head of a job, and the seconds that they took; kept in a file, because seeds share them."""
        name = f"{(job.folder if job.method == 'random' else job.method_folder).as_posix()}/choice.npz"
        if not (self.out.path / name).exists():
            choice, seconds = self.choices.choose(job.method, job.budget, self._seed(job))
            arrays: dict[str, npt.ArrayLike] = {
                "selected": choice.selected,
                "weights": choice.weights,
                "seconds": seconds,
            }
            if choice.bias is not None:
                arrays["bias"] = choice.bias
            self.out.write_npz(name, arrays)
        data = self.out.read_npz(name, _CHOICE)
        return Choice(data["selected"], data["weights"], data.get("bias")), float(data["seconds"])

    def _seed(self, job: _Job) -> int:
        return self.work.config.seed + int(job.seed or 0)
