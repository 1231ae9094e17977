"""The status page's tables: every run counted once, every origin named, nothing invented."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path

import pytest

from agman.course import status
from agman.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def origin(day="2026-01-02", commit="abc", **changes):
    """A whole provenance, with other parts on demand."""
    machine = {"system": "Linux", "processor": "P", "cores": 2, "threads": 1, "accelerator": None}
    return {
        "date": f"{day}T10:00:00+00:00",
        "commit": commit,
        "python": "3.11.7",
        "versions": {"agman": "0.1.0", "torch": "2.9"},
        "machine": machine | changes.pop("machine", {}),
        **changes,
    }


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


class Cells(HTMLParser):
    """Texts of the cells of a table, row by row."""

    def __init__(self, text):
        super().__init__()
        self.rows = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def rows(html):
    return Cells(html.data).rows


def test_runs_in_a_list_are_counted_and_their_time_is_summed(tmp_path):
    history = [{"seconds": 30.0}, {"seconds": 30.0}]  # already part of the run's own time
    run = {"train_seconds": 60.0, "wall_seconds": 99.0, "history": history}
    runs = [
        {**run, "provenance": origin()},
        {"train_seconds": 5.5, "seconds": 9, "provenance": origin()},
    ]
    write(tmp_path, "a.json", {"experiment": "lab", "runs": runs})
    (found,) = status.recorded(tmp_path)
    assert (found.name, found.runs, found.seconds) == ("a.json", 2, 65.5)


def test_one_run_alone_and_runs_under_their_names(tmp_path):
    write(tmp_path, "one.json", {"accuracy": 1.0, "seconds": 7.0, "provenance": origin()})
    named = {"x": {"train_seconds": 1.0, "provenance": origin()}, "y": {"provenance": origin()}}
    write(tmp_path, "named.json", named)
    write(tmp_path, "none.json", {"runs": []})
    found = {one.name: (one.runs, one.seconds) for one in status.recorded(tmp_path)}
    assert found == {"named.json": (2, 1.0), "none.json": (0, 0.0), "one.json": (1, 7.0)}


def test_days_commits_versions_and_machines_are_named_once_in_the_order_of_time(tmp_path):
    gpu = {"processor": "Q", "accelerator": "card"}
    origins = [
        origin("2026-01-05", "bbb", machine=gpu),
        origin("2026-01-02", "aaa", ended_at_commit="bbb"),
        origin("2026-01-03", "aaa", python="3.12.0"),
        origin("2026-01-04", None),
    ]
    write(tmp_path, "a.json", [{"provenance": one} for one in origins])
    (found,) = status.recorded(tmp_path)
    assert found.dates == ("2026-01-02", "2026-01-05")
    assert found.commits == ("aaa", "bbb", "unknown")
    assert found.machines == ("Linux, P, 2 cores, no GPU", "Linux, Q, 2 cores, card")
    assert found.versions == (
        "Python 3.11.7, agman 0.1.0, torch 2.9",
        "Python 3.12.0, agman 0.1.0, torch 2.9",
    )


def test_files_with_one_origin_share_a_row(tmp_path):
    for name, day, cores in (
        ("a", "2026-01-02", 2),
        ("b", "2026-01-03", 2),
        ("c", "2026-01-04", 8),
    ):
        run = {"train_seconds": 90.0, "provenance": origin(day, machine={"cores": cores})}
        write(tmp_path, f"{name}.json", {"runs": [run]})
    head, *lines = rows(status.results(tmp_path))
    assert head == ["file", "runs", "time", "date (UTC)", "commit"]
    assert lines[0] == ["a.json", "1", "90 s", "2026-01-02", "abc"]
    assert [line[0] for line in lines] == ["a.json", "b.json", "c.json"]
    made = [line[:2] for line in rows(status.origins(tmp_path))[1:]]
    assert made == [
        ["a.json, b.json", "Linux, P, 2 cores, no GPU"],
        ["c.json", "Linux, P, 8 cores, no GPU"],
    ]


def test_text_of_a_file_cannot_become_markup(tmp_path):
    write(tmp_path, "a.json", [{"provenance": origin(commit="<b>&")}])
    assert "<b>" not in status.results(tmp_path).data
    assert rows(status.results(tmp_path))[1][-1] == "<b>&"


def test_without_results_the_page_says_so(tmp_path):
    for table in (status.results(tmp_path), status.origins(tmp_path / "absent")):
        assert "No recorded results" in table.data
        assert "<table" not in table.data


@pytest.mark.parametrize("part", ["date", "commit", "python", "versions", "machine"])
def test_half_a_provenance_is_refused_with_the_name_of_the_file(tmp_path, part):
    half = {name: value for name, value in origin().items() if name != part}
    write(tmp_path, "half.json", [{"provenance": half}])
    with pytest.raises(InputError, match=rf"half\.json: .* lacks '{part}'"):
        status.recorded(tmp_path)


@pytest.mark.parametrize("wrong", [["date"], {**origin(), "versions": 3}])
def test_a_provenance_of_another_form_is_refused_with_the_name_of_the_file(tmp_path, wrong):
    write(tmp_path, "odd.json", [{"provenance": wrong}])
    with pytest.raises(InputError, match=r"odd\.json: .* is not whole \(.*record the run again"):
        status.recorded(tmp_path)


def test_a_damaged_file_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.json").write_text('{"runs": [\n')
    with pytest.raises(InputError, match=r"a\.json, line 2"):
        status.recorded(tmp_path)


def test_the_book_s_own_results_are_all_there():
    files = sorted((ROOT / "book" / "results").glob("*.json"))
    found = {one.name: one for one in status.recorded()}
    assert sorted(found) == [file.name for file in files]
    for file in files:
        text = file.read_text(encoding="utf-8")
        if "train_seconds" in text:
            seconds = [float(s) for s in re.findall(r'"train_seconds": ([\d.e+-]+)', text)]
            assert found[file.name].seconds == pytest.approx(sum(seconds))
        assert found[file.name].runs == text.count('"provenance"')


def test_versions_are_those_installed():
    head, *lines = rows(status.software())
    stated = dict(lines)
    assert head == ["package", "version"]
    assert stated.keys() == {"Python", *status.PACKAGES}
    assert stated["torch"] == metadata.version("torch")


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr(status, "PACKAGES", ("no-such-package-here",))
    assert rows(status.software())[2] == ["no-such-package-here", "not installed"]


def test_the_machine_is_described_without_a_path_of_it():
    stated = dict(rows(status.machine())[1:])
    assert {"processor", "cores", "GPU", "commit of the code", "date (UTC)"} <= stated.keys()
    assert all(stated.values())
    assert not any(str(ROOT) in value for value in stated.values())
