"""Made-up classification data that is as awkward as the real thing, for tests and benchmarks.

Classes form a tree (groups → families → classes) and inherit attributes along it, so that neighbours share most of
theirs. Many features react to each attribute, so that features come in look-alikes; others react weakly, or to
nothing but noise. Everything the optimiser reads is then computed from the features as it would be from those of a
backbone.

    python -m benchmarks.generator problem.npz --classes 200 --features 2048 --seed 0
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ProblemData", "generate_problem_data", "main", "save_problem"]

FloatArray = NDArray[np.float64]

BIAS_RANGE = float(np.sqrt(10.0) * 0.1)
"""Largest absolute feature bias, the scale that the method gives its locality bias."""

LEAST_CHANGE = 0.6
"""How often the steadiest attribute is redrawn from a group to its families; 1 for the least steady."""

CLASS_CHANGE = 0.9
"""How often, relative to that, it is redrawn from the family with the most different classes to its classes."""

CLASSES_PER_FAMILY = 5
FAMILIES_PER_GROUP = 5
BLOCK_ENTRIES = 1 << 23


@dataclass(frozen=True, repr=False)
class ProblemData:
    """A made-up data set and the constants of the selection problem that follow from it.

    Attributes:
        features: Pooled features, (n_images, n_features) float32, never negative.
        labels: Class of each image, (n_images,) int64, every class equally often and in order.
        class_similarity: A, (n_classes, n_features) float64, largest absolute entry 1.
        redundancy_similarity: R, (n_features, n_features) float64, symmetric, unit diagonal but 0 where a feature is
            dead.
        feature_bias: b, (n_features,) float64, centred, largest absolute entry √10 · 0.1.
        class_attributes: How strongly each class shows each attribute, (n_classes, n_attributes) float64 in [0, 1].
        class_names: One name a class; says where in the tree it sits.
        feature_names: One name a feature; says which attribute it reacts to.
        seed: What the data were made from.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_similarity: FloatArray
    redundancy_similarity: FloatArray
    feature_bias: FloatArray
    class_attributes: FloatArray
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    seed: int

    @property
    def A(self) -> FloatArray:  # noqa: N802  the method's letter
        """Class similarity, (n_classes, n_features)."""
        return self.class_similarity

    @property
    def R(self) -> FloatArray:  # noqa: N802  the method's letter
        """Similarity of features, (n_features, n_features)."""
        return self.redundancy_similarity

    def __repr__(self) -> str:
        n_classes, n_features = self.class_similarity.shape
        return (
            f"ProblemData(n_classes={n_classes}, n_features={n_features}, n_images={len(self.labels)}, "
            f"n_attributes={self.class_attributes.shape[1]}, seed={self.seed})"
        )


def generate_problem_data(
    n_classes: int = 200,
    n_features: int = 2048,
    *,
    images_per_class: int = 30,
    n_attributes: int | None = None,
    redundancy: float = 0.5,
    noise: float = 1.0,
    noise_features: float = 0.05,
    dead_features: int = 0,
    seed: int = 0,
) -> ProblemData:
    """Make a data set of classes in a tree, described by features that look alike.

    The defaults are set so that, at 200 classes and 2,048 features, the searched threshold for 50 features penalises
    between 15 and 20 % of all pairs, as on real features, and so that some classes take the same five features where
    each takes its best.

    Args:
        n_classes: Number of classes, at least 2.
        n_features: Number of features, at least 1.
        images_per_class: Images of each class, at least 2.
        n_attributes: Number of attributes behind the features; by default it grows slowly with the number of features.
        redundancy: In [0, 1]: 1 makes every feature react to one attribute alone, so that the features of one
            attribute are copies but for noise; lower values mix other attributes in.
        noise: Standard deviation of the noise in one image, in units of an attribute's strength; not negative.
        noise_features: Share of the features, in [0, 1], that react to no attribute.
        dead_features: Number of features that are zero on every image, as real backbones have.
        seed: Equal seeds give equal data.

    Returns:
        The data and all constants computed from them.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> data = generate_problem_data(12, 40, images_per_class=5, seed=1)
        >>> data.class_similarity.shape, data.redundancy_similarity.shape
        ((12, 40), (40, 40))
        >>> data
        ProblemData(n_classes=12, n_features=40, n_images=60, n_attributes=25, seed=1)
    """
    _check_at_least("n_classes", n_classes, 2)
    _check_at_least("n_features", n_features, 1)
    _check_at_least("images_per_class", images_per_class, 2)
    _check_at_least("dead_features", dead_features, 0)
    _check_share("redundancy", redundancy)
    _check_share("noise_features", noise_features)
    if not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"'noise' must be a finite number that is not negative. Got {noise!r} instead.")
    if dead_features > n_features:
        raise ValueError(f"'dead_features' must be at most n_features = {n_features}. Got {dead_features} instead.")
    if n_attributes is None:
        n_attributes = max(24, round(4.0 * float(np.sqrt(n_features))))
    _check_at_least("n_attributes", n_attributes, 1)

    # One stream per part: changing how one part draws leaves the others as they were.
    tree_rng, feature_rng, image_rng, bias_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)
    )
    family, group = _tree(n_classes)
    attributes = _inherit_attributes(tree_rng, family, group, n_attributes)
    loadings, main_attribute, dead = _draw_features(
        feature_rng, n_attributes, n_features, redundancy, noise_features, dead_features
    )
    features, labels = _draw_images(image_rng, attributes, loadings, dead, images_per_class, noise)
    similarity = _class_similarity(features, n_classes, images_per_class)
    return ProblemData(
        features=features,
        labels=labels,
        class_similarity=similarity,
        redundancy_similarity=_feature_similarity(similarity),
        feature_bias=_draw_bias(bias_rng, n_features),
        class_attributes=attributes,
        class_names=tuple(
            f"group {g} / family {f} / class {c}" for c, (f, g) in enumerate(zip(family, group, strict=True))
        ),
        feature_names=tuple(
            f"dead {f}" if d else f"noise {f}" if m < 0 else f"attribute {m} / feature {f}"
            for f, (m, d) in enumerate(zip(main_attribute.tolist(), dead.tolist(), strict=True))
        ),
        seed=seed,
    )


def _check_at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"'{name}' must be an integer of at least {least}. Got {value!r} instead.")


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"'{name}' must lie between 0 and 1. Got {value!r} instead.")


def _tree(n_classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Family and group of each class."""
    family = np.arange(n_classes, dtype=np.int64) // CLASSES_PER_FAMILY
    return family, family // FAMILIES_PER_GROUP


def _inherit_attributes(
    rng: np.random.Generator, family: NDArray[np.int64], group: NDArray[np.int64], n_attributes: int
) -> FloatArray:
    """How strongly each class shows each attribute: inherited from group to family to class, redrawn now and then."""
    frequency = rng.beta(1.5, 6.0, n_attributes)
    # How often a node departs from its parent: some attributes tell groups apart, others the classes of one family.
    rate = rng.uniform(LEAST_CHANGE, 1.0, n_attributes)

    def node(n: int, parent: FloatArray, keep: FloatArray) -> FloatArray:
        shown = rng.random((n, n_attributes)) < frequency
        strength = shown * rng.uniform(0.4, 1.0, (n, n_attributes))
        return np.where(rng.random((n, n_attributes)) < keep, parent, strength)

    groups = node(int(group.max()) + 1, np.zeros((1, n_attributes)), np.zeros(n_attributes))
    group_of_family = np.arange(int(family.max()) + 1) // FAMILIES_PER_GROUP
    families = node(len(group_of_family), groups[group_of_family], 1.0 - rate)
    # Families differ in how alike their classes are: the closest are what makes classes take the same features.
    change = CLASS_CHANGE * ((rng.permutation(len(families)) + 0.5) / len(families))[family, None]
    classes = node(len(family), families[family], 1.0 - change * rate)
    # With few attributes a class may have drawn none, and nothing could tell it from the background.
    bare = np.flatnonzero(~classes.any(axis=1))
    classes[bare, rng.integers(n_attributes, size=len(bare))] = 1.0
    return np.asarray(classes * rng.uniform(0.85, 1.0, classes.shape), dtype=np.float64)


def _draw_features(
    rng: np.random.Generator,
    n_attributes: int,
    n_features: int,
    redundancy: float,
    noise_features: float,
    dead_features: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Draw (n_attributes, n_features) weights, the main attribute of each feature (−1: none), and which are dead."""
    popularity = rng.dirichlet(np.full(n_attributes, 2.0))
    main = rng.choice(n_attributes, size=n_features, p=popularity).astype(np.int64)
    strength = rng.lognormal(0.0, 0.4, n_features)
    columns = np.arange(n_features)
    loadings = np.zeros((n_attributes, n_features))
    others = 6
    for _ in range(others):
        loadings[rng.integers(n_attributes, size=n_features), columns] += rng.normal(0.0, 1.0, n_features)
    loadings *= (1.0 - redundancy) * 0.9
    loadings[main, columns] += 1.0
    loadings *= strength
    blind = rng.random(n_features) < noise_features
    loadings[:, blind] = 0.0
    main[blind] = -1
    dead = np.zeros(n_features, dtype=bool)
    dead[rng.choice(n_features, size=dead_features, replace=False)] = True
    return loadings.astype(np.float32), main, dead


def _draw_images(
    rng: np.random.Generator,
    attributes: FloatArray,
    loadings: NDArray[np.float32],
    dead: NDArray[np.bool_],
    images_per_class: int,
    noise: float,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw the features of all images, in blocks of classes that keep the peak of memory near the result's size."""
    n_classes, n_attributes = attributes.shape
    n_features = loadings.shape[1]
    features = np.empty((n_classes * images_per_class, n_features), dtype=np.float32)
    gain = 0.5 + rng.random(n_features, dtype=np.float32)
    offset = 0.8 * rng.random(n_features, dtype=np.float32) - 0.2
    step = max(1, BLOCK_ENTRIES // (images_per_class * n_features))
    for first in range(0, n_classes, step):
        means = np.repeat(attributes[first : first + step].astype(np.float32), images_per_class, axis=0)
        shape = (len(means), n_attributes)
        # An attribute may be hidden in a picture, and shows in pictures of classes that do not have it.
        shown = means * (0.3 + rng.random(shape, dtype=np.float32))
        shown += np.float32(0.15 * noise) * rng.standard_normal(shape, dtype=np.float32)
        block = features[first * images_per_class : first * images_per_class + len(means)]
        rng.standard_normal(out=block, dtype=np.float32)
        block *= np.float32(0.35 * noise)
        block += shown @ loadings
        block += offset
        np.maximum(block, 0.0, out=block)
        block *= gain
    features[:, dead] = 0.0
    return features, np.repeat(np.arange(n_classes, dtype=np.int64), images_per_class)


def _class_similarity(features: NDArray[np.float32], n_classes: int, images_per_class: int) -> FloatArray:
    """Correlate every feature with every class's indicator (Pearson), over the largest absolute one; 0 if dead."""
    n_images, n_features = features.shape
    class_sums = np.empty((n_classes, n_features))
    squares = np.zeros(n_features)
    for c in range(n_classes):
        rows = features[c * images_per_class : (c + 1) * images_per_class].astype(np.float64)
        class_sums[c] = rows.sum(axis=0)
        squares += np.einsum("if,if->f", rows, rows)
    mean = class_sums.sum(axis=0) / n_images
    variance = np.maximum(squares / n_images - mean**2, 0.0)
    variance[variance <= 1e-12 * (squares / n_images)] = 0.0
    share = 1.0 / n_classes
    covariance = class_sums / n_images - share * mean
    scale = np.sqrt(variance * share * (1.0 - share))
    similarity = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    return _over_largest(similarity)


def _feature_similarity(similarity: FloatArray) -> FloatArray:
    """Cosine between the columns of the class similarity, over the largest absolute one; exactly symmetric."""
    length = np.sqrt(np.einsum("cf,cf->f", similarity, similarity))
    unit = np.divide(similarity, length, out=np.zeros_like(similarity), where=length > 0)
    cosine = unit.T @ unit
    cosine = (cosine + cosine.T) / 2.0
    np.fill_diagonal(cosine, (length > 0).astype(np.float64))
    return _over_largest(np.clip(cosine, -1.0, 1.0))


def _over_largest(values: FloatArray) -> FloatArray:
    largest = float(np.abs(values).max())
    return values / largest if largest > 0 else values


def _draw_bias(rng: np.random.Generator, n_features: int) -> FloatArray:
    """Draw a bias like the method's: how peaked a feature is, least for those on the border, centred and scaled."""
    peaked = rng.gamma(4.0, 1.0, n_features)
    low, high = np.quantile(peaked, [0.02, 0.95])
    peaked = np.clip(peaked, low, high)
    peaked[rng.random(n_features) < 0.15] = low
    return _over_largest(peaked - peaked.mean()) * BIAS_RANGE


def save_problem(path: str | Path, data: ProblemData) -> Path:
    """Write class_similarity, redundancy_similarity and feature_bias to a compressed .npz.

    Args:
        path: Where to write; ``.npz`` is added if it is missing.
        data: What to write; features and labels stay out, they are large and can be made again.

    Returns:
        The path written to.
    """
    target = Path(path)
    if target.suffix != ".npz":
        target = target.with_name(target.name + ".npz")
    np.savez_compressed(
        target,
        class_similarity=data.class_similarity,
        redundancy_similarity=data.redundancy_similarity,
        feature_bias=data.feature_bias,
    )
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a problem and write it to a file.

    Args:
        arguments: Command line without the program's name; by default that of the process.

    Returns:
        0; wrong arguments end the process with status 2 and one line that says what is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generator", description="Make a selection problem.")
    parser.add_argument("output", type=Path, help="file to write, .npz")
    parser.add_argument("--classes", type=int, default=200, help="number of classes (default: %(default)s)")
    parser.add_argument("--features", type=int, default=2048, help="number of features (default: %(default)s)")
    parser.add_argument("--images-per-class", type=int, default=30, help="images of a class (default: %(default)s)")
    parser.add_argument("--dead", type=int, default=0, help="features that are zero everywhere (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal data (default: %(default)s)")
    chosen: Any = parser.parse_args(arguments)
    if not chosen.output.absolute().parent.is_dir():
        parser.error(f"the folder {chosen.output.parent} of the output does not exist; create it first")
    try:
        data = generate_problem_data(
            chosen.classes,
            chosen.features,
            images_per_class=chosen.images_per_class,
            dead_features=chosen.dead,
            seed=chosen.seed,
        )
    except ValueError as error:
        parser.error(str(error))
    print(f"{save_problem(chosen.output, data)}: {data!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
