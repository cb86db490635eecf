"""Heat maps measured against models that look where they are built to look, and against maps that know nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.stats import fisher_exact, ttest_1samp
from torch import nn

from qpm_opt import InvalidInputError
from qpm_vision import cli
from qpm_vision.backbones import Backbone
from qpm_vision.data import ArrayImages, Parts
from qpm_vision.faithfulness import (
    METHODS,
    Faithfulness,
    GroupMeans,
    PeerUnavailableError,
    PerturbationCurves,
    area_under_curve,
    box_areas,
    draw_faithfulness,
    find_meanings,
    heat_in_box,
    input_shares,
    judge,
    locate_features,
    measure_faithfulness,
    perturb,
    perturbation_curves,
    place_areas,
    pointing_accuracy,
    pointing_hits,
    shift_stability,
    shifted,
)
from qpm_vision.faithfulness.result import Curve, Curves
from qpm_vision.faithfulness.saliency import available_methods, broken_ties, look
from qpm_vision.faithfulness.verdict import beats_random
from qpm_vision.model import QPMClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.run_folder import RunFolder
from tests.vision.tiny import TINY_SIZE, tiny_data, tiny_faithfulness

few = settings(max_examples=20, deadline=None)

SIDE, PLACES = 32, 8
CLEAR = Preprocessing(SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def looking_model(reach: int = 1) -> QPMClassifier:
    """A feature for each colour, active exactly where that colour is; classes are red, green, and both.

    Args:
        reach: Places around each one that it depends on as well; 1: none but itself.
    """
    pool = nn.AvgPool2d(SIDE // PLACES)
    blur = nn.AvgPool2d(reach, stride=1, padding=reach // 2) if reach > 1 else nn.Identity()
    backbone = Backbone(nn.Sequential(pool, blur), n_features=3, preprocessing=CLEAR)
    weights = [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    return QPMClassifier(backbone, [0, 1, 2], weights, mean=[0.01, 0.01, 0.0], std=[0.002, 0.002, 0.01]).eval()


def spots(n_images: int, seed: int = 0) -> tuple[ArrayImages, Parts]:
    """Black images with a red square, a green one, or both, at random places of the grid; and where they are."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_images) % 3
    pixels = np.zeros((n_images, SIDE, SIDE, 3), dtype=np.uint8)
    step = SIDE // PLACES
    boxes: dict[str, dict[str, tuple[float, float, float, float]]] = {}
    for position, label in enumerate(labels):
        inner = np.arange(PLACES * PLACES).reshape(PLACES, PLACES)[1:-1, 1:-1]  # shifted, they stay inside
        places = rng.permutation(inner.ravel())
        boxes[f"image {position}"] = {}
        for colour, name in enumerate(("red", "green")):
            if label in (colour, 2):
                row, column = (int(at) * step for at in divmod(int(places[colour]), PLACES))
                pixels[position, row : row + step, column : column + step, colour] = 255
                boxes[f"image {position}"][name] = (column, row, column + step, row + step)
    classes = ("red", "green", "both")
    parts = Parts({"red": ("yes", "no", "yes"), "green": ("no", "yes", "yes")}, boxes)
    return ArrayImages(pixels, labels, classes), parts


def stacked(images: ArrayImages, positions: Any) -> torch.Tensor:
    return torch.stack([CLEAR.transform()(images.image(int(position))) for position in positions])


# -- deletion and insertion ----------------------------------------------------------------------------------------


def mean_of(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.mean((1, 2, 3))


@few
@given(st.integers(0, 10_000), st.integers(1, 16))
def test_a_map_of_what_is_looked_at_gives_the_best_curves_there_are(seed: int, n_places: int) -> None:
    """The score is what is in a region; deleted in the right order it falls in a straight line to 0, and stays."""
    rng = np.random.default_rng(seed)
    heat = np.zeros((1, 4, 4), dtype=np.float32)
    heat.reshape(-1)[rng.permutation(16)[:n_places]] = 1
    region = torch.from_numpy(np.kron(heat, np.ones((4, 4), dtype=np.float32)))
    images = region[:, None].expand(1, 3, 16, 16)
    blank = torch.zeros(3, 16, 16)
    whole = mean_of(images).item()
    share = n_places / 16
    steps = np.arange(17) / 16
    deleted = perturbation_curves(mean_of, images, region, blank)[0] / whole
    np.testing.assert_allclose(deleted, np.clip(1 - steps / share, 0, 1), atol=1e-6)
    inserted = perturbation_curves(mean_of, images, region, blank, insert=True)[0] / whole
    np.testing.assert_allclose(inserted, np.clip(steps / share, 0, 1), atol=1e-6)
    assert area_under_curve(deleted) == pytest.approx(share / 2)
    other = perturbation_curves(mean_of, images, rng.random((1, 4, 4)), blank)[0] / whole
    assert area_under_curve(other) >= share / 2 - 1e-6


def test_random_maps_get_chance() -> None:
    """Of a score that adds up over pixels, random regions take as much as their share of the image, on average."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((1, 3, 8, 8), dtype=np.float32)).expand(3000, 3, 8, 8)
    curves = perturbation_curves(mean_of, images, rng.random((3000, 4, 4)), torch.zeros(3, 8, 8))
    mean = curves.mean(axis=0) / curves[0, 0]
    np.testing.assert_allclose(mean, 1 - np.arange(17) / 16, atol=0.02)
    assert area_under_curve(mean) == pytest.approx(0.5, abs=0.01)


def test_equally_hot_places_go_in_random_order_with_broken_ties() -> None:
    heat = np.zeros((2, 4, 4), dtype=np.float32)
    heat[0, 1, 2] = 1.0
    draws = [np.random.default_rng(number) for number in range(2)]
    broken = broken_ties(heat, draws)
    assert broken[0].argmax() == 6
    assert len(np.unique(broken)) == 32
    np.testing.assert_allclose(broken, heat, atol=2e-5)


@few
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_curves_add_up_over_batches(seed: int, n_batches: int) -> None:
    rng = np.random.default_rng(seed)
    curves = rng.random((17, 3, 17))
    curves[4, 1, 3] = np.nan
    kept = np.delete(curves, 4, axis=0)
    sums = PerturbationCurves(3)
    for batch in np.array_split(curves, n_batches):
        sums.update(batch)
    areas = area_under_curve(kept)
    np.testing.assert_allclose(sums.compute(), areas.mean(axis=0))
    np.testing.assert_allclose(sums.mean_curves(), kept.mean(axis=0))
    differences = areas[:, 2] - areas[:, 0]
    mean, error = sums.difference(2, 0)
    assert mean == pytest.approx(differences.mean())
    assert error == pytest.approx(differences.std(ddof=1) / 4)
    again = PerturbationCurves(3)
    again.take_up(sums.arrays())
    again.update(curves[:2])
    assert float(again.count) == 18
    with pytest.raises(InvalidInputError, match=r"'arrays'.*'curve_sum'"):
        PerturbationCurves(2).take_up(sums.arrays())
    with pytest.raises(InvalidInputError, match=r"'curves'.*\(n_images, 3, 17\)"):
        sums.update(curves[:, :2])


def test_curves_refuse_what_does_not_fit() -> None:
    images, blank = torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4)
    with pytest.raises(InvalidInputError, match=r"'heat'.*\(3, 2, 2\)"):
        perturbation_curves(mean_of, images, np.zeros((3, 2, 2)), blank)
    with pytest.raises(InvalidInputError, match=r"'blank'.*\(3, 2, 2\)"):
        perturbation_curves(mean_of, images, np.zeros((2, 2, 2)), torch.zeros(3, 2, 2))
    with pytest.raises(InvalidInputError, match="'n_steps'"):
        perturbation_curves(mean_of, images, np.zeros((2, 2, 2)), blank, n_steps=0)
    with pytest.raises(InvalidInputError, match="finite"):
        perturbation_curves(mean_of, images, np.full((2, 2, 2), np.nan), blank)


# -- heat maps and the pass over a sample --------------------------------------------------------------------------


def test_grad_cam_of_another_library_agrees_with_the_features_of_the_class() -> None:
    """Behind average pooling and a linear head, Grad-CAM is the sum of the class's maps, over their deviations."""
    pytest.importorskip("captum")
    images, _ = spots(6)
    model = looking_model()
    model.std[:] = torch.tensor([0.002, 0.006, 0.01])
    seen = look(model, stacked(images, range(6)), torch.zeros(3, SIDE, SIDE), [1.0, 1.0, 1.0], np.arange(6)[:, None])
    np.testing.assert_array_equal(seen.classes, images.labels)
    found = METHODS["grad-cam"](seen)
    with torch.no_grad():
        maps = model(seen.pixels).maps.numpy()
    expected = np.einsum("bfhw,bf->bhw", maps, seen.own / model.std.numpy()) / PLACES**2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert {name: METHODS[name](seen).shape[0] for name in METHODS} == dict.fromkeys(METHODS, 6)


def test_peers_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert available_methods() == ("features", "centre", "random")
    images, _ = spots(2)
    seen = look(looking_model(), stacked(images, range(2)), torch.zeros(3, SIDE, SIDE), np.ones(3), np.zeros((2, 1)))
    for name in ("grad-cam", "integrated-gradients"):
        with pytest.raises(PeerUnavailableError, match=r"qpm\[peers\]"):
            METHODS[name](seen)


def test_a_model_that_looks_at_one_place_is_found_to_do_so(tmp_path: Path) -> None:
    """Deleting a 64th of the image, the right one, takes all away; the maps move; each place depends on itself."""
    images, _ = spots(30)
    model = looking_model()
    found = perturb(model, lambda chosen: stacked(images, chosen), range(30), torch.zeros(3, SIDE, SIDE), np.ones(3))
    deletion, insertion, feature = found.curves()
    assert deletion.images == insertion.images == 30
    assert feature.images == 10  # only the class of two features has another one to compare with
    for curves in (deletion, insertion):
        first = next(iter(curves.methods.values()))
        assert max(curve.mean[0] for curve in curves.methods.values()) == min(
            curve.mean[0] for curve in curves.methods.values()
        )
        assert len(first.mean) == 17
    ours, random = deletion.methods["features"], deletion.methods["random"]
    assert ours.mean[1] == pytest.approx(ours.mean[-1], abs=1e-4)
    assert ours.less_than_random > 5 * (ours.error or 1) > 0
    assert insertion.methods["features"].mean[1] == pytest.approx(insertion.methods["features"].mean[-1], abs=1e-3)
    assert insertion.methods["features"].area > insertion.methods["random"].area + 0.2
    assert random.mean[8] > ours.mean[8] + 0.1
    own, another, chance = (feature.methods[name] for name in ("feature", "another-feature", "random"))
    np.testing.assert_allclose(own.mean, [1.0] + [0.0] * 16, atol=1e-5)
    # The two squares are never in one place, so that the map of one says nothing of the other.
    assert another.area == pytest.approx(chance.area, abs=0.2)
    stability = found.stabilities()
    assert stability.same_class == [1.0] * 4
    assert stability.shifted_back[3] == pytest.approx(1.0, abs=0.01)  # four pixels are a place of these maps
    assert (stability.not_shifted_back[3] or 0) < 0.5
    assert (stability.other_image[0] or 0) < 0.2
    reach = found.reaches((PLACES, PLACES), 0)
    assert reach.own == reach.near == 1.0
    assert reach.own_area == pytest.approx(1 / 64)


def test_random_heat_maps_are_found_to_be_random(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = spots(60)
    monkeypatch.setitem(METHODS, "features", lambda seen: np.random.default_rng(9).random((len(seen.pixels), 8, 8)))
    found = perturb(
        looking_model(), lambda chosen: stacked(images, chosen), range(60), torch.zeros(3, SIDE, SIDE), np.ones(3)
    )
    ours = found.curves()[0].methods["features"]
    assert ours.error is not None
    assert abs(ours.less_than_random) < 4 * ours.error
    agreement = found.agreements()["random"]
    assert agreement is not None
    assert abs(agreement) < 0.1


def test_a_stopped_pass_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images, _ = spots(20)
    state = tmp_path / "part.npz"
    arguments = (looking_model(), lambda chosen: stacked(images, chosen), range(20), torch.zeros(3, SIDE, SIDE))
    whole = perturb(*arguments, np.ones(3)).curves()
    monkeypatch.setattr("qpm_vision.faithfulness.perturbation._SECONDS_BETWEEN_SAVES", 0.0)

    def stop(done: int) -> None:
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perturb(*arguments, np.ones(3), state=state, on_images=stop)
    assert state.exists()
    told: list[int] = []
    assert perturb(*arguments, np.ones(3), state=state, on_images=told.append).curves() == whole
    assert told == [16, 20]
    assert not state.exists()
    with pytest.raises(KeyboardInterrupt):
        perturb(*arguments, np.ones(3), state=state, on_images=stop)
    perturb(*arguments, np.ones(3), seed=1, state=state, on_images=told.append)
    assert told[2:] == [0, 16, 20]
    assert "anew" in caplog.text
    state.write_bytes(b"damaged")
    assert perturb(*arguments, np.ones(3), state=state).curves() == whole


# -- shifts --------------------------------------------------------------------------------------------------------


@few
@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 10_000))
def test_a_map_that_moves_with_the_image_is_stable(down: int, right: int, seed: int) -> None:
    pixels = torch.from_numpy(np.random.default_rng(seed).random((2, 1, 14, 12)))
    moved = shifted(pixels, down, right)
    same = shift_stability(pixels[:, 0], moved[:, 0], down, right)
    np.testing.assert_allclose(same, 1.0)
    if down or right:
        assert (np.abs(shift_stability(pixels[:, 0], moved[:, 0])) < 0.6).all()
    assert torch.equal(shifted(pixels, 0, 0), pixels)


def test_flat_maps_have_no_stability_and_shapes_are_checked() -> None:
    assert np.isnan(shift_stability(np.ones((1, 4, 4)), np.random.default_rng(0).random((1, 4, 4)), 1, 0)).all()
    with pytest.raises(InvalidInputError, match="one shape"):
        shift_stability(np.ones((1, 4, 4)), np.ones((1, 4, 5)))
    with pytest.raises(InvalidInputError, match="less than the side"):
        shift_stability(np.ones((1, 4, 4)), np.ones((1, 4, 4)), 4, 0)


# -- reach ---------------------------------------------------------------------------------------------------------


def test_reach_of_places_that_depend_on_their_neighbours() -> None:
    images, _ = spots(3)
    shares = input_shares(looking_model(reach=3), stacked(images, range(3)))
    # In the middle a ninth comes from the place itself; at the border more, since padding has nothing to give.
    assert (shares[:, 0] >= 1 / 9).all()
    assert (shares[:, 0] < 0.2).all()
    np.testing.assert_allclose(shares[:, 1], 1.0)
    blind = looking_model()
    blind.backbone.module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(size=(PLACES, PLACES)))
    uniform = input_shares(blind, stacked(images, range(3)))
    np.testing.assert_allclose(uniform, np.tile(place_areas(PLACES, PLACES), (3, 1)), rtol=1e-4)
    with pytest.raises(InvalidInputError, match="'images'"):
        input_shares(blind, torch.zeros(3, SIDE, SIDE))


def test_areas_of_places_and_their_neighbours() -> None:
    np.testing.assert_allclose(place_areas(3, 3), [1 / 9, (4 * 4 + 4 * 6 + 9) / 81])
    np.testing.assert_allclose(place_areas(1, 1), [1, 1])


# -- pointing ------------------------------------------------------------------------------------------------------


@few
@given(st.integers(0, 10_000))
def test_random_maps_point_by_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((1, 2, 2)), axis=1).reshape(1, 4)
    boxes = np.repeat(corners, 4000, axis=0)
    maps = rng.random((4000, 7, 5))
    flat = pointing_hits(np.zeros((1, 7, 5)), corners)[0]
    assert pointing_accuracy(maps, boxes) == pytest.approx(flat, abs=0.05)
    assert np.nanmean(heat_in_box(maps, boxes)) == pytest.approx(box_areas(corners)[0], abs=0.02)
    assert heat_in_box(np.ones((1, 7, 5)), corners)[0] == pytest.approx(box_areas(corners)[0])


def test_pointing_by_hand() -> None:
    maps = np.zeros((3, 2, 2))
    maps[0, 0, 1] = 2.0
    maps[1, 0, 1] = maps[1, 1, 0] = 1.0
    boxes = np.tile([0.5, 0.0, 1.0, 0.5], (3, 1))
    np.testing.assert_allclose(pointing_hits(maps, boxes), [1.0, 0.5, 0.25])
    heat = heat_in_box(maps - 0.0, boxes)
    np.testing.assert_allclose(heat[:2], [1.0, 0.5])
    assert np.isnan(heat[2])
    with pytest.raises(InvalidInputError, match=r"'boxes'.*\(3, 2, 2\) and \(2, 4\)"):
        pointing_hits(maps, boxes[:2])
    with pytest.raises(InvalidInputError, match="at least one map"):
        pointing_accuracy(np.zeros((0, 2, 2)), np.zeros((0, 4)))


@few
@given(st.integers(0, 10_000))
def test_meanings_against_fishers_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {"a": tuple(rng.choice(["x", "y"], 24)), "b": tuple(rng.choice(["u", "v", "w"], 24))}
    has_x = np.array(values["a"]) == "x"
    weights = np.stack([has_x, rng.random(24) < 0.5, np.zeros(24)], axis=1)
    found = {item.column: item for item in find_meanings(weights, values)}
    assert 2 not in found
    if 5 < has_x.sum() < 19:
        assert (found[0].kind, found[0].value) == ("a", "x")
        assert found[0].n_sharing == found[0].n_classes == found[0].n_with_part == has_x.sum()
    for item in found.values():
        own, part = weights[:, item.column] > 0, np.array(values[item.kind]) == item.value
        table = [[(own & part).sum(), (own & ~part).sum()], [(~own & part).sum(), (~own & ~part).sum()]]
        assert item.p_value == pytest.approx(fisher_exact(table, "greater").pvalue)
        assert item.p_value <= 0.01
    with pytest.raises(InvalidInputError, match=r"'values'.*'a'"):
        find_meanings(weights[:5], values)


def test_chance_has_no_meaning() -> None:
    """Among 200 runs with random assignments, one in a hundred may find a meaning."""
    rng = np.random.default_rng(0)
    values = {"a": tuple("xyz"[index % 3] for index in range(60))}
    assert sum(bool(find_meanings(rng.random((60, 10)) < 0.3, values)) for _ in range(200)) <= 6


MANY = 24


def pointing_setup(n_images: int = 90) -> tuple[QPMClassifier, ArrayImages, Parts]:
    """`spots` and `looking_model`, with many classes of each colour, so that what they share is significant."""
    images, parts = spots(n_images)
    colours = np.arange(3 * MANY) % 3
    labels = images.labels + 3 * (np.arange(n_images) % MANY)
    names = tuple(f"class {index}" for index in range(3 * MANY))
    many = ArrayImages(np.stack([np.asarray(images.image(i)) for i in range(n_images)]), labels, names)
    model = looking_model()
    weights = model.weight.numpy()[colours]
    wide = QPMClassifier(model.backbone, [0, 1, 2], weights, model.mean, model.std).eval()
    return wide, many, Parts({kind: tuple(np.array(v)[colours]) for kind, v in parts.values.items()}, parts.boxes)


def test_a_model_that_looks_at_parts_points_at_them() -> None:
    model, images, parts = pointing_setup()
    batches = [(stacked(images, range(at, at + 30)), torch.tensor(images.labels[at : at + 30])) for at in (0, 30, 60)]
    found = locate_features(model, images, batches, CLEAR, parts)
    assert [(item.feature, item.kind, item.value) for item in found.features] == [
        (0, "red", "yes"),
        (1, "green", "yes"),
    ]
    assert (found.test_images, found.located, found.without_meaning, found.without_place) == (90, 90, 0, 0)
    for item in found.features:
        assert item.images == 60
        assert (item.hit, item.heat) == (1.0, 1.0)
        assert item.chance == pytest.approx(1 / 64)
        assert item.area == pytest.approx(1 / 64)
        assert item.other_image is not None
        assert item.other_image < 0.15
        assert item.elsewhere == {item.kind: 1.0, ("green" if item.kind == "red" else "red"): 0.0}
    for kind in ("red", "green"):
        assert found.kinds[kind].hit == 1.0
    blind = model
    blind.backbone.module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(size=(PLACES, PLACES)))
    for kind in locate_features(blind, images, batches, CLEAR, parts).kinds.values():
        assert kind.hit == pytest.approx(1 / 64)
        assert kind.heat == pytest.approx(1 / 64)


def test_parts_without_a_place_are_told_apart() -> None:
    model, images, parts = pointing_setup(30)
    without = Parts(parts.values, {name: {k: b for k, b in v.items() if k == "red"} for name, v in parts.boxes.items()})
    batches = [(stacked(images, range(30)), torch.tensor(images.labels))]
    found = locate_features(model, images, batches, CLEAR, without)
    assert found.without_place == 1
    assert set(found.kinds) == {"red"}
    assert found.located == 20


def test_means_of_groups() -> None:
    means = GroupMeans(2, 2)
    means.update(0, [[1, np.nan], [3, 5]])
    np.testing.assert_array_equal(means.compute(), [[2, 5], [np.nan, np.nan]])
    other = GroupMeans(2, 2)
    other.update(1, [[7, 7]])
    means.merge(other)
    np.testing.assert_array_equal(means.compute(), [[2, 5], [7, 7]])


# -- the verdict ---------------------------------------------------------------------------------------------------


@few
@given(st.integers(0, 10_000), st.floats(-0.1, 0.1), st.integers(2, 30), st.booleans())
def test_better_is_what_a_t_test_calls_better(seed: int, gain: float, images: int, insertion: bool) -> None:
    rng = np.random.default_rng(seed)
    areas = rng.normal([0.5 + (gain if insertion else -gain), 0.5], 0.1, (images, 2))
    sums = PerturbationCurves(2, 1)
    sums.update(np.repeat(areas[:, :, None], 2, axis=2))  # level curves, so that the height is the area
    less, error = sums.difference(1, 0)
    curves = Curves("score", images, {"features": Curve([], 0.5, less, error), "random": Curve([], 0.5, 0.0, 0.0)})
    test = ttest_1samp(areas[:, 0] - areas[:, 1], 0)
    expected = test.pvalue < 0.05 and (test.statistic > 0) == insertion
    assert beats_random(curves, insertion=insertion) == {"features": expected}


@pytest.mark.parametrize(
    ("deletion", "insertion", "start"),
    [
        ((0.2, 0.01), (-0.2, 0.01), "Heat maps point at what decides: "),
        ((0.2, 0.01), (0.2, 0.01), "Heat maps point at what decides only in part: deleting"),
        ((0.01, 0.01), (-0.2, 0.01), "Heat maps point at what decides only in part: showing"),
        ((-0.2, 0.01), (0.2, 0.01), "Heat maps are no better than random regions here"),
        ((0.2, 0.3), (-0.2, 0.3), "Heat maps are no better than random regions here"),
        ((0.2, None), (-0.2, 0.01), "Too few images"),
    ],
)
def test_the_verdict_needs_both_deletion_and_insertion(
    deletion: tuple[float, float | None], insertion: tuple[float, float | None], start: str
) -> None:
    verdict = judge(tiny_faithfulness(deletion, insertion))
    assert verdict.sentence.startswith(start)
    assert str(verdict).startswith(start)


def test_remarks_put_the_verdict_into_perspective() -> None:
    verdict = judge(tiny_faithfulness((0.2, 0.01), (-0.2, 0.01)))
    assert verdict.remarks[0].startswith("Grad-CAM, at the same layer of the same model, is no better than random")
    assert verdict.sentence.endswith("do at least as well at insertion.")
    assert verdict.remarks[1].startswith("A single feature falls more with what its own map highlights")
    assert "22.00 % lies within it (6.25 %" in verdict.remarks[2]
    found = tiny_faithfulness((0.2, 0.01), (-0.2, 0.01))
    bare = replace(found, deletion=Curves("", 0, {}), feature_deletion=Curves("", 0, {}))
    assert judge(replace(bare, reach=replace(found.reach, own=None))).remarks == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "must have the layout 2. Got 1"),
        ({"reach": None}, "must hold what to_dict"),
        ({"deletion": {"score": ""}}, "must hold what to_dict"),
        ({"more": 1}, "must hold what to_dict"),
    ],
)
def test_other_layouts_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Faithfulness.from_dict({**tiny_faithfulness((0.2, 0.01), (-0.2, 0.01)).to_dict(), **change})


# -- of a run ------------------------------------------------------------------------------------------------------


def test_a_run_is_measured_and_drawn(finished: RunFolder) -> None:
    data = tiny_data()
    values = {"place": ("top", "right", "bottom", "left")}
    boxes = {data.test.name(i): {"place": (0.0, 0.0, 8.0, 8.0)} for i in range(len(data.test))}
    result = measure_faithfulness(finished, images=12, data=replace(data, parts=Parts(values, boxes)), device="cpu")
    kept = json.loads((finished.path / "faithfulness.json").read_text())
    assert kept == result.to_dict()
    assert Faithfulness.from_dict(kept) == result
    assert kept["map_size"] == [4, 4]
    assert (kept["images"], kept["input_size"]) == (12, TINY_SIZE)
    assert set(kept["deletion"]["methods"]) == set(available_methods())
    for curves in (kept["deletion"], kept["insertion"], kept["feature_deletion"]):
        assert all(len(curve["mean"]) == 17 for curve in curves["methods"].values())
    assert 0 < kept["reach"]["own"] <= kept["reach"]["near"] <= 1
    assert kept["pointing"]["test_images"] == kept["pointing"]["located"] == len(data.test)
    assert (finished.figures / "faithfulness.png").stat().st_size > 10_000
    assert not (finished.path / "faithfulness-part.npz").exists()
    figure, axes = draw_faithfulness(result, Figure(figsize=(9, 6)))
    assert axes.shape == (2, 3)
    assert "12 test images of 16 pixels, maps of 4 × 4 places" in figure._suptitle.get_text()
    assert f"{result.reach.own:.1%}" in axes[0, 2].texts[0].get_text()
    lines = [(line.get_color(), line.get_linestyle()) for line in axes[0, 2].get_legend().get_lines()]
    assert len(set(lines)) == len(lines)  # no line has two names
    text = str(result)
    assert "area under deletion" in text
    assert "against random regions" in text
    again = measure_faithfulness(finished, images=12, data=data, device="cpu")
    assert again.deletion == result.deletion
    assert again.pointing is None


def test_the_command_prints_a_table(
    finished: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qpm_vision.faithfulness.measure.load_data", lambda spec, **options: tiny_data())
    assert cli.main(["faithfulness", str(finished.path), "--images", "4", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "4 test images of 16 pixels" in out
    assert str(finished.path / "faithfulness.json") in out
    kept = Faithfulness.from_dict(finished.read_json("faithfulness.json"))
    assert judge(kept).sentence in out
    assert cli.main(["faithfulness", str(finished.path), "--images", "1"]) == 2
    assert "'images' parameter must be an integer of at least 2. Got 1" in capsys.readouterr().err
