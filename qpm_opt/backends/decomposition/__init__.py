"""Our own exact solver: everything is a function of the kept features alone.

Once the kept set S is known, each class takes its best features in it, uniqueness aside, so only the n_features
binaries s are left to search:

    F(S) = Σ_c (sum of the k best of σA[c, S]) − Σ_{i<j ∈ S} r_ij + Σ_{f ∈ S} b_f

One paragraph of the method, one module: `class_values` (the first sum as a concave function of fractional s), `cuts`
and `master` (the cutting-plane program), `overlaps` (what classes that have to differ may share, at fractional s),
`uniqueness` (prices that make classes avoid each other, at whole s), `semidefinite` with `conditional_values`,
`disjunctions`, `triangles` and `quadric` (the bound for many penalised pairs), `tree` (branch and cut), `team` (the
same on several threads), `search` (what is done when). Sets are found by the swap search that the package shares;
`set_search` says where it begins.
"""

from __future__ import annotations

from importlib.metadata import version as package_version

from qpm_opt.backends.base import Capabilities, Request
from qpm_opt.backends.decomposition.search import Search
from qpm_opt.backends.search_log import SearchLog
from qpm_opt.problem import AssignmentProblem
from qpm_opt.solution import Termination

__all__ = ["CAPABILITIES", "solve", "version"]

CAPABILITIES = Capabilities(proves_optimality=True, threads=True)


def version() -> str:
    """Version of this package."""
    return package_version("qpm")


def solve(problem: AssignmentProblem, request: Request, log: SearchLog) -> Termination:
    """Search and prove until the gap is closed or the time is up."""
    return Search(problem, request, log).run()
