"""Grade the functions in a folder of notebooks: `agman grade`, for teachers without nbgrader.

An assignment is its source notebook, in nbgrader's format: cells with points hold hidden tests, and
these call the student's functions by name. Here each such name stands for a function in another
process (`agman.course.student`), so the tests and the right answers never meet a student's code.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import html
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

import agman
from agman.course.student import Failure, Limits, StudentProcess, functions_of
from agman.errors import InputError
from agman.storage import write_text

__all__ = [
    "Assignment",
    "Grade",
    "Result",
    "Test",
    "Written",
    "feedback_folder",
    "grade",
    "grade_folder",
    "read_assignment",
]

_HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n(.*?)### END HIDDEN TESTS", re.DOTALL)


@dataclass(frozen=True)
class Test:
    """One cell of hidden tests: its name, points, what it asks in words, and its code."""

    name: str
    points: float
    title: str
    code: str


@dataclass(frozen=True)
class Written:
    """One question that a person reads: its name and points."""

    name: str
    points: float


@dataclass(frozen=True)
class Assignment:
    """What is graded.

    Args:
        name: of the notebook.
        functions: that students write.
        tests: that are run, in the order of the notebook.
        written: questions that a person reads.
        digest: of the file, to tell whether a grade is still good.
    """

    name: str
    functions: tuple[str, ...]
    tests: tuple[Test, ...]
    written: tuple[Written, ...]
    digest: str


@dataclass(frozen=True)
class Result:
    """What one test gave: points, of how many, and what to say to the student."""

    name: str
    title: str
    points: float
    out_of: float
    message: str


@dataclass(frozen=True)
class Grade:
    """One submission: results of all tests, its written answers, and what hindered grading."""

    student: str
    results: tuple[Result, ...]
    written: dict[str, str]
    problem: str = ""

    @property
    def points(self) -> float:
        """The sum over all tests; written answers are not in it."""
        return sum(result.points for result in self.results)


def read_assignment(path: str | Path) -> Assignment:
    """Read the source notebook of an assignment, the one with solutions and hidden tests.

    Raises:
        InputError: if it is no notebook, or has no hidden tests (as a student's edition has not).
    """
    path = Path(path)
    cells = _cells(path)
    tests, written, functions = [], [], []
    for cell in cells:
        about = cell.get("metadata", {}).get("nbgrader", {})
        source = _source(cell)
        if about.get("solution") and cell["cell_type"] == "code":
            parts = ast.parse(source).body
            functions += [part.name for part in parts if isinstance(part, ast.FunctionDef)]
        if about.get("grade") and about.get("solution"):
            written.append(Written(about["grade_id"], about["points"]))
        elif about.get("grade"):
            code = "".join(_HIDDEN.findall(source))
            title = source.split("\n", 1)[0].lstrip("# ")
            tests.append(Test(about["grade_id"], about["points"], title, code))
    if not tests or not all(test.code.strip() for test in tests):
        raise InputError(
            f"{path} holds no hidden tests to grade with; name the assignment's source notebook, "
            "which lies in book/assignments, not the student's edition"
        )
    digest = hashlib.sha256(path.read_bytes() + agman.__version__.encode()).hexdigest()
    return Assignment(path.stem, tuple(functions), tuple(tests), tuple(written), digest)


def grade(
    notebook: str | Path, assignment: Assignment, student: str, limits: Limits | None = None
) -> Grade:
    """Grade one submission; whatever is wrong with it is said in the grade.

    Args:
        notebook: a file of a student.
        assignment: what to ask of it.
        student: whose it is.
        limits: for the student's code.
    """
    try:
        cells = _cells(Path(notebook))
    except InputError as error:
        lost = tuple(_result(test, "the notebook could not be read") for test in assignment.tests)
        return Grade(student, lost, {}, str(error))
    code = [_source(cell) for cell in cells if cell["cell_type"] == "code"]
    with StudentProcess(functions_of(code), limits) as process:
        results = tuple(_tested(test, assignment.functions, process) for test in assignment.tests)
    ids = [cell.get("metadata", {}).get("nbgrader", {}).get("grade_id") for cell in cells]
    answers = dict(zip(ids, map(_source, cells)))
    written = {each.name: answers.get(each.name, "") for each in assignment.written}
    gone = [name for name, text in written.items() if not text]
    problem = f"cells deleted: {', '.join(gone)}" if gone else ""
    return Grade(student, results, written, problem)


def _tested(test: Test, functions: Sequence[str], process: StudentProcess) -> Result:
    space: dict[str, Any] = {name: _asked(name, process) for name in functions}
    try:
        exec(test.code, space)  # the teacher's own code; the student's is in another process
    except (Failure, AssertionError) as error:
        return _result(test, str(error).strip().split("\n")[0] or "the answer is not right")
    except Exception as error:  # a test that stumbled over an answer of the wrong kind
        said = str(error).strip().split("\n")[0][:200]
        return _result(test, f"the answer is of the wrong kind ({type(error).__name__}: {said})")
    return replace(_result(test, "passed"), points=test.points)


def _asked(name: str, process: StudentProcess) -> Callable[..., Any]:
    def ask(*args: Any, **named: Any) -> Any:
        return process.call(name, args, named)

    ask.__name__ = name
    return ask


def _result(test: Test, message: str) -> Result:
    return Result(test.name, test.title, 0.0, test.points, message)


# --- a folder of submissions ----------------------------------------------------------------------


def submissions(folder: str | Path, assignment: str) -> dict[str, list[Path]]:
    """Notebooks in a folder by student: `STUDENT.ipynb`, or any notebook below `STUDENT/`.

    Where a student's folder holds several, those named as the assignment are taken.

    Raises:
        InputError: if there is no such folder, or no notebook in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; put one notebook or folder a student there")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.ipynb")):
        inside = path.relative_to(folder)
        if not any(part.startswith(".") for part in inside.parts):
            student = path.stem if len(inside.parts) == 1 else inside.parts[0]
            found.setdefault(student, []).append(path)
    if not found:
        raise InputError(f"{folder} holds no notebooks; students hand in files that end in .ipynb")
    named = {
        student: [path for path in paths if assignment in path.stem]
        for student, paths in found.items()
    }
    return {student: named[student] or paths for student, paths in found.items()}


def grade_folder(
    folder: str | Path,
    assignment_file: str | Path,
    out: str | Path,
    limits: Limits | None = None,
    progress: bool = True,
) -> list[Grade]:
    """Grade all submissions of a folder, and write a table and a page of feedback for each.

    What was graded before, from the same file by the same tests, is not graded again.

    Args:
        folder: see `submissions`.
        assignment_file: the source notebook of the assignment.
        out: the CSV; feedback goes beside it, to `feedback_folder(out)`.
        limits: for the students' code.
        progress: whether to show a bar.

    Returns:
        The grades, by student's name.

    Raises:
        InputError: if there is nothing to grade, or nothing to grade with.
    """
    assignment = read_assignment(assignment_file)
    all_files = submissions(folder, assignment.name)
    feedback = feedback_folder(out)
    closed = (Path(assignment_file).parent, Path(folder), feedback)
    limits = replace(limits or Limits(), closed=tuple(path.resolve() for path in closed))
    grades = []
    bar = tqdm(all_files.items(), desc="grading", unit="submission", disable=not progress)
    for student, files in bar:
        given = _graded_or_kept(student, files, assignment, feedback / f"{student}.json", limits)
        write_text(feedback / f"{student}.html", _page(given, assignment))
        grades.append(given)
    write_text(out, _table(grades, assignment))
    return grades


def feedback_folder(out: str | Path) -> Path:
    """Where the pages go: `grades_feedback` for a table `grades.csv`."""
    return Path(out).with_name(f"{Path(out).stem}_feedback")


def _graded_or_kept(
    student: str, files: Sequence[Path], assignment: Assignment, kept: Path, limits: Limits
) -> Grade:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    key = f"{assignment.digest} {digest}"
    known = _kept(kept, key)
    if known is not None:
        return known
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        lost = tuple(_result(test, "it is not clear what to grade") for test in assignment.tests)
        given = Grade(student, lost, {}, f"several notebooks ({names}); keep one of them")
    else:
        given = grade(files[0], assignment, student, limits)
    write_text(kept, json.dumps({"key": key, "grade": asdict(given)}, indent=1))
    return given


def _kept(path: Path, key: str) -> Grade | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        given = record["grade"]
        return Grade(**{**given, "results": tuple(Result(**each) for each in given["results"])})
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not ours
        return None


def _table(grades: Sequence[Grade], assignment: Assignment) -> str:
    """One row a student, for a spreadsheet or a learning platform."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    out_of = sum(test.points for test in assignment.tests)
    to_read = sum(each.points for each in assignment.written)
    names = [test.name for test in assignment.tests]
    writer.writerow(["student", "points", "out_of", "still_to_read", *names, "problem"])
    for given in grades:
        points = [_number(result.points) for result in given.results]
        row = [given.student, _number(given.points), _number(out_of), _number(to_read)]
        writer.writerow([_harmless(cell) for cell in (*row, *points, given.problem)])
    return text.getvalue()


def _number(points: float) -> str:
    return f"{points:g}"


def _harmless(cell: str) -> str:
    """A name such as `=cmd()` is no formula for a spreadsheet."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: auto; padding: 2rem 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .4rem; border-bottom: 1px solid #999; vertical-align: top }}
pre {{ white-space: pre-wrap; border: 1px solid #999; padding: .5rem }}
</style></head><body>
<h1>{title}</h1>
<p><strong>{points} of {out_of} points</strong> from the tests.{to_read}</p>
{problem}<table>
<thead><tr><th>points</th><th>what was tested</th><th>what came of it</th></tr></thead>
<tbody>
{rows}
</tbody></table>
{written}</body></html>
"""


def _page(given: Grade, assignment: Assignment) -> str:
    safe = html.escape
    rows = "\n".join(
        f"<tr><td>{result.points:g} of {result.out_of:g}</td><td>{safe(result.title)}</td>"
        f"<td>{safe(result.message)}</td></tr>"
        for result in given.results
    )
    reading = sum(each.points for each in assignment.written)
    return _PAGE.format(
        title=safe(f"{assignment.name}: {given.student}"),
        points=_number(given.points),
        out_of=_number(sum(test.points for test in assignment.tests)),
        to_read=f" Up to {reading:g} more come from reading." if reading else "",
        problem=f"<p><strong>{safe(given.problem)}</strong></p>\n" if given.problem else "",
        rows=rows,
        written="".join(
            f"<h2>{safe(each.name)} (up to {each.points:g} points, read by a person)</h2>\n"
            f"<pre>{safe(given.written.get(each.name, ''))}</pre>\n"
            for each in assignment.written
        ),
    )


# --- notebooks ------------------------------------------------------------------------------------


def _cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook.

    Raises:
        InputError: if the file is none.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        if all(isinstance(_source(cell), str) and cell["cell_type"] for cell in cells):
            return list(cells)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise InputError(
        f"{path.name} is not a notebook that can be read; save it as .ipynb in Jupyter or Colab "
        "and hand it in again"
    )


def _source(cell: dict[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
