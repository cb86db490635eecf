"""Small data sets in the forms in which the large ones are published, with drawn pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SPECIES = ("Black_footed_Albatross", "Laysan_Albatross", "Chuck_will_Widow", "Cardinal", "Boat_tailed_Grackle")


def draw(path: Path, label: int, rng: np.random.Generator, size: tuple[int, int] = (48, 40)) -> tuple[int, ...]:
    """A JPEG with a rectangle on noise, its colours those of a class; returns left, top, width and height of it."""
    width, height = size
    pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
    w, h = (int(rng.integers(side // 2, 3 * side // 4)) for side in size)
    left, top = int(rng.integers(1, width - w)), int(rng.integers(1, height - h))
    colours = np.random.default_rng([label, 7]).integers(80, 256, (2, 2, 3))
    for row in range(2):
        for column in range(2):
            pixels[
                top + row * h // 2 : top + (row + 1) * h // 2, left + column * w // 2 : left + (column + 1) * w // 2
            ] = colours[row, column]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return left, top, w, h


def read_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def lines(path: Path, rows: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


# -- CUB-200-2011 --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CubTree:
    """What was written: the folder with `images.txt`, one entry per image, and (n_classes, n_attributes) numbers."""

    root: Path
    files: list[str]
    labels: np.ndarray
    in_train: np.ndarray
    boxes: np.ndarray
    attributes: np.ndarray


def class_folder(label: int) -> str:
    name = SPECIES[label] if label < len(SPECIES) else f"Painted_Bird_{label}"
    return f"{label + 1:03}.{name}"


def write_cub(folder: Path, n_classes: int = 3, per_class: int = 4, *, n_attributes: int = 6, seed: int = 0) -> CubTree:
    """CUB-200-2011 as its archive unpacks: `CUB_200_2011/` and `attributes.txt` beside it.

    Half of the images of each class are for training, and one more where their number is odd.
    """
    rng = np.random.default_rng(seed)
    root = folder / "CUB_200_2011"
    files, labels, in_train, boxes = [], [], [], []
    for label in range(n_classes):
        for number in range(per_class):
            name = f"{class_folder(label)}/{class_folder(label)[4:].title()}_{number:04}_{rng.integers(10**5)}.jpg"
            size = (48 + 2 * number, 40 + number)
            boxes.append(draw(root / "images" / name, label, rng, size))
            files.append(name)
            labels.append(label)
            in_train.append(number % 2 == 0)
    ids = range(1, len(files) + 1)
    lines(root / "images.txt", [f"{i} {file}" for i, file in zip(ids, files, strict=True)])
    lines(root / "image_class_labels.txt", [f"{i} {label + 1}" for i, label in zip(ids, labels, strict=True)])
    lines(root / "train_test_split.txt", [f"{i} {int(train)}" for i, train in zip(ids, in_train, strict=True)])
    lines(root / "classes.txt", [f"{label + 1} {class_folder(label)}" for label in range(n_classes)])
    edges = [" ".join(f"{edge:.1f}" for edge in box) for box in boxes]
    lines(root / "bounding_boxes.txt", [f"{i} {box}" for i, box in zip(ids, edges, strict=True)])
    attributes = np.round(rng.uniform(0, 100, (n_classes, n_attributes)), 6)
    table = root / "attributes" / "class_attribute_labels_continuous.txt"
    lines(table, [" ".join(f"{value:.6f}" for value in row) for row in attributes])
    lines(folder / "attributes.txt", [f"{i + 1} has_bill_shape::kind_{i}" for i in range(n_attributes)])
    return CubTree(root, files, np.array(labels), np.array(in_train), np.array(boxes, dtype=float), attributes)


def write_traveling_birds(folder: Path, cub: CubTree, variant: str = "CUB_fixed") -> Path:
    """TravelingBirds as distributed: all birds of CUB in each tree, other backgrounds; `CUB_fixed` has two trees."""
    rng = np.random.default_rng(5)
    for part in ("train", "test") if variant == "CUB_fixed" else ("",):
        for file, label in zip(cub.files, cub.labels, strict=True):
            draw(folder / variant / part / file, int(label), rng)
    return folder / variant


# -- Stanford Cars -------------------------------------------------------------------------------------------------

CARS = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012")


def write_cars(folder: Path, *, joint: bool = False, per_part: int = 6) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Stanford Cars in one of its two forms; returns label and box (left, top, width, height) by file."""
    rng = np.random.default_rng(1)
    written: dict[str, tuple[int, tuple[int, ...]]] = {}
    tables: dict[str, list[tuple]] = {"train": [], "test": []}
    for part, rows in tables.items():
        for number in range(1, per_part + 1):
            label = (number * 2) % len(CARS)
            name = f"{number + per_part * (part == 'test'):06}.jpg" if joint else f"{number:05}.jpg"
            file = f"car_ims/{name}" if joint else f"cars_{part}/{name}"
            left, top, width, height = box = draw(folder / file, label, rng)
            # MATLAB counts from 1, and both corners belong to the box.
            edges = (left + 1, top + 1, left + width, top + height)
            rows.append((file, *edges, label + 1, int(part == "test")) if joint else (*edges, label + 1, name))
            written[file] = (label, box)
    class_names = np.array([CARS], dtype=object)
    edge_names = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    if joint:
        columns = ("relative_im_path", *edge_names, "class", "test")
        table = mat_table(tables["train"] + tables["test"], columns)
        savemat(folder / "cars_annos.mat", {"annotations": table, "class_names": class_names})
        return written
    (folder / "devkit").mkdir()
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": class_names})
    columns = (*edge_names, "class", "fname")
    savemat(folder / "devkit" / "cars_train_annos.mat", {"annotations": mat_table(tables["train"], columns)})
    savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": mat_table(tables["test"], columns)})
    return written


def mat_table(rows: Sequence[tuple], columns: Sequence[str]) -> np.ndarray:
    """A MATLAB struct array, 1×N."""
    table = np.empty((1, len(rows)), dtype=[(name, object) for name in columns])
    for position, row in enumerate(rows):
        table[0, position] = row
    return table


# -- FGVC-Aircraft -------------------------------------------------------------------------------------------------

VARIANTS = ("707-320", "Falcon 900", "F/A-18")


def write_aircraft(folder: Path, per_class: int = 3) -> dict[str, tuple[int, bool]]:
    """FGVC-Aircraft as its archive unpacks; returns label and whether it is for training, by the name of the image."""
    rng = np.random.default_rng(2)
    data = folder / "fgvc-aircraft-2013b" / "data"
    written: dict[str, tuple[int, bool]] = {}
    for label in range(len(VARIANTS)):
        for number in range(per_class):
            name = f"{label * 1000 + number + 34:07}"
            draw(data / "images" / f"{name}.jpg", label, rng, (60, 64 + number))
            written[name] = (label, number > 0)
    lines(data / "variants.txt", VARIANTS)
    for part, train in (("trainval", True), ("test", False)):
        rows = [f"{name} {VARIANTS[label]}" for name, (label, is_train) in written.items() if is_train == train]
        lines(data / f"images_variant_{part}.txt", rows)
    return written


# -- ImageNet ------------------------------------------------------------------------------------------------------

WORDS = {
    "n01440764": "tench, Tinca tinca",
    "n02012849": "crane",
    "n02113186": "Cardigan, Cardigan Welsh corgi",
    "n02963159": "cardigan",
    "n03126707": "crane",
}


def write_imagenet(folder: Path, validation: str, per_class: int = 2) -> dict[str, str]:
    """ImageNet with validation images in "folders", or flat with the tables of "kaggle" or the "devkit".

    Returns:
        The class of each validation image, by its name.
    """
    rng = np.random.default_rng(3)
    place = folder / "ILSVRC" / "Data" / "CLS-LOC" if validation == "kaggle" else folder
    wnids = list(WORDS)
    for label, wnid in enumerate(wnids):
        for number in range(per_class):
            draw(place / "train" / wnid / f"{wnid}_{number * 17}.JPEG", label, rng)
    order = rng.permutation(len(wnids))
    truth = {f"ILSVRC2012_val_{number:08}": wnids[label] for number, label in enumerate(order, 1)}
    for name, wnid in truth.items():
        where = place / "val" / wnid if validation == "folders" else place / "val"
        draw(where / f"{name}.JPEG", wnids.index(wnid), rng)
    if validation == "kaggle":
        lines(folder / "LOC_synset_mapping.txt", [f"{wnid} {words}" for wnid, words in WORDS.items()])
        rows = [f"{name},{wnid} 1 2 30 40 {wnid} 5 6 20 20 " for name, wnid in reversed(truth.items())]
        lines(folder / "LOC_val_solution.csv", ["ImageId,PredictionString", *rows])
    if validation == "devkit":
        data = folder / "ILSVRC2012_devkit_t12" / "data"
        # The numbers of classes are not in the order of their names, and concepts above them have numbers too.
        number_of = {wnid: 1 + (3 * position + 2) % len(wnids) for position, wnid in enumerate(wnids)}
        rows = [(number_of[wnid], wnid, words, "a gloss", 0) for wnid, words in WORDS.items()]
        rows.append((len(wnids) + 1, "n00015388", "animal, animate being", "a gloss", 3))
        columns = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
        data.mkdir(parents=True)
        savemat(data / "meta.mat", {"synsets": mat_table(rows, columns).T})
        lines(data / "ILSVRC2012_validation_ground_truth.txt", [number_of[wnid] for wnid in truth.values()])
    return truth
