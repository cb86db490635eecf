"""What the values in a JSON file must be, written as values of the same form."""

from __future__ import annotations

from typing import Any, Final

from qpm_vision._reading import shortened

__all__ = ["NUMBER", "SHARE", "Form", "require_form"]

Form = Any
"""A type; a list of one form, for lists of it; a dict of forms by key, where "key?" may be missing; or a tuple of such,
one of which must do. Keys that a form does not name may hold anything."""

NUMBER: Final = (float, None)
"""A number, or null."""

SHARE: Final = "share"
"""A number between 0 and 1."""


def require_form(value: Any, form: Form, where: str = "it") -> None:
    """Raise where a value is of another form.

    Raises:
        ValueError: Says where in the value.

    Example:
        >>> require_form({"names": ["a", 1]}, {"names": [str], "size?": int})
        Traceback (most recent call last):
        ...
        ValueError: 'names' has 1, which is no text
    """
    if isinstance(form, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where} has {_shown(value)} in place of keys and values")
        for key, inner in form.items():
            name = key.removesuffix("?")
            if name in value:
                require_form(value[name], inner, repr(name))
            elif name == key:
                raise ValueError(f"it has no {name!r}")
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} has {_shown(value)}, which is no list")
        for item in value:
            require_form(item, form[0], where)
    elif isinstance(form, tuple):
        if not any(_fits(value, one) for one in form):
            require_form(value, form[0], where)
    elif form is SHARE:
        if not _is(value, float) or not 0 <= value <= 1:
            raise ValueError(f"{where} has {_shown(value)}, which is no share between 0 and 1")
    elif not _is(value, form):
        raise ValueError(f"{where} has {_shown(value)}, which is no {_CALLED[form]}")


_CALLED: Final = {str: "text", int: "whole number", float: "number", bool: "truth value", None: "null"}


def _fits(value: Any, form: Form) -> bool:
    try:
        require_form(value, form)
    except ValueError:
        return False
    return True


def _is(value: Any, kind: type | None) -> bool:
    if kind is None or isinstance(value, bool):
        return value is None if kind is None else kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _shown(value: Any) -> str:
    return shortened(repr(value)) if not isinstance(value, list | dict) else f"a {type(value).__name__}"
