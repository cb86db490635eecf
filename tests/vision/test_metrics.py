from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

import qpm_vision.metrics as metrics
from qpm_opt import InvalidInputError
from qpm_vision.metrics import (
    ClassIndependence,
    Compactness,
    Contrastiveness,
    FeatureCorrelation,
    SpatialDiversity,
    StructuralGrounding,
    class_independence,
    compactness,
    contrastiveness,
    correlation,
    mixture_overlap,
    spatial_diversity,
    structural_grounding,
)
from qpm_vision.metrics.contrastiveness import _normal_overlap

DATA = Path(__file__).parents[1] / "data"
few = settings(max_examples=20, deadline=None)
containers = pytest.mark.parametrize("of", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "metrics.npz"))


@containers
class TestReference:
    @pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
    def test_spatial_diversity(self, reference, of, k):
        value = spatial_diversity(of(reference["maps"]), of(reference["logits"]), of(reference["W"]), k=k)
        assert type(value) is float
        assert value == pytest.approx(reference["sid_at_1_to_5"][k - 1], abs=1e-5)

    def test_class_independence(self, reference, of):
        value = class_independence(of(reference["features"]), of(reference["labels"]))
        assert type(value) is float
        assert value == pytest.approx(float(reference["class_independence"]), abs=1e-5)

    def test_correlation(self, reference, of):
        value = correlation(of(reference["features"]))
        assert type(value) is float
        assert value == pytest.approx(float(reference["correlation"]), abs=1e-5)

    def test_contrastiveness(self, reference, of):
        value = contrastiveness(of(reference["features"]))
        assert type(value) is float
        assert value == pytest.approx(float(reference["contrastiveness"]), abs=1e-2)
        np.testing.assert_allclose(mixture_overlap(of(reference["features"])), reference["gmm_overlap"], atol=1e-3)

    @pytest.mark.parametrize("top", [10, 50])
    def test_structural_grounding(self, reference, of, top):
        value = structural_grounding(of(reference["W"]), of(reference["class_similarity"]), top=top)
        assert type(value) is float
        assert value == pytest.approx(float(reference[f"structural_grounding_top{top}"]), abs=1e-5)

    def test_compactness(self, reference, of):
        used = int((reference["W"] != 0).any(axis=0).sum())
        assert compactness(of(reference["W"])) == {"features": used, "features_per_class": 5.0}


def random_case(seed: int, n: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    maps = np.maximum(rng.normal(size=(n, 7, 4, 3)), 0).astype(np.float32)
    return {
        "maps": maps,
        "features": maps.mean(axis=(2, 3)) + np.float32(0.5),
        "labels": rng.choice([0, 1, 3], n),  # class 2 has no images
        "logits": rng.normal(size=(n, 4)).astype(np.float32),
        "weights": rng.normal(size=(4, 7)),
    }


Case = tuple[Callable[[dict[str, np.ndarray]], object], tuple[str, ...], Callable[..., float]]
CASES: dict[str, Case] = {
    "spatial_diversity": (
        lambda case: SpatialDiversity(case["weights"], k=3),
        ("maps", "logits"),
        lambda case: spatial_diversity(case["maps"], case["logits"], case["weights"], k=3),
    ),
    "class_independence": (
        lambda case: ClassIndependence(7, 4),
        ("features", "labels"),
        lambda case: class_independence(case["features"], case["labels"]),
    ),
    "correlation": (
        lambda case: FeatureCorrelation(7),
        ("features",),
        lambda case: correlation(case["features"]),
    ),
    "contrastiveness": (
        lambda case: Contrastiveness(),
        ("features",),
        lambda case: contrastiveness(case["features"]),
    ),
}


@pytest.mark.parametrize("name", CASES)
class TestAccumulators:
    @given(st.integers(0, 10_000), st.lists(st.integers(1, 23), max_size=3), st.booleans())
    @few
    def test_batches_and_merges_are_the_whole(self, name, seed, cuts, as_torch):
        make, arguments, whole = CASES[name]
        case = random_case(seed)
        parts = []
        edges = sorted({0, *cuts, 24})
        batched = make(case)
        for begin, end in itertools.pairwise(edges):
            batch = [case[argument][begin:end] for argument in arguments]
            batch = [torch.from_numpy(array) for array in batch] if as_torch else batch
            part = make(case)
            part.update(*batch)
            batched.update(*batch)
            parts.append(part)
        merged = make(case)
        for part in parts:
            merged.merge(part)
        expected = whole(case)
        assert isinstance(batched.compute(), float)
        assert batched.compute() == pytest.approx(expected, abs=1e-9)
        assert merged.compute() == pytest.approx(expected, abs=1e-9)

    @pytest.mark.filterwarnings("ignore:The ``compute`` method")  # torchmetrics warns, then our error comes
    def test_reset_copy_and_move(self, name):
        make, arguments, whole = CASES[name]
        case = random_case(1)
        metric = make(case).to("cpu")
        metric.update(*(case[argument][:10] for argument in arguments))
        twin = copy.deepcopy(metric)
        metric.reset()
        with pytest.raises(InvalidInputError):
            metric.compute()
        metric.update(*(case[argument] for argument in arguments))
        assert metric.compute() == pytest.approx(whole(case), abs=1e-9)
        twin.update(*(case[argument][10:] for argument in arguments))
        assert twin.compute() == pytest.approx(whole(case), abs=1e-9)

    def test_buffers_may_be_used_again(self, name):
        make, arguments, whole = CASES[name]
        case = random_case(2)
        metric = make(case)
        buffers = [case[argument].copy() for argument in arguments]
        metric.update(*buffers)
        for buffer in buffers:
            buffer[:] = 0
        assert metric.compute() == pytest.approx(whole(case), abs=1e-9)

    def test_keeps_no_maps(self, name):
        make, arguments, _ = CASES[name]
        case = random_case(3, n=200)
        metric = make(case)
        metric.update(*(case[argument] for argument in arguments))
        states = [value for value in vars(metric).values() if isinstance(value, torch.Tensor | list)]
        held = sum(t.numel() for state in states for t in (state if isinstance(state, list) else [state]))
        assert held <= case["features"].size + 100

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, name, bad):
        make, arguments, whole = CASES[name]
        case = random_case(4)
        for key in ("maps", "features"):
            case[key][5] = bad
        with pytest.raises(InvalidInputError, match="image 5"):
            whole(case)
        with pytest.raises(InvalidInputError, match="image 5"):
            make(case).update(*(case[argument] for argument in arguments))

    def test_merge_of_another_kind(self, name):
        make, *_ = CASES[name]
        with pytest.raises(InvalidInputError, match="'other'"):
            make(random_case(0)).merge(Compactness())

    def test_short_floats(self, name):
        make, arguments, whole = CASES[name]
        case = random_case(5)
        metric = make(case)
        inputs = [torch.from_numpy(case[argument]) for argument in arguments]
        metric.update(*(t.bfloat16() if t.is_floating_point() else t for t in inputs))
        assert metric.compute() == pytest.approx(whole(case), abs=0.03)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cuda(self, name):
        make, arguments, whole = CASES[name]
        case = random_case(6)
        for metric in (make(case), make(case).to("cuda")):
            metric.update(*(torch.from_numpy(case[argument]).cuda() for argument in arguments))
            assert metric.compute() == pytest.approx(whole(case), abs=1e-6)


def test_accumulators_are_torchmetrics():
    from torchmetrics import Metric

    for name in ("SpatialDiversity", "ClassIndependence", "Contrastiveness", "FeatureCorrelation"):
        assert issubclass(getattr(metrics, name), Metric)


class TestSpatialDiversity:
    def test_apart_and_together(self):
        maps = np.zeros((1, 3, 9, 9))
        maps[0, 0, 1, 1] = maps[0, 1, 7, 7] = maps[0, 2, 1, 1] = 1.0
        weights = np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0]])
        assert spatial_diversity(maps, [[1.0, 0.0]], weights, k=2) == pytest.approx(1.0, abs=1e-6)
        assert spatial_diversity(maps, [[0.0, 1.0]], weights, k=2) == pytest.approx(0.5, abs=1e-6)

    def test_more_images_than_are_looked_at_together(self):
        rng = np.random.default_rng(0)
        maps = rng.random((60, 6, 200, 200), dtype=np.float32)
        logits, weights = rng.random((60, 3)), rng.random((3, 6))
        single = [spatial_diversity(m[None], row[None], weights) for m, row in zip(maps, logits, strict=True)]
        assert spatial_diversity(maps, logits, weights) == pytest.approx(np.mean(single), abs=1e-7)  # float32 sums

    def test_maps_of_zeros(self):
        assert spatial_diversity(np.zeros((1, 2, 3, 3)), [[1.0]], [[1.0, 1.0]], k=2) == pytest.approx(0.5)

    @pytest.mark.parametrize("k", [0, 4, 2.0, True])
    def test_k_out_of_range(self, k):
        with pytest.raises(InvalidInputError, match="'k'"):
            spatial_diversity(np.zeros((1, 3, 2, 2)), [[1.0]], np.ones((1, 3)), k=k)

    def test_shapes(self):
        with pytest.raises(InvalidInputError, match="'maps'"):
            spatial_diversity(np.zeros((1, 4, 2, 2)), [[1.0]], np.ones((1, 3)), k=1)
        with pytest.raises(InvalidInputError, match="'logits'"):
            spatial_diversity(np.zeros((1, 3, 2, 2)), [[1.0, 2.0]], np.ones((1, 3)), k=1)
        with pytest.raises(InvalidInputError, match="no images"):
            spatial_diversity(np.zeros((0, 3, 2, 2)), np.zeros((0, 1)), np.ones((1, 3)), k=1)


class TestClassIndependence:
    @given(st.integers(0, 10_000))
    @few
    def test_definition(self, seed):
        case = random_case(seed)
        values = case["features"].astype(float) - case["features"].min(axis=0)
        shares = [max(values[case["labels"] == c, f].sum() for c in range(4)) / values[:, f].sum() for f in range(7)]
        assert class_independence(case["features"], case["labels"]) == pytest.approx(1 - np.mean(shares), abs=1e-9)

    def test_extremes(self):
        eye = np.repeat(np.eye(4), 3, axis=0)
        assert class_independence(eye, np.repeat(np.arange(4), 3)) == pytest.approx(0.0)
        assert class_independence(eye, np.tile(np.arange(3), 4)) == pytest.approx(2 / 3)

    @pytest.mark.parametrize("value", [0.0, 0.1, -5.3])
    def test_features_that_never_vary_are_left_out(self, value):
        case = random_case(0)
        dead = np.concatenate([case["features"], np.full((24, 2), value, dtype=np.float32)], axis=1)
        expected = class_independence(case["features"], case["labels"])
        assert class_independence(dead, case["labels"]) == pytest.approx(expected, abs=1e-9)
        assert np.isnan(class_independence(dead[:, 7:], case["labels"]))

    def test_shapes(self):
        with pytest.raises(InvalidInputError, match="'labels'"):
            class_independence(np.zeros((3, 2)), [0, 1])
        with pytest.raises(InvalidInputError, match="'features'"):
            ClassIndependence(3, 2).update(np.zeros((3, 2)), [0, 1, 1])


class TestCorrelation:
    @given(st.integers(0, 10_000))
    @few
    def test_definition(self, seed):
        F = np.random.default_rng(seed).normal(size=(20, 6))
        largest = [
            max(F[:, i] @ F[:, j] / np.linalg.norm(F[:, i]) / np.linalg.norm(F[:, j]) for j in range(6) if j != i)
            for i in range(6)
        ]
        assert correlation(F) == pytest.approx(np.mean(largest), abs=1e-9)

    def test_copies_dead_and_single_features(self):
        x = np.random.default_rng(0).random((10, 1))
        assert correlation(np.hstack([x, 3 * x])) == pytest.approx(1.0)
        assert correlation(np.hstack([x, 0 * x])) == 0.0
        assert correlation(x) == 0.0


class TestContrastiveness:
    @given(
        st.floats(-30, 30),
        st.floats(0.05, 20).filter(lambda s: s > 0),
        st.floats(-30, 30),
        st.floats(0.05, 20),
    )
    @settings(max_examples=60, deadline=None)
    def test_overlap_is_the_area_under_the_smaller_density(self, m1, s1, m2, s2):
        if s1 > s2:
            m1, s1, m2, s2 = m2, s2, m1, s1
        edges = np.unique(np.concatenate([m + s * np.linspace(-9, 9, 80) for m, s in ((m1, s1), (m2, s2))]))
        grid = np.concatenate([np.linspace(a, b, 60) for a, b in itertools.pairwise(edges)])
        expected = np.trapezoid(np.minimum(norm.pdf(grid, m1, s1), norm.pdf(grid, m2, s2)), grid)
        assert _normal_overlap((m2 - m1) / s1, s2 / s1) == pytest.approx(expected, abs=2e-5)

    @pytest.mark.parametrize(
        ("distance", "ratio", "expected"),
        [
            (0.0, 1.0, 1.0),
            (2.0, 1.0, 2 * norm.cdf(-1)),
            (-2.0, 1.0, 2 * norm.cdf(-1)),
            (2.0, 1 + 1e-12, 2 * norm.cdf(-1)),
            (1e-9, 1 + 1e-15, 1.0),
            (0.0, 1 + 1e-9, 1.0),
            (1e6, 3.0, 0.0),
        ],
    )
    def test_overlap_at_the_edges(self, distance, ratio, expected):
        assert _normal_overlap(distance, ratio) == pytest.approx(expected, abs=1e-8)

    def test_overlap_by_quadrature(self):
        area = quad(lambda x: min(norm.pdf(x), norm.pdf(x, 1.5, 2.5)), -40, 40, limit=500, points=[-2, 0, 1, 2])[0]
        assert _normal_overlap(1.5, 2.5) == pytest.approx(area, abs=1e-7)

    def test_weights_of_the_components_do_not_count(self):
        rng = np.random.default_rng(0)
        x = np.concatenate([rng.normal(0, 1, 900), rng.normal(4, 1, 100)])
        mixture = GaussianMixture(2, random_state=0).fit(x[:, None])
        assert min(mixture.weights_) < 0.2
        one, two = (
            norm(m, s) for m, s in zip(mixture.means_.ravel(), mixture.covariances_.ravel() ** 0.5, strict=True)
        )
        area = quad(lambda z: min(one.pdf(z), two.pdf(z)), -10, 15, limit=500, points=[0, 2, 4])[0]
        assert mixture_overlap(x[:, None])[0] == pytest.approx(area, abs=1e-6)

    def test_switches_and_constants(self):
        rng = np.random.default_rng(1)
        switch = rng.choice([0.0, 5.0], 200) + 0.1 * rng.normal(size=200)
        features = np.stack([switch, np.full(200, 0.3), np.zeros(200)], axis=1)
        np.testing.assert_allclose(mixture_overlap(features), [0, 1, 1], atol=1e-6)
        assert contrastiveness(features) == pytest.approx(1 / 3, abs=1e-6)

    def test_repeatable(self, reference):
        assert contrastiveness(reference["features"]) == contrastiveness(reference["features"])

    def test_refusals(self):
        with pytest.raises(InvalidInputError, match="two images"):
            contrastiveness([[1.0]])
        metric = Contrastiveness()
        metric.update(np.zeros((2, 3)))
        with pytest.raises(InvalidInputError, match="'features'"):
            metric.update(np.zeros((2, 4)))


class TestStructuralGrounding:
    def test_by_hand(self):
        W = [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
        likeness = np.array([[0, 0.9, 0.1, 0.2], [0.9, 0, 0.6, 0], [0.1, 0.6, 0, 0.5], [0.2, 0, 0.5, 0]])
        assert structural_grounding(W, likeness, top=2) == pytest.approx(0.5 * 2 / 1.8)
        assert structural_grounding(W, likeness, top=4) == pytest.approx(0.5 * 4 / 3.0)
        assert structural_grounding(W, likeness, top=50) == pytest.approx(0.5 * 4 / likeness.sum())

    def test_a_diagonal_does_not_count(self, reference):
        likeness = reference["class_similarity"].copy()
        np.fill_diagonal(likeness, 1.0)
        given_likeness = likeness.copy()
        value = structural_grounding(reference["W"], likeness, top=10)
        assert value == pytest.approx(float(reference["structural_grounding_top10"]), abs=1e-6)
        np.testing.assert_array_equal(likeness, given_likeness)

    def test_scale_of_weights_does_not_count(self, reference):
        args = reference["W"], reference["class_similarity"]
        assert structural_grounding(3 * args[0], args[1]) == pytest.approx(structural_grounding(*args))

    def test_accumulator_is_the_mean_over_models(self, reference):
        W, likeness = reference["W"], reference["class_similarity"]
        one, two = StructuralGrounding(top=10), StructuralGrounding(top=10)
        one.update(W, likeness)
        two.update(W[::-1].copy(), likeness)
        one.merge(two)
        values = [structural_grounding(W, likeness, 10), structural_grounding(W[::-1].copy(), likeness, 10)]
        assert one.compute() == pytest.approx(np.mean(values))

    @pytest.mark.parametrize(
        ("likeness", "top", "name"),
        [
            (np.ones((2, 3)), 5, "class_similarity"),
            (np.zeros((3, 3)), 5, "class_similarity"),
            (np.full((3, 3), np.nan), 5, "class_similarity"),
            (np.ones((3, 3)), 0, "top"),
            (np.ones((3, 3)), 2.5, "top"),
        ],
    )
    def test_bad_input(self, likeness, top, name):
        with pytest.raises(InvalidInputError, match=f"'{name}'"):
            structural_grounding(np.eye(3), likeness, top=top)


class TestCompactness:
    def test_counts(self):
        assert compactness([[0.5, 0, -1], [0.1, 0, 0]]) == {"features": 2.0, "features_per_class": 1.5}

    def test_accumulator_is_the_mean_over_models(self):
        one, two = Compactness(), Compactness()
        one.update(np.eye(4))
        two.update(np.ones((4, 4)))
        one.merge(two)
        assert one.compute() == {"features": 4.0, "features_per_class": 2.5}


def test_everything_public_is_listed():
    assert list(metrics.__all__) == sorted(metrics.__all__)
    for name in metrics.__all__:
        assert callable(getattr(metrics, name))
