"""Sharded embedding: each photo once whatever the processes, resumed to the bit, or refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import agman
from agman import cli
from agman.datasets import PackedImages
from agman.errors import InputError
from agman.index import PhotoIndex
from agman.models import RetrievalModel
from agman.shards import Shards, embed_shards, shard_path
from agman.storage import read_tensors, write_tensors
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
N, ROWS = 23, 4  # six shards, the last of three photos


def new_model(seed: int = 0) -> RetrievalModel:
    torch.manual_seed(seed)
    model = agman.create_model("csn", n_attributes=2, backbone="lab")
    model.schema = tiny.SCHEMA
    model.preprocessing = type(model.preprocessing)(32)
    return model.eval()


MODEL = new_model()
STORE = tiny.table(N).images


def embed(folder: Path, images: Any = STORE, model: RetrievalModel = MODEL, **other: Any) -> Shards:
    options = {"rows": ROWS, "batch_size": 3, "progress": False} | other
    return embed_shards(model, images, folder, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one process, never changed."""
    folder = tmp_path_factory.mktemp("shards") / "one"
    embed(folder)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos as files."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(N):
        Image.fromarray(STORE.array[number]).save(folder / f"{number:02}.png")
    return folder


# --- one process ----------------------------------------------------------------------------------


def test_shards_hold_what_one_file_holds(made: Path) -> None:
    shards, whole = Shards.open(made), PhotoIndex.build(MODEL, STORE, progress=False)
    assert shards.counts == (4, 4, 4, 4, 4, 3)
    assert shards.shape == whole.embeddings.shape
    assert tuple(shards.names) == whole.names
    assert (shards.names[-1], shards.names[2:5]) == ("22.png", ("2.png", "3.png", "4.png"))
    with pytest.raises(IndexError):
        shards.names[N]
    for attribute in (0, 1):
        joined = torch.cat([block for _, block in shards.blocks(attribute)])
        torch.testing.assert_close(joined, whole.embeddings[:, attribute], atol=1e-5, rtol=0)
    assert set(content(made)) == {"manifest.json", *(f"shard_{n:05}.safetensors" for n in range(6))}
    assert str(made).encode() not in b"".join(content(made).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_searching_shards_is_searching_one_file_to_the_bit(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """Photos come three times, so that there are ties across shards."""
    array = STORE.array[np.arange(18) % 6]
    images = PackedImages(array, [f"{i}.png" for i in range(18)])
    shards = embed(tmp_path / "s", images, dtype=dtype, rows=5, batch_size=1)
    one = torch.stack([torch.cat([b for _, b in shards.blocks(a)]) for a in (0, 1)], dim=1)
    PhotoIndex(MODEL, one, shards.names).save(tmp_path / "one.safetensors")
    whole = PhotoIndex.load(tmp_path / "one.safetensors", MODEL)
    index = PhotoIndex.load(tmp_path / "s", MODEL)
    assert repr(index) == repr(whole) == "PhotoIndex(18 photos, 2 attributes, 64 dimensions)"
    for number in range(6):
        for attribute in ("color", "place"):
            for k in (1, 5, 30):
                hits = index.search(array[number], attribute, k)
                assert hits == whole.search(array[number], attribute, k)
    assert [hit.number for hit in hits[:3]] == [5, 11, 17], "ties in the order of the photos"
    with pytest.raises(InputError, match="on the disk already"):
        index.save(tmp_path / "again.safetensors")


def test_a_finished_folder_is_left_as_it_is(copy: Path) -> None:
    times = {file: file.stat().st_mtime_ns for file in copy.iterdir()}
    embed(copy)
    assert {file: file.stat().st_mtime_ns for file in copy.iterdir()} == times


def test_only_missing_shards_are_made(
    made: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard_path(copy, 1).unlink()
    shard_path(copy, 5).unlink()
    with pytest.raises(InputError, match="not finished: 2 of its 6 shards"):
        PhotoIndex.load(copy, MODEL)
    seen: list[int] = []
    load = PackedImages.load
    monkeypatch.setattr(
        PackedImages, "load", lambda self, rows, size: seen.extend(rows) or load(self, rows, size)
    )
    embed(copy)
    assert seen == [4, 5, 6, 7, 20, 21, 22]
    assert content(copy) == content(made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": PackedImages(STORE.array[1:], STORE.names[1:])}, "another list of photos"),
        ({"images": PackedImages(STORE.array, STORE.names[::-1])}, "another list of photos"),
        ({"model": new_model(1)}, "another model"),
        ({"rows": 5}, r"number of photos in a shard \(4\)"),
        ({"dtype": torch.float16}, r"type of numbers \(float32\)"),
    ],
)
def test_going_on_with_something_else_is_refused(
    change: dict[str, Any], says: str, copy: Path
) -> None:
    shard_path(copy, 2).unlink()
    before = content(copy)
    with pytest.raises(InputError, match=says):
        embed(copy, **change)
    assert content(copy) == before


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    for change in ({"rows": 0}, {"rows": 2.0}, {"dtype": torch.int8}, {"dtype": torch.float64}):
        with pytest.raises(InputError, match="hold"):
            embed(tmp_path, **change)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file cannot be opened"):
        embed(tmp_path / "file")


def test_other_weights_cannot_open_it(made: Path) -> None:
    with pytest.raises(InputError, match="made with other weights"):
        PhotoIndex.load(made, new_model(1))


# --- bad photos -----------------------------------------------------------------------------------


def test_bad_photos_are_counted_or_left_out(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    for number in (4, 5, 6, 7, 13):  # all of the second shard, one of the fourth
        (folder / f"{number:02}.png").write_bytes(b"no image")
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"^5 of 23 photos cannot be read .*04.*13"):
        embed(out, folder)
    assert shard_path(out, 0).exists(), "what was whole is kept"
    first = shard_path(out, 0).read_bytes()
    shards = embed(out, folder, skip_bad=True)
    assert shard_path(out, 0).read_bytes() == first
    assert shards.counts == (4, 0, 4, 3, 4, 3)
    assert len(shards.problems) == 5
    assert "13.png" in shards.problems[4]
    index = PhotoIndex.load(out, MODEL)
    assert index.skipped == tuple(f"{n:02}.png" for n in (4, 5, 6, 7, 13))
    whole = PhotoIndex.build(MODEL, folder, skip_bad=True, progress=False)
    assert tuple(index.names) == whole.names
    for a, b in zip(index.search(folder / "14.png", 0), whole.search(folder / "14.png", 0)):
        assert (a.name, a.number) == (b.name, b.number)
    shard_path(out, 5).unlink()
    again = embed(out, folder, skip_bad=True)
    assert (again.problems, again.skipped) == ((), shards.skipped)
    assert again.identity == shards.identity == Shards.open(out).identity


def test_nothing_readable_is_refused_either_way(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    for skip_bad in (False, True, True):
        with pytest.raises(InputError, match=r"1 of 1 photos cannot be read|No photo of"):
            embed(tmp_path / "out", tmp_path / "photos", skip_bad=skip_bad)


# --- damage ---------------------------------------------------------------------------------------


def test_a_damaged_shard_is_named(copy: Path) -> None:
    path = shard_path(copy, 3)
    whole = path.read_bytes()
    for damaged in (b"", whole[:200], whole[:-1], b"\0" * len(whole), whole + b"\0"):
        path.write_bytes(damaged)
        for work in (lambda: Shards.open(copy), lambda: embed(copy)):
            with pytest.raises(InputError, match=r"shard_00003\.safetensors is damaged; delete"):
                work()
    path.write_bytes(whole)
    tensors, about = read_tensors(path)
    lies: list[tuple[dict[str, torch.Tensor], dict[str, Any]]] = [
        ({"attribute_0": tensors["attribute_0"][1:]}, {}),
        ({"attribute_0": tensors["attribute_0"].half()}, {}),
        ({"attribute_2": tensors["attribute_0"].clone()}, {}),
        ({"names": tensors["names"].int()}, {}),
        ({}, {"skipped": None}),
        ({}, {"skipped": [1]}),
        ({}, {"skipped": ["a"] * 9}),
        ({}, {"job": "other"}),
        ({}, {"number": 2}),
    ]
    for change, lie in lies:
        write_tensors(path, tensors | change, about | lie)
        with pytest.raises(InputError, match=r"shard_00003\.safetensors is (damaged|of another)"):
            Shards.open(copy)
    nan = tensors["attribute_0"].clone()
    nan[1, 1] = torch.nan
    write_tensors(path, tensors | {"attribute_0": nan}, about)
    with pytest.raises(InputError, match=r"shard_00003\.safetensors: gallery embeddings hold NaN"):
        PhotoIndex.load(copy, MODEL).search_embedding(torch.ones(64), 0)
    for names in (b"[1", b"[]", b"\xff\xfe", b'{"a": 1}', b"[1, 2, 3]"):
        raw = torch.tensor(list(names), dtype=torch.uint8)
        write_tensors(path, tensors | {"names": raw}, about)
        with pytest.raises(InputError, match=r"shard_00003\.safetensors is damaged"):
            Shards.open(copy).names[12]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "x"}, {"photos": 10**30}, {"photos": -1}, {"photos": True}, {"rows": 0},
        {"rows": 2.5}, {"rows": "4"}, {"dimensions": None}, {"attributes": 3}, {"attributes": []},
        {"attributes": [1, 2]}, {"dtype": "int8"}, {"dtype": ["float32"]}, {"fingerprint": []},
        {"model": None}, {"extra": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_lies_is_refused(change: dict[str, Any], copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for work in (lambda: PhotoIndex.load(copy, MODEL), lambda: embed(copy)):
        with pytest.raises(InputError, match=r"manifest\.json is damaged"):
            work()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"photos": 2**47, "rows": 1}, "of another job"),
        ({"attributes": ["a"] * 2}, "of another job"),
        ({"fingerprint": "0"}, "of another job"),
        ({"dimensions": 2**40}, "of another job"),
    ],
    ids=str,
)
def test_a_manifest_that_does_not_fit_its_shards_is_refused(
    change: dict[str, Any], says: str, copy: Path
) -> None:
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=says):
        Shards.open(copy)
    for shard in copy.glob("shard_*"):
        shard.unlink()
    with pytest.raises(InputError, match="not finished"):
        Shards.open(copy)
    for text in ("", "[]", "7", '"manifest"', "{"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"manifest\.json"):
            Shards.open(copy)
    path.unlink()
    with pytest.raises(InputError, match="no folder of shards"):
        PhotoIndex.load(copy, MODEL)


# --- several processes ----------------------------------------------------------------------------

WORKER = """
import json, os, signal, sys
from pathlib import Path
import torch.distributed as dist
from agman import shards
from agman.datasets import PackedImages
from agman.errors import InputError
from tests import test_shards as t

out, bad, rank, world = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
meet = f"file://{out / f'meet{world}'}"
dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world)
if world == 2:  # the second process, while it writes its second shard
    write, written = shards.write_tensors, []
    def writing(path, *rest):
        written.append(path)
        if rank == 1 and len(written) == 2:
            path.with_name(f".{path.name}.9.part").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, *rest)
    shards.write_tensors = writing
    t.embed(out / "resumed")
else:
    seen, load = [], PackedImages.load
    def counted(self, rows, size):
        seen.extend(map(int, rows))
        return load(self, rows, size)
    PackedImages.load = counted
    t.embed(out / "three")
    (out / f"seen{rank}.json").write_text(json.dumps(seen))
    t.embed(out / "resumed")
    t.embed(out / "control", model=t.new_model(1))
    try:
        t.embed(out / "bad", bad)
    except InputError as error:
        (out / f"error{rank}.txt").write_text(str(error))
    t.embed(out / "bad", bad, skip_bad=True)
dist.destroy_process_group()
"""


ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def work_together(world: int, script: Path, bad: Path) -> list[str]:
    """Start so many processes; what each said, and how it ended if not well."""
    command = [sys.executable, str(script), str(script.parent), str(bad)]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(world)],
            cwd=ROOT,
            env=ENV,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [worker.communicate(timeout=200)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return [f"{w.returncode} {text}" if w.returncode else "" for w, text in zip(workers, said)]


def test_two_and_three_processes_and_a_kill_make_what_one_makes(
    made: Path, photos: Path, tmp_path: Path
) -> None:
    bad = Path(shutil.copytree(photos, tmp_path / "photos"))
    for number in (1, 22):  # shards of the first and the last process
        (bad / f"{number:02}.png").write_bytes(b"no image")
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    killed = work_together(2, script, bad)
    assert killed[0], "without the other it cannot end well"
    assert killed[1].startswith("-9")
    finished = content(tmp_path / "resumed")
    assert 2 <= len(finished) < 8, "some shards, not all"
    assert any(name.endswith(".part") for name in finished)
    assert work_together(3, script, bad) == [""] * 3
    seen = [json.loads((tmp_path / f"seen{rank}.json").read_text()) for rank in range(3)]
    assert sorted(seen[0] + seen[1] + seen[2]) == list(range(N)), "each photo once"
    assert [len(rows) for rows in seen] == [8, 8, 7]
    assert content(tmp_path / "three") == content(made)
    assert content(tmp_path / "resumed") == content(made)
    assert all(content(made)[name] == data for name, data in finished.items() if "part" not in name)
    control = content(tmp_path / "control")
    assert all(control[name] != data for name, data in content(made).items())
    errors = {(tmp_path / f"error{rank}.txt").read_text() for rank in range(3)}
    assert len(errors) == 1, "all are told the same"
    assert errors.pop().startswith("2 of 23 photos cannot be read")
    assert Shards.open(tmp_path / "bad").skipped == ("01.png", "22.png")


# --- the commands ---------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    code = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_the_commands_from_photos_to_a_search(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss")
    weights, shop = tmp_path / "model.safetensors", tmp_path / "shop"
    MODEL.save(weights)
    words = ("embed", "--weights", weights, "--photos", photos, "--device", "cpu", "--quiet")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node=2", "-m", "--", "agman.cli", *words]
    torchrun = [str(word) for word in (*torchrun, "--out", shop, "--shards", ROWS)]
    done = subprocess.run(torchrun, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("23 photos under 2 attributes (64 numbers each), 6 shards in") == 1
    one = tmp_path / "one"
    run(capsys, *words, "--out", one, "--shards", ROWS)
    assert content(shop) == content(one)
    run(capsys, *words, "--out", tmp_path / "i.safetensors")
    ask = ("search", "--weights", weights, "--photo", photos / "05.png", "--attribute", "place")
    ask = (*ask, "--device", "cpu", "-k", 4)
    wanted = run(capsys, *ask, "--index", tmp_path / "i.safetensors")
    assert "1.000  05.png" in wanted
    assert run(capsys, *ask, "--index", shop) == wanted
    for engine in ("flat", "ivf", "hnsw"):
        assert (
            run(capsys, *ask, "--index", tmp_path / "i.safetensors", "--engine", engine) == wanted
        )
    said = refused(capsys, *ask, "--index", shop, "--engine", "ivf")
    assert "`agman index` first" in said
    build = ("index", "--shards", shop, "--quiet", "--engine")
    said = run(capsys, *build, "ivf", "--attribute", "place")
    assert "ivf of 1 of 2 attributes, 23 photos" in said
    assert "ivf of 2 of 2 attributes" in run(capsys, *build, "ivf")
    assert "hnsw of 2 of 2 attributes" in run(capsys, *build, "hnsw", "--n-links", 8)
    for engine, effort in (("ivf", "--n-probe"), ("hnsw", "--ef-search")):
        assert run(capsys, *ask, "--index", shop, "--engine", engine, effort, 10) == wanted
    assert "they have color, place" in refused(capsys, *build, "ivf", "--attribute", "size")
    assert "no setting n_links" in refused(capsys, *build, "ivf", "--n-links", 8)
    other = tmp_path / "other"
    run(capsys, *words, "--out", other, "--shards", 5)
    shutil.copytree(shop / "ivf", other / "ivf")
    said = refused(capsys, *ask, "--index", other, "--engine", "ivf")
    assert "other photos or other weights" in said


def test_packed_photos_can_be_embedded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MODEL.save(tmp_path / "model.safetensors")
    STORE.save(tmp_path / "photos.npz")
    words = ("embed", "--weights", tmp_path / "model.safetensors", "--device", "cpu", "--quiet")
    words = (*words, "--photos", tmp_path / "photos.npz", "--batch-size", 3)
    run(capsys, *words, "--shards", ROWS, "--out", tmp_path / "shop")
    assert tuple(Shards.open(tmp_path / "shop").names) == STORE.names
