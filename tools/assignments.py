"""Make the graded assignments from their sources, and try them as a teacher would.

`make assignments` does, for each folder of `book/assignments`:

1. records the answers that its self-checks compare with (`agman/course/recorded/NAME.json`);
2. writes the students' edition (`book/assignments/students/NAME.ipynb`) with nbgrader;
3. has nbgrader grade the solution and a blank edition, and write feedback on both;
4. has `agman grade` grade them as well.

The solution has to get every point and the blank edition none, or the command fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from agman.course.assignments import to_recorded
from agman.course.grading import grade_folder, read_assignment
from agman.storage import write_text

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "book" / "assignments"
STUDENTS = SOURCES / "students"
RECORDED = ROOT / "agman" / "course" / "recorded"
WORK = ROOT / "_build" / "assignments"

NAMES = ("ranking", "triplets", "attention", "assembly", "research")  # as a course takes them

CONFIG = """c = get_config()
c.CourseDirectory.course_id = ""
c.ExecutePreprocessor.timeout = 300  # seconds for a cell: some train
"""


def solution(name: str) -> dict[str, Any]:
    """The functions of an assignment's source notebook, and what they use."""
    notebook = json.loads((SOURCES / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    space: dict[str, Any] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        marked = cell["metadata"].get("nbgrader", {}).get("solution")
        if cell["cell_type"] == "code" and (marked or source.startswith(("import ", "from "))):
            exec(source, space)
    return space


def recorded(name: str) -> str:
    """The self-checks of an assignment as the text of a JSON file."""
    place = SOURCES / name / "mistakes.py"
    spec = importlib.util.spec_from_file_location(f"mistakes_of_{name}", place)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return json.dumps(to_recorded(module.exercises(solution(name)))) + "\n"


def release(chosen: list[str], course: Path) -> None:
    """Let nbgrader write the students' editions into `course/release`."""
    shutil.rmtree(course, ignore_errors=True)
    course.mkdir(parents=True)
    write_text(course / "nbgrader_config.py", CONFIG)
    for name in chosen:
        (course / "source" / name).mkdir(parents=True)
        shutil.copy(SOURCES / name / f"{name}.ipynb", course / "source" / name)
        nbgrader(course, "generate_assignment", name, "--create", "--force")


def autograde(chosen: list[str], course: Path) -> dict[str, dict[str, float]]:
    """Let nbgrader grade the solution and the blank edition; points by assignment and student."""
    from nbgrader.api import Gradebook

    for name in chosen:
        for student, kind in (("solution", "source"), ("blank", "release")):
            place = course / "submitted" / student / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(course / kind / name / f"{name}.ipynb", place)
        nbgrader(course, "autograde", name, "--create", "--force")
        nbgrader(course, "generate_feedback", name, "--force")
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        return {
            name: {
                student: sum(
                    part.auto_score or 0.0
                    for part in book.find_submission(name, student).notebooks[0].grades
                )
                for student in ("solution", "blank")
            }
            for name in chosen
        }


def nbgrader(course: Path, *words: str) -> None:
    """Run one of nbgrader's commands in the folder of the course."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words],
        cwd=course, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"nbgrader {' '.join(words)} failed:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Make all assignments, or those that are named."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="default: all")
    parser.add_argument("--fast", action="store_true", help="steps 1 and 2 only")
    args = parser.parse_args()
    chosen = args.names or list(NAMES)
    for name in chosen:
        write_text(RECORDED / f"{name}.json", recorded(name))
    release(chosen, WORK)
    for name in chosen:
        STUDENTS.mkdir(exist_ok=True)
        shutil.copy(WORK / "release" / name / f"{name}.ipynb", STUDENTS)
    print(f"Students' editions: {STUDENTS.relative_to(ROOT)}")
    if not args.fast and not all_right(chosen):
        sys.exit(1)


def all_right(chosen: list[str]) -> bool:
    """Grade both editions in both ways, print the points, and say whether they are as expected."""
    by_nbgrader = autograde(chosen, WORK)
    right = True
    print(f"{'assignment':<12}{'points':>8}  {'nbgrader':>20}  {'agman grade':>20}")
    for name in chosen:
        handed_in = WORK / "handed_in" / name
        handed_in.mkdir(parents=True)
        for student in ("solution", "blank"):
            shutil.copy(
                WORK / "submitted" / student / name / f"{name}.ipynb",
                handed_in / f"{student}.ipynb",
            )
        source = SOURCES / name / f"{name}.ipynb"
        out = WORK / "grades" / f"{name}.csv"
        ours = {g.student: g.points for g in grade_folder(handed_in, source, out, progress=False)}
        full = sum(test.points for test in read_assignment(source).tests)
        theirs = by_nbgrader[name]
        print(f"{name:<12}{full:>8g}  {_pair(theirs):>20}  {_pair(ours):>20}")
        right &= theirs == ours == {"solution": full, "blank": 0.0}
    print("(points of the solution and of the blank edition; a person grades the written parts)")
    print(f"Feedback: {(WORK / 'feedback').relative_to(ROOT)} (nbgrader), "
          f"{(WORK / 'grades').relative_to(ROOT)} (agman grade)")  # fmt: skip
    return right


def _pair(points: dict[str, float]) -> str:
    return f"{points['solution']:g} and {points['blank']:g}"


if __name__ == "__main__":
    main()
