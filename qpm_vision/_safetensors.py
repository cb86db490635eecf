"""Reading safetensors files that anybody may have written or damaged."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        with _utf8_path(path) as file, safe_open(file, framework="pt") as content:
            return content.metadata() or {}, {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, MemoryError, TypeError) as error:
        raise ValueError(f"it is no safetensors file, or cut off ({error})") from error


@contextmanager
def _utf8_path(path: Path) -> Iterator[Path]:
    """A path of the file that is UTF-8, which the library needs to have: its own, or that of a link to it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, "link.safetensors")
            link.symlink_to(path.resolve())
            yield link
    else:
        yield path
