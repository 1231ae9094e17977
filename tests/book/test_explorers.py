"""The explorers in a real browser, by mouse and by keyboard, against numbers from Python.

They stand on pages of their own, with names that would break a page that trusted them.
Needs a Chromium; without one these tests skip and say so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import agman
from agman.course.explorers import (
    ASSETS,
    CHAPTER_RANKING,
    attention_explorer,
    embedding_map,
    metric_playground,
    retrieval_explorer,
)
from agman.evaluation import attend_table, embed_table, evaluate
from agman.metrics import average_precision, map_at_r, recall_at_k
from agman.models import RetrievalModel
from tests import tiny
from tests.book import test_site
from tests.course.test_explorers import HOSTILE, hostile, split

address, browser, visit = test_site.address, test_site.browser, test_site.visit
DESKTOP, PHONE = test_site.DESKTOP, test_site.PHONE

TABLE = hostile(tiny.table(24))
DATA = split(TABLE)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title></head><body><main><h1>{name}</h1>{explorers}</main></body></html>"""


def model(kind: str) -> RetrievalModel:
    torch.manual_seed(3)
    return agman.create_model(kind, n_attributes=2, backbone="lab").eval()


@pytest.fixture(scope="module")
def models() -> dict[str, RetrievalModel]:
    return {f"AG-MAN{HOSTILE}": model("agman"), "CSN": model("csn")}


@pytest.fixture(scope="module")
def site(models: dict[str, RetrievalModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pages: one explorer each, all on one, and one explorer twice."""
    folder = tmp_path_factory.mktemp("explorers")
    (network, _) = models.values()
    shown = {
        "playground": metric_playground(),
        "retrieval": retrieval_explorer(models, DATA.queries, DATA.gallery, n_queries=5),
        "attention": attention_explorer(models, TABLE, n_images=4),
        "embedding": embedding_map(network, TABLE),
    }
    pages = {name: one.html for name, one in shown.items()}
    pages["all"] = "".join(pages.values())
    pages["twice"] = 2 * pages["playground"]
    for name, explorers in pages.items():
        (folder / f"{name}.html").write_text(PAGE.format(name=name, explorers=explorers), "utf-8")
    return folder


def number(page: Any, name: str) -> float:
    """A number that the page shows, with three decimals."""
    return float(page.locator(f'[data-number="{name}"]').first.inner_text())


# --- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"]
)
def test_page(visit: Any, viewport: dict[str, int], scheme: str) -> None:
    seen = visit("all.html", viewport, scheme)
    page = seen.page
    themes = "all => all.map((one) => one.dataset.theme)"
    assert page.locator(".agman-explorer").evaluate_all(themes) == [scheme] * 4
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]

    page.evaluate(test_site.AXE)
    result = page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", test_site.AXE_TAGS
    )
    assert [f"{v['id']}: {v['nodes'][0]['html'][:160]}" for v in result["violations"]] == []
    assert seen.outside == []
    assert seen.errors == []
    assert page.locator("main script").count() == 4, "a name has become markup"
    moving = page.evaluate(
        """() => [...document.querySelectorAll(".agman-explorer *")].filter((one) => {
          const style = getComputedStyle(one);
          return style.transitionDuration !== "0s" || style.animationName !== "none";
        }).length"""
    )
    assert moving == 0, "nothing moves by itself, so there is no motion to be reduced"


def test_every_control_is_native_and_shows_its_focus(visit: Any) -> None:
    page = visit("all.html").page
    about = """() => {
      const at = document.activeElement;
      const boxes = [at, at.parentElement].map((one) => getComputedStyle(one));
      return [at.tagName, boxes.some((one) => one.outlineStyle === "solid"
        && parseFloat(one.outlineWidth) >= 2)];
    }"""
    seen = []
    page.keyboard.press("Tab")
    while (now := page.evaluate(about))[0] != "BODY":
        seen.append(now)
        page.keyboard.press("Tab")
    assert len(seen) == 40 + 5 + 6 + 2, "playground, rankings, attention, map"
    assert {tag for tag, _ in seen} == {"SELECT", "BUTTON", "INPUT", "SUMMARY"}
    assert all(outlined for _, outlined in seen)


def test_it_follows_the_page_when_the_reader_changes_light_and_dark(visit: Any) -> None:
    page = visit("playground.html", DESKTOP, "light").page
    root = page.locator(".agman-explorer")
    for told, expected in (
        ("document.documentElement.dataset.theme = 'dark'", "dark"),
        ("delete document.documentElement.dataset.theme", "light"),
        ("document.body.dataset.jpThemeLight = 'false'", "dark"),
    ):
        page.evaluate(told)
        page.wait_for_function(
            "theme => document.querySelector('.agman-explorer').dataset.theme === theme",
            arg=expected,
        )
    background = root.evaluate("one => getComputedStyle(one).backgroundColor")
    assert background == "rgb(20, 24, 30)"


def test_without_javascript_a_sentence_says_what_is_missing(browser: Any, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "attention.html").as_uri())
    assert "JavaScript" in page.locator(".wait").inner_text()
    context.close()


def test_one_cell_shown_twice_runs_twice(visit: Any) -> None:
    page = visit("twice.html").page
    first, second = (page.locator(".agman-explorer").nth(i) for i in range(2))
    second.locator("select").select_option("all relevant first")
    assert second.locator('[data-number="MAP@R"]').inner_text() == "1.000"
    assert first.locator('[data-number="MAP@R"]').inner_text() != "1.000"


# --- (a) the retrieval explorer -----------------------------------------------------------------


def row_of(image: int, attribute: int) -> int:
    rows = (DATA.queries.image == image) & (DATA.queries.attribute == attribute)
    return int(np.flatnonzero(rows)[0])


def shown_side(page: Any, side: int) -> tuple[float, list[tuple[str, str]]]:
    """AP of one side, and the name and the mark of each of its results."""
    section = page.locator("section").nth(side)
    results = section.locator("ol.results li")
    marks = [text.split()[2] for text in results.locator("span:first-of-type").all_inner_texts()]
    names = [one.get_attribute("alt") for one in results.locator("img").all()]
    return float(section.locator('[data-number="ap"]').inner_text()), list(zip(names, marks))


def check_rankings(
    page: Any, models: dict[str, RetrievalModel], image: int, attribute: int
) -> None:
    """Both sides show what Python finds."""
    row = row_of(image, attribute)
    own = np.flatnonzero(DATA.gallery.attribute == attribute)
    for side, network in enumerate(models.values()):
        ap, results = shown_side(page, side)
        report = evaluate(network, DATA.queries, DATA.gallery, progress=False)
        assert ap == pytest.approx(report.ap[row], abs=5.1e-4)
        asked, offered = (
            embed_table(network, t, progress=False) for t in (DATA.queries, DATA.gallery)
        )
        order = (offered[own] @ asked[row]).argsort(descending=True)[:10].tolist()
        found = [int(own[place]) for place in order]
        right = DATA.gallery.value[found] == DATA.queries.value[row]
        names = [TABLE.images.names[DATA.gallery.image[r]] for r in found]
        assert results == list(zip(names, np.where(right, "right", "wrong").tolist()))


def test_rankings_by_mouse(visit: Any, models: dict[str, RetrievalModel]) -> None:
    page = visit("retrieval.html").page
    check_rankings(page, models, image=0, attribute=0)
    page.locator(".strip label").nth(2).click()  # queries are images 0, 3, 6, ...
    page.get_by_label("Attribute").select_option(index=1)
    check_rankings(page, models, image=6, attribute=1)
    page.locator(".strip label").nth(4).click()
    check_rankings(page, models, image=12, attribute=1)  # the attribute stays
    page.get_by_label("Model 1").select_option("CSN")
    assert shown_side(page, 0) == shown_side(page, 1)


def test_rankings_by_keyboard(visit: Any, models: dict[str, RetrievalModel]) -> None:
    page = visit("retrieval.html").page
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    check_rankings(page, models, image=3, attribute=1)
    status = page.get_by_role("status").inner_text()
    assert "Query 3.png</script>" in status
    assert "AP: AG-MAN" in status


def test_the_table_of_rankings_says_what_the_pictures_say(visit: Any) -> None:
    page = visit("retrieval.html").page
    page.locator("summary").click()
    cells = page.locator("tbody td").all_inner_texts()
    marks = [
        mark for pair in zip(*(shown_side(page, side)[1] for side in range(2))) for _, mark in pair
    ]
    assert [re.findall(r"[✓✗] (right|wrong)", cell) for cell in cells] == [[m] for m in marks]


# --- (b) the metric playground ------------------------------------------------------------------


def metrics(relevant: list[bool], scores: list[float], k: int) -> tuple[float, ...]:
    """AP with fair ties, AP in order, MAP@R and recall at k by agman.metrics."""
    score, right = torch.tensor(scores).double(), torch.tensor(relevant)
    one = (torch.ones(1, 1).double(), torch.tensor([1]), score[:, None], right.long())
    return (
        average_precision(score, right),
        average_precision(score, right, ties="order"),
        map_at_r(*one),
        recall_at_k(*one, k),
    )


def test_the_scripts_numbers_are_those_of_the_package(browser: Any) -> None:
    """Every share of relevant items, with every amount of ties, in many orders."""
    random = np.random.default_rng(0)
    cases = []
    for n in random.integers(1, 13, size=400).tolist():
        levels = int(random.integers(1, n + 1))
        scores = np.sort(random.integers(levels, size=n))[::-1] / 7
        relevant = random.random(n) < random.random()
        relevant[random.integers(n)] = True
        cases.append((relevant.tolist(), scores.tolist(), int(random.integers(1, n + 1))))
    page = browser.new_page()
    script = (ASSETS / "ranking.js").read_text(encoding="utf-8")
    measured = page.evaluate(
        f"""(cases) => {{ {script}
          return cases.map((one) => measure(...one)).map(({{ap, apInOrder, mapAtR, recall}}) =>
            [ap.value, apInOrder.value, mapAtR.value, recall.value]);
        }}""",
        cases,
    )
    page.close()
    for case, found in zip(cases, measured, strict=True):
        assert found == pytest.approx(metrics(*case), abs=1e-12), case


KEYS = ("AP, ties fair", "AP, ties in the order shown", "MAP@R", "recall@k")


def check_numbers(page: Any, relevant: str, scores: list[float], k: int = 5) -> None:
    """The page shows these results, such as "1101000000", and the numbers that belong to them."""
    marks = page.locator("ol.ranking button.mark").all_inner_texts()
    assert "".join("1" if "✓" in mark else "0" for mark in marks) == relevant
    expected = metrics([one == "1" for one in relevant], scores, k)
    shown = [number(page, key) for key in KEYS]
    assert shown == pytest.approx(expected, abs=5.1e-4)
    texts = page.locator(".numbers .soft").all_inner_texts()
    for text, value in zip(texts, expected, strict=True):  # the sum, worked out again
        formula = text.split("=")[-2].split(": ")[-1].strip()
        assert re.fullmatch(r"[\d /+()]+", formula)
        assert eval(formula) == pytest.approx(value)


CHAPTER = "".join("01"[one] for one in CHAPTER_RANKING)
FALLING = [1 - place / 10 for place in range(10)]


def test_numbers_by_keyboard(visit: Any) -> None:
    page = visit("playground.html").page
    check_numbers(page, CHAPTER, FALLING)  # 1011001000
    page.get_by_role("button", name="Move result G up").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # the focus goes with the result
    assert "Move result G up" in page.evaluate("document.activeElement.ariaLabel")
    check_numbers(page, "1011100000", FALLING)
    assert "Result G is on rank 5 of 10." in page.get_by_role("status").inner_text()

    page.get_by_role("button", name="Result B: ✗ not relevant").focus()
    page.keyboard.press("Space")
    check_numbers(page, "1111100000", FALLING)
    page.get_by_label("k for recall").focus()
    page.keyboard.press("ArrowLeft")
    check_numbers(page, "1111100000", FALLING, k=4)


def test_the_focus_stays_at_both_ends_of_the_ranking(visit: Any) -> None:
    page = visit("playground.html").page
    page.get_by_role("button", name="Move result B up").focus()
    page.keyboard.press("Enter")
    assert "Move result B down" in page.evaluate("document.activeElement.ariaLabel")
    page.get_by_role("button", name="Move result I down").focus()
    page.keyboard.press("Enter")
    assert "Move result I up" in page.evaluate("document.activeElement.ariaLabel")


def test_numbers_by_mouse(visit: Any) -> None:
    page = visit("playground.html").page
    rows = page.locator("ol.ranking li")

    def drag(start: int, end: int) -> None:
        for place, action in ((start, page.mouse.down), (end, page.mouse.up)):
            box = rows.nth(place).locator(".handle").bounding_box()
            page.mouse.move(box["x"] + 5, box["y"] + box["height"] / 2, steps=8)
            action()

    drag(9, 0)
    check_numbers(page, "0" + CHAPTER[:9], FALLING)
    assert rows.nth(0).inner_text().split()[:3] == ["⠿", "1.", "J"]
    drag(0, 9)
    check_numbers(page, CHAPTER, FALLING)
    rows.nth(0).locator("button.mark").click()
    check_numbers(page, "0" + CHAPTER[1:], FALLING)


def test_ties_change_what_they_should(visit: Any) -> None:
    page = visit("playground.html").page
    box = page.get_by_label("same score as rank 3")
    box.check()
    page.get_by_label("same score as rank 2").check()
    scores = [1, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    check_numbers(page, CHAPTER, scores)
    fair, ordered = number(page, KEYS[0]), number(page, KEYS[1])
    page.get_by_role("button", name="Move result B down").click()  # within the tie
    assert number(page, KEYS[0]) == fair
    assert number(page, KEYS[1]) > ordered
    check_numbers(page, "1101001000", scores)
    page.get_by_label("Start from").select_option("all scores equal")
    check_numbers(page, CHAPTER, [1.0] * 10)
    assert number(page, KEYS[0]) == pytest.approx(0.4)


def test_no_relevant_result_has_no_number(visit: Any) -> None:
    page = visit("playground.html").page
    for place in np.flatnonzero(CHAPTER_RANKING).tolist():
        page.locator("ol.ranking button.mark").nth(place).click()
    assert page.locator("[data-number]").all_inner_texts() == ["none"] * 4
    assert "does not exist" in page.locator(".numbers .soft").first.inner_text()


def test_the_steps_are_precisions(visit: Any) -> None:
    page = visit("playground.html").page
    page.locator("summary").click()
    in_order = page.locator("tbody tr td:last-child").all_inner_texts()
    found = np.cumsum(CHAPTER_RANKING)
    assert in_order == [
        f"{found[i]}/{i + 1}" if relevant else "–" for i, relevant in enumerate(CHAPTER_RANKING)
    ]


# --- (c) the attention explorer -----------------------------------------------------------------


def brightest(page: Any, tile: int) -> int:
    """The cell of a tile's map that is drawn brightest."""
    return (
        page.locator("canvas")
        .nth(tile)
        .evaluate(
            """(canvas) => {
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const light = [...Array(data.length / 4).keys()]
            .map((i) => data[4 * i] + data[4 * i + 1] + data[4 * i + 2]);
          return light.indexOf(Math.max(...light));
        }"""
        )
    )


def test_maps_and_regions_follow_the_controls(
    visit: Any, models: dict[str, RetrievalModel]
) -> None:
    page = visit("attention.html").page
    network = next(iter(models.values()))
    page.locator(".strip label").nth(1).click()
    rows = TABLE.select(TABLE.image == 1)
    maps = attend_table(network, rows, progress=False)
    assert [brightest(page, tile) for tile in range(2)] == maps.flatten(1).argmax(dim=1).tolist()

    assert page.locator(".tiles .region").count() == 2
    style = page.locator(".tiles .region").first.get_attribute("style")
    assert "left: 12.5%; top: 6.25%; width: 50%; height: 43.75%" in style
    page.get_by_label("true regions").uncheck()
    assert page.locator(".tiles .region").count() == 0

    page.get_by_label("Map").first.select_option("activity at level 2")
    assert page.locator("canvas").first.get_attribute("width") == "24"
    page.get_by_label("Model").select_option("CSN")
    assert page.get_by_label("Map").first.locator("option").all_inner_texts() == [
        "activity at level 3"
    ]


def test_attention_by_keyboard(visit: Any, models: dict[str, RetrievalModel]) -> None:
    page = visit("attention.html").page
    network = next(iter(models.values()))
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    maps = attend_table(network, TABLE.select(TABLE.image == 2), progress=False)
    assert [brightest(page, tile) for tile in range(2)] == maps.flatten(1).argmax(dim=1).tolist()
    page.get_by_label("Strength of the map").focus()
    page.keyboard.press("Home")
    assert page.locator("canvas").first.evaluate("one => one.style.opacity") == "0"
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    rows = TABLE.select(TABLE.image == 2)
    seen = (rows.regions != -1).any(axis=1).tolist()
    assert sorted(seen) == [False, True]
    even = page.locator("tbody td:last-child").all_text_contents()
    assert even == ["22\u00a0%" if one else "–" for one in seen]  # 0.5 x 0.4375 of the picture


# --- (d) the embedding map ----------------------------------------------------------------------


def test_pointing_at_a_garment_shows_it(visit: Any) -> None:
    page = visit("embedding.html").page
    points = page.locator(".plot button")
    assert points.count() == len(TABLE.of(0))
    # Of points that lie on each other the last is on top: take one that nothing covers.
    point = points.nth(points.count() - 1)
    point.hover()
    image = int(TABLE.of(0).image[-1])
    assert page.locator('[data-shown="name"]').text_content() == TABLE.images.names[image]
    assert page.locator(".shown img").get_attribute("alt") == TABLE.images.names[image]
    value = TABLE.schema.values[0][TABLE.of(0).value[-1]]
    assert page.locator('[data-shown="value"]').text_content() == value


def test_arrow_keys_walk_from_garment_to_garment(visit: Any) -> None:
    page = visit("embedding.html").page
    page.get_by_label("Attribute").focus()
    page.keyboard.press("Tab")
    place = """() => {
      const point = document.activeElement;
      return [parseFloat(point.style.left), point.ariaLabel];
    }"""
    for _ in range(30):  # as far to the left as there is a garment
        page.keyboard.press("ArrowLeft")
    left, _ = page.evaluate(place)
    seen = [left]
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        right, label = page.evaluate(place)
        seen.append(right)
        assert page.locator('[data-shown="name"]').text_content() in label
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.plot')") is None, "one stop for Tab"


def test_another_attribute_has_other_points_and_shares(
    visit: Any, models: dict[str, RetrievalModel]
) -> None:
    page = visit("embedding.html").page
    page.get_by_label("Attribute").select_option(index=1)
    rows = TABLE.of(1)
    counts = [int(cell) for cell in page.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert counts == np.bincount(rows.value, minlength=2).tolist()
    chance = [f"{round(100 * (count - 1) / (len(rows) - 1))}\u00a0%" for count in counts]
    assert page.locator("tbody td:nth-child(5)").all_text_contents() == chance
    shapes = page.locator(".plot path").evaluate_all(
        "all => all.map((one) => one.getAttribute('d'))"
    )
    assert len(set(shapes)) == 2, "a shape for each value, beside its colour"
