"""Self-checks of the two chapters on baselines: right answers pass, each mistake has its name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course import one_space_checks, one_space_per_attribute_checks
from agman.models import CSN, create_model

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = {
    "one_space": one_space_checks,
    "one_space_per_attribute": one_space_per_attribute_checks,
}
EXERCISES = {
    name: (getattr(module, f"check_{name}"), getattr(module, f"_{name.upper()}"))
    for module in CHAPTERS.values()
    for name in (check.removeprefix("check_") for check in module.__all__)
}


def said(capsys: Any, name: str, function: Any, hint: int = 0) -> list[str]:
    """The lines that the check of an exercise prints."""
    capsys.readouterr()
    EXERCISES[name][0](function, hint)
    return capsys.readouterr().out.splitlines()


def cells(kind: str) -> list[tuple[str, str]]:
    """Chapter and source of the cells of one kind."""
    return [
        (chapter, cell.source)
        for chapter in CHAPTERS
        for cell in nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
        if cell.cell_type == kind
    ]


def solutions() -> dict[str, str]:
    """The code of each solution on the pages, by name of the exercise."""
    found = [
        re.search(r"```python\n(def my_(\w+)\(.*?)```", source, re.DOTALL)
        for _, source in cells("markdown")
        if "Solution of exercise" in source
    ]
    return {match[2]: match[1] for match in found if match}


def space(chapter: str = "one_space") -> dict[str, Any]:
    """The names that a reader's cell finds."""
    module = CHAPTERS[chapter]
    return {"torch": torch, "F": F, "np": np, "one_space_checks": module, "checks": module}


def test_each_exercise_has_a_solution_on_its_page() -> None:
    assert sorted(solutions()) == sorted(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_on_the_page_passes(name: str, capsys: Any) -> None:
    names = space()
    exec(solutions()[name], names)
    assert said(capsys, name, names[f"my_{name}"]) == ["Passed."]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_on_the_page_is_told_and_never_raises(name: str, capsys: Any) -> None:
    chapter, stub = next((c, s) for c, s in cells("code") if f"def my_{name}(" in s)
    exec(stub, space(chapter))
    assert "returns nothing" in capsys.readouterr().out


# --- right answers, written differently from the package ------------------------------------------


def loss_by_rows(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> float:
    rows = zip(anchor, positive, negative, strict=True)
    losses = [max(0.0, margin - float(a @ p) + float(a @ n)) for a, p, n in rows]
    return sum(losses) / len(losses)


def triplets_by_trying(values: Tensor) -> int:
    images = range(len(values))
    found = 0
    for a in images:
        for p in images:
            for n in images:
                v, w, x = (int(values[i]) for i in (a, p, n))
                found += a != p and v == w and v != x and min(v, x) >= 0
    return found


def hardest_by_loop(embeddings: Tensor, values: Tensor) -> list[float]:
    numbered = list(enumerate(values.tolist()))
    return [
        max(float(embeddings[i] @ embeddings[j]) for j, w in numbered if w != v)
        for i, v in numbered
    ]


def similarity_by_package(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    model = create_model("csn", n_attributes=1, backbone="lab", dim=len(mask))
    assert isinstance(model, CSN)
    model.mask.weight.data[0] = mask
    ids = torch.zeros(2, 1, dtype=torch.long)
    one, other = model.normalize(model.mask(torch.stack([x, y])[:, None], ids))[:, 0]
    return one @ other


def attended_by_positions(features: Tensor, scores: Tensor) -> Tensor:
    weights = [math.exp(s) for s in scores.flatten().tolist()]
    columns = features.flatten(1).T
    return sum(w * c for w, c in zip(weights, columns, strict=True)) / sum(weights)


def ceiling_by_softmax(n: int, bound: float) -> Tensor:
    return torch.tensor([bound] + [-bound] * (n - 1)).softmax(0)[0]


RIGHT: dict[str, Callable[..., Any]] = {
    "triplet_loss": loss_by_rows,
    "comparisons": triplets_by_trying,
    "hardest_negative": hardest_by_loop,
    "masked_similarity": similarity_by_package,
    "attended": attended_by_positions,
    "ceiling": ceiling_by_softmax,
}


@pytest.mark.parametrize("name", EXERCISES)
def test_passes_a_right_answer_that_is_written_differently(name: str, capsys: Any) -> None:
    assert said(capsys, name, RIGHT[name]) == ["Passed."]


# --- typical mistakes -----------------------------------------------------------------------------


def ahead(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    return torch.einsum("bd,bd->b", anchor, positive - negative)


def among(values: Tensor, **how: bool) -> int:
    """Positives times negatives of each anchor, wrong in the way that `how` says."""
    total = 0
    for v in values.tolist():
        if v < 0 and not how.get("unknown"):
            continue
        positives = int((values == v).sum()) - (not how.get("own"))
        others = (values != v) & ((values >= 0) | how.get("unknown_negative", False))
        others |= (values != v) & how.get("unknown", False)
        total += positives * int(others.sum())
    return total


MISTAKES: list[tuple[str, str, Callable[..., Any]]] = [
    ("triplet_loss", "before the cut", lambda a, p, n, m: (m - ahead(a, p, n).mean()).clamp(0)),
    ("triplet_loss", "nothing is cut", lambda a, p, n, m: (m - ahead(a, p, n)).mean()),
    ("triplet_loss", "wrong way round", lambda a, p, n, m: loss_by_rows(a, n, p, m)),
    ("triplet_loss", "margin is missing", lambda a, p, n, m: (-ahead(a, p, n)).clamp(0).mean()),
    ("triplet_loss", "take the mean", lambda a, p, n, m: (m - ahead(a, p, n)).clamp(0).sum()),
    ("triplet_loss", "their mean", lambda a, p, n, m: (m - ahead(a, p, n)).clamp(min=0)),
    (
        "triplet_loss",
        "Euclidean",
        lambda a, p, n, m: F.triplet_margin_loss(a, p, n, margin=m, eps=0.0),
    ),
    ("comparisons", "its own positive", lambda v: among(v, own=True)),
    ("comparisons", "taken for a value", lambda v: among(v, unknown=True)),
    ("comparisons", "taken as a negative", lambda v: among(v, unknown_negative=True)),
    ("comparisons", "in one order only", lambda v: triplets_by_trying(v) // 2),
    ("hardest_negative", "the anchor itself included", lambda e, v: (e @ e.T).max(1).values),
    (
        "hardest_negative",
        "they are positives",
        lambda e, v: (e @ e.T - 9 * torch.eye(len(e))).max(1).values,
    ),
    (
        "hardest_negative",
        "is the easiest",
        lambda e, v: (e @ e.T + 9 * (v[:, None] == v)).min(1).values,
    ),
    (
        "hardest_negative",
        "hardest positive",
        lambda e, v: (e @ e.T + 9 * (v[:, None] != v)).min(1).values,
    ),
    (
        "hardest_negative",
        "return its similarity",
        lambda e, v: (e @ e.T - 9 * (v[:, None] == v)).max(1).indices,
    ),
    ("hardest_negative", "to zero", lambda e, v: ((e @ e.T) * (v[:, None] != v)).max(1).values),
    ("masked_similarity", "relu first", lambda x, y, m: F.cosine_similarity(x * m, y * m, 0)),
    (
        "masked_similarity",
        "one vector only",
        lambda x, y, m: F.cosine_similarity(x, y * m.clamp(0), 0),
    ),
    (
        "masked_similarity",
        "after the mask",
        lambda x, y, m: (x / x.norm() * y / y.norm() * m.clamp(0) ** 2).sum(),
    ),
    ("masked_similarity", "both lengths", lambda x, y, m: (x * y * m.clamp(0) ** 2).sum()),
    ("masked_similarity", "no effect", lambda x, y, m: x @ y / x.norm() / y.norm()),
    ("attended", "every row", lambda f, s: torch.einsum("chw,hw->c", f, s.softmax(dim=-1))),
    ("attended", "every column", lambda f, s: torch.einsum("chw,hw->c", f, s.softmax(dim=-2))),
    ("attended", "as they are", lambda f, s: torch.einsum("chw,hw->c", f, s)),
    ("attended", "took the mean", lambda f, s: attended_by_positions(f, s) / s.numel()),
    ("attended", "count alike", lambda f, s: f.flatten(1).sum(1) / s.numel()),
    ("attended", "brightest position only", lambda f, s: f[:, s == s.max()].flatten()),
    ("ceiling", "down to -bound", lambda n, b: ceiling_by_softmax(n, b / 2)),
    ("ceiling", "n - 1 of them", lambda n, b: ceiling_by_softmax(n + 1, b)),
    ("ceiling", "even map; give", lambda n, b: 1 / n),
    ("ceiling", "how many times", lambda n, b: math.exp(b) / math.exp(-b)),
    ("ceiling", "in percent", lambda n, b: 100 * ceiling_by_softmax(n, b)),
    ("ceiling", "the weight itself", lambda n, b: n * ceiling_by_softmax(n, b)),
]


@pytest.mark.parametrize(("name", "phrase", "function"), MISTAKES)
def test_names_a_typical_mistake(
    name: str, phrase: str, function: Callable[..., Any], capsys: Any
) -> None:
    first, second = said(capsys, name, function)
    assert first.startswith("Not yet: ")
    assert phrase in first
    assert "hint=1" in second


@pytest.mark.parametrize("name", EXERCISES)
def test_is_tried_with_several_mistakes(name: str) -> None:
    assert len({phrase for other, phrase, _ in MISTAKES if other == name}) >= 4


@pytest.mark.parametrize("name", EXERCISES)
def test_hints_come_in_stages(name: str, capsys: Any) -> None:
    for stage in (1, 2, 3):
        lines = said(capsys, name, lambda *_: None, stage)
        assert [line.split(":")[0] for line in lines[1:]] == [f"Hint {i + 1}" for i in range(stage)]
