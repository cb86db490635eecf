"""Turning arrays of any origin into tensors without copying them, or saying exactly why not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from qpm_opt import InvalidInputError, plain_array

ArrayLike: TypeAlias = "npt.ArrayLike | torch.Tensor"
FloatArray: TypeAlias = npt.NDArray[np.float64]

_FLOATS = (np.float16, np.float32, np.float64)


def as_tensor(name: str, value: ArrayLike, ndim: int) -> torch.Tensor:
    """Detached floating-point tensor that shares memory with `value` wherever it can; it must not be written to.

    Raises:
        InvalidInputError: `value` holds no real numbers, or has another number of dimensions.
    """
    tensor = _plain_tensor(name, value) if isinstance(value, torch.Tensor) else _from_numpy(name, value)
    if tensor.is_complex():
        raise InvalidInputError(
            f"The '{name}' parameter must hold real numbers. Got dtype {tensor.dtype}; pass its real part."
        )
    if not tensor.is_floating_point():
        tensor = tensor.double()
    if tensor.ndim != ndim:
        raise InvalidInputError(
            f"The '{name}' parameter must have {ndim} dimensions. Got shape {tuple(tensor.shape)}; reshape it."
        )
    return tensor


def _plain_tensor(name: str, value: torch.Tensor) -> torch.Tensor:
    """The tensor itself, detached; dense and of plain numbers where it is quantized or sparse."""
    if value.is_nested or value.is_meta:
        plain_array(name, value)  # says what is wrong
    tensor = value.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _from_numpy(name: str, value: npt.ArrayLike) -> torch.Tensor:
    array = plain_array(name, value)
    if array.dtype not in _FLOATS or not array.dtype.isnative:
        array = array.astype(np.float64)
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # PyTorch warns of read-only memory, which nothing here writes to.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself when it has 32 or 64 bits, else in float32."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _label_array(value: npt.ArrayLike) -> npt.NDArray[np.generic]:
    dtype = getattr(value, "dtype", None)
    if getattr(dtype, "kind", "") in ("i", "u"):  # nullable integers of pandas too, which give floats
        return plain_array("labels", value).astype(np.int64)
    try:
        return np.asarray(list(value) if isinstance(value, Iterator) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"The 'labels' parameter must be a list of class indices. Got a {type(value).__name__} ({error})."
        ) from error


def as_labels(value: ArrayLike, n_images: int, n_classes: int | None = None) -> torch.Tensor:
    """Class index of every image as int64.

    Raises:
        InvalidInputError: not one integer per image, or an index outside 0 … n_classes - 1.
    """
    if isinstance(value, torch.Tensor):
        labels = _plain_tensor("labels", value)
        whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    else:
        array = _label_array(value)
        whole = array.dtype.kind in "iu" or array.size == 0
        labels = torch.from_numpy(array.astype(np.int64)) if whole else torch.empty(array.shape)
    if not whole:
        raise InvalidInputError(
            "The 'labels' parameter must hold class indices as integers. Got another dtype; convert it with "
            ".astype(int) or .long(), and number the classes from 0 if it holds names."
        )
    labels = labels.long()
    if tuple(labels.shape) != (n_images,):
        raise InvalidInputError(
            f"The 'labels' parameter must have one entry per image, shape ({n_images},). Got shape "
            f"{tuple(labels.shape)}; pass the labels of the same images, in the same order."
        )
    if n_images:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (n_classes is not None and high >= n_classes):
            upper = "" if n_classes is None else f" to {n_classes - 1}"
            raise InvalidInputError(
                f"The 'labels' parameter must hold class indices from 0{upper}. Got values from {low} to {high}; "
                "number the classes from 0, or raise n_classes."
            )
    return labels


def sums_device(tensor: torch.Tensor) -> torch.device:
    """Where float64 sums of this tensor live: its own device, or the CPU where the device has no float64."""
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device


def to_double(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Float64 on a device that has it; moves first because the source may not be able to cast."""
    return tensor.detach().to(device).double()


def as_numpy(tensor: torch.Tensor) -> FloatArray:
    """Float64 copy in host memory."""
    array: FloatArray = tensor.detach().cpu().to(torch.float64, copy=True).numpy()
    return array


def require_finite(name: str, rows: torch.Tensor, first_image: int = 0) -> None:
    """Raise with the number of NaN and infinite entries and the first image that has one.

    Args:
        name: Argument to name in the message.
        rows: Shape (n_images, n_features).
        first_image: Index that row 0 has in the whole stream of images.
    """
    bad = ~torch.isfinite(rows)
    n_bad = int(bad.sum())
    if not n_bad:
        return
    rows_with = bad.flatten(1).any(1).nonzero().flatten()
    raise InvalidInputError(
        f"The '{name}' parameter must be finite. Got {n_bad} NaN or infinite entries in {len(rows_with)} images, the "
        f"first in image {first_image + int(rows_with[0])}. Look at that image and at the loss of the training: "
        "diverged weights or half precision that overflows are the usual causes."
    )
