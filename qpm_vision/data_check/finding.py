"""What a check says: findings in plain words, with numbers, examples and a cure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LEVELS", "Finding", "Seen", "sorted_findings"]

LEVELS = ("wrong", "doubtful", "note")
"""How much a finding matters: scores or models are wrong; they may be; good to know."""

_ORDER = (
    "one split only",
    "leak, exact",
    "leak, near",
    "contradiction, exact",
    "contradiction, near",
    "giveaway",
    "left out",
    "imbalance",
    "few",
    "repeats, exact",
    "repeats, near",
    "split",
    "wrong ending",
    "nested",
)


@dataclass(frozen=True)
class Seen:
    """An image among the examples of a finding.

    Attributes:
        name: What the data call it.
        class_name: Its class.
        part: "train", "test", …
        index: Its position among all images that were looked at; None where it cannot be shown.
    """

    name: str
    class_name: str
    part: str
    index: int | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that is worth knowing before training.

    Attributes:
        kind: What it is, always in the same words.
        level: One of `LEVELS`.
        title: In a line.
        text: In sentences.
        cure: What to do.
        numbers: The same as numbers, for JSON.
        examples: Images that belong together, the worst first; some of them.
    """

    kind: str
    level: str
    title: str
    text: str
    cure: str
    numbers: dict[str, Any] = field(default_factory=dict)
    examples: list[list[Seen]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)


def sorted_findings(findings: list[Finding]) -> list[Finding]:
    """What matters most first."""
    return sorted(findings, key=lambda item: (LEVELS.index(item.level), _ORDER.index(item.kind)))
