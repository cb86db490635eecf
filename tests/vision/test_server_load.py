"""The local server under attack: 50 clients at once that ask for what they may and for what they may not.

`pytest -m slow -s tests/vision/test_server_load.py` lasts 30 seconds and prints what it measured.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import os
import random
import shutil
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qpm_vision.feature_names import NAMES, read_names
from qpm_vision.run_folder import RunFolder
from qpm_vision.server.guard import MOST_BYTES
from qpm_vision.server.kept_files import DRAFT_FILE
from qpm_vision.steering import Steering
from tests.vision.serving import Client, process

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at the server through /proc")

N_CLIENTS = 50
CANARY = "a canary that nobody may read"

_WATCHED = """
import os, sys
log = os.open(os.environ["TOUCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(event, given):
    if event == "open" or event.startswith(("os.", "shutil.", "tempfile.")):
        for value in given:
            if isinstance(value, str | bytes | os.PathLike):
                os.write(log, os.fsencode(os.path.abspath(value)) + b"\\n")
sys.addaudithook(note)
from qpm_vision.cli import main
sys.exit(main())
"""
"""The command, in a process that notes every path that it opens, lists, makes, renames or removes."""

_TRAVERSALS = (
    "/files/../secret.json",
    "/files/..%2fsecret.json",
    "/files/%2e%2e/secret.json",
    "/files/%2e%2e%2fsecret.json",
    "/files/figures/../../secret.json",
    "/files/..%5csecret.json",
    "/files//etc/passwd",
    "/files/%2fetc%2fpasswd",
    "/files/way-out.json",
    "/files/way-out/secret.json",
    "/files/dense.safetensors",
    "/files/secret.json%00.png",
    "/files/" + "../" * 40 + "etc/passwd",
    "/assets/../app.py",
    "/assets/..%2f..%2fsecret.json",
    "/frame/../../secret.json",
    "/../secret.json",
)


@dataclass
class Tally:
    """What came back, of all clients together."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    broken: int = 0
    seconds: list[float] = field(default_factory=list)
    replaced: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        cuts = statistics.quantiles(self.seconds, n=100)
        statuses = ", ".join(f"{count:,} × {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{len(self.seconds):,} requests of {N_CLIENTS} clients, {len(self.wrong)} answered wrongly, {self.broken} "
            f"of too large bodies cut off; {statuses}; median {1e3 * cuts[49]:.0f} ms, 95 % {1e3 * cuts[94]:.0f} ms, "
            f"longest {1e3 * max(self.seconds):.0f} ms"
        )


class Attacker:
    """One client, and the requests that it chooses from at random.

    Args:
        ask: Sends a request.
        kept: Features of the run.
        frame: Where the framed report is.
        numbers: Gives each change a number of its own, so that no two contents of a file are the same.
        tally: Where to note what comes back.
        seed: Of its choices.
    """

    def __init__(
        self, ask: Client, kept: list[int], frame: str, numbers: itertools.count[int], tally: Tally, seed: int
    ) -> None:
        self.ask, self.kept, self.frame, self.numbers, self.tally = ask, kept, frame, numbers, tally
        self.chance = random.Random(seed)
        self.version = {"steering": "", "names": ""}
        self.actions: list[Callable[[], None]] = [
            self.look, self.look, self.solve, self.save, self.save, self.name, self.report, self.parse, self.traverse,
            self.malformed, self.oversized, self.wrong_method, self.foreign, self.raw,
        ]  # fmt: skip

    def work(self, until: float) -> None:
        """Ask until the time is over."""
        while time.monotonic() < until:
            action = self.chance.choice(self.actions)
            try:
                action()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.tally.wrong.append(f"{action.__name__}: {type(error).__name__}: {error}")

    def expect(self, allowed: set[int], method: str, path: str, body: Any = None, **headers: str) -> Any:
        begun = time.perf_counter()
        status, answer, _ = self.ask(method, path, body, **headers)
        self.tally.seconds.append(time.perf_counter() - begun)
        self.tally.statuses[status] += 1
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if status not in allowed or CANARY.encode() in text or b"root:" in text:
            self.tally.wrong.append(f"{method} {path[:80]} {str(body)[:80]} {headers}: {status} {text[:200]!r}")
        elif status >= 400 and not (isinstance(answer, dict) and answer["error"]):
            self.tally.wrong.append(f"{method} {path[:80]}: {status} without a reason")
        return answer if status < 300 else None

    # -- what may be asked for -----------------------------------------------------------------------------------

    def look(self) -> None:
        pages = (
            "/report",
            "/steering",
            "/assets/draft.js",
            "/api/run",
            "/api/names",
            self.frame,
            "/files/figures/classes.png",
        )
        path = self.chance.choice(pages)
        answer = self.expect({200}, "GET", path)
        if path == "/api/run":
            self.version = {"steering": answer["steering"]["version"], "names": answer["names"]["version"]}

    def save(self) -> None:
        steering = {"ban": [self.chance.choice(self.kept)], "stay": next(self.numbers)}
        self._replace("steering", {"steering": steering})

    def name(self) -> None:
        self._replace("names", {"names": {str(self.chance.choice(self.kept)): f"name {next(self.numbers)}"}})

    def _replace(self, what: str, content: dict[str, Any]) -> None:
        version = self.version[what]
        answer = self.expect({200, 409}, "PUT", f"/api/{what}", {**content, "version": version})
        if answer is not None:
            self.tally.replaced.append((what, version))
            self.version[what] = answer["version"]

    def solve(self) -> None:
        steering = {"ban": [self.chance.choice(self.kept)]}
        begun = self.expect({202, 429}, "POST", "/api/solve", {"steering": steering, "seconds": 1})
        if begun is not None:
            self.expect({200, 404}, "GET", f"/api/solve/{begun['id']}")
            self.expect({200, 404}, "DELETE", f"/api/solve/{begun['id']}")

    def report(self) -> None:
        begun = self.expect({202, 429}, "POST", "/api/report", {})
        if begun is not None:
            self.expect({200, 404}, "DELETE", f"/api/report/{begun['id']}")

    def parse(self) -> None:
        self.expect({200}, "POST", "/api/parse", {"yaml": f"ban: [{next(self.numbers)}]\nforbid: {{north: [1, 2]}}"})

    # -- what may not --------------------------------------------------------------------------------------------

    def traverse(self) -> None:
        self.expect({404, 403}, "GET", self.chance.choice(_TRAVERSALS))

    def malformed(self) -> None:
        body: Any = self.chance.choice(
            (
                b"{",
                b"\xff\xfe",
                b"[" * 50_000,
                b'{"steering": {"ban": [1}}',
                b"null",
                b'"x"',
                b'{"yaml": "\\ud800"}',
                b"",
            )
        )
        path, method = self.chance.choice((("/api/solve", "POST"), ("/api/steering", "PUT"), ("/api/names", "PUT")))
        self.expect({400}, method, path, body, Content_Type="application/json")
        text = self.chance.choice(
            ("ban: [", "!!python/object/apply:os.system [ls]", "a: &a [*a]", "ban: 2001-99-99", "\t")
        )
        self.expect({422}, "POST", "/api/parse", {"yaml": text})
        self.expect({422}, "PUT", "/api/names", {"names": {"0": 1}, "version": ""})
        self.expect({415}, "POST", "/api/solve", b"{}", Content_Type="text/plain")

    def oversized(self) -> None:
        try:
            self.expect({413}, "POST", "/api/parse", b" " * (MOST_BYTES + 1), Content_Type="application/json")
        except (ConnectionError, BrokenPipeError):  # the answer came before all was sent, and was lost with the rest
            self.tally.broken += 1

    def wrong_method(self) -> None:
        method, path = self.chance.choice(
            (("DELETE", "/api/run"), ("POST", "/"), ("GET", "/api/steering"), ("TRACE", "/api/run"),
             ("PUT", "/api/solve"), ("PATCH", "/api/names"), ("OPTIONS", "/api/report"), ("BREW", "/steering"))
        )  # fmt: skip
        self.expect({405}, method, path)

    def foreign(self) -> None:
        headers = self.chance.choice(
            ({"Host": "evil.example"}, {"Host": f"127.0.0.1.evil.example:{self.ask.port}"}, {"Origin": "http://evil.example"},
             {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}, {"X_QPM_Token": "guessed"}, {"X_QPM_Token": ""})
        )  # fmt: skip
        body = {"steering": {"ban": [self.kept[0]]}, "version": self.version["steering"]}
        self.expect({403}, "PUT", "/api/steering", body, **headers)
        self.expect({403}, "GET", "/api/run", **headers)

    def raw(self) -> None:
        """Bytes that are no request: the connection ends, with an answer or without one."""
        lines = self.chance.choice(
            (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
             b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
             b"POST /api/parse HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
             b"POST /api/parse HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
             b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n")
        )  # fmt: skip
        with socket.create_connection(("127.0.0.1", self.ask.port), timeout=30) as connection:
            try:
                connection.sendall(lines)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            except ConnectionError:
                answer = b""
        if answer and not answer.startswith(b"HTTP/1.1 4"):
            self.tally.wrong.append(f"{lines[:60]!r}: {answer[:100]!r}")


def _contents(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
        for path in sorted(folder.rglob("*"))
        if not path.is_relative_to(folder / "run") and path.name not in without
    }


def _attack(finished: RunFolder, area: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> Tally:
    """Let all clients attack a server of a copy of the run; checks everything but the time that answers take."""
    place = RunFolder(shutil.copytree(finished.path, area / "run"))
    (place.path / "report.html").write_text("<!doctype html><p>a report</p>")
    (area / "secret.json").write_text(json.dumps(CANARY))
    (place.path / "way-out.json").symlink_to(area / "secret.json")
    (place.path / "way-out").symlink_to(area)
    touched = area.parent / f"{area.name}-touched"
    monkeypatch.setenv("TOUCHED", str(touched))
    changing = (DRAFT_FILE.name, NAMES)
    outside, inside = _contents(area), _contents(place.path, without=changing)
    tally, numbers = Tally(), itertools.count(1)
    said = area.parent / f"{area.name}-said"
    with said.open("wb") as errors, process(place, ("-c", _WATCHED), errors) as (running, ask):
        run = ask("GET", "/api/run")[1]
        kept = [feature["number"] for feature in run["features"]]
        before = touched.stat().st_size  # what the start touches is not asked for by anybody
        n_open = len(os.listdir(f"/proc/{running.pid}/fd"))  # noqa: PTH208
        clients = [Attacker(ask, kept, run["report"]["frame"], numbers, tally, seed).work for seed in range(N_CLIENTS)]
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=work, args=(until,)) for work in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert running.poll() is None
        assert ask("GET", "/api/run")[0] == 200
        deadline = time.monotonic() + 10
        while len(os.listdir(f"/proc/{running.pid}/fd")) > n_open + 2:  # noqa: PTH208
            assert time.monotonic() < deadline, "the server keeps files or connections open"
            time.sleep(0.05)
    assert tally.wrong == []
    assert said.read_text(errors="replace") == ""
    assert max(tally.statuses) < 500
    assert {200, 202, 400, 403, 404, 405, 409, 413, 415, 422} <= set(tally.statuses)
    # nothing was saved over a version that its author had not seen
    assert max(Counter(tally.replaced).values()) == 1
    # nothing outside of the run was touched, and nothing inside but what may be changed
    with touched.open(encoding="utf-8") as stream:
        stream.seek(before)
        for line in stream:
            path = Path(line.rstrip("\n"))
            assert path != Path("/etc/passwd")
            assert place.path in (path, *path.parents) or area not in (path, *path.parents), path
            assert not path.is_relative_to(place.path / "way-out"), path
            assert path != place.path / "way-out.json"
    assert (_contents(area), _contents(place.path, without=changing)) == (outside, inside)
    assert Steering.from_yaml(place.path / DRAFT_FILE.name).stay >= 1
    assert len(read_names(place.path / NAMES, kept)) == 1
    return tally


def test_fifty_clients_at_once(finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _attack(finished, tmp_path / "area", monkeypatch, 2.5)


@pytest.mark.slow
def test_fifty_clients_for_half_a_minute(
    finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = _attack(finished, tmp_path / "area", monkeypatch, 30)
    with capsys.disabled():
        sys.stdout.write(f"\n{tally}\n")
    assert statistics.median(tally.seconds) < 2
