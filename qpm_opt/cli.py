"""The command line: qpm-opt solve, sweep, verify, backends, show.

Results go to standard output, progress to standard error. Exit codes: 0 well, 1 no solution or a failed check, 2 a
mistake that the message explains, 130 stopped by Ctrl-C (the best result so far is written).
"""

from __future__ import annotations

import argparse
import ast
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version as package_version
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import pandas as pd

from qpm_opt import _storage
from qpm_opt._plots import draw_sweep
from qpm_opt.api import solve_assignment
from qpm_opt.backends import BACKENDS, backend_names, load_backend
from qpm_opt.command_line import parse_arguments
from qpm_opt.errors import BackendUnavailableError, InvalidInputError, QPMError
from qpm_opt.files import refuse_overwriting
from qpm_opt.output import steady_output
from qpm_opt.problem import AssignmentProblem
from qpm_opt.redundancy import penalties_from_similarity
from qpm_opt.solution import Assignment, Termination
from qpm_opt.sweep import SweepPoint, sweep
from qpm_opt.tables import read_labelled_csv
from qpm_opt.text import printable
from qpm_opt.verify import verify

if TYPE_CHECKING:
    from qpm_opt.backends.search_log import Progress

__all__ = ["main"]

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_CHANGES = 0.1
_RESULT_SUFFIXES = (".npz", ".json")
_SWEEP_FILES = ("sweep.json", "sweep.csv", "sweep.png")
_MOST_NUMBERS = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the name of the program; those of the process by default.

    Returns:
        The exit code.
    """
    with steady_output() as output:
        arguments = parse_arguments(_parser(), argv)
        logging.basicConfig(
            level=logging.INFO if arguments.verbose else logging.WARNING, format="%(name)s: %(message)s"
        )
        command: Callable[[argparse.Namespace], int] = arguments.command
        try:
            code = command(arguments)
        except QPMError as error:
            print(printable(f"qpm-opt: {error}"), file=sys.stderr)
            return 2
        except MemoryError as error:
            print(
                f"qpm-opt: The problem must fit into memory. Got {str(error) or 'no more of it'}; leave out features "
                "that are dead or alike, or use a machine with more memory.",
                file=sys.stderr,
            )
            return 2
        except KeyboardInterrupt:
            print("\nqpm-opt: stopped.", file=sys.stderr)
            return 130
        # Who redirects a listing to a full disk has half of it there; other commands leave more than what they print.
        return 2 if code == 0 and command in (_show, _backends) and output.lost else code


# -- commands ------------------------------------------------------------------------------------------------------


def _solve(arguments: argparse.Namespace) -> int:
    target = Path(arguments.out)
    _refuse_bad_target(target)
    refuse_overwriting(target, [*_inputs(arguments), arguments.start])
    problem = _read_problem(arguments)
    options = dict(_option(text) for text in arguments.option)
    print(problem)
    with _Ticker(sys.stderr) as ticker:
        result = solve_assignment(
            problem,
            solver=arguments.solver,
            time_limit=arguments.time_limit or None,
            mip_gap=arguments.mip_gap,
            seed=arguments.seed,
            threads=arguments.threads,
            start=None if arguments.start is None else Assignment.load(arguments.start),
            progress=lambda state: ticker.tell(_described(state)),
            **options,
        )
    result.save(target)
    print(f"{result}\nwritten to {target}")
    if result.termination is Termination.INTERRUPTED:
        return 130
    return 0 if result.solution is not None else 1


def _sweep(arguments: argparse.Namespace) -> int:
    n_select = _numbers("--n-select", arguments.grid_select)
    n_per_class = _numbers("--n-per-class", arguments.grid_class)
    out = Path(arguments.out)
    for target in (*(out / name for name in _SWEEP_FILES), *out.glob("points/*")):
        refuse_overwriting(target, _inputs(arguments))
    similarity = None if arguments.similarity is None else _read_table(arguments.similarity)
    arguments.similarity = None  # each point makes its own penalties of it
    if not arguments.problem.endswith(".npz"):
        arguments.n_select, arguments.n_per_class = n_select[0], n_per_class[0]
    problem = _read_problem(arguments)

    def described(done: int, total: int, point: SweepPoint) -> str:
        gap = "" if point.gap is None else f", gap {point.gap:.3%}"
        value = point.status if point.objective is None else f"objective {point.objective:.6g}{gap}"
        return f"{done}/{total}  {point.name}: {value}"

    with _Ticker(sys.stderr) as ticker:
        table = sweep(
            problem,
            arguments.out,
            n_select=n_select,
            n_per_class=n_per_class,
            penalised=arguments.penalised.split(","),
            similarity=similarity,
            solver=arguments.solver,
            time_limit=arguments.time_limit,
            seed=arguments.seed,
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            progress=lambda done, total, point: ticker.tell(described(done, total, point), last=done == total),
        )
    shown = ["n_select", "n_per_class", "penalised", "objective", "gap", "similarity", "lost_to_redundancy"]
    shown += ["lost_to_uniqueness", "status"]
    print(table[shown].to_string(index=False, float_format=lambda value: f"{value:.5g}", max_colwidth=40))
    _draw_sweep(table, Path(arguments.out) / "sweep.png")
    print(f"written to {arguments.out}")
    return 0 if table["objective"].notna().any() else 1


def _draw_sweep(table: pd.DataFrame, path: Path) -> None:
    """Draw it where that can be done; the table is what counts."""
    try:
        draw_sweep(table).savefig(path, dpi=130)
    except BackendUnavailableError:
        pass
    except Exception as error:  # noqa: BLE001 - drawing can fail in as many ways as there are installations
        print(f"note: {path} could not be drawn ({type(error).__name__}: {error})", file=sys.stderr)


def _numbers(option: str, text: str) -> list[int]:
    """Whole numbers with commas between them, or first:last:step."""
    try:
        if ":" in text:
            first, last, step = (int(part) for part in text.split(":"))
            numbers = range(first, last + 1, step)
            if len(numbers) > _MOST_NUMBERS:
                raise InvalidInputError(f"The '{option}' option must be at most {_MOST_NUMBERS} numbers. Got {text!r}.")
            return list(numbers)
        return [int(part) for part in text.split(",")]
    except InvalidInputError:
        raise
    except (ValueError, OverflowError):
        raise InvalidInputError(
            f"The '{option}' option must be whole numbers such as 20,30,50 or 20:60:10. Got {text!r}."
        ) from None


def _verify(arguments: argparse.Namespace) -> int:
    problem, assignment = AssignmentProblem.load(arguments.problem), Assignment.load(arguments.assignment)
    if assignment.solution is None:
        print(f"there is nothing to verify: no solution, termination '{assignment.termination.value}'")
        return 1
    checked = verify(problem, assignment)
    print(checked)
    return 0 if checked.ok else 1


def _backends(arguments: argparse.Namespace) -> int:
    del arguments
    rows = []
    for name in backend_names():
        spec = BACKENDS[name.partition(":")[0]]
        try:
            backend = load_backend(name)
            version, can = backend.version(), backend.CAPABILITIES
        except BackendUnavailableError as error:
            rows.append((name, "–", "", str(error)))
            continue
        rows.append((name, version, ", ".join(can.names()), spec.about))
    widths = [max(len(row[column]) for row in [*rows, ("name", "version", "", "")]) for column in (0, 1)]
    for name, version, able_text, about in rows:
        print(f"{name:<{widths[0]}}  {version:<{widths[1]}}  {about}")
        if able_text:
            print(f"{'':<{widths[0]}}  {'':<{widths[1]}}  {able_text}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    if arguments.kind is not None and not arguments.plot:
        raise InvalidInputError("The '--kind' option says what '--plot' draws. Got it alone; add '--plot FILE'.")
    if arguments.plot:
        refuse_overwriting(arguments.plot, [arguments.file])
    shown = _read_any(arguments.file)
    print(shown)
    if isinstance(shown, AssignmentProblem):
        if arguments.classes or arguments.plot:
            raise InvalidInputError(
                f"'--classes' and '--plot' show an assignment. Got the problem {arguments.file!r}; solve it first."
            )
        return 0
    if shown.solution is None and (arguments.classes or arguments.plot):
        print("there is no solution to show")
        return 1
    if arguments.classes:
        frame = shown.to_frame()
        for name, row in frame.iterrows():
            print(printable(f"{name}: {', '.join(str(label) for label in frame.columns[row.to_numpy() > 0])}"))
    if arguments.plot:
        figure, _ = shown.plot(arguments.kind or "matrix")
        try:
            figure.savefig(arguments.plot, dpi=150)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"Cannot write the picture {arguments.plot!r}: {error}.") from error
        print(f"drawn to {arguments.plot}")
    return 0


# -- reading -------------------------------------------------------------------------------------------------------


def _inputs(arguments: argparse.Namespace) -> list[str | None]:
    return [arguments.problem, arguments.redundancy, arguments.similarity, arguments.bias]


def _read_problem(arguments: argparse.Namespace) -> AssignmentProblem:
    """A stored problem, or one put together from tables."""
    path = Path(arguments.problem)
    parts = {"redundancy": arguments.redundancy, "similarity": arguments.similarity, "bias": arguments.bias}
    sizes = {"n_select": arguments.n_select, "n_per_class": arguments.n_per_class}
    if path.suffix == ".npz":
        given = [name for name, value in {**parts, **sizes}.items() if value is not None]
        if given:
            raise InvalidInputError(
                f"The option '--{given[0].replace('_', '-')}' goes with a table of class similarity. "
                f"Got the stored problem {str(path)!r}, which holds everything already; leave the option out."
            )
        return AssignmentProblem.load(path)
    if arguments.redundancy is not None and arguments.similarity is not None:
        raise InvalidInputError("Give '--redundancy' (penalties) or '--similarity' (they are made from it), not both.")
    chosen = {name: value for name, value in sizes.items() if value is not None}
    redundancy: Any = None if arguments.redundancy is None else _read_table(arguments.redundancy)
    if arguments.similarity is not None:
        n_select = {name: value for name, value in chosen.items() if name == "n_select"}
        redundancy = penalties_from_similarity(_read_table(arguments.similarity), **n_select)
        print(redundancy)
    bias = None if arguments.bias is None else _one_column(arguments.bias, _read_table(arguments.bias))
    return AssignmentProblem(_read_table(arguments.problem), redundancy, bias, **chosen)


def _read_table(name: str) -> Any:
    """An array from `.npy`, or a frame from `.csv` whose first row and column are labels."""
    path = Path(name)
    if path.suffix not in (".csv", ".npy"):
        raise InvalidInputError(f"A table must be a .csv or .npy file, a problem an .npz file. Got {name!r}.")
    if not path.exists():
        raise InvalidInputError(f"The file {name!r} does not exist.")
    return _storage.read_npy(path) if path.suffix == ".npy" else read_labelled_csv(path)


def _one_column(name: str, table: Any) -> Any:
    """A bias, with its labels where it has some."""
    if isinstance(table, pd.DataFrame):
        if table.shape[1] != 1:
            raise InvalidInputError(
                f"The file {name!r} must hold labels and one column of numbers. Got {table.shape[1]} columns."
            )
        return table.iloc[:, 0]
    return np.squeeze(table)


def _read_any(name: str) -> AssignmentProblem | Assignment:
    if not name.endswith((".json", ".npz")):
        raise InvalidInputError(f"A stored problem or result must end in .npz or .json. Got {name!r}.")
    if name.endswith(".json") or _storage.kind_of(name) == Assignment.KIND:
        return Assignment.load(name)
    return AssignmentProblem.load(name)


def _refuse_bad_target(target: Path) -> None:
    """Before minutes of search, not after."""
    if target.suffix not in _RESULT_SUFFIXES:
        raise InvalidInputError(f"The result must end in {' or '.join(_RESULT_SUFFIXES)}. Got {str(target)!r}.")
    if not target.parent.is_dir():
        raise InvalidInputError(f"The folder {str(target.parent)!r} for the result does not exist; make it first.")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            writable = not target.is_dir()
    except OSError:
        writable = False
    if not writable:
        raise InvalidInputError(f"The result {str(target)!r} cannot be written there; choose another place.")


def _option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as a Python literal where it is one."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidInputError(f"The '--option' option must be NAME=VALUE. Got {text!r}.")
    if name in signature(solve_assignment).parameters:
        raise InvalidInputError(
            f"The '--option' option takes settings of one back end. Got {name!r}, which has an option of its own, or "
            "none on the command line."
        )
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, value


# -- progress ------------------------------------------------------------------------------------------------------


class _Ticker:
    """A line that is overwritten on a terminal; elsewhere the first, at most one every few seconds, and the last.

    Args:
        stream: Where to write.
        clock: Gives seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._every = _SECONDS_BETWEEN_CHANGES if self._terminal else _SECONDS_BETWEEN_LINES
        self._clock = clock
        self._last = -np.inf

    def tell(self, line: str, *, last: bool = False) -> None:
        """Write a line if the one before is old enough, or none follows."""
        now = self._clock()
        if now - self._last < self._every and not last:
            return
        self._last = now
        text = f"\r\x1b[K{line[:110]}" if self._terminal else f"{line}\n"
        print(text, file=self._stream, end="", flush=True)

    def __enter__(self) -> _Ticker:
        return self

    def __exit__(self, *details: object) -> None:
        if self._terminal:
            print("\r\x1b[K", file=self._stream, end="", flush=True)


def _described(state: Progress) -> str:
    parts = [f"{state.time:7.1f} s"]
    parts += [] if state.objective is None else [f"objective {state.objective:.6g}"]
    parts += [] if state.bound is None else [f"bound {state.bound:.6g}"]
    parts += [] if state.gap is None else [f"gap {state.gap:.3%}"]
    return "  ".join([*parts, state.message])


# -- arguments -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qpm-opt", description="Choose a few shared features that describe every class."
    )
    parser.add_argument("--version", action="version", version=f"qpm {package_version('qpm')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    solve = _command(commands, "solve", _solve, "solve a problem and write the result")
    solve.add_argument("problem", metavar="PROBLEM", help="stored problem (.npz), or class similarity (.csv, .npy)")
    solve.add_argument("out", metavar="OUT", help="result to write, .npz or .json")
    tables = solve.add_argument_group(
        "with a table of class similarity (classes × features)",
        "A .csv table has commas, names in its first row and in its first column, and an empty first cell, as pandas' "
        "to_csv writes it. Names must agree between tables; .npy arrays have none and go by position.",
    )
    tables.add_argument("--redundancy", metavar="FILE", help="penalties of pairs of features, .csv or .npy")
    tables.add_argument("--similarity", metavar="FILE", help="similarity of features, from which penalties are made")
    tables.add_argument("--bias", metavar="FILE", help="bias of each feature, .csv or .npy")
    tables.add_argument("--n-select", type=int, help="features to keep (default: 50)")
    tables.add_argument("--n-per-class", type=int, help="features of each class (default: 5)")
    search = solve.add_argument_group("search")
    search.add_argument("--solver", default="auto", help="see `qpm-opt backends` (default: %(default)s)")
    search.add_argument("--time-limit", type=float, default=300.0, help="seconds, 0: none (default: %(default)g)")
    search.add_argument("--mip-gap", type=float, default=1e-4, help="relative gap to stop at (default: %(default)g)")
    search.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    search.add_argument("--threads", type=int, help="threads (default: what the back end likes)")
    search.add_argument("--start", metavar="FILE", help="a former result to start from")
    search.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="setting of the back end; may be repeated"
    )

    grid = _command(commands, "sweep", _sweep, "solve for a grid of sizes, to choose them by")
    grid.add_argument("problem", metavar="PROBLEM", help="stored problem (.npz), or class similarity (.csv, .npy)")
    grid.add_argument("out", metavar="FOLDER", help="folder for table, plot and points; goes on where it was")
    grid.add_argument("--n-select", dest="grid_select", default="20,30,40,50,60", metavar="LIST")
    grid.add_argument("--n-per-class", dest="grid_class", default="3,5,7", metavar="LIST")
    grid.add_argument(
        "--penalised",
        default="given",
        metavar="LIST",
        help="given (default), and with --similarity: threshold, turan, or shares such as 2%%,5%%",
    )
    grid.add_argument("--redundancy", metavar="FILE", help="penalties, .csv or .npy, with a table of class similarity")
    grid.add_argument("--similarity", metavar="FILE", help="similarity of features, from which penalties are made")
    grid.add_argument("--bias", metavar="FILE", help="bias of each feature, .csv or .npy")
    grid.add_argument("--solver", default="auto", help="see `qpm-opt backends` (default: %(default)s)")
    grid.add_argument("--time-limit", type=float, default=60.0, help="seconds for a point (default: %(default)g)")
    grid.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    grid.add_argument("--workers", type=int, help="points at a time (default: one for every two processors)")
    grid.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler, such as tcp://host:8786")
    grid.set_defaults(n_select=None, n_per_class=None)

    check = _command(commands, "verify", _verify, "check a result against its problem, independently of any solver")
    check.add_argument("problem", metavar="PROBLEM", help="stored problem (.npz)")
    check.add_argument("assignment", metavar="RESULT", help="result, .npz or .json")

    _command(commands, "backends", _backends, "list the solvers: version, what they can do, or what to install")

    show = _command(commands, "show", _show, "print a stored problem or result, and draw it")
    show.add_argument("file", metavar="FILE", help="problem or result")
    show.add_argument("--classes", action="store_true", help="list the features of each class")
    show.add_argument("--plot", metavar="FILE", help="picture to write, such as .png or .pdf")
    show.add_argument("--kind", help="what --plot draws: matrix (default) or convergence")
    return parser


def _command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + "."
    )
    parser.set_defaults(command=function)
    parser.add_argument("--verbose", action="store_true", help="show what the libraries log")
    return parser


if __name__ == "__main__":
    sys.exit(main())
