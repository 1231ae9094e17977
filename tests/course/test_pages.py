"""Parts of a page: the package's own source, and questions that answer back."""

from __future__ import annotations

import inspect

import pytest

from agman.course.pages import quiz, show
from agman.errors import InputError
from agman.losses import triplet_loss


def test_a_page_shows_the_source_of_the_package() -> None:
    assert show(triplet_loss).data == inspect.getsource(triplet_loss).rstrip()
    assert show(Nested.inner).data.startswith("def inner(self)"), "a method begins at the margin"


class Nested:
    def inner(self) -> int:
        return 1


def test_every_answer_unfolds_into_its_reason() -> None:
    page = quiz("1 < 2?", {"<b>yes</b>": (True, "Two & more."), "no": (False, "Count.")}).data
    assert "<strong>1 &lt; 2?</strong>" in page
    assert "<summary>&lt;b&gt;yes&lt;/b&gt;</summary><p>Right. Two &amp; more.</p>" in page
    assert "<summary>no</summary><p>Not quite. Count.</p>" in page


@pytest.mark.parametrize("right", [True, False])
def test_a_quiz_has_right_and_wrong_answers(right: bool) -> None:
    with pytest.raises(InputError, match=r"The quiz '2 . 2.' needs right and wrong answers"):
        quiz("2 + 2?", {"4": (right, ""), "four": (right, "")})
