"""Self-checks of the exercises in "The whole network".

The answers here have no single right value, so each check looks for properties.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course.exercises import say, stopped
from agman.models import RetrievalModel, create_model

__all__ = ["check_attention_map", "check_retrieval_parameters", "check_weigh"]


class NotYet(Exception):
    """What is still wrong with an answer."""


def check_attention_map(function: Callable[[Tensor, Tensor], Any], hint: int = 0) -> None:
    """Check `function(features, code)`, the attention map of one attribute.

    Args:
        function: takes (C, H, W) and (C,), returns (H, W) with sum 1.
        hint: 1 or 2 for more and more help.
    """
    hints = (
        "A code is one number per channel: code[:, None, None] multiplies every position.",
        "Sum over channels, divide by C ** 0.5, then flatten().softmax(0).view(H, W).",
    )
    _report(lambda: _check_attention_map(function), hints, hint)


def check_retrieval_parameters(function: Callable[[RetrievalModel], Any], hint: int = 0) -> None:
    """Check `function(model)`, the number of parameters that the embedding depends on.

    Args:
        function: takes a model on the lab backbone, returns a whole number.
        hint: 1 or 2 for more and more help.
    """
    hints = (
        "What the embedding does not depend on has no gradient after embedding.sum().backward().",
        "Set every parameter.grad to None first; then sum numel() where grad is not None.",
    )
    _report(lambda: _check_retrieval_parameters(function), hints, hint)


def check_weigh(function: Callable[[Tensor, Tensor], Any], hint: int = 0) -> None:
    """Check `function(loss, p)`, a loss weighted by a learned p that cannot run away.

    Args:
        function: takes two scalar tensors, the loss at least 0, and returns a scalar tensor.
        hint: 1 or 2 for more and more help.
    """
    hints = (
        "Two terms: the loss times something that falls with p, and something that grows with p.",
        "log(1 + exp(p)) has a floor, and 1 / (0.1 + exp(p)) has a ceiling.",
    )
    _report(lambda: _check_weigh(function), hints, hint)


def _report(check: Callable[[], None], hints: tuple[str, str], hint: int) -> None:
    wrong = None
    try:
        check()
    except NotYet as found:
        wrong = str(found)
    except Exception as error:  # whatever a reader's function raises is something to tell them
        wrong = stopped(error)
    say(wrong, hints, hint)


def _check_attention_map(answer: Callable[[Tensor, Tensor], Any]) -> None:
    random = torch.Generator().manual_seed(0)
    features = 2 * torch.randn(16, 5, 7, generator=random)
    code = 2 * torch.randn(16, generator=random)
    given = _tensor(answer(features, code))
    if given.shape != (5, 7):
        raise NotYet(
            f"the map has the shape {tuple(given.shape)} for features of 16 x 5 x 7; it needs one "
            "number per position, so sum over the channels."
        )
    if not math.isclose(float(given.sum()), 1, abs_tol=1e-4):
        raise NotYet(
            f"the map sums to {float(given.sum()):.2f}; the softmax runs over all positions at "
            "once, so flatten the map before it and give it its shape back after."
        )
    keys, query = torch.tanh(features), F.silu(code)
    wrong = {
        "the scores are not divided by the square root of the number of channels.": (
            keys,
            query * 4,
        ),
        "the features do not go through tanh.": (features, query),
        "the code does not go through SiLU.": (keys, code),
        "tanh is for the features and SiLU for the code, not the other way round.": (
            F.silu(features),
            torch.tanh(code),
        ),
    }
    for hint, (k, q) in wrong.items():
        if torch.allclose(given, _map(k, q), atol=1e-5):
            raise NotYet(hint)
    if not torch.allclose(given, _map(keys, query), atol=1e-5):
        raise NotYet(
            "the map sums to one but is another one; multiply tanh(features) and SiLU(code) "
            "channel by channel, sum, divide by the root of C, and only then take the softmax."
        )


def _map(keys: Tensor, query: Tensor) -> Tensor:
    scores = torch.einsum("chw,c->hw", keys, query) / math.sqrt(len(query))
    return scores.flatten().softmax(0).view(scores.shape)


def _check_retrieval_parameters(answer: Callable[[RetrievalModel], Any]) -> None:
    variants: tuple[dict[str, Any], ...] = ({}, {"mask": False}, {"classification": False})
    for options in variants:
        model = create_model("agman", n_attributes=3, backbone="lab", **options)
        every = sum(p.numel() for p in model.parameters())
        branch: Any = model.classifier
        unused = 0 if branch is None else sum(p.numel() for p in branch.parameters())
        given = answer(model)
        if given is None or given is ...:
            raise NotYet("the function returns nothing; end it with a return.")
        if given == len(list(model.parameters())):
            raise NotYet("that is the number of tensors; sum their `.numel()`.")
        if given == every and unused:
            raise NotYet(
                "that is every parameter; leave out those that the embedding gives no gradient to."
            )
        if given == unused:
            raise NotYet("that is what the embedding does not need; count the others.")
        if given != every - unused:
            raise NotYet(
                f"{given:,} is not what the embedding of {_named(options)} needs; run the "
                "backward pass from the embedding alone, and start from gradients that are None."
            )


def _named(options: dict[str, bool]) -> str:
    return f"AG-MAN without {next(iter(options))}" if options else "AG-MAN"


def _check_weigh(answer: Callable[[Tensor, Tensor], Any]) -> None:
    p = torch.linspace(-40, 40, 161, dtype=torch.float64)
    totals = {}
    for loss in (0.0, 1.0, 4.0):
        one = torch.tensor(loss, dtype=torch.float64)
        totals[loss] = torch.stack([_tensor(answer(one, each)).double() for each in p])
        if totals[loss].shape != p.shape or not torch.isfinite(totals[loss]).all():
            raise NotYet(f"for a loss of {loss:g} the total is not one finite number for every p.")
    if torch.allclose(totals[0], totals[4]):
        raise NotYet("the total does not depend on the loss.")
    if float(totals[4].min()) < -0.1:
        end = "-40" if totals[4][0] < totals[4][-1] else "40"
        raise NotYet(
            f"even for a loss of 4 the total falls to {float(totals[4].min()):.0f} at p = {end}; "
            "the weight must shrink where the other term grows, so look at the sign inside exp."
        )
    if float(totals[0].min()) < -0.1:
        raise NotYet(
            f"for a loss of 0 the total falls to {float(totals[0].min()):.0f} at p = -40, and a "
            "hinge loss does reach 0; replace the term in p by one that has a floor."
        )
    _check_weights(p, totals[1.0] - totals[0.0], totals)


def _check_weights(p: Tensor, weights: Tensor, totals: dict[float, Tensor]) -> None:
    if torch.allclose(weights, weights[0].expand_as(weights)):
        raise NotYet("the weight of the loss is the same for every p; nothing is learned.")
    if float(weights.max()) > 1e6:
        raise NotYet(
            f"the weight of the loss reaches {float(weights.max()):.0e} at p = -40, and a loss of "
            "0 draws p there; add a constant where the weight divides, so that it has a ceiling."
        )
    best = {loss: int(total.argmin()) for loss, total in totals.items()}
    if best[4.0] == len(p) - 1:
        raise NotYet("a large p costs nothing, so the weight vanishes; add a term that grows.")
    if best[4.0] <= best[1.0]:
        raise NotYet("a larger loss should settle at a larger p, which is a smaller weight.")


def _tensor(given: Any) -> Tensor:
    if given is None or given is ...:
        raise NotYet("the function returns nothing; end it with a return.")
    if not isinstance(given, Tensor):
        raise NotYet(f"the function returns a {type(given).__name__}, not a tensor.")
    return given.detach()
