"""What a search engine, a shared link or a slow connection meets: heads, sitemap and weight."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from agman.course.explorers import LIMIT
from tests.book import test_site
from tests.book.test_site import PAGES, ROOT, parsed

sys.path.insert(0, str(ROOT / "_ext"))
import course_sphinx

site = test_site.site


def head(site: Path, name: str) -> dict[str, str]:
    """What a page's meta elements say, by name or property."""
    metas = [a for tag, a in parsed(site / f"{name}.html").elements if tag == "meta"]
    return {a.get("name") or a.get("property") or "": a.get("content") or "" for a in metas}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_it_is_about(site: Path, name: str) -> None:
    said = head(site, name)
    assert 30 < len(said["description"]) <= 200
    assert said["og:description"] == said["description"]
    assert said["og:title"]
    assert "<" not in said["og:title"]
    assert said["og:image:alt"]
    if not said["og:image"].startswith("https://"):  # no address yet: `make publish`
        assert (site / said["og:image"]).read_bytes().startswith(b"\x89PNG")
    (root,) = [a for tag, a in parsed(site / f"{name}.html").elements if tag == "html"]
    assert root["lang"] == "en"


def test_no_two_pages_say_the_same(site: Path) -> None:
    said = Counter(head(site, name)["description"] for name in PAGES)
    assert [text for text, n in said.items() if n > 1] == []


def explorers(page: str) -> list[int]:
    """Bytes of each explorer on a page."""
    found = re.findall(r'<(?:div|section)[^>]*class="agman-explorer.*?</script>', page, re.DOTALL)
    return [len(one.encode()) for one in found]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(site: Path, name: str) -> None:
    """The page and its pictures; scripts, styles and fonts are shared by all pages."""
    elements = parsed(site / f"{name}.html").elements
    sources = {a.get("src") or "" for tag, a in elements if tag == "img"}
    files = [site / source for source in sources if source and ":" not in source]
    page = (site / f"{name}.html").read_text(encoding="utf-8")
    weight = len(page.encode()) + sum(file.stat().st_size for file in files)
    assert weight - sum(explorers(page)) < 1_000_000
    assert all(size < LIMIT for size in explorers(page))


def test_the_pages_show_all_five_explorers(site: Path) -> None:
    pages = [(site / f"{name}.html").read_text(encoding="utf-8") for name in PAGES]
    assert sum(len(explorers(page)) for page in pages) == 5


def test_pictures_become_lighter_and_look_the_same(tmp_path: Path) -> None:
    file = tmp_path / "opaque.png"
    noise = np.random.default_rng(0).integers(0, 30, (80, 80, 3))
    full = (np.linspace(0, 220, 80)[:, None, None] + noise).astype(np.uint8)
    Image.fromarray(full).convert("RGBA").save(file)
    before = file.stat().st_size
    course_sphinx.lighten(file)
    assert file.stat().st_size < before / 2
    shown = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert np.abs(shown - full).mean() < 8


def test_a_transparent_picture_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "transparent.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 4), np.uint8)).save(file)
    before = file.read_bytes()
    course_sphinx.lighten(file)
    assert file.read_bytes() == before


def test_the_address_of_the_site_follows_that_of_the_repository() -> None:
    assert course_sphinx.site_address("https://github.com/OWNER/agman") is None
    assert course_sphinx.site_address("") is None
    named = course_sphinx.site_address("https://github.com/Me/agman")
    assert named == "https://me.github.io/agman/"


@pytest.mark.parametrize(("owner", "expected"), [("OWNER", False), ("me", True)])
def test_a_published_site_has_a_sitemap(tmp_path: Path, owner: str, expected: bool) -> None:
    (tmp_path / "_static").mkdir()
    app = SimpleNamespace(
        config=SimpleNamespace(
            html_theme_options={"repository_url": f"https://github.com/{owner}/agman"}
        ),
        builder=SimpleNamespace(format="html"),
        env=SimpleNamespace(found_docs={"intro", "api"}),
        srcdir=ROOT / "book",
        outdir=tmp_path,
    )
    course_sphinx.finish_site(app, None)  # type: ignore[arg-type]
    assert (tmp_path / "_static/welcome.png").exists()
    assert (tmp_path / "sitemap.xml").exists() == expected
    if expected:
        text = (tmp_path / "sitemap.xml").read_text("utf-8")
        assert text.count("<loc>https://me.github.io/agman/") == 2
