"""The pages of the local server, and the files of the run.

The report is a file, which may come from elsewhere, and it is full of scripts. So it is not trusted: it is shown in a
frame of an origin of its own (a sandbox), where it can neither send requests nor read the token, and the page around it
acts. A script of ours in the frame adds buttons and says which of them was pressed; the page around it takes no more
from it than "put this feature into, or out of, a list of the draft" and "a person wants to name this feature", for
features that the run keeps and classes that it has, and which theme was chosen. Whatever else a report does, it cannot
write: what is saved is confirmed outside of the frame.

A page that is rendered afresh, without a sandbox, would need the images of the run and minutes at every start, and
would let every mistake in a report become one that acts with the token.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial
from importlib import resources
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from qpm_vision.run_folder import RunFolder
from qpm_vision.server.guard import FRAME
from qpm_vision.server.reporting import report_file, report_state

__all__ = ["page_routes"]

_ASSETS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Endings of the assets that are given out."""

_SHOWN = (".html", ".png", ".svg", ".jpg", ".json", ".csv", ".yaml", ".css", ".js")
"""Endings of the files of a run that are given out."""

_FILE_POLICY = {"content-security-policy": "sandbox allow-scripts allow-popups allow-downloads; frame-ancestors 'none'"}

_FRAME_POLICY = {
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src "
    "'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "x-frame-options": "SAMEORIGIN",
}
"""What a framed report may do: run its scripts and show the images in it; nothing that reaches further."""

_CHUNK = 1 << 18


def page_routes(folder: RunFolder, ticket: str) -> list[Route]:
    """Where the pages, their assets and the files of the run are.

    Args:
        folder: The run.
        ticket: What the address of the framed report has in the place of the token, which the report must not know.
    """
    return [
        Route("/", partial(_first_page, folder), methods=["GET"]),
        Route("/report", partial(_page, "report.html"), methods=["GET"]),
        Route("/steering", partial(_page, "steering.html"), methods=["GET"]),
        Route("/assets/{name}", _asset, methods=["GET"]),
        Route(FRAME + "{ticket}", partial(_frame, folder, ticket), methods=["GET"]),
        Route("/files/{path:path}", partial(_file, folder), methods=["GET"]),
    ]


async def _first_page(folder: RunFolder, request: Request) -> Response:
    """To the report, or where there can be none yet, to the tables."""
    state = await run_in_threadpool(report_state, folder)
    path = "/report" if state["there"] or state["possible"] else "/steering"
    return RedirectResponse(f"{path}?{request.url.query}")


async def _page(name: str, _: Request) -> Response:
    return HTMLResponse(_asset_text(name))


async def _asset(request: Request) -> Response:
    name: str = request.path_params["name"]
    known = {item.name for item in resources.files(__package__).joinpath("assets").iterdir()}
    kind = _ASSETS.get(name[name.rfind(".") :])
    if name not in known or kind is None:
        raise HTTPException(404, f"There is no asset {name!r}.")
    return Response(_asset_text(name), media_type=kind)


def _asset_text(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


async def _frame(folder: RunFolder, ticket: str, request: Request) -> Response:
    """The report with controls."""
    if not secrets.compare_digest(request.path_params["ticket"].encode(), ticket.encode()):
        raise HTTPException(403, "This address of the report is that of a server that has ended. Load the page again.")
    try:
        stream = await run_in_threadpool(report_file(folder).open, "rb")
    except OSError as error:
        raise HTTPException(404, "The run has no report yet.") from error
    return StreamingResponse(_with_controls(stream), media_type="text/html", headers=_FRAME_POLICY)


def _with_controls(report: IO[bytes]) -> Iterator[bytes]:
    """A report, and behind it the script and the style of the controls."""
    with report:
        while chunk := report.read(_CHUNK):
            yield chunk
    yield f"<style>\n{_asset_text('controls.css')}</style>\n<script>\n{_asset_text('controls.js')}</script>\n".encode()


async def _file(folder: RunFolder, request: Request) -> Response:
    """A file of the run folder; links that lead out of it do not count as in it."""
    name = request.path_params["path"]
    root = folder.path.resolve()
    try:
        path = (root / name).resolve()
        found = path.is_relative_to(root) and path.suffix.lower() in _SHOWN and path.is_file()
    except (OSError, ValueError):  # a name that cannot be one
        found = False
    if not found:
        raise HTTPException(404, f"The run folder has no file {name!r} to show.")
    return FileResponse(path, headers=_FILE_POLICY)
