"""The book without a mouse and in the dark: search, explorers in their chapters, figures.

Needs the book (`make book`) and a Chromium; without either these tests skip and say so.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.book import test_site

address, browser, site, visit = (
    test_site.address,
    test_site.browser,
    test_site.site,
    test_site.visit,
)


def test_search_by_keyboard_leads_to_the_triplet_loss(visit: Any) -> None:
    seen = visit("intro.html")
    page = seen.page
    page.keyboard.press("Control+k")
    page.keyboard.type("triplet")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=triplet*")
    page.wait_for_selector('#search-results a[href^="one_space.html"]')
    for _ in range(200):
        page.keyboard.press("Tab")
        if (page.evaluate("document.activeElement.pathname") or "").endswith("/one_space.html"):
            if page.evaluate("!!document.activeElement.closest('#search-results')"):
                break
    page.keyboard.press("Enter")
    page.wait_for_url("**/one_space.html*")
    assert "triplet" in page.locator(".bd-article").inner_text()
    assert seen.outside == []
    assert seen.errors == []


# The controls of an explorer that a reader can see. Arrow keys walk within a group of radio buttons
# and among the points of a map: these count once.
CONTROLS = """(root) => {
  const seen = [...root.querySelectorAll("select, button, input, summary")]
    .filter((one) => !one.disabled && one.checkVisibility());
  const group = (one) => one.closest(".plot") ?? (one.type === "radio" ? one.name : one);
  return new Set(seen.map(group)).size;
}"""
INSIDE = """(root) => {
  const now = document.activeElement;
  return root.contains(now) && now !== root;
}"""


def test_the_keyboard_reaches_every_control_and_leaves_again(visit: Any, site: Path) -> None:
    explorers = 0
    for name in test_site.PAGES:
        if 'class="agman-explorer' not in (site / f"{name}.html").read_text(encoding="utf-8"):
            continue
        page = visit(f"{name}.html").page
        for root in page.locator(".agman-explorer").all():
            explorers += 1
            controls = root.evaluate(CONTROLS)
            root.evaluate("(root) => { root.tabIndex = -1; root.focus(); }")
            reached = 0
            page.keyboard.press("Tab")
            while root.evaluate(INSIDE) and reached <= controls:
                reached += 1
                page.keyboard.press("Tab")
            assert reached == controls > 0, f"{name}: the focus misses a control, or goes round"
    assert explorers == 5


def luminance(colour: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB colours in [0, 255], as WCAG defines it: (..., 3) to (...)."""
    part = colour / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", ["measuring_retrieval", "one_space"])
def test_figures_are_readable_in_the_dark(visit: Any, name: str) -> None:
    page = visit(f"{name}.html", scheme="dark").page
    figures = page.locator(".bd-article :is(figure, .cell_output) img").all()
    figures = [one for one in figures if one.is_visible() and one.bounding_box()["width"] > 200]
    for figure in figures:
        png = figure.screenshot(animations="disabled")
        pixels = luminance(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")))
        paper, ink = pixels[2:4, 8:-8].min(), np.quantile(pixels, 0.002)
        assert (paper + 0.05) / (ink + 0.05) > 7, figure.get_attribute("alt")
        assert paper > 0.9, "drawn for white paper"
    assert figures
