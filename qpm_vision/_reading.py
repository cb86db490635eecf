"""Reading files that anybody may have written or damaged, within bounded memory and without waiting for anything.

What is wrong with a file is a ValueError or an OSError that says so without naming the file: callers know what it is
for, and what to do about it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, Final, NoReturn

import yaml

__all__ = [
    "file_size",
    "open_file",
    "parse_json",
    "parse_yaml",
    "read_given_text",
    "read_rows",
    "read_text",
    "require_text_file",
    "shortened",
]

MOST_TEXT: Final = 16 << 20
"""Bytes of a text: as JSON it takes up to 40 times as much memory."""

MOST_YAML: Final = 1 << 20
"""Characters of YAML, which is read at about 0.1 megabytes a second."""

MOST_NODES: Final = 1_000_000
"""Values in YAML, those that it repeats by aliases counted each time."""

_DIGITS: Final = 18
"""Digits that every 64-bit integer has room for."""

_SHOWN: Final = 300
_MOST_OPEN: Final = 500


def shortened(error: object) -> str:
    """A message on one line, cut where it quotes a value of any length."""
    text = " ".join(str(error).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def file_size(path: str | os.PathLike[str]) -> int:
    """Bytes of a file.

    Raises:
        ValueError: It is a folder, a pipe, a device or the like: to open one may take for ever.
        OSError: It is missing, or cannot be looked at.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"it is {_kind(status.st_mode)} instead of a file")
    return status.st_size


def _kind(mode: int) -> str:
    kinds = {
        "a folder": stat.S_ISDIR,
        "a named pipe": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
    }
    return next((kind for kind, is_kind in kinds.items() if is_kind(mode)), "a device")


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """A stream of the bytes of a file; the same errors as `file_size`."""
    file_size(path)
    with Path(path).open("rb") as stream:
        yield stream


def read_text(path: str | os.PathLike[str], *, encoding: str = "utf-8") -> str:
    """The text of a file of `MOST_TEXT` bytes at most.

    Raises:
        ValueError: It is no such file.
        OSError: It is missing, or cannot be read.
    """
    require_text_file(path)
    with open_file(path) as stream:
        return _decoded(stream, encoding)


def require_text_file(path: str | os.PathLike[str]) -> None:
    """Raise where `read_text` would, but for what the text says."""
    _refuse_size(file_size(path))


def read_given_text(path: str | os.PathLike[str], *, encoding: str = "utf-8-sig") -> str:
    """Like `read_text`, for files that people name: a pipe, such as `<(…)` of a shell, is one too.

    By default without the byte order mark that some editors put in front.
    """
    if not stat.S_ISFIFO(Path(path).stat().st_mode):
        return read_text(path, encoding=encoding)
    # Opened without waiting for a writer: a pipe that has none is empty.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as stream:
        if hasattr(os, "set_blocking"):
            os.set_blocking(handle, True)
        return _decoded(stream, encoding)


def _decoded(stream: IO[bytes], encoding: str) -> str:
    content = stream.read(MOST_TEXT + 1)
    _refuse_size(len(content))
    return content.decode(encoding)


def _refuse_size(size: int) -> None:
    if size > MOST_TEXT:
        raise ValueError(f"it has more than {MOST_TEXT:,} bytes")


# -- JSON ----------------------------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """What JSON says: numbers that are finite and, if whole, have 64 bits at most; no key of an object twice.

    Raises:
        ValueError: It is no such JSON.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_moderate,
            object_pairs_hook=_distinct,
        )
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _moderate(text: str) -> int:
    if len(text.lstrip("-")) > _DIGITS:
        raise ValueError(f"the number {text[:20]}… has more than {_DIGITS} digits")
    return int(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return values


# -- YAML ----------------------------------------------------------------------------------------------------------


def parse_yaml(text: str) -> Any:
    """What YAML says, without tags of programs; repetition by aliases counts, so that few lines cannot mean gigabytes.

    Raises:
        ValueError: It is no such YAML, is too large, or has a key twice.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"it has more than {MOST_YAML:,} characters")
    _refuse_depth(text)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count_nodes(node, {}, "it")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except (yaml.YAMLError, OverflowError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(shortened(error)) from error
    finally:
        loader.dispose()


def _refuse_depth(text: str) -> None:
    """Raise where brackets are open within brackets, which the reader takes quadratic time for."""
    depth = 0
    for match in re.finditer(r"[\[\]{}]", text):
        depth += 1 if match[0] in "[{" else -1
        if depth > _MOST_OPEN:
            raise ValueError("its values are nested too deeply")


def _count_nodes(node: yaml.Node, known: dict[int, int], where: str) -> int:
    """The values in a node; refuses too many, a node in itself, and a key that is there twice."""
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("a value is part of itself")
        return known[id(node)]
    known[id(node)] = 0  # under way
    children: list[tuple[str, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(value for (_, value), count in Counter(keys).items() if count > 1)
            raise ValueError(f"the key {twice[:40]!r} is there twice")
        children = [(where, key) for key, _ in node.value]
        # A message names the key of the whole that leads there.
        children += [
            (repr(key.value) if where == "it" and isinstance(key.value, str) else where, value)
            for key, value in node.value
        ]
    elif isinstance(node, yaml.SequenceNode):
        children = [(where, part) for part in node.value]
    count = 1
    for place, child in children:
        count += _count_nodes(child, known, place)
        if count > MOST_NODES:
            raise ValueError(f"{place} has more than {MOST_NODES:,} values, aliases counted each time")
    known[id(node)] = count
    return count


# -- tables --------------------------------------------------------------------------------------------------------


def read_rows(text: str) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
    """Columns of a table with commas, and its rows that are not empty, each with its line and a text for each column.

    Raises:
        ValueError: It is no such table, a column is there twice, or a row has more cells than there are columns.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = tuple(next(reader, ()))
        # Spreadsheets leave empty ones.
        twice = [name for name, count in Counter(columns).items() if name and count > 1]
        if twice:
            raise ValueError(f"the column {twice[0][:40]!r} is there twice")
        rows = []
        for cells in reader:
            if any(cells[len(columns) :]):
                raise ValueError(f"line {reader.line_num} has {len(cells)} cells for {len(columns)} columns")
            if any(cells):
                rows.append((reader.line_num, dict(zip_longest(columns, cells[: len(columns)], fillvalue=""))))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    return columns, rows
