"""Solvers against each other on registered instances.

python -m benchmarks                                     # what there is
python -m benchmarks run --quick                         # a minute, as in CI
python -m benchmarks run --suite ladder --seeds 3        # every size, every solver
python -m benchmarks run --instance my.npz --solver decomposition --solver cpsat
python -m benchmarks report results/ladder               # tables and plots again

Of the vision side: python -m benchmarks.vision, benchmarks.streaming_similarity, benchmarks.scale
Of a busy machine: python -m benchmarks.contention
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.instances import GROWING, SUITES, load_instance
from benchmarks.report import markdown_table, write_report
from benchmarks.runner import FAILED, SOLVERS, Run, measure_into, unavailable

_QUICK_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 1 where a run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command")
    run = commands.add_parser("run", help="run solvers on instances")
    run.add_argument("--suite", choices=list(SUITES), help="instances that belong together")
    run.add_argument("--instance", action="append", default=[], help="a name or a problem's .npz file; may be repeated")
    run.add_argument("--solver", action="append", help=f"default: all of {', '.join(SOLVERS)}")
    run.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, … (default: 1)")
    run.add_argument("--time-limit", type=float, default=60.0, help="seconds for a run (default: 60)")
    run.add_argument("--threads", type=int, help="threads of solvers that take a number")
    run.add_argument("--out", type=Path, help="folder for the results (default: results/SUITE)")
    run.add_argument("--resume", action="store_true", help="keep the finished runs of the folder, made by this code")
    run.add_argument("--quick", action="store_true", help="small instances, some seconds each")
    report = commands.add_parser("report", help="tables and plots of finished runs")
    report.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "report":
        print(*write_report(options.folder), sep="\n")
        return 0
    if options.command != "run":
        _list()
        return 0
    return _run(options)


def _list() -> None:
    for suite, instances in SUITES.items():
        print(f"{suite}: {', '.join(instances)}")
    for solver in SOLVERS:
        print(f"{solver:<16}{unavailable(solver) or 'available'}")


def _run(options: argparse.Namespace) -> int:
    suite = "quick" if options.quick else options.suite
    instances = [*options.instance, *(SUITES[suite] if suite else ())]
    if not instances:
        print("Nothing to run: give --suite, --instance or --quick.", file=sys.stderr)
        return 2
    for instance in instances:
        if not instance.endswith(".npz"):
            continue
        load_instance(instance)  # a wrong file is refused before anything has run
    limit = min(options.time_limit, _QUICK_SECONDS) if options.quick else options.time_limit
    folder = options.out or Path("results") / (suite or "runs")
    folder.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for solver in options.solver or SOLVERS:
        reason = unavailable(solver)
        if reason:
            print(f"{solver} is left out: {reason}")
            continue
        for instance in instances:
            for seed in range(options.seeds):
                run = measure_into(folder, instance, solver, seed, limit, options.threads, resume=options.resume)
                runs.append(run)
                gap = "" if run.gap is None else f", gap {100 * run.gap:.3f} %"
                print(f"{solver} on {instance}, seed {seed}: {run.termination}{gap}", flush=True)
            if suite in GROWING and run.runtime is None:
                print(f"{solver} is not tried on larger instances.", flush=True)
                break
    print(markdown_table(runs))
    print(*write_report(folder), sep="\n")
    return int(any(run.termination == FAILED for run in runs))


if __name__ == "__main__":
    sys.exit(main())
