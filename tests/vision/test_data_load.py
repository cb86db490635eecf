from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qpm_opt import InvalidInputError, QPMError
from qpm_vision import data as data_module
from qpm_vision.data import ArrayImages, ImageData, data_names, load_data, register_data
from qpm_vision.data.fashion_mnist import CLASS_NAMES, DEFAULT_FOLDER, DataFileError, load_fashion_mnist

# -- digits --------------------------------------------------------------------------------------------------------


def test_digits() -> None:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    data = load_data("digits", test_share=0.25, seed=2)
    assert data.class_names == tuple("0123456789")
    assert len(data.train) + len(data.test) == 1797
    assert not {data.train.name(i) for i in range(len(data.train))} & {data.test.name(i) for i in range(len(data.test))}
    shares = np.bincount(data.test.labels) / np.bincount(bundle.target)
    np.testing.assert_allclose(shares, 0.25, atol=0.01)
    for position in (0, 17):
        origin = int(data.test.name(position).split()[1])
        image = data.test.image(position)
        assert (image.mode, image.size) == ("RGB", (64, 64))
        small = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX), dtype=float)
        assert np.corrcoef(small.ravel(), bundle.images[origin].ravel())[0, 1] > 0.98
        assert data.test.labels[position] == bundle.target[origin]


def test_digits_follow_the_seed() -> None:
    first, again, other = (load_data("digits", seed=seed).test for seed in (1, 1, 2))
    assert [first.name(i) for i in range(50)] == [again.name(i) for i in range(50)]
    assert [first.name(i) for i in range(50)] != [other.name(i) for i in range(50)]


# -- Fashion-MNIST -------------------------------------------------------------------------------------------------

FILES = {
    "train-images-idx3-ubyte": 0x0803,
    "train-labels-idx1-ubyte": 0x0801,
    "t10k-images-idx3-ubyte": 0x0803,
    "t10k-labels-idx1-ubyte": 0x0801,
}


def idx(magic: int, values: np.ndarray) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.tobytes()


def write_fashion(folder: Path, *, packed: bool = True, dotted: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for name, magic in FILES.items():
        count = 20 if name.startswith("train") else 10
        array = rng.integers(0, 256, (count, 28, 28)) if magic == 0x0803 else np.arange(count) % 10
        arrays[name] = array.astype(np.uint8)
        content = idx(magic, arrays[name])
        path = folder / ((name.replace("-idx", ".idx") if dotted else name) + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(content) if packed else content)
    return arrays


@pytest.mark.parametrize(("packed", "dotted"), [(True, False), (False, False), (False, True)])
def test_fashion_files(tmp_path: Path, packed: bool, dotted: bool) -> None:
    arrays = write_fashion(tmp_path, packed=packed, dotted=dotted)
    data = load_data(f"fashion-mnist:{tmp_path}")
    assert data.class_names == CLASS_NAMES
    for images, start in ((data.train, "train"), (data.test, "t10k")):
        np.testing.assert_array_equal(images.labels, arrays[f"{start}-labels-idx1-ubyte"])
        for position, pixels in enumerate(arrays[f"{start}-images-idx3-ubyte"]):
            np.testing.assert_array_equal(np.asarray(images.image(position))[..., 1], pixels)
    assert data.train.name(3) != data.test.name(3)


def test_missing_fashion_files_are_named(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InvalidInputError, match=r"Missing: t10k-labels-idx1-ubyte \(") as caught:
        load_fashion_mnist(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "dataset-fashion-mnist" in str(caught.value)
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_fashion_mnist(tmp_path / "nowhere")


GOOD = np.zeros((20, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx(0x0801, GOOD), "begin with the bytes 00000803, but begins with 00000801"),
        ("train-images-idx3-ubyte", idx(0x0D03, GOOD), "00000d03"),
        ("train-images-idx3-ubyte", b"", "ends inside its header, after 0 bytes"),
        ("train-images-idx3-ubyte", idx(0x0803, GOOD)[:9], "after 9 bytes"),
        ("train-images-idx3-ubyte", idx(0x0803, GOOD)[:-1], "only 15,679 of 15,680"),
        ("train-images-idx3-ubyte", idx(0x0803, GOOD) + b"x", "more than 15,680"),
        ("train-images-idx3-ubyte", idx(0x0803, GOOD[:, :27]), "20×27×28"),
        ("train-images-idx3-ubyte", struct.pack(">4I", 0x0803, 2**32 - 1, 28, 28), "4294967295×28×28"),
        ("train-images-idx3-ubyte", idx(0x0803, GOOD[:19]), "19 images and 20 labels"),
        ("t10k-labels-idx1-ubyte", idx(0x0801, np.full(10, 10, dtype=np.uint8)), "0 … 9. Got 10"),
    ],
)
def test_damaged_fashion_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_fashion(tmp_path)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataFileError, match=message) as caught:
        load_fashion_mnist(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "not packed"])
def test_damaged_packing(tmp_path: Path, damage: str) -> None:
    write_fashion(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "flipped":
        content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes({"cut": content[:middle], "flipped": content, "not packed": b"plain"}[damage])
    with pytest.raises(DataFileError, match="train-images"):
        load_fashion_mnist(tmp_path)


@pytest.mark.skipif(not DEFAULT_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_installed_fashion() -> None:
    data = load_data("fashion-mnist")
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.train.image(0).size == (28, 28)


# -- names ---------------------------------------------------------------------------------------------------------


def pet_folder(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (3, 3), number).save(root / name / f"{number}.png")
    return root


def test_folders_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pet_folder(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    for spec in (root, str(root), f"folder:{root}", "pets", "./pets", Path("pets"), "folder:pets"):
        data = load_data(spec)
        assert data.class_names == ("cat", "dog")
        assert data.name == "pets"


def test_share_and_seed_reach_the_folder(tmp_path: Path) -> None:
    root = pet_folder(tmp_path / "pets")
    assert len(load_data(root, test_share=0.5).test) == 4
    assert len(load_data(root, test_share=0.25).test) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("fashion_mnist:/data", "must be"),
        ("", "must be"),
        (3, "Got 3"),
        ("digits:8", "Got 'digits:8'"),
        ("folder:", "must name a folder"),
        ("/nowhere/at/all", "nothing there"),
        ("somewhere/else", "nothing there"),
    ],
)
def test_unknown_data(spec, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_data(spec)


@pytest.mark.parametrize("options", [{"test_share": 0.0}, {"test_share": 1}, {"seed": -1}])
@pytest.mark.parametrize("spec", ["digits", "fashion-mnist", "folder:x"])
def test_wrong_splits(spec: str, options) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        load_data(spec, **options)


def test_registering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "_REGISTRY", dict(data_module._REGISTRY))
    images = ArrayImages(np.zeros((2, 4, 4), dtype=np.uint8), [0, 1], ["a", "b"])
    calls = []

    def load(argument: str, test_share: float, seed: int) -> ImageData:
        calls.append((argument, test_share, seed))
        return ImageData("mine", images, images, ("a", "b"))

    register_data("mine", load)
    assert "mine" in data_names()
    assert load_data("mine:of:old", test_share=0.5, seed=9).name == "mine"
    load_data("mine")
    assert calls == [("of:old", 0.5, 9), ("", 0.25, 0)]
    for name in ("mine", "digits", "", "c", "a:b", "a/b"):
        with pytest.raises(InvalidInputError, match="'name'"):
            register_data(name, load)


def test_public_names_are_sorted_and_there() -> None:
    assert data_module.__all__ == sorted(data_module.__all__)
    assert all(hasattr(data_module, name) for name in data_module.__all__)
    assert issubclass(data_module.UnreadableImageError, QPMError)
