"""What the status page shows: versions, the machine, and where recorded numbers come from."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agman.course.results import FOLDERS
from agman.errors import InputError
from agman.provenance import provenance
from agman.storage import read_json

if TYPE_CHECKING:
    from IPython.display import HTML

PACKAGES = (
    *("agman", "torch", "torchvision", "numpy", "pillow", "matplotlib", "seaborn", "ipywidgets"),
    *("safetensors", "tqdm", "timm", "faiss-cpu", "jupyter-book", "sphinx", "myst-nb"),
    *("jupyter-cache", "ipykernel"),
)


class Recorded(NamedTuple):
    """One file of results, and where its numbers come from.

    Args:
        name: of the file.
        runs: parts of the file that have a provenance of their own.
        seconds: of all runs together.
        dates: first and last day (UTC) on which a run was started.
        commits: of the code, in the order of the runs' dates; "+" says the code was changed.
        versions: each combination of Python and packages.
        machines: each machine.
    """

    name: str
    runs: int
    seconds: float
    dates: tuple[str, str]
    commits: tuple[str, ...]
    versions: tuple[str, ...]
    machines: tuple[str, ...]


def recorded(folder: str | Path | None = None) -> list[Recorded]:
    """Where the numbers of each results file come from, by name of the file.

    Args:
        folder: of the files; None for the book's.

    Raises:
        InputError: a file is not JSON, or a run's provenance is not whole.
    """
    place = next((f for f in FOLDERS if f.is_dir()), FOLDERS[0]) if folder is None else Path(folder)
    found = []
    for file in sorted(place.glob("*.json")):
        try:
            found.append(_recorded(file.name, read_json(file)))
        except KeyError as error:
            raise InputError(
                f"{file}: the provenance of a run lacks {error}; record the run again."
            ) from error
        except (AttributeError, TypeError) as error:
            raise InputError(
                f"{file}: the provenance of a run is not whole ({error}); record the run again."
            ) from error
    return found


def _recorded(name: str, content: Any) -> Recorded:
    runs = sorted(_runs(content), key=lambda run: run["provenance"]["date"])
    origins = [run["provenance"] for run in runs]
    days = [origin["date"][:10] for origin in origins] or ["-"]
    return Recorded(
        name,
        len(runs),
        sum(run.get("train_seconds", run.get("seconds", 0.0)) for run in runs),
        (days[0], days[-1]),
        _different(commit for origin in origins for commit in _commits(origin)),
        _different(_versions(origin) for origin in origins),
        _different(_machine(origin["machine"]) for origin in origins),
    )


def _runs(node: Any) -> Iterator[Mapping[str, Any]]:
    """The outermost dictionaries that have a provenance."""
    if isinstance(node, Mapping) and "provenance" in node:
        yield node
    elif isinstance(node, Mapping | list):
        for child in node.values() if isinstance(node, Mapping) else node:
            yield from _runs(child)


def _different(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _commits(origin: Mapping[str, Any]) -> list[str]:
    """Where a run started and, if it went on with other code, where it ended."""
    found = [origin["commit"], origin.get("ended_at_commit")]
    return [commit for commit in found if commit] or ["unknown"]


def _versions(origin: Mapping[str, Any]) -> str:
    packages = [f"{name} {version}" for name, version in origin["versions"].items()]
    return ", ".join([f"Python {origin['python']}", *packages])


def _machine(machine: Mapping[str, Any]) -> str:
    accelerator = machine["accelerator"] or "no GPU"
    return f"{machine['system']}, {machine['processor']}, {machine['cores']} cores, {accelerator}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(0), duration(42.4), duration(5000), duration(20_000)
    ('none', '42 s', '83 min', '5.6 h')
    """
    if not seconds:
        return "none"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def software() -> HTML:
    """Versions of Python and of all packages that this build depends on."""
    rows = [("Python", provenance()["python"])]
    return html_table(("package", "version"), rows + [(name, _version(name)) for name in PACKAGES])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine() -> HTML:
    """The machine that runs this, the day, and the commit of the code."""
    here = provenance()
    about = here["machine"]
    rows = [
        ("date (UTC)", here["date"][:10]),
        ("commit of the code", here["commit"] or "unknown: not a copy of the repository"),
        ("system", about["system"]),
        ("processor", about["processor"]),
        ("cores", about["cores"]),
        ("threads used by torch", about["threads"]),
        ("GPU", about["accelerator"] or "none"),
    ]
    return html_table(("property", "this build"), rows)


def results(folder: str | Path | None = None) -> HTML:
    """Runs, their time, days and commits of each results file."""
    rows = [
        (
            one.name,
            one.runs,
            duration(one.seconds),
            " to ".join(dict.fromkeys(one.dates)),
            ", ".join(one.commits),
        )
        for one in recorded(folder)
    ]
    return html_table(("file", "runs", "time", "date (UTC)", "commit"), rows)


def origins(folder: str | Path | None = None) -> HTML:
    """The machines and versions that the results files were made with."""
    files: dict[tuple[str, str], list[str]] = {}
    for one in recorded(folder):
        made_with = "; ".join(one.machines), "; ".join(one.versions)
        files.setdefault(made_with, []).append(one.name)
    rows = [(", ".join(names), *made_with) for made_with, names in files.items()]
    return html_table(("files", "machine", "versions"), rows)


def html_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> HTML:
    """A plain table whose first column names the rows; a sentence where there are none.

    Args:
        head: titles of the columns.
        rows: cells; what is no text is written as `str` writes it.
    """
    from IPython.display import HTML

    if not rows:
        return HTML(
            "<p>No recorded results lie beside this copy of the package; they are part of the "
            "repository, in <code>book/results/</code>.</p>"
        )
    titles = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in head)
    lines = [f"<thead><tr>{titles}</tr></thead>", "<tbody>"]
    for first, *rest in rows:
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>')
    return HTML("\n".join(['<table class="table">', *lines, "</tbody></table>"]))
