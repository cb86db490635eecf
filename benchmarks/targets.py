"""What the decomposition is to reach on the sizes of the published method, and whether it does.

    python -m benchmarks.targets [--seeds 3] [--out results/targets] [--resume] [--instance NAME …]

Every instance runs once for each seed, to its last deadline; the table holds the median gap at each deadline. What was
interrupted goes on with `--resume`, which keeps the finished runs of the folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.runner import Run, measure_into

__all__ = ["TARGETS", "main", "target_table"]

TARGETS: dict[str, tuple[tuple[float, float], ...]] = {
    "generated-200x2048-turan": ((15.0, 1e-3), (60.0, 1e-4)),
    "generated-200x2048-5%": ((60.0, 1e-3), (600.0, 1e-4)),
    "generated-200x2048-10%": ((120.0, 5e-3), (600.0, 1e-3)),
    "generated-200x2048-threshold": ((120.0, 1.2e-2), (600.0, 7e-3)),
    "generated-1000x2048-turan": ((120.0, 1e-3), (900.0, 1e-4)),
    "generated-1000x2048-threshold": ((180.0, 1.2e-2), (900.0, 7e-3)),
    "hangul-turan": ((30.0, 3e-3), (300.0, 1e-4)),
    "hangul-10%": ((300.0, 1.2e-2),),
    "hangul-threshold": ((60.0, 2.5e-2), (300.0, 1.5e-2)),
}
"""Deadlines in seconds and the gap to be proven by then, on two cores; 50 features, 5 for each class."""


def target_table(runs: Sequence[Run]) -> str:
    """The targets of the instances that were run, as Markdown."""
    lines = ["| instance | pairs | objective | deadline | target | gap, median | met |", "|" + " --- |" * 7]
    for instance, deadlines in TARGETS.items():
        group = [run for run in runs if run.instance == instance]
        if not group:
            continue
        objective = median(run.objective for run in group if run.objective is not None)
        for seconds, target in deadlines:
            gaps = [run.gap_at(seconds) for run in group]
            if seconds > max(run.time_limit for run in group) and any(run.to_proof is None for run in group):
                continue  # not run for that long
            reached = median(float("inf") if gap is None else gap for gap in gaps)
            cells = [instance, f"{group[0].penalised_share:.1%}", f"{objective:.3f}", f"{seconds:g} s"]
            cells += [f"{100 * target:g} %", f"{100 * reached:.3f} %", "yes" if reached <= target + 1e-12 else "no"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/targets"))
    parser.add_argument("--instance", action="append", choices=list(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--first-deadline", action="store_true", help="stop at each instance's first deadline")
    parser.add_argument("--resume", action="store_true", help="keep the finished runs of the folder, made by this code")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(options.seeds):
        for instance in options.instance or TARGETS:
            limit = TARGETS[instance][0 if options.first_deadline else -1][0]
            run = measure_into(options.out, instance, "decomposition", seed, limit, resume=options.resume)
            runs.append(run)
            gap = "no gap" if run.gap is None else f"gap {100 * run.gap:.4f} %"
            print(f"{instance}, seed {seed}: {run.termination}, {gap}, {run.peak_memory or 0:.0f} MB", flush=True)
    table = target_table(runs)
    (options.out / "targets.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    return 0 if "| no |" not in table else 1


if __name__ == "__main__":
    sys.exit(main())
