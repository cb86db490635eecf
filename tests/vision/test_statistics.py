from __future__ import annotations

import io
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import MeanShift

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.statistics import FeatureStatistics, Locality, class_similarity, feature_redundancy, scale_bias

DATA = Path(__file__).parents[1] / "data"
few = settings(max_examples=30, deadline=None)


@pytest.fixture(scope="module")
def constants() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "constants.npz"))


def plain_similarity(features: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """NumPy's own correlation, one feature and one class at a time."""
    values = features.astype(np.float64)
    A = np.zeros((n_classes, values.shape[1]))
    for c in range(n_classes):
        indicator = (labels == c).astype(float)
        for f in range(values.shape[1]):
            if np.ptp(values[:, f]) and np.ptp(indicator):
                A[c, f] = np.corrcoef(values[:, f], indicator)[0, 1]
    return A / (np.abs(A).max() or 1.0)


def random_features(seed: int, n: int = 60, f: int = 5, c: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(rng.normal(size=f) * 10, 1 + rng.random(f), size=(n, f)).astype(np.float32)
    features[:, 0] = 0.0
    features[:, -1] = np.float32(0.1)
    labels = rng.integers(0, c, n)
    features[:, 1] += labels == 1
    return features, labels


class TestClassSimilarity:
    def test_reference(self, constants):
        A = class_similarity(constants["features"], constants["labels"])
        assert A.dtype == np.float64
        np.testing.assert_allclose(A, constants["A"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(A * np.abs(constants["A_raw"]).max(), constants["A_raw"], rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        "convert", [torch.from_numpy, np.asfortranarray, lambda x: x[::-1][::-1], np.ndarray.tolist]
    )
    def test_any_container(self, constants, convert):
        A = class_similarity(convert(constants["features"]), convert(constants["labels"]))
        np.testing.assert_allclose(A, constants["A"], rtol=0, atol=1e-9)

    @pytest.mark.filterwarnings("error")
    def test_read_only_memory(self, constants):
        features, labels = constants["features"].copy(), constants["labels"].copy()
        features.setflags(write=False)
        labels.setflags(write=False)
        before = features.tobytes()
        np.testing.assert_allclose(class_similarity(features, labels), constants["A"], rtol=0, atol=1e-9)
        assert features.tobytes() == before

    def test_gradients_are_no_obstacle(self, constants):
        features = torch.from_numpy(constants["features"]).requires_grad_()
        np.testing.assert_allclose(class_similarity(features, constants["labels"]), constants["A"], atol=1e-9)

    @given(st.integers(0, 10_000))
    @few
    def test_is_numpys_correlation(self, seed):
        features, labels = random_features(seed)
        np.testing.assert_allclose(
            class_similarity(features, labels, n_classes=4), plain_similarity(features, labels, 4), rtol=0, atol=1e-9
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
    def test_dtypes(self, constants, dtype):
        features = (torch.from_numpy(constants["features"]) * 4).to(dtype)
        expected = plain_similarity(features.double().numpy(), constants["labels"], 12)
        np.testing.assert_allclose(class_similarity(features, constants["labels"]), expected, rtol=0, atol=1e-9)

    def test_class_without_images_has_zeros_and_is_named(self, constants, caplog):
        labels = constants["labels"].copy()
        labels[labels >= 5] += 1
        A = class_similarity(constants["features"], labels, n_classes=14)
        assert A.shape == (14, 64)
        np.testing.assert_array_equal(A[[5, 13]], 0.0)
        np.testing.assert_allclose(np.delete(A, [5, 13], axis=0), constants["A"], rtol=0, atol=1e-9)
        assert "[5, 13]" in caplog.text

    def test_nothing_to_tell_apart(self):
        np.testing.assert_array_equal(class_similarity([[1.0, 2.0], [3.0, 1.0]], [0, 0]), np.zeros((1, 2)))
        np.testing.assert_array_equal(class_similarity([[1.0], [1.0]], [0, 1]), np.zeros((2, 1)))
        np.testing.assert_array_equal(class_similarity([[1.0]], [0]), np.zeros((1, 1)))

    @pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e30, 1e-30])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_dead_features(self, constants, value, dtype):
        features = constants["features"].astype(dtype)
        features[:, [3, 60]] = value
        A = class_similarity(features, constants["labels"])
        np.testing.assert_array_equal(A[:, [3, 60]], 0.0)
        R = feature_redundancy(A)
        np.testing.assert_array_equal(R[[3, 60]], 0.0)
        np.testing.assert_array_equal(R[:, [3, 60]], 0.0)
        statistics = FeatureStatistics(12, 64)
        for begin in range(0, 240, 37):
            statistics.update(features[begin : begin + 37], constants["labels"][begin : begin + 37])
        expected = np.ptp(features, axis=0) == 0
        np.testing.assert_array_equal(statistics.dead(), expected)
        assert expected[[3, 60]].all()
        assert np.isfinite(statistics.class_similarity()).all()

    def test_flicker_of_the_last_bit_is_dead_and_small_signal_is_not(self):
        rng = np.random.default_rng(1)
        base = np.float32(7.3)
        flicker = np.where(rng.random(500) < 0.5, base, np.nextafter(base, np.float32(8)))
        lone = np.full(500, np.float32(1000))
        lone[17] = 1000.01
        features = np.stack([flicker, lone], axis=1).astype(np.float32)
        statistics = FeatureStatistics(2, 2)
        statistics.update(features, rng.integers(0, 2, 500))
        np.testing.assert_array_equal(statistics.dead(), [True, False])

    @pytest.mark.parametrize("offset", [1e3, 1e6, 1e9, -1e9])
    def test_large_offset_costs_no_digits(self, offset):
        rng = np.random.default_rng(2)
        # Multiples of 2^-10 stay exact beside the offset.
        small = np.round(rng.normal(size=(400, 6)) * 1024) / 1024
        labels = np.sort(rng.integers(0, 5, 400))
        statistics = FeatureStatistics(5, 6)
        for begin in range(0, 400, 50):
            statistics.update(small[begin : begin + 50] + offset, labels[begin : begin + 50])
        np.testing.assert_allclose(statistics.class_similarity(), class_similarity(small, labels), rtol=0, atol=1e-9)
        np.testing.assert_allclose(statistics.std(), small.std(axis=0), rtol=1e-9)

    def test_keeps_no_features(self):
        features = np.random.default_rng(3).random((20_000, 50))
        labels = np.arange(20_000) % 10
        class_similarity(features[:100], labels[:100])
        tracemalloc.start()
        class_similarity(features, labels)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < features.nbytes / 10

    @pytest.mark.parametrize(
        ("features", "labels", "names"),
        [
            (np.zeros((3, 2)), [0, 1], "labels"),
            (np.zeros((2, 2)), [0, -1], "labels"),
            (np.zeros((2, 2)), [0.0, 1.0], "labels"),
            (np.zeros((2, 2)), [0, 3], "labels"),
            (np.zeros(3), [0, 1, 1], "features"),
            (np.zeros((0, 2)), [], "features"),
            ([["a"]], [0], "features"),
            (np.zeros((2, 2), dtype=complex), [0, 1], "features"),
            ([[1e200], [0.0]], [0, 1], "features"),
        ],
    )
    def test_bad_input_names_the_argument(self, features, labels, names):
        with pytest.raises(InvalidInputError, match=f"'{names}'"):
            class_similarity(features, labels, n_classes=3)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, constants, bad):
        features = constants["features"].copy()
        features[170, [3, 9]] = bad
        features[201, 5] = bad
        with pytest.raises(InvalidInputError, match=r"3 NaN or infinite entries in 2 images, the first in image 170\b"):
            class_similarity(features, constants["labels"])
        assert issubclass(InvalidInputError, QPMError)


class TestRedundancy:
    def test_reference(self, constants):
        R = feature_redundancy(constants["A"])
        np.testing.assert_allclose(R, constants["R"], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(R, R.T)
        np.testing.assert_allclose(feature_redundancy(torch.from_numpy(constants["A"])), R, rtol=0, atol=0)

    @given(hnp.arrays(np.float64, (4, 6), elements=st.floats(-1, 1, allow_subnormal=True)))
    @few
    def test_bounded_whatever_comes(self, A):
        R = feature_redundancy(A)
        assert np.isfinite(R).all()
        assert np.abs(R).max() <= 1.0
        dead = ~A.any(axis=0)
        np.testing.assert_array_equal(R[dead], 0.0)
        np.testing.assert_allclose(np.diag(R)[~dead], 1.0, atol=1e-9)

    def test_all_dead(self):
        np.testing.assert_array_equal(feature_redundancy(np.zeros((3, 4))), np.zeros((4, 4)))

    def test_not_finite(self):
        with pytest.raises(InvalidInputError, match="'A'"):
            feature_redundancy([[np.nan, 1.0]])


def plain_scale(v: np.ndarray) -> np.ndarray:
    """The definition with scikit-learn's own MeanShift."""
    labels = MeanShift().fit(v[:, None]).labels_
    cluster = v[labels == np.bincount(labels).argmax()]
    low, high = cluster.min(), cluster.max()
    out = v.copy()
    out[v < low] = np.abs(low) * np.sign(v[v < low])
    out[v > high] = np.abs(high) * np.sign(v[v > high])
    if not np.ptp(out):
        return np.zeros(len(v))
    out -= out.mean()
    return out / np.abs(out).max() * np.sqrt(10) * 0.1


class TestScaleBias:
    def test_reference(self):
        data = np.load(DATA / "bias_scaling.npz")
        np.testing.assert_allclose(scale_bias(data["raw"]), data["scaled"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(scale_bias(torch.from_numpy(data["raw"])), data["scaled"], rtol=0, atol=1e-9)

    @given(
        st.integers(0, 10_000), st.sampled_from(["normal", "skewed", "groups", "offset", "grid"]), st.integers(4, 70)
    )
    @settings(max_examples=50, deadline=None)
    def test_is_scikit_learns_mean_shift(self, seed, kind, n):
        rng = np.random.default_rng(seed)
        v = {
            "normal": lambda: rng.normal(size=n),
            "skewed": lambda: rng.exponential(size=n) ** 3,
            "groups": lambda: rng.choice([-5.0, 0.0, 1.0, 9.0], n) + 0.2 * rng.normal(size=n),
            "offset": lambda: 100.0 + rng.lognormal(size=n),
            "grid": lambda: rng.integers(-3, 40, n) / 4.0,
        }[kind]()
        expected = plain_scale(v)
        # Where a distance is the bandwidth to the last digit, rounding decides, and scaling the values changes that.
        assume(all(np.allclose(plain_scale(v * factor), expected, rtol=0, atol=1e-9) for factor in (0.7, 1.1, 1 / 3)))
        np.testing.assert_allclose(scale_bias(v), expected, rtol=0, atol=1e-9)

    def test_sign_rule(self):
        # The largest cluster is positive: a negative value outside becomes minus its lower end, not its lower end.
        v = np.concatenate([np.linspace(2.0, 2.5, 30), [-9.0, 40.0]])
        clipped = np.concatenate([np.linspace(2.0, 2.5, 30), [-2.0, 2.5]])
        expected = clipped - clipped.mean()
        np.testing.assert_allclose(scale_bias(v), expected / np.abs(expected).max() * np.sqrt(10) * 0.1, atol=1e-12)

    @pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e-300])
    @pytest.mark.parametrize("n", [1, 2, 64])
    def test_constant_is_zero(self, value, n):
        np.testing.assert_array_equal(scale_bias(np.full(n, value)), np.zeros(n))

    def test_mostly_one_value(self):
        # scikit-learn's bandwidth is 0 here: the value that most share is the cluster, and all become that value.
        np.testing.assert_array_equal(scale_bias([0.1] * 40 + [0.2, 0.3]), np.zeros(42))

    @given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-1e6, 1e6)))
    @example(np.array([5e-324, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))  # the largest cluster spans the smallest number
    @few
    def test_scale_and_centre(self, v):
        scaled = scale_bias(v)
        assert scaled.shape == v.shape
        assert abs(scaled.mean()) < 1e-9
        assert np.abs(scaled).max() == pytest.approx(np.sqrt(10) * 0.1) or not scaled.any()

    @pytest.mark.parametrize("v", [[1.0, np.nan], [np.inf], [], [[1.0]]])
    def test_bad_input(self, v):
        with pytest.raises(InvalidInputError, match="'v'"):
            scale_bias(v)

    def test_as_many_features_as_a_large_backbone(self):
        v = np.random.default_rng(0).normal(size=2048)
        begin = time.perf_counter()
        scale_bias(v)
        assert time.perf_counter() - begin < 5.0


def close(one: FeatureStatistics, other: FeatureStatistics) -> None:
    np.testing.assert_allclose(one.class_similarity(), other.class_similarity(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.mean(), other.mean(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.std(), other.std(), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(one.dead(), other.dead())
    np.testing.assert_array_equal(one.class_counts(), other.class_counts())


class TestFeatureStatistics:
    @given(
        st.integers(0, 10_000),
        st.lists(st.integers(0, 60), max_size=6),
        st.randoms(use_true_random=False),
        st.sampled_from([0.0, 1e4]),
    )
    @few
    def test_any_split_in_any_order_is_the_whole(self, seed, cuts, random, offset):
        features, labels = random_features(seed)
        features = features + np.float32(offset)
        whole = FeatureStatistics(4, 5)
        whole.update(features, labels)
        edges = sorted({0, 60, *cuts})
        parts = []
        for begin, end in zip([0, *edges], [*edges, 60], strict=True):  # with empty parts at both ends
            part = FeatureStatistics(4, 5)
            middle = (begin + end) // 2
            part.update(features[begin:middle], labels[begin:middle])
            part.update(features[middle:end], labels[middle:end])
            parts.append(part)
        random.shuffle(parts)
        while len(parts) > 1:  # merge pairs in a random tree
            first = parts.pop(random.randrange(len(parts)))
            parts[random.randrange(len(parts))].merge(first)
        close(parts[0], whole)
        values = features.astype(np.float64)
        np.testing.assert_allclose(whole.mean(), values.mean(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(whole.std(), np.where(whole.dead(), 0.0, values.std(axis=0)), rtol=1e-9, atol=1e-12)

    def test_merging_leaves_the_other_alone(self):
        features, labels = random_features(5)
        one, two, empty = (FeatureStatistics(4, 5) for _ in range(3))
        one.update(features[:20], labels[:20])
        two.update(features[20:], labels[20:])
        before = two.state()
        empty.merge(two)
        empty.update(features[:20], labels[:20])
        one.merge(two)
        for name, array in two.state().items():
            np.testing.assert_array_equal(array, before[name])
        close(one, empty)

    def test_merging_with_itself_doubles(self):
        features, labels = random_features(6)
        one, two = FeatureStatistics(4, 5), FeatureStatistics(4, 5)
        one.update(features, labels)
        one.merge(one)
        two.update(np.concatenate([features, features]), np.concatenate([labels, labels]))
        close(one, two)

    def test_saved_and_restored(self):
        features, labels = random_features(7)
        one = FeatureStatistics(4, 5)
        one.update(features[:30], labels[:30])
        file = io.BytesIO()
        np.savez(file, **one.state())
        file.seek(0)
        two = FeatureStatistics.from_state(np.load(file, allow_pickle=False))
        assert (two.n_images, two.n_classes, two.n_features) == (30, 4, 5)
        for statistics in (one, two):
            statistics.update(features[30:], labels[30:])
        np.testing.assert_array_equal(one.class_similarity(), two.class_similarity())
        close(one, two)

    def test_broken_state(self):
        state = FeatureStatistics(4, 5).state()
        with pytest.raises(InvalidInputError, match="squares"):
            FeatureStatistics.from_state({**state, "squares": np.zeros(3)})
        state.pop("counts")
        with pytest.raises(InvalidInputError, match="counts"):
            FeatureStatistics.from_state(state)

    def test_bad_batch_changes_nothing_and_is_found(self):
        features, labels = random_features(8)
        statistics = FeatureStatistics(4, 5)
        statistics.update(features[:40], labels[:40])
        before = statistics.state()
        broken = features[40:].copy()
        broken[7, 2] = np.nan
        with pytest.raises(InvalidInputError, match=r"1 NaN or infinite entries in 1 images, the first in image 47\b"):
            statistics.update(broken, labels[40:])
        with pytest.raises(InvalidInputError, match="'features'"):
            statistics.update(features[:, :3], labels)
        with pytest.raises(InvalidInputError, match="'labels'"):
            statistics.update(features, labels + 1)
        for name, array in statistics.state().items():
            np.testing.assert_array_equal(array, before[name])

    def test_refusals(self):
        with pytest.raises(InvalidInputError, match="'other'"):
            FeatureStatistics(4, 5).merge(FeatureStatistics(5, 4))
        with pytest.raises(InvalidInputError, match="no images"):
            FeatureStatistics(4, 5).class_similarity()
        with pytest.raises(InvalidInputError, match="'n_classes'"):
            FeatureStatistics(0, 5)

    def test_keeps_what_it_returned(self):
        features, labels = random_features(9)
        statistics = FeatureStatistics(4, 5)
        statistics.update(features, labels)
        A, mean, counts = statistics.class_similarity(), statistics.mean(), statistics.class_counts()
        kept = A.copy(), mean.copy(), counts.copy()
        statistics.update(features + 1, labels)
        for now, then in zip((A, mean, counts), kept, strict=True):
            np.testing.assert_array_equal(now, then)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cuda(self):
        features, labels = random_features(10)
        one, two = FeatureStatistics(4, 5), FeatureStatistics(4, 5)
        one.update(features, labels)
        two.update(torch.from_numpy(features).cuda(), torch.from_numpy(labels).cuda())
        close(one, two)
        two.merge(one)
        one.merge(one)
        close(one, two)


def plain_locality(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image by image, feature by feature."""
    maps = maps.astype(np.float64)
    n, n_features, height, width = maps.shape
    peak, edge = np.zeros(n_features), np.zeros(n_features)
    places: list[list[tuple[float, float]]] = [[] for _ in range(n_features)]
    for image in maps:
        for f in range(n_features):
            y, x = np.unravel_index(image[f].argmax(), (height, width))
            sides = [abs(2 * at / (size - 1) - 1) if size > 1 else 1.0 for at, size in ((y, height), (x, width))]
            places[f].append((max(sides), image[f].max() - image[f].min()))
        pooled = image.mean(axis=(1, 2))
        if pooled.sum() == 0:
            continue
        for f in range(n_features):
            weight = pooled[f] / pooled.sum()
            soft = np.exp(image[f] - image[f].max())
            peak[f] += weight * (soft / soft.sum()).max() / n
            y, x = np.unravel_index(image[f].argmax(), (height, width))
            edge[f] -= weight * (y in (0, height - 1) or x in (0, width - 1))
    offset = [
        sum(at * w for at, w in own) / sum(w for _, w in own) if any(w for _, w in own) else np.nan for own in places
    ]
    return peak, edge, np.nan_to_num(offset, nan=0.0 if np.isnan(offset).all() else np.nanmean(offset))


class TestLocality:
    def test_reference(self):
        data = np.load(DATA / "locality.npz")
        locality = Locality(16)
        locality.update(data["maps"])
        np.testing.assert_allclose(locality.peak(), data["average_peak"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(locality.edge(), data["edge_rate"], rtol=0, atol=1e-6)

    @given(st.integers(0, 10_000), st.integers(0, 9), st.sampled_from([(1, 1), (2, 3), (5, 4)]))
    @few
    def test_definition_in_any_split(self, seed, cut, size):
        rng = np.random.default_rng(seed)
        maps = np.maximum(rng.normal(size=(9, 4, *size)), 0)
        maps[3] = 0.0
        one, two = Locality(4), Locality(4)
        one.update(torch.from_numpy(maps[:cut]))
        two.update(maps[cut:])
        one.merge(two)
        peak, edge, offset = plain_locality(maps)
        assert one.n_images == 9
        np.testing.assert_allclose(one.offset(), offset, rtol=0, atol=1e-9)
        np.testing.assert_allclose(one.peak(), peak, rtol=0, atol=1e-9)
        np.testing.assert_allclose(one.edge(), edge, rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        ("size", "place", "offset"),
        [
            ((5, 5), (2, 2), 0.0),
            ((5, 5), (2, 3), 0.5),
            ((5, 5), (3, 4), 1.0),
            ((7, 5), (4, 2), 1 / 3),
            ((4, 4), (1, 2), 1 / 3),
            ((2, 2), (0, 1), 1.0),
            ((1, 1), (0, 0), 0.0),  # a map of one place is flat, and so is every other
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_offset_of_a_known_peak(self, size, place, offset, dtype):
        maps = torch.zeros(1, 1, *size, dtype=dtype)
        maps[0, 0, place[0], place[1]] = 3.0
        locality = Locality(1)
        locality.update(maps)
        np.testing.assert_allclose(locality.offset(), [offset], rtol=1e-6)

    def test_offset_counts_images_by_how_far_they_stand_out_and_flat_features_like_the_others(self):
        maps = np.zeros((2, 3, 5, 5))
        maps[0, 0, 2, 2], maps[1, 0, 0, 0] = 3.0, 1.0  # in the middle three times as much as in a corner
        maps[:, 1] = 0.7  # no place stands out
        maps[0, 2, 2, 3], maps[1, 2] = 2.0, 9.0  # strong, but flat in the second image
        locality = Locality(3)
        locality.update(maps)
        np.testing.assert_allclose(locality.offset(), [0.25, 0.375, 0.5], rtol=1e-6)

    def test_more_maps_than_are_looked_at_together(self):
        maps = np.random.default_rng(0).random((20, 64, 64, 64), dtype=np.float32)
        whole, single = Locality(64), Locality(64)
        whole.update(maps)
        for image in maps:
            single.update(image[None])
        np.testing.assert_allclose(whole.peak(), single.peak(), rtol=1e-9)
        np.testing.assert_allclose(whole.edge(), single.edge(), rtol=1e-9)

    def test_bias(self):
        maps = np.random.default_rng(1).gamma(0.3, size=(30, 40, 6, 6))
        locality = Locality(40)
        locality.update(maps)
        peak, edge, _ = plain_locality(maps)
        p, e = plain_scale(peak), plain_scale(edge)
        expected = plain_scale(np.where(e >= 0, p, p.min()))
        np.testing.assert_allclose(locality.bias(), expected, rtol=0, atol=1e-7)

    def test_saved_and_restored(self):
        locality = Locality(3)
        locality.update(np.random.default_rng(2).random((5, 3, 4, 4)))
        again = Locality.from_state(locality.state())
        np.testing.assert_array_equal(again.peak(), locality.peak())
        np.testing.assert_array_equal(again.edge(), locality.edge())
        np.testing.assert_array_equal(again.offset(), locality.offset())
        assert again.n_images == 5

    def test_refusals(self):
        locality = Locality(3)
        with pytest.raises(InvalidInputError, match="no images"):
            locality.peak()
        with pytest.raises(InvalidInputError, match="'maps'"):
            locality.update(np.zeros((2, 4, 5, 5)))
        with pytest.raises(InvalidInputError, match="'maps'"):
            locality.update(np.zeros((2, 3)))
        with pytest.raises(InvalidInputError, match="'other'"):
            locality.merge(Locality(4))
        locality.update(np.ones((2, 3, 5, 5)))
        broken = np.ones((4, 3, 5, 5))
        broken[2, 1, 0, 0] = np.nan
        with pytest.raises(InvalidInputError, match=r"first in image 4\b"):
            locality.update(broken)
        assert locality.n_images == 2
