"""What the book's pages use beside the package: its own source shown, quizzes, self-checks."""

from agman.course.pages import quiz, show

__all__ = ["quiz", "show"]
