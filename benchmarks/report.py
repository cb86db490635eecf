"""Tables and plots of finished runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from benchmarks.runner import Run

__all__ = ["load_runs", "markdown_table", "write_report"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
_PANELS = 4
_WORTHLESS = 200.0
"""Gaps in percent above this are not shown."""

_LABELS = {
    "decomposition": "decomposition (ours)",
    "pyomo": "HiGHS, plain model",
    "cpsat": "CP-SAT, plain model",
    "pyomo:scip": "SCIP, plain model",
    "pyomo:gurobi": "Gurobi, plain model",
    "local_search": "swap search alone",
    "greedy": "greedy",
}


def load_runs(folder: Path) -> list[Run]:
    """All runs that a folder holds."""
    return [Run.load(path) for path in sorted(folder.glob("*--*.json"))]


def write_report(folder: Path) -> list[Path]:
    """Write `runs.csv`, `table.md` and the plots that the runs in a folder allow."""
    runs = load_runs(folder)
    columns = [item.name for item in fields(Run) if item.name != "trace"]
    pd.DataFrame([{name: getattr(run, name) for name in columns} for run in runs], columns=columns).to_csv(
        folder / "runs.csv", index=False
    )
    (folder / "table.md").write_text(markdown_table(runs) + "\n", encoding="utf-8")
    written = [folder / "runs.csv", folder / "table.md"]
    plots: dict[str, Callable[[Any, Sequence[Run]], bool]] = {
        "gap_over_time.png": _plot_gaps,
        "performance_profile.png": _plot_profile,
        "time_by_classes.png": lambda figure, some: _plot_growth(figure, some, "n_classes"),
        "time_by_features.png": lambda figure, some: _plot_growth(figure, some, "n_features"),
    }
    from matplotlib.figure import Figure

    for name, draw in plots.items():
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        if draw(figure, runs):
            figure.savefig(folder / name, dpi=130)
            written.append(folder / name)
    return written


def markdown_table(runs: Iterable[Run]) -> str:
    """One line for each instance and solver, small instances first, medians over the seeds."""
    head = ["instance", "pairs", "solver", "seeds", "first", "≤ 1 %", "≤ 0.1 %", "proof", "objective", "gap", "memory"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    order = {solver: place for place, solver in enumerate(_LABELS)}
    for run in sorted(runs, key=lambda run: (_size(run), run.instance, order.get(run.solver, len(order)))):
        groups[run.instance, run.solver].append(run)
    for (instance, solver), group in groups.items():
        cells = [
            Path(instance).name,
            f"{group[0].penalised_share:.1%}",
            _LABELS.get(solver, solver),
            str(len(group)),
            *(_seconds([getattr(run, name) for run in group]) for name in ("first", "to_1_percent")),
            *(_seconds([getattr(run, name) for run in group]) for name in ("to_0_1_percent", "to_proof")),
            _middle([run.objective for run in group], "{:.4f}"),
            _middle([None if run.gap is None else 100.0 * run.gap for run in group], "{:.3f} %"),
            _middle([run.peak_memory for run in group], "{:.0f} MB"),
        ]
        if all(run.objective is None for run in group):
            cells[-3] = group[0].termination
        elif all(run.peak_memory is None for run in group):
            cells[-1] = group[0].termination
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _size(run: Run) -> int:
    return run.n_classes * run.n_features


def _seconds(values: Sequence[float | None]) -> str:
    """The median of times; what was not reached counts as later than everything."""
    middle = median(float("inf") if value is None else value for value in values)
    return "–" if middle == float("inf") else f"{middle:.2f} s" if middle < 10 else f"{middle:.0f} s"


def _middle(values: Sequence[float | None], text: str) -> str:
    known = [value for value in values if value is not None]
    return text.format(median(known)) if known else "–"


def _solvers(runs: Iterable[Run]) -> list[str]:
    present = {run.solver for run in runs}
    return [name for name in _LABELS if name in present] + sorted(present - set(_LABELS))


def _look(solver: str) -> dict[str, Any]:
    names = list(_LABELS)
    index = names.index(solver) % len(_COLOURS) if solver in names else len(_COLOURS) - 1
    return {"color": _COLOURS[index], "linestyle": _STYLES[index], "label": _LABELS.get(solver, solver)}


def _plot_gaps(figure: Any, runs: Sequence[Run]) -> bool:
    """The gap over time on the largest instances that most solvers ran on, at the first seed."""
    by_instance: dict[str, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        by_instance[run.instance].setdefault(run.solver, run)
    shown = [name for name, some in by_instance.items() if any(run.gaps() for run in some.values())]
    if not shown:
        return False
    size = {name: _size(next(iter(some.values()))) for name, some in by_instance.items()}
    shown = sorted(shown, key=lambda name: (-len(by_instance[name]), -size[name]))[:_PANELS]
    shown.sort(key=lambda name: size[name])
    rows = math.ceil(len(shown) / 2)
    figure.set_size_inches(7.0 if len(shown) == 1 else 9.0, 1.0 + 3.2 * rows)
    known = {_look(solver)["label"] for solver in _solvers(runs)}
    axes = figure.subplots(rows, min(2, len(shown)), squeeze=False, sharex=True, sharey=True)
    places = axes.ravel()[: len(shown)]
    for spare in axes.ravel()[len(shown) :]:
        spare.set_axis_off()
    for place, instance in zip(places, shown, strict=True):
        for solver in _solvers(by_instance[instance].values()):
            run = by_instance[instance][solver]
            gaps = run.gaps()
            if not gaps:
                continue
            times = [max(time, 0.01) for time, _ in gaps] + [max(run.runtime or 0.0, gaps[-1][0], 0.01)]
            values = [max(gap, 1e-5) for _, gap in gaps]
            percent = [100.0 * gap for gap in [*values, values[-1]]]
            place.step(times, percent, where="post", lw=1.8, marker="o", markevery=[-1], **_look(solver))
        place.set(xscale="log", yscale="log", title=Path(instance).name)
        place.axhline(0.01, color="0.6", lw=0.8)
        place.grid(alpha=0.3)
    # All share one axis, whose limits stay as they are once one of them has been set: after everything has been drawn.
    places[0].set_ylim(top=min(places[0].get_ylim()[1], _WORTHLESS))
    for place in axes[:, 0]:
        place.set_ylabel("proven gap (%)")
    for place in places[-axes.shape[1] :]:
        place.set_xlabel("seconds")
        place.xaxis.set_tick_params(labelbottom=True)
    lines = {line.get_label(): line for place in places for line in place.get_lines() if line.get_label() in known}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False)
    return True


def _plot_profile(figure: Any, runs: Sequence[Run]) -> bool:
    """Share of all instances that a solver brought to a gap of 1 % within a time; not tried is not reached."""
    count = len({run.instance for run in runs})
    reached: dict[str, list[float]] = {}
    for solver in _solvers(runs):
        by_instance: dict[str, list[float]] = defaultdict(list)
        for run in runs:
            if run.solver == solver:
                by_instance[run.instance].append(float("inf") if run.to_1_percent is None else run.to_1_percent)
        reached[solver] = sorted(median(times) for times in by_instance.values())
    if count < 3:
        return False
    place = figure.subplots()
    last = max((run.time_limit for run in runs), default=1.0)
    for solver, times in reached.items():
        known = [max(time, 0.01) for time in times if time < float("inf")]
        shares = [100.0 * (index + 1) / count for index in range(len(known))]
        place.step([0.01, *known, last], [0.0, *shares, shares[-1] if shares else 0.0], where="post", **_look(solver))
    place.set(xscale="log", xlabel="seconds", ylabel="instances with a gap of at most 1 % (%)", ylim=(-3, 103))
    place.grid(alpha=0.3)
    place.legend(frameon=False)
    return True


def _plot_growth(figure: Any, runs: Sequence[Run], size: str) -> bool:
    """Time to a gap of 0.1 % against one size, on the instances that are alike otherwise."""
    other = "n_features" if size == "n_classes" else "n_classes"
    kinds: dict[tuple[int, str], set[int]] = defaultdict(set)
    for run in runs:
        if run.instance.startswith("generated"):
            kinds[getattr(run, other), run.instance.rpartition("-")[2]].add(getattr(run, size))
    fixed, sizes = max(kinds.items(), key=lambda item: len(item[1]), default=((0, ""), set()))
    if len(sizes) < 3:
        return False
    limit = max(run.time_limit for run in runs)
    place = figure.subplots()
    lines = 0
    for solver in _solvers(runs):
        times: dict[int, list[float]] = defaultdict(list)
        for run in runs:
            same = (getattr(run, other), run.instance.rpartition("-")[2]) == fixed
            if run.solver == solver and same:
                reached = run.to_0_1_percent
                times[getattr(run, size)].append(float("inf") if reached is None else reached)
        points = [(at, max(median(values), 0.01)) for at, values in sorted(times.items())]
        known = [(at, value) for at, value in points if value < float("inf")]
        missed = [at for at, value in points if value == float("inf")]
        if not known:
            continue
        lines += len(known) > 1
        place.plot(*zip(*known, strict=True), marker="o", **_look(solver))
        place.plot(missed, [limit] * len(missed), color=_look(solver)["color"], marker="^", ls="", mfc="none")
    if not lines:
        return False
    noun = {"n_classes": "classes", "n_features": "features"}
    place.set(xscale="log", yscale="log", xlabel=noun[size], ylabel="seconds to a gap of 0.1 % (△: not reached)")
    place.set_xticks(sorted(sizes), [str(at) for at in sorted(sizes)])
    place.set_xticks([], minor=True)
    place.set_title(f"{fixed[0]} {noun[other]}, {fixed[1]}")
    place.grid(alpha=0.3, which="both")
    place.legend(frameon=False)
    return True
