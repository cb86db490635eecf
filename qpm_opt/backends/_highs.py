"""HiGHS on a compiled Pyomo model, with callbacks, warm start, interruption and checked options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import Any

import highspy
import numpy as np
from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler

from qpm_opt._validation import FloatArray
from qpm_opt.backends._background import run_interruptibly
from qpm_opt.errors import InvalidInputError, SolverError
from qpm_opt.solution import Termination

__all__ = ["Outcome", "check_options", "compile_model", "solve", "version"]


_CHANGES_THE_PROOF = ("objective_bound", "objective_target")


@dataclass(frozen=True)
class Outcome:
    """How a solve ended.

    Attributes:
        termination: OPTIMAL, TIME_LIMIT, INTERRUPTED or INFEASIBLE.
        values: Value of every column, or None.
        bound: Proven bound, or None.
    """

    termination: Termination
    values: FloatArray | None
    bound: float | None


def version() -> str:
    """Version of HiGHS."""
    return package_version("highspy")


def check_options(options: Mapping[str, Any] | None) -> None:
    """Raise where HiGHS does not know an option or does not take its value: by itself it would only print a line."""
    solver = highspy.Highs()
    solver.silent()
    for name, value in (options or {}).items():
        if name in _CHANGES_THE_PROOF:
            raise InvalidInputError(f"The option {name!r} of HiGHS would make its bound a false one; leave it out.")
        try:
            taken = solver.setOptionValue(name, value) == highspy.HighsStatus.kOk
        except TypeError:
            taken = False
        if not taken:
            status, kind = solver.getOptionType(name)
            if status != highspy.HighsStatus.kOk:
                raise InvalidInputError(f"HiGHS has no option {name!r}; its options are listed at highs.dev.")
            raise InvalidInputError(f"HiGHS does not take {value!r} for its option {name!r} (a {kind}).")


def compile_model(model: Any) -> Any:
    """Columns, rows and objective of a linear Pyomo model as sparse arrays."""
    return LinearStandardFormCompiler().write(model, mixed_form=True, set_sense=None)


def solve(
    matrix: Any,
    *,
    start: FloatArray | None,
    time_limit: float,
    mip_gap: float,
    threads: int | None,
    seed: int,
    native_options: Mapping[str, Any] | None,
    on_solution: Callable[[FloatArray], None],
    on_bound: Callable[[float], Any],
    on_wait: Callable[[], Any],
) -> Outcome:
    """Maximise a compiled model.

    Args:
        matrix: From `compile_model`, a maximisation.
        start: Value of every column, or None.
        time_limit: Seconds, may be infinite.
        mip_gap: Relative gap to stop at.
        threads: Threads, None: HiGHS' choice.
        seed: Seed.
        native_options: Options of HiGHS, already checked.
        on_solution: Called in this thread with improving solutions.
        on_bound: Called in this thread with proven bounds.
        on_wait: Called in this thread again and again.
    """
    solver = highspy.Highs()
    solver.silent()
    options: dict[str, Any] = {
        "mip_rel_gap": mip_gap,
        "mip_abs_gap": 1e-9,
        "random_seed": seed % 2**31,
        **({} if threads is None else {"threads": threads}),
        **({"time_limit": time_limit} if math.isfinite(time_limit) else {}),
        **(native_options or {}),
    }
    for name, value in options.items():
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise SolverError(f"HiGHS does not take {value!r} for its option {name!r}.")
    if solver.passModel(_linear_program(matrix)) == highspy.HighsStatus.kError:
        raise SolverError("HiGHS does not take the model.")
    if start is not None:
        solution = highspy.HighsSolution()
        solution.col_value = start.tolist()
        solver.setSolution(solution)

    solutions: list[FloatArray] = []
    bounds: list[float] = []
    solver.HandleUserInterrupt = True
    solver.cbMipImprovingSolution += lambda event: solutions.append(np.array(event.data_out.mip_solution))
    solver.cbMipLogging += lambda event: bounds.append(float(event.data_out.mip_dual_bound))

    def poll() -> None:
        while solutions:
            on_solution(solutions.pop(0))
        while bounds:
            bound = bounds.pop(0)
            if abs(bound) < highspy.kHighsInf:
                on_bound(bound)
        on_wait()

    def run() -> None:
        try:
            solver.run()
        finally:
            # HiGHS' own threads belong to the thread that first ran it. Left alive they keep a second solver from
            # another number of threads, and abort the process when it ends.
            highspy.Highs.resetGlobalScheduler(True)

    run_interruptibly(run, poll=poll, cancel=solver.cancelSolve)
    poll()
    return _outcome(solver)


def _linear_program(matrix: Any) -> Any:
    lp = highspy.HighsLp()
    columns = matrix.columns
    coefficients = matrix.A.tocsc()
    right = np.asarray(matrix.rhs, dtype=np.float64)
    kind = np.array([row.bound_type for row in matrix.rows])
    lp.num_col_, lp.num_row_ = len(columns), len(right)
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = matrix.c.toarray()[0]
    lp.offset_ = float(np.asarray(matrix.c_offset).ravel()[0])
    lp.col_lower_ = np.array([-highspy.kHighsInf if v.lb is None else v.lb for v in columns], dtype=np.float64)
    lp.col_upper_ = np.array([highspy.kHighsInf if v.ub is None else v.ub for v in columns], dtype=np.float64)
    lp.row_lower_ = np.where(kind == 1, -highspy.kHighsInf, right)
    lp.row_upper_ = np.where(kind == -1, highspy.kHighsInf, right)
    lp.integrality_ = [
        highspy.HighsVarType.kInteger if v.is_integer() or v.is_binary() else highspy.HighsVarType.kContinuous
        for v in columns
    ]
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = coefficients.indptr
    lp.a_matrix_.index_ = coefficients.indices
    lp.a_matrix_.value_ = coefficients.data
    return lp


def _outcome(solver: Any) -> Outcome:
    status = solver.getModelStatus()
    known = highspy.HighsModelStatus
    terminations = {
        known.kOptimal: Termination.OPTIMAL,
        known.kInfeasible: Termination.INFEASIBLE,
        known.kUnboundedOrInfeasible: Termination.INFEASIBLE,  # every variable is bounded
        known.kTimeLimit: Termination.TIME_LIMIT,
        known.kInterrupt: Termination.INTERRUPTED,
        known.kSolutionLimit: Termination.SOLVER_LIMIT,
        known.kIterationLimit: Termination.SOLVER_LIMIT,
        known.kObjectiveBound: Termination.SOLVER_LIMIT,
        known.kObjectiveTarget: Termination.SOLVER_LIMIT,
        known.kMemoryLimit: Termination.SOLVER_LIMIT,
    }
    if status not in terminations:
        raise SolverError(f"HiGHS stopped with the status '{solver.modelStatusToString(status)}'.")
    termination = terminations[status]
    info = solver.getInfo()
    if termination is Termination.INFEASIBLE:
        return Outcome(termination, None, None)
    values = None
    if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
        values = np.array(solver.getSolution().col_value)
    bound = float(info.mip_dual_bound)
    return Outcome(termination, values, bound if abs(bound) < highspy.kHighsInf else None)
