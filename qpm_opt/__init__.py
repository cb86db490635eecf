"""Choose a few shared features that describe every class: the assignment problem of QPM and solvers for it."""

from __future__ import annotations

from qpm_opt.api import solve_assignment
from qpm_opt.backends import backend_names, backend_version
from qpm_opt.backends.search_log import Progress
from qpm_opt.command_line import parse_arguments
from qpm_opt.conversion import plain_array
from qpm_opt.errors import (
    BackendUnavailableError,
    InfeasibleProblemError,
    InvalidInputError,
    NoSolutionError,
    QPMError,
    SolverError,
    UnsupportedError,
)
from qpm_opt.figure_text import drawable, literal_text
from qpm_opt.files import hold_lock, refuse_overwriting
from qpm_opt.output import Output, steady_output
from qpm_opt.problem import AssignmentProblem, Terms
from qpm_opt.processes import end_with_parent
from qpm_opt.processors import available_processors
from qpm_opt.redundancy import Penalties, penalties_from_similarity
from qpm_opt.solution import Assignment, SolutionStatus, Termination, TracePoint
from qpm_opt.sweep import SweepPoint, sweep
from qpm_opt.tables import read_csv
from qpm_opt.text import alike_but_for_case, normal_text, printable
from qpm_opt.verify import Verification, verify

__all__ = [
    "Assignment",
    "AssignmentProblem",
    "BackendUnavailableError",
    "InfeasibleProblemError",
    "InvalidInputError",
    "NoSolutionError",
    "Output",
    "Penalties",
    "Progress",
    "QPMError",
    "SolutionStatus",
    "SolverError",
    "SweepPoint",
    "Termination",
    "Terms",
    "TracePoint",
    "UnsupportedError",
    "Verification",
    "alike_but_for_case",
    "available_processors",
    "backend_names",
    "backend_version",
    "drawable",
    "end_with_parent",
    "hold_lock",
    "literal_text",
    "normal_text",
    "parse_arguments",
    "penalties_from_similarity",
    "plain_array",
    "printable",
    "read_csv",
    "refuse_overwriting",
    "solve_assignment",
    "steady_output",
    "sweep",
    "verify",
]
