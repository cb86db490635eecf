"""Sizes of images that a network can take, where it cannot take the one that is wanted."""

from __future__ import annotations

from collections.abc import Callable

from qpm_opt import InvalidInputError

__all__ = ["size_refused"]

_UNITS = (8, 14, 16, 32)
"""What sides have to be a multiple of, for most networks."""

_TRIED = 10
_NAMED = 3


def size_refused(
    backbone: str, size: int, own: int, reason: str, works: Callable[[int], bool], cure: str = ""
) -> InvalidInputError:
    """What to say where a backbone cannot take images of a size: why, and a few sizes near it that were tried and work.

    Args:
        backbone: What it is called.
        size: Side of the images that it cannot take.
        own: Side that it was made for.
        reason: What went wrong.
        works: Whether it takes images of a side.
        cure: More to do about it, a clause.
    """
    near = {unit * (size // unit + step) for unit in _UNITS for step in (0, 1)} | {own}
    order = sorted(near - {size, 0}, key=lambda side: (abs(side - size), side))[:_TRIED]
    found = [side for side in dict.fromkeys([*order, own]) if side != size and works(side)][:_NAMED]
    known = f"use {' or '.join(map(str, sorted(found)))}, which it takes" if found else "use another backbone"
    return InvalidInputError(
        f"The 'size' parameter must be a side of images that the backbone {backbone!r} gives maps for. Got {size}: "
        f"{reason.rstrip('.')}; {known}{', or ' + cure if cure else ''}."
    )
