"""The local server, over real sockets: what it answers, what it refuses, and that nothing that was saved is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qpm_opt import Assignment, InvalidInputError
from qpm_vision.feature_names import NAMES, all_names, feature_names
from qpm_vision.run_folder import RunFolder, RunFolderError
from qpm_vision.server import make_app
from qpm_vision.server.api import MOST_YAML
from qpm_vision.server.guard import MOST_BYTES
from qpm_vision.server.kept_files import DRAFT_FILE
from qpm_vision.server.listen import _listening
from qpm_vision.server.solving import MOST_RUNNING
from qpm_vision.steered_run import propose_steering
from qpm_vision.steering import Steering
from tests.vision.serving import TOKEN, Client, process, served
from tests.vision.tiny import tiny_data

DRAFT = DRAFT_FILE.name

_BOMB = "[x]"
for _n in range(40):
    _BOMB = f"[&a{_n} {_BOMB}{f', *a{_n}' * 9}]"
_BOMB = f"ban: [{_BOMB}]"
"""A text of 2 kB that would fill every memory if what it repeats were written out."""


@pytest.fixture(scope="module")
def place(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(shutil.copytree(finished.path, tmp_path_factory.mktemp("served") / "run"))


@pytest.fixture(scope="module")
def shared(place: RunFolder) -> Iterator[Client]:
    with served(place) as client:
        yield client


@pytest.fixture
def ask(shared: Client, place: RunFolder) -> Client:
    for name in (DRAFT, NAMES):
        (place.path / name).unlink(missing_ok=True)
    return shared


@pytest.fixture(scope="module")
def kept(place: RunFolder) -> list[int]:
    return [int(feature) for feature in Assignment.load(place.path / "assignment.npz").selected]


# -- what it is for ------------------------------------------------------------------------------------------------


def test_the_pages_and_their_assets(ask: Client) -> None:
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    seen: set[str] = set()
    for address in ("/report", "/steering"):
        status, page, headers = ask("GET", address)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert TOKEN.encode() not in page
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        wanted = re.findall(r'"/assets/([\w.]+)"', page.decode())
        while wanted:
            name = wanted.pop()
            status, content, headers = ask("GET", f"/assets/{name}", X_QPM_Token="")
            assert status == 200, name
            assert headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
            seen.add(name)
            wanted += {*re.findall(r'from "\./([\w.]+)"', content.decode())} - seen
    assert seen >= {"page.css", "icon.svg", "report.js", "steering.js", "draft.js"}
    for name in ("app.py", "steering.html", "nothing.js", "..%2fapp.py"):
        assert ask("GET", f"/assets/{name}")[0] == 404


def test_every_place_that_a_script_looks_for_is_on_its_page(ask: Client) -> None:
    for address, name in (("/report", "report"), ("/steering", "steering")):
        page, *scripts = (
            ask("GET", path)[1].decode()
            for path in (address, f"/assets/{name}.js", "/assets/dom.js", "/assets/draft.js")
        )
        wanted = set(re.findall(r'\bat\("([\w-]+)"\)', "".join(scripts)))
        assert wanted > {"message"}
        assert wanted <= set(re.findall(r'id="([\w-]+)"', page))


def test_what_the_run_is(ask: Client, place: RunFolder, kept: list[int]) -> None:
    status, run, _ = ask("GET", "/api/run")
    assert status == 200
    assert [feature["number"] for feature in run["features"]] == kept
    assert [item["name"] for item in run["classes"]] == ["north", "east", "south", "west"]
    assert sum(feature["classes"] for feature in run["features"]) == sum(len(c["features"]) for c in run["classes"])
    assert (run["steering"], run["problems"]) == ({"steering": {}, "version": ""}, [])
    assert run["names"] == {"names": {}, "version": ""}
    assert {**run["report"], "frame": ""} == {
        "there": False, "outdated": False, "possible": True, "writing": None, "frame": ""
    }  # fmt: skip


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
    def endless(*_: Any, progress: Any, **__: Any) -> None:
        while True:
            progress(SimpleNamespace(time=1.0, objective=None, bound=None, gap=None, message=""))
            time.sleep(0.01)

    monkeypatch.setattr("qpm_vision.server.solving.propose_steering", endless)
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
    assert ask("GET", "/api/run")[1]["steering"] == {"steering": one, "version": first["version"]}
    assert ask("PUT", "/api/steering", {"steering": {}, "version": first["version"]})[0] == 200
    assert ask("GET", "/api/run")[1]["steering"]["steering"] == {}


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
    assert "not understood" in run["problems"][0]
    body = {"steering": {"stay": 1}, "version": run["steering"]["version"]}
    status, answer, _ = ask("PUT", "/api/steering", body)
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


# -- names ---------------------------------------------------------------------------------------------------------


def test_names_are_given_by_those_who_saw_the_last_ones(ask: Client, place: RunFolder, kept: list[int]) -> None:
    stranger = next(number for number in range(8) if number not in kept)
    place.write_csv(NAMES, ("feature", "name"), [(stranger, "background")])
    before = ask("GET", "/api/names")[1]
    assert before["names"] == {str(stranger): "background"}
    status, given, _ = ask("PUT", "/api/names", {"names": {str(kept[0]): "red crown"}, "version": before["version"]})
    assert status == 200
    assert given == ask("GET", "/api/run")[1]["names"]
    assert feature_names(place) == {kept[0]: "red crown"}
    assert all_names(place) == {kept[0]: "red crown", stranger: "background"}
    for version in ("", before["version"]):  # other tabs
        status, answer, _ = ask("PUT", "/api/names", {"names": {str(kept[1]): "tail"}, "version": version})
        assert status == 409
        assert "another tab" in answer["error"]
    assert ask("POST", "/api/solve", {"steering": {"ban": ["red crown"]}, "seconds": 5})[0] == 202
    assert ask("PUT", "/api/names", {"names": {}, "version": given["version"]})[0] == 200
    assert all_names(place) == {stranger: "background"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "an object with a name"),
        (["a"], "an object with a name"),
        ({"0": 1}, "an object with a name"),
        ({"x": "a"}, "Got 'x'"),
        ({"٣": "a"}, "numbers of features"),
        ({"-1": "a"}, "numbers of features"),
        ({"9" * 5000: "a"}, "numbers of features"),
        ({"4711": "a"}, "features that the run keeps. Got feature 4711"),
        ({"{0}": " a"}, "printable"),
        ({"{0}": "a" * 61}, "1 to 60"),
        ({"{0}": "17"}, "must not be a number"),
        ({"{0}": "a", "{1}": "a"}, "the same name. Got 'a'"),
        ({"{0}": "background"}, "the same name"),
    ],
)
def test_names_that_are_none_leave_the_file(
    ask: Client, place: RunFolder, kept: list[int], names: Any, message: str
) -> None:
    stranger = next(number for number in range(8) if number not in kept)
    place.write_csv(NAMES, ("feature", "name"), [(kept[2], "tail"), (stranger, "background")])
    content = (place.path / NAMES).read_bytes()
    if isinstance(names, dict):
        names = {number.format(*kept): name for number, name in names.items()}
    version = ask("GET", "/api/names")[1]["version"]
    status, answer, _ = ask("PUT", "/api/names", {"names": names, "version": version})
    assert status == 422
    assert message in answer["error"]
    assert (place.path / NAMES).read_bytes() == content


def test_a_damaged_table_of_names_is_told_and_kept(ask: Client, place: RunFolder, kept: list[int]) -> None:
    (place.path / NAMES).write_text("feature;name\n1;a\n")
    status, run, _ = ask("GET", "/api/run")
    assert status == 200
    assert "must be separated by commas. Got semicolons" in run["problems"][0]
    body = {"names": {str(kept[0]): "a"}, "version": run["names"]["version"]}
    status, answer, _ = ask("PUT", "/api/names", body)
    assert status == 409
    assert "Correct or move it" in answer["error"]
    assert (place.path / NAMES).read_text() == "feature;name\n1;a\n"


# -- the report ----------------------------------------------------------------------------------------------------


def test_the_report_is_framed_and_may_not_act_for_the_page(ask: Client, place: RunFolder) -> None:
    address = ask("GET", "/api/run")[1]["report"]["frame"]
    assert ask("GET", address, X_QPM_Token="")[0] == 404
    (place.path / "report.html").write_text("<!doctype html><script>1</script>")
    try:
        status, page, headers = ask("GET", address, X_QPM_Token="")
        assert status == 200
        assert page.startswith(b"<!doctype html><script>1</script>")
        assert b"window.qpmReport" in page
        assert TOKEN.encode() not in page
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["sandbox"] == "allow-scripts"
        assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'self'")
        assert "connect-src" not in policy
        assert ask("GET", "/api/run")[1]["report"]["there"]
        for wrong in ("/frame/", "/frame/x", f"/frame/{TOKEN.replace(' ', '%20')}", f"{address}/x"):
            assert ask("GET", wrong, X_QPM_Token="")[0] in (403, 404)
        # What a request of the framed page looks like: neither its origin nor its site is ours.
        for headers in ({"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
            assert ask("GET", "/api/run", **headers)[0] == 403
            assert ask("GET", address, X_QPM_Token="", **headers)[0] == 403
    finally:
        (place.path / "report.html").unlink()


def test_the_report_is_written_when_it_is_missing_or_outdated(
    ask: Client, place: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpm_vision.report.gather.load_data", lambda *_, **__: tiny_data())
    status, begun, _ = ask("POST", "/api/report", {})
    assert status == 202
    state = ask.ended(f"/api/report/{begun['id']}")
    try:
        assert (state["state"], state["error"]) == ("done", None)
        assert "report.html" in state["result"]["written"]
        assert (state["progress"]["task"], state["progress"]["done"]) == ("pictures", state["progress"]["total"])
        known = ask("GET", "/api/run")[1]["report"]
        assert (known["there"], known["outdated"]) == (True, False)
        assert b"window.qpmReport = " in ask("GET", known["frame"])[1]
        os.utime(place.path / "report.html", (1e9, 1e9))
        assert ask("GET", "/api/run")[1]["report"]["outdated"]
    finally:
        (place.path / "report.html").unlink(missing_ok=True)


def test_writing_the_report_can_fail_and_be_stopped_and_is_done_once_at_a_time(
    ask: Client, place: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = ask("POST", "/api/report", {})[1]
    state = ask.ended(f"/api/report/{begun['id']}")
    assert state["state"] == "failed"  # the data of these tests have no place from which they could be loaded
    assert "tiny" in state["error"]

    def endless(*_: Any, reporter: Any, **__: Any) -> None:
        while True:
            reporter.advance("images", 1, 2)
            time.sleep(0.01)

    monkeypatch.setattr("qpm_vision.server.reporting.write_report", endless)
    begun = ask("POST", "/api/report", {})[1]
    assert ask("GET", "/api/run")[1]["report"]["writing"] == begun["id"]
    status, answer, _ = ask("POST", "/api/report", {})
    assert status == 429
    assert "No further report can begin: 1 is under way" in answer["error"]
    assert ask("DELETE", f"/api/report/{begun['id']}")[0] == 200
    assert ask.ended(f"/api/report/{begun['id']}")["state"] == "cancelled"
    assert not (place.path / "report.html").exists()
    assert ask("GET", "/api/run")[1]["report"]["writing"] is None


def test_pictures_of_features_that_the_run_does_not_keep(
    place: RunFolder, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def load(name: str, **_: Any) -> Any:
        loads.append(name)
        return tiny_data()

    monkeypatch.setattr("qpm_vision.explain.from_run.load_data", load)
    other = next(number for number in range(8) if number not in kept)
    with served(place) as ask:
        for _ in range(2):
            status, picture, headers = ask("GET", f"/api/features/{other}")
            assert (status, headers["content-type"]) == (200, "image/png")
            assert picture.startswith(b"\x89PNG")
        assert ask("GET", f"/api/features/{kept[0]}")[0] == 200
        assert len(loads) == 1
        status, answer, _ = ask("GET", "/api/features/8")
        assert (status, "0 to 7" in answer["error"]) == (422, True)
        for wrong in ("-1", "1e3", "%2e%2e", "0" * 200):
            assert ask("GET", f"/api/features/{wrong}")[0] == 422
        assert ask("POST", f"/api/features/{other}", {})[0] == 405
        assert ask("GET", f"/api/features/{other}", X_QPM_Token="")[0] == 403


def test_only_some_wait_for_a_picture(place: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        begun.release()
        go_on.wait(30)
        return tiny_data()

    monkeypatch.setattr("qpm_vision.explain.from_run.load_data", slow)
    with served(place) as ask, ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, "GET", "/api/features/0")
        begun.acquire(timeout=30)
        others = [pool.submit(ask, "GET", f"/api/features/{number}") for number in (1, 2, 3, 4, 5)]
        refused = next(future for future in as_completed(others, timeout=30))
        go_on.set()
        answers = [future.result() for future in (first, *others)]
        assert refused.result()[0] == 429
        assert sorted({status for status, _, _ in answers}) == [200, 429]
        assert [status for status, _, _ in answers].count(200) == 4


def test_an_unfinished_run_has_no_report(place: RunFolder, tmp_path: Path) -> None:
    young = RunFolder(shutil.copytree(place.path, tmp_path / "young"))
    young.forget_from("fine-tuning")
    with served(young) as ask:
        assert ask("GET", "/")[2]["location"].startswith("/steering?")
        assert not ask("GET", "/api/run")[1]["report"]["possible"]
        status, answer, _ = ask("POST", "/api/report", {})
    assert status == 422
    assert "not finished" in answer["error"]


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


def test_a_person_is_refused_in_a_page(ask: Client) -> None:
    accepted = "text/html,application/xhtml+xml,*/*;q=0.8"
    status, page, headers = ask("GET", "/", Accept=accepted, X_QPM_Token="")
    assert (status, headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert b"<p>The token is missing" in page
    status, page, _ = ask("GET", "/", Accept=accepted, Host="<script>:1")
    assert status == 403
    assert b"<script>" not in page


def test_a_link_that_is_followed_and_the_page_itself_areserved(ask: Client) -> None:
    status, _, headers = ask("GET", "/?token=a%26b", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")
    assert (status, headers["location"]) == (307, "/report?token=a%26b")
    assert ask("GET", "/report", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200
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
        ("POST", "/api/parse", b'{"yaml": "ban: [\\"\\\\ud800\\"]"}', 422, "'ban'"),
        ("POST", "/api/parse", {"yaml": _BOMB}, 422, "'ban'"),
        ("POST", "/api/parse", b'{"yaml": "\\ud800"}', 400, "must be JSON"),
        ("POST", "/api/parse", {"steering": {"stay": 10**400}}, 422, "'stay'"),
        ("POST", "/api/parse", {"steering": {"stay": 1e300}}, 422, "at most 1,000,000"),
        ("PUT", "/api/steering", {"steering": {"ban": ["9" * 5000]}, "version": ""}, 422, "'ban'"),
        ("PUT", "/api/steering", {"steering": {}}, 422, "'version'"),
        ("PUT", "/api/names", {"names": {}}, 422, "'version'"),
        ("POST", "/api/names", {"names": {}}, 405, ""),
        ("POST", "/api/report", [], 400, "JSON object"),
        ("GET", "/api/report", None, 405, ""),
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
    fits = json.dumps({"yaml": "#" * MOST_YAML}).encode()
    fits += b" " * (MOST_BYTES - len(fits))
    assert ask("POST", "/api/parse", fits, Content_Type="application/json")[0] == 200
    assert ask("POST", "/api/parse", {"yaml": "#" * (MOST_YAML + 1)})[0] == 413
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
    with process(place) as (running, ask):
        assert ask("GET", "/api/run")[0] == 200
        assert ask("PUT", "/api/steering", {"steering": steering, "version": ""})[0] == 200
        assert ask("POST", "/api/solve", {"steering": steering, "seconds": 5})[0] == 202
        running.kill()
    with served(place) as again:
        assert again("GET", "/api/run", X_QPM_Token=ask.token)[0] == 403
        run = again("GET", "/api/run")[1]
        assert (run["steering"]["steering"], run["problems"]) == (steering, [])
    assert not list(place.path.rglob(".writing-*"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_the_command(place: RunFolder) -> None:
    with process(place) as (running, ask):
        assert ask("GET", "/api/run")[0] == 200
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
