import importlib.util
from pathlib import Path

import numpy as np
import pytest

from agman.datasets import PackedImages, prepared, read_asen

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
    assert "differs from its drawing" in capsys.readouterr().err
    one.write_bytes(original)


def test_a_changed_label_is_noticed(script, small, capsys):
    out, words = small
    file = out / "lab/query_test.txt"
    lines = file.read_text().splitlines()
    image, attribute, value = lines[0].split()
    file.write_text("\n".join([f"{image} {attribute} {(int(value) + 1) % 5}", *lines[1:]]) + "\n")
    assert script.main(["--out", str(out), "--check"]) == 2
    assert "its rows are not those" in capsys.readouterr().err
    assert script.main(words) == 0


def test_a_dry_run_writes_nothing(script, tmp_path, capsys):
    assert script.main(["--out", str(tmp_path / "x"), "--dry-run"]) == 0
    assert "11,000 images" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()


def test_the_prepared_form_is_the_drawing(script, small, capsys):
    out, _ = small
    data = read_asen(out / "lab")
    drawn = script.lab(40, 20, 30)
    for split in prepared.SPLITS:
        for ours, theirs in zip(prepared.tables(data, split), prepared.tables(drawn, split)):
            assert isinstance(ours.images, PackedImages)
            name = {n: i for i, n in enumerate(ours.images.names)}
            order = [name[f"{n}.png"] for n in theirs.images.names]
            assert np.array_equal(ours.images.array[order], theirs.images.array)
            named = [(f"{n}.png", a, v) for n, a, v in prepared.rows(theirs)]
            assert prepared.rows(ours) == named
    assert script.main(["--out", str(out), "--check"]) == 0
    text = capsys.readouterr().out
    assert f"{out / 'lab'} is right, every image compared." in text
    assert f"Next: agman train --data {out / 'lab'} --run runs/lab" in text


def test_a_flipped_pixel_and_lost_packed_images_are_noticed(script, small, capsys):
    out, words = small
    path = out / "lab/valid_96.npz"
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 1
    path.write_bytes(spoilt)
    assert script.main(["--out", str(out), "--check"]) == 2
    assert f"{path}: lab/valid/" in capsys.readouterr().err
    path.unlink()
    assert script.main(["--out", str(out), "--check"]) == 2
    assert script.main(words) == 0
    assert path.read_bytes() == whole


def test_a_killed_run_goes_on_to_the_same_bytes(script, small, tmp_path, monkeypatch):
    out, words = small
    new = [*words[:1], str(tmp_path / "new"), *words[2:]]
    replacing, begun = script.replacing, []

    def killed(path):
        if len(begun) == 50:
            raise KeyboardInterrupt
        begun.append(path)
        return replacing(path)

    monkeypatch.setattr(script, "replacing", killed)
    with pytest.raises(KeyboardInterrupt):
        script.main(new)
    assert len(list((tmp_path / "new").rglob("*.png"))) == 50
    monkeypatch.undo()
    assert script.main(new) == 0
    one, two = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (out, tmp_path / "new")
    )
    assert one == two


def test_nothing_to_check_is_said(script, tmp_path, capsys):
    assert script.main(["--out", str(tmp_path / "x"), "--check"]) == 2
    assert "there is no such folder" in capsys.readouterr().err
