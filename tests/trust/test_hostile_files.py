"""Files that were made to do harm: each is refused in one sentence, or gives the right thing.

`test_hostile.py` holds the lying headers of safetensors and the large catalogue.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import agman
from agman.checkpoint import load_reference, load_state
from agman.datasets import (
    FolderImages,
    PackedImages,
    downloads,
    images,
    lab,
    read_asen,
    read_csn,
    read_csv,
    read_image,
)
from agman.datasets.archives import list_files, unpack
from agman.datasets.asen import read_integers, read_names
from agman.errors import InputError
from agman.index import PhotoIndex
from agman.models import RetrievalModel
from agman.shards import embed_shards
from agman.storage import read_bytes, read_json, read_tensors, write_json, write_tensors, write_text
from tests import tiny
from tests.trust import memory
from tests.trust.fuzz import OTHERS

ROOT = Path(__file__).resolve().parents[2]


class Hung(BaseException):
    """No reader can mistake this for a damaged file."""


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Something that waits for ever is ended."""

    def ended(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(read: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The one sentence with which it is refused."""
    with pytest.raises(InputError) as caught:
        read(*args, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith((".", "?"))
    return said


@pytest.fixture(scope="module")
def model() -> RetrievalModel:
    return agman.create_model("csn", n_attributes=2, backbone="lab").eval()


# ------------------------------------------------------------------------- names of files

READERS: dict[str, Callable[[Path], Any]] = {
    "bytes": read_bytes,
    "JSON": read_json,
    "catalogue": read_csv,
    "ASEN lists": read_asen,
    "CSN lists": read_csn,
    "list of names": read_names,
    "list of numbers": read_integers,
    "tensors": read_tensors,
    "weights": agman.load,
    "training state": load_state,
    "reference checkpoint": load_reference,
    "packed images": PackedImages.open,
    "image": read_image,
    "archive": list_files,
}


def no_file(place: str, folder: Path) -> Path:
    """A path at which no reader finds what it wants."""
    path = folder / "strange.jpg"
    if place == "long name":
        return folder / ("x" * 300)
    if place == "NUL in the name":
        return folder / "a\0b"
    if place == "loop of links":
        path.symlink_to(path)
    if place == "folder":
        path.mkdir()
    if place == "pipe":
        os.mkfifo(path)
    if place == "device without end":
        path.symlink_to("/dev/zero")
    return path


PLACES = ("nothing", "long name", "NUL in the name", "loop of links", "folder", "pipe")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("place", [*PLACES, "device without end"])
def test_what_is_no_file_is_refused_at_once(place: str, reader: str, tmp_path: Path) -> None:
    path = no_file(place, tmp_path)
    before = sorted(tmp_path.iterdir())
    with within(5):
        said = refused(READERS[reader], path)
    assert str(path) in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("place", ["long name", "NUL in the name", "loop of links", "folder"])
def test_what_cannot_be_written_is_refused_in_one_sentence(place: str, tmp_path: Path) -> None:
    path = no_file(place, tmp_path)
    path = path if place == "folder" else path / "below.txt"
    before = sorted(tmp_path.iterdir())
    for write in (write_text, write_json):
        refused(write, path, "x")
    assert sorted(tmp_path.iterdir()) == before


def test_half_a_character_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    assert "half a character" in refused(write_json, tmp_path / "a.json", {"a": "\ud800"})
    assert read_json(tmp_path / "a.json") == {"a": 1}


# ------------------------------------------------------------------------------- JSON

STRANGE = {
    "lists in lists": b"[" * 100_000,
    "tables in tables": b'{"a":' * 100_000,
    "thousands of digits": b'{"a": ' + b"9" * 5000 + b"}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": '{"ä": 1}'.encode("latin-1"),
    "NUL": b'{"a": 1\0}',
    "nothing": b"",
    "a web page": b"<!doctype html><html></html>",
}


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_json_is_refused(strange: str, tmp_path: Path, model: RetrievalModel) -> None:
    for name, read in {
        "a.json": lambda: read_json(tmp_path / "a.json"),
        "meta.json": lambda: read_asen(tmp_path),
        "manifest.json": lambda: PhotoIndex.load(tmp_path, model),
    }.items():
        (tmp_path / name).write_bytes(STRANGE[strange])
        assert str(tmp_path / name) in refused(read)


def test_metadata_of_lists_in_lists_are_refused(tmp_path: Path) -> None:
    tensors = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"agman": "[" * 100_000}, "a": tensors}).encode()
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "w.safetensors" in refused(read_tensors, file)


def others(whole: Any) -> Iterator[Any]:
    """The same with one value of another type, or one thing taken out: every way there is."""

    def paths(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        inside = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in inside:
            yield (*path, key)
            if isinstance(value, (dict, list)):
                yield from paths(value, (*path, key))

    for *path, last in paths([whole], ()):
        for other in (*OTHERS, "out"):
            changed = [copy.deepcopy(whole)]
            node: Any = changed
            for key in path:
                node = node[key]
            if other == "out" and path:
                del node[last]
            else:
                node[last] = copy.deepcopy(other)
            yield changed[0]


def json_readers(folder: Path, model: RetrievalModel) -> dict[str, tuple[Any, Any, Any]]:
    """For every form of JSON a valid one, how it is written, and how it is read."""
    meta = {"D": {"ATTRIBUTES": ["a", "b"], "ATTRIBUTES_NUM": {"a": 3, "b": 2},
                  "ATTRIBUTES_VALUES": {"a": ["x", "y", "z"], "b": ["0", "1"]}}}  # fmt: skip
    (folder / "D").mkdir()
    for name, text in {"filenames_train": "1.jpg\n", "label_train": "0 0 1 1 0\n"}.items():
        (folder / f"D/{name}.txt").write_text(text)
    embed_shards(model, tiny.table(3).images, folder / "shards", rows=2, progress=False)
    PhotoIndex.build(model, tiny.table(3).images, progress=False).save(folder / "index")
    model.save(folder / "weights")
    (folder / "part").write_bytes(b"x")
    kept = {name: read_tensors(folder / name) for name in ("index", "weights")}
    note = {"url": "http://x/", "etag": '"1"', "modified": None, "length": 4}
    job = SimpleNamespace(
        note=folder / "note.json", part=folder / "part", url="http://x/", bytes_there=lambda: 1
    )

    def resumed() -> None:
        known = downloads._noted(job)  # type: ignore[arg-type]
        if known:
            assert isinstance(known.etag, str | None), "it goes into a header"

    def into(name: str) -> Callable[[Any], None]:
        return lambda data: write_tensors(folder / name, kept[name][0], data)

    def packed(data: Any) -> None:
        with zipfile.ZipFile(folder / "p.npz", "w") as archive:
            with archive.open("images.npy", "w") as member:
                np.save(member, np.zeros((2, 4, 4, 3), np.uint8))
            archive.writestr("names.json", json.dumps(data))

    def as_file(name: str) -> Callable[[Any], None]:
        return lambda data: (folder / name).write_text(json.dumps(data)) and None

    manifest = json.loads((folder / "shards/manifest.json").read_text())
    return {
        "meta.json": (meta, as_file("meta.json"), lambda: read_asen(folder, check_images=False)),
        "manifest": (
            manifest, as_file("shards/manifest.json"),
            lambda: list(PhotoIndex.load(folder / "shards", model).names),
        ),
        "index": (
            kept["index"][1], into("index"), lambda: PhotoIndex.load(folder / "index", model)
        ),
        "weights": (kept["weights"][1], into("weights"), lambda: agman.load(folder / "weights")),
        "packed images": (
            ["a", "b"], packed, lambda: PackedImages.open(folder / "p.npz").load([1], 4)
        ),
        "note of a download": (note, as_file("note.json"), resumed),
    }  # fmt: skip


def test_any_value_of_another_type_is_refused_or_does_no_harm(
    tmp_path: Path, model: RetrievalModel
) -> None:
    for name, (valid, write, read) in json_readers(tmp_path, model).items():
        write(valid)
        read()
        tried = n_refused = 0
        for changed in others(valid):
            write(changed)
            tried += 1
            try:
                read()
            except InputError:
                n_refused += 1
            except Exception as error:
                raise AssertionError(f"{name}: {json.dumps(changed)[:300]}") from error
        assert tried >= 40, name
        assert n_refused or name == "note of a download", name


# --------------------------------------------------------------------- files that run code


class Evil:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def evil_files(folder: Path) -> dict[str, Path]:
    """The ways in which a pickle that runs code comes along."""
    evil = Evil(folder / "ran")
    files = {
        name: folder / f"{i}.x" for i, name in enumerate(("zip", "old", "npy", "npz", "dtype"))
    }
    torch.save({"state_dict": evil}, files["zip"])
    torch.save({"state_dict": evil}, files["old"], _use_new_zipfile_serialization=False)
    objects = np.array([evil], dtype=object)
    with files["npy"].open("wb") as file:
        np.save(file, objects, allow_pickle=True)
    with zipfile.ZipFile(files["npz"], "w") as archive:
        archive.write(files["npy"], "images.npy")
        archive.writestr("names.json", '["a"]')
    scalar = (np._core.multiarray.scalar, (np.dtype("O"), evil))  # type: ignore[attr-defined]
    torch.save({"best": Reduced(*scalar)}, files["dtype"])
    for protocol in (0, 2, 4):
        files[f"pickle {protocol}"] = folder / f"p{protocol}.x"
        files[f"pickle {protocol}"].write_bytes(pickle.dumps({"a": evil}, protocol))
    return files


class Reduced:
    """Pickles as a call."""

    def __init__(self, function: Any, args: tuple[Any, ...]) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch mentions the protocol
def test_no_reader_runs_what_a_pickle_asks_for(tmp_path: Path, model: RetrievalModel) -> None:
    for name, path in evil_files(tmp_path).items():
        for read in (*READERS.values(), lambda p: PhotoIndex.load(p, model)):
            with contextlib.suppress(InputError):
                read(path)
            assert not (tmp_path / "ran").exists(), (name, read)
    with contextlib.suppress(FileExistsError):
        pickle.loads((tmp_path / "p2.x").read_bytes())
    assert (tmp_path / "ran").exists(), "the same file does run where nothing guards it"


def test_the_cache_of_drawings_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, numbers = tmp_path / "cache", {"n_train": 4, "n_valid": 4, "n_test": 4}
    lab(size=32, cache=place, **numbers)
    for path in place.rglob("lab-*"):
        with path.open("wb") as file:
            save = np.save if path.suffix == ".npy" else np.savez
            save(file, np.array([Evil(tmp_path / "ran")], dtype=object), allow_pickle=True)
    drawn = lab(size=32, cache=place, **numbers)
    assert len(drawn.train.images) == 4
    assert not (tmp_path / "ran").exists()


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, by the dotted name of what is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


UNSAFE = (
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "shelve.open", "joblib.load", "yaml.load", "yaml.unsafe_load", "loadmat", "pd.read_pickle",
    "extractall", "os.system",
)  # fmt: skip


def test_nothing_opens_a_file_in_a_way_that_could_run_code() -> None:
    loads = 0
    for folder in ("agman", "data_scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name, call in calls(path):
                where = f"{path.relative_to(ROOT)}:{call.lineno}"
                assert not name.endswith(UNSAFE), where
                words = {word.arg: ast.unparse(word.value) for word in call.keywords}
                if name == "torch.load":
                    loads += 1
                    assert words.get("weights_only") == "True", where
                assert words.get("allow_pickle", "False") == "False", where
    assert loads >= 2, "the search finds what there is"


# ------------------------------------------------------- checkpoints that are more than they seem


def reference() -> dict[str, Any]:
    """A checkpoint as ConditionalSimNet's script would save it, in its head alone."""
    return {"masks.weight": torch.zeros(4, 8), "embed_fc.weight": torch.zeros(8, 512)}


SPOILED: dict[str, Any] = {
    "a list": {"state_dict": [1, 2]},
    "a number": {"state_dict": 3},
    "numbered keys": {1: torch.zeros(2)},
    "numbers for tensors": reference() | {"masks.weight": 3},
    "a vector for a matrix": reference() | {"masks.weight": torch.zeros(4)},
    "no attribute": reference() | {"masks.weight": torch.zeros(0, 8)},
    "a sparse matrix": reference() | {"masks.weight": torch.zeros(4, 8).to_sparse()},
    "no storage": reference() | {"masks.weight": torch.zeros(4, 8, device="meta")},
    "repeated in memory": reference() | {"masks.weight": torch.zeros(1).expand(10, 10**6)},
    "a head as wide as a book": reference() | {"masks.weight": torch.zeros(2, 10**6)},
    "the key without its matrix": {"attr_transform2.weight": torch.zeros(2, 2)},
    "the head alone": reference(),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch mentions that it checks sparse tensors
@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_reference_checkpoint_is_refused_before_memory_is_taken(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(SPOILED[kind], tmp_path / "r.pt")
    taken = []
    create = agman.checkpoint.create_model

    def counted(*args: Any, **options: Any) -> RetrievalModel:
        made = create(*args, **options)
        taken.extend(p for p in made.parameters() if not p.is_meta)
        return made

    monkeypatch.setattr(agman.checkpoint, "create_model", counted)
    assert "r.pt" in refused(load_reference, tmp_path / "r.pt")
    assert not taken


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    whole, bomb = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"w": torch.zeros(10**6)}, whole)
    with zipfile.ZipFile(whole) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    for compression, path in ((zipfile.ZIP_STORED, whole), (zipfile.ZIP_DEFLATED, bomb)):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    assert load_state(whole)["w"].shape == (10**6,)
    assert bomb.stat().st_size < 20_000
    assert "unpack to more" in refused(load_state, bomb)


# ------------------------------------------------------------------------------- images


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, bits: int, color: int, rows: bytes, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["png", "webp", "gif"])
def test_an_animation_gives_its_first_frame(form: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    path = saved(frames[0], tmp_path / f"a.{form}", save_all=True, append_images=frames[1:])
    assert read_image(path).size == (6, 4)
    red, green, blue = read_image(path).getpixel((2, 2))  # type: ignore[misc]
    assert red > 245 > 10 > max(green, blue)


@pytest.mark.parametrize(
    ("color", "pixel", "seen"),
    [
        (0, struct.pack(">H", 0x80FF), (128, 128, 128)),
        (2, struct.pack(">HHH", 0xFF00, 0x4001, 0x00FF), (255, 64, 0)),
        (4, struct.pack(">HH", 0x0000, 0x0000), (255, 255, 255)),
        (6, struct.pack(">HHHH", 0xFF00, 0, 0, 0xFFFF), (255, 0, 0)),
    ],
    ids=["gray", "colour", "gray and transparency", "colour and transparency"],
)
def test_sixteen_bits_of_every_kind(
    color: int, pixel: bytes, seen: tuple[int, ...], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(2, 2, 16, color, (b"\0" + pixel * 2) * 2))
    assert read_image(tmp_path / "a.png").getpixel((1, 1)) == seen


def test_a_palette_with_transparency_lies_on_white(tmp_path: Path) -> None:
    palette = chunk(b"PLTE", bytes((200, 0, 0, 0, 0, 200))) + chunk(b"tRNS", bytes((0, 255)))
    (tmp_path / "a.png").write_bytes(png(2, 1, 8, 3, b"\0\0\1", palette))
    image = read_image(tmp_path / "a.png")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 200)]


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("mark", range(1, 9))
def test_every_rotation_mark_in_every_form(form: str, mark: int, tmp_path: Path) -> None:
    """Where the white corner of the stored picture is seen, as the EXIF standard says."""
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[mark]
    image = Image.new("RGB", (64, 32))
    image.paste((255, 255, 255), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = mark
    seen = read_image(saved(image, tmp_path / f"a.{form}", exif=exif))
    assert seen.size == ((64, 32) if mark < 5 else (32, 64))
    x, y = seen.width - 6 if "r" in corner else 6, seen.height - 6 if "b" in corner else 6
    assert min(seen.getpixel((x, y))) > 200  # type: ignore[type-var, arg-type]
    assert np.asarray(seen).mean() < 60


def test_the_ending_of_a_name_says_nothing(tmp_path: Path) -> None:
    image = Image.new("RGB", (5, 3), (9, 200, 30))
    assert read_image(saved(image, tmp_path / "a.jpg", format="PNG")).getpixel((0, 0)) == (
        9, 200, 30,
    )  # fmt: skip
    assert read_image(saved(image, tmp_path / "photo", format="BMP")).size == (5, 3)
    for name, content in {
        "page.jpg": b"<!doctype html><html><body>404</body></html>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "program.gif": b"\x7fELF" + bytes(200),
        "paper.jpg": b"%PDF-1.7\n" + bytes(200),
        "shop.webp": b"file,color\na.jpg,red\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "not an image of a known kind" in refused(read_image, tmp_path / name)


def huge(form: str, width: int, height: int) -> bytes:
    """The smallest file whose header claims this size."""
    if form == "PNG":
        return png(width, height, 8, 2, bytes(100))
    if form == "PPM":
        return b"P6 %d %d 255\n" % (width, height) + bytes(100)
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, form)
    data = buffer.getvalue()
    if form == "BMP":
        return data[:18] + struct.pack("<ii", width, height) + data[26:]
    if form == "GIF":
        at = data.index(b",\0\0\0\0") + 5  # the frame's own size
        frame = struct.pack("<HH", width, height)
        return data[:6] + frame + data[10:at] + frame + data[at + 4 :]
    if form == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
    at = data.index(b"VP8 ") + 14  # WebP holds 14 bits
    return data[:at] + struct.pack("<HH", min(width, 16383), min(height, 16383)) + data[at + 4 :]


FORMS = ("PNG", "PPM", "BMP", "GIF", "JPEG", "WEBP")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("form", FORMS)
def test_a_header_of_a_huge_image_is_refused_unread(form: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(huge(form, 50_000, 50_000))
    assert "more than 89,478,485 pixels" in refused(read_image, path)
    path.write_bytes(huge(form, 2, 2))
    with contextlib.suppress(InputError):  # the hundred bytes need not be a picture
        assert read_image(path).size == (2, 2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(
    form: str, size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "flat"
    path.write_bytes(huge(form, *size))
    assert str(path) in refused(read_image, path)


def test_threads_share_the_room_for_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of 40 x 40 fit beside each other, three do not; one that fills it goes alone."""
    sides = [40] * 9 + [60] * 2
    for i, side in enumerate(sides):
        Image.new("RGB", (side, side), (i, i, i)).save(tmp_path / f"{i}.png")
    now: list[int] = []
    seen, guard, to_rgb = [], threading.Lock(), images.to_rgb

    def watched(image: Image.Image) -> Image.Image:
        pixels = image.width * image.height
        with guard:
            now.append(pixels)
            seen.append(sum(now))
        time.sleep(0.02)
        with guard:
            now.remove(pixels)
        return to_rgb(image)

    monkeypatch.setattr(images, "MAX_PIXELS", 3600)
    monkeypatch.setattr(images, "to_rgb", watched)
    store = FolderImages(tmp_path, [f"{i}.png" for i in range(len(sides))], threads=8)
    loaded = store.load(range(len(sides)), 8)
    assert max(seen) == 3600
    assert 3200 in seen, "they do work beside each other"
    assert loaded[:, 0, 0, 0].tolist() == list(range(len(sides)))


# ------------------------------------------------------------------------------ archives


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, name: str, content: bytes = b"1", **changes: Any) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        for key, value in changes.items():
            setattr(entry, key, value)
        archive.addfile(entry, io.BytesIO(content))
    return path


HOLES = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100"}
TARS: dict[str, dict[str, Any]] = {
    "name beyond any disk": {"name": "x" * 300},
    "name of many bytes": {"name": "é" * 200},
    "path in the extension": {"name": "a", "pax_headers": {"path": "../../b"}},
    "NUL in the extension": {"name": "a", "pax_headers": {"path": "x\0/../../b"}},
    "size beyond counting": {"name": "a", "pax_headers": {"size": "9" * 24}},
    "negative size": {"name": "a", "pax_headers": {"size": "-512"}},
    "size that is no number": {"name": "a", "pax_headers": {"size": "many"}},
    "file with holes": {"name": "a", "content": bytes(512), "type": tarfile.GNUTYPE_SPARSE},
    "file with holes, newer": {"name": "a", "content": b"0\n" * 256, "pax_headers": HOLES},
}


@pytest.mark.parametrize("kind", TARS)
def test_a_tar_that_was_made_to_do_harm_writes_nothing(kind: str, tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", **TARS[kind])
    assert "x.tar" in refused(unpack, path, tmp_path / "deep/out", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


def test_a_zip_of_a_name_beyond_any_disk_writes_nothing(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"good": b"1", "deep/" + "x" * 256: b"2"})
    assert "cannot be a file name" in refused(unpack, path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    zipped(path, {"deep/" + "x" * 255: b"2"})
    assert list_files(path) == {"deep/" + "x" * 255: 1}


def test_a_file_that_is_a_folder_too_stays_inside(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a": b"1", "a/b": b"2"})
    refused(unpack, path, tmp_path / "out", progress=False)
    assert {p.name for p in tmp_path.rglob("*")} == {"x.zip", "out", "a"}


# ------------------------------------------------------------------ memory, in its own process

MEASURE = """
import json, sys, warnings
from agman.checkpoint import load_reference, load_state
from agman.datasets import PackedImages, read_image
from agman.datasets.archives import list_files
from agman.errors import InputError
from tests.trust.memory import forget_peak, peak

warnings.simplefilter("ignore")
found = {}
for name, path in json.loads(sys.argv[1]).items():
    read = {"archive": list_files, "checkpoint": load_state, "packed": PackedImages.open}.get(
        name.split(",")[0], read_image)
    forget_peak()
    before = peak()
    try:
        read(path)
        said = "accepted"
    except InputError as error:
        said = str(error)
    found[name] = peak() - before, said
if sys.argv[2:]:  # proof that it would be seen
    forget_peak()
    before = peak()
    bytearray(101 * 2**20)  # whole megabytes are told
    found["control"] = peak() - before, "accepted"
print(json.dumps(found))
"""


def bombs(folder: Path) -> dict[str, Path]:
    """Small files that want to be a gigabyte."""
    squeeze = zlib.compressobj(9)
    zeros = b"".join(squeeze.compress(bytes(10**7)) for _ in range(50)) + squeeze.flush()
    torch.save({"w": torch.zeros(4 * 10**7)}, folder / "whole.pt")
    with zipfile.ZipFile(folder / "whole.pt") as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    (folder / "whole.pt").unlink()
    contents = {
        **{f"image, {form}": huge(form, 50_000, 50_000) for form in FORMS},
        "image, text": png(4, 4, 8, 2, bytes(52), chunk(b"zTXt", b"a\0\0" + zeros)),
        "image, profile": png(4, 4, 8, 2, bytes(52), chunk(b"iCCP", b"a\0\0" + zeros)),
    }
    files = {}
    for number, (name, content) in enumerate(contents.items()):
        files[name] = folder / f"{number}.bomb"
        files[name].write_bytes(content)
    files["checkpoint, compressed"] = zipped(folder / "c.pt", members)
    files["packed, compressed"] = zipped(
        folder / "p.npz", {"images.npy": b"", "names.json": b"[" + b" " * 10**8 + b"]"}
    )
    files["archive, many"] = zipped(folder / "m.zip", {str(i): b"" for i in range(2000)})
    return files


@pytest.mark.skipif(not memory.can_be_told(), reason="the peak of memory is read as on Linux")
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    files = {name: str(path) for name, path in bombs(tmp_path).items()}
    assert all(os.path.getsize(path) < 10**6 for path in files.values())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(files), "control"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found.pop("control")[0] >= 100
    for name, (megabytes, said) in found.items():
        assert megabytes < 50, (name, megabytes, said)
        assert (said == "accepted") == name.startswith("archive"), (name, said)
