"""Text in pictures that is what somebody wrote, and never a formula or a row of boxes.

matplotlib takes what stands between two dollar signs for mathematics, and fails where it is none. It draws a glyph with
the first font of a list that has it: names in scripts that its own font lacks get a second font if one is installed;
otherwise what can be drawn of the name is kept.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.text import Text

__all__ = ["drawable", "font_families", "literal_text"]

P = ParamSpec("P")
R = TypeVar("R")

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


_BREAK = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]")
_UNSEEN = frozenset({"Cc", "Cs"})
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Signs that turn the direction of writing, also that of the names behind them."""


def literal_text(draw: Callable[P, R]) -> Callable[P, R]:
    """Let the text that a function draws stand in its picture as it was written, whatever is in it.

    Every function that draws names is decorated with it. Text that was in a given figure before stays as it is.

    Args:
        draw: Returns a figure, or a tuple that begins with one.
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        before = {text: text.get_text() for given in (*args, *kwargs.values()) for text in _texts_around(given)}
        result = draw(*args, **kwargs)
        for text in _texts_around(result[0] if isinstance(result, tuple) else result):
            # Numbers on axes have no text yet: matplotlib writes them last, and may use mathematics for them.
            if text.get_text() and text.get_text() != before.get(text):
                _settle(text)
        return result

    return drawn


def _texts_around(given: Any) -> Iterator[Text]:
    """All text of the figure that an artist of matplotlib belongs to; nothing for anything else."""
    if "matplotlib.artist" not in sys.modules:  # then it cannot be one, and matplotlib may be missing
        return
    from matplotlib.artist import Artist
    from matplotlib.text import Text

    if isinstance(given, Artist):
        figure = given.get_figure(root=True)
        for text in () if figure is None else figure.findobj(Text):
            assert isinstance(text, Text)
            yield text


def _settle(text: Text) -> None:
    content = "\n".join(drawable(line) for line in text.get_text().split("\n"))
    text.set_parse_math(False)
    text.set_usetex(False)
    text.set_text(content)
    if not content.isascii():
        text.set_fontfamily(font_families(content))


def font_families(*texts: str) -> list[str]:
    """Font families for these texts, for matplotlib's `fontfamily`: its own font, and one that fills gaps."""
    missing = _missing("".join(texts), (_OWN,))
    extra = _font_with(missing) if missing else None
    return [_OWN] if extra is None else [_OWN, extra]


def drawable(text: str) -> str:
    r"""The text in one line, or what of it installed fonts can draw; code points (U+AC00) where nothing would be left.

    Control characters, signs that turn the direction of writing and halves of characters cannot be drawn.

    Example:
        >>> drawable("House\nWren")
        'House Wren'
    """
    text = _BREAK.sub(" ", text)
    seen = "".join(character for character in text if not _is_unseen(character))
    missing = set(_missing(seen, tuple(font_families(seen))))
    if not missing and (seen or not text):
        return seen
    kept = "".join(character for character in seen if character not in missing)
    kept = " ".join(kept.replace("()", " ").replace("[]", " ").split()).strip(string.punctuation + " ")
    return kept or " ".join(f"U+{ord(character):04X}" for character in text if not character.isspace())


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN or character in _TURNING


@lru_cache(maxsize=4096)
def _missing(text: str, families: tuple[str, ...]) -> str:
    """The characters that none of the families has, sorted, each once."""
    characters = {
        character for character in text if not (character.isspace() or character.isascii() or _is_unseen(character))
    }
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
