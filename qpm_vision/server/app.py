"""The pages and the requests of the local server."""

from __future__ import annotations

import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from qpm_opt import InvalidInputError, QPMError
from qpm_vision._work import read_assignment, read_problem
from qpm_vision.feature_names import all_names
from qpm_vision.run_folder import RunFolder
from qpm_vision.server.drafts import ConflictError, read_draft, write_draft
from qpm_vision.server.guard import Guard
from qpm_vision.server.solving import Solving, Solvings, TooManyError
from qpm_vision.steering import Steering

__all__ = ["make_app"]

LONGEST_SECONDS = 600.0

_ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_REPORT = "report.html"
_SHOWN = (".html", ".png", ".svg", ".jpg", ".json", ".csv", ".yaml", ".css", ".js")
"""Endings of the files that are given out."""

_SANDBOX = {"content-security-policy": "sandbox allow-scripts allow-popups allow-downloads; frame-ancestors 'none'"}
"""A report runs scripts of its own; it may not act for the steering page, which has the same origin."""


def make_app(folder: RunFolder, token: str) -> Starlette:
    """The application for one run.

    Args:
        folder: A run whose features are chosen.
        token: What requests must know.

    Raises:
        RunFolderError: The run has no features yet.
    """
    folder.require("assignment", "has no features to steer")
    solvings = Solvings()
    return Starlette(
        routes=[
            Route("/", _page, methods=["GET"]),
            Route("/assets/{name}", _asset, methods=["GET"]),
            Route("/report", partial(_report, folder), methods=["GET"]),
            Route("/files/{path:path}", partial(_file, folder), methods=["GET"]),
            Route("/api/run", partial(_run, folder), methods=["GET"]),
            Route("/api/steering", partial(_save, folder), methods=["PUT"]),
            Route("/api/parse", _parse, methods=["POST"]),
            Route("/api/solve", partial(_solve, folder, solvings), methods=["POST"]),
            Route("/api/solve/{number}", partial(_look, solvings), methods=["GET"]),
            Route("/api/solve/{number}", partial(_cancel, solvings), methods=["DELETE"]),
        ],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={
            HTTPException: _refused,
            TooManyError: partial(_wrong, status=429),
            ConflictError: partial(_wrong, status=409),
            InvalidInputError: partial(_wrong, status=422),
            QPMError: partial(_wrong, status=500),
        },
    )


# -- pages ---------------------------------------------------------------------------------------------------------


async def _page(_: Request) -> Response:
    return HTMLResponse(_asset_text("page.html"))


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404, f"There is no asset {name!r}.")
    return Response(_asset_text(name), media_type=_ASSETS[name])


def _asset_text(name: str) -> str:
    return resources.files("qpm_vision.server").joinpath("assets", name).read_text(encoding="utf-8")


async def _report(folder: RunFolder, _: Request) -> Response:
    path = folder.path / _REPORT
    if not path.is_file():
        raise HTTPException(404, f"The run has no {_REPORT} yet.")
    return FileResponse(path, media_type="text/html", headers=_SANDBOX)


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
    return FileResponse(Path(path), headers=_SANDBOX)


# -- requests ------------------------------------------------------------------------------------------------------


async def _run(folder: RunFolder, _: Request) -> Response:
    return JSONResponse(await run_in_threadpool(_described, folder))


def _described(folder: RunFolder) -> dict[str, Any]:
    problem, assignment, draft = read_problem(folder), read_assignment(folder), read_draft(folder)
    labels = problem.class_labels or tuple(range(problem.n_classes))
    selected = assignment.selected
    uses = assignment.weights.sum(axis=0)
    names = all_names(folder)
    return {
        "path": str(folder.path.resolve()),
        "n_features": problem.n_features,
        "n_per_class": int(problem.n_per_class.max()),
        "objective": assignment.objective,
        "bound": assignment.bound,
        "gap": assignment.gap,
        "features": [
            {
                "number": int(feature),
                "name": names.get(int(feature), ""),
                "classes": int(count),
                "bias": float(problem.feature_bias[feature]),
            }
            for feature, count in zip(selected, uses, strict=True)
        ],
        "names": {str(number): name for number, name in names.items()},
        "classes": [
            {"name": str(label), "features": [int(f) for f in selected[np.flatnonzero(row)]]}
            for label, row in zip(labels, assignment.weights, strict=True)
        ],
        "steering": draft.steering.to_dict(),
        "version": draft.version,
        "problem": draft.error,
        "has_report": (folder.path / _REPORT).is_file(),
    }


async def _save(folder: RunFolder, request: Request) -> Response:
    data = await _json(request)
    version = data.get("version")
    if not isinstance(version, str):
        raise HTTPException(422, "The key 'version' must be the one that the steering was loaded with.")
    steering = _steering(data)
    _resolved(folder, steering)
    draft = await run_in_threadpool(write_draft, folder, steering, version)
    return JSONResponse({"version": draft.version, "steering": draft.steering.to_dict()})


async def _parse(request: Request) -> Response:
    """The steering that a YAML text means, and the text of a steering."""
    data = await _json(request)
    text = data.get("yaml")
    steering = Steering.from_text(text) if isinstance(text, str) else _steering(data)
    return JSONResponse({"steering": steering.to_dict(), "yaml": steering.to_yaml()})


async def _solve(folder: RunFolder, solvings: Solvings, request: Request) -> Response:
    data = await _json(request)
    seconds = data.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_SECONDS:
        raise HTTPException(422, f"The key 'seconds' must be a number above 0, at most {LONGEST_SECONDS:g}.")
    steering = _steering(data)
    await run_in_threadpool(_resolved, folder, steering)
    return JSONResponse({"id": solvings.begin(folder, steering, float(seconds))}, status_code=202)


async def _look(solvings: Solvings, request: Request) -> Response:
    return JSONResponse(_known(solvings, request).to_dict())


async def _cancel(solvings: Solvings, request: Request) -> Response:
    solving = _known(solvings, request)
    solving.cancel()
    return JSONResponse(solving.to_dict())


def _known(solvings: Solvings, request: Request) -> Solving:
    number = request.path_params["number"]
    solving = solvings.get(number)
    if solving is None:
        raise HTTPException(404, f"There is no search {number!r} any more.")
    return solving


def _steering(data: dict[str, Any]) -> Steering:
    if "steering" not in data:
        raise HTTPException(422, "The key 'steering' is missing.")
    return Steering.from_dict(data["steering"])


def _resolved(folder: RunFolder, steering: Steering) -> Steering:
    """Refuse features and classes that the run has not."""
    problem = read_problem(folder)
    labels = tuple(map(str, problem.class_labels or range(problem.n_classes)))
    return steering.resolved(problem.n_features, labels, all_names(folder))


async def _json(request: Request) -> dict[str, Any]:
    """The body, a JSON object."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"The content type must be application/json. Got {kind or 'none'!r}.")
    try:
        data = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body must be JSON: {error}.") from error
    if not isinstance(data, dict):
        raise HTTPException(400, f"The body must be a JSON object. Got a {type(data).__name__}.")
    return data


# -- errors --------------------------------------------------------------------------------------------------------


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _wrong(_: Request, error: Exception, status: int) -> Response:
    return JSONResponse({"error": str(error)}, status_code=status)
