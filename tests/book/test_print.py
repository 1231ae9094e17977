"""What a teacher hands out: a chapter on paper, light or dark on the screen before.

Needs the book (`make book`) and a Chromium; without either these tests skip and say so.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.book import test_site

address, browser, site, visit = (
    test_site.address,
    test_site.browser,
    test_site.site,
    test_site.visit,
)

# A4 less the margins of course.css, at 96 pixels to the inch.
PAPER = {"width": round(180 / 25.4 * 96), "height": round(267 / 25.4 * 96)}
HIDDEN = "[class*=bd-sidebar], [class*=prev-next], .agman-explorer, .headerlink, button"
CHAPTERS = ("looking_inside", "real_datasets")  # two explorers; the widest tables

# What is wider than the paper, or higher: the beginning of each such element.
CUT = """({width, height}) => [...document.querySelectorAll(".bd-article :is(pre, table, img)")]
  .filter((one) => one.checkVisibility() && !one.closest(".agman-explorer"))
  .filter((one) => {
    const {left, right} = one.getBoundingClientRect();
    return left < 0 || right > width + 1 || one.scrollWidth > one.clientWidth + 1
      || one.tagName === "IMG" && one.offsetHeight > height;
  })
  .map((one) => one.outerHTML.slice(0, 120))"""

# The lightest ink and the darkest paper, 0 to 1, of all text that is not in a figure.
TONES = """() => {
  const tone = (colour) => {
    const [r, g, b, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
    return alpha === 0 ? 1 : (r + g + b) / 765;
  };
  const all = [...document.querySelectorAll("html, body, .bd-main, .bd-article *")]
    .filter((one) => one.checkVisibility() && !one.closest("svg, img"))
    .map((one) => getComputedStyle(one));
  return [Math.max(...all.map((style) => tone(style.color))),
    Math.min(...all.map((style) => tone(style.backgroundColor)))];
}"""


def on_paper(visit: Any, name: str, scheme: str = "light") -> Any:
    """The page as the printer gets it."""
    page = visit(f"{name}.html", PAPER, scheme).page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    return page


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_alone_and_uncut(visit: Any, name: str) -> None:
    page = on_paper(visit, name)
    assert page.locator(HIDDEN).count() > 0
    assert page.locator(HIDDEN).filter(visible=True).all_inner_texts() == []
    assert page.evaluate(CUT, PAPER) == []
    explorers = page.locator(".agman-explorer").count()
    notes = """all => all.map((one) => getComputedStyle(one, "::after").content)
      .filter((text) => text.includes("explorer"))"""
    assert len(page.locator(".text_html").evaluate_all(notes)) == explorers
    together = "all => all.map((one) => getComputedStyle(one).breakInside)"
    assert set(page.locator(".bd-article :is(figure, img)").evaluate_all(together)) <= {"avoid"}
    text = page.locator("body").inner_text()
    assert "CC BY 4.0" in text
    assert "Takeaways" in text


def test_a_folded_solution_stays_folded_and_an_opened_one_is_printed(visit: Any) -> None:
    page = visit("looking_inside.html", PAPER).page
    solutions = page.locator(".bd-article .admonition.toggle")
    assert solutions.count() > 1
    solutions.first.locator(".toggle-button").click()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    shown = [one.locator("pre").first.is_visible() for one in solutions.all()]
    assert shown == [True] + [False] * (solutions.count() - 1)
    assert all(re.match("Solution of exercise", text) for text in solutions.all_inner_texts())


def test_a_dark_page_is_printed_black_on_white(visit: Any) -> None:
    ink, paper = on_paper(visit, "one_space_per_attribute", "dark").evaluate(TONES)
    assert ink < 0.1
    assert paper == 1


def test_the_pdf_has_all_pages(visit: Any) -> None:
    page = on_paper(visit, "looking_inside")
    needed = page.evaluate("document.querySelector('.bd-article').offsetHeight") / PAPER["height"]
    page.emulate_media(media="null")
    pages = len(re.findall(rb"/Type /Page\b", page.pdf(format="A4")))
    assert 10 < needed <= pages < 2 * needed
