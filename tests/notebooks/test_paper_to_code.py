"""The page from the paper to the code, and the notation, held against the network itself.

Every shape, every count, every switch and every name of code on these pages is read from their
Markdown and compared with what the package does.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import re
from ast import literal_eval
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import agman
from agman import losses
from agman.experiments import EXPERIMENTS
from agman.models import AGMAN, RELEASED_QUIRKS, AGMANConfig
from agman.ranking import TIES
from agman.training import RELEASED, TrainConfig

BOOK = Path(__file__).resolve().parents[2] / "book"
PAGE = (BOOK / "paper_to_code.md").read_text(encoding="utf-8")
NOTATION = (BOOK / "notation.md").read_text(encoding="utf-8")
GLOSSARY = (BOOK / "glossary.md").read_text(encoding="utf-8")
ROLE = r"\{(?:class|func|meth|mod)\}`~?([\w.]+)`"


class Table(NamedTuple):
    """A Markdown table: the sections it stands in, the titles of its columns, its cells."""

    sections: tuple[str, ...]
    head: list[str]
    rows: list[list[str]]


def tables(text: str) -> list[Table]:
    """Every table of a page."""
    found: list[Table] = []
    sections: list[str] = []
    inside = False
    for line in text.splitlines():
        if heading := re.match(r"(#+) (.*)", line):
            sections = [*sections[: len(heading[1]) - 1], heading[2]]
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not inside:
            found.append(Table(tuple(sections), cells, []))
        elif not set(line) <= set("|- "):
            assert len(cells) == len(found[-1].head), f"another number of cells: {line}"
            found[-1].rows.append(cells)
        inside = True
    return found


def section(name: str) -> list[Table]:
    """The tables in a section of the page."""
    chosen = [table for table in tables(PAGE) if name in table.sections]
    assert chosen, f"the page has no table in a section {name!r}"
    return chosen


def symbol(cell: str) -> str:
    """`$F_2$` without the dollars."""
    found = re.fullmatch(r"\$(.+)\$", cell)
    assert found, f"{cell!r} is no symbol"
    return found[1]


# --- the steps ------------------------------------------------------------------------------------


def steps(model: AGMAN, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """Every tensor of the page by its symbol, in the order of the page, computed step by step."""
    t = {"x": x, "F_0": model.backbone.stem(x)}
    for number, level in enumerate(model.backbone.levels, start=1):
        t[f"F_{number}"] = level(t[f"F_{number - 1}"])
    t["F_2'"] = F.max_pool2d(t["F_2"], 3, stride=2, padding=1)
    t["P"] = model.join.project[0](t["F_2'"])
    t["L"] = t["F_3"] + t["P"]
    t["X"] = torch.cat([t["F_3"], t["L"]], dim=1)

    t["w"] = model.redundant["w"]
    t["X_1"] = model.reduce(t["w"] * t["X"])
    t["e"] = model.codes.weight[ids]
    t["u"] = torch.tanh(model.spatial.norm(t["X_1"]))
    t["a"] = F.silu(model.spatial.transform(t["e"]))
    product = t["a"][:, :, :, None, None] * t["u"][:, None]
    t["s"] = product.sum(dim=2) / math.sqrt(product.shape[2])
    t["A"] = t["s"].flatten(2).softmax(dim=2).view(t["s"].shape)
    t["w_1"] = model.scale
    t["X_2"] = t["w_1"] * t["A"][:, :, None] * t["X_1"][:, None]
    pair = torch.stack([t["X_2"].mean(dim=2), t["X_2"].amax(dim=2)], dim=2).flatten(0, 1)
    t["M"] = torch.sigmoid(model.gate.conv(pair)).view(t["A"].shape)
    t["v"] = (t["M"][:, :, None] * t["X_2"]).sum(dim=(3, 4))

    t["b"] = F.silu(model.channel.transform(t["e"]))
    t["h"] = torch.relu(model.channel.squeeze(torch.cat([t["v"], t["b"]], dim=2)))
    t["m"] = torch.sigmoid(model.channel.excite(t["h"]))
    t["w_2"] = model.redundant["w2"]
    t["v'"] = t["w_2"] * t["m"] * t["v"]
    t["k"] = torch.relu(model.mask.weight[ids])
    t["v''"] = t["k"] * t["v'"]
    t["f"] = t["v''"] / t["v''"].norm(dim=2, keepdim=True)

    t["F_4"] = model.classifier[0](t["L"])
    t[r"\bar F_4"] = t["F_4"].mean(dim=(2, 3))
    t["y"] = model.classifier[3](t[r"\bar F_4"])
    return t


def charges(f: Tensor, y: Tensor, c: Tensor) -> dict[str, Tensor]:
    """The tensors of the losses, for triplets under one attribute c (T,) each."""
    anchor, positive, negative = f[:, 0].chunk(3)
    near, far = (anchor * positive).sum(dim=1), (anchor * negative).sum(dim=1)
    ranking = (0.2 - near + far).clamp(min=0).mean()
    target = F.one_hot(c.repeat(3), y.shape[1]).to(y.dtype)
    entropy = target * F.softplus(-y) + (1 - target) * F.softplus(y)
    p = torch.ones(2, dtype=y.dtype, device=y.device)
    total = (0.5 * p.exp() * torch.stack([ranking, entropy.mean()]) + p).sum()
    return {
        r"s_{\text{positive}}": near,
        r"s_{\text{negative}}": far,
        "L_t": ranking,
        "L_c": entropy.mean(),
        "p_i": p,
        r"L_{\text{total}}": total,
    }


@torch.no_grad()
def test_the_steps_are_what_the_model_computes() -> None:
    torch.manual_seed(0)
    model = agman.create_model("agman", n_attributes=5, backbone="lab", released=True).double()
    model.eval()
    for parameter in model.parameters():  # no number may keep a value that hides its absence
        parameter.add_(0.1 * torch.randn_like(parameter))
    x, ids = torch.randn(6, 3, 96, 96).double(), torch.tensor([[0, 2, 4]] * 6)
    t, out = steps(model, x, ids), model(x, ids)
    torch.testing.assert_close(t["f"], out.embedding)
    torch.testing.assert_close(t["A"], out.attention)
    torch.testing.assert_close(t["y"], out.logits)

    c = ids[:2, 0]
    charged = charges(t["f"], t["y"], c)
    parts = {
        "ranking": losses.triplet_loss(*out.embedding[:, 0].chunk(3)),
        "classification": losses.attribute_classification_loss(
            out.logits, F.one_hot(c.repeat(3), 5)
        ),
    }
    total = losses.ReleasedWeighting("ranking", "classification")(parts)
    torch.testing.assert_close(charged["L_t"], parts["ranking"])
    torch.testing.assert_close(charged["L_c"], parts["classification"])
    torch.testing.assert_close(charged[r"L_{\text{total}}"], total, check_dtype=False)


def released(n_attributes: int = 8) -> AGMAN:
    """The `model` of the pages, without memory for its weights."""
    with torch.device("meta"):
        return agman.create_model("agman", n_attributes=n_attributes, released=True).eval()


def true_shapes(n: int, triplets: int, asked: int) -> dict[str, tuple[int, ...]]:
    """Symbol to shape at 224 pixels on a ResNet-50."""
    with torch.device("meta"):
        x = torch.empty(3 * triplets, 3, 224, 224)
        ids = torch.zeros(3 * triplets, asked, dtype=torch.long)
        c = torch.zeros(triplets, dtype=torch.long)
        t = steps(released(n), x, ids)
        everything = {**t, **charges(t["f"], t["y"], c)}
    return {name: tuple(tensor.shape) for name, tensor in everything.items()}


def stated_shape(cell: str, sizes: dict[str, int]) -> tuple[int, ...]:
    """`B × K × 512` with numbers for the letters."""
    if cell == "one number":
        return ()
    return tuple(sizes[part] if part in sizes else int(part) for part in cell.split(" × "))


def test_every_shape_of_the_page_is_the_true_shape() -> None:
    n, triplets, asked = 8, 2, 3
    true = true_shapes(n, triplets, asked)
    stated = {}
    for table in section("The network, step by step"):
        photos = triplets if "Losses" in table.sections else 3 * triplets
        for cells in table.rows:
            sizes = {"B": photos, "K": asked, "n": n}
            stated[symbol(cells[0])] = stated_shape(cells[2], sizes)
    assert list(stated) == list(true)
    assert stated == true


def test_every_symbol_of_the_page_is_in_the_notation() -> None:
    explained = {
        one for table in tables(NOTATION) for row in table.rows for one in row[0].split(", ")
    }
    for table in section("The network, step by step"):
        for row in table.rows:
            assert row[0] in explained, f"explain {row[0]} in book/notation.md"


# --- the counts -----------------------------------------------------------------------------------


def count(name: str, n: int, **options: Any) -> int:
    with torch.device("meta"):
        model = agman.create_model(name, n_attributes=n, backbone="resnet50", **options)
    return sum(p.numel() for p in model.parameters())


def test_every_parameter_count_of_the_page_is_counted() -> None:
    (table,) = section("How many parameters")
    stated = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in table.rows}
    numbers = [int(title.removeprefix("n = ")) for title in table.head[1:]]
    assert numbers == [4, 5, 8, 9]
    whole = [count("agman", n, released=True) for n in numbers]
    needed = [count("agman", n, released=True, classification=False) for n in numbers]
    assert stated == {
        "AG-MAN as released": whole,
        "of these, classification branch": [a - b for a, b in zip(whole, needed)],
        "of these, needed for retrieval": needed,
        "AG-MAN, default": [count("agman", n) for n in numbers],
        "ASENet_V2": [count("asenet_v2", n) for n in numbers],
        "ASENet": [count("asenet", n) for n in numbers],
    }
    assert all(2 * kept < all_ for kept, all_ in zip(needed, whole)), "more than half is training"


# --- the switches ---------------------------------------------------------------------------------

SWITCH = re.compile(rf"`(\w+)` of {ROLE}: as released `([^`]+)`,.*?by default `([^`]+)`")


def switches() -> list[tuple[str, str, Any, Any]]:
    """Name, owner, value as released and default of each row of the page."""
    found = []
    for table in section("Where the released code differs, and how to switch it on"):
        for _, cell in table.rows:
            match = SWITCH.match(cell)
            assert match, f"no switch in {cell!r}"
            found.append((match[1], match[2], literal_eval(match[3]), literal_eval(match[4])))
    return found


@pytest.mark.parametrize(("name", "owner", "as_released", "default"), switches())
def test_a_switch_of_the_page_exists_with_this_default(
    name: str, owner: str, as_released: Any, default: Any
) -> None:
    parameter = inspect.signature(resolved(owner)).parameters[name]
    assert parameter.default == default
    if owner == "agman.training.TrainConfig":
        assert RELEASED[name] == as_released
        assert getattr(TrainConfig(**{name: as_released}), name) == as_released
    elif owner == "agman.models.AGMANConfig":
        assert getattr(AGMANConfig(**{name: as_released}), name) == as_released
        assert RELEASED_QUIRKS.get(name, as_released) == as_released
    else:
        assert (name, owner) == ("ties", "agman.evaluation.evaluate")
        assert {as_released, default} == set(TIES)


def test_every_quirk_of_the_package_has_its_row() -> None:
    assert {name for name, *_ in switches()} >= RELEASED_QUIRKS.keys() | RELEASED.keys()


def test_what_the_page_says_about_the_zappos_experiment() -> None:
    variants = {variant.name: variant for variant in EXPERIMENTS["zappos50k"]}
    assert variants["AG-MAN as released"].options["classification"] is False


# --- the names ------------------------------------------------------------------------------------

PAGES = {"paper_to_code": PAGE, "notation": NOTATION, "glossary": GLOSSARY}


def resolved(name: str) -> Any:
    """The module, class, function or method of that full name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def full_names() -> list[str]:
    return sorted({name for text in PAGES.values() for name in re.findall(ROLE, text)})


def test_the_pages_name_the_parts_of_the_package() -> None:
    assert {"agman.models.AGMAN", "agman.losses.triplet_loss"} <= set(full_names())


@pytest.mark.parametrize("name", full_names())
def test_a_name_of_code_exists_where_the_page_says(name: str) -> None:
    assert resolved(name) is not None
    api = (BOOK / "api.md").read_text(encoding="utf-8")
    modules = re.findall(r"automodule:: (\S+)", api)
    assert any(name == m or name.startswith(f"{m}.") for m in modules), "nothing to link to"


def test_parts_of_the_model_exist() -> None:
    model = released()
    spans = re.findall(r"`(model\.[^`]+)`", PAGE + NOTATION)
    assert len(spans) > 30
    for span in spans:
        assert eval(span, {"model": model}) is not None, span  # our own pages, code of our own


def test_functions_of_torch_exist() -> None:
    for name in re.findall(r"`torch\.(\w+)`", PAGE + NOTATION):
        assert hasattr(torch, name)


def members_named() -> list[tuple[str, str]]:
    """`scores` of {func}`...`: the names, each with what it belongs to."""
    found = []
    for text in (PAGE, NOTATION):
        for names, owner in re.findall(rf"(`\w+`(?: and `\w+`)*) (?:of|in) {ROLE}", text):
            found += [(name, owner) for name in re.findall(r"`(\w+)`", names)]
    return sorted(set(found))


@pytest.mark.parametrize(("name", "owner"), members_named())
def test_a_field_or_argument_exists(name: str, owner: str) -> None:
    thing = resolved(owner)
    fields = [f.name for f in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    assert name in [*inspect.signature(thing).parameters, *fields, *dir(thing)]


# --- the tests themselves -------------------------------------------------------------------------


def test_the_parser_sees_rows_and_sections() -> None:
    text = "# A\n## B\n| x | y |\n| --- | --- |\n| 1 | 2 |\n\n## C\n| z |\n| - |\n| 3 |\n"
    first, second = tables(text)
    assert first == (("A", "B"), ["x", "y"], [["1", "2"]])
    assert second == (("A", "C"), ["z"], [["3"]])
