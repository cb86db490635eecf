"""What all accumulators share: torchmetrics' Metric, its merge, and input that is moved to where the state lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch

from qpm_opt import InvalidInputError
from qpm_vision import _torchvision  # noqa: F401  (first: torchmetrics imports torchvision)

# isort: split
from torchmetrics import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Accumulator", "rows_of", "seen"]

_COMBINE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"sum": torch.add, "min": torch.minimum}


class Accumulator(Metric):  # type: ignore[misc]
    """A metric whose state is float64 sums, minima or lists, and which merges with another of its kind.

    Put it on the CPU or a CUDA device with `to`; a device without float64 (MPS) cannot hold it, but may send batches.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, str] = {}

    def sum_state(self, name: str, *shape: int) -> None:
        """Declare a float64 tensor that adds up."""
        self._state(name, torch.zeros(shape, dtype=torch.float64), "sum")

    def min_state(self, name: str, *shape: int) -> None:
        """Declare a float64 tensor of minima."""
        self._state(name, torch.full(shape, torch.inf, dtype=torch.float64), "min")

    def list_state(self, name: str) -> None:
        """Declare a list of tensors that belong together row by row."""
        self._state(name, [], "cat")

    def merge(self, other: Self) -> None:
        """Add what another accumulator of the same kind and size has seen.

        Raises:
            InvalidInputError: `other` is of another kind or size.
        """
        if type(other) is not type(self) or self._signature() != other._signature():
            raise InvalidInputError(
                f"The 'other' parameter must be a {type(self).__name__} made with the same arguments. Got a "
                f"{type(other).__name__} of sizes {getattr(other, '_signature', dict)()}; merge those of one model."
            )
        for name, kind in self._kinds.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if kind == "cat":
                setattr(self, name, [*rows_of(mine), *rows_of(theirs)])
            else:
                setattr(self, name, _COMBINE[kind](mine, theirs.to(mine.device)))
        # torchmetrics caches results and warns of a compute() without update(): a merge counts as one.
        self._computed: Any = None
        self._update_count: int = self._update_count + other._update_count

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """The sums and minima of what was seen, to be kept in a file; lists are not among them."""
        return {name: getattr(self, name).cpu().numpy() for name, kind in self._kinds.items() if kind != "cat"}

    def take_up(self, arrays: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Go on from what `arrays` gave, in place of what was seen.

        Raises:
            InvalidInputError: An array is missing or of another size.
        """
        for name, shape in self._signature().items():
            if name not in arrays or arrays[name].shape != shape:
                raise InvalidInputError(
                    f"The 'arrays' parameter must hold {name!r} of shape {shape}. Got "
                    f"{arrays[name].shape if name in arrays else sorted(arrays)}; take those of the same kind and size."
                )
            state = getattr(self, name)
            setattr(self, name, torch.from_numpy(np.array(arrays[name], dtype=np.float64)).to(state.device))
        self._computed = None
        self._update_count = 1

    def _state(self, name: str, default: torch.Tensor | list[torch.Tensor], kind: str) -> None:
        self.add_state(name, default, dist_reduce_fx=kind)
        self._kinds[name] = kind

    def _signature(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(getattr(self, name).shape) for name, kind in self._kinds.items() if kind != "cat"}


def rows_of(state: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
    """A list state as a list, also after a synchronisation joined it into one tensor."""
    return list(state) if isinstance(state, list) else [state]


def seen(count: float) -> float:
    """The count, unless nothing was counted.

    Raises:
        InvalidInputError: the count is 0.
    """
    if not count:
        raise InvalidInputError(
            "There is nothing to compute yet: no images were seen. Call update() with a batch first."
        )
    return count
