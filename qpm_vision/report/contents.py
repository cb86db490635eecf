"""What a page shows, as plain values that JSON can hold; positions of classes and columns of W stand for both.

The script of the page reads these names. Pictures are kept apart, because they are large and loaded one by one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from qpm_vision.faithfulness.result import Faithfulness
from qpm_vision.faithfulness.verdict import Verdict
from qpm_vision.report.confusion import Confusion
from qpm_vision.report.costs import Prices, Swap
from qpm_vision.report.findings import Finding
from qpm_vision.report.kinship import Difference
from qpm_vision.report.pictures import Picture

__all__ = [
    "ClassEntry",
    "FeatureEntry",
    "HeatMapTest",
    "Histogram",
    "ImageEntry",
    "MapFormat",
    "Metric",
    "Optimisation",
    "Report",
]


@dataclass(frozen=True)
class ClassEntry:
    """One class.

    Attributes:
        name: Its name.
        features: Columns that describe it.
        similarity: A of these columns, what the optimisation knew about them.
        n_train: Training images.
        n_test: Test images.
        n_right: Test images that are classified correctly.
        nearest: Classes that share most features with it.
        swaps: What it would cost to describe it otherwise.
        images: Its best images, empty where it has no pictures.
    """

    name: str
    features: list[int]
    similarity: list[float]
    n_train: int
    n_test: int
    n_right: int
    nearest: list[Difference]
    swaps: list[Swap]
    images: list[int]


@dataclass(frozen=True)
class Histogram:
    """How strong a feature is in the images of its classes and in all others.

    Attributes:
        low: Left edge, in standard deviations above the mean; what lies beyond is counted in the outer bars.
        high: Right edge.
        own: Share of the images of classes that the feature describes, for each bar.
        others: The same for the other images.
    """

    low: float
    high: float
    own: list[float]
    others: list[float]


@dataclass(frozen=True)
class FeatureEntry:
    """One kept feature.

    Attributes:
        number: Its number in the backbone.
        name: What people call it, or None.
        colour: #rrggbb, which it gets wherever no neighbour needs it more.
        bias: b in the optimisation.
        redundancy: Sum of the penalties of its pairs.
        closest: The kept feature whose activations correlate most with its own, and the correlation; None where it or
            all others never vary.
        separation: Probability that an image of its classes has more of it than one of the others; None without both.
        histogram: Of its activation.
        average: Its mean map over the images of its classes, h × w rows of shares of full strength.
        images: Its best images.
    """

    number: int
    name: str | None
    colour: str
    bias: float
    redundancy: float
    closest: tuple[int, float] | None
    separation: float | None
    histogram: Histogram
    average: list[list[float]]
    images: list[int]


@dataclass(frozen=True)
class ImageEntry:
    """One image that is shown.

    Attributes:
        key: What links call it, such as "train-12".
        name: What the data call it.
        label: Its class.
        predicted: The class that it is taken for.
        runner_up: The class with the second highest logit.
    """

    key: str
    name: str
    label: int
    predicted: int
    runner_up: int


@dataclass(frozen=True)
class MapFormat:
    """How pictures are encoded.

    Attributes:
        height: Rows of a map.
        width: Its columns.
        levels: The level of full strength.
        image: Format of thumbnails, "webp" or "jpeg".
        side: Pixels of a thumbnail.
    """

    height: int
    width: int
    levels: int
    image: str
    side: int


@dataclass(frozen=True)
class Metric:
    """One figure of merit.

    Attributes:
        title: What it is called.
        meaning: What it says, in a sentence.
        dense: That of the dense model, as text.
        before: That of the interpretable model before it was fine-tuned; empty where it was not measured.
        qpm: That of the finished model.
    """

    title: str
    meaning: str
    dense: str
    before: str
    qpm: str


@dataclass(frozen=True)
class Optimisation:
    """How the features were chosen.

    Attributes:
        solver: Back end and version.
        termination: Why it stopped.
        runtime: Seconds.
        objective: Z_A + Z_R + Z_B.
        bound: Proven upper bound, or None.
        gap: Relative gap, or None.
        trace: (seconds, best objective or None, bound or None) on the way.
        prices: How the objective comes about.
        charged: Kept pairs with a penalty: (column, column, penalty), the dearest first.
        n_features: Features that there were to choose from.
        threshold: Similarity from which pairs are penalised.
        penalised_share: Share of all pairs that have a penalty.
    """

    solver: str
    termination: str
    runtime: float
    objective: float
    bound: float | None
    gap: float | None
    trace: list[tuple[float, float | None, float | None]]
    prices: Prices
    charged: list[tuple[int, int, float]]
    n_features: int
    threshold: float
    penalised_share: float


@dataclass(frozen=True)
class HeatMapTest:
    """Whether heat maps say what decides, as far as that was measured.

    Attributes:
        missing: Why there are no figures, a sentence; None where there are.
        measured: The figures; None where there are none of this model.
        verdict: What they say.
        titles: What the methods in them are called.
    """

    missing: str | None
    measured: Faithfulness | None = None
    verdict: Verdict | None = None
    titles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that a page shows.

    Attributes:
        title: Name of the data.
        made: Day, ISO 8601.
        version: Of qpm.
        split: "train" or "test": where the images come from.
        n_train: Training images.
        n_test: Test images.
        n_looked: Images that histograms, average maps and best images are made from.
        n_pictured: Classes with pictures.
        accuracy: Share of all test images that are classified correctly, by "dense" and "qpm".
        macro_accuracy: Mean over classes of this share, of "qpm"; None in runs of earlier versions.
        metrics: Figures of merit.
        protocol: What was done, as (what, how).
        classes: All classes.
        features: All kept features, in the order of W's columns.
        images: The images that are shown.
        wrong: Those that are wrongly predicted, the surest mistake first.
        close: Those that are rightly predicted with a close runner-up, the closest first.
        maps: How pictures are encoded.
        confusions: Test images that were taken for another class, the most frequent mistake first.
        class_order: Classes, similar ones together.
        feature_order: Columns, those that occur together together.
        n_apart: Pairs of classes that one feature tells apart.
        apart: The most telling of them: (class, class), those that are confused most first.
        optimisation: How the features were chosen.
        faithfulness: Whether heat maps say what decides.
        findings: What to look at first.
        data_findings: What was found about the data before training: level, title, text and cure of each.
        data_checked: Whether every image was looked at for them; None where nothing was kept.
        pictures: A picture for each of `images`.
    """

    title: str
    made: str
    version: str
    split: str
    n_train: int
    n_test: int
    n_looked: int
    n_pictured: int
    accuracy: dict[str, float]
    macro_accuracy: float | None
    metrics: list[Metric]
    protocol: list[tuple[str, str]]
    classes: list[ClassEntry]
    features: list[FeatureEntry]
    images: list[ImageEntry]
    wrong: list[int]
    close: list[int]
    maps: MapFormat
    confusions: list[Confusion]
    class_order: list[int]
    feature_order: list[int]
    n_apart: int
    apart: list[tuple[int, int]]
    optimisation: Optimisation
    faithfulness: HeatMapTest
    findings: list[Finding]
    data_findings: list[dict[str, str]]
    data_checked: bool | None
    pictures: list[Picture] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain values that JSON can hold."""
        values = asdict(replace(self, pictures=[]))
        del values["pictures"]
        return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """Floats with six digits: more would make the file larger and say nothing."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
