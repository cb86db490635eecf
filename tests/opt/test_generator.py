"""The made-up data: what is computed from them, how awkward they are, and the command line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.generator import ProblemData, generate_problem_data, main, save_problem
from qpm_opt.redundancy import penalties_from_similarity

SMALL: dict[str, Any] = {"n_classes": 15, "n_features": 40, "images_per_class": 8}


@pytest.fixture(scope="module")
def small() -> ProblemData:
    return generate_problem_data(**SMALL, dead_features=3, seed=4)


@pytest.fixture(scope="module")
def default() -> ProblemData:
    return generate_problem_data()


def test_shapes_and_types(small: ProblemData) -> None:
    assert small.features.shape == (120, 40)
    assert small.features.dtype == np.float32
    assert small.labels.dtype == np.int64
    assert np.bincount(small.labels).tolist() == [8] * 15
    assert small.class_similarity.shape == small.A.shape == (15, 40)
    assert small.redundancy_similarity.shape == small.R.shape == (40, 40)
    assert small.feature_bias.shape == (40,)
    assert small.class_attributes.shape[0] == len(small.class_names) == 15
    assert len(set(small.feature_names)) == 40
    assert len(set(small.class_names)) == 15
    assert "n_images=120" in repr(small)


def test_features_look_like_pooled_activations(small: ProblemData) -> None:
    assert np.isfinite(small.features).all()
    assert (small.features >= 0).all()
    assert 0.05 < (small.features == 0).mean() < 0.8
    assert 0 <= small.class_attributes.min() < small.class_attributes.max() <= 1


def test_class_similarity_is_the_correlation_with_the_class(small: ProblemData) -> None:
    indicators = np.eye(15)[small.labels]
    live = small.features.std(axis=0) > 0
    joint = np.corrcoef(small.features[:, live].astype(np.float64), indicators, rowvar=False)
    correlation = joint[: live.sum(), live.sum() :].T
    np.testing.assert_allclose(small.A[:, live], correlation / np.abs(correlation).max(), atol=1e-10)
    assert np.abs(small.A).max() == 1.0


def test_redundancy_similarity_is_the_cosine_of_class_similarities(small: ProblemData) -> None:
    live = np.flatnonzero(np.abs(small.A).any(axis=0))
    for i in live[:10]:
        for j in live[:10]:
            a, b = small.A[:, i], small.A[:, j]
            assert small.R[i, j] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)
    np.testing.assert_array_equal(small.R, small.R.T)


def test_dead_features_are_zero_throughout(small: ProblemData) -> None:
    dead = np.flatnonzero([name.startswith("dead") for name in small.feature_names])
    assert len(dead) == 3
    assert not small.features[:, dead].any()
    assert not small.A[:, dead].any()
    assert not small.R[dead].any()
    clique = penalties_from_similarity(small.R, n_select=10).clique
    assert clique is not None
    assert not set(clique.tolist()) & set(dead.tolist())


def test_bias_has_the_scale_of_the_method(small: ProblemData) -> None:
    assert np.abs(small.feature_bias).max() == pytest.approx(np.sqrt(10) * 0.1)
    assert small.feature_bias.mean() == pytest.approx(0.0, abs=1e-12)


def test_equal_seeds_give_equal_data() -> None:
    first, second, other = (generate_problem_data(**SMALL, seed=seed) for seed in (1, 1, 2))
    for field in dataclasses.fields(ProblemData):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    assert not np.array_equal(first.features, other.features)
    assert not np.array_equal(first.class_attributes, other.class_attributes)


def test_classes_of_one_family_are_more_alike() -> None:
    attributes = generate_problem_data(100, 30, images_per_class=2, seed=0).class_attributes
    unit = attributes / np.linalg.norm(attributes, axis=1, keepdims=True)
    cosine = unit @ unit.T
    family = np.arange(100) // 5
    same = (family[:, None] == family) & ~np.eye(100, dtype=bool)
    assert cosine[same].mean() > 0.25 + cosine[family[:, None] != family].mean()


def test_every_class_shows_something() -> None:
    data = generate_problem_data(40, 5, images_per_class=2, n_attributes=1, seed=0)
    assert (data.class_attributes > 0).all()


def test_features_of_one_attribute_are_look_alikes() -> None:
    def mean_cosine(redundancy: float) -> tuple[float, float]:
        data = generate_problem_data(60, 200, images_per_class=10, redundancy=redundancy, seed=0)
        main_attribute = np.array([name.split(" / ")[0] for name in data.feature_names])
        same = (main_attribute[:, None] == main_attribute) & ~np.eye(200, dtype=bool)
        return float(data.R[same].mean()), float(data.R[~same].mean())

    alike, unlike = mean_cosine(0.5)
    assert alike > unlike + 0.1
    assert mean_cosine(1.0)[0] > alike + 0.1


def test_noise_hides_the_classes() -> None:
    quiet, loud = (generate_problem_data(**SMALL, noise=noise, seed=0).features for noise in (0.2, 3.0))

    def between(features: np.ndarray[Any, Any]) -> float:
        classes = features.reshape(15, 8, -1).mean(axis=1)
        varies = features.var(axis=0) > 0
        return float((classes.var(axis=0)[varies] / features.var(axis=0)[varies]).mean())

    assert between(quiet) > 1.5 * between(loud)


def test_share_of_noise_features() -> None:
    data = generate_problem_data(10, 1000, images_per_class=2, noise_features=0.3, seed=0)
    share = np.mean([name.startswith("noise") for name in data.feature_names])
    assert 0.25 < share < 0.35


def test_default_instance_is_as_hard_as_announced(default: ProblemData) -> None:
    assert default.A.shape == (200, 2048)
    searched = penalties_from_similarity(default.R)
    assert 0.17 < searched.share < 0.20
    assert penalties_from_similarity(default.R, threshold="turan").share == pytest.approx(1 / 49, abs=0.002)


def test_some_classes_collide_on_the_default_instance(default: ProblemData) -> None:
    """Fill a set of 50 greedily by what the classes' best five gain; classes then share their five now and then."""
    best_five = np.zeros((200, 5))
    kept: list[int] = []
    while len(kept) < 50:
        gain = np.maximum(default.A - best_five.min(axis=1, keepdims=True), 0.0).sum(axis=0)
        gain[kept] = -1.0
        kept.append(int(gain.argmax()))
        with_new = np.column_stack([best_five, default.A[:, kept[-1]]])
        best_five = -np.sort(-with_new, axis=1)[:, :5]
    chosen = np.sort(np.argsort(-default.A[:, kept], axis=1)[:, :5], axis=1)
    _, counts = np.unique(chosen, axis=0, return_counts=True)
    assert 4 <= counts[counts > 1].sum() <= 40


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"n_classes": 1}, "n_classes"),
        ({"n_features": 0}, "n_features"),
        ({"n_features": 2.5}, "n_features"),
        ({"images_per_class": 1}, "images_per_class"),
        ({"n_attributes": 0}, "n_attributes"),
        ({"redundancy": 1.5}, "redundancy"),
        ({"noise": -1.0}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"noise_features": -0.1}, "noise_features"),
        ({"n_features": 5, "dead_features": 6}, "dead_features"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        generate_problem_data(**(SMALL | arguments))


def test_saved_problem_holds_three_arrays(tmp_path: Path, small: ProblemData) -> None:
    path = save_problem(tmp_path / "problem", small)
    assert path == tmp_path / "problem.npz"
    with np.load(path, allow_pickle=False) as saved:
        assert sorted(saved.files) == ["class_similarity", "feature_bias", "redundancy_similarity"]
        for name in saved.files:
            np.testing.assert_array_equal(saved[name], getattr(small, name))


def test_command_line_writes_what_the_function_makes(tmp_path: Path) -> None:
    path = tmp_path / "problem.npz"
    command = [sys.executable, "-m", "benchmarks.generator", str(path), "--classes", "12", "--features", "30"]
    done = subprocess.run(
        [*command, "--seed", "3", "--images-per-class", "4", "--dead", "2"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "n_features=30" in done.stdout
    expected = generate_problem_data(12, 30, images_per_class=4, dead_features=2, seed=3)
    with np.load(path) as saved:
        np.testing.assert_array_equal(saved["class_similarity"], expected.class_similarity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["p.npz", "--classes", "1"], "n_classes"), (["missing/p.npz"], "does not exist"), ([], "output")],
)
def test_command_line_refuses_bad_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
