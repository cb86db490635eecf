"""Runs and models do the same whatever the caller's program set for all of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qpm_vision import load_model
from qpm_vision.explain import load_explainer
from qpm_vision.pipeline import run
from qpm_vision.run_folder import RunFolder
from tests.vision.conftest import Reported
from tests.vision.tiny import tiny_config, tiny_data


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def automatic() -> Any:
    return torch.autocast("cpu", torch.bfloat16)


STATES: dict[str, tuple[Callable[[], AbstractContextManager[Any]], ...]] = {
    "no gradients, double precision": (torch.no_grad, double, deterministic),
    "inference, meta device, autocast": (torch.inference_mode, lambda: torch.device("meta"), automatic),
}


@contextmanager
def within(state: str) -> Iterator[None]:
    with ExitStack() as stack:
        for enter in STATES[state]:
            stack.enter_context(enter())
        before = _state()
        yield
        assert _state() == before


def _state() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.fixture(scope="module")
def plain(tiny_registered: None, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return _trained(tmp_path_factory.mktemp("plain") / "run")


def _trained(folder: Path) -> RunFolder:
    config = tiny_config()
    config = replace(config, dense=replace(config.dense, epochs=1), fine_tuning=replace(config.fine_tuning, epochs=1))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("qpm_vision.pipeline.save_picture", lambda *_: None)
        return run(config, folder, data=tiny_data())


@pytest.mark.parametrize("state", STATES)
def test_a_run_is_the_same_bit_by_bit(plain: RunFolder, tmp_path: Path, state: str) -> None:
    with within(state):
        folder = _trained(tmp_path / "run")
    for name in ("dense.safetensors", "qpm.safetensors", "statistics.npz"):
        assert folder.digest(name) == plain.digest(name), name


@pytest.mark.parametrize("state", STATES)
def test_a_model_says_the_same(reported: Reported, state: str) -> None:
    image = reported.data.test.image(0)
    usual = load_model(reported.folder, device="cpu")
    expected = usual.explain(image)
    with within(state):
        model = load_model(reported.folder, device="cpu")
        for predictor in (usual, model):
            found = predictor.explain(image)
            assert found.logits.tolist() == expected.logits.tolist()
            assert predictor.predict(image)[0].logits.tolist() == expected.logits.tolist()
            assert found.heat_maps.tolist() == expected.heat_maps.tolist()
        explainer = load_explainer(reported.folder, data=reported.data)
        assert explainer.view(0).presence.any()
    # What was loaded there can be trained elsewhere.
    assert not any(parameter.is_inference() for parameter in model.model.parameters())
