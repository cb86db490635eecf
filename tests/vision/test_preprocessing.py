"""From picture to tensor: against torchvision, round trips, augmentations, refusals."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision import _torchvision
from qpm_vision.backbones import IMAGENET
from qpm_vision.preprocessing import AUGMENTATIONS, Preprocessing

HALF = (0.5, 0.5, 0.5)


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


# -- resizing and normalising --------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.integers(6, 60),
    st.integers(6, 60),
    st.integers(4, 24),
    st.sampled_from([1.0, 0.875, 0.6]),
    st.sampled_from(["bilinear", "bicubic", "lanczos", "nearest"]),
)
def test_it_is_what_torchvision_does(width: int, height: int, size: int, crop: float, interpolation: str) -> None:
    from torchvision.transforms import v2

    ours = Preprocessing(size, HALF, (0.2, 0.3, 0.4), interpolation, crop).transform()(picture(width, height))
    modes = {
        "bilinear": v2.InterpolationMode.BILINEAR,
        "bicubic": v2.InterpolationMode.BICUBIC,
        "lanczos": v2.InterpolationMode.LANCZOS,
        "nearest": v2.InterpolationMode.NEAREST,
    }
    theirs = v2.Compose(
        [
            v2.Resize(round(size / crop), modes[interpolation]),
            v2.CenterCrop(size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(HALF, (0.2, 0.3, 0.4)),
        ]
    )(picture(width, height))
    assert ours.shape == (3, size, size)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, torch.as_tensor(theirs), atol=1e-5, rtol=0)


def test_a_square_of_the_right_size_keeps_every_pixel() -> None:
    image = picture(16, 16)
    made = Preprocessing(16, (127 / 255,) * 3, (128 / 255,) * 3).transform()(image)
    expected = (np.asarray(image).transpose(2, 0, 1).astype(np.float32) - 127) / 128
    np.testing.assert_array_equal(made.numpy(), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(mode: str) -> None:
    made = Preprocessing(8, HALF, HALF).transform()(picture(8, 8).convert(mode))
    assert made.shape == (3, 8, 8)
    assert made.isfinite().all()


def test_the_picture_is_not_changed() -> None:
    image = picture(16, 16)
    before = image.tobytes()
    for name in AUGMENTATIONS:
        Preprocessing(16, HALF, HALF).transform(name)(image)
    assert image.tobytes() == before


# -- augmentations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_transforms_can_be_pickled_and_follow_the_global_generator(name: str) -> None:
    transform = Preprocessing(32, HALF, HALF).transform(name)
    twin = pickle.loads(pickle.dumps(transform))
    results = []
    for one in (transform, twin, transform):
        torch.manual_seed(3)
        results.append(torch.stack([one(picture(32, 32)) for _ in range(5)]))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert results[0].shape == (5, 3, 32, 32)
    varies = not torch.equal(results[0][0], results[0][1]) or not torch.equal(results[0][1], results[0][2])
    assert varies == (name != "none")


def test_shift_moves_the_picture_and_repeats_its_border() -> None:
    size, reach = 32, 2
    image = picture(size, size)
    pixels = np.asarray(image)
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    windows = {
        padded[top : top + size, left : left + size].tobytes(): (top - reach, left - reach)
        for top in range(2 * reach + 1)
        for left in range(2 * reach + 1)
    }
    assert len(windows) == 25
    torch.manual_seed(0)
    shift = AUGMENTATIONS["shift"](size)
    assert shift is not None
    seen = {windows[np.asarray(shift(image)).tobytes()] for _ in range(400)}
    assert seen == set(windows.values())


def test_paper_flips_and_moves() -> None:
    # A flip of the left half's mark and the black padding are both seen among a few draws.
    size = 32
    pixels = np.full((size, size, 3), 128, dtype=np.uint8)
    pixels[8:24, 2:10] = 255
    paper = AUGMENTATIONS["paper"](size)
    assert paper is not None
    torch.manual_seed(0)
    made = np.stack([np.asarray(paper(Image.fromarray(pixels))).astype(int) for _ in range(40)])
    left, right = made[:, 8:24, :16].mean((1, 2, 3)), made[:, 8:24, 16:].mean((1, 2, 3))
    assert (left > right + 10).any()
    assert (right > left + 10).any()
    assert (made[:, 0].max((1, 2)) == 0).any() or (made[:, -1].max((1, 2)) == 0).any()


def test_others_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "black", lambda size: lambda image: Image.new("RGB", (size, size)))
    made = Preprocessing(4, (0.0,) * 3, HALF).transform("black")(picture())
    assert made.abs().max() == 0


# -- values --------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 500),
    st.tuples(*[st.floats(-2, 2)] * 3),
    st.tuples(*[st.floats(1e-3, 5)] * 3),
    st.sampled_from(["bilinear", "bicubic"]),
    st.floats(0.1, 1.0),
)
def test_json_round_trip(size: int, mean: Any, std: Any, interpolation: str, crop: float) -> None:
    made = Preprocessing(size, mean, std, interpolation, crop)
    again = Preprocessing.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert hash(again) == hash(made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, r"'size'.*at least 1.*Got 0"),
        ({"size": 64.0}, r"'size'.*integer.*Got 64\.0"),
        ({"size": True}, r"'size'.*Got True"),
        ({"mean": (0.5, 0.5)}, r"'mean'.*three finite numbers.*Got \(0\.5, 0\.5\)"),
        ({"mean": 0.5}, r"'mean'.*three finite numbers.*Got 0\.5"),
        ({"std": (0.5, 0.5, float("nan"))}, r"'std'.*three finite"),
        ({"std": (0.5, 0.0, 0.5)}, r"'std'.*above 0"),
        ({"crop": 1.2}, r"'crop'.*at most 1.*Got 1\.2"),
        ({"crop": 0}, r"'crop'.*above 0.*Got 0"),
        ({"interpolation": "bicubik"}, r"'interpolation'.*Got 'bicubik'. Did you mean 'bicubic'"),
        ({"sise": 3}, r"Got 'sise'. Did you mean 'size'"),
    ],
)
def test_wrong_values_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Preprocessing.from_dict({"size": 8, "mean": HALF, "std": HALF, **changes})


def test_missing_keys_and_unknown_augmentations() -> None:
    with pytest.raises(InvalidInputError, match=r"Missing: \['std'\]"):
        Preprocessing.from_dict({"size": 8, "mean": HALF})
    with pytest.raises(InvalidInputError, match=r"'augmentation'.*Got 'shfit'. Did you mean 'shift'"):
        IMAGENET.transform("shfit")


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        IMAGENET.size = 3  # type: ignore[misc]


# -- torchvision beside a PyTorch without CUDA ---------------------------------------------------------------------


def in_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_works_after_the_repair_also_where_it_was_tried_before() -> None:
    out = in_new_process(
        "try:\n    import torchvision\nexcept RuntimeError as error:\n    print(error)\n"
        "import qpm_vision._torchvision\n"
        "from torchvision.transforms import v2\nimport torchvision, torch\n"
        "print(tuple(torchvision.models.resnet18()(torch.zeros(1, 3, 64, 64)).shape))\n"
        "print(v2.CenterCrop(4)(torch.zeros(3, 8, 8)).shape[-1])\n"
    )
    assert out.splitlines()[-2:] == ["(1, 1000)", "4"]


def test_a_transform_is_unpickled_where_nothing_was_imported_yet() -> None:
    stream = io.BytesIO()
    pickle.dump(Preprocessing(16, HALF, HALF).transform("paper"), stream)
    out = in_new_process(
        f"import pickle\nfrom PIL import Image\ntransform = pickle.loads({stream.getvalue()!r})\n"
        "print(tuple(transform(Image.new('RGB', (20, 20))).shape))\n"
    )
    assert out.strip() == "(3, 16, 16)"


def test_other_failures_of_torchvision_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise RuntimeError("something else is wrong")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        _torchvision._repair()


def test_without_torchvision_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert _torchvision._repair() is None


def test_where_torchvision_imports_nothing_is_declared() -> None:
    # By now it is imported, so the plain import succeeds.
    assert _torchvision._repair() is None
