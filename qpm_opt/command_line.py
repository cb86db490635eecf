"""What the command lines of both packages share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["parse_arguments"]


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments, none of which may be empty: as a path that would be the current folder.

    Args:
        parser: Ends the program with its usage where an argument is wrong.
        argv: Arguments without the name of the program; None: those of the process.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if "" in given:
        parser.error(
            f"argument {given.index('') + 1} is empty, as a variable of the shell that is not set; give it a value, or "
            "leave it out"
        )
    return parser.parse_args(given)
