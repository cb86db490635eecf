"""The served report in a browser: ban, require and name on it, see the price, save; and what it must not do."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.chromium import chromium_path, open_chromium
from qpm_vision.feature_names import all_names, feature_names
from qpm_vision.report.render import save_file
from qpm_vision.run_folder import RunFolder
from qpm_vision.steered_run import propose_steering
from qpm_vision.steering import Steering
from tests.vision.conftest import Reported
from tests.vision.serving import TOKEN, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page

if importlib.util.find_spec("playwright") is None:
    pytest.skip("playwright is not installed", allow_module_level=True)
if chromium_path() is None:
    pytest.skip("no Chromium is installed on this machine", allow_module_level=True)

from playwright.sync_api import expect


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)  # milliseconds; a busy machine takes longer than the default
    with open_chromium() as opened:
        yield opened


@pytest.fixture
def folder(reported: Reported, tmp_path: Path) -> RunFolder:
    """A run with a report, of which nothing has been saved yet."""
    copy = RunFolder(shutil.copytree(reported.folder.path, tmp_path / "run"))
    save_file(reported.report, copy.path / "report.html")
    return copy


class Tabs:
    """Tabs of one browser on one server, and what went wrong in them."""

    def __init__(self, browser: Browser, port: int, width: int = 1400, theme: Any = "light") -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.context: BrowserContext = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.wrong: list[str] = []

    def open(self, path: str = "/", fragment: str = "") -> Page:
        page = self.context.new_page()
        page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", self._request)
        page.goto(f"{self.origin}{path}?token={TOKEN.replace(' ', '%20')}{fragment}")
        return page

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:")):
            self.wrong.append(f"request: {request.url}")


@pytest.fixture
def tabs(browser: Browser, folder: RunFolder) -> Iterator[Tabs]:
    with served(folder) as ask:
        opened = Tabs(browser, ask.port)
        yield opened
        opened.context.close()
    assert opened.wrong == []


def _report(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def _press(page: Page | FrameLocator, name: str) -> None:
    """Press a button, also in a tab that is not in front, where a click waits for a picture to be drawn."""
    page.get_by_role("button", name=name).dispatch_event("click")


def _fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), pytest.param(1400, "light", marks=pytest.mark.slow)])
def test_ban_see_the_price_save(
    browser: Browser, folder: RunFolder, reported: Reported, width: int, theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpm_vision.explain.from_run.load_data", lambda *_, **__: reported.data)
    number = reported.report.features[0].number
    with served(folder) as ask:
        tabs = Tabs(browser, ask.port, width, theme)
        page = tabs.open("/", "#features")
        card = _report(page).locator(".card", has=page.locator(f'a[href="#feature={number}"]')).first
        card.get_by_role("button", name="Ban").click()
        expect(card.get_by_role("button", name="Ban")).to_have_attribute("aria-pressed", "true")
        expect(card.locator("h2 .chip")).to_have_attribute("data-wanted", "ban")
        diff = propose_steering(folder, Steering(ban=(number,))).diff
        expect(page.locator("#outcome")).to_contain_text(f"{diff.before.total:.3f} → {diff.after.total:.3f}")
        expect(page.locator("#outcome")).to_contain_text(f"Price: {diff.price:.3f}")
        expect(page.locator("#outcome")).to_contain_text(f"Out: {number} in ")
        page.get_by_label("Keep the other features").check()
        diff = propose_steering(folder, Steering(ban=(number,), stay=1.0)).diff
        expect(page.locator("#outcome")).to_contain_text(f"Price: {diff.price:.3f}")
        page.get_by_text("What each class loses and gains").click()
        for feature in diff.features_in:
            page.get_by_role("button", name=f"Look at {feature}").click()
            picture = page.get_by_alt_text(f"Feature {feature} on images of the classes")
            expect(picture).to_have_js_property("complete", True)
            assert picture.evaluate("image => image.naturalWidth") > 300
        assert {change.name for change in diff.classes} <= set(page.locator("#details th").all_inner_texts())
        assert not (folder.path / "steer.yaml").exists()
        page.get_by_role("button", name="Save as steer.yaml").click()
        expect(page.locator("#message")).to_contain_text("Saved.")
        assert Steering.from_yaml(folder.path / "steer.yaml") == Steering(ban=(number,), stay=1.0)
        assert _fits(page)
        # the feature's own page; what is required is banned no more
        card.locator("h2 .chip").click()
        expect(_report(page).locator("main h1")).to_have_text(f"Feature {number}")
        _report(page).get_by_role("button", name="Require").click()
        expect(_report(page).get_by_role("button", name="Ban")).to_have_attribute("aria-pressed", "false")
        page.reload()  # to the same place, with what was not saved
        expect(_report(page).get_by_role("button", name="Require")).to_have_attribute("aria-pressed", "true")
        # A reload begins a search, whose outcome moves the buttons: a click at that moment would miss.
        expect(page.locator("#outcome")).to_contain_text("Price: ")
        page.get_by_role("button", name=f"take back required: {number}").click()
        expect(_report(page).get_by_role("button", name="Require")).to_have_attribute("aria-pressed", "false")
        page.get_by_role("link", name="All that can be steered").click()
        expect(page.locator("#features tr")).to_have_count(len(reported.report.features))
        expect(page.get_by_label(f"ban {number}", exact=True)).not_to_be_checked()
        assert _fits(page)
        tabs.context.close()
    assert tabs.wrong == []


def test_names_are_given_and_seen_everywhere(tabs: Tabs, folder: RunFolder, reported: Reported) -> None:
    first, second = (entry.number for entry in reported.report.features[:2])
    page, other = tabs.open("/", f"#feature={first}"), tabs.open("/", f"#feature={first}")
    _press(_report(page), "Name")
    page.get_by_label("What would you call").fill('  red <b>"crown"</b> ')
    _press(page, "Name it")
    expect(_report(page).locator("main h1")).to_have_text('red <b>"crown"</b>')
    expect(_report(other).locator("main h1")).to_have_text('red <b>"crown"</b>')  # another tab hears of it
    assert feature_names(folder) == {first: 'red <b>"crown"</b>'}
    page.reload()
    expect(_report(page).locator("main h1")).to_have_text('red <b>"crown"</b>')
    _press(_report(page), "Ban")
    expect(page.locator("#outcome")).to_contain_text(f'Out: red <b>"crown"</b> ({first}) in ')
    # a name that is none is refused where it was entered
    page = tabs.open("/steering")
    page.get_by_label(f"name {second}").click()
    page.get_by_label("What would you call").fill("17")
    _press(page, "Name it")
    expect(page.locator("dialog .problem")).to_contain_text("must not be a number")
    # another program names a feature meanwhile: told, loaded, and not lost
    folder.write_csv("names.csv", ("feature", "name"), [(first, "tail")])
    page.get_by_label("What would you call").fill("beak")
    _press(page, "Name it")
    expect(page.locator("dialog .problem")).to_contain_text("changed in another tab or by another program")
    _press(page, "Name it")
    expect(page.locator("#features")).to_contain_text(f"beak ({second})")
    assert all_names(folder) == {first: "tail", second: "beak"}
    assert [text for text in tabs.wrong if "422" not in text and "409" not in text] == []
    tabs.wrong.clear()


def test_a_feature_is_forbidden_for_a_class(tabs: Tabs, folder: RunFolder, reported: Reported) -> None:
    entry = reported.report.classes[0]
    number = reported.report.features[entry.features[0]].number
    page = tabs.open("/report", "#classes")
    _report(page).locator(".card a", has_text=entry.name).last.click()
    expect(_report(page).locator("main h1")).to_have_text(entry.name)
    button = _report(page).get_by_label("Forbid for this class:").get_by_role("button", name=f"feature {number}")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    diff = propose_steering(folder, Steering(forbid={entry.name: (number,)})).diff
    expect(page.locator("#outcome")).to_contain_text(f"Price: {diff.price:.3f}")
    page.get_by_role("button", name="Save as steer.yaml").click()
    expect(page.locator("#message")).to_contain_text("Saved.")
    assert Steering.from_yaml(folder.path / "steer.yaml").forbid == {entry.name: (number,)}
    page.get_by_role("button", name=f"take back not in {entry.name}: {number}").click()
    expect(button).to_have_attribute("aria-pressed", "false")


def test_the_theme_of_the_report_stays(tabs: Tabs) -> None:
    page = tabs.open("/", "#features")
    root = _report(page).locator("html")
    expect(root).to_have_attribute("data-theme", "auto")
    _report(page).locator("#theme").select_option("dark")
    expect(root).to_have_attribute("data-theme", "dark")
    page.wait_for_function("() => Object.values(localStorage).includes('dark')")  # the page around has heard of it
    page.reload()
    expect(_report(page).locator("html")).to_have_attribute("data-theme", "dark")
    expect(_report(page).locator("#theme")).to_have_value("dark")


def test_several_tabs_and_a_killed_server_lose_nothing(browser: Browser, folder: RunFolder, reported: Reported) -> None:
    first, second, third = (entry.number for entry in reported.report.features[:3])
    with served(folder) as ask:
        tabs = Tabs(browser, ask.port)
        one, two, idle = (tabs.open("/", f"#feature={number}") for number in (first, second, first))
        _press(_report(one), "Ban")
        _press(_report(two), "Require")
        expect(two.locator("#outcome")).to_contain_text("Price")
        _press(one, "Save as steer.yaml")
        expect(one.locator("#message")).to_contain_text("Saved.")
        expect(idle.locator("#message")).to_contain_text("saved in another tab; it is shown here now")
        expect(_report(idle).get_by_role("button", name="Ban")).to_have_attribute("aria-pressed", "true")
        expect(two.locator("#message")).to_contain_text("What is entered here is not saved")
        _press(two, "Save as steer.yaml")
        expect(two.locator("#message")).to_contain_text("what you had entered can be taken up again")
        assert Steering.from_yaml(folder.path / "steer.yaml") == Steering(ban=(first,))
        expect(two.locator("#wanted")).to_contain_text(f"banned: {first}")
        _press(two, "Take up what was not saved")
        expect(two.locator("#wanted")).to_contain_text(f"required: {second}")
        _press(two, "Save as steer.yaml")
        expect(two.locator("#message")).to_contain_text("Saved.")
        assert Steering.from_yaml(folder.path / "steer.yaml") == Steering(require=(second,))
        one.goto(one.url.replace(f"#feature={first}", f"#feature={third}"))
        _press(_report(one), "Ban")
        expect(one.locator("#wanted")).to_contain_text(f"banned: {third}")
        port = ask.port
    _press(_report(one), "Ban")  # off again, with nobody there
    expect(one.locator("#message")).to_contain_text("The server does not answer")
    # What is pressed in the frame reaches the page around it a moment later, which a reload would cut off.
    expect(one.locator("#wanted")).not_to_contain_text(f"banned: {third}")
    _press(_report(one), "Ban")
    expect(one.locator("#wanted")).to_contain_text(f"banned: {third}")
    with served(folder, port):
        one.reload()
        expect(one.locator("#wanted")).to_contain_text(f"banned: {third}")
        expect(_report(one).get_by_role("button", name="Ban")).to_have_attribute("aria-pressed", "true")
        tabs.context.close()
    # A save that was refused, the time without a server, and a search that the killed one was asked for.
    expected = ("409", "ERR_CONNECTION_REFUSED", "404")
    assert [text for text in tabs.wrong if not any(code in text for code in expected)] == []


_HOSTILE = """<!doctype html><meta charset="utf-8"><main id="main"></main><h1>hostile</h1><ul></ul><script>
const list = document.querySelector("ul");
const say = (text) => list.append(Object.assign(document.createElement("li"), { textContent: text }));
const attempts = {
  token: () => parent.location.search,
  page: () => parent.document.title,
  storage: () => localStorage.length,
  top: () => { top.location = "about:blank"; },
};
for (const [name, attempt] of Object.entries(attempts)) {
  try { say(`${name} worked: ${attempt()}`); } catch (error) { say(`${name} failed`); }
}
const asked = [
  fetch("/api/run"),
  fetch("/api/steering", { method: "PUT", body: "{}", headers: { "Content-Type": "application/json" } }),
  fetch("/files/config.json"),
];
for (const request of asked)
  request.then((answer) => say(`request worked: ${answer.status}`), () => say("request failed"));
const image = new Image();
image.onload = image.onerror = (event) => say(`image ${event.type}`);
image.src = "/files/figures/classes.png";
for (const message of [null, 1, "ban", [], {}, { what: "toggle" },
    { what: "toggle", list: "__proto__", feature: NUMBER },
    { what: "toggle", list: "ban", feature: 4711 }, { what: "toggle", list: "ban", feature: "x" },
    { what: "forbid", name: "nowhere", feature: NUMBER }, { what: "forbid", name: {}, feature: NUMBER },
    { what: "name", feature: {} }, { what: "name", feature: 4711 }, { what: "place", hash: 1 },
    { what: "place", hash: "//evil.example/" }, { what: "save" }, { what: "toggle", list: "ban", feature: NUMBER }])
  parent.postMessage(message, "*");
</script>"""


def test_a_hostile_report_can_do_no_more_than_press_the_buttons(
    tabs: Tabs, folder: RunFolder, reported: Reported
) -> None:
    number = reported.report.features[0].number
    (folder.path / "report.html").write_text(_HOSTILE.replace("NUMBER", str(number)), encoding="utf-8")
    before = sorted(folder.path.iterdir())
    page = tabs.open()
    expect(page.locator("#wanted")).to_contain_text(f"banned: {number}")
    expect(page.locator("#message")).to_contain_text("has no buttons")
    tried = _report(page).locator("li")
    expect(tried).to_have_count(8)
    assert sorted(tried.all_inner_texts()) == sorted(
        [f"{name} failed" for name in ("token", "page", "storage", "top", "request", "request", "request")]
        + ["image error"]
    )
    assert page.url.startswith(f"{tabs.origin}/report?token=")
    assert page.locator(".wanted").count() == 1
    assert page.locator("dialog").count() == 0
    assert sorted(folder.path.iterdir()) == before
    tabs.wrong.clear()  # the browser says what it refused


def test_the_report_is_written_from_the_page(
    tabs: Tabs, folder: RunFolder, reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpm_vision.report.gather.load_data", lambda *_, **__: reported.data)
    (folder.path / "report.html").unlink()
    page = tabs.open()
    expect(page.locator("#place")).to_contain_text("The run has no report yet.")
    page.get_by_role("button", name="Write the report").click()
    expect(_report(page).locator("main h1")).to_have_text("tiny")
    expect(page.locator("#message")).to_contain_text("Written: ")
    expect(page.get_by_role("button", name="Write the report anew")).to_be_visible()
    assert (folder.path / "report.html").stat().st_size > 10_000
