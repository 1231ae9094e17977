"""Names that a user's catalogue and photos bring along stay text wherever they are shown."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import agman
from agman.attributes import AttributeTable
from agman.course import live, status
from agman.course.explorers import attention_explorer, embedding_map, retrieval_explorer
from agman.course.pages import quiz
from agman.datasets import FolderImages, read_csv
from agman.figures import image_grid
from tests import tiny
from tests.course.test_explorers import payload

NASTY = {
    "a script": "<script>alert(1)</script>",
    "an end and a script": '"></script><img src=x onerror="alert(1)">',
    "quotation marks": "\"'`",
    "an ampersand": "a &amp; b &lt;",
    "a comment": "<!-- x --> ]]>",
    "a template": "${alert(1)} {{x}} {% y %}",
    "right to left": "\u202ecod.exe\u202c \u2067שלום\u2069 \u200f",
    "line separators": "a\u2028b\u2029c",
    "a backslash": "\\u003cscript\\u003e \\",
}


class Parts(HTMLParser):
    """Tags, attributes and comments, as a browser would meet them; text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.keys: set[str] = set()
        self.comments: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.keys |= {key for key, _ in attrs}

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(params=NASTY)
def text(request: pytest.FixtureRequest) -> str:
    return NASTY[request.param]


def catalogue(folder: Path, text: str) -> AttributeTable:
    """A shop's CSV and photos, every name of which holds the text."""
    store = tiny.table(12).images
    with (folder / "shop.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", f"color{text}", f"length{text}"])
        for i, pixels in enumerate(store.array):  # type: ignore[attr-defined]
            name = f"{i}{text.replace('/', '')}.png"
            Image.fromarray(pixels).save(folder / name)
            writer.writerow([name, f"{text}{i % 3}", f"{i % 2}{text}"])
    return read_csv(folder / "shop.csv")


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for inner in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from strings(inner)


def explorers(table: AttributeTable, text: str) -> list[Any]:
    model = agman.create_model("agman", n_attributes=2, backbone="lab").eval()
    return [
        retrieval_explorer({f"M{text}": model}, table, table, n_queries=2, top=3),
        attention_explorer({f"M{text}": model}, table, n_images=2),
        embedding_map(model, table),
    ]


def test_a_catalogue_stays_text_in_every_explorer(text: str, tmp_path: Path) -> None:
    table = catalogue(tmp_path, text)
    for explorer in explorers(table, text):
        parts = Parts(explorer.html)
        assert parts.tags == ["div", "style", "p", "script"]
        assert parts.keys <= {"id", "class"}
        assert parts.comments == []
        shown = list(strings(payload(explorer)))
        assert f"color{text}" in shown, "and arrives as it is"
        assert any(name.startswith("0") and name.endswith(".png") for name in shown)


def test_names_that_are_no_text_can_be_explored(tmp_path: Path) -> None:
    """A photo from a disk of another encoding; Python keeps its bytes as half characters."""
    table = tiny.table(8)
    names = [os.fsdecode(b"ros\xe9%d.png" % i) for i in range(8)]
    for name, pixels in zip(names, table.images.array, strict=True):  # type: ignore[attr-defined]
        Image.fromarray(pixels).save(tmp_path / name)
    store = FolderImages(tmp_path, names)
    table = AttributeTable(table.schema, store, table.image, table.attribute, table.value)
    for explorer in explorers(table, ""):
        assert explorer.html.encode("utf-8")
        assert any(name.startswith("ros\udce9") for name in strings(payload(explorer)))


def test_a_quiz_and_a_table_show_text(text: str) -> None:
    page = quiz(text, {text: (True, text), f"no {text}": (False, text)}).data
    parts = Parts(page)
    assert set(parts.tags) == {"p", "strong", "details", "summary"}
    assert parts.keys == {"class"}
    assert parts.text.count(text) == 5
    parts = Parts(status.html_table([text, text], [(text, text)]).data)
    assert set(parts.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert parts.text.count(text) == 4


def test_the_page_with_the_network_shows_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_onnx", lambda model: b"the network")  # takes seconds, holds no name
    table = tiny.table(6, 96)
    schema = type(table.schema)(
        tuple(f"{name}{text}" for name in table.schema.names),
        tuple(tuple(f"{text}{v}" for v in values) for values in table.schema.values),
    )
    table = AttributeTable(schema, table.images, table.image, table.attribute, table.value)
    model = agman.create_model("agman", n_attributes=2, backbone="lab").eval()
    choices = {"sleeve_length": ("Short", "Long")}
    explorer = live.live_explorer(model, table, choices=choices, n_gallery=4, top=2)
    parts = Parts(explorer.html)
    assert parts.tags == ["div", "style", "p", "script"]
    assert f"color{text}" in set(strings(payload(explorer)))


@pytest.mark.filterwarnings("ignore:Glyph")  # the font need not know every sign
def test_a_figure_as_svg_shows_text(text: str) -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    figure = image_grid([[picture]], column_titles=[text], row_titles=[text])
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    tags = {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(drawn.getvalue()).iter()}
    assert "svg" in tags
    assert not tags & {"script", "img", "a", "foreignObject"}
    assert "onerror" not in {key for node in ElementTree.fromstring(drawn.getvalue()).iter()
                             for key in node.attrib}  # fmt: skip
