"""The registry of back ends: found by name, looked up without importing a solver.

`BACKENDS` maps a name to the module behind it and the packages that it needs. A name with a colon, such as `pyomo:cbc`,
hands what follows the colon to the module.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import cast

from qpm_opt._validation import nearest
from qpm_opt.backends.base import Backend
from qpm_opt.errors import BackendUnavailableError, InvalidInputError

__all__ = ["BACKENDS", "BackendSpec", "backend_names", "backend_version", "load_backend", "missing_packages"]


@dataclass(frozen=True)
class BackendSpec:
    """Where a back end lives.

    Attributes:
        module: Module to import when it is used.
        needs: Packages that must be installed, as import name → what pip installs.
        about: One line for tables.
        variants: Solvers that may follow a colon.
    """

    module: str
    needs: dict[str, str]
    about: str
    variants: tuple[str, ...] = ()


BACKENDS: dict[str, BackendSpec] = {
    "cpsat": BackendSpec(
        "qpm_opt.backends.cp_sat", {"ortools": "ortools"}, "constraint programming on scaled integers, exact"
    ),
    "decomposition": BackendSpec(
        "qpm_opt.backends.decomposition",
        {"highspy": "'highspy>=1.11,<1.14'"},
        "swap search, cutting planes, semidefinite bound and branch and cut on the features: exact at full size",
    ),
    "local_search": BackendSpec(
        "qpm_opt.backends.local_search", {}, "swap search with restarts: good solutions fast, a weak bound"
    ),
    "pyomo": BackendSpec(
        "qpm_opt.backends.pyomo_milp",
        {"pyomo": "pyomo", "highspy": "'highspy>=1.11,<1.14'"},
        "mixed-integer linear model, exact; HiGHS, or any solver that Pyomo drives",
        ("highs", "cbc", "glpk", "gurobi", "scip"),
    ),
}


def backend_names() -> tuple[str, ...]:
    """Every name that `solver=` takes, variants included, besides "auto"."""
    return tuple(
        name
        for base, spec in sorted(BACKENDS.items())
        for name in (base, *(f"{base}:{variant}" for variant in spec.variants))
    )


def missing_packages(spec: BackendSpec) -> list[str]:
    """What pip has to install before the back end can be used."""
    return [package for name, package in spec.needs.items() if importlib.util.find_spec(name) is None]


def backend_version(name: str) -> str:
    """Version of the solver behind a back end.

    Raises:
        InvalidInputError: There is no back end of that name.
        BackendUnavailableError: Something it needs is not installed; the message says what to install.
    """
    return load_backend(name).version()


def load_backend(name: str) -> Backend:
    """The back end of that name.

    Raises:
        InvalidInputError: There is none of that name.
        BackendUnavailableError: Something it needs is not installed.
    """
    base, colon, variant = str(name).partition(":")
    spec = BACKENDS.get(base)
    if spec is None or (colon and (not spec.variants or not variant)):
        raise InvalidInputError(
            f"The 'solver' parameter must name a back end. Got {name!r}."
            + nearest(str(name), ["auto", *backend_names()])
        )
    missing = missing_packages(spec)
    if missing:
        raise BackendUnavailableError(f"The back end {name!r} needs packages: pip install {' '.join(missing)}")
    module = importlib.import_module(spec.module)
    # A module that serves several solvers makes the back end for one of them.
    return cast("Backend", module.variant(variant or spec.variants[0]) if spec.variants else module)
