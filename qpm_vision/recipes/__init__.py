"""Configurations by name, each a YAML file in this folder: to be printed, copied and changed."""

from __future__ import annotations

import difflib
from importlib import resources
from typing import Any

import yaml

from qpm_opt import InvalidInputError

__all__ = ["DEFAULT", "read_recipe", "recipe_names", "recipe_text"]

DEFAULT = "small"
"""The recipe of a run that names none."""

_SUFFIX = ".yaml"


def recipe_names() -> tuple[str, ...]:
    """The recipes, sorted.

    Example:
        >>> "paper-cub" in recipe_names()
        True
    """
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX)))


def recipe_text(name: str) -> str:
    """The file of a recipe, with its comments.

    Raises:
        InvalidInputError: There is no such recipe; names the nearest one.
    """
    known = recipe_names()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidInputError(f"The 'recipe' parameter must be one of {', '.join(known)}. Got {name!r}.{hint}")
    return resources.files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")


def read_recipe(name: str) -> dict[str, Any]:
    """What a recipe says: keys of `RunConfig` and their values.

    Raises:
        InvalidInputError: There is no such recipe.
    """
    values: dict[str, Any] = yaml.safe_load(recipe_text(name))
    return values
