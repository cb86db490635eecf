"""The local server, over real sockets: what it answers, what it refuses, and that nothing that was saved is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from qpm_opt import Assignment, InvalidInputError
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.server import make_app
from qpm_vision.server.drafts import DRAFT
from qpm_vision.server.guard import MOST_BYTES
from qpm_vision.server.listen import _listening
from qpm_vision.server.solving import MOST_RUNNING, Solving
from qpm_vision.steered_run import propose_steering
from qpm_vision.steering import Steering

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
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status, state, _ = self("GET", f"/api/solve/{begun['id']}")
            assert status == 200
            if state["state"] != "running":
                return dict(state)
            time.sleep(0.02)
        raise TimeoutError


@contextlib.contextmanager
def _served(folder: RunFolder) -> Iterator[Client]:
    with _listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(folder, TOKEN), log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def place(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(shutil.copytree(finished.path, tmp_path_factory.mktemp("served") / "run"))


@pytest.fixture(scope="module")
def shared(place: RunFolder) -> Iterator[Client]:
    with _served(place) as client:
        yield client


@pytest.fixture
def ask(shared: Client, place: RunFolder) -> Client:
    (place.path / DRAFT).unlink(missing_ok=True)
    return shared


@pytest.fixture(scope="module")
def kept(place: RunFolder) -> list[int]:
    return [int(feature) for feature in Assignment.load(place.path / "assignment.npz").selected]


# -- what it is for ------------------------------------------------------------------------------------------------


def test_the_page_and_its_assets(ask: Client) -> None:
    status, page, headers = ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert TOKEN.encode() not in page
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css"), ("icon.svg", "image/svg+xml")):
        assert f"/assets/{name}".encode() in page
        status, content, headers = ask("GET", f"/assets/{name}")
        assert status == 200
        assert headers["content-type"].startswith(kind)
        assert content
    assert ask("GET", "/assets/app.py")[0] == 404


def test_every_place_that_the_script_looks_for_is_on_the_page(ask: Client) -> None:
    import re

    page, script = (ask("GET", path)[1].decode() for path in ("/", "/assets/page.js"))
    wanted = set(re.findall(r'\bat\("([\w-]+)"\)', script))
    assert wanted
    assert wanted <= set(re.findall(r'id="([\w-]+)"', page))


def test_what_the_run_is(ask: Client, place: RunFolder, kept: list[int]) -> None:
    status, run, _ = ask("GET", "/api/run")
    assert status == 200
    assert [feature["number"] for feature in run["features"]] == kept
    assert [item["name"] for item in run["classes"]] == ["north", "east", "south", "west"]
    assert sum(feature["classes"] for feature in run["features"]) == sum(len(c["features"]) for c in run["classes"])
    assert (run["steering"], run["version"], run["problem"], run["has_report"]) == ({}, "", None, False)


def test_a_search_gives_what_the_function_gives(ask: Client, place: RunFolder, kept: list[int]) -> None:
    state = ask.solved({"ban": [kept[0]]})
    assert state["state"] == "done"
    expected = propose_steering(place, Steering(ban=(kept[0],))).to_dict()
    assert state["result"]["diff"] == expected["diff"]
    assert state["progress"]["bound"] is not None


def test_a_steering_that_cannot_be_met_is_told(ask: Client, kept: list[int]) -> None:
    state = ask.solved({"ban": list(range(6))})
    assert state["state"] == "failed"
    assert "'n_select'" in state["error"]


def test_searches_can_be_stopped_and_are_limited_in_number(
    ask: Client, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(Solving):
        def _work(self) -> None:
            self._cancelled.wait(30)

    monkeypatch.setattr("qpm_vision.server.solving.Solving", Endless)
    wanted = {"steering": {"ban": [kept[0]]}, "seconds": 5}
    begun = [ask("POST", "/api/solve", wanted) for _ in range(MOST_RUNNING + 1)]
    assert [status for status, _, _ in begun] == [202] * MOST_RUNNING + [429]
    for _, answer, _ in begun[:-1]:
        assert ask("DELETE", f"/api/solve/{answer['id']}")[0] == 200
    deadline = time.monotonic() + 20
    while ask("GET", f"/api/solve/{begun[0][1]['id']}")[1]["state"] == "running":
        assert time.monotonic() < deadline
    assert ask("GET", f"/api/solve/{begun[0][1]['id']}")[1]["state"] == "cancelled"
    assert ask("GET", "/api/solve/9999")[0] == 404


def test_a_steering_as_text_and_back(ask: Client) -> None:
    status, answer, _ = ask("POST", "/api/parse", {"yaml": "ban: [2, 1]\nforbid: {north: [3]}"})
    assert status == 200
    assert answer["steering"] == {"ban": [2, 1], "forbid": {"north": [3]}}
    assert ask("POST", "/api/parse", {"steering": answer["steering"]})[1] == answer


# -- the file ------------------------------------------------------------------------------------------------------


def test_saving_is_for_those_who_saw_the_last_version(ask: Client, place: RunFolder, kept: list[int]) -> None:
    one = {"ban": [kept[0]]}
    status, first, _ = ask("PUT", "/api/steering", {"steering": one, "version": ""})
    assert status == 200
    assert Steering.from_yaml(place.path / DRAFT) == Steering.from_dict(one)
    status, answer, _ = ask("PUT", "/api/steering", {"steering": {"ban": [kept[1]]}, "version": ""})  # another tab
    assert status == 409
    assert "another tab" in answer["error"]
    assert Steering.from_yaml(place.path / DRAFT) == Steering.from_dict(one)
    assert ask("GET", "/api/run")[1]["steering"] == one
    assert ask("PUT", "/api/steering", {"steering": {}, "version": first["version"]})[0] == 200
    assert ask("GET", "/api/run")[1]["steering"] == {}


def test_of_many_tabs_at_once_one_wins_and_the_others_know(ask: Client, place: RunFolder) -> None:
    answers: list[tuple[int, int]] = []

    def save(tab: int) -> None:
        status, _, _ = ask("PUT", "/api/steering", {"steering": {"stay": tab + 1}, "version": ""})
        answers.append((status, tab))

    threads = [threading.Thread(target=save, args=(tab,)) for tab in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in answers) == [200] + [409] * 7
    winner = next(tab for status, tab in answers if status == 200)
    assert Steering.from_yaml(place.path / DRAFT) == Steering(stay=winner + 1.0)


def test_a_file_that_is_not_understood_is_shown_and_not_overwritten(ask: Client, place: RunFolder) -> None:
    (place.path / DRAFT).write_text("ban: [")
    run = ask("GET", "/api/run")[1]
    assert "not understood" in run["problem"]
    status, answer, _ = ask("PUT", "/api/steering", {"steering": {"stay": 1}, "version": run["version"]})
    assert status == 409
    assert "Correct or move it" in answer["error"]
    assert (place.path / DRAFT).read_text() == "ban: ["


# -- files of the run ----------------------------------------------------------------------------------------------


def test_files_of_the_run_and_no_others(ask: Client, place: RunFolder) -> None:
    status, picture, headers = ask("GET", "/files/figures/classes.png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert picture.startswith(b"\x89PNG")
    secret = place.path.parent / "secret.json"
    secret.write_text("{}")
    (place.path / "way-out.json").symlink_to(secret)
    for name in (
        "../secret.json",
        "..%2fsecret.json",
        "%2e%2e/secret.json",
        "figures/../../secret.json",
        f"/{secret}",
        str(secret),
        "way-out.json",
        "dense.safetensors",
        ".lock",
        "nothing.json",
        "figures",
        "",
        "a%00.json",
        "a" * 5000 + ".json",
    ):
        status, _, _ = ask("GET", f"/files/{name}")
        assert status == 404, name
    (place.path / "way-out.json").unlink()


def test_the_report_may_not_act_for_the_page(ask: Client, place: RunFolder) -> None:
    assert ask("GET", "/report")[0] == 404
    (place.path / "report.html").write_text("<!doctype html><script>1</script>")
    try:
        status, page, headers = ask("GET", f"/report?token={TOKEN.replace(' ', '+')}", X_QPM_Token="")
        assert (status, page[:9]) == (200, b"<!doctype")
        assert headers["content-security-policy"].startswith("sandbox allow-scripts")
        assert ask("GET", "/api/run")[1]["has_report"]
    finally:
        (place.path / "report.html").unlink()


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Host": "evil.example"}, "host must be 127.0.0.1"),
        ({"Host": "evil.example:8642"}, "host must be 127.0.0.1"),
        ({"Host": "127.0.0.1.evil.example:8642"}, "host must be 127.0.0.1"),
        ({"Origin": "http://evil.example"}, "other web pages"),
        ({"Origin": "http://127.0.0.1:1"}, "other web pages"),
        ({"Origin": "null"}, "other web pages"),
        ({"Sec_Fetch_Site": "cross-site"}, "other web pages"),
        ({"Sec_Fetch_Site": "same-site"}, "other web pages"),
        ({"X_QPM_Token": ""}, "token is missing"),
        ({"X_QPM_Token": "that of yesterday"}, "Open the address that `qpm-vision serve` printed"),
    ],
)
def test_who_is_refused(ask: Client, place: RunFolder, headers: dict[str, str], message: str) -> None:
    for method, path, body in (
        ("GET", "/api/run", None),
        ("GET", "/", None),
        ("PUT", "/api/steering", {"steering": {"stay": 1}, "version": ""}),
        ("POST", "/api/solve", {"steering": {"stay": 1}, "seconds": 1}),
    ):
        status, answer, _ = ask(method, path, body, **headers)
        assert status == 403, (method, path)
        assert message in answer["error"]
    assert not (place.path / DRAFT).exists()


def test_a_link_that_is_followed_and_the_page_itself_are_served(ask: Client) -> None:
    assert ask("GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200
    assert ask("POST", "/api/solve", {}, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 403
    origin = f"http://127.0.0.1:{ask.port}"
    assert ask("GET", "/api/run", Sec_Fetch_Site="same-origin", Origin=origin)[0] == 200
    assert ask("GET", "/api/run", Host=f"localhost:{ask.port}", Origin=f"http://localhost:{ask.port}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/api/solve", b"{", 400, "must be JSON"),
        ("POST", "/api/solve", b"\xff", 400, "must be JSON"),
        ("POST", "/api/solve", b"[" * 100_000, 400, "must be JSON"),
        ("POST", "/api/solve", [], 400, "JSON object. Got a list"),
        ("POST", "/api/solve", {}, 422, "'seconds'"),
        ("POST", "/api/solve", {"seconds": 1}, 422, "'steering' is missing"),
        ("POST", "/api/solve", {"seconds": 1e9, "steering": {}}, 422, "at most 600"),
        ("POST", "/api/solve", {"seconds": True, "steering": {}}, 422, "'seconds'"),
        ("POST", "/api/solve", {"seconds": 1, "steering": {"bann": [1]}}, 422, "Did you mean 'ban'?"),
        ("POST", "/api/solve", {"seconds": 1, "steering": {"ban": [99]}}, 422, "from 0 to 7. Got 99"),
        ("POST", "/api/solve", {"seconds": 1, "steering": {"forbid": {"nort": [1]}}}, 422, "Did you mean 'north'?"),
        ("POST", "/api/solve", {"seconds": 1, "steering": {"prefer": {"1": float("nan")}}}, 422, "finite"),
        ("POST", "/api/parse", {"yaml": "ban: ["}, 422, "must be YAML"),
        ("POST", "/api/parse", {"yaml": "[" * 2_000}, 422, "must be YAML"),
        ("POST", "/api/parse", {"yaml": "!!python/object/apply:os.system [ls]"}, 422, "must be YAML"),
        ("POST", "/api/parse", {"yaml": "ban: 2001-99-99"}, 422, ""),
        ("PUT", "/api/steering", {"steering": {}}, 422, "'version'"),
        ("PUT", "/api/steering", {"steering": {"ban": ["red"]}, "version": ""}, 422, "'red'"),
        ("DELETE", "/api/run", None, 405, ""),
        ("POST", "/", {}, 405, ""),
        ("GET", "/api/steering", None, 405, ""),
        ("TRACE", "/api/run", None, 405, ""),
        ("GET", "/nowhere", None, 404, ""),
    ],
)
def test_what_is_refused(ask: Client, method: str, path: str, body: Any, status: int, message: str) -> None:
    headers = {"Content_Type": "application/json"} if isinstance(body, bytes) else {}
    given, answer, _ = ask(method, path, body, **headers)
    assert given == status
    assert message in answer["error"]
    assert ask("GET", "/api/run")[0] == 200


def test_other_content_types_are_refused(ask: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert ask("POST", "/api/solve", b"{}", Content_Type=kind)[0] == 415


def test_large_bodies_are_refused_whether_they_tell_their_length_or_not(ask: Client) -> None:
    fits = json.dumps({"yaml": "#" * (MOST_BYTES - 100)}).encode()
    assert ask("POST", "/api/parse", fits, Content_Type="application/json")[0] == 200
    # Refused by the length that is announced, before anything is sent.
    announced = _raw(ask.port, f"Content-Length: {MOST_BYTES + 1}", b"")
    assert announced.startswith(b"HTTP/1.1 413")
    chunk = b"%x\r\n%s\r\n" % (MOST_BYTES + 1, b" " * (MOST_BYTES + 1))
    assert _raw(ask.port, "Transfer-Encoding: chunked", chunk).startswith(b"HTTP/1.1 413")
    assert ask("GET", "/api/run")[0] == 200


def _raw(port: int, header: str, body: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        lines = ["POST /api/parse HTTP/1.1", f"Host: 127.0.0.1:{port}", f"X-QPM-Token: {TOKEN}", header, "", ""]
        connection.sendall("\r\n".join(lines).encode() + body)
        return connection.recv(4096)


# -- the process ---------------------------------------------------------------------------------------------------


def test_a_taken_port_and_a_run_without_features_are_refused(place: RunFolder, tmp_path: Path) -> None:
    with _listening(0) as listener, pytest.raises(InvalidInputError, match=r"'port'.*choose another"):
        _listening(listener.getsockname()[1])
    with pytest.raises(InvalidInputError, match="between 0 and 65535"):
        _listening(70_000)
    young = RunFolder(shutil.copytree(place.path, tmp_path / "young"))
    young.forget_from("assignment")
    with pytest.raises(RunFolderError, match="no features to steer"):
        make_app(young, TOKEN)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_command_serves_and_when_it_is_killed_nothing_is_lost(place: RunFolder, kept: list[int]) -> None:
    (place.path / DRAFT).unlink(missing_ok=True)
    steering = {"ban": [kept[0]]}
    with _process(place) as (process, ask):
        assert ask("GET", "/api/run")[0] == 200
        assert ask("PUT", "/api/steering", {"steering": steering, "version": ""})[0] == 200
        assert ask("POST", "/api/solve", {"steering": steering, "seconds": 5})[0] == 202
        process.kill()
    with _served(place) as again:
        assert again("GET", "/api/run", X_QPM_Token=ask.token)[0] == 403
        run = again("GET", "/api/run")[1]
        assert (run["steering"], run["problem"]) == (steering, None)
    assert not list(place.path.rglob(".writing-*"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_the_command(place: RunFolder) -> None:
    with _process(place) as (process, ask):
        assert ask("GET", "/api/run")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


@contextlib.contextmanager
def _process(place: RunFolder) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    command = [sys.executable, "-m", "qpm_vision", "serve", str(place.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[1]
            port, token = address.removeprefix("http://127.0.0.1:").split("/?token=")
            client = Client(int(port), token)
            yield process, client
        finally:
            process.kill()
