"""Self-checks of the exercises in "Training on a GPU"; see `agman.course.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agman.course.exercises import Exercise, report

__all__ = ["check_accumulated_step", "check_activation_bytes", "check_rate"]


def check_rate(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(epoch, start, warmup, epochs)`, a rate that warms up and then falls.

    Args:
        function: takes four numbers, the epoch with its fraction, and returns one.
        hint: 1 to 3 for more and more help.
    """
    report(function, _RATE, hint)


def check_accumulated_step(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(parts, mean_loss, optimizer)`, one step on a batch that comes in parts.

    Args:
        function: takes tensors, a function from a tensor to the mean loss of its rows, and an
            optimizer; returns nothing.
        hint: 1 to 3 for more and more help.
    """
    report(_stepped(function), _ACCUMULATED_STEP, hint)


def check_activation_bytes(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(model, images)`, the bytes that three kinds of layers put out.

    Args:
        function: takes a module and its input, returns a whole number.
        hint: 1 to 3 for more and more help.
    """
    report(_counted(function), _ACTIVATION_BYTES, hint)


# --- the rate -------------------------------------------------------------------------------------


def _warm(after: Callable[[float, float, float], float]) -> Callable[..., float]:
    """A schedule with a right warm-up, and then the factor `after(epoch, warmup, epochs)`."""

    def rate(epoch: float, start: float, warmup: float, epochs: float) -> float:
        return start * (epoch / warmup if epoch < warmup else after(epoch, warmup, epochs))

    return rate


def _half_wave(part: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * part))


_right_rate = _warm(lambda e, w, n: _half_wave((e - w) / (n - w)))

_RATE = Exercise(
    right=_right_rate,
    cases=(
        *((epoch, 2.0, 2, 10) for epoch in (0, 0.5, 1, 2, 3.5, 6, 9.5, 10)),
        (1.5, 0.5, 3, 5),
        (4, 0.5, 3, 5),
        (1, 1.0, 0, 4),
    ),
    mistakes=(
        (
            "there is no warm-up: before the epoch `warmup` the rate rises in a straight line.",
            lambda e, s, w, n: s * _half_wave(e / n),
        ),
        (
            "the wave counts from epoch 0, so the rate jumps when the warm-up ends; count the "
            "epochs after the warm-up, and divide by how many there are.",
            _warm(lambda e, w, n: _half_wave(e / n)),
        ),
        (
            "the rate does not reach 0 at the end: epochs - warmup are left after the warm-up.",
            _warm(lambda e, w, n: _half_wave((e - w) / n)),
        ),
        (
            "the rate comes up again: half a wave is the cosine from 0 to pi.",
            _warm(lambda e, w, n: _half_wave(2 * (e - w) / (n - w))),
        ),
        (
            "the rate falls below 0: the cosine runs from 1 to -1, so add 1 and halve.",
            _warm(lambda e, w, n: math.cos(math.pi * (e - w) / (n - w))),
        ),
        (
            "that is a quarter of a wave, steepest at its end; half a wave is 0.5 * (1 + cos).",
            _warm(lambda e, w, n: math.cos(0.5 * math.pi * (e - w) / (n - w))),
        ),
        (
            "after the warm-up the rate falls in a straight line; it should follow the cosine.",
            _warm(lambda e, w, n: 1 - (e - w) / (n - w)),
        ),
        (
            "the rate stays where it is after the warm-up; it should fall to 0.",
            _warm(lambda e, w, n: 1.0),
        ),
        (
            "the rate changes once an epoch only; do not round the epoch.",
            lambda e, s, w, n: _right_rate(int(e), s, w, n),
        ),
        (
            "the first rate is not 0: the warm-up is epoch / warmup of the start rate.",
            lambda e, s, w, n: s * (e + 1) / w if e < w else _right_rate(e, s, w, n),
        ),
        (
            "`start` has no effect; the rate is `start` times something from 0 to 1.",
            lambda e, s, w, n: _right_rate(e, 1.0, w, n),
        ),
    ),
    hints=(
        "There are two cases: epoch < warmup, and the rest.",
        "In the second, part = (epoch - warmup) / (epochs - warmup) runs from 0 to 1.",
        "start * epoch / warmup, and start * 0.5 * (1 + math.cos(math.pi * part)).",
    ),
)


# --- one step from several parts ------------------------------------------------------------------

Step = Callable[[Sequence[Tensor], Callable[[Tensor], Tensor], torch.optim.Optimizer], Any]


def _stepped(function: Step) -> Callable[..., list[float]]:
    """Weights after one step by `function`, and whether it held several parts in memory at once."""

    def weights(*sizes: int) -> list[float]:
        rows = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(sum(sizes)))
        weight = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
        weight.grad = torch.ones(3)  # left over from an earlier step
        waiting, held = [0], [False]

        def done(gradient: Tensor) -> None:
            waiting[0] -= 1

        def mean_loss(part: Tensor) -> Tensor:
            held[0] = held[0] or waiting[0] > 0 or len(part) > max(sizes)
            loss = (part @ weight - 1).square().mean()
            waiting[0] += 1
            loss.register_hook(done)
            return loss

        function(rows.split(list(sizes)), mean_loss, torch.optim.SGD([weight], lr=0.2))
        return [*weight.tolist(), float(held[0])]

    return weights


def _accumulated(
    share: Callable[[Tensor, Sequence[Tensor]], float],
    *,
    zero: str = "before",
    step: str = "after",
) -> Step:
    """A way to accumulate: what each part counts, and where gradients are cleared and applied."""

    def function(
        parts: Sequence[Tensor],
        mean_loss: Callable[[Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        if zero == "before":
            optimizer.zero_grad()
        for part in parts:
            if zero == "each":
                optimizer.zero_grad()
            (mean_loss(part) * share(part, parts)).backward()
            if step == "each":
                optimizer.step()
        if step == "after":
            optimizer.step()

    return function


def _by_rows(part: Tensor, parts: Sequence[Tensor]) -> float:
    return len(part) / sum(map(len, parts))


def _all_at_once(
    parts: Sequence[Tensor], mean_loss: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """The right step, from one graph that holds every part."""
    optimizer.zero_grad()
    losses = [mean_loss(part) * _by_rows(part, parts) for part in parts]
    torch.stack(losses).sum().backward()
    optimizer.step()


_ACCUMULATED_STEP = Exercise(
    right=_stepped(_accumulated(_by_rows)),
    cases=((4,), (4, 4), (4, 4, 2), (1, 2, 3, 4)),
    mistakes=tuple(
        (sentence, _stepped(wrong))
        for sentence, wrong in (
            (
                "the weights did not move; call optimizer.step() once, after the last part.",
                _accumulated(_by_rows, step="never"),
            ),
            (
                "gradients of an earlier step are still in it; clear them before the first part.",
                _accumulated(_by_rows, zero="never"),
            ),
            (
                "only the last part counts: clear the gradients once, before the first part.",
                _accumulated(_by_rows, zero="each"),
            ),
            (
                "there is one step for each part; take a single one, after the last part.",
                _accumulated(_by_rows, step="each"),
            ),
            (
                "there is one step for each part; take a single one, after the last part.",
                _accumulated(_by_rows, step="each", zero="each"),
            ),
            (
                "there is one step for each part; take a single one, after the last part.",
                _accumulated(lambda part, parts: 1.0, step="each", zero="each"),
            ),
            (
                "the parts are added up, so the gradient is that of a larger loss; a part counts "
                "by its share of the rows.",
                _accumulated(lambda part, parts: 1.0),
            ),
            (
                "every part counts the same, but a part with fewer rows should count less.",
                _accumulated(lambda part, parts: 1 / len(parts)),
            ),
            (
                "each part is multiplied by its number of rows; divide by the number of all rows.",
                _accumulated(lambda part, parts: float(len(part))),
            ),
            (
                "the step is right, but all parts wait in memory for one backward; call "
                "backward() for each part, inside the loop.",
                _all_at_once,
            ),
        )
    ),
    hints=(
        "backward() adds to the gradients that are there; that is what makes this work.",
        "zero_grad() before the loop, backward() for each part inside, step() after it.",
        "The loss of a part is multiplied by len(part) / number of all rows before backward().",
    ),
)


# --- the memory of activations --------------------------------------------------------------------

KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


class _Twice(nn.Module):
    """One layer called twice, so that counting layers is not counting calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(torch.relu(self.layer(images))).mean(dim=(2, 3))


def _network(name: str) -> tuple[nn.Module, Tensor]:
    """A network of the check, and a batch for it."""
    if name == "a layer called twice":
        return _Twice(), torch.ones(2, 4, 6, 6)
    level = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), level, nn.Flatten(), nn.Linear(4 * 9, 5)
    )
    images = torch.ones(3, 3, 7, 7)
    return (network.double(), images.double()) if "64" in name else (network, images)


def _counted(function: Callable[[nn.Module, Tensor], Any]) -> Callable[[str], Any]:
    """What `function` says of a network, said again, and how many hooks it left behind."""

    def counts(name: str) -> Any:
        model, images = _network(name)
        answers = [function(model, images), function(model, images)]
        if answers[0] is None or answers[0] is ...:
            return answers[0]
        hooks = sum(len(layer._forward_hooks) for layer in model.modules())
        return [*(float(answer) for answer in answers), float(hooks)]

    return counts


def _outputs(
    size: Callable[[nn.Module, Tensor, Tensor], int],
    chosen: Callable[[nn.Module], bool] = lambda layer: isinstance(layer, KINDS),
    *,
    once: bool = False,
    remove: bool = True,
) -> Callable[[nn.Module, Tensor], int]:
    """A count by hooks: `size(layer, input, output)` of every call, or of every layer once."""

    def function(model: nn.Module, images: Tensor) -> int:
        sizes: dict[Any, int] = {}

        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            sizes[layer if once else len(sizes)] = size(layer, inputs[0], output)

        handles = [m.register_forward_hook(hook) for m in model.modules() if chosen(m)]
        model(images)
        for handle in handles if remove else ():
            handle.remove()
        return sum(sizes.values())

    return function


def _bytes(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    return output.numel() * output.element_size()


def _is_leaf(layer: nn.Module) -> bool:
    return not list(layer.children())


_ACTIVATION_BYTES = Exercise(
    right=_counted(_outputs(_bytes)),
    cases=(("float32",), ("float64",), ("a layer called twice",)),
    mistakes=tuple(
        (sentence, _counted(wrong))
        for sentence, wrong in (
            (
                "you counted numbers; multiply by output.element_size() for bytes.",
                _outputs(lambda layer, given, output: output.numel()),
            ),
            (
                "you took 4 bytes for every number; output.element_size() knows better.",
                _outputs(lambda layer, given, output: 4 * output.numel()),
            ),
            (
                "you counted one image; the output holds the whole batch.",
                _outputs(lambda layer, given, output: _bytes(layer, given, output) // len(output)),
            ),
            (
                "you counted what goes in; count what comes out.",
                _outputs(lambda layer, given, output: _bytes(layer, output, given)),
            ),
            (
                "you counted the weights, which do not grow with the batch; count the outputs.",
                lambda model, images: sum(p.numel() * p.element_size() for p in model.parameters()),
            ),
            (
                "every module counts, so an output inside a Sequential counts again for the "
                "Sequential; take Conv2d, BatchNorm2d and Linear only.",
                _outputs(_bytes, lambda layer: True),
            ),
            (
                "other layers count too; take Conv2d, BatchNorm2d and Linear only.",
                _outputs(_bytes, _is_leaf),
            ),
            (
                "a layer that is called twice counts once; add up calls, not layers.",
                _outputs(_bytes, once=True),
            ),
            (
                "the count is right, but your hooks are still on the model; call remove() on what "
                "register_forward_hook returned.",
                _outputs(_bytes, remove=False),
            ),
        )
    ),
    hints=(
        "layer.register_forward_hook(hook) calls hook(layer, inputs, output) after every call.",
        "Append output.numel() * output.element_size() to a list in the hook.",
        "model.modules() gives all layers; isinstance(layer, nn.Conv2d | nn.BatchNorm2d | "
        "nn.Linear) picks the three kinds; handle.remove() takes a hook off.",
    ),
)
