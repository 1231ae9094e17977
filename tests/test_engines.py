"""Search engines: exact is exact, FAISS's find what they should, files fit or are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from agman.engines import (
    Engine,
    Exact,
    build_engine,
    make_engine,
    open_engine,
    settings_for,
)
from agman.errors import InputError
from agman.ranking import top_k

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Pieces:
    """Vectors (N, A, D) in blocks of a given size."""

    array: torch.Tensor
    size: int
    identity: str = "these"

    @property
    def shape(self) -> tuple[int, int, int]:
        n, a, d = self.array.shape
        return n, a, d

    def blocks(self, attribute: int) -> Iterator[tuple[str, torch.Tensor]]:
        for number, block in enumerate(self.array[:, attribute].split(self.size)):
            yield f"piece {number}", block


def clustered(n: int = 3000, width: int = 24, seed: int = 0) -> torch.Tensor:
    """Unit vectors around thirty centres, as photos lie around values."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(30, width, generator=random)
    own = torch.randint(30, (n,), generator=random)
    return normalize(centres[own] + 0.4 * torch.randn(n, width, generator=random), dim=1)


VECTORS = clustered()
QUERIES = clustered(40, seed=1)
PIECES = Pieces(torch.stack([VECTORS, VECTORS.flip(0)], dim=1), 700)


def engine_of(name: str, vectors: torch.Tensor = VECTORS, **settings: int) -> Engine:
    pieces = Pieces(vectors[:, None], 700)
    n, _, width = pieces.shape
    chosen = settings_for(name, n, **settings)
    return make_engine(name, lambda: pieces.blocks(0), n, width, chosen)


def recall(engine: Engine, k: int = 10, vectors: torch.Tensor = VECTORS) -> float:
    """The share of the k best that an engine finds."""
    best = top_k(QUERIES, vectors, k)[1]
    found = engine.search(QUERIES, k)[1]
    return float((found[:, :, None] == best[:, None]).any(2).float().mean())


# --- exact ----------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 60),
    size=st.integers(1, 60),
    k=st.integers(1, 70),
    half=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_exact_in_blocks_is_top_k_to_the_bit(
    n: int, size: int, k: int, half: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    few = normalize(torch.randn(5, 8, generator=random), dim=1)
    vectors = few[torch.randint(5, (n,), generator=random)]  # many ties
    vectors = vectors.half() if half else vectors
    pieces = Pieces(vectors[:, None], size)
    queries = torch.cat([few[:2], torch.randn(3, 8, generator=random)])
    for ours, wanted in zip(
        Exact(lambda: pieces.blocks(0)).search(queries, k), top_k(queries, vectors, k)
    ):
        assert torch.equal(ours, wanted)


def test_exact_names_the_block_that_is_no_number() -> None:
    bad = VECTORS.clone()
    bad[1500, 3] = torch.nan
    with pytest.raises(InputError, match="piece 2: gallery embeddings hold NaN"):
        Exact(lambda: Pieces(bad[:, None], 700).blocks(0)).search(QUERIES, 3)
    for name in ("flat", "ivf", "hnsw"):
        pytest.importorskip("faiss")
        with pytest.raises(InputError, match="no finite numbers"):
            engine_of(name, bad)


# --- settings -------------------------------------------------------------------------------------


def test_defaults_grow_with_the_gallery() -> None:
    assert settings_for("ivf", 1) == {"n_cells": 1, "n_probe": 1}
    assert settings_for("ivf", 10_000) == {"n_cells": 200, "n_probe": 16}
    assert settings_for("ivf", 1_000_000)["n_cells"] == 2000
    assert settings_for("exact", 5) == settings_for("flat", 5) == {}


@pytest.mark.parametrize(
    ("engine", "settings", "says"),
    [
        ("annoy", {}, "choose among exact, flat, ivf, hnsw"),
        ("exact", {"n_probe": 3}, "has no setting n_probe; it has none"),
        ("hnsw", {"n_probe": 3}, "its settings are n_links"),
        ("ivf", {"n_cells": 101}, "from 1 to 100"),
        ("ivf", {"n_cells": 4, "n_probe": 5}, "from 1 to 4"),
        ("ivf", {"n_probe": 0}, "from 1 to"),
        ("hnsw", {"ef_search": True}, "whole number"),
        ("hnsw", {"n_links": 2.5}, "whole number"),
        ("ivf", {"n_cells": "8"}, "whole number"),
        ("ivf", {"n_cells": None}, "whole number"),
    ],
)
def test_wrong_settings_are_refused(engine: str, settings: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        settings_for(engine, 100, **settings)


# --- FAISS ----------------------------------------------------------------------------------------

faiss = pytest.importorskip("faiss")


@pytest.mark.parametrize("k", [1, 10, 3001])
@pytest.mark.parametrize(
    ("name", "settings"), [("flat", {}), ("ivf", {"n_cells": 20, "n_probe": 20})]
)
def test_engines_that_look_everywhere_find_the_best(name: str, settings: dict, k: int) -> None:
    scores, numbers = engine_of(name, **settings).search(QUERIES, k)
    best, where = top_k(QUERIES, VECTORS, k)
    assert torch.equal(numbers, where) or torch.allclose(scores, best, atol=1e-6)
    torch.testing.assert_close(scores, best, atol=1e-6, rtol=0)
    assert recall(engine_of(name, **settings)) == 1.0
    assert (k > len(VECTORS)) == bool((numbers == -1).any())


def test_approximate_engines_find_most_and_more_with_more_effort() -> None:
    few, more = (recall(engine_of("ivf", n_cells=100, n_probe=n)) for n in (1, 30))
    assert few < 0.9 < more
    few, more = (
        recall(engine_of("hnsw", n_links=4, ef_construction=8, ef_search=n)) for n in (10, 200)
    )
    assert few < more
    assert recall(engine_of("hnsw")) > 0.95


def test_the_same_vectors_give_the_same_cells() -> None:
    one, other = (engine_of("ivf", n_probe=2).search(QUERIES, 5) for _ in range(2))
    assert torch.equal(one[1], other[1])
    fine = Pieces(VECTORS[:, None], 11)  # nor do the blocks matter
    chosen = settings_for("ivf", 3000, n_probe=2)
    third = make_engine("ivf", lambda: fine.blocks(0), 3000, 24, chosen).search(QUERIES, 5)
    assert torch.equal(one[1], third[1])


@pytest.mark.parametrize("name", ["exact", "flat", "ivf", "hnsw"])
def test_every_engine_refuses_bad_questions(name: str) -> None:
    engine = engine_of(name)
    for queries, k in (
        (QUERIES[:, :3], 1),
        (QUERIES, 0),
        (QUERIES[0], 1),
        (QUERIES * torch.nan, 1),
    ):
        with pytest.raises(InputError):
            engine.search(queries, k)
    one = engine_of(name, VECTORS[:1])
    assert one.search(QUERIES, 2)[1].tolist() == [[0, -1]] * 40


def test_nothing_is_said_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("flat", "ivf", "hnsw"):
        engine_of(name, VECTORS[:30])
    assert capfd.readouterr() == ("", "")


def test_without_faiss_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert recall(engine_of("exact")) == 1.0
    for work in (lambda: engine_of("flat"), lambda: build_engine(PIECES, tmp_path, "ivf")):
        with pytest.raises(InputError, match="pip install faiss-cpu"):
            work()
    assert list(tmp_path.iterdir()) == []


# --- kept in a folder -----------------------------------------------------------------------------


def kept(folder: Path, attribute: int = 0, **settings: int) -> tuple[torch.Tensor, torch.Tensor]:
    return open_engine(PIECES, folder, **settings)[2](attribute).search(QUERIES, 10)


@pytest.mark.parametrize("name", ["ivf", "hnsw"])
def test_built_on_disk_it_answers_as_in_memory(name: str, tmp_path: Path) -> None:
    build_engine(PIECES, tmp_path, name, progress=False)
    engine, settings, _ = open_engine(PIECES, tmp_path)
    assert (engine, settings) == (name, settings_for(name, 3000))
    scores, numbers = kept(tmp_path)
    wanted, where = engine_of(name).search(QUERIES, 10)
    if name == "ivf":  # the same to the bit; a graph depends on the order of its threads
        assert torch.equal(scores, wanted)
        assert torch.equal(numbers, where)
    assert (numbers == where).float().mean() > 0.95
    first = 2999 - kept(tmp_path, 1)[1][:, 0]
    assert (first == where[:, 0]).float().mean() > 0.8, "the other attribute"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert str(tmp_path).encode() not in b"".join(p.read_bytes() for p in tmp_path.iterdir())


def test_cells_on_disk_need_not_all_be_filled(tmp_path: Path) -> None:
    """Copies of two vectors cannot fill eight cells."""
    pieces = Pieces(VECTORS[[0, 1] * 20][:, None], 7)
    build_engine(pieces, tmp_path, "ivf", n_cells=8, n_probe=8, progress=False)
    found = open_engine(pieces, tmp_path)[2](0).search(VECTORS[:2], 50)[1]
    assert sorted(found[0].tolist())[10:] == list(range(40))


def test_effort_can_be_chosen_later_and_cells_cannot(tmp_path: Path) -> None:
    build_engine(PIECES, tmp_path, "ivf", n_cells=100, n_probe=1, progress=False)
    all_cells = kept(tmp_path, n_probe=100)[1]
    assert torch.equal(all_cells, top_k(QUERIES, VECTORS, 10)[1])
    assert not torch.equal(kept(tmp_path)[1], all_cells)
    with pytest.raises(InputError, match="n_cells was fixed"):
        open_engine(PIECES, tmp_path, n_cells=50)
    with pytest.raises(InputError, match="no setting ef_search"):
        open_engine(PIECES, tmp_path, ef_search=50)
    with pytest.raises(InputError, match="other settings"):
        build_engine(PIECES, tmp_path, "ivf", n_cells=50, progress=False)
    build_engine(PIECES, tmp_path, "ivf", n_cells=100, n_probe=4, progress=False)


def test_attributes_are_built_one_by_one_and_kept(tmp_path: Path) -> None:
    build_engine(PIECES, tmp_path, "ivf", attributes=[1], progress=False)
    kept(tmp_path, 1)
    with pytest.raises(InputError, match="no engine for attribute 0 yet"):
        kept(tmp_path, 0)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()}
    build_engine(PIECES, tmp_path, "ivf", progress=False)
    assert all((p.stat().st_mtime_ns, p.read_bytes()) == then for p, then in before.items())
    kept(tmp_path, 0)


@pytest.mark.parametrize("name", ["ivf", "hnsw"])
def test_a_build_that_is_killed_is_made_again(name: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    build_engine(PIECES, whole, name, progress=False)
    code = (
        "import os, sys, signal; from tests import test_engines as t; from agman import engines\n"
        "class Dying(t.Pieces):\n"
        "    def blocks(self, attribute):\n"
        "        for number, block in enumerate(super().blocks(attribute)):\n"
        "            self.given = getattr(self, 'given', 0) + 1\n"
        "            if self.given == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "            yield block\n"
        "engines.build_engine(Dying(t.PIECES.array, 700), sys.argv[1], sys.argv[2], progress=False)"
    )
    # Of 5 pieces an attribute, read 3 times for ivf: while the second is being written.
    after = {"ivf": 28, "hnsw": 8}[name]
    killed = tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", code, killed, name, str(after)], cwd=ROOT)
    assert done.returncode == -9
    left = {p.name: p.read_bytes() for p in killed.glob("attribute_0.*")}
    assert len(left) == (2 if name == "ivf" else 1)
    with pytest.raises(InputError, match="no engine for attribute 1 yet"):
        kept(killed, 1)
    build_engine(PIECES, killed, name, progress=False)
    assert {n: (killed / n).read_bytes() for n in left} == left
    assert {p.name for p in killed.iterdir()} == {p.name for p in whole.iterdir()}
    if name == "ivf":
        for file in whole.iterdir():
            assert (killed / file.name).read_bytes() == file.read_bytes()


def test_other_photos_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no search engine in"):
        kept(tmp_path)
    build_engine(PIECES, tmp_path, "ivf", progress=False)
    other = Pieces(PIECES.array, 700, "others")
    with pytest.raises(InputError, match="other photos or other weights"):
        open_engine(other, tmp_path)
    with pytest.raises(InputError, match="other photos"):
        build_engine(other, tmp_path, "ivf", progress=False)
    with pytest.raises(InputError, match="other engine"):
        build_engine(PIECES, tmp_path, "hnsw", progress=False)
    with pytest.raises(InputError, match="Only ivf and hnsw"):
        build_engine(PIECES, tmp_path, "flat", progress=False)
    path = tmp_path / "engine.json"
    sound = json.loads(path.read_text())
    for change in (
        {"kind": "x"},
        {"engine": ["ivf"]},
        {"engine": "flat"},
        {"settings": None},
        {"settings": {"n_cells": 10**12, "n_probe": 1}},
        {"settings": {"n_cells": "a", "n_probe": 1}},
        {"photos": None},
        {"settings": [["attributes", 3]]},
    ):
        path.write_text(json.dumps(sound | change))
        with pytest.raises(InputError, match="build"):
            open_engine(PIECES, tmp_path)
    path.write_text("[]")
    with pytest.raises(InputError, match="does not describe"):
        open_engine(PIECES, tmp_path)


def test_damaged_files_of_an_engine_are_refused(tmp_path: Path) -> None:
    from agman.storage import read_tensors, write_tensors

    build_engine(PIECES, tmp_path / "ivf", "ivf", progress=False)
    build_engine(PIECES, tmp_path / "hnsw", "hnsw", progress=False)
    cells = tmp_path / "ivf" / "attribute_0.safetensors"
    tensors, about = read_tensors(cells)
    sizes = tensors["sizes"]
    lies = [sizes + 1, -sizes, sizes.float(), sizes[1:], sizes.flip(0)[None]]
    shifted = sizes.clone()
    shifted[0] += 2**62
    shifted[1] -= 2**62
    below = sizes.clone()
    below[1] += below[0] + 5
    below[0] = -5
    for lie in [*lies, shifted, below]:
        write_tensors(cells, tensors | {"sizes": lie}, about)
        with pytest.raises(InputError, match="damaged or do not fit"):
            kept(tmp_path / "ivf")
    for centres in (tensors["centres"][1:], tensors["centres"] * torch.nan):
        write_tensors(cells, tensors | {"centres": centres}, about)
        with pytest.raises(InputError, match="damaged or do not fit"):
            kept(tmp_path / "ivf")
    write_tensors(cells, tensors, about)
    vectors = cells.with_suffix(".vectors")
    whole = vectors.read_bytes()
    width = 24 * 4
    numbers = np.full(int(sizes[0]), 10**15, "<i8").tobytes()
    start = int(sizes[0]) * width
    vectors.write_bytes(whole[:start] + numbers + whole[start + len(numbers) :])
    with pytest.raises(InputError, match="damaged"):
        open_engine(PIECES, tmp_path / "ivf", n_probe=110)[2](0).search(QUERIES, 3000)
    vectors.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="damaged or do not fit"):
        kept(tmp_path / "ivf")
    vectors.unlink()
    with pytest.raises(InputError, match="damaged or do not fit"):
        kept(tmp_path / "ivf")
    graph = tmp_path / "hnsw" / "attribute_0.faiss"
    whole = graph.read_bytes()
    for damaged in (b"", whole[:1000], b"\0" * 100):
        graph.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged"):
            kept(tmp_path / "hnsw")
    faiss.write_index(faiss.IndexHNSWFlat(24, 8), str(graph))
    with pytest.raises(InputError, match="no graph of this index"):
        kept(tmp_path / "hnsw")


MEMORY = """
import sys, numpy as np, torch
from pathlib import Path
from agman import engines
from tests.test_engines import Pieces
folder, build, n, width = Path(sys.argv[1]), int(sys.argv[2]), 50_000, 512

class OnDisk(Pieces):
    shape = (n, 1, width)
    def __init__(self): self.identity = "these"
    def blocks(self, attribute):
        for start in range(0, n, 1000):
            random = torch.Generator().manual_seed(start)
            rows = torch.randn(1000, width, generator=random)
            yield "", torch.nn.functional.normalize(rows, dim=1)

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)

small = dict(n_cells=64, n_probe=2)
query = next(OnDisk().blocks(0))[1][:1].clone()
faiss = engines._faiss()
engines.make_engine("flat", lambda: [("", query)], 1, width, {}).search(query, 1)  # libraries
before = peak()
if build:
    engines.build_engine(OnDisk(), folder, "ivf", progress=False, **small)
else:
    print(engines.open_engine(OnDisk(), folder)[2](0).search(query, 1)[1].item())
print(peak() - before, n * width * 4 // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_cells_never_hold_all_vectors(tmp_path: Path) -> None:
    # glibc's heap would keep what is freed, more or less by chance; blocks mapped alone go back
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    for build, part in ((1, 0.2), (0, 0.1)):
        command = [sys.executable, "-c", MEMORY, str(tmp_path), str(build)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        *found, grown, all_of_them = done.stdout.split()
        assert found == ([] if build else ["0"])
        assert int(grown) < part * int(all_of_them), done.stdout
