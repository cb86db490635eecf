"""Text in pictures that is never a row of boxes.

matplotlib draws a glyph with the first font of a list that has it. Names in scripts that its own font lacks get a
second font if one is installed; otherwise what can be drawn of the name is kept.
"""

from __future__ import annotations

import string
from functools import lru_cache

__all__ = ["drawable", "font_families"]

_OWN = "DejaVu Sans"
_PREFERRED = (
    "Noto Sans CJK",
    "Source Han Sans",
    "Noto Sans KR",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
    "NanumGothic",
    "NanumBarunGothic",
    "UnDotum",
    "Baekmuk Gulim",
    "WenQuanYi",
    "Yu Gothic",
    "Microsoft YaHei",
    "SimHei",
)


def font_families(*texts: str) -> list[str]:
    """Font families for these texts, for matplotlib's `fontfamily`: its own font, and one that fills gaps."""
    missing = _missing("".join(texts), (_OWN,))
    extra = _font_with(missing) if missing else None
    return [_OWN] if extra is None else [_OWN, extra]


def drawable(text: str) -> str:
    """The text, or what of it installed fonts can draw; code points (U+AC00) where nothing would be left.

    Example:
        >>> drawable("House Wren")
        'House Wren'
    """
    missing = set(_missing(text, tuple(font_families(text))))
    if not missing:
        return text
    kept = "".join(character for character in text if character not in missing)
    kept = " ".join(kept.replace("()", " ").replace("[]", " ").split()).strip(string.punctuation + " ")
    return kept or " ".join(f"U+{ord(character):04X}" for character in text if not character.isspace())


@lru_cache(maxsize=4096)
def _missing(text: str, families: tuple[str, ...]) -> str:
    """The characters that none of the families has, sorted, each once."""
    characters = {character for character in text if not character.isspace() and not character.isascii()}
    for family in families:
        if characters:
            characters -= {character for character in characters if ord(character) in _coverage(family)}
    return "".join(sorted(characters))


@lru_cache(maxsize=64)
def _coverage(family: str) -> frozenset[int]:
    from matplotlib import font_manager

    path = font_manager.findfont(font_manager.FontProperties(family=[family]))
    return frozenset(font_manager.get_font(path).get_charmap())


@lru_cache(maxsize=256)
def _font_with(characters: str) -> str | None:
    """An installed family with all the characters, a well-known one if possible."""
    found = _search(characters)
    if found is None and _learn_new_fonts():
        found = _search(characters)
    return found


def _search(characters: str) -> str | None:
    from matplotlib import font_manager

    regular = {
        entry.name
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal" and str(entry.weight) in ("400", "normal", "regular", "book")
    }
    # "Last Resort" has a glyph for everything: a box.
    ranked = sorted((name for name in regular if not name.startswith("Last Resort")), key=lambda n: (_rank(n), n))
    for family in ranked:
        try:
            if all(ord(character) in _coverage(family) for character in characters):
                return family
        except (OSError, RuntimeError, ValueError):  # a damaged font file, or one that went away
            continue
    return None


@lru_cache(maxsize=1)
def _learn_new_fonts() -> int:
    """Tell matplotlib of fonts that were installed after it made its list; returns how many there are."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    count = 0
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            font_manager.fontManager.addfont(path)
            count += 1
        except (OSError, RuntimeError, ValueError):
            continue
    return count


def _rank(name: str) -> int:
    return next((place for place, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED))
