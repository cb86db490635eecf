"""The local server of a run as an application."""

from __future__ import annotations

import secrets
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from qpm_opt import InvalidInputError, QPMError
from qpm_vision.run_folder import RunFolder
from qpm_vision.server.api import Desk, api_routes
from qpm_vision.server.candidate_pictures import CandidatePictures
from qpm_vision.server.guard import Guard
from qpm_vision.server.jobs import TooManyError
from qpm_vision.server.kept_files import ConflictError
from qpm_vision.server.pages import page_routes

__all__ = ["make_app"]


def make_app(folder: RunFolder, token: str) -> Starlette:
    """The application for one run.

    Args:
        folder: A run whose features are chosen.
        token: What requests must know.

    Raises:
        RunFolderError: The run has no features yet.
    """
    folder.require("assignment", "has no features to steer")
    ticket = secrets.token_urlsafe(24)
    return Starlette(
        routes=[*page_routes(folder, ticket), *api_routes(Desk(folder, ticket, CandidatePictures(folder)))],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={
            HTTPException: _refused,
            TooManyError: partial(_wrong, status=429),
            ConflictError: partial(_wrong, status=409),
            InvalidInputError: partial(_wrong, status=422),
            QPMError: partial(_wrong, status=500),
        },
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _wrong(_: Request, error: Exception, status: int) -> Response:
    return JSONResponse({"error": str(error)}, status_code=status)
