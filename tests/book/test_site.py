"""The built book in a real browser: what a reader meets on a desk and on a phone, offline.

Needs the book (`make book`) and a Chromium; without either these tests skip and say so.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}

# Faults of the tools that make the page, which the course cannot mend: page, then axe's rule.
KNOWN = {
    ("references", "aria-deprecated-role"),  # docutils writes role="doc-biblioentry"
    ("references", "aria-required-children"),
}

# The elements that make a page scroll sideways: past the edge, in no box that scrolls or clips.
BEYOND_THE_EDGE = """() => {
  const boxed = (e) => e.parentElement &&
    (getComputedStyle(e.parentElement).overflowX !== "visible" || boxed(e.parentElement));
  return [...document.querySelectorAll(".bd-main *")]
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !boxed(e))
    .slice(0, 5).map((e) => e.outerHTML.slice(0, 120));
}"""


def toc_pages() -> list[str]:
    """Every page that book/_toc.yml names, in order."""
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"]]

    def walk(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if "file" in entry:
                pages.append(entry["file"])
            walk(entry.get("sections", []))
            walk(entry.get("chapters", []))

    walk(toc.get("parts", []))
    walk(toc.get("chapters", []))
    return pages


PAGES = toc_pages()


@pytest.fixture(scope="module", autouse=True)
def site() -> Path:
    """The folder of the built book."""
    if not (SITE / f"{PAGES[0]}.html").is_file():
        pytest.skip("The book is not built: run `make book` first.")
    return SITE


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The book, served on a free port of this machine only."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: $CHROMIUM, or the one on the PATH, or Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as driver:
        executable = found or driver.chromium.executable_path
        if not Path(executable).exists():
            pytest.skip("No Chromium found: install it, or name it in $CHROMIUM.")
        running = driver.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield running
        running.close()


class Visit:
    """One page, open in the browser, with every complaint it made on the way."""

    def __init__(self, browser: Any, address: str, viewport: dict[str, int], scheme: str) -> None:
        self.address = address
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.route(lambda url: not url.startswith(address), self._refuse)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._listen)
        self.page.on("response", self._look)

    def _refuse(self, route: Any) -> None:
        self.outside.append(route.request.url)
        route.abort()

    def _listen(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _look(self, response: Any) -> None:
        if response.status >= 400 and not response.url.endswith("favicon.ico"):
            self.errors.append(f"{response.status} {response.url}")

    def open(self, path: str) -> None:
        """Load `path` and wait until its formulas and widgets are there."""
        self.page.goto(f"{self.address}/{path}", wait_until="load")
        self.page.wait_for_load_state("networkidle")
        if self.page.locator(".math").count():
            self.page.wait_for_selector("mjx-container", state="attached")
        if self.page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count():
            self.page.wait_for_selector(".jupyter-widgets", state="attached")


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Open a page: ``visit(path, viewport, scheme)``."""
    visits = []

    def open_page(path: str, viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Visit:
        visits.append(Visit(browser, address, viewport, scheme))
        visits[-1].open(path)
        return visits[-1]

    yield open_page
    for one in visits:
        one.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_page(visit: Any, name: str, viewport: dict[str, int], scheme: str) -> None:
    seen = visit(f"{name}.html", viewport, scheme)

    assert seen.outside == [], "the page asks another site"
    assert [e for e in seen.errors if "favicon" not in e] == []

    width = seen.page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"], seen.page.evaluate(BEYOND_THE_EDGE)

    assert seen.page.locator("mjx-merror").count() == 0, "a formula has an error"
    formulas = seen.page.locator("span.math, div.math").count()
    assert seen.page.locator("mjx-container").count() >= formulas

    seen.page.evaluate(AXE)
    result = seen.page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", AXE_TAGS
    )
    faults = [
        f"{fault['id']}: {fault['nodes'][0]['html'][:160]} ({len(fault['nodes'])} in all)"
        for fault in result["violations"]
        if fault["impact"] in ("serious", "critical") and (name, fault["id"]) not in KNOWN
    ]
    assert faults == []


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_says_what_it_shows(site: Path, name: str) -> None:
    pictures = [a for tag, a in parsed(site / f"{name}.html").elements if tag == "img"]
    silent = [
        a.get("src")
        for a in pictures
        if not re.search(r"\w+ \w+", a.get("alt") or "")
        or re.fullmatch(r"\S*[0-9a-f]{16}\S*|\S+\.(png|svg|jpe?g)", a["alt"])
    ]
    assert silent == [], 'give the cell {"mystnb": {"image": {"alt": "..."}}} in its metadata'


def test_search_finds_the_triplet_loss(visit: Any) -> None:
    seen = visit("search.html?q=triplet")
    seen.page.wait_for_selector("#search-results li a")
    assert seen.outside == []
    assert seen.errors == []


class Parsed(HTMLParser):
    """Elements and ids of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self.ids |= {v for k in ("id", "name") if (v := attributes.get(k))}


@functools.cache
def parsed(path: Path) -> Parsed:
    """The page at `path`, read once."""
    page = Parsed()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_internal_links_and_anchors_resolve(site: Path) -> None:
    broken = []
    for path in sorted(site.rglob("*.html")):
        if "_static" in path.parts:
            continue
        for tag, attributes in parsed(path).elements:
            link = attributes.get("href") or attributes.get("src")
            if not link or urlsplit(link).scheme or link.startswith("//"):
                continue
            parts = urlsplit(link)
            target = path if not parts.path else path.parent / unquote(parts.path)
            where = f"{path.relative_to(site)}: <{tag}> {link}"
            if not target.is_file():
                broken.append(where)
            elif parts.fragment and target.suffix == ".html":
                anchor = unquote(parts.fragment)
                if anchor not in parsed(target.resolve()).ids and anchor != "top":
                    broken.append(f"{where} (no such anchor)")
    assert broken == []


def test_colab_links_point_at_notebooks_that_exist(site: Path) -> None:
    notebooks = [name for name in PAGES if (ROOT / "book" / f"{name}.ipynb").is_file()]
    for name in notebooks:
        links = [a.get("href") or "" for _, a in parsed(site / f"{name}.html").elements]
        colab = [link for link in links if "colab.research.google.com" in link]
        assert colab, f"{name} has no Colab button"
        for link in colab:
            assert link.endswith(f"/blob/main/book/{name}.ipynb")
