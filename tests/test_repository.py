"""The repository itself: what is said in two places agrees, and the rooms keep their order."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import publish
import pytest
import vendor
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {
    r.name: r
    for group in PROJECT["optional-dependencies"].values()
    for r in map(Requirement, group)
}

# What Colab shipped on 2026-08-19 (googlecolab/backend-info, GPU runtime): agman's bounds must
# hold for these, or installing it there would replace what other notebooks rely on.
COLAB_PYTHON = "3.13.15"
COLAB = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.1.3",
    "matplotlib": "3.10.0",
    "seaborn": "0.13.2",
    "pillow": "11.3.0",
    "ipywidgets": "7.7.1",
    "tqdm": "4.67.3",
    "safetensors": "0.8.0",
}


def tracked() -> list[Path]:
    """Files that git tracks or would track."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("Not a git clone.")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [p for name in listing.stdout.split("\0") if name and (p := ROOT / name).is_file()]


def pins() -> dict[str, str]:
    """constraints.txt: exact version of each package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {r.name.lower().replace("_", "-"): str(r.specifier) for r in found}


# --- installing -----------------------------------------------------------------------------------


def test_conda_environment_asks_for_what_pyproject_asks_for() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    python = next(d.split("=")[1] for d in conda if d.startswith("python="))
    assert python in Requirement(f"x{PROJECT['requires-python']}").specifier
    editable = [line for line in pip if line.startswith("-e ")]
    assert editable == ["-e .[book,timm,class,dev]"], "the extras that the Makefile installs"
    listed = {r.name: r for r in map(Requirement, (p for p in pip if not p.startswith("-e ")))}
    mission = "torch torchvision jupyter jupyter-book ipywidgets matplotlib seaborn pillow"
    assert set(listed) == set(mission.split())
    known = RUNTIME | EXTRAS
    assert {n: str(r.specifier) for n, r in listed.items()} == {
        n: str(known[n].specifier) for n in listed
    }


def test_makefile_and_environment_install_the_same_extras() -> None:
    assert "EXTRAS := book,timm,class,dev\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_colab_meets_every_bound() -> None:
    assert RUNTIME.keys() == COLAB.keys(), "a new dependency: does Colab ship it?"
    for name, requirement in RUNTIME.items():
        assert requirement.specifier.contains(COLAB[name]), f"Colab would have to replace {name}"
        assert all(s.operator == ">=" for s in requirement.specifier), f"{name}: lower bounds only"
    assert Requirement(f"x{PROJECT['requires-python']}").specifier.contains(COLAB_PYTHON)


def test_recorded_colab_versions_are_those_of_the_freeze_file() -> None:
    folder = ROOT.parent / "shared" / "design"
    files = sorted(folder.glob("colab-pip-freeze-gpu-*.txt"))
    if not files:
        pytest.skip("No copy of Colab's package list beside the repository.")
    lines = files[-1].read_text(encoding="utf-8").splitlines()
    shipped = dict(line.split("==", 1) for line in lines if "==" in line)
    assert {n: Version(shipped[n]).base_version for n in COLAB} == COLAB


def test_every_direct_dependency_is_pinned_within_its_bounds() -> None:
    exact = pins()
    installed = [
        Requirement(line)
        for group in ("book", "timm", "dev")
        for line in PROJECT["optional-dependencies"][group]
    ]
    for requirement in [*RUNTIME.values(), *installed]:
        pin = exact[requirement.name.lower()]
        assert requirement.specifier.contains(pin.removeprefix("==")), requirement
    assert all(re.fullmatch(r"==[\w.]+", pin) for pin in exact.values())


# --- the repository's address ---------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A git repository with a few files that repeat the address, as ours do."""
    address = publish.repository(ROOT)
    path = address.removeprefix("https://github.com/")
    files = {
        "pyproject.toml": (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
        "_config.yml": (ROOT / "_config.yml").read_text(encoding="utf-8"),
        "CITATION.cff": (ROOT / "CITATION.cff").read_text(encoding="utf-8"),
        "README.md": f"[Colab](https://colab.research.google.com/github/{path}/blob/main/a.ipynb) "
        f"{address}. {address}.git {address}-fork https://github.com/{path}er",
        "book/a.ipynb": f'{{"source": ["REPOSITORY = \\"{address}\\""]}}',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff" + address.encode())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_publish_rewrites_every_place_and_can_be_repeated(copy: Path) -> None:
    old = publish.repository(copy).removeprefix("https://github.com/")
    changed = publish.publish(copy, "https://github.com/ada-l/course.ai")
    assert sorted(changed) == [
        "CITATION.cff",
        "README.md",
        "_config.yml",
        "book/a.ipynb",
        "pyproject.toml",
    ]
    assert publish.repository(copy) == "https://github.com/ada-l/course.ai"
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "/github/ada-l/course.ai/blob/" in readme
    assert f"github.com/{old}-fork" in readme, "another repository keeps its name"
    assert f"github.com/{old}er" in readme
    assert "ada-l/course.ai.git " in readme
    assert publish.publish(copy, "https://github.com/ada-l/course.ai") == []
    publish.publish(copy, "https://github.com/bob/agman")
    assert publish.repository(copy) == "https://github.com/bob/agman"
    assert b"ada-l" not in (copy / "picture.png").read_bytes()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "me/agman",
        "http://github.com/me/agman",
        "https://github.com/me",
        "https://github.com/me/agman/",
        "https://github.com/me/agman.git",
        "https://gitlab.com/me/agman",
        "https://github.com/me/ag man",
    ],
)
def test_publish_refuses_what_is_not_an_address(copy: Path, address: str) -> None:
    before = (copy / "README.md").read_bytes()
    with pytest.raises(ValueError, match="give https://github"):
        publish.publish(copy, address)
    assert (copy / "README.md").read_bytes() == before


def test_every_address_of_ours_is_the_one_in_pyproject() -> None:
    path = publish.github_path(publish.repository(ROOT))
    for name in ("_config.yml", "CITATION.cff", "README.md"):
        file = ROOT / name
        if file.is_file():
            assert path in file.read_text(encoding="utf-8"), f"{name} does not name the repository"


# --- the package's rooms --------------------------------------------------------------------------

# A module imports only from rows above its own. A folder is one room.
ROWS = (
    {"errors", "memory"},
    {"storage", "provenance"},
    {"attention", "backbones", "losses", "ranking"},
    {"attributes", "engines"},
    {"datasets", "metrics", "models"},
    {"sampling", "checkpoint", "loading"},
    {"evaluation", "embedding"},
    {"shards"},
    {"index"},
    {"training", "figures", "export"},
    {"experiments"},
    {"course"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
ROW = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
# A convenience method that loads a lower room at the moment it is called.
LATE = {("evaluation", "figures")}


def agman_imports(tree: ast.Module) -> list[tuple[str, bool]]:
    """Rooms that a module imports, and whether only inside a function. Types only: not counted."""
    found: list[tuple[str, bool]] = []

    def walk(node: ast.AST, late: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.Import):
            found.extend((a.name.split(".")[1], late) for a in node.names if "agman." in a.name)
        elif isinstance(node, ast.ImportFrom) and node.module == "agman":
            found.extend((a.name, late) for a in node.names if not a.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agman."):
            found.append(((node.module or "").split(".")[1], late))
        for child in ast.iter_child_nodes(node):
            walk(child, late)

    walk(tree, False)
    return found


def package_files() -> list[Path]:
    """Every module of the package."""
    return sorted((ROOT / "agman").rglob("*.py"))


def test_each_room_imports_only_from_rooms_above_it() -> None:
    wrong = []
    for path in package_files():
        inside = path.relative_to(ROOT / "agman")
        room = inside.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        assert room in ROW, f"{inside} is a new room: give it a row in ROWS"
        for other, late in agman_imports(ast.parse(path.read_text(encoding="utf-8"))):
            allowed = other == room or ROW.get(other, 99) < ROW[room]
            if not allowed and not (late and (room, other) in LATE):
                wrong.append(f"agman/{inside} imports agman.{other}")
    assert wrong == []


def test_the_import_order_test_sees_what_it_should() -> None:
    source = "import agman.cli\nfrom agman import course\ndef f():\n    from agman.a.b import c\n"
    typed = "if TYPE_CHECKING:\n    from agman.cli import main\n"
    assert agman_imports(ast.parse(source + typed)) == [
        ("cli", False),
        ("course", False),
        ("a", True),
    ]


def test_importing_the_package_stays_light() -> None:
    heavy = "{'matplotlib', 'seaborn', 'faiss', 'jupyter', 'IPython', 'ipywidgets', 'pandas'}"
    code = f"import sys, agman; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_assert_in_shipped_code() -> None:
    """``python -O`` drops them, and a reader deserves a sentence."""
    shipped = [*package_files(), *sorted((ROOT / "data_scripts").rglob("*.py"))]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in shipped
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_weights_are_in_the_package_and_not_ignored() -> None:
    for path in (ROOT / "agman").rglob("*.safetensors"):
        ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0
        assert not ignored, f"git ignores {path.name}, so the wheel would lack it"


# --- files ----------------------------------------------------------------------------------------


def test_no_path_of_one_machine() -> None:
    slash = "/"
    places = re.compile(
        rf"(?<![\w.~-]){slash}(work|root|farm){slash}|{slash}home{slash}(?!runner\b)[a-z]\w*{slash}"
    )
    found = []
    for path in tracked():
        if "vendor" in path.parts or path.name == "axe.min.js":
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {m[0]}" for m in places.finditer(text)]
    assert found == []


def test_no_tracked_file_is_above_four_megabytes() -> None:
    assert [p.name for p in tracked() if p.stat().st_size > 4 * 1024**2] == []


def test_vendored_files_are_as_recorded() -> None:
    assert vendor.differences() == []
    recorded = {line.split("  ", 1)[1] for line in vendor.SUMS.read_text().splitlines()}
    ours = {"README.md", "SHA256SUMS", "require-config.js"}
    unrecorded = {
        str(p.relative_to(ROOT))
        for p in vendor.VENDOR.rglob("*")
        if p.is_file() and p.name not in ours and "licenses" not in p.parts
    } - recorded
    assert unrecorded == set()


def test_vendoring_refuses_a_changed_tarball() -> None:
    with pytest.raises(ValueError, match="nothing was changed"):
        vendor.wanted_files("requirejs@2.3.8", b"not the tarball")


def test_readme_starts_with_the_two_commands() -> None:
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.skip("README.md is not written yet.")
    first_screen = "\n".join(readme.read_text(encoding="utf-8").splitlines()[:40])
    assert "make book" in first_screen
    assert "make test" in first_screen


def test_ci_runs_the_readme_test_command() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert run.read_text(encoding="utf-8").rstrip().endswith("make test")


def test_citation_names_the_package_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == publish.repository(ROOT)
    assert any("AG-MAN" in r.get("abbreviation", "") for r in citation["references"])
