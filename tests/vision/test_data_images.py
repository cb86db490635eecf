from __future__ import annotations

import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qpm_opt import QPMError
from qpm_vision.data import UnreadableImageError, images, read_image

if TYPE_CHECKING:
    from pathlib import Path

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., np.newaxis], 3, axis=2)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"grey.{ending}"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    np.testing.assert_array_equal(pixels(path), grey(RAMP))


def test_32_bit_integers_of_a_png_range_and_beyond(tmp_path: Path) -> None:
    for factor in (1, 257):
        Image.fromarray(RAMP.astype(np.int32) * factor).save(tmp_path / "a.tif")
        np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), grey(RAMP))
    Image.fromarray(RAMP.astype(np.int32) * 1000 - 7).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), grey(RAMP))


@pytest.mark.parametrize("factor", [1 / 255, 1.0, 257.0, -1.0, 1e30])
def test_floats_are_scaled_from_a_fitting_range(tmp_path: Path, factor: float) -> None:
    Image.fromarray((RAMP * factor).astype(np.float32)).save(tmp_path / "a.tif")
    expected = 255 - RAMP if factor < 0 else RAMP
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), grey(expected))


def test_floats_that_are_no_numbers(tmp_path: Path) -> None:
    values = RAMP / 255
    values[0, 1], values[1, 0], values[1, 1] = np.nan, np.inf, -np.inf
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a.tif")
    found = pixels(tmp_path / "a.tif")
    assert found[8, 8, 0] == pytest.approx(RAMP[8, 8], abs=1)
    assert [found[0, 1, 0], found[1, 0, 0], found[1, 1, 0]] == [0, 255, 0]
    Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(UnreadableImageError, match="finite"):
        read_image(tmp_path / "b.tif")


def test_constant_images_of_wide_types(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), -5, dtype=np.int32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_transparent_places_become_white(tmp_path: Path, mode: str, ending: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    path = tmp_path / f"a.{ending}"
    image.convert(mode).save(path)
    found = pixels(path)
    np.testing.assert_array_equal(found[0, 0], 0)
    np.testing.assert_array_equal(found[0, 1], 255)


def test_half_transparent_is_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (0, 100, 200, 128)).save(tmp_path / "a.png")
    np.testing.assert_allclose(pixels(tmp_path / "a.png")[0, 0], [127, 177, 227], atol=1)


def test_palettes(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    np.testing.assert_array_equal(pixels(tmp_path / "plain.png"), [[[255, 0, 0], [0, 255, 0]]])
    image.save(tmp_path / "one.png", transparency=0)
    np.testing.assert_array_equal(pixels(tmp_path / "one.png"), [[[255, 255, 255], [0, 255, 0]]])
    image.save(tmp_path / "some.png", transparency=b"\xff\x00")
    np.testing.assert_array_equal(pixels(tmp_path / "some.png"), [[[255, 0, 0], [255, 255, 255]]])
    image.save(tmp_path / "one.gif", transparency=0)
    np.testing.assert_array_equal(pixels(tmp_path / "one.gif"), [[[255, 255, 255], [0, 255, 0]]])


def test_key_colours(tmp_path: Path) -> None:
    for mode, key, other in (("L", 7, 9), ("RGB", (7, 7, 7), (9, 9, 9)), ("1", 0, 1)):
        image = Image.new(mode, (2, 1), key)
        image.putpixel((1, 0), other)
        image.save(tmp_path / "a.png", transparency=key)
        found = pixels(tmp_path / "a.png")
        np.testing.assert_array_equal(found[0, 0], 255)
        np.testing.assert_array_equal(found[0, 1], 255 if mode == "1" else 9)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_16_bit_png_with_a_key(tmp_path: Path) -> None:
    for colour_type, samples, key in ((0, [[300], [60000]], [300]), (2, [[300, 1, 2], [60000] * 3], [300, 1, 2])):
        row = b"\0" + b"".join(struct.pack(f">{len(sample)}H", *sample) for sample in samples)
        content = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, colour_type, 0, 0, 0))
            + chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
            + chunk(b"IDAT", zlib.compress(row))
            + chunk(b"IEND", b"")
        )
        (tmp_path / "a.png").write_bytes(content)
        found = pixels(tmp_path / "a.png")
        np.testing.assert_array_equal(found[0, 0], 255)
        np.testing.assert_allclose(found[0, 1], 60000 / 257, atol=1.5)


def test_other_kinds(tmp_path: Path) -> None:
    Image.new("CMYK", (3, 2), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(pixels(tmp_path / "a.jpg")[0, 0], [255, 0, 0], atol=3)
    Image.new("1", (3, 2), 1).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), 255)
    Image.new("L", (1, 1), 77).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(pixels(tmp_path / "a.bmp"), [[[77, 77, 77]]])


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_frames(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if ending == "webp" else {}
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(pixels(tmp_path / f"a.{ending}")[4, 4], [255, 0, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (16, 8), "white")
    upright.paste("black", (0, 0, 8, 4))
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (upright if stored is None else upright.transpose(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(upright))


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(stream, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff garbage")
    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    assert read_image(tmp_path / "a.jpg").size == (4, 4)


def test_nothing_else_comes_along(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif, comment=b"hello")
    image = read_image(tmp_path / "a.jpg")
    assert image.info == {}
    assert type(image) is Image.Image
    assert image.getexif().get(0x0112) is None


def test_a_large_jpeg_can_be_decoded_smaller(tmp_path: Path) -> None:
    Image.new("RGB", (800, 400)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").size == (800, 400)
    assert read_image(tmp_path / "a.jpg", at_least=100).size == (200, 100)


def truncated(path: Path) -> None:
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "JPEG")
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])


def bomb(path: Path) -> None:
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0))
    path.write_bytes(content + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_text("I am a poem"), "not in an image format"),
        (truncated, "truncated"),
        (bomb, "pixels"),
        (os.mkfifo, "pipe"),
        (lambda path: path.symlink_to(path), "damaged"),
        (lambda path: path.symlink_to("nowhere.png"), "does not exist"),
    ],
)
def test_unreadable_files_say_why(tmp_path: Path, make, reason: str) -> None:
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read_image(path)
    assert isinstance(caught.value, QPMError)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(path) in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.path, again.reason, str(again)) == (path, caught.value.reason, str(caught.value))


def test_the_limit_holds_where_pillow_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    Image.new("L", (10, 10)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="10×10 pixels"):
        read_image(tmp_path / "a.png")
    Image.new("L", (33, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").size == (33, 3)


def test_a_path_that_cannot_be() -> None:
    with pytest.raises(UnreadableImageError, match="null"):
        read_image("a\0.png")


def _encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    (image.convert("P") if kind == "GIF" else image).save(stream, kind, **({"exif": exif} if kind != "GIF" else {}))
    return stream.getvalue()


ENCODED = {kind: _encoded(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF")}


@given(
    kind=st.sampled_from(sorted(ENCODED)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    length=st.floats(0, 1),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_give_a_picture_or_the_one_error(
    tmp_path: Path, kind: str, changes: list[tuple[float, int]], length: float
) -> None:
    content = bytearray(ENCODED[kind])
    for place, value in changes:
        content[int(place * len(content))] = value
    path = tmp_path / "a.png"
    path.write_bytes(content[: round(length * len(content))])
    try:
        assert read_image(path).mode == "RGB"
    except UnreadableImageError as error:
        assert error.reason  # noqa: PT017 - either outcome is right


def test_pillow_warnings_stay_inside_also_with_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # Pillow warns from here to twice as many
    Image.new("L", (10, 10)).save(tmp_path / "a.png")
    before = list(warnings.filters)
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(30):
                read_image(tmp_path / "a.png")
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == before
    with pytest.raises(Image.DecompressionBombWarning):
        Image.open(tmp_path / "a.png")
