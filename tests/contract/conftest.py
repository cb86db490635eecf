"""Which back ends the contract runs on: every registered one, and every variant that this machine can run."""

from __future__ import annotations

import pytest

from qpm_opt import BackendUnavailableError, backend_names
from qpm_opt.backends import BACKENDS, load_backend

# `pyomo:highs` is `pyomo` itself.
NAMES = [name for name in backend_names() if name != "pyomo:highs"]


def _usable(name: str) -> bool:
    try:
        load_backend(name).version()
    except BackendUnavailableError:
        return False
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "solver" not in metafunc.fixturenames:
        return
    cases = []
    for name in NAMES:
        # What the package itself depends on must be there; the solvers that Pyomo starts are the user's.
        needed = name in BACKENDS
        missing = not needed and not _usable(name)
        cases.append(pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed")))
    metafunc.parametrize("solver", cases)
