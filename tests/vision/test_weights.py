"""Weights as training programs leave them: the part that fits is found, what is in the file is told, none is NaN."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qpm_vision.backbones import BackboneWeightsError, load_head
from qpm_vision.backbones.weights import load_weights

State = dict[str, Tensor]


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))


def _named(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _optimizer() -> dict[str, Any]:
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.zeros(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


LAYOUTS: dict[str, Callable[[State, State], Any]] = {
    # What a file holds, of the right weights and of others
    "PyTorch's ImageNet example": lambda right, _: {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": _named(right, "module.") | {"module.fc.weight": torch.zeros(2, 5)},
        "best_acc1": torch.tensor(76.1),
        "optimizer": _optimizer(),
    },
    "a tensor beside the model": lambda right, _: {"model": right, "n": torch.tensor(2)},
    "a foreign tensor first": lambda right, _: {"0.weight": torch.zeros(1), "weights": right},
    "an average": lambda right, other: {"model": other, "model_ema": right},
    "timm": lambda right, other: {"state_dict": other, "state_dict_ema": _named(right, "module.")},
    "DINO": lambda right, other: {"student": _named(other, "module.backbone."), "teacher": _named(right, "backbone.")},
    "two networks": lambda right, _: {"generator": {"0.weight": torch.zeros(5, 3, 3, 3)}, "encoder": right},
    "the first of equals": lambda right, other: {"net": right, "other": other},
    "Lightning": lambda right, _: {"state_dict": _named(right, "model."), "hyper_parameters": {"lr": 0.1}, "loops": {}},
    "compiled": lambda right, _: {"model": _named(right, "_orig_mod.")},
    "sharded inside": lambda right, _: {
        name.replace(".", "._fsdp_wrapped_module._orig_mod.", 1): tensor for name, tensor in right.items()
    },
    "two deep": lambda right, _: {"checkpoint": {"nets": {"backbone": right}}},
    "each module a dictionary": lambda right, _: {
        number: {name[2:]: tensor for name, tensor in right.items() if name[0] == number} for number in "01"
    },
    "a list": lambda right, _: [{"epoch": 1}, right],
    "pairs": lambda right, _: list(right.items()),
    "half precision": lambda right, _: {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in right.items()
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_part_of_a_file_that_fits_is_taken(layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right, other = _net().state_dict(), _net().state_dict()
    content = LAYOUTS[layout](right, other)
    torch.save(content, tmp_path / "w.pth")
    network = _net()
    with caplog.at_level("INFO"):
        load_weights(network, tmp_path / "w.pth")
    for name, tensor in right.items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
    assert "7 tensors taken" in caplog.text
    if isinstance(content, dict):
        assert all(repr(name) in caplog.text for name in list(content)[:3])


def test_a_network_with_a_prefix_of_its_own_takes_weights_with_another(tmp_path: Path) -> None:
    right = _net().state_dict()
    network = nn.ModuleDict({"network": _net()})
    torch.save({"state_dict": _named(right, "module.encoder."), "n": torch.ones(())}, tmp_path / "w.pth")
    load_weights(network, tmp_path)
    assert torch.equal(network.state_dict()["network.0.weight"], right["0.weight"])


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda state: {"model": {"conv.weight": torch.ones(2)}, "epoch": 1}, r"'model' \(1 tensor\), 'epoch'.*0 have"),
        (
            lambda state: {"model": {k: v for k, v in state.items() if k != "0.bias"}, "n": torch.ones(())},
            r"'model' \(6 tensors\), the tensor 'n'. Under 'model.', 5 have.*missing '0.bias'",
        ),
        (lambda state: {**state, "0.bias": torch.ones(5).to_sparse()}, r"'0\.bias' is not stored number by number"),
        (lambda state: {**state, "0.bias": torch.ones(5).to(torch.int8)}, r"'0\.bias' is torch\.int8 instead of"),
        (
            lambda state: {**state, "0.bias": torch.full((5,), torch.nan)},
            r"finite. Got 5 NaN.*of 5 values in '0\.bias'",
        ),
        (lambda state: {**state, "1.running_var": torch.full((5,), torch.inf)}, r"finite.*'1\.running_var'; fetch"),
        (lambda state: torch.ones(3), r"must hold tensors by name.*Got a tensor \(3,\)"),
        (
            lambda state: {"model": state, "args": argparse.Namespace(lr=1)},
            r"objects, argparse\.Namespace.*If you trust",
        ),
        (lambda state: nn.Linear(2, 2), r"objects, torch\.nn\.modules\.linear\.Linear.*c\.state_dict\(\)"),
    ],
)
def test_what_does_not_fit_is_told_with_what_the_file_holds(spoil: Any, match: str, tmp_path: Path) -> None:
    torch.save(spoil(_net().state_dict()), tmp_path / "w.pth")
    network = _net()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(BackboneWeightsError, match=match):
        load_weights(network, tmp_path)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_programs_are_refused_with_a_cure(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "w.pt"))  # type: ignore[no-untyped-call]
    with pytest.raises(BackboneWeightsError, match=r"TorchScript program.*torch\.jit\.load"):
        load_weights(_net(), tmp_path)


def test_a_container_that_holds_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": _net().state_dict()}
    content["again"] = content
    wide: list[Any] = [torch.zeros(1)]
    for _ in range(30):
        wide = [wide] * 10
    torch.save(content | {"wide": wide}, tmp_path / "w.pth")
    load_weights(_net(), tmp_path)


def test_the_classifier_is_that_of_the_part_with_the_weights(tmp_path: Path) -> None:
    averaged, last = torch.ones(2, 5), torch.zeros(2, 5)
    file = tmp_path / "w.pth"
    torch.save({"model": {"fc.weight": last}, "model_ema": {"fc.weight": averaged}, "n": torch.ones(())}, file)
    head = nn.Linear(5, 2)
    load_head(head, "resnet18", file)
    assert torch.equal(head.weight, averaged)
    torch.save({"model": {"fc.weight": last, "fc2.weight": averaged}}, file)
    with pytest.raises(BackboneWeightsError, match=r"one classifier.*model\.fc\.weight; model\.fc2\.weight"):
        load_head(head, "resnet18", file)
    torch.save({"fc.weight": torch.full((2, 5), torch.nan)}, file)
    with pytest.raises(BackboneWeightsError, match=r"must be finite. Got 10 NaN"):
        load_head(head, "resnet18", file)
