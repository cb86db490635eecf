"""Choosing Hangul syllables that share their parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from qpm_opt import InvalidInputError

__all__ = ["JAMO_KINDS", "MOST_SYLLABLES", "Layout", "Syllable", "choose_syllables"]

JAMO_KINDS: Final = ("initial", "vowel", "final")
"""The parts of a syllable, in the order in which they are written."""

Layout = Literal["beside", "below", "around"]
"""Where the vowel stands: to the right of the initial, below it, or on both sides of it."""

_INITIALS: Final = tuple("ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ")
_VOWELS: Final = tuple("ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ")
_FINALS: Final = ("none", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ")
_BELOW: Final = frozenset("ㅗㅛㅜㅠㅡ")
_AROUND: Final = frozenset("ㅘㅙㅚㅝㅞㅟㅢ")

# From common to rare in modern Korean text, roughly; what comes first is drawn first.
_COMMON_INITIALS: Final = "ㅇㄱㄷㅅㅈㄴㅎㄹㅂㅁㅊㅌㅍㅋㄲㄸㅆㅉㅃ"
_COMMON_VOWELS: Final = "ㅏㅣㅓㅡㅗㅜㅕㅐㅔㅘㅚㅑㅛㅟㅝㅠㅢㅖㅙㅒㅞ"
_COMMON_FINALS: Final = ("none", *"ㄴㄹㅇㄱㅁㅂㅅㅆㅈㅌㅊㅎㅍㄷㄶㄺㅄㄲㅋㄵㄻㄼㅀㄿㄾㄽㄳ")

MOST_SYLLABLES: Final = len(_INITIALS) * len(_VOWELS) * len(_FINALS)
"""All modern syllables, 11,172."""

_PROPORTIONS: Final = (8, 6, 5)  # initials, vowels and finals of a grid of about 200 syllables
_SPARE: Final = 1.2  # the grid is larger than the choice, so that rare syllables can be left out


@dataclass(frozen=True, order=True)
class Syllable:
    """A Hangul syllable and its jamo.

    Attributes:
        text: The syllable, one character.
        initial: Its first consonant, as a compatibility jamo.
        vowel: Its vowel.
        final: Its last consonant or consonants, or "none".
    """

    text: str
    initial: str
    vowel: str
    final: str

    @classmethod
    def of(cls, initial: int, vowel: int, final: int) -> Syllable:
        """The syllable of these positions among the 19 initials, 21 vowels and 28 finals.

        Example:
            >>> Syllable.of(18, 0, 4)
            Syllable(text='한', initial='ㅎ', vowel='ㅏ', final='ㄴ')
        """
        text = chr(0xAC00 + (initial * len(_VOWELS) + vowel) * len(_FINALS) + final)
        return cls(text, _INITIALS[initial], _VOWELS[vowel], _FINALS[final])

    @property
    def class_name(self) -> str:
        """Code point and syllable, such as `U+AC00_가`."""
        return f"U+{ord(self.text):04X}_{self.text}"

    @property
    def is_common(self) -> bool:
        """Whether it is one of the 2,350 syllables of the national standard KS X 1001."""
        # Other syllables are encoded as a sequence of their jamo, in eight bytes.
        return len(self.text.encode("euc_kr")) == 2

    @property
    def layout(self) -> Layout:
        """Where its vowel stands."""
        return "below" if self.vowel in _BELOW else "around" if self.vowel in _AROUND else "beside"

    def with_other(self, kind: str) -> tuple[Syllable, ...]:
        """Common syllables that differ in one jamo alone and are laid out alike: none gains or loses its final.

        Args:
            kind: One of `JAMO_KINDS`.

        Example:
            >>> "".join(other.text for other in Syllable.of(18, 0, 4).with_other("vowel"))
            '핸헌헨현혠힌'
        """
        alphabets = dict(zip(JAMO_KINDS, (_INITIALS, _VOWELS, _FINALS), strict=True))
        own = {name: alphabet.index(getattr(self, name)) for name, alphabet in alphabets.items()}
        found = []
        for position in range(len(alphabets[kind])):
            other = Syllable.of(**own | {kind: position})
            alike = other.layout == self.layout and (other.final == "none") == (self.final == "none")
            if alike and other.is_common and other != self:
                found.append(other)
        return tuple(found)


def choose_syllables(n_syllables: int, seed: int) -> tuple[Syllable, ...]:
    """Syllables out of a grid of a few common jamo, so that each part occurs in many of them, in code point order.

    Args:
        n_syllables: How many, 2 … 11,172.
        seed: Of the choice of jamo and syllables.

    Raises:
        InvalidInputError: `n_syllables` is out of range.
    """
    if isinstance(n_syllables, bool) or not isinstance(n_syllables, int) or not 2 <= n_syllables <= MOST_SYLLABLES:
        raise InvalidInputError(
            f"The 'n_classes' parameter must be a whole number in 2 … {MOST_SYLLABLES}. Got {n_syllables!r}."
        )
    rng = np.random.default_rng(seed)
    sizes = _grid(n_syllables)
    chosen = [
        [alphabet.index(jamo) for jamo in _pick(common, size, rng)]
        for alphabet, common, size in (
            (_INITIALS, tuple(_COMMON_INITIALS), sizes[0]),
            (_VOWELS, tuple(_COMMON_VOWELS), sizes[1]),
            (_FINALS, _COMMON_FINALS, sizes[2]),
        )
    ]
    grid = [Syllable.of(i, v, f) for i in chosen[0] for v in chosen[1] for f in chosen[2]]
    return _thin_out(grid, sizes, n_syllables, rng)


def _grid(n_syllables: int) -> tuple[int, int, int]:
    """Numbers of initials, vowels and finals whose product is somewhat larger than what is asked for."""
    limits = (len(_INITIALS), len(_VOWELS), len(_FINALS))
    sizes = [1, 1, 1]
    while math.prod(sizes) < min(_SPARE * n_syllables, MOST_SYLLABLES):
        open_axes = [axis for axis in range(3) if sizes[axis] < limits[axis]]
        sizes[min(open_axes, key=lambda axis: sizes[axis] / _PROPORTIONS[axis])] += 1
    return sizes[0], sizes[1], sizes[2]


def _pick(common: tuple[str, ...], size: int, rng: np.random.Generator) -> list[str]:
    pool = common[: min(len(common), math.ceil(1.5 * size))]
    return [pool[position] for position in sorted(rng.permutation(len(pool))[:size])]


def _thin_out(
    grid: list[Syllable], sizes: tuple[int, int, int], n_kept: int, rng: np.random.Generator
) -> tuple[Syllable, ...]:
    """Take away syllables one by one, uncommon ones first, those whose jamo are still frequent before others."""
    positions = np.stack(np.unravel_index(np.arange(len(grid)), sizes), axis=1)
    counts = [np.bincount(positions[:, axis], minlength=sizes[axis]).astype(np.float64) for axis in range(3)]
    expected = [len(grid) / size for size in sizes]
    order = rng.permutation(len(grid))  # decides between equals
    uncommon = np.array([not grid[position].is_common for position in order], dtype=np.float64)
    left = np.ones(len(grid), dtype=bool)
    for _ in range(len(grid) - n_kept):
        shares = np.stack([counts[axis][positions[order, axis]] / expected[axis] for axis in range(3)])
        # Below half of its fair share a jamo is spared, however uncommon its syllables.
        scarcest = shares.min(axis=0)
        score = np.where(left[order], scarcest + 10 * uncommon * (scarcest > 0.5 * n_kept / len(grid)), -np.inf)
        removed = order[int(np.argmax(score))]
        left[removed] = False
        for axis in range(3):
            counts[axis][positions[removed, axis]] -= 1
    return tuple(sorted(syllable for syllable, keep in zip(grid, left, strict=True) if keep))
