"""Reading safetensors files that anybody may have written or damaged."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from qpm_vision._reading import file_size

__all__ = ["read_safetensors"]


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file; the tensors are mapped into memory, and take none until they are looked at.

    Raises:
        ValueError: It is no such file, or cut off.
        OSError: It is missing, or cannot be read.
    """
    file_size(path)
    try:
        with safe_open(path, framework="pt") as content:
            return content.metadata() or {}, {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, MemoryError, TypeError) as error:
        raise ValueError(f"it is no safetensors file, or cut off ({error})") from error
