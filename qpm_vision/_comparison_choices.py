"""The choices that a comparison makes from the dense model and the statistics of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qpm_opt import Assignment, AssignmentProblem, Termination
from qpm_vision._preflight import refuse_few_sets
from qpm_vision._work import Work, live_features, make_problem, read_statistics
from qpm_vision.backbones import Backbone
from qpm_vision.baselines import (
    Choice,
    PooledFeatures,
    assign_distinct,
    choose_greedily,
    choose_randomly,
    choose_sldd,
    q_senn_of,
)
from qpm_vision.model import DenseClassifier, QPMClassifier, SparseClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.statistics import feature_redundancy

__all__ = ["Choices", "Statistics", "with_head"]

Budget = tuple[int, int]
"""n_select and n_per_class."""

Statistics = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Mean and standard deviation of features, each (n_features,)."""

_TIE_BREAK = 1e-6


def with_head(backbone: Backbone, choice: Choice, statistics: Statistics) -> QPMClassifier | SparseClassifier:
    """A backbone with the head of a choice.

    Args:
        backbone: Kept, not copied.
        choice: Features and head.
        statistics: Of the selected features, in their order.
    """
    if choice.bias is None:
        return QPMClassifier(backbone, choice.selected, choice.weights, *statistics)
    return SparseClassifier(backbone, choice.selected, choice.weights, choice.bias, *statistics)


@dataclass
class Choices:
    """What each method decides before fine-tuning.

    Attributes:
        work: The run.
        scratch: A .npy file for pooled features of the dense model that are too many for the memory.
    """

    work: Work
    scratch: Path
    _problems: dict[Budget, AssignmentProblem] = field(default_factory=dict)
    _sparse: dict[Budget, tuple[Choice, float]] = field(default_factory=dict)

    @cached_property
    def statistics(self) -> dict[str, npt.NDArray[Any]]:
        """Those of the run."""
        return read_statistics(self.work.folder)

    @cached_property
    def redundancy(self) -> npt.NDArray[np.float64]:
        """R, (n_features, n_features)."""
        return feature_redundancy(self.statistics["A"])

    def refuse_misfit(self, budget: Budget) -> None:
        """Raise where a budget does not fit the run."""
        replace(self.work.config, n_select=budget[0], n_per_class=budget[1])
        live_features(self.statistics, budget[0])
        refuse_few_sets(*budget, self.work.n_classes)

    def dense(self) -> tuple[DenseClassifier, Preprocessing]:
        """A fresh copy of the dense model, because fine-tuning changes its backbone."""
        return self.work.load("dense.safetensors", DenseClassifier)

    def model(self, choice: Choice) -> tuple[QPMClassifier | SparseClassifier, Preprocessing]:
        """The model of a choice before fine-tuning."""
        dense, preprocessing = self.dense()
        statistics = (self.statistics["mean"][choice.selected], self.statistics["std"][choice.selected])
        return with_head(dense.backbone, choice, statistics).to(self.work.device), preprocessing

    def problem(self, budget: Budget) -> AssignmentProblem:
        """The problem of QPM for a budget; its threshold depends on the number of features."""
        if budget not in self._problems:
            if self._was_solved(budget):
                problem = AssignmentProblem.load(self.work.folder.path / "problem.npz")
            else:
                self.work.report.message(f"searching the threshold of the penalties for {budget[0]} features")
                config = replace(self.work.config, n_select=budget[0], n_per_class=budget[1])
                problem, _ = make_problem(config, self.statistics, class_names=self.work.data.class_names)
            self._problems[budget] = problem
        return self._problems[budget]

    def choose(self, method: str, budget: Budget, seed: int) -> tuple[Choice, float]:
        """The choice of a method and the seconds that it took; those of the run where the run made it.

        Args:
            method: A method of few features.
            budget: n_select and n_per_class.
            seed: Of the draw of "random".

        Raises:
            QPMError: The solver found nothing.
        """
        stages = self.work.folder.stages()
        if method == "qpm" and self._was_solved(budget):
            return _binary(Assignment.load(self.work.folder.path / "assignment.npz")), stages["assignment"].seconds
        if method in ("sldd", "qsenn"):
            choice, seconds = self._sldd(budget)
            return (choice if method == "sldd" else q_senn_of(choice)), seconds
        began = time.perf_counter()
        choice = self._chosen(method, budget, seed)
        return choice, time.perf_counter() - began

    def _sldd(self, budget: Budget) -> tuple[Choice, float]:
        """The choice of the SLDD-Model, and its seconds, with which each method that builds on it is charged."""
        if budget not in self._sparse:
            features, extra = self._dense_features
            began = time.perf_counter()
            self._sparse[budget] = choose_sldd(features, *budget), extra + time.perf_counter() - began
        return self._sparse[budget]

    def _chosen(self, method: str, budget: Budget, seed: int) -> Choice:
        A = self.statistics["A"]
        if method == "greedy":
            return choose_greedily(A, live_features(self.statistics, budget[0]), *budget, seed=self.work.config.seed)
        if method == "random":
            return choose_randomly(A, live_features(self.statistics, budget[0]), *budget, seed=seed)
        choice = _binary(self.work.solve(_CHANGED[method](self.problem(budget))))
        if method == "qpm-no-similarity":
            return assign_distinct(A, choice.selected, budget[1], seed=self.work.config.seed)
        return choice

    def _was_solved(self, budget: Budget) -> bool:
        config = self.work.config
        return budget == (config.n_select, config.n_per_class) and "assignment" in self.work.folder.stages()

    @cached_property
    def _dense_features(self) -> tuple[PooledFeatures, float]:
        """Pooled training features of the dense model, and the seconds that they took."""
        began = time.perf_counter()
        model, preprocessing = self.dense()
        values = self.work.pooled("dense", model, preprocessing, model.backbone.n_features, self.scratch)
        features = self._standardised(values, (self.statistics["mean"], self.statistics["std"]))
        return features, time.perf_counter() - began

    def kept_features(
        self, task: str, model: QPMClassifier | SparseClassifier, preprocessing: Preprocessing
    ) -> PooledFeatures:
        """Pooled features of the training images as a model of few features has them by now, in memory."""
        values = self.work.pooled(task, model, preprocessing, len(model.selected))
        return self._standardised(values, (values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)))

    def _standardised(self, values: npt.NDArray[np.float32], statistics: Statistics) -> PooledFeatures:
        labels = np.asarray(self.work.data.train.labels)
        return PooledFeatures(values, labels, *statistics, self.work.n_classes, self.work.device)


def _binary(result: Assignment) -> Choice:
    if result.termination is Termination.INTERRUPTED:  # a solver keeps what it has; half a search is no comparison
        raise KeyboardInterrupt
    return Choice(result.selected.astype(np.int64), result.weights.astype(np.float64))


_CHANGED: dict[str, Callable[[AssignmentProblem], AssignmentProblem]] = {
    "qpm": lambda problem: problem,
    "qpm-no-redundancy": lambda problem: problem.replaced(redundancy=None),
    "qpm-no-bias": lambda problem: problem.replaced(feature_bias=None),
    # Not nothing: features without any similarity would count as dead.
    "qpm-no-similarity": lambda problem: problem.replaced(class_similarity=problem.class_similarity * _TIE_BREAK),
}
