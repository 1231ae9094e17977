"""The graded assignments: self-checks, marks by both graders, and where solutions are not."""

from __future__ import annotations

import ast
import html
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from itertools import combinations
from pathlib import Path
from typing import Any

import assignments as tool
import pytest

from agman.course.assignments import FOLDER, asked_about, check, read_recorded, to_recorded
from agman.course.exercises import Exercise, Recorded, agree, problem
from agman.course.grading import grade, read_assignment
from agman.course.student import Limits
from tests.assignments import alternatives
from tests.assignments.submissions import (
    NAMES,
    ROOT,
    SOURCES,
    blank,
    is_solution,
    read,
    source,
    with_functions,
    write,
)


def exercises(name: str) -> dict[str, Exercise]:
    spec = importlib.util.spec_from_file_location(f"of_{name}", SOURCES / name / "mistakes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Exercise] = module.exercises(tool.solution(name))
    return found


EXERCISES = {(name, f): e for name in NAMES for f, e in exercises(name).items()}
RECORDED = {
    (name, f): e for name in NAMES for f, e in read_recorded(FOLDER / f"{name}.json").items()
}
each_function = pytest.mark.parametrize("key", EXERCISES, ids=lambda key: f"{key[0]}-{key[1]}")
each_assignment = pytest.mark.parametrize("name", NAMES)


# --- self-checks ----------------------------------------------------------------------------------


@each_assignment
def test_every_function_has_a_check_and_a_name_of_its_own(name: str) -> None:
    functions = read_assignment(source(name)).functions
    assert sorted(functions) == sorted(f for n, f in RECORDED if n == name)
    assert len({f for _, f in RECORDED}) == len(RECORDED)
    text = json.dumps(read(source(name)))
    assert all(f"check({function})" in text for function in functions)


@each_function
def test_the_recorded_answers_are_those_of_today(key: tuple[str, str]) -> None:
    """Up to what another machine rounds otherwise; `make assignments` records them."""
    fresh = json.loads(json.dumps(to_recorded({key[1]: EXERCISES[key]})))
    temporary = Recorded(**vars(RECORDED[key]))
    assert agree(temporary.right, EXERCISES[key].right_answers())
    sentences = [sentence for sentence, _ in fresh[key[1]]["wrong"]]
    assert sentences == [sentence for sentence, _ in temporary.wrong]
    for (_, then), (_, now) in zip(temporary.wrong, EXERCISES[key].wrong_answers(), strict=True):
        assert agree(then, now)
    assert list(temporary.hints) == fresh[key[1]]["hints"]


@each_function
def test_it_passes_the_solution_and_a_different_right_answer(key: tuple[str, str]) -> None:
    exercise = EXERCISES[key]
    assert problem(exercise.right, RECORDED[key]) is None
    other = asked_about(key[1])(getattr(alternatives, key[1]))
    assert problem(other, RECORDED[key]) is None


@each_function
def test_it_names_each_typical_mistake(key: tuple[str, str]) -> None:
    mistakes = EXERCISES[key].mistakes
    assert len({sentence for sentence, _ in mistakes}) >= 4
    for sentence, wrong in mistakes:
        assert problem(wrong, RECORDED[key]) == sentence


@each_function
def test_its_cases_tell_all_mistakes_apart(key: tuple[str, str]) -> None:
    answers = [("right", RECORDED[key].right), *RECORDED[key].wrong]
    for (one, some), (other, others) in combinations(answers, 2):
        assert one == other or not agree(some, others), (one, other)


@each_function
def test_it_leaves_nobody_without_a_next_step(
    key: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def stub(*args: Any) -> None:
        raise NotImplementedError

    stub.__name__ = key[1]
    check(stub, hint=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Not yet: the function is still empty; replace its last line by your own."
    assert [line[:7] for line in lines[1:]] == ["Hint 1:", "Hint 2:", "Hint 3:"]


@pytest.mark.parametrize("thing", [None, 3, lambda x: x], ids=["nothing", "number", "no name"])
def test_a_check_of_something_else_says_what_it_wants(
    thing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(thing)
    assert "give check() the function itself" in capsys.readouterr().out


# --- marks ----------------------------------------------------------------------------------------


def marks(name: str, notebook: dict[str, Any], folder: Path) -> float:
    path = write(folder / "x.ipynb", notebook)
    return grade(path, read_assignment(source(name)), "x", Limits(seconds=20.0)).points


@each_assignment
def test_agman_grade_gives_all_nothing_and_a_part(name: str, tmp_path: Path) -> None:
    assignment = read_assignment(source(name))
    full = sum(test.points for test in assignment.tests)
    written = sum(each.points for each in assignment.written)
    assert full + written == 20
    assert marks(name, read(source(name)), tmp_path) == full
    assert marks(name, blank(name), tmp_path) == 0
    last = assignment.functions[-1]
    empty = {last: f"def {last}(*given, **named):\n    raise NotImplementedError()"}
    assert 0 < marks(name, with_functions(name, empty), tmp_path) < full


@each_function
def test_no_named_mistake_gets_full_marks(key: tuple[str, str], tmp_path: Path) -> None:
    """A hidden test that lets a typical mistake pass would be worth little."""
    name, function = key
    assignment = read_assignment(source(name))
    solved = tool.solution(name)
    asking = [test for test in assignment.tests if re.search(rf"\b{function}\(", test.code)]
    assert asking
    for sentence, wrong in EXERCISES[key].mistakes:
        space = {
            **{f: solved[f] for f in assignment.functions},
            function: getattr(wrong, "__wrapped__", wrong),
        }
        assert not all(passes(test.code, dict(space)) for test in asking), sentence


def passes(code: str, space: dict[str, Any]) -> bool:
    try:
        exec(code, space)
    except Exception:
        return False
    return True


@each_function
def test_the_different_right_answer_gets_full_marks(key: tuple[str, str]) -> None:
    name, function = key
    assignment = read_assignment(source(name))
    space = {**tool.solution(name), function: getattr(alternatives, function)}
    for test in assignment.tests:
        exec(test.code, dict(space))


def test_nbgrader_makes_and_grades_an_assignment(tmp_path: Path) -> None:
    """One of the five, as a teacher does; `make assignments` does it with all of them."""
    pytest.importorskip("nbgrader", reason="nbgrader is not installed (extra `class`)")
    tool.release(["attention"], tmp_path)
    made = read(tmp_path / "release" / "attention" / "attention.ipynb")
    assert sources(made) == sources(blank("attention"))
    points = tool.autograde(["attention"], tmp_path)
    assert points == {"attention": {"solution": 16, "blank": 0}}
    pages = sorted(tmp_path.glob("feedback/*/attention/attention.html"))
    assert [page.parts[-3] for page in pages] == ["blank", "solution"]


# --- the students' editions -----------------------------------------------------------------------


def sources(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"]]


@each_assignment
def test_the_students_edition_is_the_source_without_solutions(name: str) -> None:
    edition, original = blank(name), read(source(name))
    assert len(edition["cells"]) == len(original["cells"])
    for given, cell in zip(edition["cells"], original["cells"], strict=True):
        text, full = "".join(given["source"]), "".join(cell["source"])
        for secret in secrets_in(full):
            assert secret not in text
        outside = re.sub(r"[ \t]*### BEGIN .*?### END [A-Z ]*\n?", "", full, flags=re.DOTALL)
        left = text.replace("# YOUR CODE HERE", "").replace("raise NotImplementedError()", "")
        assert left.replace("YOUR ANSWER HERE", "").split() == outside.split()


def secrets_in(text: str) -> list[str]:
    """Lines that only a teacher may see, if they are long enough to tell."""
    inside = re.findall(r"### BEGIN .*?\n(.*?)### END ", text, re.DOTALL)
    lines = [line.strip() for part in inside for line in part.split("\n")]
    return [line for line in lines if len(line) > 25 and not line.startswith(("import", "from"))]


@each_assignment
def test_the_students_edition_runs_nothing_that_colab_lacks(name: str) -> None:
    allowed = {"torch", "numpy", "matplotlib", "agman", "IPython", "ipywidgets"}
    for cell in blank(name)["cells"]:
        if cell["cell_type"] == "code":
            for part in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(part, ast.Import):
                    modules = [alias.name for alias in part.names]
                elif isinstance(part, ast.ImportFrom):
                    modules = [part.module or ""]
                else:
                    continue
                roots = {module.split(".")[0] for module in modules}
                assert roots <= allowed | set(sys.stdlib_module_names)


@each_assignment
def test_each_states_what_a_teacher_plans_with(name: str) -> None:
    first = sources(read(source(name)))[0]
    for word in ("**Objectives**", "**Before you start**", "**Time**", "**Points**"):
        assert word in first
    minutes = re.search(r"\*\*Time\*\*: (\d+) minutes", first)
    assert minutes
    assert 60 <= int(minutes[1]) <= 120


# --- where solutions must not be ------------------------------------------------------------------


def all_secrets() -> set[str]:
    """Lines of solutions and hidden tests that the package and the chapters do not have anyway."""
    places = (*ROOT.glob("agman/**/*.py"), *ROOT.glob("book/*.ipynb"), *ROOT.glob("book/*.md"))
    known = "\n".join(path.read_text(encoding="utf-8").replace('\\"', '"') for path in places)
    found = {
        secret
        for name in NAMES
        for cell in read(source(name))["cells"]
        for secret in secrets_in("".join(cell["source"]))
    }
    return {secret for secret in found if secret not in known}


def test_there_are_secrets_to_look_for() -> None:
    assert len(all_secrets()) > 50
    assert any(is_solution(cell) for cell in read(source("attention"))["cells"])


def test_no_solution_is_in_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        texts = [archive.read(n).decode() for n in names if n.endswith((".py", ".json", ".ipynb"))]
    assert any(name.startswith("agman/course/recorded/") for name in names)
    assert not any("mistakes" in name or "assignments/" in name for name in names)
    whole = "\n".join(texts)
    assert not [secret for secret in all_secrets() if secret in whole]


def test_no_solution_is_on_the_site() -> None:
    site = ROOT / "_build" / "html"
    if not (site / "index.html").is_file():
        pytest.skip("the book is not built: run `make book`")
    texts = [
        path.read_text(encoding="utf-8", errors="ignore")
        for path in site.rglob("*")
        if path.suffix in (".html", ".ipynb", ".txt", ".md", ".json", ".js") and path.is_file()
    ]
    whole = re.sub(r"<[^>]+>", "", html.unescape("\n".join(texts)))
    assert "attention" in whole
    assert not [secret for secret in all_secrets() if secret in whole]
