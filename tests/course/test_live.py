"""The network in the page: as small as the others, and with the numbers that PyTorch has.

The tests in a browser need a Chromium, and onnxruntime-web as `make vendor` fetches it.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vendor
from PIL import Image

import agman
from agman.course.explorers import LIMIT, Explorer
from agman.course.live import CHOICES, DRESS, drawings, live_explorer
from agman.datasets import PackedImages
from agman.datasets.wardrobe import draw, random_outfit
from agman.errors import InputError
from agman.models import RetrievalModel
from tests import tiny
from tests.book import test_site
from tests.book.test_explorers import PAGE
from tests.course.test_explorers import HOSTILE, Parts, hostile, payload

address, browser, visit = test_site.address, test_site.browser, test_site.visit
DESKTOP, PHONE = test_site.DESKTOP, test_site.PHONE
RUNTIME = vendor.ROOT / vendor.OPTIONAL
FEW = {"sleeve_length": ("Short", "Long"), "skirt_length": ("Short", "Floor")}


@pytest.fixture(scope="module")
def model() -> RetrievalModel:
    """The two attributes of the tiny table, on the shipped network's own layers."""
    torch.manual_seed(1)
    return agman.create_model("agman", n_attributes=2, backbone="lab", weights="objects").eval()


@pytest.fixture(scope="module")
def explorer(model: RetrievalModel) -> Explorer:
    return live_explorer(model, hostile(tiny.table(20, 96)), choices=FEW, n_gallery=12, top=4)


@pytest.fixture(scope="module")
def site(explorer: Explorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page as the book has it, with the runtime beside it, and one in a book without it."""
    folder = tmp_path_factory.mktemp("live")
    page = PAGE.format(name="live", explorers=explorer.html)
    (folder / "without").mkdir()
    for place in (folder, folder / "without"):
        (place / "live.html").write_text(page, "utf-8")
    if RUNTIME.is_dir():
        (folder / "_static" / "vendor").mkdir(parents=True)
        (folder / "_static" / "vendor" / "onnxruntime-web").symlink_to(RUNTIME)
    return folder


@pytest.fixture
def running(site: Path, visit: Any) -> Any:
    """The page with its network started."""
    if not (site / "_static").exists():
        pytest.skip("onnxruntime-web is not here: `make vendor` fetches it.")
    seen = visit("live.html")
    start(seen.page)
    return seen


def start(page: Any) -> None:
    page.get_by_role("button", name="Start the network").click()
    page.wait_for_selector("ol.live li", timeout=60_000)


def told(page: Any) -> dict[str, np.ndarray]:
    """What the network in the page has answered last."""
    found = page.evaluate(
        """() => { const { embeddings, attention } = document.querySelector("form").answers;
        return { embeddings: [...embeddings], attention: [...attention] }; }"""
    )
    return {name: np.array(numbers) for name, numbers in found.items()}


def answers(model: RetrievalModel, picture: Image.Image) -> dict[str, np.ndarray]:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    with torch.no_grad():
        said = model(model.preprocessing(pixels), model.all_attributes(1))
    assert said.attention is not None
    return {
        "embeddings": said.embedding.flatten().numpy(),
        "attention": said.attention.flatten().numpy(),
    }


def agree(page: Any, wanted: dict[str, np.ndarray]) -> None:
    page.wait_for_timeout(300)
    for name, numbers in told(page).items():
        assert numbers.shape == wanted[name].shape
        assert np.abs(numbers - wanted[name]).max() <= 1e-4, name


# --- in Python ----------------------------------------------------------------------------------


def test_no_name_can_leave_the_script(explorer: Explorer) -> None:
    parts = Parts()
    parts.feed(explorer.html)
    assert parts.tags == ["div", "style", "p", "script"]
    assert parts.comments == []


def test_it_asks_only_for_the_runtime_beside_the_page(explorer: Explorer) -> None:
    text = explorer.html.replace('"http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|@import|fetch\(|XMLHttp|WebSocket|innerHTML", text)
    assert re.findall(r"import\(.*", text) == ["import(`${home()}ort.wasm.min.mjs`);"]


def test_the_one_in_the_book_is_below_the_limit() -> None:
    """The shipped model, forty photographs and every combination of the values."""
    pictures = [draw(random_outfit(np.random.default_rng(i)))[0] for i in range(40)]
    array = np.stack([np.array(picture) for picture in pictures])
    table = tiny.table(40, 96)
    images = PackedImages(array, [f"{i}.png" for i in range(40)])
    full = agman.attributes.AttributeTable(
        agman.attributes.FASHIONAI, images, np.arange(40), np.arange(40) % 8, table.value[:40] * 0
    )
    made = live_explorer(agman.load("lab/agman_all_pairs"), full)
    assert len(made.html.encode()) < LIMIT
    assert len(payload(made)["drawings"]) == np.prod([len(v) for v in CHOICES.values()])


def test_drawings_are_lossless_and_in_the_order_of_the_choices(explorer: Explorer) -> None:
    sent = payload(explorer)["drawings"]
    drawn = drawings(DRESS, FEW, 96)
    assert len(sent) == len(drawn) == 4
    for address_, picture in zip(sent, drawn, strict=True):
        with Image.open(io.BytesIO(vendored(address_))) as file:
            assert np.array_equal(np.array(file.convert("RGB")), np.array(picture))
    assert not np.array_equal(np.array(drawn[0]), np.array(drawn[1]))


def vendored(data_address: str) -> bytes:
    import base64

    return base64.b64decode(data_address.split(",", 1)[1])


def test_a_model_without_attention_is_refused() -> None:
    csn = agman.create_model("csn", n_attributes=2, backbone="lab")
    with pytest.raises(InputError, match="give a model that has it"):
        live_explorer(csn, tiny.table(4, 96), choices=FEW)


def test_where_onnx_is_not_installed_the_network_is_left_out(
    monkeypatch: pytest.MonkeyPatch, model: RetrievalModel
) -> None:
    """As on Colab; the page then says where to find it."""
    monkeypatch.setattr("agman.course.live.find_spec", lambda name: None)
    sent = payload(live_explorer(model, tiny.table(4, 96), choices=FEW))
    assert sent["model"] == ""
    assert len(sent["drawings"]) == 4


# --- in a browser -------------------------------------------------------------------------------


def test_answers_are_those_of_pytorch(running: Any, model: RetrievalModel) -> None:
    page = running.page
    drawn = drawings(DRESS, FEW, 96)
    agree(page, answers(model, drawn[0]))
    page.get_by_label("skirt_length").select_option("Floor")
    agree(page, answers(model, drawn[1]))
    page.get_by_label("sleeve_length").select_option("Long")
    agree(page, answers(model, drawn[3]))
    assert np.abs(answers(model, drawn[3])["embeddings"] - told(page)["embeddings"]).max() < 1e-4
    assert np.abs(answers(model, drawn[0])["embeddings"] - told(page)["embeddings"]).max() > 1e-3
    assert running.outside == []
    assert running.errors == []


def test_neighbours_are_those_of_pytorch(running: Any, model: RetrievalModel) -> None:
    page = running.page
    table = hostile(tiny.table(20, 96))
    with torch.no_grad():
        gallery = model.embed_all(model.preprocessing(table.images.load(np.arange(12), 96)))
    own = answers(model, drawings(DRESS, FEW, 96)[0])["embeddings"].reshape(2, -1)
    for attribute in (0, 1):
        page.get_by_label("Attribute asked").select_option(index=attribute)
        scores = gallery[:, attribute].numpy() @ own[attribute]
        order = np.argsort(-scores)[:4]
        shown = page.locator("ol.live img").evaluate_all("all => all.map((one) => one.alt)")
        assert shown == [f"{i}.png{HOSTILE}" for i in order]
        said = page.locator("ol.live .soft").all_inner_texts()
        assert [float(s) for s in said] == pytest.approx(scores[order], abs=6e-4)


def test_a_photo_of_the_reader(running: Any, model: RetrievalModel, tmp_path: Path) -> None:
    page = running.page
    picture = draw(random_outfit(np.random.default_rng(5)), 96)[0]
    wide = Image.new("RGB", (120, 96), "red")
    wide.paste(picture, (12, 0))  # the network takes the middle of a photo
    wide.save(tmp_path / "mine.png")
    page.get_by_label("or a photo of yours").set_input_files(tmp_path / "mine.png")
    page.wait_for_selector("text=mine.png: nearest")
    agree(page, answers(model, picture))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.get_by_label("or a photo of yours").set_input_files(tmp_path / "bad.png")
    page.wait_for_selector("text=bad.png is not a picture")
    assert running.outside == []


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_page(site: Path, visit: Any, viewport: dict[str, int], scheme: str) -> None:
    seen = visit("live.html", viewport, scheme)
    if (site / "_static").exists():
        start(seen.page)
    seen.page.evaluate(test_site.AXE)
    found = seen.page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", test_site.AXE_TAGS
    )
    assert [f"{v['id']}: {v['nodes'][0]['html'][:160]}" for v in found["violations"]] == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert seen.outside == []
    assert seen.errors == []


def test_a_book_without_the_runtime_says_so(visit: Any) -> None:
    seen = visit("without/live.html")
    assert seen.errors == [], "nothing is asked for before the reader wants it"
    seen.page.get_by_role("button", name="Start the network").press("Enter")
    seen.page.wait_for_selector("text=make vendor")
    assert seen.page.get_by_role("button", name="Start the network").is_enabled()
    assert seen.outside == []


def test_a_hasty_reader_sees_the_last_choice(running: Any, model: RetrievalModel) -> None:
    """Many changes before the first answer: neither a picture nor an answer may come late."""
    page = running.page
    page.evaluate(
        """() => { const selects = document.querySelectorAll(".agman-explorer select");
        for (const i of [1, 0, 1, 0, 1, 0, 1]) {
          for (const select of [selects[0], selects[1]]) {
            select.selectedIndex = i;
            select.dispatchEvent(new Event("change"));
          }
        } }"""
    )
    page.wait_for_selector("text=sleeve_length Long, skirt_length Floor: nearest")
    agree(page, answers(model, drawings(DRESS, FEW, 96)[3]))
    assert running.errors == []
