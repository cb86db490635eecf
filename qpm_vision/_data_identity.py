"""Recognising a data set again."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from qpm_opt import normal_text
from qpm_vision._text import utf8
from qpm_vision.data.base import ImageData, ImageSet
from qpm_vision.run_folder import RunFolder

__all__ = ["content_digest", "data_identity", "identity_differences", "read_identity"]

_FORM = {
    "name": str,
    "n_train": int,
    "n_test": int,
    "class_names": [str],
    "cropping?": (str, None),
    "digest": str,
}


def data_identity(data: ImageData) -> dict[str, Any]:
    """Sizes, class names, cropping and a digest of names and labels.

    Equal for the same images in the same order and split, shown in the same way.
    """
    return {
        "name": data.name,
        "n_train": len(data.train),
        "n_test": len(data.test),
        "class_names": list(data.class_names),
        "cropping": data.cropping,
        "digest": images_digest(data.train, data.test),
    }


def read_identity(folder: RunFolder) -> dict[str, Any]:
    """The identity of the data that a run was begun with.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    return folder.read_json("data.json", _FORM)


def images_digest(*sets: ImageSet) -> str:
    """A number that is equal for sets with equal names and labels in the same order, whatever their pixels."""
    digest = hashlib.sha256()
    for images in sets:
        digest.update(np.ascontiguousarray(images.labels, dtype=np.int64).tobytes())
        for position in range(len(images)):
            digest.update(utf8(images.name(position)) + b"\0")
    return digest.hexdigest()


def content_digest(images: ImageSet) -> str:
    """A number that is equal for sets with equal names, labels and pixels in the same order, by their fingerprints."""
    digest = hashlib.sha256(images_digest(images).encode())
    for position in range(len(images)):
        digest.update(images.fingerprint(position))
    return digest.hexdigest()


def identity_differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two identities, as text; empty where nothing does."""
    keys = ("n_train", "n_test", "cropping")
    found = [f"{key} {old.get(key)!r} → {new[key]!r}" for key in keys if old.get(key) != new[key]]
    if [normal_text(str(name)) for name in old.get("class_names") or ()] != list(new["class_names"]):
        found.append("the classes")
    if not found and old.get("digest") != new["digest"]:
        found.append("images or labels, or their split")
    return ", ".join(found)
