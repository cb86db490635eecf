"""A served run: in a thread of this process or in one of its own, and a client that asks it."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import uvicorn

from qpm_vision.run_folder import RunFolder
from qpm_vision.server import make_app
from qpm_vision.server.listen import _listening

TOKEN = "the token of these tests"


@dataclass
class Client:
    """Sends one request at a time to a server."""

    port: int
    token: str = TOKEN

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        sent = {"X-QPM-Token": self.token, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent = {"Content-Type": "application/json", **sent}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            content = answer.read()
            kind = answer.headers.get_content_type()
            given = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, json.loads(content) if kind == "application/json" else content, given

    def solved(self, steering: dict[str, Any], seconds: float = 5) -> dict[str, Any]:
        """Begin a search and wait for its end."""
        status, begun, _ = self("POST", "/api/solve", {"steering": steering, "seconds": seconds})
        assert status == 202, begun
        return self.ended(f"/api/solve/{begun['id']}")

    def ended(self, address: str) -> dict[str, Any]:
        """The last state of a job."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status, state, _ = self("GET", address)
            assert status == 200
            if state["state"] != "running":
                return dict(state)
            time.sleep(0.02)
        raise TimeoutError


@contextlib.contextmanager
def served(folder: RunFolder, port: int = 0) -> Iterator[Client]:
    """Serve a run from a thread of this process."""
    with _listening(port) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(folder, TOKEN), log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def process(
    place: RunFolder, start: Sequence[str] = ("-m", "qpm_vision"), errors: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """Let `qpm-vision serve` serve a run.

    Args:
        place: The run.
        start: How Python is told to run the command.
        errors: Where standard error goes; no pipe, which would let the server wait when nobody reads it.
    """
    command = [sys.executable, *start, "serve", str(place.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as running:
        try:
            assert running.stdout is not None
            address = running.stdout.readline().split()[1]
            port, token = address.removeprefix("http://127.0.0.1:").split("/?token=")
            yield running, Client(int(port), token)
        finally:
            running.kill()
