"""The page in a browser: every view, at two widths and in both themes, without errors and without the network."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.chromium import chromium_path, open_chromium
from qpm_vision.explain import overlay
from qpm_vision.faithfulness import judge
from qpm_vision.faithfulness.result import TITLES
from qpm_vision.report.contents import HeatMapTest, Histogram
from qpm_vision.report.render import render_page, save_file, save_folder
from tests.vision.conftest import Reported
from tests.vision.tiny import tiny_faithfulness

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

if importlib.util.find_spec("playwright") is None:
    pytest.skip("playwright is not installed", allow_module_level=True)
if chromium_path() is None:
    pytest.skip("no Chromium is installed on this machine", allow_module_level=True)

_READ = """(canvas) => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)  # milliseconds; a busy machine takes longer than the default
    with open_chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(reported: Reported, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_file(reported.report, tmp_path_factory.mktemp("page") / "report.html").path.as_uri()


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Browser, address: str, *, width: int = 1400, theme: Any = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, accept_downloads=True
        )
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._request)
        self.page.goto(address)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(f"request: {request.url}")

    def headed(self, text: str) -> None:
        """Wait until the view has this heading."""
        from playwright.sync_api import expect

        expect(self.page.locator("main h1")).to_have_text(text)

    def drawn(self) -> None:
        """Wait until the pictures in sight are drawn."""
        self.page.wait_for_function(
            """() => [...document.querySelectorAll("main canvas")]
                .filter((canvas) => canvas.offsetParent && canvas.getBoundingClientRect().top < innerHeight)
                .every((canvas) => "drawn" in canvas.dataset)"""
        )

    def fits(self) -> bool:
        """Whether nothing is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))

    def end(self) -> None:
        self.context.close()
        assert self.wrong == []


@pytest.fixture
def watched(browser: Browser, address: str) -> Iterator[Watched]:
    opened = Watched(browser, address)
    yield opened
    opened.end()


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (390, "dark"),
        (1400, "light"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1400, "dark", marks=pytest.mark.slow),
    ],
)
def test_every_view(browser: Browser, address: str, reported: Reported, width: int, theme: str) -> None:
    report, names = reported.report, reported.data.class_names
    seen = Watched(browser, address, width=width, theme=theme)
    page = seen.page
    seen.headed("tiny")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"
    assert dark == (theme == "dark")
    for tab in ("Features", "Classes", "Compare", "Images", "Heat maps", "Optimisation", "Overview"):
        page.get_by_role("link", name=tab, exact=True).click()
        page.locator("#tabs [aria-current]", has_text=tab).wait_for()
        seen.drawn()
        assert seen.fits(), tab
        box = page.locator("#tabs [aria-current]").bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    # a class, out of the matrix; its name is markup
    page.locator(".matrix tbody th a", has_text="<script>").click()
    seen.headed(names[0])
    assert page.evaluate("document.activeElement.tagName") == "H1"
    seen.drawn()
    assert seen.fits()
    # its first feature, and back
    page.locator("main .row-label .chip").first.click()
    seen.headed(f"Feature {report.features[report.classes[0].features[0]].number}")
    seen.drawn()
    assert seen.fits()
    page.go_back()
    seen.headed(names[0])
    # the nearest class, side by side
    page.get_by_role("link", name="Compare side by side").first.click()
    near = names[report.classes[0].nearest[0].class_index]
    seen.headed(f"{names[0]} or {near}?")
    seen.drawn()
    assert seen.fits()
    page.get_by_role("link", name="Swap sides").click()
    seen.headed(f"{near} or {names[0]}?")
    # a mistake
    page.get_by_role("link", name="Images", exact=True).click()
    assert report.wrong
    page.locator("main .picture").first.click()
    wrong = report.images[report.wrong[0]]
    seen.headed(wrong.name)
    page.locator(".pull").first.wait_for()
    assert f"the model says {names[wrong.predicted]}" in page.locator("main .lead").inner_text()
    assert page.get_by_role("heading", name=f"Why {names[wrong.predicted]} and not {names[wrong.label]}?").count() == 1
    seen.drawn()
    assert seen.fits()
    page.reload()
    seen.headed(wrong.name)
    seen.end()


def test_search_with_the_keyboard(watched: Watched, reported: Reported) -> None:
    page, names = watched.page, reported.data.class_names
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("SCRIPT")
    options = page.locator("#search-results [role=option]")
    assert options.all_inner_texts() == [f"{names[0]}\nclass"]
    page.keyboard.press("ArrowDown")
    assert page.locator("#search").get_attribute("aria-activedescendant") == options.first.get_attribute("id")
    page.keyboard.press("Enter")
    watched.headed(names[0])
    page.keyboard.press("/")
    page.keyboard.type(f"feature {reported.report.features[2].number}")
    page.keyboard.press("Enter")
    watched.headed(f"Feature {reported.report.features[2].number}")
    page.keyboard.press("/")
    page.keyboard.type("no such thing")
    assert page.locator("#search-results").inner_text() == "Nothing has that in its name."
    page.keyboard.press("Escape")
    assert page.locator("#search-results").is_hidden()


def test_the_matrix_is_sorted_and_searched(watched: Watched, reported: Reported) -> None:
    page, report = watched.page, reported.report
    rows = page.locator(".matrix tbody th")
    assert rows.all_inner_texts() == [report.classes[index].name for index in report.class_order]
    column = report.feature_order[0]
    page.locator(".matrix thead button").first.click()
    with_it = [entry.name for entry in report.classes if column in entry.features]
    assert set(rows.all_inner_texts()[: len(with_it)]) == set(with_it)
    assert page.locator(".matrix [aria-sort=descending]").count() == 1
    page.get_by_label("Order").select_option("name")
    page.locator(".matrix thead button").first.click()
    assert len(set(rows.all_inner_texts())) == 4
    page.get_by_label("Find a class", exact=True).fill("west")
    assert rows.all_inner_texts() == ["\uac00 west"]
    assert page.locator(".matrix tbody td a").count() == 2


def test_addresses(watched: Watched, address: str) -> None:
    page = watched.page
    for fragment in ("class=nowhere", "feature=99999", "image=train-99999", "nothing", "pair=a,b", "pair=%", "class=%"):
        page.goto(f"{address}#{fragment}")
        watched.headed("Not found")
    page.set_viewport_size({"width": 390, "height": 500})
    page.goto(f"{address}#features")
    watched.headed("Features")
    page.locator("main .card .chip").last.scroll_into_view_if_needed()
    left_at = page.evaluate("window.scrollY")
    assert left_at > 0
    page.locator("main .card .chip").last.click()
    page.wait_for_function("document.title.startsWith('feature')")
    assert page.evaluate("window.scrollY") == 0
    page.go_back()
    watched.headed("Features")
    assert page.evaluate("window.scrollY") == left_at


def test_names_are_used_and_exported(watched: Watched, reported: Reported, tmp_path: Path) -> None:
    from qpm_vision.feature_names import kept_features, read_names

    page, features = watched.page, reported.report.features
    for place, name in ((0, 'red, "crown"'), (1, "<b>tail</b>")):
        page.evaluate("(number) => qpmReport.go(`#feature=${number}`)", features[place].number)
        page.get_by_label("What would you call it?").fill(name)
        page.get_by_role("button", name="Name it").click()
        watched.headed(name)
    page.get_by_label("What would you call it?").fill('red, "crown"')
    page.get_by_role("button", name="Name it").click()
    assert f"Feature {features[0].number} has this name already." in page.get_by_role("alert").inner_text()
    watched.drawn()  # a page that is left while it decodes images complains about them
    page.reload()
    watched.headed("<b>tail</b>")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download names.csv").click()
    download.value.save_as(tmp_path / "names.csv")
    expected = {features[0].number: 'red, "crown"', features[1].number: "<b>tail</b>"}
    exported = read_names(tmp_path / "names.csv", kept_features(reported.folder))
    assert {number: name for number, name in exported.items() if name} == expected
    page.get_by_role("button", name="Forget").click()
    watched.headed(f"Feature {features[1].number}")
    assert page.locator("#new-names").is_hidden()


def test_the_theme_is_kept(watched: Watched) -> None:
    page = watched.page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_label("Colours").select_option("dark")
    assert page.evaluate(background) != light
    watched.drawn()  # a page that is left while it decodes images complains about them
    page.reload()
    assert page.evaluate(background) != light
    assert page.get_by_label("Colours").input_value() == "dark"


def test_heat_is_painted_as_in_other_pictures(watched: Watched) -> None:
    """The canvas does what `overlay` does, to what 8 bits can hold."""
    rng = np.random.default_rng(0)
    side = 32
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    presence = rng.random((4, 4)).astype(np.float32)
    presence[0] = 0
    for colour in ("#d55e00", "#332288", "#f0e442"):
        painted = watched.page.evaluate(
            """([image, presence, colour, side]) => {
                const canvas = document.createElement("canvas");
                canvas.width = canvas.height = side;
                const context = canvas.getContext("2d");
                const pixels = new ImageData(side, side);
                for (let place = 0; place < side * side; place++)
                    pixels.data.set([...image.slice(3 * place, 3 * place + 3), 255], 4 * place);
                context.putImageData(pixels, 0, 0);
                const map = Float32Array.from(presence);
                qpmReport.paintHeat(context, side, qpmReport.enlarged(map, 4, 4, side), colour);
                return [...context.getImageData(0, 0, side, side).data];
            }""",
            [image.ravel().tolist(), presence.ravel().tolist(), colour, side],
        )
        found = np.array(painted, dtype=np.float32).reshape(side, side, 4)[..., :3] / 255
        expected = overlay(image / np.float32(255), presence, colour)
        assert np.abs(found - expected).max() < 0.025, colour
        assert np.abs(found - expected).mean() < 0.006, colour


def test_logits_are_those_of_the_model(watched: Watched, reported: Reported) -> None:
    predicted = watched.page.evaluate(
        """async () => Promise.all(qpmReport.data.images.map(async (entry, place) => {
            const logits = qpmReport.logitsOf((await qpmReport.picture(place)).contributions);
            return logits.indexOf(Math.max(...logits));
        }))"""
    )
    assert predicted == [entry.predicted for entry in reported.report.images]


def test_pictures_say_what_they_show(watched: Watched, reported: Reported) -> None:
    page = watched.page
    page.evaluate("(name) => qpmReport.go(`#class=${encodeURIComponent(name)}`)", reported.data.class_names[3])
    watched.drawn()
    labels = page.locator("main .picture.framed canvas").evaluate_all(
        "(all) => all.map((canvas) => canvas.getAttribute('aria-label'))"
    )
    assert labels
    assert all(" of class \uac00 west: " in label for label in labels)
    assert all("strongest at the" in label or "not active" in label for label in labels)
    for element in page.locator("main a, main button, main input, main select").all():
        assert element.evaluate(
            "(node) => node.textContent || node.ariaLabel || node.labels?.length || node.querySelector('[aria-label]')"
        )


def test_a_folder_shows_its_images(browser: Browser, reported: Reported, tmp_path: Path) -> None:
    seen = Watched(browser, save_folder(reported.report, tmp_path / "pages").path.as_uri())
    seen.page.get_by_role("link", name="Classes", exact=True).click()
    seen.drawn()
    seen.page.locator("main .card a").nth(1).click()
    seen.drawn()
    assert seen.page.locator("main canvas[data-drawn]").count() >= 6
    seen.end()


@contextmanager
def _coming_in_slowly(page: bytes, until: int, go_on: Event) -> Iterator[str]:
    """The address of a page of which nothing after the first `until` bytes comes before `go_on` is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page[:until])
            self.wfile.flush()
            go_on.wait(30)
            self.wfile.write(page[until:])

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            go_on.set()
            server.shutdown()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_picture_is_waited_for_that_has_come_in_by_a_part_only(
    browser: Browser, reported: Reported, share: float
) -> None:
    page = "".join(render_page(reported.report)).encode()
    begin = page.index(b">", page.index(b'id="picture-2"')) + 1
    until = begin + int(share * (page.index(b"</script>", begin) - begin))
    go_on = Event()
    with _coming_in_slowly(page, until, go_on) as address, browser.new_context() as context:
        tab = context.new_page()
        tab.goto(address, wait_until="commit")
        tab.wait_for_function("document.getElementById('picture-2')")
        tab.evaluate("() => { window.early = qpmReport.picture(2).then(() => 'there', String); }")
        go_on.set()
        assert tab.evaluate("early") == "there"


def test_a_program_that_serves_the_page_adds_controls(browser: Browser, reported: Reported, tmp_path: Path) -> None:
    controls = """<script>
        for (const place of ["feature", "card"])
            qpmReport.tools[place].push((column) => {
                const button = document.createElement("button");
                button.textContent = `ban ${qpmReport.data.features[column].number}`;
                return button;
            });
        qpmReport.refresh();
    </script>"""
    path = tmp_path / "served.html"
    path.write_text("".join(render_page(reported.report)) + controls, encoding="utf-8")
    number = reported.report.features[1].number
    seen = Watched(browser, f"{path.as_uri()}#feature={number}")
    assert seen.page.get_by_role("button", name=f"ban {number}").is_visible()
    seen.page.evaluate("qpmReport.go('#features')")
    assert seen.page.get_by_role("button", name=f"ban {number}").is_visible()
    seen.end()


def test_a_report_without_all_there_could_be(browser: Browser, reported: Reported, tmp_path: Path) -> None:
    """No pictures, no test images, no bound, features that never vary: every view still says something."""
    report = reported.report
    flat = Histogram(-0.5, 0.5, [0.0] * 24, [0.0] * 24)
    bare = replace(
        report,
        classes=[replace(entry, images=[], n_test=0, n_right=0, nearest=[], swaps=[]) for entry in report.classes],
        features=[
            replace(entry, images=[], closest=None, separation=None, histogram=flat, average=[[0.0] * 4] * 4)
            for entry in report.features
        ],
        **{name: [] for name in ("images", "pictures", "wrong", "close", "confusions", "apart", "findings")},
        optimisation=replace(report.optimisation, bound=None, gap=None, trace=[], charged=[]),
        n_pictured=0,
    )
    seen = Watched(browser, save_file(bare, tmp_path / "bare.html").path.as_uri())
    for tab in ("Features", "Classes", "Compare", "Images", "Heat maps", "Optimisation", "Overview"):
        seen.page.get_by_role("link", name=tab, exact=True).click()
        seen.page.locator("#tabs [aria-current]", has_text=tab).wait_for()
        text = seen.page.locator("main").inner_text()
        assert not {"NaN", "undefined", "null", "Infinity"} & set(re.findall(r"\w+", text)), tab
    for address in (f"#feature={bare.features[0].number}", "#class=Ba%24%24in%2Cb%3Dc%23%2541%20%5C"):
        seen.page.evaluate("(address) => qpmReport.go(address)", address)
        seen.page.locator("main h1").wait_for()
    seen.headed(bare.classes[2].name)
    seen.end()


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1400, "dark")])
def test_what_was_measured_about_heat_maps(
    browser: Browser, reported: Reported, tmp_path: Path, width: int, theme: str
) -> None:
    measured = tiny_faithfulness((0.2, 0.01), (-0.2, None))
    tested = replace(reported.report, faithfulness=HeatMapTest(None, measured, judge(measured), TITLES))
    seen = Watched(browser, save_file(tested, tmp_path / "tested.html").path.as_uri(), width=width, theme=theme)
    page = seen.page
    assert judge(measured).sentence in page.locator("main").inner_text()
    page.get_by_role("link", name="How that was measured").click()
    seen.headed("Can the heat maps be trusted?")
    assert seen.fits()
    label = page.get_by_role("img").first.get_attribute("aria-label")
    assert label
    assert label.endswith(
        "heat maps of the pictures 0.30, Grad-CAM 0.50, from the middle outwards 0.40, random regions 0.50."
    )
    cells = page.locator("main tr", has=page.get_by_role("rowheader", name="heat maps of the pictures")).locator("td")
    assert cells.all_inner_texts() == [
        "0.300",
        "\u22120.200 \u00b1 0.010\nbetter",
        "0.700",
        "+0.200\nunknown",
        "\u2013",
    ]
    beak = page.locator("main tr", has=page.get_by_role("rowheader", name="beak")).locator("td")
    assert beak.all_inner_texts() == ["3", "65.0 % \u00b1 5.4", "53.0 %", "20.0 %", "40.0 %"]
    # Every line of a chart is seen, and told from the others by more than its colour.
    lines = (
        page.locator("main figure")
        .first.locator("path.line")
        .evaluate_all(
            "(all) => all.map((path) => [getComputedStyle(path).stroke, getComputedStyle(path).strokeDasharray])"
        )
    )
    assert len(lines) == len(measured.deletion.methods)
    for column in zip(*lines, strict=True):
        assert len(set(column)) == len(column)
    seen.end()
