"""The self-checks of "Attribute-guided attention" pass right answers and name each mistake."""

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

from agman.attention import AttributeSpatialAttention, softmax_over_positions
from agman.course import attention_checks as checks
from agman.course.exercises import problem

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "attention.ipynb"
CHECKS = {
    "my_maps": checks.check_maps,
    "my_gate_input": checks.check_gate_input,
    "my_spread": checks.check_spread,
}
EXERCISES = (checks._MAPS, checks._GATE_INPUT, checks._SPREAD)


def verdict(name: str, answer: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What the check of an exercise prints about an answer."""
    capsys.readouterr()
    CHECKS[name](answer)
    return capsys.readouterr().out


def sources(kind: str) -> list[str]:
    """Sources of the chapter's cells of one kind."""
    notebook = nbformat.read(CHAPTER, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


@pytest.mark.parametrize("name", CHECKS)
def test_passes_the_solution_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [
        code
        for cell in sources("markdown")
        for code in re.findall(r"```python\n(.*?)```", cell, flags=re.DOTALL)
        if f"def {name}(" in code
    ]
    assert len(blocks) == 1
    space: dict[str, Any] = {"torch": torch}
    exec(blocks[0], space)
    assert verdict(name, space[name], capsys) == "Passed.\n"


@pytest.mark.parametrize("name", CHECKS)
def test_fails_the_stub_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (stub,) = [cell for cell in sources("code") if f"def {name}(" in cell]
    exec(stub, {"checks": checks})
    said = capsys.readouterr().out
    assert said.startswith("Not yet: the function returns nothing")
    assert said.endswith("hint=1.\n")


# --- right answers, written differently -----------------------------------------------------------


def maps_one_by_one(keys: Tensor, queries: Tensor) -> Tensor:
    result = torch.zeros(len(keys), queries.shape[1], *keys.shape[2:], dtype=keys.dtype)
    for b in range(len(keys)):
        for k in range(queries.shape[1]):
            scores = sum(c * key for c, key in zip(queries[b, k], keys[b]))
            result[b, k] = softmax_over_positions(scores / len(keys[b]) ** 0.5)
    return result


def gate_input_of_the_features(features: Tensor, weights: Tensor) -> Tensor:
    """As the package has it, without the weighted features."""
    mean, low, high = (each[:, None] for each in (features.mean(1), features.amin(1),
                                                  features.amax(1)))  # fmt: skip
    return torch.stack([mean * weights, torch.maximum(low * weights, high * weights)], 2)


def spread_with_numpy(map_: Tensor) -> float:
    kept = [float(p) for p in map_.flatten() if p > 0]
    return float(np.prod([p**-p for p in kept]))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("my_maps", maps_one_by_one),
        ("my_gate_input", gate_input_of_the_features),
        ("my_spread", spread_with_numpy),
    ],
)
def test_passes_a_right_answer_however_it_is_written(
    name: str, answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(name, answer, capsys) == "Passed.\n"


def test_the_right_maps_are_those_of_the_package() -> None:
    torch.manual_seed(0)
    part = AttributeSpatialAttention(6, 6, 6).double().eval()
    features, codes = torch.randn(2, 6, 3, 4).double(), torch.randn(2, 5, 6).double()
    keys, queries = torch.tanh(part.norm(features)), F.silu(part.transform(codes))
    torch.testing.assert_close(checks._maps(keys, queries), part(features, codes))


# --- typical mistakes -----------------------------------------------------------------------------


def scores(keys: Tensor, queries: Tensor) -> Tensor:
    return torch.einsum("bchw,bkc->bkhw", keys, queries)


def entropy(map_: Tensor) -> Tensor:
    return -(map_ * map_.clamp(min=1e-12).log()).sum()


MISTAKES: list[tuple[str, Callable[..., Any], str]] = [
    ("my_maps", lambda k, q: ..., "returns nothing"),
    ("my_maps", lambda k, q: (scores(k, q) / k.shape[1] ** 0.5).softmax(-1), "every row"),
    ("my_maps", lambda k, q: (scores(k, q) / k.shape[1] ** 0.5).softmax(2), "every column"),
    ("my_maps", lambda k, q: (scores(k, q) / k.shape[1] ** 0.5).softmax(1), "what else is asked"),
    ("my_maps", lambda k, q: (scores(k, q) / k.shape[1] ** 0.5).softmax(0), "rest of the batch"),
    (
        "my_maps",
        lambda k, q: (s := scores(k, q) / k.shape[1] ** 0.5).flatten(1).softmax(1).view(s.shape),
        "a sum of its own",
    ),
    ("my_maps", lambda k, q: softmax_over_positions(scores(k, q)), "not divided"),
    ("my_maps", lambda k, q: softmax_over_positions(scores(k, q) / k.shape[1]), "square root"),
    ("my_maps", lambda k, q: softmax_over_positions(scores(k, q) / k[0, 0].numel() ** 0.5),
     "number of positions"),
    ("my_maps", lambda k, q: scores(k, q) / k.shape[1] ** 0.5, "these are the scores"),
    ("my_maps", lambda k, q: torch.sigmoid(scores(k, q) / k.shape[1] ** 0.5), "compete"),
    ("my_maps", lambda k, q: q @ k, "stopped with"),
    ("my_maps", lambda k, q: scores(k, q)[0], "where (2, 3, 3, 4) is right"),
    (
        "my_gate_input",
        lambda f, w: torch.stack([f.amax(1)[:, None] * w, f.mean(1)[:, None] * w], 2),
        "gives",
    ),
    (
        "my_gate_input",
        lambda f, w: torch.stack([f.mean(1)[:, None] * w, f.amax(1)[:, None] * w], 2),
        "negative weight",
    ),
    (
        "my_gate_input",
        lambda f, w: torch.stack(
            [(x := f[:, None] * w[:, :, None]).amax(2), x.mean(2)], 2
        ),
        "first the mean",
    ),
    (
        "my_gate_input",
        lambda f, w: torch.stack([(x := f[:, None] * w[:, :, None]).sum(2), x.amax(2)], 2),
        "the sum over channels",
    ),
    (
        "my_gate_input",
        lambda f, w: torch.stack([(x := f[:, None] * w[:, :, None]).mean(2), x.abs().amax(2)], 2),
        "absolute values",
    ),
    (
        "my_gate_input",
        lambda f, w: torch.stack([f.mean(1), f.amax(1)], 1)[:, None].expand(-1, w.shape[1], -1,
                                                                            -1, -1),
        "weights are missing",
    ),
    (
        "my_gate_input",
        lambda f, w: torch.cat([(x := f[:, None] * w[:, :, None]).mean(2), x.amax(2)], 1),
        "where (2, 3, 2, 3, 4) is right",
    ),
    ("my_spread", lambda m: torch.exp(-(m * m.log()).sum()), "NaN"),
    ("my_spread", entropy, "that is the entropy; its"),
    ("my_spread", lambda m: entropy(m) / math.log(2), "in bits"),
    ("my_spread", lambda m: 2 ** entropy(m), "same base"),
    ("my_spread", lambda m: torch.exp(-entropy(m)), "the sign"),
    ("my_spread", lambda m: int((m != 0).sum()), "counted"),
    ("my_spread", lambda m: 1 / (m * m).sum(), "sum of squares"),
    ("my_spread", lambda m: 1 / m.amax(), "largest weight"),
    ("my_spread", lambda m: m.numel(), "gives 4"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "expected"), MISTAKES)
def test_names_the_mistake(
    name: str, answer: Callable[..., Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = verdict(name, answer, capsys)
    assert said.startswith("Not yet: ")
    assert expected in said
    assert said.endswith("hint=1.\n")


def test_each_mistake_has_one_name() -> None:
    for exercise in EXERCISES:
        for sentence, wrong in exercise.mistakes:
            assert problem(wrong, exercise) == sentence


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("hint", [1, 2, 3])
def test_gives_hints_in_stages(name: str, hint: int, capsys: pytest.CaptureFixture[str]) -> None:
    CHECKS[name](lambda *_: None, hint=hint)
    said = capsys.readouterr().out
    assert [f"Hint {n}" in said for n in (1, 2, 3)] == [n <= hint for n in (1, 2, 3)]
