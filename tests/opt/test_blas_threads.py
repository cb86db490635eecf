"""Threads of linear algebra libraries come back as they were, also where solves overlap."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - brings SciPy's library
from threadpoolctl import threadpool_info, threadpool_limits

from qpm_opt import solve_assignment
from qpm_opt.backends import _blas_threads, load_backend
from qpm_opt.backends._blas_threads import blas_threads


def _numbers() -> dict[str, int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {info["filepath"]: info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _blas_threads._VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_every_library_has_one_thread_and_gets_its_own_back() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = _numbers()
        with blas_threads(None):
            assert set(_numbers().values()) == {1}
        assert _numbers() == before


@pytest.mark.parametrize("name", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_what_the_environment_says_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    with threadpool_limits(2, user_api="blas"):
        before = _numbers()
        if len(before) < 2:
            pytest.skip("NumPy and SciPy share one library")
        with blas_threads(None):
            assert {path: number for path, number in _numbers().items() if number != before[path]} == {
                path: 1 for path in before if "numpy" in path
            }
        assert _numbers() == before


@pytest.mark.parametrize("solver", ["decomposition", "local_search", "cpsat", "pyomo:highs"])
@pytest.mark.parametrize(("threads", "most"), [(None, 1), (1, 1), (2, 2)])
def test_solvers_get_as_many_as_they_are_given(
    solver: str, threads: int | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not load_backend(solver).CAPABILITIES.threads and threads == 2:
        pytest.skip("it takes no threads")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    seen: set[int] = set()
    with threadpool_limits(2, user_api="blas"):
        solve_assignment(
            np.random.default_rng(0).random((4, 9)),
            n_select=4,
            n_per_class=2,
            solver=solver,
            threads=threads,
            progress=lambda _: seen.update(_numbers().values()),
        )
    assert max(seen) == most


def test_a_number_holds_for_the_others_until_the_last_of_two_that_overlap_ends() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = _numbers()
        first, second = blas_threads(1), blas_threads(None)
        first.__enter__()
        second.__enter__()
        assert set(_numbers().values()) == {1}
        first.__exit__(None, None, None)
        assert set(_numbers().values()) == {1}
        second.__exit__(None, None, None)
        assert _numbers() == before


def test_an_error_gives_them_back() -> None:
    before = _numbers()
    with pytest.raises(ValueError, match="within"), blas_threads(1):
        raise ValueError("within")
    assert _numbers() == before
