"""Names as text: of files whose names are no UTF-8, and with characters that would move the cursor of a terminal."""

from __future__ import annotations

import re

__all__ = ["printable", "readable", "utf8"]

_HALF = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def readable(name: str) -> str:
    r"""The name of a file as text that can be written anywhere: bytes that are no UTF-8 become escapes such as `\xe9`.

    Example:
        >>> readable("caf\udce9") == r"caf\xe9"
        True
    """
    return _HALF.sub(lambda half: _escaped(ord(half[0])), name)


def printable(text: str) -> str:
    r"""The text with escapes such as `\x1b` for control characters other than line breaks and tabs."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def utf8(text: str) -> bytes:
    r"""The text in UTF-8, with escapes such as `\udce9` where it holds bytes of a file name that are none.

    In JSON, whose escapes these are, they come back as they were: a path that is read again finds its file.
    """
    return text.encode("utf-8", "backslashreplace")


def _escaped(half: int) -> str:
    return f"\\x{half - 0xDC00:02x}" if 0xDC80 <= half <= 0xDCFF else f"\\u{half:04x}"
