"""What the book says the scripts print is what they print, today, on trees in the true formats."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import transcripts

PAGE = [cell.source for cell in nbformat.read(transcripts.CHAPTER, as_version=4).cells]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """All sessions, run again."""
    return transcripts.record(tmp_path_factory.mktemp("sessions"))


@pytest.fixture(scope="module")
def outputs(sessions: dict[str, dict[str, str]]) -> dict[str, str]:
    """Every command and what it prints."""
    return {command: text for steps in sessions.values() for command, text in steps.items()}


@pytest.mark.parametrize("name", [session.__name__ for session in transcripts.SESSIONS])
def test_recorded_transcripts_are_what_is_printed(
    sessions: dict[str, dict[str, str]], name: str
) -> None:
    recorded = (transcripts.FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert transcripts.transcript(sessions[name]) == recorded, (
        "if the change is meant, run: python -m tools.transcripts --write"
    )


def test_no_other_transcripts_lie_about() -> None:
    names = {session.__name__ for session in transcripts.SESSIONS}
    assert {path.stem for path in transcripts.FOLDER.iterdir()} == names


def test_the_chapter_shows_what_is_printed(outputs: dict[str, str]) -> None:
    assert [transcripts.renewed(cell, outputs) for cell in PAGE] == PAGE, (
        "if the change is meant, run: python -m tools.transcripts --write"
    )
    blocks = "".join(
        text for cell in PAGE for text in re.findall(r"```console\n.*?```", cell, re.S)
    )
    scripts = {command.split()[1] for command in outputs if command.startswith("python")}
    assert all(name in blocks for name in scripts - {"data_scripts/lab.py"})


def test_commands_of_the_chapter_are_ones(outputs: dict[str, str]) -> None:
    """What a reader may copy has the options that the recorded commands have."""
    known = {word for command in outputs for word in command.split()} | {"--device", "cuda:0"}
    copied = "".join(b for cell in PAGE for b in re.findall(r"```bash\n(.*?)```", cell, re.S))
    for line in copied.splitlines():
        if line.startswith(("python ", "agman ")):
            words = {word for word in line.split() if not word.startswith("downloads")}
            assert words - known <= {"products", "deepfashion"}, line


def test_transcripts_tell_nothing_of_this_machine(outputs: dict[str, str], tmp_path: Path) -> None:
    for command, text in outputs.items():
        assert text, command
        assert not re.search(r"Traceback|\r|%\||it/s", text), command
        assert not re.search(r"(^|[\s'\"(])/\w+/", text), command
        assert not re.search(r"\d [GM]B( are)? free", text), command


def test_right_runs_end_well_and_spoilt_ones_do_not(outputs: dict[str, str]) -> None:
    for command, text in outputs.items():
        right = "Next: agman train" in text or "Would " in text
        if command.startswith("python"):
            assert right == ("--out data" in command and "replaced" not in command), command
            assert right or text.endswith(".\n")


def test_measured_digits_are_masked_and_columns_stay() -> None:
    text = (
        "epoch     loss  seconds\n"
        "    1   0.1234     12.5\n"
        "published: RPF 70.11 (README)\n"
        "MAP 12.34 % micro, 9.8 % macro, 17 s\n"
        "data set 3, 4,000 photos\n"
    )
    assert transcripts.normalised(text, measured=True) == (
        "epoch     loss  seconds\n"
        "    1   x.xxxx      x.x\n"
        "published: RPF 70.11 (README)\n"
        "MAP x.xx % micro, x.x % macro, x s\n"
        "data set 3, 4,000 photos\n"
    )
    assert transcripts.normalised(text, measured=False) == text


def test_free_room_is_left_out_and_long_sentences_are_broken() -> None:
    text = "needs 23.6 MB; 1,234.5 GB are free; " + "word " * 30 + "\n" + "a  table " * 20 + "\n"
    first, *others = transcripts.normalised(text, measured=False).splitlines()
    assert first.startswith("needs 23.6 MB; ... GB are free; word")
    assert len(first) <= transcripts.WIDTH
    assert others[-1] == ("a  table " * 20).rstrip()


def test_a_block_is_renewed_by_its_commands() -> None:
    page = "before\n```console\n$ one \\\n    two\nold\n$ three\n```\nafter\n```bash\n$ one\n```"
    outputs = {"one \\\n    two": "new\n", "three": "newer\n"}
    assert transcripts.renewed(page, outputs) == (
        "before\n```console\n$ one \\\n    two\nnew\n\n$ three\nnewer\n```\nafter\n"
        "```bash\n$ one\n```"
    )
    with pytest.raises(KeyError):
        transcripts.renewed("```console\n$ four\n```", outputs)
