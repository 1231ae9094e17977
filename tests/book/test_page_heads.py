"""What a search engine, a shared link or a slow connection meets: heads, sitemap and weight."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

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


def explorers(name: str) -> int:
    """How many explorers a page shows."""
    path = ROOT / "book" / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return len(re.findall(r"(?:_explorer|embedding_map|metric_playground)\(", text))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(site: Path, name: str) -> None:
    """The page and its pictures; scripts, styles and fonts are shared by all pages."""
    elements = parsed(site / f"{name}.html").elements
    sources = {a.get("src") or "" for tag, a in elements if tag == "img"}
    files = [site / source for source in sources if source and ":" not in source]
    weight = (site / f"{name}.html").stat().st_size + sum(file.stat().st_size for file in files)
    assert weight < 1_000_000 + LIMIT * explorers(name)


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
