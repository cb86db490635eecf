"""The assignment problem: which features to keep, and which of them describe each class."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from qpm_opt import _storage
from qpm_opt._read_only import ReadOnlyArrays, ReadOnlyMatrix, freeze
from qpm_opt._validation import (
    FloatArray,
    IntArray,
    feature_positions,
    float_array,
    items,
    label_at,
    label_tuple,
    labels_of,
    ordered_items,
    position,
    require_finite,
    require_moderate,
    require_same_labels,
    whole_number,
)
from qpm_opt.conversion import plain_array, sparse_matrix
from qpm_opt.errors import InfeasibleProblemError, InvalidInputError
from qpm_opt.redundancy import Penalties

__all__ = ["AssignmentProblem", "Terms"]

Label = str | int

_KIND = "qpm_opt.AssignmentProblem"

_STORED = (
    "class_similarity",
    "redundancy_row",
    "redundancy_column",
    "redundancy_value",
    "feature_bias",
    "n_select",
    "n_per_class",
    "required_features",
    "excluded_features",
    "required_pairs",
    "forbidden_pairs",
    "labels",
)
"""Arrays of a file."""

_LOCKS = ("required_features", "excluded_features", "required_pairs", "forbidden_pairs", "contrastive_pairs")


@dataclass(frozen=True)
class Terms:
    """The three parts of the objective, in its own units (QPM, equations of the binary quadratic program).

    Attributes:
        similarity: Z_A = σ Σ_cf A[c,f] W[c,f].
        redundancy: Z_R = − Σ_{i<j} r[i,j] s[i] s[j], never positive.
        bias: Z_B = Σ_f b[f] s[f].
    """

    similarity: float
    redundancy: float
    bias: float

    @property
    def total(self) -> float:
        """Z_A + Z_R + Z_B."""
        return self.similarity + self.redundancy + self.bias


@dataclass(frozen=True, init=False, eq=False, repr=False)
class AssignmentProblem(ReadOnlyArrays):
    """Choose `n_select` features and give every class `n_per_class` of them, no two classes the same set.

    Maximises Z_A + Z_R + Z_B over binary s (feature kept) and W (feature describes class)::

        Z_A = σ Σ_cf A[c,f] W[c,f]          σ = 1000 / Σ_c n_per_class[c]
        Z_R = − Σ_{i<j} r[i,j] s[i] s[j]
        Z_B = Σ_f b[f] s[f]
        subject to Σ_f s[f] = n_select,  Σ_f W[c,f] = n_per_class[c],  W[c,f] ≤ s[f],  no two rows of W alike

    The problem is validated once, here, and cannot be changed afterwards; all arrays are read-only. NumPy arrays,
    pandas frames (whose labels are kept), torch tensors and nested lists are taken.

    A feature whose column of A is all zero and that has no penalties is **dead** (a constant feature gives just that):
    it is never selected unless it is required by name, and `dead_features` lists it.

    Args:
        class_similarity: A, (n_classes, n_features). Any finite numbers.
        redundancy: r, (n_features, n_features), dense or scipy sparse, or the `Penalties` that
            `penalties_from_similarity` returns. Symmetric, zero diagonal, not negative; each unordered pair counts
            once. None: no penalties.
        feature_bias: b, (n_features,). None: zeros.
        n_select: How many features to keep.
        n_per_class: How many of them describe a class: one number, or one for each class.
        required_features: Features that must be kept, by label, or by position where labels are no integers.
        excluded_features: Features that must not be kept.
        required_pairs: (class, feature) pairs with W = 1.
        forbidden_pairs: (class, feature) pairs with W = 0.
        contrastive_pairs: (class, class, m) triples: the two classes share at least m features, typically all but one,
            so that a single feature tells them apart.
        class_labels: Names of the classes; those of a pandas frame by default.
        feature_labels: Names of the features; those of a pandas frame by default.

    Raises:
        InvalidInputError: An argument is malformed.
        InfeasibleProblemError: The constraints contradict each other.

    Example:
        >>> problem = AssignmentProblem([[0.9, 0.1, 0.4], [0.2, 0.8, 0.5]], n_select=2, n_per_class=1)
        >>> problem.n_classes, problem.n_features, problem.scale
        (2, 3, 500.0)
    """

    class_similarity: FloatArray
    redundancy: sp.csr_array
    feature_bias: FloatArray
    n_select: int
    n_per_class: IntArray
    required_features: IntArray
    excluded_features: IntArray
    required_pairs: IntArray
    forbidden_pairs: IntArray
    contrastive_pairs: IntArray
    class_labels: tuple[Label, ...] | None
    feature_labels: tuple[Label, ...] | None

    def __init__(
        self,
        class_similarity: Any,
        redundancy: Any = None,
        feature_bias: Any = None,
        *,
        n_select: int = 50,
        n_per_class: Any = 5,
        required_features: Iterable[Any] = (),
        excluded_features: Iterable[Any] = (),
        required_pairs: Iterable[Any] = (),
        forbidden_pairs: Iterable[Any] = (),
        contrastive_pairs: Iterable[Any] = (),
        class_labels: Iterable[Any] | None = None,
        feature_labels: Iterable[Any] | None = None,
    ) -> None:
        similarity = float_array("class_similarity", class_similarity, 2)
        n_classes, n_features = similarity.shape
        if n_classes == 0 or n_features == 0:
            raise InvalidInputError(
                f"The 'class_similarity' parameter must be (n_classes, n_features) with at least one of each. "
                f"Got shape {similarity.shape}."
            )
        classes = label_tuple(
            "class_labels", labels_of(class_similarity, "index") if class_labels is None else class_labels, n_classes
        )
        features = label_tuple(
            "feature_labels",
            labels_of(class_similarity, "columns") if feature_labels is None else feature_labels,
            n_features,
        )
        values: dict[str, Any] = {
            "class_similarity": similarity,
            "redundancy": _penalty_matrix(redundancy, n_features, features),
            "feature_bias": _bias(feature_bias, n_features, features),
            "n_select": whole_number("n_select", n_select, least=1),
            "n_per_class": _budgets(n_per_class, n_classes, classes),
            "class_labels": classes,
            "feature_labels": features,
        }
        for name, given in (("required_features", required_features), ("excluded_features", excluded_features)):
            values[name] = _feature_set(name, given, n_features, features)
        for name, given in (("required_pairs", required_pairs), ("forbidden_pairs", forbidden_pairs)):
            values[name] = _pair_set(name, given, similarity.shape, classes, features)
        values["contrastive_pairs"] = _contrasts(contrastive_pairs, n_classes, classes)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _refuse_infeasible(self)

    # -- sizes and derived constants ---------------------------------------------------------------------------------

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.class_similarity.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features to choose from."""
        return int(self.class_similarity.shape[1])

    @property
    def scale(self) -> float:
        """σ, which makes Z_A comparable across budgets: 1 at 200 classes of 5 features."""
        return 1000.0 / float(self.n_per_class.sum())

    @property
    def n_penalised(self) -> int:
        """Number of unordered pairs of features with a penalty."""
        return int(self.redundancy.nnz // 2)

    @property
    def penalised_share(self) -> float:
        """Share of all unordered pairs of features that have a penalty."""
        pairs = self.n_features * (self.n_features - 1) // 2
        return self.n_penalised / pairs if pairs else 0.0

    @cached_property
    def dead_features(self) -> IntArray:
        """Features without similarity to any class and without penalties; never selected unless required."""
        has_penalty = np.diff(self.redundancy.indptr) > 0
        return _frozen(np.flatnonzero(~self.class_similarity.any(axis=0) & ~has_penalty))

    @cached_property
    def forced_features(self) -> IntArray:
        """Features that every solution keeps: the required ones and those of required pairs."""
        return _frozen(np.union1d(self.required_features, self.required_pairs[:, 1]))

    @cached_property
    def candidates(self) -> IntArray:
        """Features that a solution may keep: all but the excluded and the dead."""
        usable = np.ones(self.n_features, dtype=bool)
        usable[self.dead_features] = False
        usable[self.forced_features] = True
        usable[self.excluded_features] = False
        return _frozen(np.flatnonzero(usable))

    @cached_property
    def required_mask(self) -> npt.NDArray[np.bool_]:
        """(n_classes, n_features) bool: pairs with W = 1."""
        return _pair_mask(self.required_pairs, self.class_similarity.shape)

    @cached_property
    def forbidden_mask(self) -> npt.NDArray[np.bool_]:
        """(n_classes, n_features) bool: pairs with W = 0."""
        return _pair_mask(self.forbidden_pairs, self.class_similarity.shape)

    # -- evaluation --------------------------------------------------------------------------------------------------

    def terms(self, selected: IntArray, weights: npt.NDArray[Any]) -> Terms:
        """Objective terms of a solution.

        Args:
            selected: (n_select,) feature positions.
            weights: (n_classes, n_select) of 0/1, columns in the order of `selected`.
        """
        pairs = self.redundancy[selected][:, selected]
        return Terms(
            similarity=self.scale * float((self.class_similarity[:, selected] * weights).sum()),
            redundancy=-0.5 * float(pairs.sum()) + 0.0,
            bias=float(self.feature_bias[selected].sum()),
        )

    def replaced(self, **changes: Any) -> AssignmentProblem:
        """The same problem with other arguments, such as `n_select=40`; validated like a new one.

        Example:
            >>> problem = AssignmentProblem([[0.9, 0.1, 0.4], [0.2, 0.8, 0.5]], n_select=2, n_per_class=1)
            >>> problem.replaced(n_select=3).n_select
            3
        """
        classes, features = self.class_labels, self.feature_labels
        arguments: dict[str, Any] = {
            "class_similarity": self.class_similarity,
            "redundancy": self.redundancy,
            "feature_bias": self.feature_bias,
            "n_select": self.n_select,
            "n_per_class": self.n_per_class,
            **_named_locks({name: getattr(self, name) for name in _LOCKS}, classes, features),
            "class_labels": classes,
            "feature_labels": features,
        }
        return AssignmentProblem(**{**arguments, **changes})

    def _with_values(
        self, class_similarity: FloatArray, redundancy: sp.csr_array, feature_bias: FloatArray
    ) -> AssignmentProblem:
        """The same constraints, and the same features to choose from, with other numbers, which are not validated.

        Args:
            class_similarity: A, (n_classes, n_features).
            redundancy: r, (n_features, n_features), symmetric, with the pairs of this problem.
            feature_bias: b, (n_features,).
        """
        other = object.__new__(AssignmentProblem)
        for name in self.__dataclass_fields__:
            object.__setattr__(other, name, getattr(self, name))
        # A feature that is alive stays so, whatever its numbers are now.
        for name in ("dead_features", "forced_features", "candidates", "required_mask", "forbidden_mask"):
            other.__dict__[name] = getattr(self, name)
        for name, value in (("class_similarity", class_similarity), ("feature_bias", feature_bias)):
            value.setflags(write=False)
            object.__setattr__(other, name, value)
        freeze(redundancy)
        object.__setattr__(other, "redundancy", redundancy)
        return other

    # -- storage -----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the problem to an `.npz` file (arrays and JSON text, no pickle), which appears whole or not at all."""
        upper = sp.triu(self.redundancy, k=1, format="coo")
        _storage.write_npz(
            path,
            _KIND,
            {
                "class_similarity": self.class_similarity,
                "redundancy_row": upper.row.astype(np.int64),
                "redundancy_column": upper.col.astype(np.int64),
                "redundancy_value": upper.data,
                "feature_bias": self.feature_bias,
                "n_select": np.int64(self.n_select),
                "n_per_class": self.n_per_class,
                **{name: getattr(self, name) for name in _LOCKS},
                "labels": np.array(json.dumps({"classes": self.class_labels, "features": self.feature_labels})),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AssignmentProblem:
        """Read a problem that `save` wrote; everything is validated again.

        Raises:
            InvalidInputError: The file is missing, damaged or holds something else.
        """
        # Files without contrastive pairs need not say so.
        data = _storage.read_npz(path, _KIND, _STORED, optional=("contrastive_pairs",))
        with _storage.refusing_malformed(path, _KIND):
            n_features = data["class_similarity"].shape[1]
            upper = _stored_pairs(
                data["redundancy_row"], data["redundancy_column"], data["redundancy_value"], n_features
            )
            labels = _storage.parse_json(str(data["labels"]))
            classes, features = labels["classes"], labels["features"]
            no_contrasts = np.zeros((0, 3), dtype=np.int64)
            return cls(
                data["class_similarity"],
                upper + upper.T,
                data["feature_bias"],
                n_select=data["n_select"].item(),
                n_per_class=data["n_per_class"],
                **_named_locks({"contrastive_pairs": no_contrasts, **data}, classes, features),
                class_labels=classes,
                feature_labels=features,
            )

    def __repr__(self) -> str:
        budgets = np.unique(self.n_per_class)
        budget = str(budgets[0]) if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]}"
        lines = [
            f"AssignmentProblem: {self.n_classes} classes, {self.n_features} features",
            f"  keep {self.n_select} features, {budget} per class",
            f"  {self.n_penalised} penalised pairs ({self.penalised_share:.1%})",
        ]
        if len(self.dead_features):
            lines.append(f"  {len(self.dead_features)} dead features, never selected")
        locks = {
            "required features": len(self.required_features),
            "excluded features": len(self.excluded_features),
            "required pairs": len(self.required_pairs),
            "forbidden pairs": len(self.forbidden_pairs),
            "contrastive pairs": len(self.contrastive_pairs),
        }
        if any(locks.values()):
            lines.append("  locks: " + ", ".join(f"{count} {name}" for name, count in locks.items() if count))
        return "\n".join(lines)


def _stored_pairs(
    row: npt.NDArray[Any], column: npt.NDArray[Any], value: npt.NDArray[Any], n_features: int
) -> sp.coo_array:
    """The upper triangle of the penalties; refuses what `save` never writes."""
    if not (row.dtype.kind == column.dtype.kind == "i" and row.shape == column.shape == value.shape and row.ndim == 1):
        raise InvalidInputError("The pairs of features must be two lists of positions and one of penalties.")
    if ((row < 0) | (row >= column) | (column >= n_features)).any():
        raise InvalidInputError(f"The pairs of features must be positions i < j < {n_features}.")
    if len(np.unique(row * n_features + column)) < len(row):
        raise InvalidInputError("The pairs of features must be given once each.")
    return sp.coo_array((value, (row, column)), (n_features, n_features))


def _frozen(array: npt.NDArray[Any]) -> IntArray:
    array = np.ascontiguousarray(array, dtype=np.int64)
    array.setflags(write=False)
    return array


def _named_locks(
    locks: Mapping[str, IntArray], classes: Sequence[Label] | None, features: Sequence[Label] | None
) -> dict[str, list[Any]]:
    """The locks as arguments: by the names of what they lock."""
    return {
        **{
            name: [label_at(f, features) for f in locks[name].tolist()]
            for name in ("required_features", "excluded_features")
        },
        **{
            name: [(label_at(c, classes), label_at(f, features)) for c, f in locks[name].tolist()]
            for name in ("required_pairs", "forbidden_pairs")
        },
        "contrastive_pairs": [
            (label_at(c, classes), label_at(d, classes), least) for c, d, least in locks["contrastive_pairs"].tolist()
        ],
    }


def _pair_mask(pairs: IntArray, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    mask[pairs[:, 0], pairs[:, 1]] = True
    mask.setflags(write=False)
    return mask


def _bias(value: Any, n_features: int, features: tuple[Label, ...] | None) -> FloatArray:
    if value is None:
        value = np.zeros(n_features)
    bias = float_array("feature_bias", value, 1)
    if len(bias) != n_features:
        raise InvalidInputError(
            f"The 'feature_bias' parameter must have one entry for each of the {n_features} features. Got {len(bias)}."
        )
    require_same_labels("feature_bias", labels_of(value, "index"), features, "the features of 'class_similarity'")
    return bias


def _penalty_matrix(value: Any, n_features: int, features: tuple[Label, ...] | None) -> sp.csr_array:
    """Symmetric csr matrix of penalties without explicit zeros."""
    name = "redundancy"
    if value is None:
        none = ReadOnlyMatrix((n_features, n_features), dtype=np.float64)
        freeze(none)
        return none
    given = [value.labels] if isinstance(value, Penalties) else [labels_of(value, "index"), labels_of(value, "columns")]
    for labels in given:
        require_same_labels(name, labels, features, "the features of 'class_similarity'")
    if isinstance(value, Penalties):
        value = value.matrix
    if sp.issparse(value):
        matrix = sparse_matrix(name, value).astype(np.float64)
        require_finite(name, matrix.data)
        require_moderate(name, matrix.data)
    else:
        matrix = sp.csr_array(float_array(name, value, 2))
    if matrix.shape != (n_features, n_features):
        raise InvalidInputError(
            f"The '{name}' parameter must have shape ({n_features}, {n_features}), a row and a column for each "
            f"feature. Got {matrix.shape}."
        )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if matrix.diagonal().any():
        feature = int(np.flatnonzero(matrix.diagonal())[0])
        raise InvalidInputError(
            f"The '{name}' parameter must have a zero diagonal. Got {matrix.diagonal()[feature]:g} for feature "
            f"{feature}; a similarity matrix becomes penalties through penalties_from_similarity."
        )
    if matrix.nnz and matrix.data.min() < 0:
        raise InvalidInputError(
            f"The '{name}' parameter must not be negative: it holds penalties. Got {matrix.data.min():g}; "
            "a similarity matrix becomes penalties through penalties_from_similarity."
        )
    difference = abs(matrix - matrix.T)
    if difference.nnz and difference.max() > 1e-8 * matrix.max():
        triangular = sp.triu(matrix, k=1).nnz == 0 or sp.tril(matrix, k=-1).nnz == 0
        remedy = "one triangle alone: pass P + P.T" if triangular else "pass (P + P.T) / 2 if that is what you mean"
        raise InvalidInputError(
            f"The '{name}' parameter must be symmetric. Got a matrix that differs from its transpose by up to "
            f"{difference.max():g}; {remedy}."
        )
    symmetric = ReadOnlyMatrix((matrix + matrix.T) * 0.5)
    symmetric.sort_indices()
    freeze(symmetric)
    return symmetric


def _budgets(value: Any, n_classes: int, classes: tuple[Label, ...] | None) -> IntArray:
    name = "n_per_class"
    if isinstance(value, str) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0:
        return _frozen(np.full(n_classes, whole_number(name, value, least=1)))
    if len(value) != n_classes:
        raise InvalidInputError(
            f"The '{name}' parameter must be one number or one for each of the {n_classes} classes. "
            f"Got {len(value)} of them."
        )
    require_same_labels(name, labels_of(value, "index"), classes, "the classes of 'class_similarity'")
    return _frozen(
        np.array([whole_number(name, item, least=1) for item in ordered_items(name, value, "whole numbers")])
    )


def _feature_set(name: str, value: Any, n_features: int, features: tuple[Label, ...] | None) -> IntArray:
    if isinstance(value, (str, int, np.integer)):
        value = [value]
    listed = feature_positions(name, value, n_features, features)
    return _frozen(np.unique(np.array(listed, dtype=np.int64)))


def _pair_set(
    name: str,
    value: Any,
    shape: tuple[int, ...],
    classes: tuple[Label, ...] | None,
    features: tuple[Label, ...] | None,
) -> IntArray:
    pairs = set()
    if _is_mask(value):
        for axis, labels, owner in (("index", classes, "the classes"), ("columns", features, "the features")):
            require_same_labels(name, labels_of(value, axis), labels, f"{owner} of 'class_similarity'")
        mask = plain_array(name, value)
        if mask.shape != shape:
            raise InvalidInputError(
                f"The '{name}' parameter must, as a mask, have the shape {shape}, classes × features. Got {mask.shape}."
            )
        value = np.argwhere(mask).tolist()
    for item in items(name, value, "(class, feature) pairs"):
        if isinstance(item, str) or not isinstance(item, Sequence | np.ndarray) or len(item) != 2:
            raise InvalidInputError(f"The '{name}' parameter must hold (class, feature) pairs. Got {item!r}.")
        pairs.add(
            (
                position(name, item[0], shape[0], classes, "class"),
                position(name, item[1], shape[1], features, "feature"),
            )
        )
    return _frozen(np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2))


def _is_mask(value: Any) -> bool:
    """Whether it is an array, a tensor or a frame of booleans."""
    if hasattr(value, "iloc") and value.ndim == 2:
        return all(str(dtype) in ("bool", "boolean") for dtype in value.dtypes)
    return str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _contrasts(value: Any, n_classes: int, classes: tuple[Label, ...] | None) -> IntArray:
    """(n, 3) sorted class, class, least number of shared features; the largest number where a pair is given twice."""
    name = "contrastive_pairs"
    least: dict[tuple[int, int], int] = {}
    for item in items(name, value, "(class, class, m) triples"):
        if isinstance(item, str) or not isinstance(item, Sequence | np.ndarray) or len(item) != 3:
            raise InvalidInputError(f"The '{name}' parameter must hold (class, class, m) triples. Got {item!r}.")
        first, second = sorted(position(name, label, n_classes, classes, "class") for label in item[:2])
        if first == second:
            raise InvalidInputError(f"The '{name}' parameter must hold pairs of different classes. Got {item!r}.")
        shared = whole_number(name, item[2], least=1)
        least[first, second] = max(shared, least.get((first, second), 0))
    return _frozen(np.array([(*pair, m) for pair, m in sorted(least.items())], dtype=np.int64).reshape(-1, 3))


def _refuse_infeasible(problem: AssignmentProblem) -> None:
    """Raise where the constraints contradict each other.

    The checks are necessary conditions; a problem with many forbidden pairs can pass them and still have no solution,
    which a solver then reports.
    """
    n_select, forced, candidates = problem.n_select, problem.forced_features, problem.candidates
    n_dead = len(problem.dead_features)
    classes, features = problem.class_labels, problem.feature_labels
    if n_select > problem.n_features:
        raise InfeasibleProblemError(
            f"The 'n_select' parameter must be at most n_features = {problem.n_features}. Got {n_select}."
        )
    both = np.intersect1d(forced, problem.excluded_features).tolist()
    if both:
        raise InfeasibleProblemError(
            f"The locks contradict each other: feature {label_at(both[0], features)!r} is excluded, but required by "
            "'required_features' or 'required_pairs'. Drop one of the two."
        )
    if n_select > len(candidates):
        raise InfeasibleProblemError(
            f"The 'n_select' parameter must be at most the number of features that can be kept, {len(candidates)} "
            f"({problem.n_features} less {len(problem.excluded_features)} excluded and {n_dead} dead). Got {n_select}."
        )
    if len(forced) > n_select:
        raise InfeasibleProblemError(
            f"The locks require {len(forced)} features, more than n_select = {n_select}. Raise n_select or drop some."
        )
    if (problem.n_per_class > n_select).any():
        raise InfeasibleProblemError(
            f"The 'n_per_class' parameter must be at most n_select = {n_select}. Got {problem.n_per_class.max()}."
        )
    clash = problem.required_mask & problem.forbidden_mask
    if clash.any():
        index, feature = np.argwhere(clash)[0].tolist()
        raise InfeasibleProblemError(
            f"The locks contradict each other: the pair of class {label_at(index, classes)!r} and feature "
            f"{label_at(feature, features)!r} is both required and forbidden. Drop one of the two."
        )
    for first, second, least in problem.contrastive_pairs.tolist():
        smaller, larger = sorted(problem.n_per_class[[first, second]].tolist())
        most = smaller if smaller < larger else smaller - 1
        if least > most:
            raise InfeasibleProblemError(
                f"The 'contrastive_pairs' parameter has classes {label_at(first, classes)!r} and "
                f"{label_at(second, classes)!r} share at least {least} features, but with n_per_class = "
                f"{problem.n_per_class[first]} and {problem.n_per_class[second]} and no two classes alike they can "
                f"share at most {most}."
            )
    _refuse_too_few_sets(problem)


def _refuse_too_few_sets(problem: AssignmentProblem) -> None:
    """Raise where some classes cannot all get different sets, whatever features are kept."""
    for budget, count in sorted(Counter(problem.n_per_class.tolist()).items()):
        if math.comb(problem.n_select, budget) < count:
            raise InfeasibleProblemError(
                f"No two classes may have the same features, but {problem.n_select} kept features have only "
                f"{math.comb(problem.n_select, budget)} different sets of n_per_class = {budget}, and {count} classes "
                "need one. Raise n_select or change n_per_class."
            )
    kinds: dict[tuple[int, bytes, bytes], list[int]] = {}
    for index, budget in enumerate(problem.n_per_class.tolist()):
        key = (budget, problem.required_mask[index].tobytes(), problem.forbidden_mask[index].tobytes())
        kinds.setdefault(key, []).append(index)
    for (budget, _, _), members in kinds.items():
        required = problem.required_mask[members[0]]
        forbidden = problem.forbidden_mask[members[0]]
        named = [label_at(index, problem.class_labels) for index in members]
        if required.sum() > budget:
            raise InfeasibleProblemError(
                f"The 'required_pairs' parameter gives class {named[0]!r} {int(required.sum())} features, more than "
                f"its n_per_class = {budget}."
            )
        usable = min(
            problem.n_select - int(forbidden[problem.forced_features].sum()),
            int((~forbidden[problem.candidates]).sum()),
        )
        free = usable - int(required.sum())
        sets = math.comb(free, budget - int(required.sum())) if free >= budget - int(required.sum()) else 0
        if sets < len(members):
            listed = ", ".join(map(repr, named[:5])) + (", …" if len(named) > 5 else "")
            whom = f"class {listed}, which needs" if len(named) == 1 else f"classes {listed}, which need"
            raise InfeasibleProblemError(
                f"The locks leave {sets} different sets of {budget} features to {whom} "
                f"{len(named)}. Drop some forbidden or required pairs."
            )
