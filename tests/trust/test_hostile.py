"""Files that lie about themselves, and one that is merely large."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import agman
from agman.attributes import FASHIONAI
from agman.datasets import PackedImages, read_csv
from agman.errors import InputError
from agman.index import PhotoIndex
from agman.models import RetrievalModel
from agman.storage import read_tensors, write_tensors
from tests import tiny
from tests.trust import memory
from tests.trust.fuzz import script

Header = dict[str, Any]


def liar(header: Header | bytes, data: bytes = b"\0" * 64, length: int | None = None) -> bytes:
    """A safetensors file with this header, which may claim another length than it has."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> Header:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "header longer than the file": liar({"a": tensor(0, 64, [16])}, length=10_000),
    "header of all memory": liar({"a": tensor(0, 64, [16])}, length=2**63 - 1),
    "negative length": liar({"a": tensor(0, 64, [16])}, length=2**64 - 1),
    "header of a hundred megabytes": liar(b"{" + b" " * 100_000_001 + b"}"),
    "data beyond the file": liar({"a": tensor(0, 4096, [1024])}),
    "overlapping tensors": liar({"a": tensor(0, 40, [10]), "b": tensor(24, 64, [10])}),
    "the same bytes twice": liar({"a": tensor(0, 64, [16]), "b": tensor(0, 64, [16])}),
    "a hole": liar({"a": tensor(0, 16, [4]), "b": tensor(32, 64, [8])}),
    "bytes left over": liar({"a": tensor(0, 32, [8])}),
    "end before begin": liar({"a": tensor(64, 0, [16])}),
    "more elements than bytes": liar({"a": tensor(0, 64, [17])}),
    "fewer elements than bytes": liar({"a": tensor(0, 64, [15])}),
    "wider type than bytes": liar({"a": tensor(0, 64, [16], "F64")}),
    "no such type": liar({"a": tensor(0, 64, [16], "F31")}),
    "elements beyond counting": liar({"a": tensor(0, 64, [2**33, 2**33])}),
    "a negative side": liar({"a": tensor(0, 64, [-4, -4])}),
    "no shape": liar({"a": {"dtype": "F32", "data_offsets": [0, 64]}}),
    "a list": liar(b"[]"),
    "two of one name": liar(b'{"a":' + json.dumps(tensor(0, 64, [16])).encode() + b"," * 2 + b"}"),
    "deeply nested": liar(b"[" * 100_000),
    "metadata that is no JSON": liar({"__metadata__": {"agman": "{"}, "a": tensor(0, 64, [16])}),
    "metadata of another type": liar({"__metadata__": {"agman": 1}, "a": tensor(0, 64, [16])}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_refused_at_once_and_in_little_memory(lie: str, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(LIES[lie])
    started = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(InputError, match=r"w\.safetensors .*; give a file") as caught:
        read_tensors(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 50e6
    assert time.perf_counter() - started < 5


def test_the_lies_are_told_of_files_that_would_be_read(tmp_path: Path) -> None:
    """The same bytes with true headers are accepted: it is the lie that is refused."""
    file = tmp_path / "w.safetensors"
    for header in (
        {"a": tensor(0, 64, [16])},
        {"a": tensor(0, 24, [6]), "b": tensor(24, 64, [10])},
    ):
        file.write_bytes(liar(header))
        assert set(read_tensors(file)[0]) == set(header)


@pytest.fixture(scope="module")
def model() -> RetrievalModel:
    return agman.create_model("csn", n_attributes=2, backbone="lab").eval()


# Each spoils the metadata m of a model of two attributes, or its tensors t.
CHANGES: dict[str, Callable[[dict[str, torch.Tensor], Any], Any]] = {
    "another shape": lambda t, m: t.update({"mask.weight": torch.zeros(3, 64)}),
    "a tensor less": lambda t, m: t.pop("mask.weight"),
    "a tensor more": lambda t, m: t.update({"more": torch.zeros(1)}),
    "config of another kind": lambda t, m: m.update({"config": [1]}),
    "no number of attributes": lambda t, m: m["config"].update({"n_attributes": "2"}),
    "attributes beyond memory": lambda t, m: m["config"].update({"n_attributes": 10**12}),
    "width beyond memory": lambda t, m: m["config"].update({"dim": 10**12}),
    "half an attribute": lambda t, m: m["config"].update({"n_attributes": 2.5}),
    "another model": lambda t, m: m.update({"model": "agman"}),
    "no such model": lambda t, m: m.update({"model": ["csn"]}),
    "a backbone with a path": lambda t, m: m["config"].update({"backbone": "../lab"}),
    "a size of nothing": lambda t, m: m["preprocessing"].update({"size": None}),
    "a negative size": lambda t, m: m["preprocessing"].update({"size": -3}),
    "two means": lambda t, m: m["preprocessing"].update({"mean": [0.5, 0.5]}),
    "a mean of words": lambda t, m: m["preprocessing"].update({"mean": ["a", "b", "c"]}),
    "a schema of numbers": lambda t, m: m.update({"schema": {"names": 3}}),
    "a schema of more attributes": lambda t, m: m.update({"schema": FASHIONAI.to_dict()}),
    "a provenance of words": lambda t, m: m.update({"provenance": "mine"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_whose_metadata_lie_are_refused(
    change: str, model: RetrievalModel, tmp_path: Path
) -> None:
    file = tmp_path / "w.safetensors"
    model.save(file)
    tensors, metadata = read_tensors(file)
    CHANGES[change](tensors, metadata)
    write_tensors(file, tensors, metadata)
    with pytest.raises(InputError) as caught:
        agman.load(file)
    assert "w.safetensors" in str(caught.value)
    if "beyond memory" in change:
        assert "would fill the memory" in str(caught.value), "refused before it is tried"


@pytest.mark.parametrize(
    "change",
    [
        {"names": 4}, {"names": [[1]] * 3}, {"names": None}, {"kind": 7}, {"model": None},
        {"fingerprint": []},
    ],
    ids=str,
)  # fmt: skip
def test_an_index_whose_metadata_lie_is_refused(
    change: dict[str, Any], model: RetrievalModel, tmp_path: Path
) -> None:
    file = tmp_path / "i.safetensors"
    PhotoIndex.build(model, tiny.table(4).images, progress=False).save(file)
    tensors, metadata = read_tensors(file)
    write_tensors(file, tensors, metadata | change)
    if change == {"model": None}:  # a word for people, nothing depends on it
        assert len(PhotoIndex.load(file, model)) == 4
        return
    with pytest.raises(InputError, match=r"i\.safetensors"):
        PhotoIndex.load(file, model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_index_of_what_is_no_number_is_refused(
    value: float, model: RetrievalModel, tmp_path: Path
) -> None:
    file = tmp_path / "i.safetensors"
    PhotoIndex.build(model, tiny.table(4).images, progress=False).save(file)
    tensors, metadata = read_tensors(file)
    tensors["embeddings"][2, 0, 0] = value
    write_tensors(file, tensors, metadata)
    with pytest.raises(InputError):
        PhotoIndex.load(file, model).search_embedding(torch.ones(64) / 8, 0, 1)


@pytest.mark.skipif(not memory.can_be_told(), reason="the peak of memory is read as on Linux")
def test_a_catalogue_of_a_million_rows(tmp_path: Path) -> None:
    """In seconds, and in less than a kilobyte for each row."""
    rows, n_images = 1_000_000, 100_000  # ten lines on each image add up
    names = [f"{i}.jpg" for i in range(n_images)]
    file, colors = tmp_path / "large.csv", ("red", "green", "blue")
    with file.open("w") as out:
        out.write("file,color,length\n0.jpg,,long\n1.jpg,,short\n")
        out.writelines(f"{names[i % n_images]},{colors[i % n_images % 3]},\n" for i in range(rows))
    store = PackedImages(np.zeros((n_images, 1, 1, 3), np.uint8), names)
    memory.forget_peak()
    before, started = memory.peak(), time.perf_counter()
    table = read_csv(file, store)
    seconds, megabytes = time.perf_counter() - started, memory.peak() - before
    assert len(table) == n_images + 2
    assert table.schema.values == (("blue", "green", "red"), ("long", "short"))
    assert seconds < 60
    assert 50 < megabytes < rows / 1024, "what is held for so many rows is seen"


def test_a_lone_quotation_mark_that_swallows_a_file(tmp_path: Path) -> None:
    """Beyond 128 KiB in one cell Python's reader gives up, with an error of its own."""
    header = "CID,Category,Closure,Gender,HeelHeight\n"
    file = tmp_path / "meta.csv"
    file.write_text(header + '1-2,"Shoes,Lace,Men,\n' + "3-4,Boots,,,2in\n" * 10_000)
    with pytest.raises(InputError, match=r"meta\.csv, line \d+: not valid CSV"):
        script("zappos50k").read_metadata(file)
    with pytest.raises(InputError, match=r"meta\.csv, line \d+: not valid CSV"):
        read_csv(file)
