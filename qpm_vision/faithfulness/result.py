"""What was found about the heat maps of a run: plain values that JSON can hold and that come back from it, a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from qpm_opt import InvalidInputError

__all__ = [
    "FORMAT",
    "RESULT",
    "TITLES",
    "Curve",
    "Curves",
    "Faithfulness",
    "FeaturePointing",
    "KindPointing",
    "Pointing",
    "Reach",
    "Stability",
]

FORMAT = 2
"""Version of what `Faithfulness.to_dict` gives."""

RESULT = "faithfulness.json"
"""Where the result of a run is kept."""

TITLES = {
    "features": "heat maps of the pictures",
    "feature": "its own heat map",
    "grad-cam": "Grad-CAM",
    "integrated-gradients": "integrated gradients, by pixel",
    "another-feature": "map of another feature of the class",
    "centre": "from the middle outwards",
    "random": "random regions",
}
"""What the ways to order pixels are called."""


@dataclass(frozen=True)
class Curve:
    """How a score goes when pixels are replaced in the order of one method.

    Attributes:
        mean: Over the images, before each step and after the last one.
        area: Under it, between 0 and 1 where the score is.
        less_than_random: How much smaller the area is than that of random regions on the same image, on average.
        error: Standard error of `less_than_random`; None with fewer than two images.
    """

    mean: list[float]
    area: float
    less_than_random: float
    error: float | None


@dataclass(frozen=True)
class Curves:
    """Deletion or insertion.

    Attributes:
        score: What was looked at.
        images: Over how many images; those in which there is nothing to delete do not count.
        methods: A curve for each way to order pixels; none without images.
    """

    score: str
    images: int
    methods: dict[str, Curve]


@dataclass(frozen=True)
class Stability:
    """Mean correlation of the heat maps of features before and after the image is shifted, for each distance.

    Attributes:
        shifts: Distances in pixels, each in four directions.
        shifted_back: After the map is shifted back by as much.
        not_shifted_back: The same without shifting back.
        other_image: With the map of the same feature in another image.
        same_class: Share of shifted images that get the class that they had.
    """

    shifts: list[int]
    shifted_back: list[float | None]
    not_shifted_back: list[float | None]
    other_image: list[float | None]
    same_class: list[float | None]


@dataclass(frozen=True)
class Reach:
    """How much of what a place of the maps depends on lies there; see `reach.input_shares`.

    Attributes:
        own: Share of it within the pixels of the place.
        own_area: Share of the image that these take: what `own` is if a place depends on all of the image alike.
        near: Share within the place and its eight neighbours.
        near_area: Share of the image that these take.
    """

    own: float | None
    own_area: float
    near: float | None
    near_area: float


@dataclass(frozen=True)
class FeaturePointing:
    """Whether a feature is at the part that it stands for, in test images of classes that have both.

    Attributes:
        feature: Its number in the backbone.
        kind: Kind of the part.
        value: The part.
        n_classes: Classes that the feature describes.
        n_sharing: Those of them that have the part.
        n_with_part: Classes that have the part.
        p_value: Of as many sharing it by chance.
        images: Test images that were looked at; none where the part takes no place.
        hit: Share of them in which the strongest place of the map lies in the box of the part.
        heat: Share of the heat in the box.
        chance: What `hit` is for a random map of as many places.
        area: Share of the image that the box takes.
        centre: What `hit` is for the middle of the image.
        other_image: What `hit` is in the box that a part of this kind has in another image.
        elsewhere: What `hit` is in the box of each kind of part of the same image.
    """

    feature: int
    kind: str
    value: str
    n_classes: int
    n_sharing: int
    n_with_part: int
    p_value: float
    images: int
    hit: float | None
    heat: float | None
    chance: float | None
    area: float | None
    centre: float | None
    other_image: float | None
    elsewhere: dict[str, float | None]


@dataclass(frozen=True)
class KindPointing:
    """Means over the features that stand for a part of a kind, each feature counting once.

    Attributes:
        features: How many.
        images: Test images, a feature and an image counting once.
        hit: As for `FeaturePointing`, like the others.
        error: Standard error of `hit` over features; None with fewer than two.
        heat: Share of the heat in the box.
        chance: For random maps.
        area: Of the boxes.
        centre: For the middle of the image.
        other_image: For boxes of other images.
        elsewhere: For the boxes of each kind of the same image.
    """

    features: int
    images: int
    hit: float | None
    error: float | None
    heat: float | None
    chance: float | None
    area: float | None
    centre: float | None
    other_image: float | None
    elsewhere: dict[str, float | None]


@dataclass(frozen=True)
class Pointing:
    """Whether features are where the parts are that they stand for.

    Attributes:
        rule: When a feature stands for a part.
        test_images: Test images.
        located: Test images in which the places of parts are known.
        without_meaning: Features that describe a class and stand for no part.
        without_place: Features that stand for a part that takes no place, such as no final.
        kinds: Means for each kind of part.
        features: Each feature that stands for a part.
    """

    rule: str
    test_images: int
    located: int
    without_meaning: int
    without_place: int
    kinds: dict[str, KindPointing]
    features: list[FeaturePointing]


@dataclass(frozen=True)
class Faithfulness:
    """How far heat maps can be trusted.

    Attributes:
        model: Digest of the weights of the model that was measured, `weights_digest`.
        images: Test images that were perturbed and shifted.
        seed: Of their choice and of all that is random.
        input_size: Side of the model's input in pixels.
        map_size: Rows and columns of the maps.
        reach: How much of what a place of the maps depends on lies there.
        deletion: Of the score of the predicted class; small areas are good.
        insertion: Of the same score; large areas are good.
        feature_deletion: Of the activation of the feature that adds most.
        agreement: Mean correlation of the heat maps of pictures with those of other methods.
        stability: Under small shifts.
        pointing: Where the places of parts are known, else None.
    """

    model: str
    images: int
    seed: int
    input_size: int
    map_size: tuple[int, int]
    reach: Reach
    deletion: Curves
    insertion: Curves
    feature_deletion: Curves
    agreement: dict[str, float | None]
    stability: Stability
    pointing: Pointing | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, with the version of their layout as "format"."""
        return {"format": FORMAT, **_plain(asdict(self))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave.

        Raises:
            InvalidInputError: It is of another version, or something is missing.
        """
        values = dict(data)
        version = values.pop("format", None)
        if version != FORMAT:
            raise InvalidInputError(
                f"The 'data' parameter must have the layout {FORMAT}. Got {version!r}, that of another version of qpm; "
                "measure again."
            )
        try:
            height, width = values["map_size"]
            values |= {name: _curves(values[name]) for name in ("deletion", "insertion", "feature_deletion")}
            values |= {
                "map_size": (int(height), int(width)),
                "reach": Reach(**values["reach"]),
                "stability": Stability(**values["stability"]),
                "pointing": None if values["pointing"] is None else _pointing(values["pointing"]),
            }
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(
                f"The 'data' parameter must hold what to_dict() gave. Got something else ({error}); measure again."
            ) from error

    def __str__(self) -> str:
        rows, columns = self.map_size
        high = f"{self.input_size / rows:g} pixels high"
        lines = [
            f"{self.images} test images of {self.input_size} pixels; maps of {rows} × {columns} places, each {high}",
            *_reach_lines(self.reach),
            "",
            *_curve_lines("area under deletion, lower is better", self.deletion),
            "",
            *_curve_lines("area under insertion, higher is better", self.insertion),
            "",
            *_curve_lines("area under deletion, lower is better", self.feature_deletion),
            "",
            "correlation of the heat maps of pictures with",
            *(f"  {name:<26} {_number(value)}" for name, value in self.agreement.items()),
            "",
            *_stability_lines(self.stability),
        ]
        if self.pointing is not None:
            lines += ["", *_pointing_lines(self.pointing)]
        return "\n".join(lines)


def _curves(data: Mapping[str, Any]) -> Curves:
    return Curves(**{**data, "methods": {name: Curve(**curve) for name, curve in data["methods"].items()}})


def _pointing(data: Mapping[str, Any]) -> Pointing:
    kinds = {name: KindPointing(**kind) for name, kind in data["kinds"].items()}
    return Pointing(**{**data, "kinds": kinds, "features": [FeaturePointing(**item) for item in data["features"]]})


def _reach_lines(found: Reach) -> list[str]:
    return [
        "of what a place depends on",
        f"  lies within it             {_percent(found.own)} % ({100 * found.own_area:.1f} % of the image)",
        f"  and within its neighbours  {_percent(found.near)} % ({100 * found.near_area:.1f} % of the image)",
    ]


def _curve_lines(title: str, curves: Curves) -> list[str]:
    lines = [f"{curves.score}: {title} ({curves.images} images)"]
    for name, curve in curves.methods.items():
        error = "" if curve.error is None else f" ± {curve.error:.3f}"
        against = "" if name == "random" else f"   {-curve.less_than_random:+.3f}{error} against random regions"
        lines.append(f"  {name:<26} {curve.area:.3f}{against}")
    return lines


def _stability_lines(found: Stability) -> list[str]:
    rows = (
        ("shifted back", found.shifted_back),
        ("not shifted back", found.not_shifted_back),
        ("of another image", found.other_image),
        ("(same class)", found.same_class),
    )
    lines = ["correlation of heat maps" + " " * 5 + "".join(f"{shift:>5} px" for shift in found.shifts)]
    return lines + [f"  {name:<26} " + "  ".join(f"{_number(value):>6}" for value in values) for name, values in rows]


def _pointing_lines(found: Pointing) -> list[str]:
    lines = [
        f"features at the part that they stand for ({found.rule})",
        f"  {len(found.features)} stand for a part, {found.without_place} of them for one that takes no place",
        f"  {found.without_meaning} stand for no part",
        f"  places are known in {found.located:,} of {found.test_images:,} test images",
        f"  {'part':<10} features  images      hit      chance   area  centre  other image  heat in box   hit in …",
    ]
    for kind, item in found.kinds.items():
        error = "" if item.error is None else f" ± {100 * item.error:.1f}"
        elsewhere = ", ".join(f"{name} {_percent(value)}" for name, value in item.elsewhere.items())
        lines.append(
            f"  {kind:<10} {item.features:>8} {item.images:>7,} {_percent(item.hit):>9}{error:<6} "
            f"{_percent(item.chance):>6} {_percent(item.area):>6} {_percent(item.centre):>7} "
            f"{_percent(item.other_image):>12} {_percent(item.heat):>12}   {elsewhere}"
        )
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _plain(value: Any) -> Any:
    """NaN becomes None, which JSON has."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
