"""The points of a sweep, and the folder that holds them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from qpm_opt import _storage
from qpm_opt._validation import FloatArray, whole_number
from qpm_opt.errors import InvalidInputError, QPMError
from qpm_opt.files import hold_lock
from qpm_opt.problem import AssignmentProblem
from qpm_opt.solution import Assignment

__all__ = ["SweepPoint", "file_of", "fingerprint", "open_folder", "write_points"]

INFEASIBLE = "infeasible"
"""How the status of a point begins that has no solution, proven."""

_LOCK = ".lock"

FORMAT = 2
"""Of `sweep.json`; those before 2 do not say everything about the problem."""


@dataclass(frozen=True)
class SweepPoint:
    """One point of the grid; what could not be had is None.

    Attributes:
        n_select: Features kept.
        n_per_class: Features of a class.
        penalised: Which pairs are penalised: "given", "threshold", "turan", or a share such as "5%".
        penalised_share: Share of all pairs that it comes to.
        objective: Z_A + Z_R + Z_B.
        bound: Proven bound.
        gap: Relative gap.
        similarity: Z_A.
        lost_to_redundancy: What Z_A could be more if redundant features could be kept for nothing.
        lost_to_uniqueness: What Z_A could be more, with the same features kept, if classes could be alike.
        redundancy: Z_R.
        bias: Z_B.
        seconds: Runtime.
        status: Of the result, or why there is none.
    """

    n_select: int
    n_per_class: int
    penalised: str
    penalised_share: float | None = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    similarity: float | None = None
    lost_to_redundancy: float | None = None
    lost_to_uniqueness: float | None = None
    redundancy: float | None = None
    bias: float | None = None
    seconds: float | None = None
    status: str = "open"

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"select{self.n_select}-class{self.n_per_class}-{self.penalised.replace('%', 'pc')}"


@contextmanager
def open_folder(out: Path, mark: dict[str, Any]) -> Iterator[dict[str, SweepPoint]]:
    """The points that the folder holds already, also those of another grid; no other sweep works in it meanwhile.

    Raises:
        InvalidInputError: The folder cannot be written to, is that of another sweep, or one is at work in it.
    """
    try:
        (out / "points").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"The 'folder' parameter must be a folder to write to. Got {str(out)!r}.") from error
    with _locked(out):
        yield _known_points(out, mark)


def _locked(out: Path) -> AbstractContextManager[object]:
    try:
        return hold_lock(out / _LOCK)
    except BlockingIOError as error:
        raise InvalidInputError(
            f"The 'folder' parameter must be a folder that no other sweep is at work in. Got {str(out)!r}; wait "
            "until it ends, or use another folder."
        ) from error
    except OSError as error:
        raise InvalidInputError(
            f"The 'folder' parameter must be a folder to write to. Got {str(out)!r}: {error.strerror or error}."
        ) from error


def _known_points(out: Path, mark: dict[str, Any]) -> dict[str, SweepPoint]:
    stored = out / "sweep.json"
    if not stored.exists():
        return {}
    try:
        content = _storage.read_json(stored)
        different = [name for name, value in mark.items() if content["settings"].get(name) != value]
        known = [] if different else [_point(record) for record in content["points"]]
    except (InvalidInputError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInputError(f"The file {str(stored)!r} is damaged; delete the folder to begin anew.") from error
    if different:
        raise InvalidInputError(
            f"The 'folder' parameter must be a new folder or hold the same sweep. Got {str(out)!r}, whose "
            f"{different[0]} is another one."
        )
    return {point.name: point for point in known if _is_done(out, point)}


def _point(record: dict[str, Any]) -> SweepPoint:
    """A point as it was stored; refuses what no point can be."""
    point = SweepPoint(**record)
    for name in ("n_select", "n_per_class"):
        whole_number(name, record[name], least=1)
    for name, value in record.items():
        if isinstance(SweepPoint.__dataclass_fields__[name].default, str) or name == "penalised":
            valid = isinstance(value, str)
        else:
            valid = value is None or (isinstance(value, int | float) and math.isfinite(value))
        if not valid:
            raise ValueError(f"{name} is {value!r}")
    return point


def _is_done(out: Path, point: SweepPoint) -> bool:
    """Whether there is nothing to gain from another try: no failure, and the result is where it was stored."""
    if point.objective is None:
        return point.status.startswith(INFEASIBLE)
    try:
        return Assignment.load(file_of(out, point)).objective == point.objective
    except QPMError:
        return False


def file_of(out: Path, point: SweepPoint) -> Path:
    return out / "points" / f"{point.name}.npz"


def fingerprint(problem: AssignmentProblem, similarity: FloatArray | None) -> str:
    """Of everything that the result of a point depends on: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    parts = {field.name: getattr(problem, field.name) for field in fields(problem)}
    for own in ("n_select", "n_per_class"):  # each point has others
        del parts[own]
    for name, value in {**parts, "similarity": similarity}.items():
        if sp.issparse(value):
            pieces = {kind: getattr(value, kind) for kind in ("data", "indices", "indptr")}
        else:
            pieces = {"": value}
        for kind, piece in pieces.items():
            if isinstance(piece, np.ndarray):
                piece = piece.astype(np.float64 if piece.dtype.kind == "f" else np.int64)
                digest.update(repr((name, kind, piece.dtype.str, piece.shape)).encode())
                digest.update(np.ascontiguousarray(piece).tobytes())
            else:
                digest.update(repr((name, kind, piece)).encode(errors="surrogatepass"))
    return digest.hexdigest()


def write_points(
    out: Path, mark: dict[str, Any], grid: list[SweepPoint], finished: dict[str, SweepPoint]
) -> pd.DataFrame:
    """Store what is finished; the table holds what the grid asks for."""
    points = [asdict(point) for point in finished.values()]
    _storage.write_text(out / "sweep.json", json.dumps({"settings": mark, "points": points}))
    known = [asdict(finished[point.name]) for point in grid if point.name in finished]
    table = pd.DataFrame(known, columns=list(SweepPoint.__dataclass_fields__))
    _storage.write_text(out / "sweep.csv", table.to_csv(index=False))
    return table
