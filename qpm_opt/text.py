"""Names that people write: two spellings of one text are one name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

__all__ = ["alike_but_for_case", "normal_text"]


def normal_text(text: str) -> str:
    r"""The one spelling that every name is kept and looked up in: composed (NFC).

    File systems and keyboards differ in how they spell the same letters: macOS takes 한국 and é apart.

    Example:
        >>> normal_text("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text)


def alike_but_for_case(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that differ in nothing but case, which many file systems take for one; None without any.

    Example:
        >>> alike_but_for_case(["Cat", "dog", "cat"])
        ('Cat', 'cat')
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(normal_text(normal_text(name).casefold()), name)
        if other != name:
            return other, name
    return None
