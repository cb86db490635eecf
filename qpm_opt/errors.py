"""The errors of the package.

QPMError
├── InvalidInputError (also ValueError)      an argument is wrong: name, expectation, what came, remedy
│   ├── InfeasibleProblemError               the problem can have no solution; refused at construction
│   └── UnsupportedError                     the chosen back end cannot honour what was asked for
├── BackendUnavailableError (also ImportError)  a solver is not installed; says what to install
├── NoSolutionError                          something of a solution was read where there is none
└── SolverError                              a back end failed or returned something invalid
"""

from __future__ import annotations

__all__ = [
    "BackendUnavailableError",
    "InfeasibleProblemError",
    "InvalidInputError",
    "NoSolutionError",
    "QPMError",
    "SolverError",
    "UnsupportedError",
]


class QPMError(Exception):
    """Base of every error that this project raises on purpose."""


class InvalidInputError(QPMError, ValueError):
    """An argument is wrong; the message names it, what was expected, what came and the remedy."""


class InfeasibleProblemError(InvalidInputError):
    """The constraints contradict each other, so that no assignment can exist."""


class UnsupportedError(InvalidInputError):
    """The chosen back end cannot honour an argument; the message names back ends that can."""


class BackendUnavailableError(QPMError, ImportError):
    """A back end needs something that is not installed; the message says what to install."""


class NoSolutionError(QPMError):
    """A property of a solution was read from a result that holds none."""


class SolverError(QPMError):
    """A back end failed, or what it returned did not pass verification."""
