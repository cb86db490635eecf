"""Training: it learns, repeats itself, follows its settings, and survives what goes wrong."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import FrozenInstanceError, asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.backbones import Backbone, build_backbone
from qpm_vision.data import ArrayImages
from qpm_vision.losses import feature_diversity_loss
from qpm_vision.model import DenseClassifier, QPMClassifier
from qpm_vision.preprocessing import Preprocessing
from qpm_vision.training import TrainingError, _seed_step, accuracy, train
from qpm_vision.training_settings import SCHEDULES, SMALL_DENSE, TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 12
PLAIN = TrainingSettings(epochs=2, learning_rate=0.05, batch_size=8, augmentation="none")
Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def dense(seed: int = 0, n_classes: int = 3) -> DenseClassifier:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU()
    )
    preprocessing = Preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3)
    return DenseClassifier(Backbone(module, n_features=6, preprocessing=preprocessing), n_classes)


def qpm(seed: int = 0) -> QPMClassifier:
    weights = [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    return QPMClassifier.from_dense(dense(seed), [5, 0, 2, 3], weights, [0.1] * 4, [0.2] * 4)


def pixels(per_class: int = 16, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """One of the colours is strong: three classes that are easy to tell apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(3 * per_class) % 3
    images = rng.integers(0, 120, (len(labels), SIZE, SIZE, 3), dtype=np.uint8)
    images[np.arange(len(labels)), :, :, labels] += 120
    return images, labels


def batches(per_class: int = 16, size: int = 8, seed: int = 0) -> Batches:
    images, labels = pixels(per_class, seed)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    targets = torch.from_numpy(labels)
    return [(tensors[at : at + size], targets[at : at + size]) for at in range(0, len(targets), size)]


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# -- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [dense, qpm])
def test_it_learns(make: Any) -> None:
    model = make()
    chance = accuracy(model, batches(seed=9))
    history = train(model, lambda epoch: batches(seed=epoch), replace(PLAIN, epochs=6))
    assert accuracy(model, batches(seed=9)) > max(0.95, chance)
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"] / 2
    assert not model.training


def test_history_rows() -> None:
    rows: list[dict[str, Any]] = []
    model = dense()

    def on_epoch(history: list[dict[str, Any]], given_model: Any) -> None:
        assert given_model is model
        assert not given_model.training
        rows.append(history[-1])
        assert history == rows

    history = train(model, lambda epoch: batches(), PLAIN, on_epoch=on_epoch)
    assert history == rows
    assert [row["epoch"] for row in history] == [1, 2]
    for row in history:
        assert list(row) == ["epoch", "loss", "cross_entropy", "diversity", "accuracy", "learning_rate", "seconds"]
        assert row["loss"] == pytest.approx(row["cross_entropy"] + row["diversity"])
        assert row["diversity"] < 0 < row["seconds"]
        assert 0 <= row["accuracy"] <= 1
    assert json.loads(json.dumps(history)) == history


def test_progress_counts_all_batches() -> None:
    seen: list[tuple[int, int, str]] = []
    train(dense(), lambda epoch: batches(), PLAIN, progress=lambda *state: seen.append(state))
    assert [done for done, _, _ in seen] == list(range(1, 13))
    assert {total for _, total, _ in seen} == {12}
    assert seen[0][2].startswith("epoch 1/2, loss ")
    assert seen[-1][2].startswith("epoch 2/2, loss ")


@pytest.mark.parametrize("make", [dense, qpm])
def test_one_epoch_is_plain_sgd_on_cross_entropy_and_diversity(make: Any) -> None:
    """Against a loop written out, with torch's own optimiser and schedule left away."""
    settings_ = replace(PLAIN, epochs=1, schedule="step", learning_rate=0.03, head_learning_rate=0.2, momentum=0.8)
    trained, plain = make(), make()
    data = batches()
    train(trained, lambda epoch: data, settings_, seed=5)

    with torch.random.fork_rng():
        plain.train()
        velocity = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
        for step, (images, labels) in enumerate(data):
            _seed_step(5, 1, step)
            output = plain(images)
            loss = nn.CrossEntropyLoss()(output.logits, labels)
            loss = loss + feature_diversity_loss(output.maps, output.logits, plain.weight)
            names, parameters = zip(*plain.named_parameters(), strict=True)
            for name, parameter, gradient in zip(names, parameters, torch.autograd.grad(loss, parameters), strict=True):
                velocity[name] = 0.8 * velocity[name] + gradient + 5e-4 * parameter.detach()
                rate = 0.03 if name.startswith("backbone.") else 0.2
                parameter.data -= rate * velocity[name]
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


def test_beta_zero_leaves_the_diversity_loss_out() -> None:
    history = train(dense(), lambda epoch: batches(), replace(PLAIN, beta=0.0))
    assert all(row["diversity"] == 0 and row["loss"] == row["cross_entropy"] for row in history)


def test_the_diversity_loss_makes_features_look_at_different_places() -> None:
    rows = [train(dense(), lambda epoch: batches(), replace(PLAIN, epochs=4, beta=beta))[-1] for beta in (1e-9, 5.0)]
    assert rows[1]["diversity"] / 5.0 < 1.1 * rows[0]["diversity"] / 1e-9


def test_long_gradients_are_shortened() -> None:
    model = dense()
    before = state(model)
    short = replace(PLAIN, epochs=1, schedule="step", momentum=0.0, weight_decay=0.0, gradient_norm=1e-3)
    data = batches()[:1]
    train(model, lambda epoch: data, short)
    moved = math.sqrt(sum(float((p.detach() - before[name]).pow(2).sum()) for name, p in model.named_parameters()))
    assert moved == pytest.approx(0.05 * 1e-3, rel=1e-2)


def test_frozen_parameters_stay() -> None:
    model = dense()
    model.backbone.requires_grad_(False)
    kernels = model.backbone.module[0].weight.clone()
    head = model.head.weight.clone()
    train(model, lambda epoch: batches(), PLAIN)
    assert torch.equal(model.backbone.module[0].weight, kernels)
    assert not torch.equal(model.head.weight, head)
    model.head.requires_grad_(False)
    with pytest.raises(InvalidInputError, match="parameters that require gradients"):
        train(model, lambda epoch: batches(), PLAIN)


# -- repeating itself ----------------------------------------------------------------------------------------------


def images() -> ArrayImages:
    return ArrayImages(*pixels(), ("a", "b", "c"))


@pytest.mark.parametrize("augmentation", ["shift", "paper"])
def test_a_seed_fixes_order_augmentation_and_dropout(augmentation: str) -> None:
    states = []
    for seed, noise in ((1, 10), (1, 20), (2, 10)):
        model = qpm()
        torch.manual_seed(noise)
        train(model, images(), replace(PLAIN, augmentation=augmentation), seed=seed)
        states.append(state(model))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_the_callers_random_state_is_kept() -> None:
    model = qpm()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(model, images(), PLAIN)
    assert torch.equal(torch.rand(3), expected)


def test_an_image_set_is_shuffled_anew_in_each_epoch_and_preprocessed() -> None:
    seen: list[torch.Tensor] = []
    model = dense()
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    train(model, images(), PLAIN)
    epochs = torch.cat(seen).flatten(1).chunk(2)
    assert not torch.equal(epochs[0], epochs[1])
    for one in epochs:  # every image once
        assert sorted(one.double().sum(1).tolist()) == pytest.approx(
            sorted(torch.cat([part for part, _ in batches()]).flatten(1).double().sum(1).tolist()), abs=1e-3
        )
    seen.clear()
    other = Preprocessing(20, (0.5,) * 3, (0.5,) * 3)
    model = dense()
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    train(model, images(), PLAIN, preprocessing=other)
    assert {tuple(batch.shape[1:]) for batch in seen} == {(3, 20, 20)}


# -- the last batch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_images", "sizes"), [(17, [8, 9]), (16, [8, 8]), (18, [8, 8, 2]), (9, [9]), (8, [8]), (2, [2])]
)
def test_a_last_image_joins_the_batch_before(n_images: int, sizes: list[int]) -> None:
    seen: list[int] = []
    steps: list[int] = []
    model = dense()
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    every, labels = pixels()
    few = ArrayImages(every[:n_images], labels[:n_images], ("a", "b", "c"))
    train(model, few, replace(PLAIN, epochs=1), progress=lambda done, total, text: steps.append(total - done))
    assert seen == sizes
    assert steps[-1] == 0


def test_one_image_is_too_few() -> None:
    every, labels = pixels()
    with pytest.raises(InvalidInputError, match=r"'images'.*at least two images. Got 1"):
        train(dense(), ArrayImages(every[:1], labels[:1], ("a", "b", "c")), PLAIN)
    with pytest.raises(InvalidInputError, match=r"'images'.*at least two images.*Got one"):
        train(dense(), lambda epoch: batches(size=1)[:1], PLAIN)
    with pytest.raises(InvalidInputError, match=r"at least one batch"):
        train(dense(), lambda epoch: [], PLAIN)
    with pytest.raises(InvalidInputError, match=r"number is known by len\(\). Got a generator"):
        train(dense(), lambda epoch: (batch for batch in batches()), PLAIN)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_that_no_class_has_are_refused(labels: list[int]) -> None:
    with pytest.raises(InvalidInputError, match=r"from 0 to 2.*Got values from"):
        train(dense(), lambda epoch: [(torch.zeros(2, 3, SIZE, SIZE), torch.tensor(labels))], PLAIN)


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_restores_the_last_good_epoch() -> None:
    kept: list[dict[str, torch.Tensor]] = []
    model = dense()

    def loader(epoch: int) -> Batches:
        data = batches()
        if epoch == 2:
            data[3][0][0, 0, 0, 0] = float("nan")
        return data

    with pytest.raises(
        TrainingError, match=r"loss became nan in epoch 2, step 4 of 6. Lower the 'learning_rate'.*last good epoch"
    ) as caught:
        train(model, loader, PLAIN, on_epoch=lambda history, trained: kept.append(state(trained)))
    assert isinstance(caught.value, QPMError)
    assert len(kept) == 1
    assert same(state(model), kept[0])
    assert not model.training


def test_diverging_in_the_first_epoch_restores_what_it_came_with() -> None:
    model = dense()
    before = state(model)
    with pytest.raises(TrainingError, match=r"epoch 1"):
        train(model, lambda epoch: batches(), replace(PLAIN, learning_rate=1e30, schedule="step"))
    assert same(state(model), before)


def test_weights_that_break_in_the_last_step_are_not_taken_for_good_ones() -> None:
    model = dense()
    before = state(model)

    def loader(epoch: int) -> Batches:
        return batches()[:1]  # the only loss is finite; the step behind it is not

    with pytest.raises(TrainingError, match=r"'.*' became infinite or NaN in the last steps of epoch 1"):
        train(model, loader, replace(PLAIN, learning_rate=3e38, weight_decay=1e3, schedule="step"))
    assert same(state(model), before)


def test_ctrl_c_ends_it_between_batches() -> None:
    model = dense()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    def interrupt(done: int, total: int, text: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, lambda epoch: batches(), PLAIN, progress=interrupt)
    assert not model.training
    assert torch.equal(torch.rand(2), expected)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert len(train(model, lambda epoch: batches(), PLAIN)) == 2


# -- accuracy ------------------------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_right_answers_and_keeps_the_mode() -> None:
    model = dense().train()
    model.backbone.module[1].eval()
    data = batches(size=5)
    share = accuracy(model, data)
    assert (model.training, model.backbone.module[1].training) == (True, False)
    model.eval()
    right = [
        int(model(image[None]).logits.argmax() == label) for part in data for image, label in zip(*part, strict=True)
    ]
    assert share == sum(right) / 48
    with pytest.raises(InvalidInputError, match="at least one image"):
        accuracy(model, [])


# -- settings ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 0.9), st.lists(st.floats(0, 0.999), min_size=2, max_size=6))
def test_one_cycle_rises_then_falls(warm_up: float, shares: list[float]) -> None:
    factor = SCHEDULES["one-cycle"]
    cycle = replace(PLAIN, warm_up=warm_up)
    for early, late in zip(sorted(shares), sorted(shares)[1:], strict=False):
        if late < warm_up:
            assert factor(cycle, early) <= factor(cycle, late) + 1e-12
        elif early >= warm_up:
            assert factor(cycle, early) >= factor(cycle, late) - 1e-12
    assert all(0 < factor(cycle, share) <= 1 for share in shares)
    assert factor(cycle, warm_up) == pytest.approx(1)
    assert factor(cycle, 1.0) == pytest.approx(0)
    assert factor(replace(PLAIN, warm_up=0.5), 0.0) == pytest.approx(1 / 25)


@pytest.mark.parametrize("every", [30, 10])
@pytest.mark.parametrize("steps", [1, 7, 375])
def test_step_multiplies_every_so_many_epochs(every: int, steps: int) -> None:
    long = replace(PLAIN, epochs=100, schedule="step", step_epochs=every, step_factor=0.4)
    for epoch in range(long.epochs):
        for done in (0, steps - 1):
            factor = SCHEDULES["step"](long, (epoch + done / steps) / long.epochs)
            assert factor == pytest.approx(0.4 ** (epoch // every))


def test_the_learning_rate_follows_the_schedule() -> None:
    every = replace(PLAIN, epochs=5, schedule="step", step_epochs=2, step_factor=0.1, learning_rate=0.01)
    rates = [row["learning_rate"] for row in train(dense(), lambda epoch: batches(4), every)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4])
    cycle = [row["learning_rate"] for row in train(dense(), lambda epoch: batches(), replace(PLAIN, epochs=4))]
    assert max(cycle) <= 0.05
    assert cycle[-1] == min(cycle) < 0.01


def test_settings_survive_json_and_cannot_be_changed() -> None:
    assert TrainingSettings(**json.loads(json.dumps(asdict(PLAIN)))) == PLAIN
    with pytest.raises(FrozenInstanceError):
        PLAIN.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, r"'epochs'.*at least 0. Got -1"),
        ({"epochs": 2.0}, r"'epochs'.*integer"),
        ({"batch_size": 1}, r"'batch_size'.*at least 2. Got 1"),
        ({"step_epochs": 0}, r"'step_epochs'"),
        ({"learning_rate": 0}, r"'learning_rate'.*above 0. Got 0"),
        ({"learning_rate": float("inf")}, r"'learning_rate'"),
        ({"learning_rate": None}, r"'learning_rate'"),
        ({"head_learning_rate": -1}, r"'head_learning_rate'.*above 0. Got -1"),
        ({"gradient_norm": 0}, r"'gradient_norm'.*above 0"),
        ({"step_factor": 0}, r"'step_factor'"),
        ({"momentum": 1.0}, r"'momentum'.*below 1. Got 1\.0"),
        ({"warm_up": 1.0}, r"'warm_up'.*below 1"),
        ({"weight_decay": -1e-4}, r"'weight_decay'.*not negative"),
        ({"beta": float("nan")}, r"'beta'.*not negative"),
        ({"schedule": "onecycle"}, r"'schedule'.*Got 'onecycle'. Did you mean 'one-cycle'"),
        ({"augmentation": "papr"}, r"'augmentation'.*Got 'papr'. Did you mean 'paper'"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        replace(PLAIN, **changes)


# -- the real thing, briefly ---------------------------------------------------------------------------------------


def test_lite0_fits_digits() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    few = ArrayImages((digits.images[:128] * 15.9).astype(np.uint8), digits.target[:128], tuple("0123456789"))
    torch.manual_seed(0)
    backbone = build_backbone("efficientnet-lite0")
    backbone.preprocessing = replace(backbone.preprocessing, size=64)
    history = train(DenseClassifier(backbone, 10), few, replace(SMALL_DENSE, least_steps=64, batch_size=16))
    assert history[-1]["accuracy"] > max(0.7, 2 * history[0]["accuracy"])
