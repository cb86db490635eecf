"""The best set that is known, and where searches for a better one begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qpm_opt._validation import FloatArray, IntArray
from qpm_opt.search_space import SearchSpace, largest
from qpm_opt.swap_search import Found, climb, greedy_set, random_set, shaken_set, tabu_search

__all__ = ["SetSearch"]

_PATIENCE = 30
_DOUBT = 0.02
_NEAR_BEST = 0.5


class SetSearch:
    """Searches among all features of a space; a thread of its own needs a `fork`.

    Args:
        space: The problem.
        rng: Of everything random.
        keep_going: Asked before every move.
        on_better: Told of every new best set, and where it comes from.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        keep_going: Callable[[], bool],
        on_better: Callable[[Found, str], object],
    ) -> None:
        self.best: Found | None = None
        self._space, self._rng = space, rng
        self.keep_going, self._on_better = keep_going, on_better
        self._guide = np.zeros(0)  # (n,) fractional features of the last relaxation; none yet
        self._core = np.arange(len(space.features))  # features that it gives the largest bounds with

    def fork(self, keep_going: Callable[[], bool]) -> SetSearch:
        """One for another thread, which stops where this one stops too, and keeps what it finds to itself."""
        return SetSearch(
            self._space,
            self._rng.spawn(1)[0],
            lambda: keep_going() and self.keep_going(),
            lambda _found, _message: None,
        )

    def learn(self, other: SetSearch) -> None:
        """Take over what another one knows and this one does not."""
        self._guide, self._core = other._guide, other._core
        if other.best is not None:
            self.keep_best(other.best)

    @property
    def objective(self) -> float:
        """Of the best set, minus infinity where there is none."""
        return -np.inf if self.best is None else self.best.value

    @property
    def is_guided(self) -> bool:
        """Whether a relaxation has said where to look."""
        return bool(len(self._guide))

    def offer_set(self, chosen: IntArray, message: str) -> float:
        """Value a set exactly, and keep it if it is the best."""
        value, weights = self._space.exact(chosen)
        if weights is not None:
            self.keep_best(Found(chosen, value, weights), message)
        return value

    def keep_best(self, found: Found, message: str = "swap search") -> None:
        """Keep a set if it is the best."""
        if self.best is None or found.value > self.best.value:
            self.best = found
            self._on_better(found, message)

    def begin(self, start: IntArray | None) -> IntArray:
        """A good set, from the greedy one that has the features of `start`."""
        chosen = greedy_set(self._space, start)
        self.offer_set(chosen, "greedy start")
        return self._climb_and_search(chosen)

    def climb(self, chosen: IntArray) -> None:
        """Exchange features as long as that is for the better."""
        self.offer_set(climb(self._space, chosen, self.keep_going), "swap search")

    def restart(self) -> None:
        """Search from a set near the relaxation's, at random, or near the best one."""
        draw = self._rng.random()
        if self.is_guided and draw < 0.6:
            self.search_core()
        elif self.best is None or draw < 0.7:
            self._climb_and_search(random_set(self._space, self._rng))
        else:
            self._climb_and_search(shaken_set(self._space, self.best.chosen, self._rng))

    def search_core(self) -> bool:
        """Search among the features of the core, from a set drawn by how much of each a relaxation has.

        Half of the searches draw by the average of that and the best set: they begin where both agree, and the others
        see to it that not all end at the same place.

        Returns:
            Whether that found a better set.
        """
        space, core, before = self._space, self._core, self.objective
        x = self._guide[core]
        if self.best is not None and self._rng.random() < _NEAR_BEST:
            x = 0.5 * (x + np.isin(core, self.best.chosen))
        likely = np.log(x + _DOUBT) - np.log(1.0 - x + _DOUBT) + self._rng.gumbel(size=len(x))
        likely[space.forced[core]] = np.inf
        self._climb_and_search(largest(likely, space.n_select), core)
        return self.objective > before

    def take_guide(self, kept: IntArray, x: FloatArray, promise: FloatArray, core: int) -> None:
        """Let searches start near a relaxation's solution, and stay among the features that promise most."""
        space = self._space
        self._guide = np.zeros(len(space.features))
        self._guide[kept] = np.clip(x, 0.0, 1.0)
        promise = np.where(x > 0.5, np.inf, promise)
        self._core = np.union1d(kept[largest(promise, core * space.n_select)], np.flatnonzero(space.forced))
        self.climb(kept[largest(x, space.n_select)])

    def _climb_and_search(self, chosen: IntArray, core: IntArray | None = None) -> IntArray:
        """Tabu search from a local optimum, both among the features of `core`, of which `chosen` are positions."""
        space = self._space
        if core is None:
            core = np.arange(len(space.features))
        else:
            inside = np.isin(np.arange(len(space.features)), core)
            space = space.restricted(inside, space.forced)
        chosen = climb(space, chosen, self.keep_going)
        self.offer_set(core[chosen], "swap search")
        found = tabu_search(
            space,
            chosen,
            self._rng,
            patience=_PATIENCE,
            keep_going=self.keep_going,
            on_improvement=lambda found: self.keep_best(replace(found, chosen=core[found.chosen])),
        )
        return core[chosen if found is None else found.chosen]
