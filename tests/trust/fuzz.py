"""Damaged files for every reader, to see that nothing but `InputError` comes out.

    python -m tests.trust.fuzz --inputs 100000 --out book/results/fuzz.json

Each input is a valid file that was damaged at random: bytes changed, cut, doubled or replaced by
what readers stumble over; in JSON also a value of another type. The seed and the number
of an input are enough to make it again. Anything else that comes out, and any file that a reader
leaves, is told, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import json
import shutil
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import agman
from agman.checkpoint import load_reference, load_state, save_state
from agman.course import results, status
from agman.datasets import PackedImages, prepare, read_asen, read_csn, read_csv
from agman.datasets.archives import unpack
from agman.datasets.images import load_image
from agman.errors import InputError
from agman.experiments import reproduce
from agman.index import PhotoIndex
from agman.provenance import provenance
from agman.shards import embed_shards
from agman.storage import read_json, write_json, write_tensors
from tests import tiny
from tests.data_scripts import trees

ROOT = Path(__file__).resolve().parents[2]

TOKENS = (
    b"-1", b"0", b"7", b"99999999999999999999", b"1e9", b"NaN", b"null", b"true", b"[]", b"{}",
    b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\r\n", b",", b";", b'"', b"'", b" ",
    b"\t", b"../", b"/", b"\xc3\xa9", b"\xe9", b"[[[[", b"}", b":",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One reader and the valid files it is given: `read` gets the folder that holds them."""

    files: Mapping[str, bytes]
    read: Callable[[Path], Any]


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """The content after one to four kinds of damage."""
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at, end = sorted(int(i) for i in random.integers(0, len(data) + 1, size=2))
        token = TOKENS[random.integers(len(TOKENS))]
        kind = random.integers(7)
        if kind == 0:
            data[at:at] = token
        elif kind == 1:
            data[at : at + len(token)] = token
        elif kind == 2:
            del data[at : at + int(random.integers(1, 9))]
        elif kind == 3:
            del data[at:end]
        elif kind == 4:
            data[at:at] = data[at : min(end, at + 200)]
        elif kind == 5 and data:
            data[min(at, len(data) - 1)] ^= 1 << int(random.integers(8))
        elif kind == 6:
            data[at : at + 4] = random.bytes(4)
    return bytes(data)


OTHERS: tuple[Any, ...] = (
    None, True, -1, 0, 2.5, 10**30, float("nan"), "", "a", [], [1], {}, {"a": 1}, [[]],
)  # fmt: skip


def mistyped(content: bytes, random: np.random.Generator) -> bytes:
    """JSON with one value or key replaced by something of another type, or taken out."""
    whole = [json.loads(content)]
    node: Any = whole
    while True:
        key = list(node)[random.integers(len(node))] if isinstance(node, dict) else None
        key = random.integers(len(node)) if key is None else key
        deeper = isinstance(node[key], (dict, list)) and len(node[key])
        if not deeper or random.random() < 0.2:
            break
        node = node[key]
    if isinstance(node, dict) and random.random() < 0.3:
        del node[key]
    else:
        node[key] = copy.deepcopy(OTHERS[random.integers(len(OTHERS))])
    return json.dumps(whole[0]).encode()


def script(name: str) -> Any:
    """One of the scripts in `data_scripts/`, as a module."""
    spec = importlib.util.spec_from_file_location(
        f"fuzzed_{name}", ROOT / f"data_scripts/{name}.py"
    )
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def annotations(make: Callable[[Path], Any]) -> dict[str, bytes]:
    """The text files that `make` writes into a folder, by their path below it."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.suffix in (".txt", ".csv")
        }


def recorded_runs() -> bytes:
    """A results file with two runs that were really made."""
    quick = {"epochs": 1, "triplets_per_epoch": 32, "batch_size": 16, "size": 32, "weights": None}
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        file = Path(place) / "lab.json"
        reproduce(
            "lab", tiny.data(), results=file, runs=Path(place), variants=["CSN"], seeds=(0, 1),
            changes=quick, progress=False,
        )  # fmt: skip
        return file.read_bytes()


def reproduced(folder: Path) -> None:
    """`agman reproduce` with a results file that somebody else may have written."""
    with contextlib.redirect_stdout(io.StringIO()):
        reproduce(
            "lab", tiny.data(), results=folder / "lab.json", runs=folder / "runs",
            variants=["CSN"], seeds=(0, 1), dry_run=True, progress=False,
            changes={"size": 32, "weights": None, "epochs": 1, "triplets_per_epoch": 32,
                     "batch_size": 16},
        )  # fmt: skip


def picture(form: str) -> bytes:
    """A small picture in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.fromarray(tiny.table(1).images.array[0][:12, :10]).save(buffer, form)  # type: ignore[attr-defined]
    return buffer.getvalue()


def animation(form: str) -> bytes:
    """Two small pictures, one after the other."""
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (10, 12), color) for color in ("red", "blue")]
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def written(write: Callable[[Path], None]) -> bytes:
    """What `write` puts into a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


def all_written(write: Callable[[Path], Any]) -> dict[str, bytes]:
    """What `write` puts into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def archived(kind: str) -> bytes:
    """Two files in an archive of a kind."""

    def write(path: Path) -> None:
        files = {"a.txt": b"text " * 40, "deep/b.txt": b"more"}
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return
        with tarfile.open(path, kind) as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))

    return written(write)


def unpacked(folder: Path) -> None:
    """Unpack what lies in a folder, and look that all of it stays where it should."""
    out = folder / "deep" / "out"
    try:
        unpack(folder / "archive", out, max_bytes=10**6, progress=False)
    finally:
        shutil.rmtree(out, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            out.parent.rmdir()  # fails, as an escape does, if something lies beside `out`


def targets() -> dict[str, Target]:
    """Every reader that opens a file which somebody else may have made."""
    model = agman.create_model("csn", n_attributes=2, backbone="lab").eval()
    shop = b'file,color,"sleeve, length"\na.png,blue,short\nb.png,"red, dark",\nc.png,,long\n'
    meta = b'{"D": {"ATTRIBUTES": ["a", "b"], "ATTRIBUTES_NUM": {"a": 3, "b": 2}}}'
    asen = {
        "meta.json": meta,
        "D/filenames_train.txt": b"x/1.jpg\nx/2.jpg\nx/3.jpg\n",
        "D/label_train.txt": b"0 0 1\n1 0 2 1 0\n2 1 1\n",
        "D/filenames_test.txt": b"y/1.jpg\ny/2.jpg\n",
        "D/query_test.txt": b"0 0 1\n",
        "D/candidate_test.txt": b"1 0 1\n0 1 1\n",
    }
    csn = {"filenames.json": b"a/1.jpg\na/2.jpg\na/3.jpg\n"} | {
        f"tripletlists/{name}_tripletlist_train.txt": b"0 1 2\n2 0 1\n"
        for name in ("class", "closure", "gender", "heel")
    }
    index = PhotoIndex.build(model, tiny.table(4).images, progress=False)
    state = {"step": 3, "model": {"w": torch.arange(6.0)}, "names": ["a"]}
    reference = {f"embeddingnet.{k}": v for k, v in list(model.state_dict().items())[:3]}
    images = {form: picture(form) for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")}
    images |= {f"animated {form}": animation(form) for form in ("PNG", "GIF", "WEBP")}
    pictures = {
        f"image, {form}": Target({"image": content}, lambda f: load_image(f / "image", 8))
        for form, content in images.items()
    }
    archives = {
        f"archive, {kind}": Target({"archive": archived(kind)}, unpacked)
        for kind in ("zip", "w", "w:gz")
    }
    packed = PackedImages(np.zeros((2, 4, 4, 3), np.uint8), ["a.jpg", "b.jpg"])
    store = tiny.table(4).images
    return {
        "catalogue": Target(
            {"shop.csv": shop, "a.png": b"", "b.png": b"", "c.png": b""},
            lambda f: read_csv(f / "shop.csv"),
        ),
        "ASEN lists": Target(asen, lambda f: read_asen(f, check_images=False)),
        "CSN lists": Target(csn, lambda f: read_csn(f, f, check_images=False)),
        "JSON": Target({"a.json": meta}, lambda f: read_json(f / "a.json")),
        "weights": Target({"m": written(model.save)}, lambda f: agman.load(f / "m")),
        "tensors": Target(
            {"m": written(lambda p: write_tensors(p, {"a": torch.zeros(3)}, {"b": 1}))},
            lambda f: agman.load(f / "m"),
        ),
        "photo index": Target(
            {"i": written(index.save)}, lambda f: PhotoIndex.load(f / "i", model)
        ),
        "training state": Target(
            {"s": written(lambda p: save_state(p, state))}, lambda f: load_state(f / "s")
        ),
        "reference checkpoint": Target(
            {"r": written(lambda p: save_state(p, {"state_dict": reference}))},
            lambda f: load_reference(f / "r"),
        ),
        "packed images": Target(
            {"p": written(packed.save)}, lambda f: PackedImages.open(f / "p").load([0, 1], 4)
        ),
        "prepared set": Target(all_written(prepared), read_prepared),
        "shards": Target(
            all_written(lambda f: embed_shards(model, store, f, rows=3, progress=False)),
            lambda f: list(PhotoIndex.load(f, model).names),
        ),
        **engines(index),
        **archives,
        **scripts(),
        **result_files(),
        **pictures,
    }


def engines(index: PhotoIndex) -> dict[str, Target]:
    """Search engines kept in a folder, where FAISS is there. Its own file `hnsw` is left out:
    FAISS reads it, and `agman.engines` says to open none of a stranger."""
    if importlib.util.find_spec("faiss") is None:
        return {}
    files = all_written(lambda f: index.build_engine(f, "ivf", n_cells=2, progress=False))
    question = torch.ones(index.embeddings.shape[-1])
    return {
        "search engine": Target(
            files, lambda f: index.open_engine(f, n_probe=2).search_embedding(question, 0, 4)
        )
    }


def prepared(folder: Path) -> None:
    """A prepared data set, its images packed."""
    data = tiny.data(8, 8)
    store = data.train.images
    with tempfile.TemporaryDirectory() as photos:
        for name, pixels in zip(store.names, store.array, strict=True):  # type: ignore[attr-defined]
            Image.fromarray(pixels).save(Path(photos) / name)
        prepare(data, Path(photos), folder, 8, progress=False)


def read_prepared(folder: Path) -> None:
    """A prepared data set, with all its images."""
    data = read_asen(folder)
    for table in (data.train, data.valid.gallery, data.test.queries):
        table.images.load(range(len(table.images)), 8)


def scripts() -> dict[str, Target]:
    """The readers of labels in `data_scripts/`."""
    fashionai, deepfashion, zappos = map(script, ("fashionai", "deepfashion", "zappos50k"))

    def partition(folder: Path) -> None:
        labels = deepfashion.read_coarse(folder)
        deepfashion.read_partition(folder, labels.names)

    items = annotations(lambda folder: trees.deepfashion_tree(folder, 12))
    shoes = (
        b"CID,Category,Closure,Gender,HeelHeight\n1-2,Shoes,Lace,Men;Boys,\n3-4,Boots,,Men,2in\n"
    )
    return {
        "FashionAI labels": Target(
            annotations(lambda folder: trees.fashionai_tree(folder, 1)), fashionai.read_labels
        ),
        "DeepFashion, coarse": Target(
            {name: text for name, text in items.items() if "fine" not in name}, partition
        ),
        "DeepFashion, fine": Target(
            {name: text for name, text in items.items() if "fine" in name}, deepfashion.read_fine
        ),
        "UT-Zappos50K metadata": Target(
            {"meta.csv": shoes}, lambda folder: zappos.read_metadata(folder / "meta.csv")
        ),
        "UT-Zappos50K photos": Target(
            {
                "names.json": b"a/b/c/1.2.jpg\na/b/d/3.4.jpg\n",
                "a/b/c/1.2.jpg": b"",
                "d/3.4.jpg": b"",
            },
            lambda folder: zappos.read_photos(folder / "names.json", folder),
        ),
    }


def result_files() -> dict[str, Target]:
    """The readers of recorded experiments."""
    runs = {"lab.json": recorded_runs()}

    return {
        "results, chapter": Target(runs, lambda folder: results.recorded("lab", folder)),
        "results, provenance": Target(runs, status.recorded),
        "results, reproduce": Target(runs, reproduced),
    }


def fuzz(n_inputs: int, seed: int = 0, progress: int = 0) -> dict[str, Any]:
    """Try `n_inputs` damaged inputs, the readers in turn, and count what came of each.

    Args:
        n_inputs: over all readers.
        seed: of the damage.
        progress: print a line after so many inputs; 0 for none.

    Returns:
        `targets`: for each reader how many inputs it was given, accepted and refused; `escaped`:
        how often anything but `InputError` came out or a file was left; `escapes`: a sentence on
        each of the first twenty.
    """
    started = time.perf_counter()
    known = targets()
    counts: dict[str, Counter[str]] = {name: Counter() for name in known}
    escapes: list[str] = []
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folders = {name: Path(place) / str(i) for i, name in enumerate(known)}
        for name, target in known.items():
            for file, content in target.files.items():
                (folders[name] / file).parent.mkdir(parents=True, exist_ok=True)
                (folders[name] / file).write_bytes(content)
            target.read(folders[name]) if name not in UNREADABLE else None
        for number in range(n_inputs):
            name = list(known)[number % len(known)]
            random = np.random.default_rng((seed, number))
            file = list(known[name].files)[random.integers(len(known[name].files))]
            path = folders[name] / file
            valid = known[name].files[file]
            harm = mistyped if is_json(valid) and random.random() < 0.7 else damaged
            path.write_bytes(harm(valid, random))
            counts[name]["inputs"] += 1
            try:
                known[name].read(folders[name])
                counts[name]["accepted"] += 1
            except InputError:
                counts[name]["refused"] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                escapes.append(f"input {number} (seed {seed}), {name}, {file}: {error!r}")
            path.write_bytes(known[name].files[file])
            if progress and (number + 1) % progress == 0:
                print(f"{number + 1} inputs", file=sys.stderr, flush=True)
        for name, target in known.items():
            files = (path for path in folders[name].rglob("*") if path.is_file())
            left = {path.relative_to(folders[name]).as_posix() for path in files}
            left |= {p.name for p in Path(place).iterdir()} - {f.name for f in folders.values()}
            escapes += [f"{name} left {file}" for file in sorted(left - set(target.files))]
    return {
        "experiment": "fuzz",
        "inputs": n_inputs,
        "targets": {
            name: {key: count[key] for key in ("inputs", "refused", "accepted")}
            for name, count in counts.items()
        },
        "escaped": len(escapes),
        "escapes": escapes[:20],
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
    }


def is_json(content: bytes) -> bool:
    """Whether it is an object in JSON."""
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


UNREADABLE = ("tensors", "reference checkpoint")  # valid files of the wrong kind


def main(words: Sequence[str] | None = None) -> int:
    """Fuzz, and print the table; 1 if anything escaped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file for the counts and their provenance")
    options = parser.parse_args(words)
    found = fuzz(options.inputs, options.seed, progress=10_000)
    print(f"{'reader':<22} {'inputs':>8} {'accepted':>9} {'refused':>8}")
    for name, count in found["targets"].items():
        print(f"{name:<22} {count['inputs']:8} {count['accepted']:9} {count['refused']:8}")
    print(*found["escapes"], f"{found['escaped']} escaped", sep="\n")
    if options.out:
        write_json(options.out, found | {"provenance": provenance()})
    return int(found["escaped"] > 0)


if __name__ == "__main__":
    sys.exit(main())
