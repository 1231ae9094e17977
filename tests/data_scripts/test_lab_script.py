import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("lab_script", ROOT / "data_scripts/lab.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(script, tmp_path_factory):
    import os

    os.environ["AGMAN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    out = tmp_path_factory.mktemp("data")
    words = ["--out", str(out), "--n", "40", "20", "30"]
    assert script.main(words) == 0
    yield out, words
    del os.environ["AGMAN_CACHE"]


def test_a_second_run_changes_nothing(script, small, capsys):
    out, words = small
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    assert len(before) == 90
    assert script.main(words) == 0
    assert "0 pictures written" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.png")} == before


def test_a_lost_picture_is_noticed_and_made_again(script, small, capsys):
    out, words = small
    next(out.rglob("test/00007.png")).unlink()
    assert script.main(["--out", str(out), "--check"]) == 2
    assert "00007.png" in capsys.readouterr().err
    assert script.main(words) == 0


def test_a_swapped_picture_is_noticed(script, small, capsys):
    out, _ = small
    one, two = (next(out.rglob(f"test/0000{i}.png")) for i in (1, 2))
    original = one.read_bytes()
    one.write_bytes(two.read_bytes())
    assert script.main(["--out", str(out), "--check"]) == 2
    assert "differs from the drawing" in capsys.readouterr().err
    one.write_bytes(original)


def test_a_changed_label_is_noticed(script, small, capsys):
    out, words = small
    file = out / "lab/query_test.txt"
    lines = file.read_text().splitlines()
    image, attribute, value = lines[0].split()
    file.write_text("\n".join([f"{image} {attribute} {(int(value) + 1) % 5}", *lines[1:]]) + "\n")
    assert script.main(["--out", str(out), "--check"]) == 2
    assert "rows of test differ" in capsys.readouterr().err
    assert script.main(words) == 0


def test_a_dry_run_writes_nothing(script, tmp_path, capsys):
    assert script.main(["--out", str(tmp_path / "x"), "--dry-run"]) == 0
    assert "11,000 images" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()
