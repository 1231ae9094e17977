"""The self-checks pass the solutions printed in the chapter and name each typical mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import torch.nn.functional as F

from agman.course import assembly_checks

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "whole_network.ipynb"
CHECKS = {
    "attention_map": assembly_checks.check_attention_map,
    "retrieval_parameters": assembly_checks.check_retrieval_parameters,
    "weigh": assembly_checks.check_weigh,
}


def verdict(name: str, answer: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What the check of exercise `name` prints about an answer."""
    CHECKS[name](answer)
    return capsys.readouterr().out


def cells(kind: str) -> list[str]:
    """Sources of the chapter's cells of one kind."""
    notebook = nbformat.read(CHAPTER, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


@pytest.mark.parametrize("name", CHECKS)
def test_passes_the_solution_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = [
        code
        for cell in cells("markdown")
        for code in re.findall(r"```python\n(.*?)```", cell, flags=re.DOTALL)
        if f"def {name}(" in code
    ]
    assert len(printed) == 1
    space: dict[str, Any] = {"torch": torch, "F": F}
    exec(printed[0], space)
    assert verdict(name, space[name], capsys) == "Passed.\n"


@pytest.mark.parametrize("name", CHECKS)
def test_fails_the_stub_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    stub = next(cell for cell in cells("code") if f"def {name}(" in cell)
    space: dict[str, Any] = {"torch": torch, "F": F, "assembly_checks": assembly_checks}
    exec(stub, space)
    assert capsys.readouterr().out.startswith("Not yet: the function is still empty")


def softmax_2d(scores: torch.Tensor) -> torch.Tensor:
    """The softmax over all positions of a map."""
    return scores.flatten().softmax(0).view(scores.shape)


def scores(features: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """The scores of the solution."""
    return (features.tanh() * F.silu(code)[:, None, None]).sum(0) / len(code) ** 0.5


def every_parameter(model: Any) -> int:
    """The first thing one tries: the size of the whole model."""
    return sum(p.numel() for p in model.parameters())


def only_the_backbone(model: Any) -> int:
    """A miscount that no hint names."""
    return sum(p.numel() for p in model.backbone.parameters())


def unused(model: Any) -> int:
    """The complement of what is asked."""
    return 0 if model.classifier is None else every_parameter(model.classifier)


MISTAKES: list[tuple[str, Callable[..., Any], str]] = [
    ("attention_map", lambda f, e: None, "returns nothing"),
    ("attention_map", lambda f, e: f.tolist(), "returns a list"),
    ("attention_map", lambda f, e: f @ e, "stopped with RuntimeError"),
    ("attention_map", lambda f, e: f.softmax(0), "one number per position"),
    ("attention_map", lambda f, e: scores(f, e), "all positions at once"),
    ("attention_map", lambda f, e: scores(f, e).softmax(-1), "all positions at once"),
    ("attention_map", lambda f, e: softmax_2d(4 * scores(f, e)), "square root"),
    ("attention_map", lambda f, e: softmax_2d(f.mean(0)), "is another one"),
    (
        "attention_map",
        lambda f, e: softmax_2d((f * F.silu(e)[:, None, None]).sum(0) / 4),
        "features do not go through tanh",
    ),
    (
        "attention_map",
        lambda f, e: softmax_2d((f.tanh() * e[:, None, None]).sum(0) / 4),
        "code does not go through SiLU",
    ),
    (
        "attention_map",
        lambda f, e: softmax_2d((F.silu(f) * e.tanh()[:, None, None]).sum(0) / 4),
        "other way round",
    ),
    ("retrieval_parameters", lambda model: None, "returns nothing"),
    ("retrieval_parameters", every_parameter, "every parameter"),
    ("retrieval_parameters", lambda model: len(list(model.parameters())), "number of tensors"),
    ("retrieval_parameters", unused, "does not need"),
    ("retrieval_parameters", only_the_backbone, "embedding alone"),
    ("weigh", lambda loss, p: 0.5 * p.exp() * loss + p, "sign inside exp"),
    ("weigh", lambda loss, p: 0.5 * (-p).exp() * loss + 0.5 * p, "for a loss of 0"),
    ("weigh", lambda loss, p: 0.5 * (-p).exp() * loss + F.softplus(p), "a ceiling"),
    ("weigh", lambda loss, p: loss / (0.1 + p.exp()), "costs nothing"),
    ("weigh", lambda loss, p: loss + F.softplus(p), "the same for every p"),
    ("weigh", lambda loss, p: loss / (0.1 + (-p).exp()) + F.softplus(-p), "a larger loss"),
    ("weigh", lambda loss, p: F.softplus(p), "does not depend on the loss"),
    ("weigh", lambda loss, p: loss / (p - p), "not one finite number"),
]


@pytest.mark.parametrize(("name", "answer", "expected"), MISTAKES)
def test_names_the_mistake(
    name: str, answer: Callable[..., Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = verdict(name, answer, capsys)
    assert said.startswith("Not yet: ")
    assert expected in said
    assert said.endswith("hint=1.\n")


@pytest.mark.parametrize("name", CHECKS)
def test_gives_hints_in_stages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for hint in (1, 2):
        CHECKS[name](lambda *_: None, hint=hint)
        said = capsys.readouterr().out
        assert [f"Hint {n}" in said for n in (1, 2, 3)] == [True, hint == 2, False]
