"""The built site in a real browser: nothing comes from another host, nothing fails, every link leads somewhere.

Each page is opened once, at the width of a desk, then looked at on a phone, in light and in dark.
"""

import functools
import gzip
import itertools
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

from cryostudy import book, reference

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
# An accessibility checker that no Python package brings: npm install --no-save --ignore-scripts axe-core
AXE = Path(os.environ.get("AXE_CORE", book.ROOT / "node_modules/axe-core/axe.min.js"))
# What the theme and Sphinx do, and no setting mends: a label that says more than its button shows, table corners
# without a heading, signatures of several lines.
AXE_KNOWN = {"label-content-name-mismatch", "empty-table-header", "definition-list", "dlitem"}
# Text whose contrast with what is painted behind it is below WCAG's 4.5 (3 where it is large); pictures behind it count
# as unknown. Colours are drawn onto a pixel, for the browser writes them in many ways.
FAINT = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const seen = new Map();
const rgba = colour => {
  if (!seen.has(colour)) {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; seen.set(colour, [r, g, b, a / 255]);
  }
  return seen.get(colour);
};
const over = (top, under) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * under[i]);
const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = c => { const [r, g, b] = c.map(v => linear(v / 255)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = element => {
  if (!element) return [255, 255, 255];
  const colour = rgba(getComputedStyle(element).backgroundColor);
  return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(element.parentElement));
};
const faint = new Set();
for (const element of document.querySelectorAll('main *, .bd-sidebar *')) {
  const own = [...element.childNodes].filter(n => n.nodeType === 3 && n.textContent.trim());
  if (!own.length || !element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
  const style = getComputedStyle(element), size = parseFloat(style.fontSize);
  const paper = behind(element), ink = over(rgba(style.color), paper);
  const [low, high] = [light(paper), light(ink)].sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05), words = own[0].textContent.trim().slice(0, 30);
  const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
  if (ratio < wanted - 0.01)
    faint.add(`${element.tagName}.${element.className}: ${words} (${ratio.toFixed(1)})`);
}
return [...faint].slice(0, 10);
"""
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"
)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Browser:
    """Headless Chromium that can reach nothing but this host, and reports what a page asked for."""

    def __init__(self, profile: str):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
            *("disable-background-networking", "disable-component-update", "disable-dev-shm-usage"),
            *(f"user-data-dir={profile}", "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
        ):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.driver.set_window_size(1280, 1000)

    def problems(self, url: str) -> list[str]:
        """Opens `url` and lists its requests to other hosts, failed requests and console errors."""
        self.driver.get(url)
        # MathJax starts after the page has loaded, and loads its fonts and extensions as it needs them.
        self.driver.set_script_timeout(30)
        self.driver.execute_async_script(
            "const done = arguments[0], ready = window.MathJax?.startup?.promise ?? Promise.resolve();"
            "ready.then(() => document.fonts.ready).then(() => setTimeout(done, 200), done)"
        )
        found = []
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                asked = event["params"]["request"]["url"]
                if asked.startswith(("http", "ws")) and urlsplit(asked).netloc != urlsplit(url).netloc:
                    found.append(f"asks another host: {asked}")
            elif event["method"] == "Network.responseReceived" and event["params"]["response"]["status"] >= 400:
                found.append(f"{event['params']['response']['status']}: {event['params']['response']['url']}")
        found += [f"console: {line['message']}" for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]
        return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        yield browser
        browser.driver.quit()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published site, built with warnings as errors."""
    out = tmp_path_factory.mktemp("book") / "site"
    return book.build(book.ROOT / book.CHAPTERS, out, book.ROOT / book.RECORDS).parent


def serve(folder: Path) -> tuple[ThreadingHTTPServer, str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    server, url = serve(site)
    yield url
    server.shutdown()


def pages(site: Path) -> list[str]:
    """The site's pages, relative to its root; templates of the theme are none."""
    found = (path.relative_to(site) for path in site.rglob("*.html"))
    return sorted(path.as_posix() for path in found if path.parts[0] != "_static")


@functools.cache
def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(), "html.parser")


def broken_links(site: Path) -> list[str]:
    """Every link or source of a page that leads to no file of the site, or to no place on its page."""
    places = {page: {tag["id"] for tag in soup(site / page).find_all(id=True)} for page in pages(site)}
    broken = []
    for page in places:
        for tag in soup(site / page).find_all(["a", "img", "script", "link", "source"]):
            target = tag.get("href") or tag.get("src")
            if not target or urlsplit(target).scheme or target.startswith("//"):
                continue
            parts = urlsplit(urljoin(f"http://site/{page}", target))
            path = unquote(parts.path).lstrip("/")
            if not (site / path).is_file():
                broken.append(f"{page}: {target}")
            elif parts.fragment and path in places and unquote(parts.fragment) not in places[path]:
                broken.append(f"{page}: {target} (no such place)")
    return broken


def test_links_lead_to_pages_and_places_of_the_site(site: Path):
    assert broken_links(site) == []


def test_broken_links_are_found(tmp_path: Path):
    (tmp_path / "a.html").write_text("<a href='b.html'>b</a><a href='#here'>c</a><a href='#there'>d</a><p id='there'>")
    assert broken_links(tmp_path) == ["a.html: b.html", "a.html: #here (no such place)"]


def test_site_holds_what_the_table_of_contents_promises(site: Path):
    promised = (book.ROOT / "_toc.yml").read_text()
    promised += "".join(f"{reference.FOLDER}/{floor}\n" for floor in reference.floors())
    assert all(f"{page.removesuffix('.html')}\n" in promised for page in pages(site) if "/" in page)
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 50e6


def test_pages_have_titles_of_their_own_headings_in_order_and_landmarks(site: Path):
    titles = {}
    for page in pages(site):
        whole = soup(site / page)
        assert whole.html["lang"] == "en" and whole.title.get_text(strip=True), page
        if page == "index.html":  # leads to the front page
            continue
        titles.setdefault(whole.title.get_text(strip=True), []).append(page)
        assert whole.find("main") and whole.find("nav") and whole.find(id="pst-skip-link"), page
        levels = [int(heading.name[1]) for heading in (whole.find("article") or whole).find_all(re.compile("^h[1-6]$"))]
        assert levels.count(1) == 1 and levels[0] == 1, f"{page}: {levels}"
        assert all(below <= above + 1 for above, below in itertools.pairwise(levels)), f"{page}: {levels}"
    assert {title: found for title, found in titles.items() if len(found) > 1} == {}


def test_pictures_say_in_words_what_they_show(site: Path):
    for page in pages(site):
        article = soup(site / page).find("article")
        for picture in article.find_all("img") if article else ():
            assert len(picture.get("alt", "").split()) >= 4, f"{page}: {picture.get('alt')!r} of {picture['src']}"


def test_chapters_link_to_what_they_use(site: Path):
    for page in (site / book.CHAPTERS).glob("*.html"):
        uses = soup(page).find("div", class_="uses")
        places = [a["href"] for a in uses.find_all("a")]
        assert len(places) >= 3 and all(place.startswith("../api/") for place in places), page.name


@dataclass(frozen=True)
class Visit:
    """What a page did and looked like."""

    problems: list[str]
    formulas: int
    failed_formulas: int
    phone_width: int
    faint: list[str]


@pytest.fixture(scope="session")
def visits(browser: Browser, site: Path, address: str) -> dict[str, Visit]:
    found = {}
    driver = browser.driver
    count = "return arguments[0].map(name => document.querySelectorAll(name).length)"
    mode = "document.documentElement.dataset.theme = arguments[0];"
    phone = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    for page in pages(site):
        problems = browser.problems(address + page)
        formulas, failed = driver.execute_script(count, ["mjx-container", "mjx-merror"])
        faint = []
        for theme in ("light", "dark"):
            driver.execute_script(mode, theme)
            faint += [f"{theme} {words}" for words in driver.execute_script(FAINT)]
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        width = driver.execute_script("return document.documentElement.scrollWidth")
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        found[page] = Visit(problems, formulas, failed, width, faint)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    return found


@needs_browser
def test_every_page_loads_without_errors_and_without_other_hosts(visits: dict[str, Visit]):
    assert {page: visit.problems for page, visit in visits.items() if visit.problems} == {}


@needs_browser
def test_formulas_are_typeset(visits: dict[str, Visit], site: Path):
    with_math = [page for page in visits if 'class="math' in (site / page).read_text()]
    assert with_math, "no page of the study holds a formula"
    for page in with_math:
        assert visits[page].formulas > 0 and visits[page].failed_formulas == 0, page


@needs_browser
def test_pages_fit_a_phone(visits: dict[str, Visit]):
    assert {page: visit.phone_width for page, visit in visits.items() if visit.phone_width > 400} == {}


@needs_browser
def test_text_stands_out_in_light_and_in_dark(visits: dict[str, Visit]):
    assert {page: visit.faint for page, visit in visits.items() if visit.faint} == {}


@needs_browser
def test_the_reader_chooses_light_or_dark_and_the_site_remembers(browser: Browser, address: str):
    shown = "return document.documentElement.dataset.theme"
    browser.problems(address + "book/records.html")
    try:
        found = []
        for _ in range(3):  # the button steps through light, dark, and as the system says
            browser.driver.execute_script("document.querySelector('.theme-switch-button').click()")
            found.append(browser.driver.execute_script(shown))
            paper = "return getComputedStyle(document.body).backgroundColor"
            if found[-1] == "dark":
                assert browser.driver.execute_script(paper) != "rgb(255, 255, 255)"
                browser.driver.get(address + "book/rerun.html")
                assert browser.driver.execute_script(shown) == "dark"
        assert {"light", "dark"} <= set(found)
    finally:
        browser.driver.execute_script("localStorage.clear()")


@needs_browser
@pytest.mark.skipif(not AXE.is_file(), reason=f"{AXE} is not there; npm install --no-save --ignore-scripts axe-core")
@pytest.mark.parametrize(
    "page", ["book/index", "book/records", "book/chapters/19_single_volume_benchmark", "book/api/io"]
)
def test_axe_finds_nothing_new(browser: Browser, address: str, page: str):
    browser.problems(f"{address}{page}.html")
    browser.driver.execute_script(AXE.read_text())
    run = "axe.run().then(found => arguments[0](found.violations.map(v => [v.id, v.nodes.map(n => n.html)])))"
    found = browser.driver.execute_async_script(run)
    assert [violation for violation in found if violation[0] not in AXE_KNOWN] == []


@needs_browser
def test_search_works_without_a_server_behind_it(browser: Browser, address: str):
    assert browser.problems(address + "search.html?q=papermill") == []
    hits = "return [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
    found: list[str] = []
    for _ in range(100):  # results come one by one
        found = browser.driver.execute_script(hits)
        if any("rerun" in link for link in found):
            return
        time.sleep(0.1)
    raise AssertionError(found)


@needs_browser
def test_the_browser_check_reports_outside_requests_errors_and_missing_files(browser: Browser, tmp_path: Path):
    (tmp_path / "outside.html").write_text("<img src='http://example.invalid/a.png'>")
    (tmp_path / "missing.html").write_text("<img src='nowhere.png'>")
    (tmp_path / "error.html").write_text("<script>throw new Error('planted')</script>")
    (tmp_path / "good.html").write_text("<link rel='icon' href='data:,'><p>fine</p>")
    server, url = serve(tmp_path)
    try:
        assert any(
            "asks another host: http://example.invalid/a.png" in p for p in browser.problems(url + "outside.html")
        )
        assert any(p.startswith("404: ") for p in browser.problems(url + "missing.html"))
        assert any("planted" in p for p in browser.problems(url + "error.html"))
        assert browser.problems(url + "good.html") == []
    finally:
        server.shutdown()


EXPLORER = "book/chapters/50_explorer.html"
VISIBLE = "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent !== null).map(e => e.src)"


def stuck(browser: Browser, url: str) -> list[str]:
    """Opens a page with explorers, moves their controls by keyboard, and lists those that do not change the picture."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    found, driver = browser.problems(url), browser.driver

    def sliders():
        return driver.find_elements(By.CSS_SELECTOR, ".jupyter-widgets-view .noUi-handle[aria-label]")

    try:
        WebDriverWait(driver, 20).until(lambda _: len(sliders()) >= 4)
    except Exception:
        return [*found, "no sliders"]
    for k in range(4):
        name, before = sliders()[k].get_attribute("aria-label"), driver.execute_script(VISIBLE, ".ex-pictures img")
        said = sliders()[k].get_attribute("aria-valuetext")
        sliders()[k].send_keys(Keys.ARROW_LEFT)
        driver.execute_async_script("setTimeout(arguments[0], 100)")
        if driver.execute_script(VISIBLE, ".ex-pictures img") == before:
            found.append(f"the slider {name!r} does not change the picture")
        if sliders()[k].get_attribute("aria-valuetext") == said:
            found.append(f"the slider {name!r} does not say its new value")
        sliders()[k].send_keys(Keys.ARROW_RIGHT)
    for select in driver.find_elements(By.CSS_SELECTOR, ".ex-root select"):
        before = driver.execute_script(VISIBLE, ".ex-root img")
        chosen = Select(select)
        now = [option.is_selected() for option in chosen.options].index(True)
        chosen.select_by_index((now + 1) % len(chosen.options))
        driver.execute_async_script("setTimeout(arguments[0], 100)")
        if len(chosen.options) > 1 and driver.execute_script(VISIBLE, ".ex-root img") == before:
            found.append("a choice of the method explorer does not change the picture")
    place = "return [...document.querySelectorAll('.ex-strip, .ex-after')].filter(e => e.offsetParent !== null).map("
    place += "e => getComputedStyle(e).transform + getComputedStyle(e).clipPath)"
    for slider in driver.find_elements(By.CSS_SELECTOR, ".ex-root input[type=range]"):
        before = driver.execute_script(place)
        slider.send_keys(Keys.ARROW_LEFT)
        if driver.execute_script(place) == before:
            found.append("a slider of the method explorer does not move the picture")
    return found


@needs_browser
def test_explorers_work_without_a_kernel_and_weigh_less_than_five_megabytes(browser: Browser, site: Path, address: str):
    assert stuck(browser, address + EXPLORER) == []
    loaded = browser.driver.execute_script("return performance.getEntries().map(e => e.name)")
    paths = {site / unquote(urlsplit(name).path).lstrip("/") for name in loaded if name.startswith(address)}
    sent = sum(len(gzip.compress(path.read_bytes())) for path in paths if path.is_file())  # as web servers send it
    assert (site / EXPLORER) in paths and sent < 5e6
    assert (site / EXPLORER).stat().st_size < 2e6


@needs_browser
def test_an_explorer_without_its_widget_bundle_is_reported(browser: Browser, site: Path, tmp_path: Path):
    copy = tmp_path / "site"
    shutil.copytree(site, copy, ignore=shutil.ignore_patterns("extension.js"))
    server, url = serve(copy)
    try:
        found = stuck(browser, url + EXPLORER)
    finally:
        server.shutdown()
    assert any(line.startswith("404: ") and line.endswith("extension.js") for line in found) and "no sliders" in found
    assert any("is not there" in line for line in found), "the console does not say what is missing"


def test_only_pages_with_widgets_load_their_bundle(site: Path):
    with_script = {page for page in pages(site) if "widgets.js" in (site / page).read_text()}
    assert with_script == {page for page in pages(site) if "jupyter.widget-state+json" in (site / page).read_text()}
    assert EXPLORER in with_script
