"""Recipes from the command line: printed, changed, and run to their end."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from qpm_opt import InvalidInputError
from qpm_vision import cli
from qpm_vision.backbones import BackboneWeightsError, load_head
from qpm_vision.backbones.torchvision_models import build_resnet
from qpm_vision.checkpoint import load_checkpoint
from qpm_vision.config import RunConfig
from qpm_vision.evaluation import Scores
from qpm_vision.pipeline import run
from qpm_vision.recipes import recipe_names, recipe_text
from qpm_vision.run_folder import STAGES, RunFolder
from tests.vision.data_trees import write_cub
from tests.vision.tiny import tiny_backbone, tiny_config, tiny_data


def test_recipes_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipe"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(recipe_names())
    assert cli.main(["recipe", "paper-cub"]) == 0
    assert capsys.readouterr().out == recipe_text("paper-cub")
    assert cli.main(["recipe", "paper-cbu"]) == 2
    assert "Did you mean 'paper-cub'" in capsys.readouterr().err


def test_options_are_over_a_file_and_a_file_over_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("n_select: 30\nn_per_class: 4\ndense:\n  epochs: 7\n  momentum: 0.5\n")
    words = f"train digits {tmp_path / 'run'} --recipe paper-cub --config {file} --n-select 40 --dense-epochs 2"
    config = cli._configured(cli._parser().parse_args(words.split()))
    recipe = RunConfig.from_recipe("paper-cub", "digits")
    dense = dataclasses.replace(recipe.dense, epochs=2, momentum=0.5)
    assert config == dataclasses.replace(recipe, n_select=40, n_per_class=4, dense=dense)


@pytest.mark.parametrize("name", recipe_names())
def test_a_printed_recipe_is_a_configuration(tmp_path: Path, name: str) -> None:
    file = tmp_path / "copy.yaml"
    file.write_text(recipe_text(name))
    arguments = cli._parser().parse_args(["train", "digits", str(tmp_path / "run"), "--config", str(file)])
    assert cli._configured(arguments) == RunConfig.from_recipe(name, "digits")


def _paper_cub(tmp_path: Path, n_classes: int, size: int, *options: str) -> RunFolder:
    write_cub(tmp_path / "data", n_classes=n_classes, per_class=3, n_attributes=312)
    words = f"train cub-cropped:{tmp_path / 'data' / 'CUB_200_2011'} {tmp_path / 'run'} --recipe paper-cub"
    words += f" --weights random --size {size} --device cpu {' '.join(options)}"
    assert cli.main(words.split()) == 0
    return RunFolder.open(tmp_path / "run")


def _check_paper_cub(place: RunFolder) -> None:
    assert list(place.stages()) == list(STAGES)
    metrics = place.read_json("metrics.json")
    names = {field.name for field in dataclasses.fields(Scores)}
    assert {name for name in names if metrics["qpm"][name] is None} == set()
    assert metrics["qpm"]["features_per_class"] == 5
    _, preprocessing, extra = load_checkpoint(place.path / "qpm.safetensors")
    assert extra["config"]["data"].startswith("cub-cropped:")
    assert preprocessing.to_dict()["size"] == place.config()["size"]
    rates = [float(row["learning_rate"]) for row in place.history()]
    assert rates == pytest.approx([0.005] * (len(rates) // 2) + [1e-4] * (len(rates) // 2))


@pytest.mark.slow
def test_the_paper_recipe_runs_on_cub_and_gives_every_figure(tmp_path: Path) -> None:
    small = "--n-select 12 --dense-epochs 1 --fine-tuning-epochs 1 --batch-size 8 --solve-seconds 5"
    _check_paper_cub(_paper_cub(tmp_path, 6, 32, small))


@pytest.mark.slow
def test_the_paper_recipe_runs_on_two_hundred_classes(tmp_path: Path) -> None:
    """At 64 pixels, for a processor; set QPM_TEST_SIZE=224 for the paper's."""
    size = int(os.environ.get("QPM_TEST_SIZE", "64"))
    _check_paper_cub(_paper_cub(tmp_path, 200, size, "--dense-epochs 2 --fine-tuning-epochs 2"))


# -- the published classifier --------------------------------------------------------------------------------------


def test_the_head_beside_the_weights_of_a_backbone(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    network = resnet18(num_classes=7).eval()
    file = tmp_path / "resnet18.pth"
    torch.save(network.state_dict(), file)
    backbone = build_resnet("resnet18")
    backbone.module.load_state_dict(network.state_dict(), strict=False)
    head = nn.Linear(512, 7)
    load_head(head, "resnet18", file)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(head(backbone.eval()(images).mean((2, 3))), network(images))
    with pytest.raises(BackboneWeightsError, match=r"one classifier of shape \(8, 512\).*Got none"):
        load_head(nn.Linear(512, 8), "resnet18", file)
    for weights in (None, "random"):
        with pytest.raises(BackboneWeightsError, match=r"'weights'.*0 epochs"):
            load_head(head, "resnet18", weights)


@pytest.mark.usefixtures("tiny_registered")
def test_without_dense_epochs_the_published_classifier_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    backbone, head = tiny_backbone(), nn.Linear(8, 4)
    tensors = {**backbone.module.state_dict(), "fc.weight": head.weight.data, "fc.bias": head.bias.data}
    torch.save(tensors, tmp_path / "weights.pth")
    config = tiny_config(weights=str(tmp_path / "weights.pth"))
    config = dataclasses.replace(config, dense=dataclasses.replace(config.dense, epochs=0))
    place = run(config, tmp_path / "run", data=tiny_data())
    model = load_checkpoint(place.path / "dense.safetensors")[0].state_dict()
    assert torch.equal(model["head.weight"], head.weight)
    assert torch.equal(model["backbone.module.0.weight"], backbone.module[0].weight)
    assert {row["stage"] for row in place.history()} == {"fine-tuning"}
    with pytest.raises(InvalidInputError, match="'weights'"):
        run(dataclasses.replace(config, weights="random"), tmp_path / "other", data=tiny_data())


# -- what else a run can be told -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_registered")
def test_images_set_aside_choose_the_epoch_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"'data'.*validation.*'validation_share'"):
        run(tiny_config(validation_share=0.25), tmp_path / "none", data=tiny_data())
    words = f"train digits {tmp_path / 'run'} --backbone tiny-for-tests --validation-share 0.25 --n-select 6"
    words += " --n-per-class 2 --dense-epochs 2 --fine-tuning-epochs 1 --device cpu --solve-seconds 5"
    assert cli.main(words.split()) == 0
    place = RunFolder.open(tmp_path / "run")
    assert all(0 < float(row["validation_accuracy"]) < 1 for row in place.history())
    assert place.read_json("metrics.json")["qpm"]["train_images"] == place.read_json("data.json")["n_train"] < 1100
    assert cli.main(["explain", str(place.path), "--class", "3"]) == 0
    assert cli.main(["evaluate", str(place.path)]) == 0


@pytest.mark.usefixtures("tiny_registered")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_epochs_are_written_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = run(tiny_config(tensorboard=True), tmp_path / "run", data=tiny_data())
    events = EventAccumulator(str(place.path / "tensorboard" / "dense"))
    events.Reload()
    curve = [point.value for point in events.Scalars("loss")]
    assert curve == pytest.approx([float(row["loss"]) for row in place.history() if row["stage"] == "dense"])


@pytest.mark.usefixtures("tiny_registered")
def test_bfloat16_and_parts_of_batches_are_noted(tmp_path: Path) -> None:
    place = run(tiny_config(precision="bfloat16", micro_batch=4), tmp_path / "run", data=tiny_data())
    assert json.loads((place.path / "config.json").read_text())["precision"] == "bfloat16"
    with pytest.raises(InvalidInputError, match="precision: 'bfloat16' → 'float32'"):
        run(tiny_config(micro_batch=4), place.path, data=tiny_data())


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_registered")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside of PyTorch
def test_a_compiled_backbone_gives_the_same(tmp_path: Path) -> None:
    plain = run(tiny_config(), tmp_path / "plain", data=tiny_data())
    compiled = run(tiny_config(compile=True), tmp_path / "compiled", data=tiny_data())
    first, second = (load_checkpoint(place.path / "qpm.safetensors")[0].state_dict() for place in (plain, compiled))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-4, rtol=1e-3)


def test_recipes_hold_nothing_but_keys_of_a_run() -> None:
    known = {field.name for field in dataclasses.fields(RunConfig)}
    for name in recipe_names():
        assert set(yaml.safe_load(recipe_text(name))) <= known
