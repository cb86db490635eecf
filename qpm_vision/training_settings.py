"""How a model is trained: a frozen record, and schedules of the learning rate."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from qpm_opt import InvalidInputError
from qpm_vision.preprocessing import AUGMENTATIONS

__all__ = ["BALANCED", "SCHEDULES", "SMALL_DENSE", "SMALL_FINE_TUNING", "TrainingSettings"]

BALANCED = "balanced"
"""What `class_weights` and `sampling` may be, beside "none"."""

_ONE_CYCLE_START = 1 / 25


def _require_known(name: str, value: Any, known: Iterable[str]) -> None:
    names = sorted(known)
    if value not in names:
        close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidInputError(f"The '{name}' parameter must be one of {', '.join(names)}. Got {value!r}.{hint}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, expected: str, value: Any) -> InvalidInputError:
    return InvalidInputError(f"The '{name}' parameter must be {expected}. Got {value!r}.")


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained, by stochastic gradient descent with momentum.

    Weight decay acts on all parameters, those of batch normalisation among them, as in the paper.

    Attributes:
        epochs: Passes over the training images; 0 leaves the model as it is.
        least_steps: Where there are so few images that the epochs have fewer steps than this, more epochs are made.
        learning_rate: Of the backbone; with "one-cycle" the largest one.
        head_learning_rate: Of everything that is not backbone; None: `learning_rate`.
        momentum: Of SGD, at least 0 and below 1.
        weight_decay: L2 penalty, in the sense of SGD.
        schedule: A name in `SCHEDULES`.
        warm_up: Share of all steps in which "one-cycle" rises from a 25th of the rate.
        step_epochs: Epochs after which "step" multiplies the rate by `step_factor`, again and again.
        step_factor: See there.
        batch_size: Images in a batch, at least 2; where several processes train one model, of all of them together. A
            last batch of fewer than two images for each process joins the one before.
        augmentation: A name in `qpm_vision.preprocessing.AUGMENTATIONS`.
        beta: Weight β of the feature diversity loss; 0 leaves it out.
        gradient_norm: Longer gradients are shortened to this L2 norm over all parameters; None: left as they are.
        class_weights: "balanced": the cross-entropy of an image counts the more the fewer training images its class
            has, n / (number of classes × n of the class), 1 on average; "none": every image counts the same.
        sampling: "balanced": each epoch draws as many images of each class, give or take one, instead of each image
            once; "none": each image once. Not together with balanced
            class weights, because small classes would count twice over.

    The statistics behind the choice of features, A among them, are computed over all training images, each once and not
    augmented, whatever `class_weights` and `sampling` are; these change them only through the model that they train.

    Raises:
        InvalidInputError: A value is malformed.
    """

    epochs: int = 5
    least_steps: int = 0
    learning_rate: float = 0.02
    head_learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    warm_up: float = 0.25
    step_epochs: int = 30
    step_factor: float = 0.4
    batch_size: int = 32
    augmentation: str = "shift"
    beta: float = 0.196
    gradient_norm: float | None = None
    class_weights: str = "none"
    sampling: str = "none"

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("least_steps", 0), ("step_epochs", 1), ("batch_size", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise _wrong(name, f"an integer of at least {least}", value)
        for name in ("learning_rate", "head_learning_rate", "step_factor", "gradient_norm"):
            value = getattr(self, name)
            if value is None and name in ("head_learning_rate", "gradient_norm"):
                continue
            if not _is_number(value) or value <= 0:
                raise _wrong(name, "a number above 0", value)
        for name in ("weight_decay", "beta"):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise _wrong(name, "a number that is not negative", getattr(self, name))
        for name in ("momentum", "warm_up"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise _wrong(name, "a number of at least 0 and below 1", getattr(self, name))
        for name, known in (("schedule", SCHEDULES), ("augmentation", AUGMENTATIONS)):
            _require_known(name, getattr(self, name), known)
        for name in ("class_weights", "sampling"):
            _require_known(name, getattr(self, name), ("none", BALANCED))
        if self.class_weights == self.sampling == BALANCED:
            raise InvalidInputError(
                "The 'class_weights' and 'sampling' parameters must not both be 'balanced', because small classes "
                "would count twice over. Got both; choose one."
            )

    def for_images(self, n_images: int) -> TrainingSettings:
        """The same, with as many epochs as that number of images needs for `least_steps`; none stays none."""
        if not self.epochs:
            return self
        steps = max(1, math.ceil(n_images / self.batch_size))
        return replace(self, epochs=max(self.epochs, math.ceil(self.least_steps / steps)), least_steps=0)


def _one_cycle(settings: TrainingSettings, done: float) -> float:
    """Up along half a cosine, down along another one, to (almost) nothing."""
    if done < settings.warm_up:
        return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * (1 - math.cos(math.pi * done / settings.warm_up)) / 2
    return (1 + math.cos(math.pi * (done - settings.warm_up) / (1 - settings.warm_up))) / 2


def _step(settings: TrainingSettings, done: float) -> float:
    # The tolerance keeps an epoch's first step from being counted to the epoch before.
    return settings.step_factor ** (int(done * settings.epochs + 1e-9) // settings.step_epochs)


SCHEDULES: dict[str, Callable[[TrainingSettings, float], float]] = {"one-cycle": _one_cycle, "step": _step}
"""By name, the factor of the learning rates: a function of the settings and the share of the training that is done."""

SMALL_DENSE = TrainingSettings(least_steps=200)
"""Dense training in minutes on a CPU, for a pretrained EfficientNet-Lite0 on images of about 64 pixels."""

SMALL_FINE_TUNING = replace(SMALL_DENSE, epochs=4, least_steps=160, learning_rate=0.01)
"""Fine-tuning in minutes on a CPU."""
