"""Sparse linear layers: multinomial logistic regression along a path of falling elastic-net regularisation.

The objective is that of Wong et al. (Leveraging Sparse Linear Layers for Debuggable Deep Networks, ICML 2021), with the
intercept left free:

    mean cross-entropy + λ·(α·P(W) + (1 − α)/2·‖W‖²),    P(W) = Σ|W| (single weights) or Σ_f ‖W[:,f]‖ (grouped)

It is minimised by accelerated proximal gradient steps (FISTA, Beck and Teboulle, 2009, with the restarts of O'Donoghue
and Candès, 2015), each over all images, from each λ to the next. Steps are as long as a line search allows, and never
shorter than the largest eigenvalue of the Gram matrix does, so nothing needs tuning and the result depends on no random
order. Others were looked at first. The package glm_saga writes to standard output, wants a loader of indexed batches,
and walks a whole path where a number of weights is the aim. The saga of scikit-learn has no grouped penalty, which the
choice of features needs, and takes one image at a time, which for hundreds of classes is slower than matrix products by
far. Its solutions are the same where both apply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qpm_opt import InvalidInputError

__all__ = ["PooledFeatures", "SparseLayer", "elastic_net", "features_on_path", "sparse_layer"]

ALPHA = 0.99
"""Share of the sparse penalty, as in Wong et al. (2021)."""

_LAST = 1e-4  # λ at the end of the path over that at its start, where all weights are 0
_FIRST_STRIDE, _LONGEST_STRIDE = 0.01, 0.75  # of log λ; doubled until half of what is wanted is there
_ENTRIES = 1 << 24  # of features in one slice of a pass
_STEPS = 1000
_TOLERANCE = 1e-5
_INTERPOLATIONS = 6
_ROUNDING = 1e-7  # of the loss, relative
_NEGLIGIBLE = 1e-3  # share of the largest weight: smaller ones are on their way to 0 and do not count


@dataclass(frozen=True, eq=False)
class PooledFeatures:
    """Pooled features of the training images and their standardisation.

    Attributes:
        values: (n_images, n_features) float32, in memory or memory-mapped; read in slices.
        labels: (n_images,) int64.
        mean: (n_features,).
        std: (n_features,); features of 0 are dead and never chosen.
        n_classes: Number of classes.
        device: Where to compute.
    """

    values: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    n_classes: int
    device: torch.device | str = "cpu"

    def columns(self, selected: npt.NDArray[np.int64]) -> PooledFeatures:
        """Those of some features only, in memory."""
        return PooledFeatures(
            np.ascontiguousarray(self.values[:, selected]),
            self.labels,
            self.mean[selected],
            self.std[selected],
            self.n_classes,
            self.device,
        )

    def slices(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Standardised features (B, n_features) and labels (B,); dead features are 0."""
        mean = torch.as_tensor(self.mean, dtype=torch.float32, device=self.device)
        factor = torch.as_tensor(
            np.divide(1.0, self.std, out=np.zeros_like(self.std), where=self.std > 0),
            dtype=torch.float32,
            device=self.device,
        )
        step = max(1, _ENTRIES // self.values.shape[1])
        for begin in range(0, len(self.labels), step):
            rows = torch.from_numpy(np.array(self.values[begin : begin + step])).to(self.device)
            labels = torch.from_numpy(np.array(self.labels[begin : begin + step])).to(self.device)
            yield rows.sub_(mean).mul_(factor), labels


@dataclass(frozen=True, eq=False)
class SparseLayer:
    """A fitted layer over standardised features.

    Attributes:
        weights: (n_classes, n_features) float64.
        bias: (n_classes,) float64.
        penalty: λ.
    """

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    penalty: float


def features_on_path(features: PooledFeatures, n_select: int) -> npt.NDArray[np.int64]:
    """The features that a layer with a grouped penalty uses first, as λ falls.

    Returns:
        (n_select,) int64, ascending: those of the largest weights where the last step brought more.

    Raises:
        InvalidInputError: Fewer than `n_select` features vary.
    """
    alive = np.flatnonzero(features.std > 0)
    if n_select > len(alive):
        raise InvalidInputError(
            f"The 'n_select' parameter must be at most the {len(alive)} features that vary. Got {n_select}; lower it."
        )
    found = _on_path(features, grouped=True, count=lambda W: _number(W.norm(dim=0)), wanted=n_select)
    norms = np.linalg.norm(found.weights, axis=0)
    norms[features.std <= 0] = -1.0  # where the path ends early, any feature that varies comes before a dead one
    return np.sort(np.argsort(-norms, kind="stable")[:n_select])


def sparse_layer(features: PooledFeatures, n_weights: int) -> SparseLayer:
    """A layer with `n_weights` weights other than 0, or as many as the end of the path has.

    λ is the largest at which there are that many, found on the path and by interpolation; where several weights enter
    together, the smallest ones are set to 0.
    """
    found = _on_path(features, grouped=False, count=lambda W: _number(W.abs()), wanted=n_weights)
    sizes = np.abs(found.weights).ravel()
    weights = np.where(np.abs(found.weights) > _NEGLIGIBLE * sizes.max(), found.weights, 0.0)
    weights.ravel()[np.argsort(-sizes, kind="stable")[n_weights:]] = 0.0
    return SparseLayer(weights, found.bias, found.penalty)


def _number(sizes: Tensor) -> int:
    return int((sizes > _NEGLIGIBLE * sizes.max()).sum())


def elastic_net(
    features: PooledFeatures, penalty: float, *, grouped: bool = False, alpha: float = ALPHA, tolerance: float = 1e-6
) -> SparseLayer:
    """The layer for one λ.

    Args:
        features: Training features.
        penalty: λ, not negative.
        grouped: Whether the weights of a feature vanish together.
        alpha: Share of the sparse penalty.
        tolerance: Stop when a step changes no weight by more than this share of the largest one, or after thousands of
            steps: the rounding of single precision may keep changing more.
    """
    problem = _Problem(features, grouped=grouped, alpha=alpha)
    return problem.layer(problem.minimised(problem.empty(), penalty, tolerance, 10 * _STEPS), penalty)


def _on_path(features: PooledFeatures, *, grouped: bool, count: Callable[[Tensor], int], wanted: int) -> SparseLayer:
    """The sparsest layer on the path for which `count` is at least `wanted`; the last one where there is none."""
    problem = _Problem(features, grouped=grouped, alpha=ALPHA)
    fewer = problem.empty()
    above = problem.largest_penalty(fewer)
    least = _LAST * above
    below, stride, n_fewer = above, _FIRST_STRIDE, 0
    while True:
        below = max(below * math.exp(-stride), least)
        found = problem.minimised(fewer, below)
        n_found = count(found[:, :-1])
        if n_found >= wanted or below <= least:
            break
        fewer, above, n_fewer = found, below, n_found
        if n_found < wanted / 2:
            stride = min(2 * stride, _LONGEST_STRIDE)
    for _ in range(_INTERPOLATIONS):
        if n_found <= wanted:
            break
        share = min(max((wanted - n_fewer) / (n_found - n_fewer), 0.1), 0.9)
        between = above * (below / above) ** share
        tried = problem.minimised(fewer, between)
        n_tried = count(tried[:, :-1])
        if n_tried >= wanted:
            found, below, n_found = tried, between, n_tried
        else:
            fewer, above, n_fewer = tried, between, n_tried
    return problem.layer(found, below)


class _Problem:
    """Loss, gradient and proximal step; weights and bias are one tensor, (n_classes, n_features + 1), bias last."""

    def __init__(self, features: PooledFeatures, *, grouped: bool, alpha: float) -> None:
        self._features = features
        self._grouped = grouped
        self._alpha = alpha
        # What fits in one slice is standardised once instead of in every step.
        self._kept = list(features.slices()) if features.values.size <= _ENTRIES else None

    @cached_property
    def _safe_step(self) -> float:
        """A step that is not too long anywhere."""
        gram = torch.zeros(2 * (self._features.values.shape[1] + 1,), dtype=torch.float32, device=self._features.device)
        for rows, _ in self._slices():
            padded = torch.nn.functional.pad(rows, (0, 1), value=1.0)
            gram += padded.T @ padded / len(self._features.labels)
        # The second derivative of the cross-entropy is at most half the Gram matrix (Böhning, 1992); the margin is for
        # float32.
        return 1 / (0.5 * 1.01 * float(torch.linalg.eigvalsh(gram.cpu())[-1]))

    def _slices(self) -> Iterable[tuple[Tensor, Tensor]]:
        return self._features.slices() if self._kept is None else self._kept

    def empty(self) -> Tensor:
        """No weights, and the bias that says how frequent the classes are."""
        counts = np.bincount(self._features.labels, minlength=self._features.n_classes)
        W = torch.zeros(len(counts), self._features.values.shape[1] + 1, device=self._features.device)
        W[:, -1] = torch.as_tensor(np.log(np.maximum(counts, 0.5) / counts.sum()), dtype=torch.float32)
        return W

    def loss(self, W: Tensor) -> float:
        """Mean cross-entropy."""
        total = 0.0
        for rows, labels in self._slices():
            logits = torch.addmm(W[:, -1], rows, W[:, :-1].T)
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="none").sum(dtype=torch.float64))
        return total / len(self._features.labels)

    def slope(self, W: Tensor) -> tuple[float, Tensor]:
        """Mean cross-entropy and its gradient."""
        loss, total = 0.0, torch.zeros_like(W)
        for rows, labels in self._slices():
            logits = torch.addmm(W[:, -1], rows, W[:, :-1].T).log_softmax(dim=1)
            images = torch.arange(len(labels), device=logits.device)
            loss -= float(logits[images, labels].sum(dtype=torch.float64))
            residual = logits.exp_()
            residual[images, labels] -= 1
            total[:, :-1] += residual.T @ rows
            total[:, -1] += residual.sum(dim=0)
        return loss / len(self._features.labels), total / len(self._features.labels)

    def largest_penalty(self, W: Tensor) -> float:
        """The least λ at which there are no weights."""
        return float(self._pulls(W).max()) / max(self._alpha, 1e-3)

    def _pulls(self, W: Tensor) -> Tensor:
        """How strongly the loss pulls each feature away from 0, (n_features,); the penalty holds it below λ·α."""
        gradient = self.slope(W)[1][:, :-1]
        return gradient.norm(dim=0) if self._grouped else gradient.abs().amax(dim=0)

    def _shrunk(self, W: Tensor, penalty: float, step: float) -> Tensor:
        threshold = step * penalty * self._alpha
        weights = W[:, :-1]
        if self._grouped:
            weights = weights * (1 - threshold / weights.norm(dim=0).clamp(min=1e-30)).clamp(min=0)
        else:
            weights = weights.sign() * (weights.abs() - threshold).clamp(min=0)
        return torch.cat((weights / (1 + step * penalty * (1 - self._alpha)), W[:, -1:]), dim=1)

    def minimised(self, W: Tensor, penalty: float, tolerance: float = _TOLERANCE, steps: int = _STEPS) -> Tensor:
        """The minimum for λ, from a start near it.

        Few of many features are in use where the penalty is large. Steps are therefore taken over those that are, and
        those that a pass over all of them shows to be held at 0 wrongly, until there are none (the working set of
        Tibshirani et al., Strong rules for discarding predictors, 2012).
        """
        working = (W[:, :-1] != 0).any(dim=0) | (self._pulls(W) > penalty * self._alpha)
        while bool(working.any()):
            columns = torch.nonzero(working).ravel()
            part = _Problem(self._features.columns(columns.cpu().numpy()), grouped=self._grouped, alpha=self._alpha)
            places = torch.cat((columns, columns.new_tensor([W.shape[1] - 1])))
            W = torch.zeros_like(W).index_copy(1, places, part._descended(W[:, places], penalty, tolerance, steps))
            wrong = (self._pulls(W) > penalty * self._alpha) & ~working
            if not bool(wrong.any()):
                break
            working |= wrong
        return W

    def _descended(self, W: Tensor, penalty: float, tolerance: float, steps: int) -> Tensor:
        """The minimum for λ over all features of this problem, from a start near it."""
        ahead, momentum = W, 1.0
        # Where classes are many, p·(1 − p) is some 1/n_classes, much less than the safe step allows for.
        step = self._safe_step * max(1.0, W.shape[0] / 2)
        for _ in range(steps):
            loss, gradient = self.slope(ahead)
            while True:
                moved = self._shrunk(ahead - step * gradient, penalty, step)
                if step <= self._safe_step or self._is_short_enough(ahead, loss, gradient, moved, step):
                    break
                step = max(step / 2, self._safe_step)
            change = moved - W
            if float(((ahead - moved) * change).sum()) > 0:  # the momentum points uphill
                momentum, ahead, step = 1.0, moved, 2 * step
            else:
                following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
                ahead = moved + (momentum - 1) / following * change
                momentum = following
            W = moved
            if float(change.abs().max()) <= tolerance * max(float(W.abs().max()), 1e-12):
                break
        return W

    def _is_short_enough(self, W: Tensor, loss: float, gradient: Tensor, moved: Tensor, step: float) -> bool:
        """Whether the quadratic model that a step stands for is not below the loss where it ends."""
        change = moved - W
        model = loss + float((gradient * change).sum()) + float(change.square().sum()) / (2 * step)
        return self.loss(moved) <= model + _ROUNDING * loss

    def layer(self, W: Tensor, penalty: float) -> SparseLayer:
        """As arrays."""
        array = W.cpu().double().numpy()
        return SparseLayer(np.ascontiguousarray(array[:, :-1]), array[:, -1].copy(), penalty)
