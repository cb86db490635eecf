"""Runs that train an adapter behind a frozen backbone: what is trained, agreement, saved models, resuming."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qpm_opt import InvalidInputError
from qpm_vision import load_model
from qpm_vision._progress import SilentReporter
from qpm_vision._work import Work
from qpm_vision.backbones import Backbone, adapter_alone, build_backbone, frozen_part, with_adapter, with_frozen
from qpm_vision.checkpoint import load_checkpoint, save_checkpoint
from qpm_vision.compare import compare_run
from qpm_vision.config import RunConfig
from qpm_vision.data import make_loader
from qpm_vision.explain import load_explainer, plot_class
from qpm_vision.export import export_model
from qpm_vision.model import DenseClassifier
from qpm_vision.pipeline import evaluate_run, run
from qpm_vision.recipes import recipe_names
from qpm_vision.run_folder import STAGES, RunFolder, RunFolderError
from qpm_vision.statistics import FeatureStatistics, Locality
from qpm_vision.training import train
from qpm_vision.training_settings import TrainingSettings
from tests.vision.test_backbone_families import FAMILIES, build  # noqa: F401  (a fixture)
from tests.vision.test_distributed import in_two_processes
from tests.vision.tiny import tiny_backbone, tiny_config, tiny_data

ADAPTER = 6


def frozen_config(**changes: Any) -> RunConfig:
    return tiny_config(adapter=ADAPTER, **changes)


@pytest.fixture(scope="module")
def frozen_run(tiny_registered: None, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(frozen_config(), tmp_path_factory.mktemp("frozen") / "run", data=tiny_data())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass of a tiny backbone, which is what is frozen here, was given."""
    counts: list[int] = []
    original = Backbone.forward

    def forward(self: Backbone, images: Tensor) -> Tensor:
        if images.shape[1] == 3 and frozen_part(self) is None:
            counts.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Backbone, "forward", forward)
    return counts


# -- the adapter ---------------------------------------------------------------------------------------------------


def _with_normalisation() -> Backbone:
    return Backbone(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5)))


def test_only_the_adapter_is_trained() -> None:
    torch.manual_seed(0)
    backbone = with_adapter(_with_normalisation(), ADAPTER)
    model = DenseClassifier(backbone, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, labels = torch.randn(8, 3, 9, 9), torch.arange(8) % 3
    settings = TrainingSettings(epochs=2, batch_size=4, augmentation="none")
    train(model, lambda _epoch: [(images[:4], labels[:4]), (images[4:], labels[4:])], settings)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if ".frozen." not in name}
    model.train()
    frozen = frozen_part(backbone)
    assert frozen is not None
    assert {part.training for part in frozen.modules()} == {False}
    assert backbone.module.adapter.training  # type: ignore[union-attr]
    maps = backbone(images).detach()
    assert maps.shape == (8, ADAPTER, 7, 7)
    assert float(maps.min()) == 0


def test_the_adapter_alone_shares_its_weights_with_the_whole() -> None:
    whole = with_adapter(_with_normalisation(), ADAPTER).eval()
    frozen, alone = frozen_part(whole), adapter_alone(whole)
    assert frozen is not None
    images = torch.randn(2, 3, 9, 9)
    assert torch.equal(alone(frozen(images)), whole(images))
    with torch.no_grad():
        next(alone.parameters()).mul_(2)
    assert torch.equal(with_frozen(frozen, alone).eval()(images), whole(images))
    assert frozen_part(alone) is None
    assert adapter_alone(alone) is alone
    with pytest.raises(InvalidInputError, match="'adapter' parameter must be an integer of at least 1"):
        with_adapter(_with_normalisation(), 0)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet18", "timm:test_vit", "hf:dinov2", "hf:swin", "my"])
def test_a_checkpoint_of_any_family_is_complete(name: str, build: Any, tmp_path: Path) -> None:  # noqa: F811
    size = FAMILIES[name][1]
    torch.manual_seed(0)
    plain = build(name)
    model = DenseClassifier(with_adapter(plain, ADAPTER), 3).eval()
    file = save_checkpoint(tmp_path / "model.safetensors", model, plain.preprocessing)
    shutil.rmtree(tmp_path / "model", ignore_errors=True)  # the folder of transformers
    loaded = load_checkpoint(file)[0]
    assert frozen_part(loaded.backbone) is not None
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images).logits, model(images).logits, rtol=0, atol=0)


# -- runs ----------------------------------------------------------------------------------------------------------


def test_statistics_from_the_cache_are_those_of_images(frozen_run: RunFolder) -> None:
    model = load_checkpoint(frozen_run.path / "dense.safetensors")[0]
    statistics, locality = FeatureStatistics(4, ADAPTER), Locality(ADAPTER)
    preprocessing = model.backbone.preprocessing
    with torch.no_grad():
        for images, labels in make_loader(tiny_data().train, preprocessing.transform(), batch_size=10):
            output = model(images)
            statistics.update(output.features, labels)
            locality.update(output.maps)
    kept = frozen_run.read_npz("statistics.npz")
    assert np.array_equal(kept["dead"], statistics.dead())
    np.testing.assert_allclose(kept["A"], statistics.class_similarity(), atol=2e-3)
    np.testing.assert_allclose(kept["mean"], statistics.mean(), rtol=2e-3)
    np.testing.assert_allclose(kept["std"], statistics.std(), rtol=2e-3)
    np.testing.assert_allclose(kept["peak"], locality.peak(), rtol=2e-3)


def test_a_finished_run_needs_no_cache(frozen_run: RunFolder, tmp_path: Path) -> None:
    assert list(frozen_run.stages()) == list(STAGES)
    assert not (frozen_run.path / "maps").exists()
    kept = frozen_run.read_json("metrics.json")["qpm"]
    again = evaluate_run(frozen_run, data=tiny_data(), device="cpu")["qpm"].to_dict()
    for name, value in kept.items():
        assert again[name] == (value if value is None else pytest.approx(value, abs=5e-3))
    model = load_model(frozen_run.path)
    images = tiny_data().test
    predicted = model.predict([images.image(position) for position in range(6)])
    assert len(predicted) == 6
    assert export_model(frozen_run.path, tmp_path / "model.pt2").difference < 1e-4
    figure, axes = plot_class(load_explainer(frozen_run, data=tiny_data()), "east")
    assert axes.size
    figure.clear()


def test_the_frozen_part_is_that_of_the_backbone(frozen_run: RunFolder) -> None:
    torch.manual_seed(0)  # the seed of the run: the weights of this backbone are random
    own = tiny_backbone().state_dict()
    for name in ("dense", "qpm"):
        frozen = frozen_part(load_checkpoint(frozen_run.path / f"{name}.safetensors")[0].backbone)
        assert frozen is not None
        assert all(torch.equal(tensor, own[key]) for key, tensor in frozen.state_dict().items())


@pytest.mark.usefixtures("tiny_registered")
def test_each_image_is_computed_once(tmp_path: Path, seen: list[int]) -> None:
    place = run(frozen_config(), tmp_path / "run", data=tiny_data())
    few = sum(count for count in seen if count == 1)  # black images that tell sizes, and pictures
    assert sum(seen) - few <= 48 + 24 + 60  # pictures are drawn of images, too
    seen.clear()
    rows = compare_run(place, methods=["dense", "qpm", "random", "qsenn"], seeds=2, device="cpu", data=tiny_data())
    assert sum(seen) == 48 + 24 + 1
    assert not (place.path / "compare" / "maps").exists()
    metrics = place.read_json("metrics.json")
    assert rows[0]["accuracy_test"] == metrics["dense"]["accuracy_test"]
    assert rows[1]["accuracy_test"] == metrics["qpm"]["accuracy_test"]
    model = load_checkpoint(place.path / "compare" / "n4-k2" / "random" / "seed-1" / "model.safetensors")[0]
    assert frozen_part(model.backbone) is not None


@pytest.mark.usefixtures("tiny_registered")
def test_a_run_that_was_stopped_goes_on_with_its_maps(
    tmp_path: Path, frozen_run: RunFolder, monkeypatch: pytest.MonkeyPatch, seen: list[int]
) -> None:
    place, original = tmp_path / "run", Work.train

    def stopped(self: Work, task: str, *rest: Any, **options: Any) -> Any:
        if task == "fine-tuning":
            raise KeyboardInterrupt
        return original(self, task, *rest, **options)

    monkeypatch.setattr(Work, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(frozen_config(), place, data=tiny_data())
    monkeypatch.setattr(Work, "train", original)
    assert (place / "maps" / "train.npy").exists()
    seen.clear()

    class Reporter(SilentReporter):
        def message(self, text: str) -> None:
            assert not text.startswith("maps of")

    run(frozen_config(), place, data=tiny_data(), reporter=Reporter())
    assert [count for count in seen if count == 16] == []  # no batch of them was computed
    for name in ("dense", "qpm"):
        first, second = (
            load_checkpoint(folder / f"{name}.safetensors")[0].state_dict() for folder in (frozen_run.path, place)
        )
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


@pytest.mark.usefixtures("tiny_registered")
def test_maps_of_images_for_validation_choose_the_epoch(tmp_path: Path) -> None:
    data = replace(tiny_data(), validation=tiny_data(seed=5).test)
    place = run(frozen_config(validation_share=0.25), tmp_path / "run", data=data)
    assert all(0 <= float(row["validation_accuracy"]) <= 1 for row in place.history())


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_registered")
def test_a_frozen_run_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    code = f"""
        from tests.vision.test_frozen_runs import frozen_config
        from tests.vision.tiny import registered, tiny_data
        from qpm_vision.pipeline import run
        with registered():
            run(frozen_config(), {str(tmp_path / "two")!r}, data=tiny_data(13))
        """
    for result in in_two_processes(code):
        assert result.returncode == 0, result.stderr
    two = RunFolder.open(tmp_path / "two")
    assert list(two.stages()) == list(STAGES)
    assert not (two.path / "maps").exists()


# -- refusals ------------------------------------------------------------------------------------------------------


def test_what_cannot_act_on_maps_is_refused() -> None:
    frozen = RunConfig.from_recipe("frozen", "digits")
    for name in ("dense", "fine_tuning"):
        stage = replace(getattr(frozen, name), augmentation="shift")
        with pytest.raises(InvalidInputError, match=rf"'{name}\.augmentation'.*none or flip.*Got 'shift'.*'frozen'"):
            replace(frozen, **{name: stage})
        flipped = replace(frozen, **{name: replace(stage, augmentation="flip")})
        assert getattr(flipped, name).augmentation == "flip"
    with pytest.raises(InvalidInputError, match=r"'dense\.epochs'.*at least 1.*Got 0"):
        replace(frozen, dense=replace(frozen.dense, epochs=0))
    with pytest.raises(InvalidInputError, match="'adapter' parameter must be an integer of at least 1"):
        replace(frozen, adapter=0)
    assert {name for name in recipe_names() if RunConfig.from_recipe(name, "digits").adapter} == {
        "frozen",
        "frozen-dino",
    }


@pytest.mark.usefixtures("tiny_registered")
def test_refusals_of_a_run(tmp_path: Path, frozen_run: RunFolder) -> None:
    with pytest.raises(InvalidInputError, match="at most the 6 features of the adapter"):
        run(frozen_config(n_select=7), tmp_path / "run", data=tiny_data())
    with pytest.raises(InvalidInputError, match="adapter: 6 → None"):
        run(tiny_config(), frozen_run.path, data=tiny_data())
    copy = RunFolder(shutil.copytree(frozen_run.path, tmp_path / "copy"))
    plain = DenseClassifier(build_backbone("tiny-for-tests"), 4)
    save_checkpoint(copy.path / "dense.safetensors", plain, plain.backbone.preprocessing)
    with pytest.raises(RunFolderError, match="must have an adapter behind a frozen backbone"):
        run(frozen_config(), copy.path, data=tiny_data(), redo="statistics")
