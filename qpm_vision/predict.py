"""Using a finished model: the class of an image, and which of its features decided."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError, QPMError
from qpm_vision._finite_output import require_finite_output
from qpm_vision._image_input import ImageInput, OnUnreadable, read_images, refuse
from qpm_vision._preflight import pick_device
from qpm_vision._torch_state import plain_torch
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.data.images import TOO_LARGE, UnreadableImageError
from qpm_vision.explain.gallery import Gallery, read_gallery
from qpm_vision.explain.heatmaps import strength, upsample
from qpm_vision.feature_names import feature_label, feature_names
from qpm_vision.model import ModelOutput, QPMClassifier
from qpm_vision.preprocessing import ImageTransform, Preprocessing
from qpm_vision.run_folder import RunFolder, RunFolderError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["Contribution", "Explanation", "Prediction", "Predictor", "load_model"]

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

_GRID = 2.0**-24
"""Contributions are multiples of this, half of what float32 resolves at 1.

Sums of such numbers are exact in float64 up to 2**29 whatever their order, so what a feature adds is what the logit has
of it, to the last digit.
"""


@dataclass(frozen=True)
class Contribution:
    """What one feature adds to the logit of a class that it describes.

    Attributes:
        feature: Its number in the backbone, as in pictures and tables.
        column: Its position among the kept features.
        contribution: Its normalised activation, in standard deviations above its mean over the training images.
        shared: Whether it describes both the predicted class and the runner-up, and so does not tell them apart.
        name: What people call it, or None.
    """

    feature: int
    column: int
    contribution: float
    shared: bool
    name: str | None = None

    @property
    def label(self) -> str:
        """Like "feature 17", or its name with the number."""
        return feature_label(self.feature, {} if self.name is None else {self.feature: self.name})


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a model says about one image, and why.

    The contributions of `features` add up to the logit of the class, exactly. Those that are not shared, less those of
    `instead`, add up to its lead over the logit of the runner-up.

    Attributes:
        image_name: Path of the image, or what it was called.
        class_names: Names of all classes.
        class_index: Position of the predicted class.
        runner_up_index: Position of the class with the second highest logit.
        logits: (n_classes,) float64.
        scores: (n_classes,) float64, the softmax of the logits: they add up to 1, and are not calibrated.
        features: What describes the predicted class, the highest contribution first.
        instead: What describes the runner-up and not the predicted class, the highest contribution first.
    """

    image_name: str
    class_names: tuple[str, ...]
    class_index: int
    runner_up_index: int
    logits: DoubleArray
    scores: DoubleArray
    features: tuple[Contribution, ...]
    instead: tuple[Contribution, ...]

    @property
    def class_name(self) -> str:
        """Name of the predicted class."""
        return self.class_names[self.class_index]

    @property
    def runner_up(self) -> str:
        """Name of the class with the second highest logit."""
        return self.class_names[self.runner_up_index]

    @property
    def score(self) -> float:
        """Score of the predicted class, between 0 and 1."""
        return float(self.scores[self.class_index])

    def features_of_runner_up(self) -> tuple[Contribution, ...]:
        """What describes the runner-up, the highest contribution first; adds up to its logit."""
        return _descending([item for item in self.features if item.shared] + list(self.instead))

    def best(self, number: int) -> list[tuple[str, float, float]]:
        """Name, score and logit of the classes with the highest logits, the highest first."""
        order = np.argsort(-self.logits, kind="stable")[:number].tolist()
        return [(self.class_names[index], float(self.scores[index]), float(self.logits[index])) for index in order]

    def to_dict(self, top: int = 2) -> dict[str, Any]:
        """Plain values that JSON can hold.

        Args:
            top: How many classes are listed, the most likely ones.
        """
        return {
            "image": self.image_name,
            "class": self.class_name,
            "index": self.class_index,
            "score": self.score,
            "runner_up": self.runner_up,
            "features": [_plain(item) for item in self.features],
            "instead": [_plain(item) for item in self.instead],
            "top": [{"class": name, "score": score, "logit": logit} for name, score, logit in self.best(top)],
        }

    def __repr__(self) -> str:
        logit, other = (self.logits[index] for index in (self.class_index, self.runner_up_index))
        runner_up = f"{self.runner_up}, {self.scores[self.runner_up_index]:.1%} ({other:.3f})"
        lines = [f"{self.image_name}: {self.class_name}, {self.score:.1%} (logit {logit:.3f}); runner-up {runner_up}"]
        width = max(14, *(len(item.label) for item in (*self.features, *self.instead)))
        for item in self.features:
            also = f"  also of {self.runner_up}" if item.shared else ""
            lines.append(f"  {item.label:<{width}} {item.contribution:+8.3f}{also}")
        if self.instead:
            lines.append(f"instead, {self.runner_up} has")
            lines += [f"  {item.label:<{width}} {item.contribution:+8.3f}" for item in self.instead]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Prediction):
    """A prediction with the places that its features look at.

    Attributes:
        image: (size, size, 3) float32 in [0, 1], the image as the model sees it.
        heat_maps: (n, size, size) float32 in [0, 1], for those of `features` and then of `instead`: how strongly
            the feature is present at each pixel of `image`. 1: as strongly as the 99 % quantile of its maxima over the
            training images; 0: not active.
        n_images: Training images that the quantile was taken over.
    """

    image: FloatArray
    heat_maps: FloatArray
    n_images: int

    def plot(self, fig: Figure | None = None) -> tuple[Figure, npt.NDArray[Any]]:
        """Draw the predicted class and the runner-up, a row each: every feature on the image, and what it adds.

        Args:
            fig: Where to draw; a new figure by default.

        Returns:
            The figure and its axes, (2, 2 + features): a label, the image, and the features of the class.
        """
        from qpm_vision.explain.decision import draw_decision

        return draw_decision(self, fig)

    def _repr_html_(self) -> str:
        from qpm_vision.explain.html import explanation_html

        return explanation_html(self)


@dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """An interpretable model, ready to be used under the preprocessing that it was trained with.

    Attributes:
        model: The model, in evaluation mode.
        preprocessing: Its preprocessing.
        class_names: A name for each of at least two classes.
        gallery: What is known of its features on the training images; None: heat maps cannot be scaled.
        feature_names: Names that people gave to features, by their numbers.

    Raises:
        InvalidInputError: There are other numbers of classes, or fewer than two.
    """

    model: QPMClassifier
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    gallery: Gallery | None = None
    feature_names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.class_names) != self.model.n_classes or len(self.class_names) < 2:
            raise InvalidInputError(
                f"The 'class_names' parameter must name each of the model's classes, at least 2. Got "
                f"{len(self.class_names)} names for {self.model.n_classes} classes."
            )
        self.model.eval()

    @property
    def assignment(self) -> pd.DataFrame:
        """Which features describe which class: (n_classes, n_select) of 0/1, named by classes and features."""
        import pandas as pd

        return pd.DataFrame(self._weights().astype(np.uint8), index=list(self.class_names), columns=self._numbers())

    @property
    def statistics(self) -> pd.DataFrame:
        """What is known of each kept feature, a row each, named by the features.

        `mean` and `std` are those of its pooled activation over the training images, `full_strength` is the 99 %
        quantile of its maxima (NaN without a gallery), `classes` how many classes it describes.
        """
        import pandas as pd

        columns = {
            "mean": self.model.mean.cpu().numpy(),
            "std": self.model.std.cpu().numpy(),
            "full_strength": np.nan if self.gallery is None else self.gallery.scale,
            "classes": self._weights().sum(axis=0).astype(np.int64),
        }
        return pd.DataFrame(columns, index=pd.Index(self._numbers(), name="feature"))

    def predict(self, images: ImageInput, *, batch_size: int = 32) -> list[Prediction]:
        """Classify images.

        Args:
            images: A picture of Pillow, an array (H, W, 3) or (N, H, W, 3) uint8, a path of a file or of a folder that
                is searched with all folders in it, a set of images, or a sequence of these.
            batch_size: Images that are computed at once, at least 1.

        Returns:
            A prediction for each image, also where there is only one; files of a folder in natural order.

        Raises:
            InvalidInputError: Something is no image.
            UnreadableImageError: An image cannot be read, or a folder has none.
        """
        return list(self.stream(images, batch_size=batch_size))

    def stream(
        self, images: ImageInput, *, batch_size: int = 32, on_unreadable: OnUnreadable = refuse
    ) -> Iterator[Prediction]:
        """Classify images one after the other, with no more than a batch of them in memory.

        Args:
            images: As for `predict`; may also be an iterator without an end.
            batch_size: Images that are computed at once, at least 1.
            on_unreadable: Told of images that cannot be read, which are left out; by default they are errors.

        Raises:
            InvalidInputError: Something is no image.
            UnreadableImageError: By default: an image cannot be read.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidInputError(f"The 'batch_size' parameter must be an integer of at least 1. Got {batch_size!r}.")
        return self._stream(images, batch_size, on_unreadable)

    def explain(self, image: ImageInput) -> Explanation:
        """Classify one image, and show where on it the features are.

        Args:
            image: One image, as for `predict`.

        Raises:
            InvalidInputError: It is no image or several, or the run has no gallery yet.
            UnreadableImageError: It cannot be read.
        """
        if self.gallery is None:
            raise InvalidInputError(
                "The model must come from a finished run to explain images: it is known then how strong its features "
                "get. Got one without a gallery; continue the run with the command that began it."
            )
        found = list(islice(_transformed(read_images(image), self.preprocessing.transform(), refuse), 2))
        if len(found) != 1:
            raise InvalidInputError(
                f"The 'image' parameter must be one image. Got {'several' if found else 'none'}; call explain for each."
            )
        ((name, pixels),) = found
        output = self._look(pixels[None])
        prediction = next(self._decide([name], output))
        maps, scale, size = output.maps[0].float().cpu().numpy(), self.gallery.scale, self.preprocessing.size
        shown = [item.column for item in (*prediction.features, *prediction.instead)]
        heat_maps = [upsample(strength(maps[column], float(scale[column])), size, size) for column in shown]
        return Explanation(
            **{item.name: getattr(prediction, item.name) for item in fields(prediction)},
            image=self.preprocessing.picture(pixels),
            heat_maps=np.stack(heat_maps),
            n_images=int(self.gallery.n_images.sum()),
        )

    def __repr__(self) -> str:
        n_select = len(self.model.selected)
        return (
            f"Predictor({len(self.class_names)} classes, {n_select} features, {self._weights().sum(axis=1).mean():g} "
            f"per class, images of {self.preprocessing.size} pixels)"
        )

    # -- steps -------------------------------------------------------------------------------------------------------

    def _stream(self, images: ImageInput, batch_size: int, on_unreadable: OnUnreadable) -> Iterator[Prediction]:
        transform = self.preprocessing.transform()
        source = _transformed(read_images(images, on_unreadable), transform, on_unreadable)
        while batch := list(islice(source, batch_size)):
            names, pixels = zip(*batch, strict=True)
            yield from self._decide(names, self._look(torch.stack(pixels)))

    def _look(self, pixels: Tensor) -> ModelOutput:
        with plain_torch(), torch.no_grad():
            output: ModelOutput = self.model(pixels.to(self.model.weight.device))
        return output

    def _decide(self, names: Sequence[str], output: ModelOutput) -> Iterator[Prediction]:
        require_finite_output(self.model, output, names)
        normalised = self.model.normalise(output.features).float().cpu().numpy().astype(np.float64)
        contributions = np.rint(normalised / _GRID) * _GRID
        weights, numbers = self._weights(), self._numbers()
        logits = contributions @ weights.T
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        order = np.argsort(-logits, axis=1, kind="stable")[:, :2].tolist()
        for row, (first, second) in enumerate(order):
            own, other = weights[first] > 0, weights[second] > 0
            items = [
                Contribution(
                    number,
                    column,
                    float(contributions[row, column]),
                    bool(own[column] and other[column]),
                    self.feature_names.get(number),
                )
                for column, number in enumerate(numbers)
            ]
            yield Prediction(
                image_name=names[row],
                class_names=self.class_names,
                class_index=first,
                runner_up_index=second,
                logits=logits[row],
                scores=scores[row],
                features=_descending([item for item in items if own[item.column]]),
                instead=_descending([item for item in items if other[item.column] and not own[item.column]]),
            )

    def _weights(self) -> DoubleArray:
        return self.model.weight.detach().cpu().numpy().astype(np.float64)

    def _numbers(self) -> list[int]:
        numbers: list[int] = self.model.selected.tolist()
        return numbers


@plain_torch()
def load_model(run: RunFolder | str | os.PathLike[str], *, device: str = "auto") -> Predictor:
    """Load the interpretable model of a run, to use it.

    Args:
        run: The run folder; its fine-tuning must be finished. Its data are not needed.
        device: Where to compute: "cpu", "cuda", …; "auto" takes what is there.

    Raises:
        RunFolderError: The run has no finished model, or its files are damaged.
        InvalidInputError: There is no such device.

    Example:
        model = qpm_vision.load_model("my-run")
        model.predict("photo.jpg")
    """
    folder = RunFolder.open(run)
    folder.require("fine-tuning", "has no finished model")
    file = folder.path / "qpm.safetensors"
    where = pick_device(device)
    try:
        model, preprocessing, extra = load_checkpoint(file, device=where)
    except QPMError as error:
        raise RunFolderError(f"{error} Train again with `--redo fine-tuning`.") from error
    if not isinstance(model, QPMClassifier) or not extra.get("class_names"):
        raise RunFolderError(
            f"The file {str(file)!r} must hold an interpretable model and the names of its classes. Got a "
            f"{type(model).__name__}; train again with `--redo fine-tuning`."
        )
    explained = "explanation" in folder.stages()
    gallery = read_gallery(folder, n_classes=model.n_classes, n_select=len(model.selected)) if explained else None
    return Predictor(model, preprocessing, tuple(extra["class_names"]), gallery, feature_names(folder))


def _transformed(
    pictures: Iterator[tuple[str, Image]], transform: ImageTransform, on_unreadable: OnUnreadable
) -> Iterator[tuple[str, Tensor]]:
    for name, picture in pictures:
        try:
            pixels = transform(picture)
        except MemoryError:
            on_unreadable(UnreadableImageError(name, TOO_LARGE))
        else:
            yield name, pixels


def _descending(items: Sequence[Contribution]) -> tuple[Contribution, ...]:
    return tuple(sorted(items, key=lambda item: (-item.contribution, item.column)))


def _plain(item: Contribution) -> dict[str, Any]:
    return {"feature": item.feature, "name": item.name, "contribution": item.contribution, "shared": item.shared}
