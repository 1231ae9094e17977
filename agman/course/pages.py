"""Parts of a page: the package's own source, and questions that answer back."""

from __future__ import annotations

import html
import inspect
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agman.errors import InputError

if TYPE_CHECKING:
    from IPython.display import HTML, Code


def show(thing: Any) -> Code:
    """The source of a class or function as it is in the package, so page and package agree."""
    from IPython.display import Code

    return Code(textwrap.dedent(inspect.getsource(thing)).rstrip(), language="python")


def quiz(question: str, answers: Mapping[str, tuple[bool, str]]) -> HTML:
    """A question whose answers unfold into feedback; plain HTML that needs no kernel.

    Args:
        question: what is asked.
        answers: each answer with whether it is right, and why.

    Raises:
        InputError: no answer is right, or every one is.

    >>> quiz("2 + 2?", {"4": (True, "Two pairs."), "5": (False, "One too many.")})
    <IPython.core.display.HTML object>
    """
    from IPython.display import HTML

    right = [correct for correct, _ in answers.values()]
    if all(right) or not any(right):
        raise InputError(f"The quiz {question!r} needs right and wrong answers.")
    rows = [f"<p><strong>{html.escape(question)}</strong></p>"]
    for answer, (correct, why) in answers.items():
        verdict = "Right." if correct else "Not quite."
        rows.append(
            f'<details class="quiz"><summary>{html.escape(answer)}</summary>'
            f"<p>{verdict} {html.escape(why)}</p></details>"
        )
    return HTML("\n".join(rows))
