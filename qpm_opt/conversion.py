"""NumPy arrays out of whatever holds numbers: arrays, lists, frames, tensors, sparse matrices; or why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from qpm_opt.errors import InvalidInputError

__all__ = ["plain_array", "sparse_matrix"]


def plain_array(name: str, value: Any) -> npt.NDArray[Any]:
    """NumPy array of real numbers or booleans, of any shape.

    Args:
        name: What the argument is called, for messages.
        value: An array, a nested list, an iterator, a frame, series or index of pandas (nullable types too, where
            nothing is missing), a tensor of any layout and precision, a sparse matrix, or what NumPy reads itself.

    Raises:
        InvalidInputError: It holds something else; the message says what to do.
    """
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = _from_tensor(name, value)
    elif sp.issparse(value):
        value = _dense(name, value)
    elif hasattr(value, "isna") and hasattr(value, "to_numpy"):
        value = _from_pandas(name, value)
    elif isinstance(value, Iterator):
        value = list(value)
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise InvalidInputError(
            f"The '{name}' parameter must not be masked. Got {int(value.mask.sum())} masked entries; fill them first."
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"The '{name}' parameter must be an array of numbers. Got a {type(value).__name__} that NumPy cannot read "
            f"({error}); are its rows of equal length?"
        ) from error
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(
            f"The '{name}' parameter must hold real numbers. Got dtype {array.dtype}"
            f" from a {type(value).__name__}; convert it with .astype(float) once its entries are numbers."
        )
    return array


def sparse_matrix(name: str, value: Any) -> sp.csr_array:
    """A copy of a sparse matrix of any format as one by rows, of real numbers.

    Raises:
        InvalidInputError: It has other than two dimensions, holds no real numbers, or its indices are out of range.
    """
    if value.ndim != 2:
        raise InvalidInputError(f"The '{name}' parameter must have 2 dimensions. Got shape {tuple(value.shape)}.")
    if value.dtype.kind not in "fiub":
        raise InvalidInputError(f"The '{name}' parameter must hold real numbers. Got dtype {value.dtype}.")
    try:
        if hasattr(value, "check_format"):  # indices that lead elsewhere would be followed
            value.check_format(full_check=True)
        return sp.csr_array(value, copy=True)
    except (TypeError, ValueError, IndexError) as error:
        raise InvalidInputError(
            f"The '{name}' parameter must be a well-formed sparse matrix. Got one with wrong indices ({error})."
        ) from error


def _dense(name: str, value: Any) -> npt.NDArray[Any]:
    try:
        dense: npt.NDArray[Any] = (sparse_matrix(name, value) if value.ndim == 2 else value).toarray()
    except MemoryError as error:
        raise InvalidInputError(
            f"The '{name}' parameter must fit in memory with all its zeros. Got shape {tuple(value.shape)}."
        ) from error
    return dense


def _from_tensor(name: str, value: Any) -> Any:
    if getattr(value, "is_nested", False):
        raise InvalidInputError(
            f"The '{name}' parameter must be one array. Got a nested tensor; pad it with .to_padded_tensor(0.0)."
        )
    if getattr(getattr(value, "device", None), "type", "cpu") == "meta":
        raise InvalidInputError(
            f"The '{name}' parameter must hold values. Got a tensor on the device 'meta', which has a shape alone; "
            "load it to 'cpu'."
        )
    try:
        value = value.detach().cpu()
        if getattr(value, "is_quantized", False):
            value = value.dequantize()
        if "strided" not in str(getattr(value, "layout", "strided")):
            value = value.to_dense()
        if "bfloat16" in str(value.dtype) or "float8" in str(value.dtype):  # NumPy has no such types
            value = value.float()
        return value.resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InvalidInputError(
            f"The '{name}' parameter must be a tensor that NumPy can read. Got one of dtype {value.dtype} "
            f"({str(error).splitlines()[0]}); convert it with .float().cpu()."
        ) from error


def _from_pandas(name: str, value: Any) -> Any:
    """Numbers of pandas; its nullable types, which NumPy takes for objects, as float64."""
    if any(dtype.kind not in "fiub" for dtype in _dtypes(value)):
        return value
    missing = np.asarray(value.isna())
    if missing.any() and any(not isinstance(dtype, np.dtype) for dtype in _dtypes(value)):
        first = [int(index) for index in np.argwhere(missing)[0]]
        raise InvalidInputError(
            f"The '{name}' parameter must have no missing values. Got {int(missing.sum())}, the first at {first}; fill "
            "or drop them first."
        )
    array = np.asarray(value)
    return value.to_numpy(dtype=np.float64) if array.dtype.hasobject else array


def _dtypes(value: Any) -> list[Any]:
    return list(value.dtypes) if value.ndim == 2 else [value.dtype]
