"""The requests of the pages of the local server: JSON in, JSON out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from qpm_opt import InvalidInputError
from qpm_vision._text import readable
from qpm_vision._work import read_assignment, read_problem
from qpm_vision.feature_names import all_names
from qpm_vision.run_folder import RunFolder
from qpm_vision.server.candidate_pictures import CandidatePictures
from qpm_vision.server.guard import FRAME
from qpm_vision.server.jobs import Job, Jobs
from qpm_vision.server.kept_files import DRAFT_FILE, NAMES_FILE, KeptFile, Seen
from qpm_vision.server.reporting import MOST_WRITING, report_state, write
from qpm_vision.server.solving import MOST_RUNNING, search
from qpm_vision.steering import Steering

__all__ = ["LONGEST_SECONDS", "MOST_YAML", "Desk", "api_routes"]

LONGEST_SECONDS = 600.0
"""Longest time limit of a search."""

MOST_YAML = 200_000
"""Characters of the longest text that is read as YAML, which takes seconds then."""

Content = TypeVar("Content")


@dataclass(frozen=True)
class Desk:
    """What the requests are about.

    Attributes:
        folder: The run.
        ticket: What the address of the framed report has in it.
        pictures: Pictures of features that the run does not keep.
        searches: Searches of this server.
        reports: Reports that it writes.
    """

    folder: RunFolder
    ticket: str
    pictures: CandidatePictures
    searches: Jobs = field(default_factory=lambda: Jobs("search", MOST_RUNNING))
    reports: Jobs = field(default_factory=lambda: Jobs("report", MOST_WRITING))


def api_routes(desk: Desk) -> list[Route]:
    """Where the requests go."""
    return [
        Route("/api/run", partial(_run, desk), methods=["GET"]),
        Route("/api/steering", partial(_save_steering, desk), methods=["PUT"]),
        Route("/api/names", partial(_names, desk), methods=["GET"]),
        Route("/api/names", partial(_save_names, desk), methods=["PUT"]),
        Route("/api/features/{number}", partial(_picture, desk), methods=["GET"]),
        Route("/api/parse", _parse, methods=["POST"]),
        Route("/api/solve", partial(_solve, desk), methods=["POST"]),
        Route("/api/report", partial(_write_report, desk), methods=["POST"]),
        *(
            Route(f"/api/{kind}/{{number}}", partial(action, jobs), methods=[method])
            for kind, jobs in (("solve", desk.searches), ("report", desk.reports))
            for method, action in (("GET", _look), ("DELETE", _cancel))
        ),
    ]


# -- the run -------------------------------------------------------------------------------------------------------


async def _run(desk: Desk, _: Request) -> Response:
    return JSONResponse(await run_in_threadpool(_described, desk))


def _described(desk: Desk) -> dict[str, Any]:
    folder = desk.folder
    problem, assignment = read_problem(folder), read_assignment(folder)
    draft, names = DRAFT_FILE.look(folder), NAMES_FILE.look(folder)
    labels = problem.class_labels or tuple(range(problem.n_classes))
    selected = assignment.selected
    uses = assignment.weights.sum(axis=0)
    return {
        "path": readable(str(folder.path.resolve())),
        "n_features": problem.n_features,
        "n_per_class": int(problem.n_per_class.max()),
        "objective": assignment.objective,
        "bound": assignment.bound,
        "gap": assignment.gap,
        "features": [
            {"number": int(feature), "classes": int(count), "bias": float(problem.feature_bias[feature])}
            for feature, count in zip(selected, uses, strict=True)
        ],
        "classes": [
            {"name": str(label), "features": [int(f) for f in selected[np.flatnonzero(row)]]}
            for label, row in zip(labels, assignment.weights, strict=True)
        ],
        "names": _named(names),
        "steering": {"steering": draft.content.to_dict(), "version": draft.version},
        "problems": [seen.error for seen in (draft, names) if seen.error is not None],
        "report": {
            **report_state(folder),
            "frame": FRAME + desk.ticket,
            "writing": next(iter(desk.reports.under_way()), None),
        },
    }


# -- files that are kept -------------------------------------------------------------------------------------------


async def _save_steering(desk: Desk, request: Request) -> Response:
    data = await _json(request)
    steering = await run_in_threadpool(_steering, desk.folder, data)
    kept = await _replace(desk, DRAFT_FILE, steering, data)
    return JSONResponse({"steering": kept.content.to_dict(), "version": kept.version})


async def _names(desk: Desk, _: Request) -> Response:
    return JSONResponse(_named(await run_in_threadpool(NAMES_FILE.look, desk.folder)))


async def _save_names(desk: Desk, request: Request) -> Response:
    data = await _json(request)
    names = data.get("names")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise HTTPException(422, "The key 'names' must be an object with a name for each number of a feature.")
    numbered = {
        _number(number, "The key 'names' must have numbers of features as keys"): name for number, name in names.items()
    }
    return JSONResponse(_named(await _replace(desk, NAMES_FILE, numbered, data)))


def _number(text: str, told: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(422, f"{told}. Got {text[:40]!r}.")
    return int(text)


def _named(seen: Seen[dict[int, str]]) -> dict[str, Any]:
    return {"names": {str(number): name for number, name in seen.content.items()}, "version": seen.version}


async def _replace(desk: Desk, kept: KeptFile[Content], content: Content, data: dict[str, Any]) -> Seen[Content]:
    version = data.get("version")
    if not isinstance(version, str):
        raise HTTPException(422, "The key 'version' must be the one that the file was loaded with.")
    return await run_in_threadpool(kept.replace, desk.folder, content, version)


# -- steering ------------------------------------------------------------------------------------------------------


async def _parse(request: Request) -> Response:
    """The steering that a YAML text means, and the text of a steering."""
    data = await _json(request)
    return JSONResponse(await run_in_threadpool(_parsed, data))


def _parsed(data: dict[str, Any]) -> dict[str, Any]:
    text = data.get("yaml")
    if isinstance(text, str) and len(text) > MOST_YAML:
        raise HTTPException(413, f"The key 'yaml' must have at most {MOST_YAML:,} characters. Got {len(text):,}.")
    steering = Steering.from_text(text) if isinstance(text, str) else Steering.from_dict(_given(data))
    return {"steering": steering.to_dict(), "yaml": steering.to_yaml()}


async def _solve(desk: Desk, request: Request) -> Response:
    data = await _json(request)
    seconds = data.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_SECONDS:
        raise HTTPException(422, f"The key 'seconds' must be a number above 0, at most {LONGEST_SECONDS:g}.")
    steering = await run_in_threadpool(_steering, desk.folder, data)
    return _begun(desk.searches.begin(partial(search, desk.folder, steering, float(seconds))))


def _given(data: dict[str, Any]) -> Any:
    if "steering" not in data:
        raise HTTPException(422, "The key 'steering' is missing.")
    return data["steering"]


def _steering(folder: RunFolder, data: dict[str, Any]) -> Steering:
    """The steering as it was given; features and classes that the run has not are refused."""
    steering = Steering.from_dict(_given(data))
    problem = read_problem(folder)
    labels = tuple(map(str, problem.class_labels or range(problem.n_classes)))
    steering.resolved(problem.n_features, labels, all_names(folder))
    return steering


async def _picture(desk: Desk, request: Request) -> Response:
    feature = _number(request.path_params["number"], "The address must end with the number of a feature")
    return Response(await run_in_threadpool(desk.pictures.png, feature), media_type="image/png")


# -- jobs ----------------------------------------------------------------------------------------------------------


async def _write_report(desk: Desk, request: Request) -> Response:
    await _json(request)
    if not report_state(desk.folder)["possible"]:
        raise InvalidInputError("The run is not finished. Finish it with the command that began it, then write again.")
    return _begun(desk.reports.begin(partial(write, desk.folder)))


def _begun(number: str) -> Response:
    return JSONResponse({"id": number}, status_code=202)


async def _look(jobs: Jobs, request: Request) -> Response:
    return JSONResponse(_known(jobs, request).to_dict())


async def _cancel(jobs: Jobs, request: Request) -> Response:
    job = _known(jobs, request)
    job.cancel()
    return JSONResponse(job.to_dict())


def _known(jobs: Jobs, request: Request) -> Job:
    number = request.path_params["number"]
    job = jobs.get(number)
    if job is None:
        raise HTTPException(404, f"There is no job {number[:40]!r} any more.")
    return job


async def _json(request: Request) -> dict[str, Any]:
    """The body, a JSON object."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"The content type must be application/json. Got {kind or 'none'!r}.")
    try:
        data = json.loads(await request.body())
        json.dumps(data, ensure_ascii=False).encode()  # halves of characters, which no answer and no file could hold
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body must be JSON: {_without_halves(error)}.") from error
    if not isinstance(data, dict):
        raise HTTPException(400, f"The body must be a JSON object. Got a {type(data).__name__}.")
    return data


def _without_halves(error: Exception) -> str:
    return str(error).encode(errors="backslashreplace").decode()
