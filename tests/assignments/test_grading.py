"""`agman grade`: right marks for right, half-done, broken and hostile submissions."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agman.cli import main
from agman.course.grading import Grade, grade, grade_folder, read_assignment
from agman.course.plain import from_plain, to_plain
from agman.course.student import (
    Failure,
    Limits,
    StudentProcess,
    _answer,
    _guard,
    functions_of,
)
from agman.errors import InputError
from tests.assignments.submissions import blank, plus, read, source, with_functions, write

NAME = "attention"
ASSIGNMENT = read_assignment(source(NAME))
FULL = sum(test.points for test in ASSIGNMENT.tests)
FAST = Limits(seconds=3.0, total_seconds=20.0, closed=(source(NAME).parent,))


def graded(tmp_path: Path, notebook: dict[str, Any]) -> Grade:
    return grade(write(tmp_path / "anna.ipynb", notebook), ASSIGNMENT, "anna", FAST)


def points(given: Grade) -> dict[str, float]:
    return {result.name: result.points for result in given.results}


# --- honest submissions ---------------------------------------------------------------------------


def test_the_solution_gets_every_point(tmp_path: Path) -> None:
    given = graded(tmp_path, read(source(NAME)))
    assert given.points == FULL == 16
    assert not given.problem
    assert {result.message for result in given.results} == {"passed"}


def test_the_blank_edition_gets_none(tmp_path: Path) -> None:
    given = graded(tmp_path, blank(NAME))
    assert given.points == 0
    assert all("it is still empty" in result.message for result in given.results)


def test_half_of_the_work_gets_half_of_the_points(tmp_path: Path) -> None:
    empty = {name: f"def {name}(*a):\n    raise NotImplementedError()" for name in
             ("plain_gate", "channel_gate", "answer")}  # fmt: skip
    got = points(graded(tmp_path, with_functions(NAME, empty)))
    assert got["map-values"] == 2
    assert got["attended-apart"] == 1
    assert sum(got.values()) == 7


def test_a_mistake_costs_its_own_points_only(tmp_path: Path) -> None:
    unguarded = "def answer(v, m):\n    x = m.clamp(min=0) * v\n    return x / x.norm()"
    given = graded(tmp_path, with_functions(NAME, {"answer": unguarded}))
    assert given.points == FULL - 1
    assert points(given)["answer-dead"] == 0


def test_helpers_constants_and_magics_are_understood(tmp_path: Path) -> None:
    notebook = with_functions(
        NAME, {"answer": "def answer(v, m):\n    return scaled(v * m.clamp(min=SMALLEST))"}
    )
    helper = (
        "%matplotlib inline\n!ls\nSMALLEST = 0.0\nshown = print('training')\n"
        "scaled = lambda x: x / x.norm().clamp(min=1e-12)"
    )
    assert graded(tmp_path, plus(notebook, helper, at=0)).points == FULL


def test_a_variable_of_another_cell_is_explained(tmp_path: Path) -> None:
    notebook = with_functions(NAME, {"answer": "def answer(v, m):\n    return v * scale"})
    given = graded(tmp_path, plus(notebook, "scale = float('1')"))
    (said,) = {result.message for result in given.results if result.name.startswith("answer")}
    assert "name 'scale' is not defined; a function may use what is imported" in said


# --- broken and hostile ones ----------------------------------------------------------------------

LOOP = "def attention_map(x, q):\n    while True:\n        pass"
HOSTILE: dict[str, tuple[dict[str, Any], float]] = {
    "endless loop": (with_functions(NAME, {"attention_map": LOOP}), 12),
    "endless loop outside of functions": (plus(read(source(NAME)), "while True: pass", at=0), 16),
    "sys.exit outside of functions": (plus(read(source(NAME)), "import sys; sys.exit()", 0), 16),
    "sys.exit": (
        with_functions(NAME, {"attended": "def attended(x, a):\n    import sys\n    sys.exit(0)"}),
        13,
    ),
    "ends the process": (
        with_functions(NAME, {"attended": "def attended(x, a):\n    import os\n    os._exit(0)"}),
        13,
    ),
    "too much memory": (
        with_functions(
            NAME, {"answer": "import torch\ndef answer(v, m):\n    return torch.zeros(10**10)"}
        ),
        14,
    ),
    "recursion": (
        with_functions(NAME, {"answer": "def answer(v, m):\n    return answer(v, m)"}),
        14,
    ),
    "renamed": (
        with_functions(NAME, {"answer": "def my_answer(v, m):\n    return v"}),
        14,
    ),
    "no python": (with_functions(NAME, {"answer": "def answer(v, m:\n    return v"}), 14),
    "prints the expected text": (
        with_functions(NAME, {"answer": "def answer(v, m):\n    print('passed', 'Passed.')"}),
        14,
    ),
    "equals everything": (
        with_functions(
            NAME,
            {
                "answer": "class Same:\n    def __eq__(self, other): return True\n"
                "def answer(v, m):\n    return Same()"
            },
        ),
        14,
    ),
    "patches what tests use": (
        plus(
            with_functions(NAME, {"answer": "def answer(v, m):\n    return v"}),
            "import torch, agman.course.assignments, agman.course.grading, agman.course.plain\n"
            "def __getattr__(name): return lambda *a: True\n"
            "class patched:\n"
            "    torch.testing.assert_close = torch.allclose = lambda *a, **k: True\n"
            "    agman.course.assignments.check = agman.course.grading.grade = print\n"
            "    agman.course.plain.to_plain = lambda value: {'tensor': [0.6]}\n",
            at=0,
        ),
        14,
    ),
    "reads the tests": (
        with_functions(
            NAME,
            {"answer": f"def answer(v, m):\n    return len(open({str(source(NAME))!r}).read())"},
        ),
        14,
    ),
    "writes elsewhere": (
        with_functions(
            NAME, {"answer": "def answer(v, m):\n    open('/tmp/agman-was-here', 'w').write('x')"}
        ),
        14,
    ),
    "asks the network": (
        with_functions(
            NAME,
            {
                "answer": "import socket\ndef answer(v, m):\n"
                "    socket.create_connection(('127.0.0.1', 9), 1)"
            },
        ),
        14,
    ),
    "starts a program": (
        with_functions(
            NAME, {"answer": "import os\ndef answer(v, m):\n    return os.system('echo 1')"}
        ),
        14,
    ),
    "deleted cells": ({**read(source(NAME)), "cells": read(source(NAME))["cells"][:6]}, 4),
    "nothing left": ({**read(source(NAME)), "cells": []}, 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_submission_gets_more_than_it_earned(name: str, tmp_path: Path) -> None:
    notebook, earned = HOSTILE[name]
    started = time.monotonic()
    given = graded(tmp_path, notebook)
    assert given.points == earned, [result.message for result in given.results]
    assert time.monotonic() - started < 60
    assert not Path("/tmp/agman-was-here").exists()
    for result in given.results:
        assert (result.message == "passed") == (result.points == result.out_of)
        assert "Traceback" not in result.message


def test_every_loss_is_explained(tmp_path: Path) -> None:
    said = {
        name: graded(tmp_path, notebook).results[-1].message
        for name, (notebook, _) in HOSTILE.items()
        if name in ("renamed", "no python", "recursion", "reads the tests", "asks the network")
    }
    assert "there is no function `answer`: was it renamed" in said["renamed"]
    assert "there is no function `answer`" in said["no python"]
    assert "RecursionError" in said["recursion"]
    assert "closed to submissions" in said["reads the tests"]
    assert "not allowed here" in said["asks the network"]


def test_a_loop_stops_one_function_and_not_the_next() -> None:
    code = ["def loop():\n    while True: pass", "def two():\n    return 2"]
    with StudentProcess(functions_of(code), Limits(seconds=1.0)) as process:
        with pytest.raises(Failure, match="stopped after 1 seconds: a loop without an end"):
            process.call("loop", (), {})
        assert process.call("two", (), {}) == 2


def test_all_calls_together_have_a_limit() -> None:
    code = ["import time\ndef slow():\n    time.sleep(0.4)\n    return 1"]
    limits = Limits(seconds=2.0, total_seconds=1.0)
    with StudentProcess(functions_of(code), limits) as process:
        for _ in range(3):
            process.call("slow", (), {})
        with pytest.raises(Failure, match="all calls together took over 1 seconds"):
            process.call("slow", (), {})


def test_nothing_is_left_of_a_process() -> None:
    process = StudentProcess(functions_of(["import os\ndef where():\n    return os.getcwd()"]))
    folder = Path(process.call("where", (), {}))
    pid = process._running[0].pid  # type: ignore[index]
    assert folder.is_dir()
    process.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_values_cross_over_unchanged() -> None:
    given = [1, 2.5, True, None, "x", (1, [2.0]), {"a": torch.tensor([[1.5, float("nan")]])},
             torch.zeros(2, 0), torch.tensor([True])]  # fmt: skip
    with StudentProcess(["def same(*args, **named):\n    return args, named"]) as process:
        back, named = process.call("same", given, {"k": torch.arange(3)})
    assert list(back[:6]) == given[:6]
    for one, other in ((back[6]["a"], given[6]["a"]), (back[7], given[7]), (back[8], given[8])):
        torch.testing.assert_close(one, other, equal_nan=True)
    assert named["k"].tolist() == [0, 1, 2]


def test_numbers_of_any_kind_cross_over_and_nothing_else_does() -> None:
    half = torch.tensor([0.5, -1.0], dtype=torch.float16)
    for given, kind in (
        (half, torch.float64),
        (torch.tensor([3], dtype=torch.int8), torch.int64),
        (np.float32(0.5), torch.float32),
    ):
        back = from_plain(json.loads(json.dumps(to_plain(given))))
        assert back.dtype == kind
        assert torch.equal(back, torch.as_tensor(given).to(kind))
    for other in ({1: "a number as a name"}, {"a": {1, 2}}, object()):
        with pytest.raises(TypeError):
            to_plain(other)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"tuple": 3},
        {"dict": [1]},
        {"tensor": [1, 2], "kind": "float32", "shape": [3]},
        {"tensor": [1e999], "kind": "int64", "shape": [1]},
        {"tensor": [1], "kind": "object", "shape": [1]},
    ],
)
def test_what_did_not_come_from_to_plain_is_no_value(plain: Any) -> None:
    with pytest.raises(ValueError, match="not values written by to_plain"):
        from_plain(plain)


def test_a_forged_answer_is_a_failure() -> None:
    code = "import agman.course.student as s\nclass Forged:\n    s.to_plain = lambda v: {'dict': 3}"
    process = StudentProcess(functions_of([code, "def one():\n    return 1"]))
    with process, pytest.raises(Failure, match="`one` answered with something that cannot be read"):
        process.call("one", (), {})


# The hook and the answers, in this process: where they run, nothing can be watched from outside.


@pytest.mark.parametrize(
    ("event", "details", "allowed"),
    [
        ("open", ("{own}/notes.txt", "w", os.O_WRONLY | os.O_CREAT), True),
        ("open", ("{own}/../other.txt", "w", os.O_WRONLY | os.O_CREAT), False),
        ("open", ("{own}/link", "w", os.O_WRONLY), False),
        ("open", ("/dev/null", "w", os.O_WRONLY), True),
        ("open", ("{other}/free.txt", "r", os.O_RDONLY), True),
        ("open", ("{other}/free.txt", "r+", os.O_RDWR), False),
        ("open", ("{closed}/tests.ipynb", "r", os.O_RDONLY), False),
        ("open", ("{other}/../closed/tests.ipynb", "r", None), False),
        ("open", (b"{closed}/tests.ipynb", "rb", os.O_RDONLY), False),
        ("open", (3, "w", os.O_WRONLY), True),
        ("os.listdir", ("{closed}",), False),
        ("os.scandir", ("{other}",), True),
        ("os.remove", ("{own}/notes.txt", -1), True),
        ("os.remove", ("{other}/free.txt", -1), False),
        ("os.rename", ("{own}/notes.txt", "{other}/x", -1, -1), False),
        ("shutil.rmtree", ("{other}", None), False),
        ("socket.connect", (None, ("127.0.0.1", 9)), False),
        ("subprocess.Popen", ("ls", ["ls"], None, None), False),
        ("os.fork", (), False),
        ("os.kill", (1, 9), False),
        ("ctypes.dlopen", ("libc.so.6",), False),
        ("import", ("json", None, None, None, None), True),
    ],
)
def test_what_a_submission_may_touch(
    event: str, details: tuple[Any, ...], allowed: bool, tmp_path: Path
) -> None:
    own, other, closed = (tmp_path / name for name in ("own", "other", "closed"))
    for folder in (own, other, closed):
        folder.mkdir()
    (own / "link").symlink_to(other / "free.txt")
    hook = _guard(Limits(closed=(closed,)), own)

    def placed(part: Any) -> Any:
        if isinstance(part, bytes):
            return placed(part.decode()).encode()
        return part.format(own=own, other=other, closed=closed) if isinstance(part, str) else part

    with contextlib.nullcontext() if allowed else pytest.raises(PermissionError, match="allowed"):
        hook(event, tuple(placed(part) for part in details))


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def _mute() -> None:
    raise _Mute


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: 1 / 0, "`f` stopped with ZeroDivisionError: division by zero"),
        (lambda: absent, "`f` stopped with NameError: .*; a function may use what is imp"),  # type: ignore[name-defined]  # noqa: F821
        (_mute, "`f` stopped with _Mute$"),
        (lambda: os._exit, "`f` returns a builtin_function_or_method; it should return numbers"),
        (lambda: sys.exit("bye"), "`f` stopped with SystemExit: bye"),
        (None, "there is no function `f`: .*; before it, the notebook stopped with X"),
    ],
)
def test_an_answer_says_what_went_wrong(function: Callable[..., Any], said: str) -> None:
    request = {"name": "f", "args": to_plain([]), "named": to_plain({})}
    assert re.match(said, _answer(request, {"f": function}, ["X"])["problem"])


def test_an_answer_is_the_value() -> None:
    request = {"name": "f", "args": to_plain([torch.ones(2)]), "named": to_plain({"k": 3})}
    answer = _answer(request, {"f": lambda x, k: (k * x, "yes")}, [])
    value, word = from_plain(json.loads(json.dumps(answer))["value"])
    assert (value.tolist(), word) == ([3, 3], "yes")


# --- a folder -------------------------------------------------------------------------------------


def handed_in(folder: Path) -> Path:
    write(folder / "anna.ipynb", read(source(NAME)))
    write(folder / "ben" / "whatever (1).ipynb", blank(NAME))
    write(folder / "carla" / "attention.ipynb", read(source(NAME)))
    write(folder / "carla" / "notes.ipynb", blank(NAME))
    write(folder / "dora" / "a.ipynb", blank(NAME))
    write(folder / "dora" / "b.ipynb", blank(NAME))
    (folder / "emil.ipynb").write_text("{", encoding="utf-8")
    write(folder / "=cmd()<script>alert(1)<!--.ipynb", blank(NAME))
    write(folder / ".ipynb_checkpoints" / "anna.ipynb", blank(NAME))
    return folder


def rows(table: Path) -> dict[str, dict[str, str]]:
    return {row["student"]: row for row in csv.DictReader(table.open(encoding="utf-8"))}


def test_a_folder_becomes_a_table_and_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = handed_in(tmp_path / "in"), tmp_path / "out" / "grades.csv"
    words = ["grade", str(folder), "--assignment", str(source(NAME)), "--out", str(table)]
    assert main([*words, "--seconds", "5", "--quiet"]) == 0
    found = rows(table)
    got = {student: row["points"] for student, row in found.items()}
    evil = "=cmd()<script>alert(1)<!--"
    assert got == {
        "anna": "16", "ben": "0", "carla": "16", "dora": "0", "emil": "0", f"'{evil}": "0"
    }  # fmt: skip
    assert "several notebooks (a.ipynb, b.ipynb); keep one of them" in found["dora"]["problem"]
    assert "emil.ipynb is not a notebook that can be read" in found["emil"]["problem"]
    assert found["anna"]["out_of"] == "16"
    assert found["anna"]["still_to_read"] == "4"
    assert found["anna"]["map-values"] == "2"
    page = (tmp_path / "out" / "grades_feedback" / f"{evil}.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    said = capsys.readouterr().out
    assert "6 submissions" in said
    assert "dora: several notebooks" in said


def test_grading_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, table = tmp_path / "in", tmp_path / "grades.csv"
    for student in ("anna", "ben", "carla"):
        write(folder / f"{student}.ipynb", read(source(NAME)))
    from agman.course import grading

    asked: list[str] = []
    real: Callable[..., Grade] = grading.grade

    def counting(notebook: Path, assignment: Any, student: str, limits: Any) -> Grade:
        asked.append(student)
        if student == "carla" and len(asked) < 4:
            raise KeyboardInterrupt
        return real(notebook, assignment, student, limits)

    monkeypatch.setattr(grading, "grade", counting)
    with pytest.raises(KeyboardInterrupt):
        grade_folder(folder, source(NAME), table, FAST, progress=False)
    grade_folder(folder, source(NAME), table, FAST, progress=False)
    assert asked == ["anna", "ben", "carla", "carla"]
    write(folder / "ben.ipynb", blank(NAME))
    (tmp_path / "grades_feedback" / "carla.json").write_text("[]", encoding="utf-8")
    grade_folder(folder, source(NAME), table, FAST, progress=False)
    assert asked[4:] == ["ben", "carla"]
    assert [row["points"] for row in rows(table).values()] == ["16", "0", "16"]


def test_grades_are_the_same_every_time(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "anna.ipynb", read(source(NAME)))
    write(folder / "ben.ipynb", blank(NAME))
    texts = []
    for out in ("one.csv", "two.csv"):
        grade_folder(folder, source(NAME), tmp_path / out, FAST, progress=False)
        texts.append((tmp_path / out).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


def test_another_student_is_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With folders named as one does, relative to where one stands."""
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "in" / "anna.ipynb"
    steal = f"def answer(v, m):\n    return len(open({str(target)!r}).read())"
    write(Path("in/anna.ipynb"), read(source(NAME)))
    write(Path("in/ben.ipynb"), with_functions(NAME, {"answer": steal}))
    grades = grade_folder("in", source(NAME), "grades.csv", FAST, progress=False)
    assert "closed to submissions" in grades[1].results[-1].message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p / "none", "there is no folder"),
        (lambda p: p, "holds no notebooks; students hand in files that end in .ipynb"),
    ],
)
def test_nothing_to_grade_is_said(make: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        grade_folder(make(tmp_path), source(NAME), tmp_path / "g.csv", progress=False)


def test_the_students_edition_cannot_grade() -> None:
    edition = source(NAME).parents[1] / "students" / f"{NAME}.ipynb"
    with pytest.raises(InputError, match=r"no hidden tests .* name the assignment's source"):
        read_assignment(edition)


def test_a_grade_is_kept_as_plain_json(tmp_path: Path) -> None:
    write(tmp_path / "in" / "ben.ipynb", blank(NAME))
    grade_folder(tmp_path / "in", source(NAME), tmp_path / "g.csv", FAST, progress=False)
    record = json.loads((tmp_path / "g_feedback" / "ben.json").read_text(encoding="utf-8"))
    assert record["grade"]["student"] == "ben"
