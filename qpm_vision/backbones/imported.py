"""A backbone of the user's own, by import path."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from qpm_opt import InvalidInputError
from qpm_vision.backbones.base import Backbone

__all__ = ["build_imported"]


def build_imported(path: str) -> Backbone:
    """Call a function that makes a backbone.

    Args:
        path: Module and function, "my_package.my_module:build"; modules in the current folder are found too. The
            function takes nothing and returns a `Backbone`.

    Raises:
        InvalidInputError: It cannot be imported, or returns something else.
    """
    name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(name), attribute)
    except Exception as error:  # whatever a module does when it is imported
        raise InvalidInputError(
            f"The 'backbone' parameter must name a function that can be imported, as 'my.module:build'. Got {path!r}: "
            f"{error}. Run from the folder of the module, or install it."
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    backbone = function()
    if not isinstance(backbone, Backbone):
        raise InvalidInputError(
            f"The function {path!r} must return a Backbone. Got a {type(backbone).__name__}; wrap the module: "
            "Backbone(module, layer=…, preprocessing=…)."
        )
    return backbone
