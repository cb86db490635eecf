"""Swap search: exchange one kept feature for another, all exchanges valued at once.

Once the kept set is known each class takes its best features in it, so the objective is a function of the set alone.
For a class with threshold t (value of its last feature) and t' (value of the next one), adding j gains
max(0, A[c,j] − t). If one of its features i leaves while j enters, it gets max(t', A[c,j]) instead of A[c,i]; the
difference to the plain gain is clip(A[c,j], t', t) − A[c,i]. Summed over the classes that use i, this is one sparse
product for all (i, j).

Uniqueness is left out of the neighbourhood, which therefore overestimates; near a local optimum the most promising
exchanges are valued exactly before one is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.search_space import SearchSpace

__all__ = ["Found", "climb", "greedy_set", "random_set", "shaken_set", "swap_gains", "tabu_search"]

_EXACT_WIDTH = 8
"""How many exchanges are valued exactly before a tabu move; one where that takes an integer program."""


_NEGLIGIBLE = 1e-10
"""Gains below this share of the largest difference of objectives may be rounding errors, and are not followed."""


@dataclass(frozen=True)
class Found:
    """A set of local features, its objective with uniqueness, and W."""

    chosen: IntArray
    value: float
    weights: npt.NDArray[np.bool_]


def greedy_set(space: SearchSpace, start: IntArray | None = None) -> IntArray:
    """Add the feature of the largest gain until there are enough, beginning with `start` and the forced features."""
    taken = space.forced.copy()
    if start is not None:
        taken[start[~taken[start]][: space.n_select - int(taken.sum())]] = True
    floor = float(space.values[space.values > -space.barrier].min(initial=0.0))
    pressure = space.penalties[taken].sum(axis=0)
    while taken.sum() < space.n_select:
        inside = -np.sort(-space.values[:, taken], axis=1)
        size = inside.shape[1]
        if size:
            last = inside[np.arange(len(inside)), np.clip(space.budgets, 1, size) - 1]
            last = np.where((space.budgets > size) | (last < floor), floor, last)
        else:
            last = np.full(len(inside), floor)
        last = np.where(space.budgets == 0, np.inf, last)
        gains = np.maximum(space.values - last[:, None], 0.0).sum(axis=0) + space.bias - pressure
        gains[taken] = -np.inf
        best = int(np.argmax(gains))
        taken[best] = True
        pressure = pressure + space.penalties[best]
    return np.flatnonzero(taken)


def random_set(space: SearchSpace, rng: np.random.Generator) -> IntArray:
    """A random set with the forced features in it."""
    free = np.flatnonzero(~space.forced)
    drawn = rng.choice(free, size=space.n_select - int(space.forced.sum()), replace=False)
    return np.sort(np.concatenate([np.flatnonzero(space.forced), drawn]))


def shaken_set(space: SearchSpace, chosen: IntArray, rng: np.random.Generator) -> IntArray:
    """A set with a fifth of its free features replaced at random."""
    free = chosen[~space.forced[chosen]]
    outside = np.setdiff1d(np.flatnonzero(~space.forced), chosen)
    count = min(max(1, len(free) // 5), len(free), len(outside))
    out = rng.choice(free, size=count, replace=False)
    into = rng.choice(outside, size=count, replace=False)
    return np.sort(np.concatenate([np.setdiff1d(chosen, out), into]))


def swap_gains(space: SearchSpace, chosen: IntArray) -> FloatArray:
    """Change of the relaxed value for every exchange.

    Args:
        space: The problem.
        chosen: (n_select,) local features kept now.

    Returns:
        (n_select, n): entry [i, j] for taking out `chosen[i]` and putting in j; minus infinity where that is no move.
    """
    values, budgets = space.values, space.budgets
    inside = values[:, chosen]
    order = np.argsort(-inside, axis=1, kind="stable")
    rows = np.arange(len(inside))
    size = len(chosen)
    last = np.where(budgets > 0, inside[rows, order[rows, np.maximum(budgets, 1) - 1]], np.inf)
    following = np.where(budgets < size, inside[rows, order[rows, np.minimum(budgets, size - 1)]], -space.barrier)
    uses = np.zeros(inside.shape, dtype=bool)
    np.put_along_axis(uses, order, np.arange(size) < budgets[:, None], axis=1)

    replaced = np.minimum(np.maximum(values, following[:, None]), last[:, None])
    gains: FloatArray = sp.csr_array(uses.T.astype(np.float64)) @ replaced
    pressure = space.penalties[chosen].sum(axis=0)
    gains += np.maximum(values - last[:, None], 0.0).sum(axis=0) + space.bias - pressure
    gains += space.penalties[chosen]
    gains += (pressure[chosen] - space.bias[chosen] - (inside * uses).sum(axis=0))[:, None]
    gains[:, chosen] = -np.inf
    gains[space.forced[chosen]] = -np.inf
    return gains


def climb(space: SearchSpace, chosen: IntArray, keep_going: Callable[[], bool]) -> IntArray:
    """Make the best exchange as long as it raises the relaxed value."""
    tolerance = _NEGLIGIBLE * space.barrier
    while keep_going():
        gains = swap_gains(space, chosen)
        out, into = np.unravel_index(int(np.argmax(gains)), gains.shape)
        if gains[out, into] <= tolerance:
            break
        chosen = _exchanged(chosen, int(out), int(into))
    return chosen


def tabu_search(
    space: SearchSpace,
    chosen: IntArray,
    rng: np.random.Generator,
    *,
    patience: int,
    keep_going: Callable[[], bool],
    on_improvement: Callable[[Found], None],
) -> Found | None:
    """Tabu search on the value with uniqueness.

    Args:
        space: The problem.
        chosen: (n_select,) local features to start from.
        rng: Draws the tabu tenures.
        patience: Stop after this many moves without improvement.
        keep_going: Asked before each move.
        on_improvement: Told of every new best set.

    Returns:
        The best set seen, None where no set admitted distinct assignments.
    """
    best = _valued(space, chosen)
    if best is not None:
        on_improvement(best)
    barred_until = np.zeros(len(space.features), dtype=np.int64)
    relaxed = space.relaxed_value(chosen)
    move = last_gain = 0
    while move - last_gain < patience and keep_going():
        move += 1
        gains = swap_gains(space, chosen)
        barred = (barred_until[chosen] > move)[:, None] | (barred_until > move)
        # A barred move is open again where it promises a new best.
        gains[barred & (gains + relaxed <= (best.value if best else -np.inf))] = -np.inf
        picked = _best_exchange(space, chosen, gains, relaxed, keep_going)
        if picked is None:
            break
        out, into, found = picked
        relaxed += float(gains[out, into])
        leaving = chosen[out]
        chosen = _exchanged(chosen, out, into)
        barred_until[leaving] = move + 8 + int(rng.integers(5))
        barred_until[into] = move + 4 + int(rng.integers(3))
        if found is not None and (best is None or found.value > best.value + 1e-12 * abs(best.value)):
            best, last_gain = found, move
            on_improvement(best)
    return best


def _best_exchange(
    space: SearchSpace, chosen: IntArray, gains: FloatArray, relaxed: float, keep_going: Callable[[], bool]
) -> tuple[int, int, Found | None] | None:
    """The exchange of the largest exact value among the most promising ones, None where there is no exchange."""
    flat = gains.ravel()
    width = min(1 if len(space.problem.contrastive_pairs) else _EXACT_WIDTH, flat.size)
    promising = np.argpartition(-flat, width - 1)[:width]
    promising = promising[np.lexsort((promising, -flat[promising]))]
    picked: tuple[int, int, Found | None] | None = None
    value = -np.inf
    for position in promising.tolist():
        if not np.isfinite(flat[position]) or (
            picked is not None and (relaxed + flat[position] <= value or not keep_going())
        ):
            break
        out, into = divmod(position, gains.shape[1])
        found = _valued(space, _exchanged(chosen, out, into))
        if picked is None or (found is not None and found.value > value):
            picked = (out, into, found)
            value = -np.inf if found is None else found.value
    return picked


def _valued(space: SearchSpace, chosen: IntArray) -> Found | None:
    value, weights = space.exact(chosen)
    return None if weights is None else Found(chosen, value, weights)


def _exchanged(chosen: IntArray, out: int, into: int) -> IntArray:
    changed = chosen.copy()
    changed[out] = into
    changed.sort()
    return changed
