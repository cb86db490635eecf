"""The configuration of a run: round trip, validation, what may differ."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpm_opt import InvalidInputError
from qpm_vision.config import FREE_KEYS, RunConfig, differences, merged
from qpm_vision.recipes import read_recipe, recipe_names, recipe_text


@settings(max_examples=25, deadline=None)
@given(
    st.integers(5, 80),
    st.sampled_from([None, "turan", 0.25, 0.0]),
    st.one_of(st.none(), st.floats(0.1, 1e5)),
    st.integers(0, 2**31),
    st.sampled_from(recipe_names()),
)
def test_json_round_trip(
    n_select: int, threshold: float | str | None, seconds: float | None, seed: int, recipe: str
) -> None:
    config = RunConfig.from_recipe(recipe, "digits")
    config = replace(config, n_select=n_select, threshold=threshold, solve_seconds=seconds, seed=seed)
    data = json.loads(json.dumps(config.to_dict()))
    assert RunConfig.from_dict(data) == config
    assert differences(config.to_dict(), data) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ""}, r"'data'.*not empty.*Got ''"),
        ({"n_select": 4}, r"'n_per_class'.*at most n_select = 4.*Got 5"),
        ({"n_select": 0}, r"'n_select'.*at least 1.*Got 0"),
        ({"n_select": 3.5}, r"'n_select'.*integer.*Got 3\.5"),
        ({"n_per_class": True}, r"'n_per_class'.*integer.*Got True"),
        ({"size": -2}, r"'size'.*at least 1.*Got -2"),
        ({"threshold": "turen"}, r"'threshold'.*'turan'.*Got 'turen'"),
        ({"threshold": -0.1}, r"'threshold'.*not negative"),
        ({"solve_seconds": 0}, r"'solve_seconds'.*above 0"),
        ({"solve_seconds": float("nan")}, r"'solve_seconds'.*above 0"),
        ({"test_share": 1.0}, r"'test_share'.*between 0 and 1"),
        ({"solver": "cpsta"}, r"'solver'.*Got 'cpsta'.*Did you mean 'cpsat'"),
        ({"dense": {"epochs": 3}}, r"'dense'.*TrainingSettings"),
        ({"precision": "float16"}, r"'precision'.*float32, bfloat16.*Got 'float16'"),
        ({"micro_batch": 1}, r"'micro_batch'.*at least 2"),
        ({"validation_share": 1.0}, r"'validation_share'.*below 1"),
        ({"compile": "yes"}, r"'compile'.*true or false.*Got 'yes'"),
        ({"seed": -1}, r"'seed'.*at least 0"),
    ],
)
def test_wrong_values_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        replace(RunConfig("digits"), **changes)


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r"'n_selct'.*Did you mean 'n_select'"):
        RunConfig.from_dict({"data": "digits", "n_selct": 3})
    with pytest.raises(InvalidInputError, match=r"'dense\.epoch'.*Did you mean 'epochs'"):
        RunConfig.from_dict({"data": "digits", "dense": {"epoch": 3}})
    with pytest.raises(InvalidInputError, match=r"key 'data'"):
        RunConfig.from_dict({})
    with pytest.raises(InvalidInputError, match=r"'recipe'.*Did you mean 'paper-cub'"):
        RunConfig.from_recipe("papper-cub", "digits")


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        RunConfig("digits").seed = 1  # type: ignore[misc]


def test_differences_name_nested_keys_and_leave_out_the_place_of_computation() -> None:
    config = RunConfig("digits")
    other = replace(
        config, seed=7, device="cuda", workers=3, dense=replace(config.dense, epochs=config.dense.epochs + 1)
    )
    found = differences(config.to_dict(), other.to_dict())
    assert found == {"seed": (0, 7), "dense.epochs": (config.dense.epochs, config.dense.epochs + 1)}
    assert {"compile", "data", "device", "tensorboard", "workers"} == FREE_KEYS


def test_the_default_recipe_is_that_of_a_run_without_one() -> None:
    assert RunConfig.from_recipe("small", "digits") == RunConfig("digits")


def test_recipes_are_files_that_can_be_read_and_changed() -> None:
    for name in recipe_names():
        assert recipe_text(name).startswith("# ")
        assert RunConfig.from_dict({**read_recipe(name), "data": "digits"}) == RunConfig.from_recipe(name, "digits")
    changed = merged(read_recipe("paper-cub"), {"n_select": 20, "dense": {"epochs": 2}})
    config = RunConfig.from_dict({**changed, "data": "digits"})
    assert (config.n_select, config.dense.epochs, config.dense.momentum) == (20, 2, 0.9)


def test_imagenet_takes_the_published_classifier() -> None:
    recipe = RunConfig.from_recipe("paper-imagenet", "imagenet:there")
    assert recipe.dense.epochs == 0
    assert recipe.fine_tuning == RunConfig.from_recipe("paper-cub", "cub:there").fine_tuning


@pytest.mark.parametrize("name", ["paper-cub", "paper-cars"])
def test_the_paper_recipe_is_the_papers(name: str) -> None:
    config = RunConfig.from_recipe(name, "digits")
    assert (config.backbone, config.size, config.n_select, config.n_per_class) == ("resnet50-stride8", 224, 50, 5)
    assert (config.dense.epochs, config.fine_tuning.epochs) == (150, 40)
    assert (config.dense.momentum, config.fine_tuning.momentum) == (0.9, 0.95)
    assert (config.dense.learning_rate, config.dense.head_learning_rate) == (0.005, 0.01)
    assert config.fine_tuning.learning_rate == 1e-4
    for settings_ in (config.dense, config.fine_tuning):
        assert (settings_.schedule, settings_.batch_size, settings_.augmentation) == ("step", 16, "paper")
        assert settings_.weight_decay == 5e-4
        assert settings_.step_factor == 0.4
        assert settings_.beta == 0.196
    assert (config.dense.step_epochs, config.fine_tuning.step_epochs) == (30, 10)
