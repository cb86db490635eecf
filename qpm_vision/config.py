"""What a run is told: one frozen record that is kept beside its results as JSON."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from qpm_opt import InvalidInputError, backend_names
from qpm_vision.preprocessing import MAP_AUGMENTATIONS
from qpm_vision.recipes import read_recipe
from qpm_vision.run_folder import CONFIG, RunFolder
from qpm_vision.training_settings import SMALL_DENSE, SMALL_FINE_TUNING, TrainingSettings

__all__ = ["FREE_KEYS", "PRECISIONS", "RunConfig", "differences", "merged"]

FREE_KEYS = frozenset({"compile", "data", "device", "tensorboard", "workers"})
"""Keys that may change when a run is continued: they say where it is computed and where the images lie, not what.

That the images are the same is seen from the images.
"""

MOST_WORKERS = 16
"""Processes that load images for one GPU where nobody says how many; more rarely feed it faster."""

PRECISIONS = ("float32", "bfloat16")
"""In what the backbone computes. Weights, sums and heads are float32 at least in any case."""

_STAGES = ("dense", "fine_tuning")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the outcome of a run.

    Attributes:
        data: What `load_data` takes: "digits", "cub-cropped:DIR", "csv:FILE", a path, …
        backbone: What `build_backbone` takes: "resnet50-stride8", "timm:NAME", "hf:DIR", "my.module:build", …
        weights: File or folder with the weights of the backbone, or "random"; None: those that it comes with.
        adapter: Number of features of an adapter that is trained in place of the backbone, which stays as it is; its
            maps are computed once. Both trainings then have an augmentation of `MAP_AUGMENTATIONS`. None: the backbone
            itself is trained.
        size: Side of the input images in pixels; None: what the backbone was made for.
        n_select: Features to keep.
        n_per_class: Features of each class.
        dense: How the dense classifier is trained. With 0 epochs its head is the one that lies beside the weights of
            the backbone.
        fine_tuning: How the interpretable model is trained.
        threshold: Similarity from which a pair of features is penalised: None to search the lowest with a
            penalty-free selection, "turan" for the quantile of Turán's theorem, or a number.
        solver: "auto" or a back end of `qpm_opt`.
        solve_seconds: Time limit of the solver; None: no limit.
        seed: Of everything random.
        test_share: Share of the images that are kept for the test where the data has no test set of its own.
        validation_share: Share of the training images that are kept out of everything but choosing the epoch whose
            weights are taken; 0: the last epoch's are.
        precision: One of `PRECISIONS`.
        micro_batch: Most images that a process trains on at once, where a batch does not fit into memory.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", …
        workers: Processes that load images; 0: none but this one. None: as many as there are cores for them, up to
            `MOST_WORKERS`, where a GPU computes, else none.
        compile: Whether PyTorch compiles the backbone, which takes minutes and pays on a GPU.
        tensorboard: Whether the epochs are also written for TensorBoard.

    Raises:
        InvalidInputError: A value is malformed.

    Example:
        >>> config = RunConfig("digits", n_select=20)
        >>> RunConfig.from_dict(config.to_dict()) == config
        True
    """

    data: str
    backbone: str = "efficientnet-lite0"
    weights: str | None = None
    adapter: int | None = None
    size: int | None = None
    n_select: int = 50
    n_per_class: int = 5
    dense: TrainingSettings = SMALL_DENSE
    fine_tuning: TrainingSettings = SMALL_FINE_TUNING
    threshold: float | str | None = None
    solver: str = "auto"
    solve_seconds: float | None = 60.0
    seed: int = 0
    test_share: float = 0.25
    validation_share: float = 0.0
    precision: str = "float32"
    micro_batch: int | None = None
    device: str = "auto"
    workers: int | None = None
    compile: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("data", "backbone", "solver", "device"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise _wrong(name, "a text that is not empty", value)
        for name, least in (("n_select", 1), ("n_per_class", 1), ("seed", 0)):
            _require_integer(name, getattr(self, name), least)
        if self.weights is not None and (not isinstance(self.weights, str) or not self.weights):
            raise _wrong("weights", "a path, 'random' or None", self.weights)
        if self.size is not None:
            _require_integer("size", self.size, 1)
        if self.adapter is not None:
            _require_integer("adapter", self.adapter, 1)
        if self.micro_batch is not None:
            _require_integer("micro_batch", self.micro_batch, 2)
        if self.workers is not None:
            _require_integer("workers", self.workers, 0)
        for name in ("compile", "tensorboard"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, "true or false", getattr(self, name))
        for name in _STAGES:
            if not isinstance(getattr(self, name), TrainingSettings):
                raise _wrong(name, "a TrainingSettings", getattr(self, name))
        if self.adapter is not None:
            self._require_trainings_of_adapter()
        if self.n_per_class > self.n_select:
            raise _wrong("n_per_class", f"at most n_select = {self.n_select}", self.n_per_class)
        if isinstance(self.threshold, str):
            if self.threshold != "turan":
                raise _wrong("threshold", "None, 'turan' or a number", self.threshold)
        elif self.threshold is not None and not (_is_number(self.threshold) and self.threshold >= 0):
            raise _wrong("threshold", "None, 'turan' or a number that is not negative", self.threshold)
        if self.solve_seconds is not None and not (_is_number(self.solve_seconds) and self.solve_seconds > 0):
            raise _wrong("solve_seconds", "a number of seconds above 0, or None for no limit", self.solve_seconds)
        if not (_is_number(self.test_share) and 0 < self.test_share < 1):
            raise _wrong("test_share", "between 0 and 1", self.test_share)
        if not (_is_number(self.validation_share) and 0 <= self.validation_share < 1):
            raise _wrong("validation_share", "at least 0 and below 1", self.validation_share)
        for name, known in (("solver", ("auto", *backend_names())), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in known:
                raise InvalidInputError(
                    f"The '{name}' parameter must be one of {', '.join(known)}. Got {value!r}."
                    + _nearest(str(value), known)
                )

    def _require_trainings_of_adapter(self) -> None:
        for name in _STAGES:
            augmentation = getattr(self, name).augmentation
            if augmentation not in MAP_AUGMENTATIONS:
                raise InvalidInputError(
                    f"The '{name}.augmentation' parameter must be {' or '.join(MAP_AUGMENTATIONS)} where an adapter is "
                    f"trained, because the maps of the backbone are computed once. Got {augmentation!r}; use another "
                    "one, or the recipe 'frozen'."
                )
        if not self.dense.epochs:
            raise InvalidInputError(
                "The 'dense.epochs' parameter must be at least 1 where an adapter is trained, because it comes without "
                "weights. Got 0."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """The inverse of `to_dict`; what is left out gets its default.

        Raises:
            InvalidInputError: A key is unknown, or a value is malformed.
        """
        values = dict(data)
        for name in _STAGES:
            if isinstance(values.get(name), Mapping):
                known = tuple(item.name for item in fields(TrainingSettings))
                _refuse_unknown(values[name], known, f"{name}.")
                values[name] = TrainingSettings(**values[name])
        _refuse_unknown(values, tuple(item.name for item in fields(cls)), "")
        if "data" not in values:
            raise InvalidInputError("The configuration must have the key 'data': what to train on, such as 'digits'.")
        return cls(**values)

    @classmethod
    def of(cls, folder: RunFolder) -> RunConfig:
        """The configuration of a run.

        Raises:
            RunFolderError: The file is damaged, or of a newer layout.
        """
        values = folder.config()
        with folder.reading(CONFIG):
            return cls.from_dict(values)

    @property
    def division(self) -> dict[str, Any]:
        """What `load_data` needs to divide the images as the run does."""
        return {"test_share": self.test_share, "validation_share": self.validation_share, "seed": self.seed}

    @classmethod
    def from_recipe(cls, name: str, data: str) -> RunConfig:
        """A run on these data as a recipe says.

        Raises:
            InvalidInputError: There is no such recipe.

        Example:
            >>> RunConfig.from_recipe("small", "digits") == RunConfig("digits")
            True
        """
        return cls.from_dict({**read_recipe(name), "data": data})


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over others; of the two trainings, single values can be replaced.

    Example:
        >>> merged({"seed": 0, "dense": {"epochs": 3, "beta": 0.2}}, {"dense": {"epochs": 4}})
        {'seed': 0, 'dense': {'epochs': 4, 'beta': 0.2}}
    """
    both = {**below, **above}
    for name in _STAGES:
        if isinstance(below.get(name), Mapping) and isinstance(above.get(name), Mapping):
            both[name] = {**below[name], **above[name]}
    return both


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, nested ones as `dense.epochs`, without those that may change.

    Example:
        >>> differences({"seed": 0, "dense": {"epochs": 3}}, {"seed": 0, "dense": {"epochs": 4}})
        {'dense.epochs': (3, 4)}
    """
    before, after = _flat(old), _flat(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if key not in FREE_KEYS and before.get(key) != after.get(key)
    }


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _refuse_unknown(data: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> None:
    for key in data:
        if key not in known:
            raise InvalidInputError(
                f"The configuration has the key {prefix + str(key)!r}, which is not known." + _nearest(str(key), known)
            )


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(sorted(known))}."


def _require_integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _wrong(name, f"an integer of at least {least}", value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, expected: str, value: Any) -> InvalidInputError:
    return InvalidInputError(f"The '{name}' parameter must be {expected}. Got {value!r}.")
