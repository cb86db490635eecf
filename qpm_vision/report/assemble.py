"""From what was found and seen to the entries of a page: counts, relations, costs; no model and no images needed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from qpm_opt import Assignment, AssignmentProblem
from qpm_vision.config import RunConfig
from qpm_vision.explain.colours import feature_colours
from qpm_vision.explain.matrix import matrix_order
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.report import costs, kinship
from qpm_vision.report.activity import correlations, histogram, separation
from qpm_vision.report.confusion import Confusion, confused_pairs, confusions
from qpm_vision.report.contents import (
    ClassEntry,
    FeatureEntry,
    HeatMapTest,
    ImageEntry,
    MapFormat,
    Optimisation,
    Report,
)
from qpm_vision.report.findings import find
from qpm_vision.report.pictures import LEVELS, Picture, thumbnail_format
from qpm_vision.report.protocol import metrics, protocol
from qpm_vision.report.selection import Selection
from qpm_vision.report.sight import Sight

__all__ = ["Material", "assemble"]

_NEAREST = 6
_SWAPS = 4
_MOST_PAIRS = 300
"""Pairs of classes that one feature tells apart, to list."""
_MOST_POINTS = 300
"""Points of a solver's trace, to draw."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a page is made of.

    Attributes:
        config: Of the run.
        identity: Contents of `data.json`.
        origin: Which run it was steered from, and how; None: from none.
        scores: Contents of `metrics.json`.
        threshold: Contents of `threshold.json`.
        problem: What was solved.
        assignment: What was found.
        preprocessing: Of the models.
        feature_names: Names that people gave, by numbers.
        class_names: One for each class.
        n_train: (n_classes,) training images.
        split: "train" or "test": where the images come from.
        seen: What the model says about these images, or an even sample of them.
        tested: What it says about all test images.
        pictured: Classes with pictures.
        selection: Rows of `seen` to show.
        image_names: A name for each image shown.
        pictures: A picture for each.
        side: Pixels of a thumbnail.
        faithfulness: Whether heat maps say what decides.
        check: Contents of `check.json`; None where there is none.
    """

    config: RunConfig
    identity: dict[str, Any]
    origin: str | None
    scores: dict[str, Any]
    threshold: dict[str, Any]
    problem: AssignmentProblem
    assignment: Assignment
    preprocessing: Preprocessing
    feature_names: Mapping[int, str]
    class_names: Sequence[str]
    n_train: npt.NDArray[np.int64]
    split: str
    seen: Sight
    tested: Sight
    pictured: npt.NDArray[np.int64]
    selection: Selection
    image_names: Sequence[str]
    pictures: list[Picture]
    side: int
    faithfulness: HeatMapTest
    check: dict[str, Any] | None


def assemble(material: Material) -> Report:
    """Make the entries of a page."""
    weights = material.assignment.weights
    seen, tested, selection = material.seen, material.tested, material.selection
    place = {row: number for number, row in enumerate(selection.rows())}
    mistakes = confusions(tested.labels, tested.predicted)
    # Over all features of the backbone: among classes that share as many kept ones, the more similar one is nearer.
    similarity = correlations(material.problem.class_similarity.T)
    correlation = correlations(seen.contributions)
    apart = _by_confusion(kinship.pairs_one_feature_apart(weights), mistakes, similarity)
    features = _features(material, correlation, place)
    _, height, width = seen.average.shape
    class_order, feature_order = matrix_order(weights)
    swaps = costs.swaps(material.problem, material.assignment, _SWAPS)
    classes = _classes(material, similarity, swaps, place)
    return Report(
        title=material.identity["name"],
        made=datetime.now(UTC).date().isoformat(),
        version=importlib.metadata.version("qpm"),
        split=material.split,
        n_train=material.identity["n_train"],
        n_test=material.identity["n_test"],
        n_looked=len(seen.labels),
        n_pictured=len(material.pictured),
        accuracy={name: material.scores[name]["accuracy_test"] for name in ("dense", "qpm")},
        macro_accuracy=material.scores["qpm"].get("macro_accuracy_test"),
        metrics=metrics(material.scores),
        protocol=protocol(material.config, material.identity, material.preprocessing, material.origin),
        classes=classes,
        features=features,
        images=_images(material),
        wrong=[place[row] for row in selection.wrong],
        close=[place[row] for row in selection.close],
        maps=MapFormat(height, width, LEVELS, thumbnail_format(), material.side),
        confusions=mistakes,
        class_order=class_order.tolist(),
        feature_order=feature_order.tolist(),
        n_apart=len(apart),
        apart=apart[:_MOST_PAIRS],
        optimisation=_optimisation(material),
        faithfulness=material.faithfulness,
        findings=find(
            weights,
            mistakes,
            [(entry.n_right, entry.n_test) for entry in classes],
            [entry.separation for entry in features],
            correlation,
            swaps,
            material.assignment.objective,
        ),
        data_findings=[
            {key: str(finding[key]) for key in ("level", "title", "text", "cure")}
            for finding in (material.check or {}).get("findings", [])
        ],
        data_checked=None if material.check is None else bool(material.check["complete"]),
        pictures=material.pictures,
    )


def _classes(
    material: Material,
    similarity: npt.NDArray[np.float64],
    swaps: Sequence[list[costs.Swap]],
    place: Mapping[int, int],
) -> list[ClassEntry]:
    weights, tested = material.assignment.weights, material.tested
    A = material.problem.class_similarity[:, material.assignment.selected]
    n_classes = len(material.class_names)
    n_test = np.bincount(tested.labels, minlength=n_classes)
    n_right = np.bincount(tested.labels[tested.right], minlength=n_classes)
    entries = []
    for index, name in enumerate(material.class_names):
        features = np.flatnonzero(weights[index]).tolist()
        entries.append(
            ClassEntry(
                name=name,
                features=features,
                similarity=A[index, features].tolist(),
                n_train=int(material.n_train[index]),
                n_test=int(n_test[index]),
                n_right=int(n_right[index]),
                nearest=kinship.nearest_classes(weights, similarity, index, _NEAREST),
                swaps=swaps[index],
                images=[place[row] for row in material.selection.of_class[index]],
            )
        )
    return entries


def _features(material: Material, correlation: npt.NDArray[np.float64], place: Mapping[int, int]) -> list[FeatureEntry]:
    weights, selected, seen = material.assignment.weights, material.assignment.selected, material.seen
    charged = np.zeros(len(selected))
    for first, second, penalty in costs.charged_pairs(material.problem, material.assignment):
        charged[[first, second]] += penalty
    entries = []
    for column, (number, colour) in enumerate(zip(selected.tolist(), feature_colours(weights), strict=True)):
        values, own = seen.contributions[:, column], weights[seen.labels, column] > 0
        closest = int(correlation[column].argmax())
        found = float(correlation[column, closest])
        entries.append(
            FeatureEntry(
                number=number,
                name=material.feature_names.get(number),
                colour=colour,
                bias=float(material.problem.feature_bias[number]),
                redundancy=float(charged[column]),
                closest=(closest, found) if found > 0 else None,
                separation=separation(values, own),
                histogram=histogram(values, own),
                average=seen.average[column].tolist(),
                images=[place[row] for row in material.selection.of_feature[column]],
            )
        )
    return entries


def _images(material: Material) -> list[ImageEntry]:
    seen = material.seen
    return [
        ImageEntry(
            key=f"{material.split}-{int(seen.positions[row])}",
            name=name,
            label=int(seen.labels[row]),
            predicted=int(seen.predicted[row]),
            runner_up=int(seen.runner_up[row]),
        )
        for row, name in zip(material.selection.rows(), material.image_names, strict=True)
    ]


def _optimisation(material: Material) -> Optimisation:
    problem, found = material.problem, material.assignment
    points = [(point.time, point.objective, point.bound) for point in found.trace]
    step = max(1, -(-len(points) // _MOST_POINTS))
    return Optimisation(
        solver=f"{found.solver} {found.solver_version}",
        termination=found.termination.value,
        runtime=found.runtime,
        objective=found.objective,
        bound=found.bound,
        gap=found.gap,
        trace=[*points[:-1:step], *points[-1:]],
        prices=costs.prices(problem, found),
        charged=costs.charged_pairs(problem, found),
        n_features=problem.n_features,
        threshold=float(material.threshold["threshold"]),
        penalised_share=problem.penalised_share,
    )


def _by_confusion(
    pairs: npt.NDArray[np.int64], mistakes: Sequence[Confusion], similarity: npt.NDArray[np.float64]
) -> list[tuple[int, int]]:
    """The pairs, those that are confused most first, then those that are most alike."""
    together = confused_pairs(mistakes)
    ordered = sorted((-together[a, b], -float(similarity[a, b]), a, b) for a, b in pairs.tolist())
    return [(a, b) for *_, a, b in ordered]
