"""The built site in a real browser: nothing comes from another host, nothing fails, every link leads somewhere."""

import gzip
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

from cryostudy import book

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
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


def broken_links(site: Path) -> list[str]:
    """Every link or source of a page that leads to no file of the site, or to no place on its page."""
    soups = {page: BeautifulSoup((site / page).read_text(), "html.parser") for page in pages(site)}
    places = {page: {tag["id"] for tag in soup.find_all(id=True)} for page, soup in soups.items()}
    broken = []
    for page, soup in soups.items():
        for tag in soup.find_all(["a", "img", "script", "link", "source"]):
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
    toc = (book.ROOT / "_toc.yml").read_text()
    assert all(f"{page.removesuffix('.html')}\n" in toc for page in pages(site) if "/" in page)
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 50e6


@needs_browser
def test_every_page_loads_without_errors_and_without_other_hosts(browser: Browser, site: Path, address: str):
    problems = {page: browser.problems(address + page) for page in pages(site)}
    assert {page: found for page, found in problems.items() if found} == {}


@needs_browser
def test_formulas_are_typeset(browser: Browser, site: Path, address: str):
    with_math = [page for page in pages(site) if 'class="math' in (site / page).read_text()]
    assert with_math, "no page of the study holds a formula"
    for page in with_math:
        browser.problems(address + page)
        count = "return [document.querySelectorAll(arguments[0]).length]"
        (typeset,) = browser.driver.execute_script(count, "mjx-container")
        (failed,) = browser.driver.execute_script(count, "mjx-merror")
        assert typeset > 0 and failed == 0, f"{page}: {typeset} formulas, {failed} of them with an error"


@needs_browser
def test_pages_fit_a_phone(browser: Browser, site: Path, address: str):
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        for page in pages(site):
            browser.problems(address + page)
            width = browser.driver.execute_script("return document.documentElement.scrollWidth")
            assert width <= 400, f"{page} is {width} pixels wide on a screen of 400"
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_search_works_without_a_server_behind_it(browser: Browser, address: str):
    assert browser.problems(address + "search.html?q=papermill") == []
    hits = "return [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
    assert any("rerun" in link for link in browser.driver.execute_script(hits))


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
