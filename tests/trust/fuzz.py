"""Damaged files for every reader, to see that nothing but `InputError` comes out.

    python -m tests.trust.fuzz --inputs 100000

Each input is a valid file that was damaged at random: bytes changed, cut, doubled or replaced by
what readers stumble over. The seed and the number of an input are enough to make it again.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import agman
from agman.checkpoint import load_reference, load_state, save_state
from agman.datasets import read_asen, read_csn, read_csv
from agman.datasets.images import load_image
from agman.errors import InputError
from agman.index import PhotoIndex
from agman.storage import read_json, write_tensors
from tests import tiny

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


def picture(form: str) -> bytes:
    """A small picture in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.fromarray(tiny.table(1).images.array[0][:12, :10]).save(buffer, form)  # type: ignore[attr-defined]
    return buffer.getvalue()


def written(write: Callable[[Path], None]) -> bytes:
    """What `write` puts into a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


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
    pictures = {
        f"image, {form}": Target({"image": picture(form)}, lambda f: load_image(f / "image", 8))
        for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
    }
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
        **pictures,
    }


def fuzz(n_inputs: int, seed: int = 0, progress: int = 0) -> dict[str, Counter[str]]:
    """Try `n_inputs` damaged inputs, the readers in turn, and count what came of each.

    Args:
        n_inputs: over all readers.
        seed: of the damage.
        progress: print a line after so many inputs; 0 for none.

    Returns:
        For each reader how many inputs were accepted and refused.

    Raises:
        AssertionError: something other than `InputError` came out, with the input's number.
    """
    known = targets()
    counts: dict[str, Counter[str]] = {name: Counter() for name in known}
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
            path.write_bytes(damaged(known[name].files[file], random))
            try:
                known[name].read(folders[name])
                counts[name]["accepted"] += 1
            except InputError:
                counts[name]["refused"] += 1
            except BaseException as error:
                raise AssertionError(f"input {number} (seed {seed}), {name}, {file}") from error
            path.write_bytes(known[name].files[file])
            if progress and (number + 1) % progress == 0:
                print(f"{number + 1} inputs", file=sys.stderr, flush=True)
    return counts


UNREADABLE = ("tensors", "reference checkpoint")  # valid files of the wrong kind


def main() -> None:
    """Fuzz, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = fuzz(options.inputs, options.seed, progress=10_000)
    print(f"{'reader':<22} {'inputs':>8} {'accepted':>9} {'refused':>8}")
    for name, count in counts.items():
        print(f"{name:<22} {count.total():8} {count['accepted']:9} {count['refused']:8}")


if __name__ == "__main__":
    main()
