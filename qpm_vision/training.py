"""Training of the dense and of the interpretable classifier: SGD, cross-entropy, feature diversity loss.

What a step does depends on the seed and the number of the step alone, so a training that is stopped goes on as if it
had not been. Several processes can share every batch; see `qpm_vision.distributed`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from qpm_opt import InvalidInputError, QPMError
from qpm_vision import distributed
from qpm_vision._finite_output import require_finite_output
from qpm_vision._torch_state import plain_torch
from qpm_vision.backbones import evaluation_mode
from qpm_vision.backbones.base import FoldedNetwork
from qpm_vision.backbones.finite import not_finite
from qpm_vision.class_scores import ClassScores, count_confusions
from qpm_vision.data import LoadingError, make_loader
from qpm_vision.losses import feature_diversity_loss
from qpm_vision.model import Classifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.training_settings import BALANCED, SCHEDULES, TrainingSettings
from qpm_vision.training_state import TrainingState, TrainingStateFile, weights_digest

if TYPE_CHECKING:
    from qpm_vision.data import ImageSet

__all__ = ["TrainingError", "accuracy", "chosen_by", "confusions", "train"]

Batch: TypeAlias = tuple[Tensor, Tensor]
LoaderFactory: TypeAlias = Callable[[int], Iterable[Batch]]
Batches: TypeAlias = Callable[[int, int], tuple[int, Iterable[Batch]]]
"""For an epoch, from 1 on, and a number of batches to leave out: how many the epoch has, and those that are left."""

SECONDS_BETWEEN_SAVES = 600.0
"""After so long, the state is kept in the middle of an epoch as well."""

_log = logging.getLogger(__name__)


class TrainingError(QPMError):
    """Training diverged; the message says where and what to do. The model has its last good weights again."""


@plain_torch()
def train(
    model: Classifier,
    images: ImageSet | LoaderFactory,
    settings: TrainingSettings,
    *,
    preprocessing: Preprocessing | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    workers: int = 0,
    micro_batch: int | None = None,
    validation: ImageSet | None = None,
    state: Path | None = None,
    on_epoch: Callable[[list[dict[str, Any]], Classifier], None] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train a model in place.

    The loss is cross-entropy, weighted by class where the settings say so, plus the feature diversity loss over the
    weights of the model's head. A seed fixes the
    order of the images, their augmentation and dropout; on a CPU the outcome is then the same for the same number of
    threads. PyTorch's own random state is what it was, afterwards.

    Ctrl-C and SIGTERM end the training behind the step under way; a second one ends it at once.

    Args:
        model: Trained in place; left on `device`, in evaluation mode.
        images: The training images; or a function that gives the batches of an epoch, (images (B, 3, H, W), labels
            (B,)), for the epoch's number from 1 on. What it gives must have a length, the number of batches. Where
            several processes train one model, it gives each its share, and all the same number of batches.
        settings: How to train.
        preprocessing: Of the images; by default that of the backbone. Not used where `images` is a function.
        device: Where to train.
        seed: Of everything random.
        workers: Processes that load images; 0: none but this one.
        micro_batch: Most images that a process computes at once; a larger batch is computed in parts whose gradients
            add up. Batch normalisation sees the parts. None: each batch at once.
        validation: Images to choose the epoch with: at the end the model has the weights of the epoch that classified
            most of them correctly, the last one of several; where class weights or sampling are balanced, that of the
            highest mean over classes. None: those of the last epoch.
        state: A file to keep the state of the training in, after each epoch, every few minutes, and when it is stopped.
            If it is there and of the same training, it goes on from there, bit by bit the same. It must lie where all
            processes see it. The caller removes it when the model is safe.
        on_epoch: Called after each epoch with the history so far and the model, which it must not change. What it adds
            to the last row is kept.
        progress: Called after each step with the batches done and their number, over all epochs, and a text about the
            epoch under way.

    Returns:
        A row for each epoch: "epoch" from 1 on; "loss", "cross_entropy", "diversity" (of the whole epoch, per image,
        while training; weighted by class where the loss is), "accuracy" (over all images, the same), "learning_rate"
        (of the backbone, in the last step), "seconds", and where there are images for it "validation_accuracy" (over
        all images) and "validation_macro_accuracy" (mean over classes).

    Raises:
        TrainingError: The loss or the weights became infinite or NaN. The model has the weights of the last epoch that
            ended well, or those it came with.
        InvalidInputError: There are fewer than two images, labels do not fit the model, or a batch is malformed.
        KeyboardInterrupt: It was stopped, and the state kept.
    """
    if micro_batch is not None and (isinstance(micro_batch, bool) or micro_batch < 2):
        raise InvalidInputError(f"The 'micro_batch' parameter must be at least 2, or None. Got {micro_batch!r}.")
    place = torch.device(device)
    model.to(place)
    model.eval()
    chosen = model.backbone.preprocessing if preprocessing is None else preprocessing
    batches: Batches
    class_weights: Tensor | None = None
    if callable(images):
        _refuse_balance(settings)
        batches = _of_function(images)
    else:
        settings = settings.for_images(len(images))
        class_weights = _class_weights(images.labels, model.n_classes) if settings.class_weights == BALANCED else None
        batches = _of_images(images, chosen, settings, seed, workers, pinned=place.type == "cuda")
    if not settings.epochs:
        return []
    keeper = None
    if state is not None:
        identity = {
            "settings": asdict(settings),
            "seed": seed,
            "micro_batch": micro_batch,
            "n_images": None if callable(images) else len(images),
            "n_validation": None if validation is None else len(validation),
            "weights": weights_digest(model),
        }
        keeper = TrainingStateFile(state, identity)
    held_out = None if validation is None else _held_out(validation, chosen, settings, workers)
    # An exception, Ctrl-C included, leaves as it came; random state and mode are put right on its way.
    with _random_state_kept(place), _stopping() as stop:
        training = _Training(model, settings, class_weights, seed, micro_batch, keeper, stop, progress)
        try:
            return training.run(batches, held_out, on_epoch)
        finally:
            model.eval()


def accuracy(model: nn.Module, loader: Iterable[Batch], device: torch.device | str = "cpu") -> float:
    """Share of images that are classified correctly, in evaluation mode.

    Args:
        model: Returns `ModelOutput`; moved to the device, its mode is kept.
        loader: Batches (images (B, 3, H, W), labels (B,)), un-augmented; of several processes, each gives its share.
        device: Where to compute.

    Raises:
        InvalidInputError: There are no images.
    """
    counts = torch.zeros(2, dtype=torch.int64)  # right ones, and all

    def count(labels: Tensor, predicted: Tensor) -> None:
        counts.add_(torch.tensor([int((predicted == labels).sum()), len(labels)]))

    _predict(model, loader, device, count)
    right, seen = distributed.sum_over_processes(counts).tolist()
    if not seen:
        raise InvalidInputError("The 'loader' parameter must hold at least one image. Got none.")
    return float(right / seen)


def confusions(model: Classifier, loader: Iterable[Batch], device: torch.device | str = "cpu") -> npt.NDArray[np.int64]:
    """(n_classes, n_classes) images by their class and the class that they are taken for, in evaluation mode.

    Args:
        model: Moved to the device, its mode is kept.
        loader: Batches (images (B, 3, H, W), labels (B,)), un-augmented; of several processes, each gives its share.
        device: Where to compute.

    Raises:
        InvalidInputError: There are no images.
    """
    counts = np.zeros((model.n_classes, model.n_classes), dtype=np.int64)

    def count(labels: Tensor, predicted: Tensor) -> None:
        np.add(counts, count_confusions(labels, predicted, model.n_classes), out=counts)

    _predict(model, loader, device, count)
    total: npt.NDArray[np.int64] = distributed.sum_over_processes(torch.from_numpy(counts)).numpy()
    if not total.any():
        raise InvalidInputError("The 'loader' parameter must hold at least one image. Got none.")
    return total


def _predict(
    model: nn.Module,
    loader: Iterable[Batch],
    device: torch.device | str,
    count: Callable[[Tensor, Tensor], None],
) -> None:
    """Hand out the labels and the predicted classes of each batch, in evaluation mode."""
    model.to(device)
    seen = 0
    with evaluation_mode(model), torch.no_grad():
        for images, labels in loader:
            output = model(images.to(device))
            require_finite_output(model, output, seen)
            count(labels, output.logits.argmax(dim=1).cpu())
            seen += len(labels)


def chosen_by(settings: TrainingSettings) -> str:
    """The column of the history by which validation images choose an epoch: what the training balances, if it does."""
    balanced = BALANCED in (settings.class_weights, settings.sampling)
    return "validation_macro_accuracy" if balanced else "validation_accuracy"


# -- all epochs ----------------------------------------------------------------------------------------------------


@dataclass
class _Training:
    """One training under way."""

    model: Classifier
    settings: TrainingSettings
    class_weights: Tensor | None
    seed: int
    micro_batch: int | None
    keeper: TrainingStateFile | None
    stop: threading.Event
    progress: Callable[[int, int, str], None] | None

    def __post_init__(self) -> None:
        self.device = self.model.weight.device
        self.class_weights = None if self.class_weights is None else self.class_weights.to(self.device)
        self.optimizer = _optimizer(self.model, self.settings)
        self.parallel: nn.Module = self.model
        if distributed.world_size() > 1:
            # What lies behind the layer or the tokens that give the maps is not computed.
            backbone = self.model.backbone
            unused = backbone.layer is not None or isinstance(backbone.module, FoldedNetwork)
            self.parallel = nn.parallel.DistributedDataParallel(self.model, find_unused_parameters=unused)
        self.saved = time.monotonic()

    def run(
        self,
        batches: Batches,
        validation: Iterable[Batch] | None,
        on_epoch: Callable[[list[dict[str, Any]], Classifier], None] | None,
    ) -> list[dict[str, Any]]:
        """All epochs that are left."""
        at = (None if self.keeper is None else self.keeper.load(self.model, self.optimizer)) or TrainingState()
        self._require_finite_start(at)
        good = _snapshot(self.model)
        if at.history or at.batches:
            _log.info("going on in epoch %d, behind %d batches", at.epoch, at.batches)
        try:
            while at.epoch <= self.settings.epochs:
                row = self._epoch(batches, at)
                self._require_finite_weights(at.epoch)
                good = _snapshot(self.model)
                if validation is not None:
                    found = ClassScores(confusions(self.model, validation, self.device))
                    row |= {"validation_accuracy": found.accuracy, "validation_macro_accuracy": found.macro_accuracy}
                    measure = chosen_by(self.settings)
                    if row[measure] >= max((known[measure] for known in at.history), default=-1.0):
                        at.best = good
                at = TrainingState(epoch=at.epoch + 1, history=[*at.history, row], best=at.best)
                _log.info("epoch %d/%d: %s", row["epoch"], self.settings.epochs, row)
                if on_epoch is not None:
                    self.model.eval()
                    on_epoch(at.history, self.model)
                self._keep(at)
        except TrainingError:
            self.model.load_state_dict(good)
            raise
        if at.best is not None:
            self.model.load_state_dict(at.best)
        return at.history

    def _epoch(self, batches: Batches, at: TrainingState) -> dict[str, Any]:
        """What is left of an epoch; returns its row of the history."""
        length, loader = batches(at.epoch, at.batches)
        settings = self.settings
        began = time.perf_counter() - at.seconds
        self.model.train()
        for images, labels in self._until_stopped(loader, at):
            self._check(labels)
            for group in self.optimizer.param_groups:
                group["lr"] = group["base"] * self._factor(at.epoch, at.batches, length)
            figures = self._step(images, labels, at)
            if not math.isfinite(figures[0]):
                raise _diverged(
                    f"the loss became {figures[0] / figures[4]} in epoch {at.epoch}, step {at.batches + 1} of {length}",
                    _bad_images(images),
                )
            at.batches += 1
            at.sums = [total + more for total, more in zip(at.sums, figures[:5], strict=True)]
            at.seconds = time.perf_counter() - began
            if self.progress is not None:
                text = f"epoch {at.epoch}/{settings.epochs}, loss {at.sums[0] / at.sums[4]:.3f}, accuracy "
                text += f"{at.sums[3] / at.sums[4]:.1%}"
                self.progress((at.epoch - 1) * length + at.batches, settings.epochs * length, text)
            # Several processes stop behind the same step: all were told how many of them had been asked to.
            if figures[5] or (self.stop.is_set() and distributed.world_size() == 1):
                self._stopped(at, length)
            if time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES:
                self._keep(at)
        if self.stop.is_set() and at.batches < length:
            self._stopped(at, length)
        if not at.sums[4]:
            raise InvalidInputError("The 'images' parameter must give at least one batch for every epoch. Got none.")
        loss, cross_entropy, diversity, right = (total / at.sums[4] for total in at.sums[:4])
        return {
            "epoch": at.epoch,
            "loss": loss,
            "cross_entropy": cross_entropy,
            "diversity": diversity,
            "accuracy": right,
            "learning_rate": settings.learning_rate * self._factor(at.epoch, at.batches - 1, length),
            "seconds": round(time.perf_counter() - began, 3),
        }

    def _factor(self, epoch: int, batch: int, length: int) -> float:
        """What the learning rates are multiplied by in a step."""
        done = (epoch - 1 + min(batch / length, 1.0)) / self.settings.epochs
        return SCHEDULES[self.settings.schedule](self.settings, done)

    def _until_stopped(self, loader: Iterable[Batch], at: TrainingState) -> Iterator[Batch]:
        try:
            yield from loader
        except LoadingError:
            # Processes that load images may have got the signal as well, and be gone.
            if self.stop.is_set() and distributed.world_size() == 1:
                return
            if at.batches:
                self._keep(at)
            raise

    def _step(self, images: Tensor, labels: Tensor, at: TrainingState) -> list[float]:
        """One update; its figures summed over the images of all processes.

        They are loss, cross-entropy, diversity loss, right answers, images, and processes that were asked to stop.
        Nothing is updated where the loss is not finite.
        """
        _seed_step(self.seed, at.epoch, at.batches)
        images, labels = (part.to(self.device, non_blocking=True) for part in (images, labels))
        # The mean over the batch is that over all processes; gradients are averaged over them.
        total = distributed.sum_over_processes(torch.tensor(float(len(labels)), device=self.device))
        share = distributed.world_size() / total
        figures = torch.zeros(6, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._parts(len(labels))
        for number, (begin, end) in enumerate(parts):
            last = number == len(parts) - 1
            with contextlib.nullcontext() if last else self._without_exchange():
                figures[:5] += self._backward(images[begin:end], labels[begin:end], share)
        figures[5] = float(self.stop.is_set())
        # One transfer for all of them, because it waits for the device.
        result: list[float] = distributed.sum_over_processes(figures).tolist()
        if math.isfinite(result[0]):
            if self.settings.gradient_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_norm)
            self.optimizer.step()
        return result

    def _backward(self, images: Tensor, labels: Tensor, share: Tensor) -> Tensor:
        """Gradients of a part of a batch, and its figures: sums over its images."""
        output = self.parallel(images)
        cross_entropy = self._cross_entropy(output.logits, labels)
        loss = cross_entropy
        diversity = torch.zeros_like(cross_entropy)
        if self.settings.beta:
            diversity = feature_diversity_loss(output.maps, output.logits, self.model.weight, self.settings.beta)
            loss = loss + diversity
        number = len(labels)
        (loss * (share * number)).backward()  # type: ignore[no-untyped-call]
        right = (output.logits.argmax(dim=1) == labels).sum()
        sums = (loss * number, cross_entropy * number, diversity * number, right, torch.full_like(loss, number))
        return torch.stack(sums).detach()

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.class_weights is None:
            return functional.cross_entropy(logits, labels)
        # Over the number of images, not over the sum of their weights as PyTorch has it: that sum differs between
        # parts of a batch and between processes, which then could not be added up.
        return (functional.cross_entropy(logits, labels, reduction="none") * self.class_weights[labels]).mean()

    def _parts(self, number: int) -> list[tuple[int, int]]:
        """Bounds of parts of nearly equal size, none of a single image, over which nothing can be normalised."""
        count = 1
        if self.micro_batch is not None:
            count = max(1, min(math.ceil(number / self.micro_batch), number // 2))
        bounds = np.linspace(0, number, count + 1).round().astype(int).tolist()
        return list(itertools.pairwise(bounds))

    def _without_exchange(self) -> contextlib.AbstractContextManager[None]:
        """Gradients of all but the last part of a batch stay in their process."""
        if isinstance(self.parallel, nn.parallel.DistributedDataParallel):
            return self.parallel.no_sync()
        return contextlib.nullcontext()

    # -- stopping ----------------------------------------------------------------------------------------------------

    def _stopped(self, at: TrainingState, length: int) -> None:
        self._keep(at)
        raise KeyboardInterrupt(f"stopped in epoch {at.epoch} of {self.settings.epochs}, step {at.batches} of {length}")

    def _keep(self, at: TrainingState) -> None:
        if self.keeper is not None and distributed.is_main():
            self.keeper.save(at, self.model, self.optimizer)
        self.saved = time.monotonic()

    # -- checks ------------------------------------------------------------------------------------------------------

    def _check(self, labels: Tensor) -> None:
        if len(labels) < 2 and distributed.world_size() == 1:
            raise InvalidInputError(
                "The 'images' parameter must give at least two images in every batch, because batch normalisation has "
                "no variance over one. Got one; add images, or join a last image and the batch before it."
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.model.n_classes:
            raise InvalidInputError(
                f"The labels must be from 0 to {self.model.n_classes - 1}, for the {self.model.n_classes} classes of "
                f"the model. Got values from {low} to {high}; number the classes from 0, or make a model for more "
                "classes."
            )

    def _require_finite_start(self, at: TrainingState) -> None:
        found = not_finite(self.model.state_dict())
        if found is not None:
            raise TrainingError(
                f"The 'model' parameter must have finite weights before its training. Got {found}"
                + (f" behind {at.batches} steps of epoch {at.epoch}" if at.batches else "")
                + "; use other weights, or train what they come from again."
            )

    def _require_finite_weights(self, epoch: int) -> None:
        for name, tensor in self.model.state_dict().items():
            if not_finite({name: tensor}) is not None:
                raise _diverged(f"{name!r} became infinite or NaN in the last steps of epoch {epoch}")


# -- batches -------------------------------------------------------------------------------------------------------


def _of_images(
    images: ImageSet,
    preprocessing: Preprocessing,
    settings: TrainingSettings,
    seed: int,
    workers: int,
    *,
    pinned: bool,
) -> Batches:
    rank, processes = distributed.rank(), distributed.world_size()
    least = 2 * processes
    if len(images) < least:
        what = "two images" if processes == 1 else f"two images for each of {processes} processes"
        raise InvalidInputError(f"The 'images' parameter must hold at least {what}. Got {len(images)}.")
    if settings.batch_size < least:
        raise InvalidInputError(
            f"The 'batch_size' parameter must be at least {least}, two images for each of {processes} processes. Got "
            f"{settings.batch_size}; raise it, or start fewer processes."
        )
    # One loader for all epochs: workers stay alive in between.
    loader = make_loader(
        images,
        preprocessing.transform(settings.augmentation),
        batch_size=settings.batch_size,
        shuffle=True,
        balanced=settings.sampling == BALANCED,
        seed=seed,
        workers=workers,
        least_batch=least,
        share=(rank, processes),
        pinned=pinned,
    )
    return lambda epoch, first: (len(loader), loader.go_to(epoch, first))


def _class_weights(labels: npt.NDArray[np.int64], n_classes: int) -> Tensor:
    """(n_classes,) float32, n / (number of classes × n of the class); 0 for classes without an image."""
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    weights = np.zeros(max(n_classes, int(present.max(initial=0)) + 1), dtype=np.float32)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return torch.from_numpy(weights)


def _refuse_balance(settings: TrainingSettings) -> None:
    for name in ("class_weights", "sampling"):
        if getattr(settings, name) == BALANCED:
            raise InvalidInputError(
                f"The 'images' parameter must be a set of images where '{name}' is {BALANCED!r}, because a function "
                "does not tell how many images a class has. Got a function; give an ImageSet, or balance its batches."
            )


def _of_function(function: LoaderFactory) -> Batches:
    def batches(epoch: int, first: int) -> tuple[int, Iterable[Batch]]:
        loader = function(epoch)
        if not isinstance(loader, Sized):
            raise InvalidInputError(
                "The 'images' parameter must give batches whose number is known by len(). Got a "
                f"{type(loader).__name__}; give a list or a DataLoader."
            )
        return max(1, len(loader)), itertools.islice(loader, first, None)

    return batches


def _held_out(
    images: ImageSet, preprocessing: Preprocessing, settings: TrainingSettings, workers: int
) -> Iterable[Batch]:
    part = distributed.share(images)
    if not len(part):
        return []
    loader: Iterable[Batch] = make_loader(
        part, preprocessing.transform(), batch_size=settings.batch_size, workers=workers
    )
    return loader


# -- what a training needs -----------------------------------------------------------------------------------------


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
def _random_state_kept(device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def _seed_step(seed: int, epoch: int, batch: int) -> None:
    """Make dropout depend on the number of the step alone."""
    drawn = np.random.SeedSequence([seed, epoch, batch, distributed.rank()]).generate_state(1, np.uint64)
    torch.manual_seed(int(drawn[0]) >> 1)


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second one ends the process as ever."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals are handled there only
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(_number: int, _frame: Any) -> None:
        asked.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _bad_images(images: Tensor) -> str:
    """What to say where it is the images of a batch that hold NaN, which no learning rate helps against."""
    bad = (~torch.isfinite(images).flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if not bad:
        return ""
    return (
        f" It was the images: {len(bad)} of the {len(images)} in this batch hold NaN or infinity, the first at place "
        f"{bad[0]}; leave them out."
    )


def _diverged(what: str, cause: str = "") -> TrainingError:
    return TrainingError(
        f"Training diverged: {what}. Lower the 'learning_rate' (a third is a good next try), set 'gradient_norm' to 1, "
        f"and make sure that the images hold no NaN; the model has the weights of the last good epoch again.{cause}"
    )
