"""Means of measures for each of several groups, such as features or shifts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_vision.metrics._base import Accumulator

__all__ = ["GroupMeans"]


class GroupMeans(Accumulator):
    """Means that add up over batches; what is NaN does not count.

    Args:
        n_groups: Groups, such as features.
        n_measures: Measures, in the order in which `update` gets them.

    Example:
        >>> means = GroupMeans(2, 1)
        >>> means.update(0, [[1.0], [2.0], [np.nan]])
        >>> means.compute().tolist()
        [[1.5], [nan]]
    """

    total: Tensor
    count: Tensor

    def __init__(self, n_groups: int, n_measures: int) -> None:
        super().__init__()
        self.sum_state("total", n_groups, n_measures)
        self.sum_state("count", n_groups, n_measures)

    def update(self, group: int, values: npt.ArrayLike) -> None:
        """Add values of a group, (n, n_measures)."""
        found = np.asarray(values, dtype=np.float64)
        known = np.isfinite(found)
        self.total[group] += torch.from_numpy(np.where(known, found, 0.0).sum(axis=0)).to(self.total.device)
        self.count[group] += torch.from_numpy(known.sum(axis=0)).to(self.count.device)

    def compute(self) -> npt.NDArray[np.float64]:
        """(n_groups, n_measures); NaN where nothing was seen."""
        total, count = self.total.cpu().numpy(), self.count.cpu().numpy()
        means: npt.NDArray[np.float64] = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        return means
