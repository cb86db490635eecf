from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpm_opt import InvalidInputError
from qpm_vision.losses import feature_diversity_loss

DATA = Path(__file__).parents[1] / "data"


def plain_loss(maps: torch.Tensor, logits: torch.Tensor, weight: torch.Tensor, beta: float) -> torch.Tensor:
    """Image by image and pixel by pixel, in the words of the definition."""
    total = torch.zeros((), dtype=maps.dtype)
    for image, scores in zip(maps, logits, strict=True):
        row = weight[scores.argmax()].abs()
        row = row / ((row**2).sum().sqrt() + 1e-5)
        means = torch.stack([m.mean() for m in image])
        share = means / torch.clamp(means.max(), min=1e-6)
        scaled = torch.stack(
            [w * s * torch.exp(m) / torch.exp(m).sum() for w, s, m in zip(row, share, image, strict=True)]
        )
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                total = total + scaled[:, y, x].max()
    return -beta * total / len(maps)


def example(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(4, 5, 3, 2, generator=generator, dtype=dtype)
    return (
        maps.relu(),
        torch.randn(4, 3, generator=generator, dtype=dtype),
        torch.randn(3, 5, generator=generator, dtype=dtype),
    )


def test_reference():
    data = np.load(DATA / "metrics.npz")
    loss = feature_diversity_loss(
        *(torch.from_numpy(data[name]) for name in ("maps", "logits", "linear_weight")), beta=float(data["beta"])
    )
    assert loss.shape == ()
    assert float(loss) == pytest.approx(float(data["feature_diversity_loss"]), abs=1e-6)


@given(st.integers(0, 10_000), st.floats(0.01, 5))
@settings(max_examples=20, deadline=None)
def test_definition_and_its_gradient(seed, beta):
    ours, plain = example(seed), example(seed)
    for maps, _, weight in (ours, plain):
        maps.requires_grad_()
        weight.requires_grad_()
    value, expected = feature_diversity_loss(*ours, beta=beta), plain_loss(*plain, beta=beta)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    value.backward()
    expected.backward()
    for index in (0, 2):
        torch.testing.assert_close(ours[index].grad, plain[index].grad, rtol=1e-8, atol=1e-12)


def test_finite_differences():
    _, logits, weight = example(3)
    maps = torch.rand(4, 5, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, w: feature_diversity_loss(m, logits, w), (maps, weight.requires_grad_()))


def test_signs_of_weights_do_not_count_and_beta_scales():
    maps, logits, weight = example(1)
    loss = feature_diversity_loss(maps, logits, weight)
    torch.testing.assert_close(feature_diversity_loss(maps, logits, -weight), loss)
    torch.testing.assert_close(feature_diversity_loss(maps, logits, weight, beta=0.392), 2 * loss)
    assert -0.196 * 5**0.5 <= float(loss) <= 0.0


def test_different_places_are_rewarded():
    apart, together = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    apart[0, 0, 0, 0] = apart[0, 1, 3, 3] = 20.0
    together[0, :, 0, 0] = 20.0
    logits, weight = torch.ones(1, 1), torch.ones(1, 2)
    assert float(feature_diversity_loss(apart, logits, weight)) < float(
        feature_diversity_loss(together, logits, weight)
    )


def test_float32_under_autocast_and_for_short_floats():
    maps, logits, weight = example(2, torch.float32)
    exact = feature_diversity_loss(maps, logits, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = feature_diversity_loss(maps, logits, weight)
    torch.testing.assert_close(inside, exact, rtol=0, atol=0)
    short = feature_diversity_loss(maps.bfloat16().requires_grad_(), logits.bfloat16(), weight)
    assert short.dtype == torch.float32
    assert float(short.detach()) == pytest.approx(float(exact), abs=5e-3)


def test_no_activation_at_all_has_a_finite_gradient():
    maps = torch.zeros(2, 3, 4, 4, requires_grad=True)
    weight = torch.zeros(2, 3, requires_grad=True)
    feature_diversity_loss(maps, torch.zeros(2, 2), weight).backward()
    assert torch.isfinite(maps.grad).all()
    assert torch.isfinite(weight.grad).all()


def test_keeps_one_tensor_of_the_size_of_the_maps():
    maps, logits, weight = torch.rand(8, 16, 14, 14, requires_grad=True), torch.rand(8, 3), torch.rand(3, 16)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        feature_diversity_loss(maps, logits, weight)
    kept.pop(maps.untyped_storage().data_ptr(), None)
    assert sum(kept.values()) < 1.5 * maps.untyped_storage().nbytes()


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3, 4), (2, 5), (5, 3)),
        ((2, 3, 4, 4), (3, 5), (5, 3)),
        ((2, 3, 4, 4), (2, 5), (5, 4)),
        ((2, 3, 4, 4), (2, 5), (6, 3)),
        ((0, 3, 4, 4), (0, 5), (5, 3)),
    ],
)
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(InvalidInputError, match="'maps', 'logits' and 'weight'"):
        feature_diversity_loss(*(torch.zeros(shape) for shape in shapes))
