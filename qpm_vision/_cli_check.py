"""What `qpm-vision check` does, and how findings are told in a terminal."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

from qpm_vision._progress import make_reporter
from qpm_vision.data_check import Check, check_data
from qpm_vision.data_check.page import write_page
from qpm_vision.run_folder import RunFolder

__all__ = ["check", "finding_lines"]

_MARKS = {"wrong": "!!", "doubtful": "! ", "note": "- "}


def check(arguments: argparse.Namespace, data: str) -> None:
    """Look at all images, print the findings, and write the page.

    Args:
        arguments: Of the command.
        data: What to check, with an absolute path.
    """
    with make_reporter() as report:
        found = check_data(
            data,
            test_share=arguments.test_share,
            validation_share=arguments.validation_share,
            seed=arguments.seed,
            on_images=lambda done, total: report.advance("looking at images", done, total),
        )
    print(_summary(found))
    for line in finding_lines(found):
        print(line)
    if arguments.json is not None:
        target = Path(arguments.json)
        RunFolder(target.parent).write_json(target.name, found.to_dict())
    page = Path(arguments.out)
    write_page(found, page)
    print(f"\nwritten to {page}" + ("" if arguments.json is None else f" and {arguments.json}"))


def finding_lines(found: Check) -> Iterator[str]:
    """Each finding with its text and what to do, wrapped."""
    if not found.findings:
        yield "nothing stands out"
    for finding in found.findings:
        yield f"\n{_MARKS[finding.level]} {finding.title}"
        for text in (finding.text, f"→ {finding.cure}"):
            yield textwrap.fill(text, 100, initial_indent="   ", subsequent_indent="   ")


def _summary(found: Check) -> str:
    totals = [sum(counts[place] for _, counts in found.classes) for place in range(len(found.parts))]
    parts = ", ".join(f"{part} {total:,}" for part, total in zip(found.parts, totals, strict=True))
    return f"{found.name}: {found.images:,} images of {len(found.classes)} classes ({parts}), {found.seconds:.1f} s"
