"""Small changes to the code, one at a time, to see that a test notices each of them.

    python -m tests.trust.mutants losses sampling

mutmut makes the changes in copies under `_build/mutants/`, one folder a module, and runs the test
file of the module against each; nothing else is looked at, and doctests do not count. An
interrupted run goes on where it stopped; changed code or tests start it afresh, or with
`--survivors` new tests meet only what survived the old ones. What survives must be explained in
`survivors.toml` beside this file. Linux and macOS only: mutmut forks.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from agman.provenance import provenance
from agman.storage import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book/results/mutants.json"
REASONS = Path(__file__).with_name("survivors.toml")
MODULES = ("losses", "sampling", "metrics", "ranking")
LEAST = 0.9  # of a module's mutants a test must notice
# Cannot matter; only the words of a message; seen beside a GPU only; a hole in the tests.
KINDS = ("equivalent", "message", "device", "open")

# Few examples and no search for the smallest one: a failure is all that counts here; quick tests
# first, by the times that mutmut took.
PROFILE = """import json
from pathlib import Path

from hypothesis import Phase, settings

settings.register_profile(
    "mutants",
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)


def pytest_collection_modifyitems(items):
    times = Path("mutmut-stats.json")
    known = json.loads(times.read_text())["duration_by_test"] if times.exists() else {}
    items.sort(key=lambda item: known.get(item.nodeid, 0))
"""


def prepare(module: str, keep: bool) -> Path:
    """The folder where one module's mutants live: a copy of the package and of one test file.

    What was found there before is forgotten if the module has changed, and if the tests have
    unless `keep` says to keep it.
    """
    folder = ROOT / "_build/mutants" / module
    code = f"agman/{module}.py"
    tests = ["tests/conftest.py", "tests/tiny.py", f"tests/test_{module}.py"]
    if not same(folder, [code] if keep else [code, *tests]):
        shutil.rmtree(folder, ignore_errors=True)
        skipped = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(ROOT / "agman", folder / "agman", ignore=skipped)
        (folder / "tests").mkdir()
    for name in tests:
        shutil.copy(ROOT / name, folder / name)
    (folder / "conftest.py").write_text(PROFILE)
    table = "[tool.mutmut]\n"
    chosen = f'only_mutate = ["{code}"]\npytest_add_cli_args_test_selection = ["{tests[-1]}"]\n'
    settings = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(settings.replace(table, table + chosen))
    return folder


def same(folder: Path, names: Sequence[str]) -> bool:
    """Whether a folder holds these files of the repository as they are now."""
    pairs = [(folder / name, ROOT / name) for name in names]
    return all(copy.exists() and copy.read_bytes() == own.read_bytes() for copy, own in pairs)


def mutmut(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start mutmut in a folder."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("mutmut"), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def answer(folder: Path, *words: str) -> str:
    """What mutmut prints."""
    printed, _ = mutmut(folder, *words).communicate()
    return printed


def states(folder: Path) -> dict[str, str]:
    """What became of each mutant, by its name."""
    return dict(re.findall(r"^ *(\S+): (.+)$", answer(folder, "results", "--all", "True"), re.M))


def run(module: str, folder: Path, children: int, names: Sequence[str] = ()) -> None:
    """Try the named mutants, or all not tried yet, with a line on stderr for every 25."""
    running = mutmut(folder, "run", "--max-children", str(children), *names)
    assert running.stdout
    said, lines = "", []
    for line in running.stdout:  # text mode: mutmut's carriage returns end lines too
        lines.append(line)
        if (count := re.search(r"(\d+)/(\d+) .*🙁 (\d+)", line)) and int(count[1]) % 25 == 0:
            message = f"{module}: {count[1]} of {count[2]} tried, {count[3]} survive"
            if message != said:
                print(said := message, file=sys.stderr, flush=True)
    if running.wait():
        raise RuntimeError("".join(lines[-40:]))


def change(folder: Path, name: str) -> str:
    """A mutant as text: the function, the lines that it removes, an arrow, those it puts there."""
    lines = answer(folder, "show", name).splitlines()
    old, new = (
        " ".join(line[1:].strip() for line in lines if re.match(rf"{sign}(?!{sign})", line))
        for sign in (r"\-", r"\+")
    )
    function = re.sub(r"^.*\.x[_ǁ]|__mutmut_\d+$", "", name).replace("ǁ", ".")
    return f"{function}: {old} → {new}"


def look(module: str, folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Counts of a module's mutants by what became of them, and those that no test noticed."""
    found = states(folder)
    became = Counter(found.values())
    if became["not checked"]:
        raise RuntimeError(f"{module}: {became['not checked']} mutants were not tried")
    rows = tomllib.loads(REASONS.read_text(encoding="utf-8")).get(module, [])
    reasons = {change: row for row in rows for change in row["changes"]}
    survivors = []
    for name, status in found.items():
        if status not in ("killed", "timeout"):
            what = change(folder, name)
            known = reasons.get(what, {"kind": "open", "why": "not looked at"})
            survivors.append(
                {"module": module, "name": name, "change": what, "status": status}
                | {key: known[key] for key in ("kind", "why")}
            )
    kinds = Counter(row["kind"] for row in survivors)
    counts = {
        "mutants": len(found),
        "killed": became["killed"],
        "timeout": became["timeout"],
        "survived": len(survivors),
        **{kind: kinds[kind] for kind in KINDS},
    }
    return counts, survivors


def main() -> int:
    """Run, record, and print the counts; 1 if too much survives or is not explained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="module", help=f"{MODULES}")
    parser.add_argument("--survivors", action="store_true", help="after new tests: only these")
    parser.add_argument("--children", type=int, default=2, help="mutants tried at once")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    record = read_json(options.out) if options.out.exists() else {"modules": {}, "survivors": []}
    wrong = False
    for module in options.modules:
        started = time.perf_counter()
        folder = prepare(module, keep=options.survivors)
        run(module, folder, options.children)
        # A fork may hang by bad luck; what a mutant makes hang hangs again.
        known = {"killed"} if options.survivors else set(states(folder).values()) - {"timeout"}
        if names := [name for name, status in states(folder).items() if status not in known]:
            run(module, folder, options.children, names)
        counts, survivors = look(module, folder)
        about = provenance()
        before = record["modules"].get(module, {}).get("seconds", 0) if options.survivors else 0
        counts |= {"seconds": before + round(time.perf_counter() - started)}
        counts |= {key: about[key] for key in ("date", "commit")}
        modules = record["modules"] | {module: counts}
        rest = [row for row in record["survivors"] if row["module"] != module]
        record = {
            "experiment": "mutation testing",
            "tool": f"mutmut {metadata.version('mutmut')}",
            "modules": {name: modules[name] for name in MODULES if name in modules},
            "survivors": sorted(rest + survivors, key=lambda row: MODULES.index(row["module"])),
            "seconds": sum(row["seconds"] for row in modules.values()),
            "provenance": about,
        }
        write_json(options.out, record)
        print(module, counts)
        for row in survivors:
            if row["kind"] == "open":
                print(f"  {row['change']}\n    {row['why']}")
        noticed = counts["killed"] + counts["timeout"]
        unexplained = any(row["why"] == "not looked at" for row in survivors)
        wrong |= noticed < LEAST * counts["mutants"] or unexplained
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
