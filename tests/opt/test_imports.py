"""What importing does and does not do, in fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "order", [("highspy", "ortools.sat.python.cp_model"), ("ortools.sat.python.cp_model", "highspy")]
)
def test_highs_and_or_tools_live_in_one_process_in_either_order(order: tuple[str, str]) -> None:
    code = f"""
import {order[0]}, {order[1]}
from ortools.sat.python import cp_model
import highspy, pyomo.environ as pyo
model = cp_model.CpModel()
x = model.new_bool_var("x")
model.maximize(x)
assert cp_model.CpSolver().solve(model) == cp_model.OPTIMAL
highs = highspy.Highs()
highs.silent()
y = highs.addVariable(ub=1.0)
highs.maximize(y)
assert highs.getObjectiveValue() == 1.0
assert pyo.SolverFactory("appsi_highs").available()
"""
    run(code)


@pytest.mark.parametrize("first", ["pyomo", "cpsat"])
def test_both_exact_back_ends_solve_in_one_process(first: str) -> None:
    second = {"pyomo": "cpsat", "cpsat": "pyomo"}[first]
    code = f"""
import numpy as np
from qpm_opt import solve_assignment
A = np.random.default_rng(0).random((4, 7))
values = [solve_assignment(A, n_select=4, n_per_class=2, solver=name).objective for name in {(first, second, first)}]
assert max(values) - min(values) < 1e-6 * max(values), values
"""
    run(code)


def test_the_optimiser_works_without_torch() -> None:
    """And without anything else that only the vision package needs."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "sklearn", "timm", "matplotlib", "rich", "yaml", "PIL"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from qpm_opt import solve_assignment, penalties_from_similarity
import numpy as np
A = np.random.default_rng(0).random((5, 12))
r = penalties_from_similarity(np.corrcoef(A.T), n_select=4)
for solver in ("auto", "pyomo", "cpsat", "local_search"):
    result = solve_assignment(A, r, n_select=4, n_per_class=2, solver=solver)
    print(result.status.value, result)
assert "torch" not in sys.modules
"""
    assert "optimal" in run(code)


def test_importing_the_package_imports_no_solver() -> None:
    loaded = run(
        "import sys, qpm_opt; print(*[m for m in ('pyomo', 'highspy', 'ortools', 'torch') if m in sys.modules])"
    )
    assert loaded.strip() == ""


def test_the_optimiser_never_names_torch_or_the_vision_package() -> None:
    for path in (ROOT / "qpm_opt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"torch", "qpm_vision"}, path


def test_the_vision_package_uses_the_public_face_alone() -> None:
    for path in (ROOT / "qpm_vision").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qpm_opt"):
                assert node.module == "qpm_opt", f"{path} imports {node.module}"


@pytest.mark.parametrize("package", ["qpm_opt", "qpm_vision"])
def test_public_names_are_sorted_and_exist(package: str) -> None:
    code = f"""
import {package} as package
assert list(package.__all__) == sorted(package.__all__)
for name in package.__all__:
    getattr(package, name)
assert set(package.__all__) <= set(dir(package))
"""
    run(code)


def test_the_version_is_the_packages() -> None:
    assert run("import importlib.metadata as m; print(m.version('qpm'))").strip()
