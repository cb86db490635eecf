"""A headless Chromium that is installed on this machine, for measuring and testing pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium_path", "open_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium_path() -> str | None:
    """Where it is, or None."""
    return next((path for path in map(shutil.which, _NAMES) if path is not None), None)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start it; it ends with the block.

    Raises:
        RuntimeError: There is none, or the package that drives it is missing.
    """
    path = chromium_path()
    if path is None:
        raise RuntimeError(f"No Chromium is installed: none of {', '.join(_NAMES)} is on the path.")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise RuntimeError("Driving Chromium needs the package playwright: pip install playwright") from error
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()
