"""Names as text: of files whose names are no UTF-8."""

from __future__ import annotations

import re

__all__ = ["readable", "utf8"]

_HALF = re.compile("[\ud800-\udfff]")


def readable(name: str) -> str:
    r"""The name of a file as text that can be written anywhere: bytes that are no UTF-8 become escapes such as `\xe9`.

    Example:
        >>> readable("caf\udce9") == r"caf\xe9"
        True
    """
    return _HALF.sub(lambda half: _escaped(ord(half[0])), name)


def utf8(text: str) -> bytes:
    r"""The text in UTF-8, with escapes such as `\udce9` where it holds bytes of a file name that are none.

    In JSON, whose escapes these are, they come back as they were: a path that is read again finds its file.
    """
    return text.encode("utf-8", "backslashreplace")


def _escaped(half: int) -> str:
    return f"\\x{half - 0xDC00:02x}" if 0xDC80 <= half <= 0xDCFF else f"\\u{half:04x}"
