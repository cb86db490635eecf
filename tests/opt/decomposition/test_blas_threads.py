"""Threads of linear algebra libraries come back as they were, also where solves overlap."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - brings SciPy's library
from threadpoolctl import threadpool_info, threadpool_limits

from qpm_opt.backends.decomposition.blas_threads import blas_threads


def _numbers() -> dict[str, int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {info["filepath"]: info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


def test_numpys_library_has_one_thread_and_gets_its_own_back() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = _numbers()
        if len(before) < 2:
            pytest.skip("NumPy and SciPy share one library")
        with blas_threads(None):
            assert {path: number for path, number in _numbers().items() if number != before[path]} == {
                path: 1 for path in before if "numpy" in path
            }
        assert _numbers() == before


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
