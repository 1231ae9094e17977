"""The self-checks pass the solutions printed in the chapter and name each typical mistake."""

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
from torch import nn

from agman.course import training_checks

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "training_on_a_gpu.ipynb"
CHECKS = {
    "rate": training_checks.check_rate,
    "accumulated_step": training_checks.check_accumulated_step,
    "activation_bytes": training_checks.check_activation_bytes,
}
NAMES = {"np": np, "torch": torch, "nn": nn, "training_checks": training_checks}


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
    space: dict[str, Any] = dict(NAMES)
    exec(printed[0], space)
    assert verdict(name, space[name], capsys) == "Passed.\n"


@pytest.mark.parametrize("name", CHECKS)
def test_fails_the_stub_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    stub = next(cell for cell in cells("code") if f"def {name}(" in cell)
    exec(stub, dict(NAMES))
    assert capsys.readouterr().out.startswith("Not yet: the function is still empty")


# --- right answers, written differently -----------------------------------------------------------


def rate_by_interpolation(epoch: float, start: float, warmup: float, epochs: float) -> Any:
    """The two pieces as a cosine of a clipped angle and a clipped line."""
    angle = torch.tensor((epoch - warmup) / (epochs - warmup)).clamp(0, 1) * math.pi
    line = min(1.0, epoch / warmup) if warmup else 1.0
    return start * line * (1 + angle.cos()) / 2


def step_by_mean_gradients(parts: Any, mean_loss: Any, optimizer: Any) -> None:
    """Gradients kept by hand, weighted, and put in place at the end."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    sums = [torch.zeros_like(p) for p in weights]
    for part in parts:
        for total, gradient in zip(
            sums, torch.autograd.grad(mean_loss(part), weights), strict=True
        ):
            total += len(part) * gradient
    for p, total in zip(weights, sums, strict=True):
        p.grad = total / sum(map(len, parts))
    optimizer.step()


def bytes_by_storage(model: nn.Module, images: torch.Tensor) -> int:
    """The same count through a patched call of each layer."""
    total = 0
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    for layer in layers:

        def counted(
            x: torch.Tensor, original: Callable[..., torch.Tensor] = layer.forward
        ) -> torch.Tensor:
            nonlocal total
            output = original(x)
            total += output.untyped_storage().nbytes()
            return output

        layer.forward = counted  # type: ignore[method-assign]
    model(images)
    for layer in layers:
        del layer.forward
    return total


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("rate", rate_by_interpolation),
        ("accumulated_step", step_by_mean_gradients),
        ("activation_bytes", bytes_by_storage),
    ],
)
def test_passes_other_right_answers(
    name: str, answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(name, answer, capsys) == "Passed.\n"


# --- mistakes -------------------------------------------------------------------------------------


def fall(epoch: float, warmup: float, epochs: float) -> float:
    """The right second piece, as a factor."""
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def warmed(factor: Callable[[float, float, float], float]) -> Callable[..., float]:
    """A right warm-up before another second piece."""
    return lambda e, s, w, n: s * (e / w if e < w else factor(e, w, n))


def step(
    weight: Callable[..., float] = lambda part, parts: len(part) / sum(map(len, parts)),
    *,
    zero: str = "first",
    steps: str = "last",
) -> Callable[..., None]:
    """An accumulated step with faults."""

    def function(parts: Any, mean_loss: Any, optimizer: Any) -> None:
        for number, part in enumerate(parts):
            if zero == "each" or (zero == "first" and number == 0):
                optimizer.zero_grad()
            (weight(part, parts) * mean_loss(part)).backward()
            if steps == "each" or (steps == "last" and number == len(parts) - 1):
                optimizer.step()

    return function


def one_graph(parts: Any, mean_loss: Any, optimizer: Any) -> None:
    """The right step from one large graph."""
    optimizer.zero_grad()
    n = sum(map(len, parts))
    sum(mean_loss(part) * len(part) / n for part in parts).backward()
    optimizer.step()


def one_batch(parts: Any, mean_loss: Any, optimizer: Any) -> None:
    """The whole batch put together again, which is right but for the memory."""
    optimizer.zero_grad()
    mean_loss(torch.cat(list(parts))).backward()
    optimizer.step()


def hooked(
    size: Callable[[torch.Tensor], int] = lambda o: o.numel() * o.element_size(),
    kinds: Any = (nn.Conv2d, nn.BatchNorm2d, nn.Linear),
    *,
    keep_hooks: bool = False,
    by_layer: bool = False,
    of_input: bool = False,
) -> Callable[..., int]:
    """A count by hooks with faults."""

    def function(model: nn.Module, images: torch.Tensor) -> int:
        sizes: dict[Any, int] = {}

        def hook(layer: nn.Module, given: Any, output: torch.Tensor) -> None:
            sizes[layer if by_layer else object()] = size(given[0] if of_input else output)

        layers = [m for m in model.modules() if kinds is None or isinstance(m, kinds)]
        handles = [layer.register_forward_hook(hook) for layer in layers]
        model(images)
        for handle in [] if keep_hooks else handles:
            handle.remove()
        return sum(sizes.values())

    return function


def weights_in_bytes(model: nn.Module, images: torch.Tensor) -> int:
    """The size of the model, which is another question."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


LEAVES = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU, nn.Flatten)

MISTAKES: list[tuple[str, Callable[..., Any], str]] = [
    ("rate", lambda e, s, w, n: None, "returns nothing"),
    ("rate", lambda e, s, w, n: "high", "not numbers"),
    ("rate", lambda e, s, w, n: s * e / w, "stopped with ZeroDivisionError"),
    ("rate", lambda e, s, w, n: s * fall(e, 0, n), "no warm-up"),
    ("rate", warmed(lambda e, w, n: fall(e, 0, n)), "the rate jumps"),
    ("rate", warmed(lambda e, w, n: fall(e - w, 0, n)), "does not reach 0"),
    ("rate", warmed(lambda e, w, n: fall(2 * e - w, w, n)), "comes up again"),
    ("rate", warmed(lambda e, w, n: 2 * fall(e, w, n) - 1), "falls below 0"),
    ("rate", warmed(lambda e, w, n: math.cos(math.pi / 2 * (e - w) / (n - w))), "quarter"),
    ("rate", warmed(lambda e, w, n: (n - e) / (n - w)), "straight line"),
    ("rate", warmed(lambda e, w, n: 1.0), "stays where it is"),
    ("rate", lambda e, s, w, n: warmed(fall)(math.floor(e), s, w, n), "do not round"),
    ("rate", lambda e, s, w, n: s * ((e + 1) / w if e < w else fall(e, w, n)), "not 0"),
    ("rate", lambda e, s, w, n: warmed(fall)(e, 1, w, n), "no effect"),
    ("rate", lambda e, s, w, n: 3.0, "3.0 where 0.0 is right"),
    ("accumulated_step", lambda parts, mean_loss, optimizer: None, "did not move"),
    ("accumulated_step", step(steps="never"), "did not move"),
    ("accumulated_step", step(zero="never"), "earlier step"),
    ("accumulated_step", step(zero="each"), "only the last part"),
    ("accumulated_step", step(steps="each"), "a single one"),
    ("accumulated_step", step(steps="each", zero="each"), "a single one"),
    ("accumulated_step", step(lambda *_: 1.0, steps="each", zero="each"), "a single one"),
    ("accumulated_step", step(lambda *_: 1.0), "added up"),
    ("accumulated_step", step(lambda part, parts: 1 / len(parts)), "should count less"),
    ("accumulated_step", step(lambda part, parts: float(len(part))), "number of all rows"),
    ("accumulated_step", one_graph, "inside the loop"),
    ("accumulated_step", one_batch, "inside the loop"),
    ("accumulated_step", lambda parts, mean_loss, optimizer: parts[7], "stopped with IndexError"),
    ("activation_bytes", lambda model, images: None, "returns nothing"),
    ("activation_bytes", lambda model: 1, "stopped with TypeError"),
    ("activation_bytes", hooked(lambda o: o.numel()), "counted numbers"),
    ("activation_bytes", hooked(lambda o: 4 * o.numel()), "4 bytes"),
    ("activation_bytes", hooked(lambda o: o[0].numel() * o.element_size()), "one image"),
    ("activation_bytes", hooked(of_input=True), "what goes in"),
    ("activation_bytes", weights_in_bytes, "counted the weights"),
    ("activation_bytes", hooked(kinds=None), "counts again"),
    ("activation_bytes", hooked(kinds=LEAVES), "other layers"),
    ("activation_bytes", hooked(by_layer=True), "calls, not layers"),
    ("activation_bytes", hooked(keep_hooks=True), "still on the model"),
    ("activation_bytes", hooked(kinds=nn.Conv2d), "is right"),
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
    for hint in (1, 2, 3):
        CHECKS[name](lambda *_: None, hint=hint)
        said = capsys.readouterr().out
        assert [f"Hint {n}" in said for n in (1, 2, 3)] == [n <= hint for n in (1, 2, 3)]
