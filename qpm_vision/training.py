"""Training of the dense and of the interpretable classifier: SGD, cross-entropy, feature diversity loss."""

from __future__ import annotations

import contextlib
import difflib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.backbones import evaluation_mode
from qpm_vision.losses import feature_diversity_loss
from qpm_vision.model import Classifier
from qpm_vision.preprocessing import AUGMENTATIONS, Preprocessing

if TYPE_CHECKING:
    from qpm_vision.data import ImageSet

__all__ = [
    "PAPER_DENSE",
    "PAPER_FINE_TUNING",
    "SCHEDULES",
    "SMALL_DENSE",
    "SMALL_FINE_TUNING",
    "TrainingError",
    "TrainingSettings",
    "accuracy",
    "train",
]

Batch: TypeAlias = tuple[Tensor, Tensor]
LoaderFactory: TypeAlias = Callable[[int], Iterable[Batch]]

_ONE_CYCLE_START = 1 / 25

_log = logging.getLogger(__name__)


class TrainingError(QPMError):
    """Training diverged; the message says where and what to do. The model has its last good weights again."""


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
        epochs: Passes over the training images.
        least_steps: Where there are so few images that the epochs have fewer steps than this, more epochs are made.
        learning_rate: Of the backbone; with "one-cycle" the largest one.
        head_learning_rate: Of everything that is not backbone; None: `learning_rate`.
        momentum: Of SGD, at least 0 and below 1.
        weight_decay: L2 penalty, in the sense of SGD.
        schedule: A name in `SCHEDULES`.
        warm_up: Share of all steps in which "one-cycle" rises from a 25th of the rate.
        step_epochs: Epochs after which "step" multiplies the rate by `step_factor`, again and again.
        step_factor: See there.
        batch_size: Images in a batch, at least 2. A last batch of one image joins the one before.
        augmentation: A name in `qpm_vision.preprocessing.AUGMENTATIONS`.
        beta: Weight β of the feature diversity loss; 0 leaves it out.
        gradient_norm: Longer gradients are shortened to this L2 norm over all parameters; None: left as they are.

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

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("least_steps", 0), ("step_epochs", 1), ("batch_size", 2)):
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

    def for_images(self, n_images: int) -> TrainingSettings:
        """The same, with as many epochs as that number of images needs for `least_steps`."""
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

PAPER_DENSE = TrainingSettings(
    epochs=150,
    learning_rate=0.005,
    head_learning_rate=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="step",
    step_epochs=30,
    step_factor=0.4,
    batch_size=16,
    augmentation="paper",
)
"""Dense training of QPM (Norrenbrock et al., ICLR 2025), made for a ResNet-50 at 224 pixels."""

PAPER_FINE_TUNING = replace(
    PAPER_DENSE, epochs=40, learning_rate=1e-4, head_learning_rate=None, momentum=0.95, step_epochs=10
)
"""Fine-tuning of QPM (Norrenbrock et al., ICLR 2025)."""

SMALL_DENSE = TrainingSettings(least_steps=200)
"""Dense training in minutes on a CPU, for a pretrained EfficientNet-Lite0 on images of about 64 pixels."""

SMALL_FINE_TUNING = replace(SMALL_DENSE, epochs=4, least_steps=160, learning_rate=0.01)
"""Fine-tuning in minutes on a CPU."""


def train(
    model: Classifier,
    images: ImageSet | LoaderFactory,
    settings: TrainingSettings,
    *,
    preprocessing: Preprocessing | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    workers: int = 0,
    on_epoch: Callable[[dict[str, Any], Classifier], None] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train a model in place.

    The loss is cross-entropy plus the feature diversity loss over the weights of the model's head. A seed fixes the
    order of the images, their augmentation and dropout; on a CPU the outcome is then the same for the same number of
    threads. PyTorch's own random state is what it was, afterwards.

    Args:
        model: Trained in place; left on `device`, in evaluation mode.
        images: The training images; or a function that gives the batches of an epoch, (images (B, 3, H, W), labels
            (B,)), for the epoch's number from 1 on. What it gives must have a length, the number of batches.
        settings: How to train.
        preprocessing: Of the images; by default that of the backbone. Not used where `images` is a function.
        device: Where to train.
        seed: Of everything random.
        workers: Processes that load images; 0: none but this one.
        on_epoch: Called after each epoch with its row of the history and the model, which it must not change.
        progress: Called after each step with the batches done and their number, over all epochs, and a text about the
            epoch under way.

    Returns:
        A row for each epoch: "epoch" from 1 on; "loss", "cross_entropy", "diversity" (of the whole epoch, per image,
        while training), "accuracy" (the same), "learning_rate" (of the backbone, in the last step), "seconds".

    Raises:
        TrainingError: The loss or the weights became infinite or NaN. The model has the weights of the last epoch that
            ended well, or those it came with.
        InvalidInputError: There are fewer than two images, labels do not fit the model, or a batch is malformed.
    """
    place = torch.device(device)
    model.to(place)
    if not callable(images):
        settings = settings.for_images(len(images))
    loader_of = images if callable(images) else _loaders(images, model, settings, preprocessing, seed, workers)
    optimizer = _optimizer(model, settings)
    history: list[dict[str, Any]] = []
    # An exception, Ctrl-C included, leaves as it came; random state and mode are put right on its way.
    with _seeded(seed, place):
        good = _snapshot(model)
        try:
            for epoch in range(1, settings.epochs + 1):
                row = _epoch(model, loader_of(epoch), optimizer, settings, epoch, progress)
                _require_finite_weights(model, epoch)
                good = _snapshot(model)
                history.append(row)
                _log.info("epoch %d/%d: %s", epoch, settings.epochs, row)
                if on_epoch is not None:
                    model.eval()
                    on_epoch(row, model)
        except TrainingError:
            model.load_state_dict(good)
            raise
        finally:
            model.eval()
    return history


def accuracy(model: nn.Module, loader: Iterable[Batch], device: torch.device | str = "cpu") -> float:
    """Share of images that are classified correctly, in evaluation mode.

    Args:
        model: Returns `ModelOutput`; moved to the device, its mode is kept.
        loader: Batches (images (B, 3, H, W), labels (B,)), un-augmented.
        device: Where to compute.

    Raises:
        InvalidInputError: There are no images.
    """
    model.to(device)
    right = seen = 0
    with evaluation_mode(model), torch.no_grad():
        for images, labels in loader:
            predicted = model(images.to(device)).logits.argmax(dim=1).cpu()
            right += int((predicted == labels).sum())
            seen += len(labels)
    if not seen:
        raise InvalidInputError("The 'loader' parameter must hold at least one image. Got none.")
    return right / seen


# -- one epoch -----------------------------------------------------------------------------------------------------


def _epoch(
    model: Classifier,
    loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    epoch: int,
    progress: Callable[[int, int, str], None] | None,
) -> dict[str, Any]:
    began = time.perf_counter()
    length = _length(loader)
    device = model.weight.device
    sums = np.zeros(4)
    seen = done = 0
    rate = 0.0
    model.train()
    for images, labels, n_batches in _without_single_image(loader):
        _require_labels(labels, model.n_classes)
        factor = SCHEDULES[settings.schedule](settings, (epoch - 1 + min(done / length, 1.0)) / settings.epochs)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        rate = settings.learning_rate * factor
        figures = _train_step(
            model, images.to(device, non_blocking=True), labels.to(device, non_blocking=True), optimizer, settings
        )
        done += n_batches
        if not math.isfinite(figures[0]):
            raise _diverged(f"the loss became {figures[0]} in epoch {epoch}, step {done} of {length}")
        sums += np.multiply(figures, (len(labels), len(labels), len(labels), 1))
        seen += len(labels)
        if progress is not None:
            text = f"epoch {epoch}/{settings.epochs}, loss {sums[0] / seen:.3f}, accuracy {sums[3] / seen:.1%}"
            progress((epoch - 1) * length + done, settings.epochs * length, text)
    if not seen:
        raise InvalidInputError("The 'images' parameter must give at least one batch for every epoch. Got none.")
    loss, cross_entropy, diversity, right = (sums / seen).tolist()
    return {
        "epoch": epoch,
        "loss": loss,
        "cross_entropy": cross_entropy,
        "diversity": diversity,
        "accuracy": right,
        "learning_rate": rate,
        "seconds": round(time.perf_counter() - began, 3),
    }


def _train_step(
    model: Classifier, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer, settings: TrainingSettings
) -> list[float]:
    """One update. Returns loss, cross-entropy, diversity loss and the number of right answers.

    Nothing is updated where the loss is not finite.
    """
    output = model(images)
    cross_entropy = functional.cross_entropy(output.logits, labels)
    loss = cross_entropy
    diversity = torch.zeros_like(cross_entropy)
    if settings.beta:
        diversity = feature_diversity_loss(output.maps, output.logits, model.weight, settings.beta)
        loss = loss + diversity
    right = (output.logits.argmax(dim=1) == labels).sum()
    # One transfer for all four, because each of them waits for the device.
    figures: list[float] = torch.stack((loss, cross_entropy, diversity, right)).tolist()
    if math.isfinite(figures[0]):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.gradient_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_norm)
        optimizer.step()
    return figures


def _without_single_image(loader: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Batches and the number of batches that they were made of: a last one of one image joins the one before.

    Batch normalisation has no variance over one image, or a wild one.
    """
    waiting: Batch | None = None
    for images, labels in loader:
        if waiting is not None:
            if len(labels) == 1:
                waiting = torch.cat((waiting[0], images)), torch.cat((waiting[1], labels))
                yield *waiting, 2
                waiting = None
                continue
            yield *waiting, 1
        waiting = images, labels
    if waiting is not None:
        if len(waiting[1]) == 1:
            raise InvalidInputError(
                "The 'images' parameter must give at least two images for every epoch. Got one; add images."
            )
        yield *waiting, 1


# -- around the epochs ---------------------------------------------------------------------------------------------


def _loaders(
    images: ImageSet,
    model: Classifier,
    settings: TrainingSettings,
    preprocessing: Preprocessing | None,
    seed: int,
    workers: int,
) -> LoaderFactory:
    from qpm_vision.data import make_loader

    if len(images) < 2:
        raise InvalidInputError(f"The 'images' parameter must hold at least two images. Got {len(images)}.")
    chosen = model.backbone.preprocessing if preprocessing is None else preprocessing
    # One loader for all epochs: each pass draws a new order, and workers stay alive in between.
    loader: Iterable[Batch] = make_loader(
        images,
        chosen.transform(settings.augmentation),
        batch_size=settings.batch_size,
        shuffle=True,
        seed=seed,
        workers=workers,
    )
    return lambda _epoch: loader


def _optimizer(model: Classifier, settings: TrainingSettings) -> torch.optim.Optimizer:
    backbone = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in backbone}
    head = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in known]
    head_rate = settings.learning_rate if settings.head_learning_rate is None else settings.head_learning_rate
    groups = [
        {"params": parameters, "base": rate, "lr": rate}
        for parameters, rate in ((backbone, settings.learning_rate), (head, head_rate))
        if parameters
    ]
    if not groups:
        raise InvalidInputError("The 'model' parameter must have parameters that require gradients. Got none.")
    return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _require_finite_weights(model: nn.Module, epoch: int) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise _diverged(f"{name!r} became infinite or NaN in the last steps of epoch {epoch}")


def _diverged(what: str) -> TrainingError:
    return TrainingError(
        f"Training diverged: {what}. Lower the 'learning_rate' (a third is a good next try), set 'gradient_norm' to 1, "
        "and make sure that the images hold no NaN; the model has the weights of the last good epoch again."
    )


# -- checks --------------------------------------------------------------------------------------------------------


def _length(loader: Iterable[Batch]) -> int:
    if not isinstance(loader, Sized):
        raise InvalidInputError(
            "The 'images' parameter must give batches whose number is known by len(). Got a "
            f"{type(loader).__name__}; give a list or a DataLoader."
        )
    return max(1, len(loader))


def _require_labels(labels: Tensor, n_classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise InvalidInputError(
            f"The labels must be from 0 to {n_classes - 1}, for the {n_classes} classes of the model. Got values from "
            f"{low} to {high}; number the classes from 0, or make a model for more classes."
        )
