"""Tables of where parts are, and where they lie in what a model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qpm_opt import InvalidInputError
from qpm_vision.data import load_image_folder
from qpm_vision.data.parts import read_parts
from qpm_vision.preprocessing import Preprocessing

ATTRIBUTES = "class,head,tail\nhen,red,long\nowl,grey,short\n"
BOXES = "image,part,left,upper,right,lower\nhen/0.png,head,1,2,3,4.5\nhen/0.png,tail,0,0,2,2\nowl/1.png,head,0,0,6,4\n"


def folder(place: Path, attributes: str = ATTRIBUTES, boxes: str = BOXES) -> Path:
    for name in ("hen", "owl"):
        (place / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (6, 5), (number, 0, 0)).save(place / name / f"{number}.png")
    (place / "attributes.csv").write_text(attributes, encoding="utf-8")
    (place / "boxes.csv").write_text(boxes, encoding="utf-8")
    return place


def test_parts_are_read_beside_the_images(tmp_path: Path) -> None:
    data = load_image_folder(folder(tmp_path / "birds"))
    assert data.parts is not None
    assert data.parts.values == {"head": ("red", "grey"), "tail": ("long", "short")}
    assert data.parts.boxes["hen/0.png"] == {"head": (1, 2, 3, 4.5), "tail": (0, 0, 2, 2)}
    assert set(data.parts.boxes) == {"hen/0.png", "owl/1.png"}
    (tmp_path / "birds" / "attributes.csv").unlink()
    assert load_image_folder(tmp_path / "birds").parts is None


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("image,part,left,upper,right\n", "columns"),
        (BOXES + "owl/2.png,wing,0,0,1,1\n", "others: 'wing'"),
        (BOXES + "hen/0.png,head,0,0,1,1\n", "second one for 'head'"),
        (BOXES + "owl/2.png,head,3,0,1,1\n", "left < right.*line 5"),
        (BOXES + "owl/2.png,head,x,0,1,1\n", "numbers.*line 5"),
        (BOXES + "owl/2.png,head,0,0,inf,1\n", "left < right"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, boxes: str, message: str) -> None:
    place = folder(tmp_path / "birds", boxes=boxes)
    with pytest.raises(InvalidInputError, match=message):
        read_parts(place / "boxes.csv", place / "attributes.csv", ("hen", "owl"))


@settings(max_examples=30, deadline=None)
@given(st.integers(24, 60), st.integers(24, 60), st.sampled_from([1.0, 0.8]), st.integers(0, 10_000))
def test_a_box_is_found_again_in_the_input(width: int, height: int, crop: float, seed: int) -> None:
    """Painted white, a box is white in the input where it is said to be."""
    rng = np.random.default_rng(seed)
    left, upper = int(rng.integers(0, width - 12)), int(rng.integers(0, height - 12))
    right, lower = left + int(rng.integers(8, 13)), upper + int(rng.integers(8, 13))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[upper:lower, left:right] = 255
    settings_ = Preprocessing(48, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop=crop)
    seen = settings_.transform()(Image.fromarray(pixels))[0].numpy() > 0.5
    box = settings_.visible((left, upper, right, lower), (width, height))
    edges = np.rint(np.array(box) * 48).astype(int)
    expected = np.zeros((48, 48), dtype=bool)
    expected[edges[1] : edges[3], edges[0] : edges[2]] = True
    assert (seen != expected).sum() <= 2 * (seen.sum() ** 0.5 + 3) * 2
    assert seen[expected].mean() > 0.6 if expected.sum() > 30 else True
