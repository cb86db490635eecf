"""What the figures say about heat maps, in words, by a rule that is stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from qpm_vision.faithfulness.result import Curves, Faithfulness

__all__ = ["RULE", "Verdict", "beats_random", "judge"]

_Ways: TypeAlias = tuple[bool | None, bool | None]
"""Whether a method is better than random regions at deletion and at insertion."""

_CONFIDENCE = 0.95

RULE = (
    "Better than random regions is what has a smaller area under deletion, or a larger one under insertion, than they "
    "have on the same images, by so much that the 95 % confidence interval of the mean difference (Student's t) "
    "leaves out 0. Heat maps point at what decides if they are better at both."
)
"""How `judge` comes to its verdict."""

_SENTENCES: dict[_Ways, str] = {
    (True, True): "Heat maps point at what decides: deleting what they highlight takes more of the score away than "
    "deleting random regions, and showing it alone brings more of it back.",
    (True, False): "Heat maps point at what decides only in part: deleting what they highlight takes more of the score "
    "away than deleting random regions, but showing it alone brings no more of it back.",
    (False, True): "Heat maps point at what decides only in part: showing what they highlight brings more of the score "
    "back than showing random regions, but deleting it takes no more away.",
    (False, False): "Heat maps are no better than random regions here: read them as which feature is there, not as "
    "where it is.",
}
_UNKNOWN = "Too few images were measured to tell whether heat maps are better than random regions."

_AT: dict[_Ways, str] = {
    (True, True): "better than random regions at both deletion and insertion",
    (True, False): "better than random regions at deletion only",
    (False, True): "better than random regions at insertion only",
    (False, False): "no better than random regions",
}


@dataclass(frozen=True)
class Verdict:
    """Whether heat maps can be trusted.

    Attributes:
        sentence: The verdict, and whether knowing the middle of images would do as well.
        remarks: What puts it into perspective, as sentences.
        rule: How it was come to.
        deletion: For each method whether it is better than random regions at deletion; None where too few images tell.
        insertion: The same at insertion.
        feature_deletion: The same at deletion of one feature.
    """

    sentence: str
    remarks: list[str]
    rule: str
    deletion: dict[str, bool | None]
    insertion: dict[str, bool | None]
    feature_deletion: dict[str, bool | None]

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(f"  {remark}" for remark in self.remarks)])


def judge(found: Faithfulness) -> Verdict:
    """Come to a verdict by `RULE`."""
    deletion = beats_random(found.deletion)
    insertion = beats_random(found.insertion, insertion=True)
    feature_deletion = beats_random(found.feature_deletion)
    heat, peer = ((deletion.get(name), insertion.get(name)) for name in ("features", "grad-cam"))
    return Verdict(
        sentence=" ".join([_SENTENCES.get(heat, _UNKNOWN), *_on_the_middle(found)]),
        remarks=[
            *_on_the_peer(heat, peer),
            *_on_a_feature(feature_deletion.get("feature")),
            *_on_reach(found),
        ],
        rule=RULE,
        deletion=deletion,
        insertion=insertion,
        feature_deletion=feature_deletion,
    )


def beats_random(curves: Curves, *, insertion: bool = False) -> dict[str, bool | None]:
    """Whether each method is better than random regions by more than chance explains; None where nobody can tell.

    Args:
        curves: Deletion or insertion.
        insertion: Whether large areas are good.
    """
    from scipy.stats import t

    found: dict[str, bool | None] = {}
    for name, curve in curves.methods.items():
        if name == "random":
            continue
        gain = -curve.less_than_random if insertion else curve.less_than_random
        error = curve.error
        found[name] = None if error is None else bool(gain > error * t.ppf((1 + _CONFIDENCE) / 2, curves.images - 1))
    return found


def _on_the_peer(heat: _Ways, peer: _Ways) -> list[str]:
    if None in heat or None in peer:
        return []
    likewise = "likewise " if heat == peer else ""
    return [f"Grad-CAM, at the same layer of the same model, is {likewise}{_AT[peer]}."]


def _on_the_middle(found: Faithfulness) -> list[str]:
    """Whether it is enough to know that things are in the middle of images, by the mean areas."""
    ways = [
        name
        for name, curves, sign in (("deletion", found.deletion, 1), ("insertion", found.insertion, -1))
        if {"features", "centre"} <= set(curves.methods)
        and sign * curves.methods["centre"].area <= sign * curves.methods["features"].area
    ]
    if not ways:
        return []
    listed = " and ".join(ways)
    return [f"Regions from the middle of the image outwards, whatever is in it, do at least as well at {listed}."]


def _on_a_feature(better: bool | None) -> list[str]:
    if better is None:
        return []
    how = "more" if better else "no more"
    return [f"A single feature falls {how} with what its own map highlights than with random regions."]


def _on_reach(found: Faithfulness) -> list[str]:
    reach = found.reach
    if reach.own is None:
        return []
    own, alike = (f"{100 * share:.2f} %" for share in (reach.own, reach.own_area))
    return [f"Of what a place of the maps depends on, {own} lies within it ({alike} if it depended on all alike)."]
