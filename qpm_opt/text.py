"""Names that people write: two spellings of one text are one name, and none moves the cursor of a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["alike_but_for_case", "normal_text", "printable"]

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


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


def printable(text: str) -> str:
    r"""The text with escapes such as `\x1b` for control characters other than line breaks and tabs.

    Example:
        >>> printable("\x1b[31mred") == r"\x1b[31mred"
        True
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
