"""Settings of the solver behind a back end, passed through by name."""

from __future__ import annotations

from qpm_opt.backends.base import Option

__all__ = ["native_option"]


def native_option(solver: str, example: str) -> Option:
    """The option that carries a solver's own settings by name."""
    return Option(None, f"settings of {solver} itself as a mapping: {example}")
