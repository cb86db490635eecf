"""Colours, heat maps, names, the gallery and the pictures."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qpm_opt import InvalidInputError
from qpm_opt.figure_text import drawable, font_families
from qpm_vision.data import ArrayImages
from qpm_vision.explain import (
    Explainer,
    Gallery,
    closest_pair,
    collect_gallery,
    load_candidates,
    overlay,
    plot_candidate,
    plot_class,
    plot_comparison,
    plot_feature,
    plot_image,
    plot_matrix,
    plot_overview,
    strength,
    upsample,
)
from qpm_vision.explain.colours import PALETTE, feature_colours
from qpm_vision.explain.heatmaps import to_grey
from qpm_vision.explain.matrix import draw_matrix, matrix_order
from qpm_vision.model import QPMClassifier
from qpm_vision.predict import load_model
from qpm_vision.run_folder import RunFolder
from tests.vision.tiny import TINY_SIZE, tiny_backbone, tiny_data

# -- colours -------------------------------------------------------------------------------------------------------


def test_features_of_a_class_get_different_colours() -> None:
    rng = np.random.default_rng(0)
    weights = np.zeros((10, 20), dtype=int)
    for row in weights:
        row[rng.choice(20, 3, replace=False)] = 1
    colours = np.array(feature_colours(weights))
    for row in weights:
        assert len(set(colours[row > 0])) == 3
    assert feature_colours(weights) == tuple(colours)


def test_palette_is_told_apart_and_used_evenly() -> None:
    colours = feature_colours(np.eye(2 * len(PALETTE)))
    assert sorted(colours.count(colour) for colour in PALETTE) == [2] * len(PALETTE)


# -- heat maps -----------------------------------------------------------------------------------------------------


def test_strength_is_relative_to_the_feature_not_to_the_image() -> None:
    weak = strength([[0.0, 0.1], [0.0, -3.0]], 2.0)
    np.testing.assert_allclose(weak, [[0, 0.05], [0, 0]], atol=1e-7)
    assert strength([[4.0]], 2.0).item() == 1.0
    assert strength([[4.0]], 0.0).item() == 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 5))
def test_upsampling_keeps_range_mean_and_place(height: int, width: int, factor: int) -> None:
    values = np.random.default_rng(height * 10 + width).random((height, width)).astype(np.float32)
    large = upsample(values, height * factor, width * factor)
    assert large.shape == (height * factor, width * factor)
    assert values.min() - 1e-6 <= large.min() <= large.max() <= values.max() + 1e-6
    if factor % 2:
        centre = factor // 2
        np.testing.assert_allclose(large[centre::factor, centre::factor], values, atol=1e-6)


def test_upsampling_refuses_stacks() -> None:
    with pytest.raises(InvalidInputError, match=r"'feature_map'.*\(h, w\).*\(2, 3, 3\)"):
        upsample(np.zeros((2, 3, 3)), 6, 6)


def test_overlay_is_grey_where_absent_and_coloured_where_present() -> None:
    image = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    presence = np.zeros((8, 8), dtype=np.float32)
    presence[:, 4:] = 1.0
    painted = overlay(image, presence, "#ff0000")
    np.testing.assert_allclose(painted[:, :4], np.repeat(to_grey(image)[:, :4, None], 3, axis=2), atol=1e-6)
    assert (painted[:, 4:, 0] > painted[:, 4:, 1] + 0.3).all()
    np.testing.assert_allclose(painted[..., 1], painted[..., 2], atol=1e-6)
    assert (np.diff(to_grey(np.linspace(0, 1, 9)[:, None, None] * np.ones(3)).ravel()) > 0).all()


# -- names ---------------------------------------------------------------------------------------------------------


def test_plain_names_stay_as_they_are() -> None:
    for name in ("House Wren", "9", "Ωmega", "T-shirt/top"):
        assert drawable(name) == name
        assert font_families(name) == ["DejaVu Sans"]


def test_names_without_a_font_keep_what_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qpm_opt.figure_text._font_with", lambda characters: None)
    assert drawable("\uac00 (U+AC00)") == "U+AC00"
    assert drawable("\uac00 ga") == "ga"
    assert drawable("\uac00\uac01") == "U+AC00 U+AC01"


def test_a_second_font_has_the_missing_characters() -> None:
    families = font_families("\uac00")
    if len(families) == 1:
        pytest.skip("no font with Korean letters on this machine")
    from matplotlib import font_manager

    path = font_manager.findfont(font_manager.FontProperties(family=[families[1]]))
    assert 0xAC00 in font_manager.get_font(path).get_charmap()
    assert drawable("\uac00") == "\uac00"


# -- the closest pair ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_closest_pair_against_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 2, (6, 8))
    alike = rng.random((6, 6))
    alike = alike + alike.T
    a, b = closest_pair(weights, alike)
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    best = min(pairs, key=lambda pair: ((weights[pair[0]] != weights[pair[1]]).sum(), -alike[pair]))
    assert (a, b) == best


# -- the gallery ---------------------------------------------------------------------------------------------------


class Output(NamedTuple):
    logits: torch.Tensor
    maps: torch.Tensor
    features: torch.Tensor


class Identity(torch.nn.Module):
    """Images are the maps of two features; a class's logit is its feature."""

    def forward(self, images: torch.Tensor) -> Output:
        features = images.mean((2, 3))
        return Output(features, images, features)


def _batches(maps: torch.Tensor, labels: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(maps[begin : begin + size], labels[begin : begin + size]) for begin in range(0, len(maps), size)]


def test_gallery_prefers_correct_images_and_strong_features() -> None:
    levels = torch.tensor([[1.0, 0.2], [3.0, 0.1], [9.0, 9.5], [0.0, 1.0], [2.0, 5.0]])
    labels = torch.tensor([0, 0, 0, 1, 1])  # the third image is taken for class 1, though its feature 0 is strongest
    maps = levels[:, :, None, None].expand(5, 2, 2, 2).clone()
    gallery = collect_gallery(Identity(), _batches(maps, labels, 2), n_classes=3, n_images=5)
    assert gallery.best_of_class[0].tolist() == [1, 0, 2, -1, -1, -1]
    assert gallery.best_of_class[1].tolist() == [4, 3, -1, -1, -1, -1]
    assert gallery.best_of_class[2].tolist() == [-1] * 6
    assert gallery.best_of_pair[0, 1].tolist() == [0, 1, 2, -1, -1, -1]
    assert gallery.n_correct.tolist() == [2, 2, 0]
    assert gallery.n_images.tolist() == [3, 2, 0]
    np.testing.assert_allclose(gallery.scale, np.quantile(levels.numpy(), 0.99, axis=0), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    number=st.integers(1, 300),
    batch=st.integers(1, 40),
    at_once=st.integers(1, 100),
    n_classes=st.integers(1, 5),
)
def test_gallery_against_sorting_all_images(seed: int, number: int, batch: int, at_once: int, n_classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 9, (number, max(2, n_classes), 2, 2), generator=generator).float()  # with ties
    labels = torch.randint(0, n_classes, (number,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qpm_vision.explain.gallery._AT_ONCE", at_once)
        gallery = collect_gallery(Identity(), _batches(maps, labels, batch), n_classes=n_classes, n_images=number)
    features = maps.mean((2, 3)).numpy()
    right = features.argmax(axis=1) == labels.numpy()

    def best(members: list[int], feature: int) -> list[int]:
        order = sorted(members, key=lambda image: (not right[image], -features[image, feature], image))[:6]
        return [*order, *[-1] * (6 - len(order))]

    for c in range(n_classes):
        members = [image for image in range(number) if labels[image] == c]
        assert gallery.best_of_class[c].tolist() == best(members, c)
        for feature in range(features.shape[1]):
            assert gallery.best_of_pair[c, feature].tolist() == best(members, feature)
        assert gallery.n_images[c] == len(members)
        assert gallery.n_correct[c] == right[members].sum()
    np.testing.assert_allclose(gallery.scale, np.quantile(maps.amax((2, 3)).numpy(), 0.99, axis=0), rtol=1e-6)


def test_gallery_survives_arrays_and_refuses_another_number_of_images() -> None:
    maps, labels = torch.rand((40, 2, 3, 3)), torch.arange(40) % 2
    one = collect_gallery(Identity(), _batches(maps, labels, 7), n_classes=2, n_images=40)
    again = Gallery.from_arrays(one.to_arrays())
    for name, value in one.to_arrays().items():
        np.testing.assert_array_equal(value, again.to_arrays()[name])
    with pytest.raises(InvalidInputError, match="'scale'"):
        Gallery.from_arrays({name: value for name, value in one.to_arrays().items() if name != "scale"})
    for given_maps, number in ((maps[:0], 0), (maps, 39), (maps, 41)):
        with pytest.raises(InvalidInputError, match="'n_images' says"):
            collect_gallery(Identity(), _batches(given_maps, labels, 7), n_classes=2, n_images=number)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(-8, 8))
def test_histograms_count_every_image_once(seed: int, decades: int) -> None:
    rng = np.random.default_rng(seed)
    # The range grows from batch to batch.
    levels = (rng.normal(size=(30, 2)) * 10.0 ** (decades * np.arange(30) / 30)[:, None]).astype(np.float32)
    labels = rng.integers(0, 2, 30)
    maps = torch.from_numpy(levels)[:, :, None, None].expand(30, 2, 2, 2).clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qpm_vision.explain.gallery._AT_ONCE", 7)
        gallery = collect_gallery(Identity(), _batches(maps, torch.from_numpy(labels), 7), n_classes=3, n_images=30)
    assert gallery.counts is not None
    assert gallery.edges is not None
    for feature in range(2):
        for label in range(3):
            expected, _ = np.histogram(levels[labels == label, feature], gallery.edges[feature].astype(np.float64))
            np.testing.assert_array_equal(gallery.counts[label, feature], expected)
        used = np.flatnonzero(gallery.counts[:, feature].any(axis=0))
        assert used[-1] - used[0] >= gallery.counts.shape[2] // 2 - 2


def test_galleries_of_former_versions_have_no_histogram(explainer: Explainer) -> None:
    arrays = explainer.gallery.to_arrays()
    former = Gallery.from_arrays({name: value for name, value in arrays.items() if name not in ("edges", "counts")})
    assert former.counts is None
    assert "counts" not in former.to_arrays()
    old = Explainer(explainer.model, explainer.images, explainer.preprocessing, former, NAMES)
    images = 1 + 6
    assert plot_feature(old, 3)[1].shape == (2 * images,)


# -- pictures ------------------------------------------------------------------------------------------------------

NAMES = ("\uac00 (U+AC00)", "White-breasted Nuthatch", "c", "d")
WEIGHTS = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 0, 1, 0]])


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    torch.manual_seed(0)
    backbone = tiny_backbone()
    data = tiny_data()
    model = QPMClassifier(backbone, np.array([1, 3, 4, 6, 7]), WEIGHTS, np.zeros(5), np.ones(5))
    transform = backbone.preprocessing.transform()
    images = data.train
    batch = torch.stack([transform(images.image(index)) for index in range(len(images))])
    gallery = collect_gallery(model, [(batch, torch.tensor(images.labels))], n_classes=4, n_images=len(images))
    return Explainer(model, images, backbone.preprocessing, gallery, NAMES)


def test_views_show_what_the_model_sees(explainer: Explainer) -> None:
    view = explainer.view(3)
    assert view.image.shape == (TINY_SIZE, TINY_SIZE, 3)
    original = np.asarray(explainer.images.image(3), dtype=np.float32) / 255
    if original.shape == view.image.shape:
        np.testing.assert_allclose(view.image, original, atol=2 / 255)
    assert 0 <= view.presence.min() <= view.presence.max() <= 1
    assert view.presence.shape[0] == 5


def test_class_picture_has_a_row_for_each_feature(explainer: Explainer) -> None:
    figure, axes = plot_class(explainer, "White-breasted Nuthatch")
    assert axes.shape == (3, 7)
    text = _text(figure)
    assert "White-breasted Nuthatch" in text
    assert "feature 3" in text
    assert "feature 4" in text
    assert "99\u00a0% quantile" in text
    assert "feature 1" not in text


def test_comparison_tells_shared_from_own(explainer: Explainer) -> None:
    figure, axes = plot_comparison(explainer, 0, 1)
    assert axes.shape == (4, 7)
    text = _text(figure)
    assert "share 1 feature;" in text
    assert "2 tell them apart" in text
    assert text.count("both classes\n") == 1
    assert text.count("only class") == 2
    with pytest.raises(InvalidInputError, match="must differ"):
        plot_comparison(explainer, "c", "c")


def test_overview_takes_classes(explainer: Explainer) -> None:
    assert plot_overview(explainer)[1].shape == (4, 4)
    assert plot_overview(explainer, ["d", 0])[1].shape == (2, 4)
    with pytest.raises(InvalidInputError, match="at least one class"):
        plot_overview(explainer, [])


def test_feature_picture_tells_its_classes_from_others(explainer: Explainer) -> None:
    figure, axes = plot_feature(explainer, 3)
    text = _text(figure)
    assert "Feature 3 describes 2 of 4 classes" in text
    captions = [ax.get_xlabel() for ax in axes]
    own, others = captions[1:7], captions[8:14]
    assert {name.split()[0] for name in own} == {drawable(NAMES[0]).split()[0], "White-breasted"}
    assert {name for name in others if name} == {"c", "d"}
    bars, labels = axes[-1].get_legend_handles_labels()
    assert labels == ["other classes, 24 images", "classes with this feature, 24 images"]
    for bar in bars:
        assert bar.get_data().values.sum() == pytest.approx(100)
    with pytest.raises(InvalidInputError, match=r"'feature'.*Got 2; kept are 1, 3, 4, 6, 7"):
        plot_feature(explainer, 2)


def test_candidate_picture_shows_any_feature_in_the_classes_it_is_most_similar_to(finished: RunFolder) -> None:
    candidates = load_candidates(finished, data=tiny_data())
    kept = set(candidates.model.state_dict())  # the dense model: nothing is selected in it
    assert "selected" not in kept
    for feature in range(candidates.similarity.shape[1]):
        figure, axes = plot_candidate(candidates, feature)
        assert f"Feature {feature} before fine-tuning" in _text(figure)
        ranked = np.argsort(-candidates.similarity[:, feature], kind="stable")
        captions = [ax.get_xlabel().split()[0] for ax in axes if ax.get_xlabel()]
        assert captions == [drawable(candidates.class_names[index]).split()[0] for index in ranked]
    with pytest.raises(InvalidInputError, match=r"'feature'.*0 to 7\. Got 8"):
        plot_candidate(candidates, 8)


def test_image_picture_is_that_of_the_explanation(explainer: Explainer, finished: RunFolder) -> None:
    image = tiny_data().test.image(0)
    figure, axes = plot_image(explainer, image)
    assert axes.shape == (2, 4)
    assert "Why " in _text(figure)
    predictor = load_model(finished, device="cpu")
    for run in (predictor, finished, str(finished.path)):
        assert plot_image(run, image)[1].shape == (2, 4)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 10_000))
def test_matrix_order_keeps_equal_classes_together(n_classes: int, n_features: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 2, (3, n_features))
    weights = kinds[rng.integers(0, 3, n_classes)]
    rows, columns = matrix_order(weights)
    assert sorted(rows) == list(range(n_classes))
    assert sorted(columns) == list(range(n_features))
    ordered = [tuple(row) for row in weights[rows]]
    changes = sum(one != other for one, other in itertools.pairwise(ordered))
    assert changes == len(set(ordered)) - 1


def test_matrix_picture_shows_every_assignment_once(explainer: Explainer, finished: RunFolder) -> None:
    _, ax = plot_matrix(explainer)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        drawable(NAMES[index]) for index in matrix_order(WEIGHTS)[0]
    ]
    assert {label.get_text() for label in ax.get_xticklabels()} == {"1 (2)", "3 (2)", "4 (2)", "6 (2)", "7 (0)"}
    squares = ax.collections[-1].get_paths()
    middles = np.array([path.get_extents().get_points().mean(axis=0) for path in squares])
    rows, columns = matrix_order(WEIGHTS)
    shown = np.zeros_like(WEIGHTS)
    for x, y in np.rint(middles).astype(int):
        shown[rows[y], columns[x]] += 1
    np.testing.assert_array_equal(shown, WEIGHTS)
    mine = Figure().subplots()
    assert plot_matrix(finished, mine)[1] is mine


@pytest.mark.parametrize("n_classes", [2, 200])
def test_names_in_the_matrix_do_not_touch(n_classes: int) -> None:
    weights = np.random.default_rng(0).integers(0, 2, (n_classes, 30))
    figure, ax = draw_matrix(weights, [f"class {index}" for index in range(n_classes)], range(30))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for labels, side in ((ax.get_yticklabels(), 1), (ax.get_xticklabels(), 0)):
        boxes = sorted(
            (label.get_window_extent(canvas.get_renderer()) for label in labels), key=lambda box: box.min[side]
        )
        assert all(lower.max[side] <= upper.min[side] + 1 for lower, upper in itertools.pairwise(boxes))


def test_new_figures_show_in_notebooks(explainer: Explainer) -> None:
    for figure in (plot_matrix(explainer)[0], plot_class(explainer, 0)[0]):
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_unknown_classes_are_refused_with_the_nearest(explainer: Explainer) -> None:
    with pytest.raises(
        InvalidInputError, match=r"Got 'White breasted Nuthach'; did you mean 'White-breasted Nuthatch'"
    ):
        plot_class(explainer, "White breasted Nuthach")
    with pytest.raises(InvalidInputError, match="4 classes"):
        explainer.class_index(4)
    assert explainer.class_index("\uac00") == 0


def test_drawing_leaves_no_trace_in_matplotlib(explainer: Explainer, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    before, open_figures = dict(matplotlib.rcParams), plt.get_fignums()
    figure, _ = plot_class(explainer, 0, fig=Figure(figsize=(6, 4)))
    figure.savefig(tmp_path / "class.png", dpi=40)
    assert tuple(figure.get_size_inches()) == (6, 4)
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == open_figures


@pytest.mark.filterwarnings("error")
def test_no_glyph_is_missing(explainer: Explainer, tmp_path: Path) -> None:
    for figure in (
        plot_class(explainer, 0)[0],
        plot_comparison(explainer, 0, 3)[0],
        plot_overview(explainer)[0],
        plot_feature(explainer, 1)[0],
        plot_matrix(explainer)[0],
    ):
        figure.savefig(tmp_path / "picture.png", dpi=30)


def test_other_images_than_those_of_the_gallery_are_refused(explainer: Explainer) -> None:
    images = ArrayImages(np.zeros((2, 8, 8), dtype=np.uint8), np.array([0, 1]), NAMES)
    with pytest.raises(InvalidInputError, match=r"'images'.*Got 2 images"):
        Explainer(explainer.model, images, tiny_backbone().preprocessing, explainer.gallery, NAMES)
    with pytest.raises(InvalidInputError, match="must agree"):
        Explainer(explainer.model, explainer.images, tiny_backbone().preprocessing, explainer.gallery, NAMES[:3])


def _text(figure: Figure) -> str:
    parts = [item.get_text() for item in figure.texts]
    for ax in figure.axes:
        parts += [item.get_text() for item in ax.texts] + [ax.get_xlabel(), ax.get_title()]
    return "\n".join(parts) + "\n"


def test_a_font_of_boxes_is_none() -> None:
    """matplotlib brings "Last Resort" along, which draws a box for every character there is."""
    from qpm_opt.figure_text import drawable, font_families

    cuneiform = "\U00012345"
    if len(font_families(cuneiform)) == 1:
        assert drawable(f"wren {cuneiform}") == "wren"
        assert drawable(cuneiform) == "U+12345"
    assert not any(name.startswith("Last Resort") for name in font_families(cuneiform))


def test_a_class_is_found_in_either_spelling() -> None:
    composed, apart = (unicodedata.normalize(form, "한국") for form in ("NFC", "NFD"))
    for known, asked in ((composed, apart), (apart, composed), (f"U+1_{composed}", apart)):
        assert Explainer.class_index(SimpleNamespace(class_names=("ant", known)), asked) == 1  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="must name one of the 1 classes"):
        Explainer.class_index(SimpleNamespace(class_names=("ant",)), 7)  # type: ignore[arg-type]
