"""The lecture slides in a real browser: cut from the built chapters, offline, nothing cut off."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path
from typing import Any

import pytest
import slides

from tests.book.test_site import browser, site  # noqa: F401  (fixtures)

OVERFULL = """() => [...document.querySelectorAll(".slides section > section, .slides > section")]
  .filter((s) => !s.querySelector("section") && s.scrollHeight > 720)
  .map((s) => s.querySelector("h1, h2").textContent + " " + s.scrollHeight)"""


@pytest.fixture(scope="module")
def folder(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """All lectures, made from the last build."""
    patch = pytest.MonkeyPatch()
    patch.setattr(slides, "OUT", tmp_path_factory.mktemp("slides"))
    made: Path = slides.OUT
    try:
        slides.write_all()
    finally:
        patch.undo()
    return made


@pytest.mark.parametrize("name", slides.LECTURES)
def test_a_lecture_shows_every_figure_and_asks_nobody(
    name: str,
    folder: Path,
    browser: Any,  # noqa: F811
) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_address[1]}"
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        asked: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{here}/{name}.html", wait_until="load")
        page.wait_for_selector(".reveal.ready")
        page.wait_for_timeout(500)
        for _ in range(3):
            page.keyboard.press("Space")
        assert page.evaluate("Reveal.getSlidePastCount()") == 3
        assert page.evaluate(OVERFULL) == []
        alts = page.evaluate("[...document.querySelectorAll('.slides img')].map((i) => i.alt)")
        broken = page.evaluate(
            "[...document.querySelectorAll('.slides img')].filter((i) => !i.naturalWidth).length"
        )
        page.close()
        server.shutdown()
    assert not faults
    assert [url for url in asked if not url.startswith((here, "data:"))] == []
    chapters = slides.LECTURES[name][1]
    wanted = sum(
        len(figures) for c in chapters for _, _, figures in slides.sections(slides.executed(c))
    )
    assert len(alts) == wanted > 4
    assert all(alts)
    assert not broken
