"""Problems to measure on: generated ones with their knobs, features of a real network, and anyone's file.

A generated instance is named `generated-200x2048-turan`: classes × features, then how pairs are penalised: `turan`
(the Turán quantile, about 2 %), `threshold` (the threshold of the method, 15 to 25 %), a share such as `5%`, or `none`.
Real features are named `hangul-…` in the same way: 200 Korean syllables drawn with 20 font faces each and described by
the 1,280 features of EfficientNet-Lite0 at 224 pixels, frozen, with their locality bias.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.generator import generate_problem_data
from qpm_opt import AssignmentProblem, penalties_from_similarity
from qpm_opt.redundancy import share_threshold

__all__ = ["GROWING", "LADDER", "SUITES", "load_instance"]

LADDER = tuple(
    f"generated-{size}-turan"
    for size in ("10x64", "50x256", "100x512", "200x1024", "200x2048", "500x2048", "1000x2048")
)
"""Sizes that show where a solver stops."""

SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("generated-10x64-turan", "generated-50x256-turan"),
    "ladder": LADDER,
    "classes": tuple(f"generated-{n}x1024-turan" for n in (25, 50, 100, 200, 400)),
    "features": tuple(f"generated-100x{n}-turan" for n in (128, 256, 512, 1024, 2048)),
    "penalties": tuple(f"generated-200x2048-{share}" for share in ("none", "turan", "5%", "10%", "threshold")),
    "hangul": ("hangul-turan", "hangul-10%", "hangul-threshold"),
}

GROWING = ("ladder", "classes", "features")
"""Suites whose instances grow: a solver that does not come back from one is not tried on the next."""

_HANGUL = Path(__file__).parent / "data" / "hangul.npz"
_NAME = re.compile(r"(?:generated-(\d+)x(\d+)(?:-seed(\d+))?|hangul)-(turan|threshold|none|[\d.]+%)")


def load_instance(name: str) -> AssignmentProblem:
    """The problem of that name, or in the `.npz` file of that path.

    Raises:
        ValueError: There is no such instance.
    """
    if name.endswith(".npz"):
        return AssignmentProblem.load(name)
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"There is no instance {name!r}. Names look like generated-200x2048-turan, generated-200x2048-seed3-5%, "
            f"hangul-threshold or problem.npz; suites are {', '.join(SUITES)}."
        )
    n_classes, n_features, seed, penalties = match.groups()
    if n_classes is None:
        similarity, redundancy, bias = _hangul()
    else:
        data = generate_problem_data(int(n_classes), int(n_features), seed=int(seed or 0))
        similarity, redundancy, bias = data.class_similarity, data.redundancy_similarity, data.feature_bias
    # 50 features of 2,048 as published; smaller problems keep a share that leaves every class its own set.
    n_select = min(50, max(10, similarity.shape[1] // 10))
    penalised = _penalties(redundancy, penalties, n_select)
    return AssignmentProblem(similarity, penalised, bias, n_select=n_select, n_per_class=5)


def _penalties(redundancy: npt.NDArray[np.float64], kind: str, n_select: int) -> Any:
    if kind == "none":
        return None
    threshold: Any = {"turan": "turan", "threshold": None}.get(kind)
    if kind.endswith("%"):
        threshold = share_threshold(redundancy, float(kind[:-1]) / 100.0)
    return penalties_from_similarity(redundancy, n_select=n_select, threshold=threshold)


@lru_cache(maxsize=1)
def _hangul() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A, R and b of the stored features."""
    with np.load(_HANGUL) as stored:
        similarity = stored["class_similarity"].astype(np.float64)
        bias = stored["feature_bias"].astype(np.float64)
    length = np.linalg.norm(similarity, axis=0)
    directions = similarity / np.where(length > 0.0, length, 1.0)
    redundancy = directions.T @ directions
    return similarity, redundancy / np.abs(redundancy).max(), bias
