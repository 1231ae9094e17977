"""Searching photos: the ranking is exact, the file is whole or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import agman
from agman.attributes import AttributeSchema
from agman.datasets import PackedImages
from agman.embedding import find_photos, fingerprint
from agman.errors import InputError
from agman.index import Hit, PhotoIndex
from agman.models import RetrievalModel
from agman.storage import write_tensors

SCHEMA = AttributeSchema(("color", "sleeve_length"), (("red", "blue"), ("short", "long")), "shop")


def new_model(seed: int = 0, name: str = "agman") -> RetrievalModel:
    torch.manual_seed(seed)
    model = agman.create_model(name, n_attributes=2, backbone="lab")
    model.schema = SCHEMA
    return model.eval()


def pixels(n: int, size: int = 96, seed: int = 0) -> np.ndarray:
    """Coarse random patterns, so that no two photos look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


@pytest.fixture(scope="module")
def model() -> RetrievalModel:
    return new_model()


@pytest.fixture(scope="module")
def store() -> PackedImages:
    return PackedImages(pixels(23), [f"{i}.png" for i in range(23)])


@pytest.fixture(scope="module")
def index(model: RetrievalModel, store: PackedImages) -> PhotoIndex:
    return PhotoIndex.build(model, store, batch_size=8, progress=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with five photos in two places, and files that are none."""
    folder = tmp_path / "photos"
    for number, name in enumerate(["b.png", "a.JPG", "new/c.png", "new/d.webp", "new/e.bmp"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(5)[number]).save(folder / name)
    (folder / ".hidden").mkdir()
    for other in ("notes.txt", ".f.png", ".hidden/g.png"):
        (folder / other).write_text("no photo")
    return folder


# --- building -------------------------------------------------------------------------------------


def test_embeddings_are_those_of_the_model(
    index: PhotoIndex, model: RetrievalModel, store: PackedImages
) -> None:
    with torch.no_grad():
        images = model.preprocessing(store.load(range(23), 96))
        slow = torch.stack([model.embed_all(image[None])[0] for image in images])
    assert index.embeddings.shape == (23, 2, 64)
    torch.testing.assert_close(index.embeddings, slow, atol=1e-5, rtol=0)
    assert index.names == store.names
    assert repr(index) == "PhotoIndex(23 photos, 2 attributes, 64 dimensions)"


def test_each_photo_passes_the_backbone_once(store: PackedImages) -> None:
    model = new_model()
    seen = []
    model.backbone.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    PhotoIndex.build(model, store, batch_size=10, progress=False)
    assert seen == [10, 10, 3]


def test_a_folder_is_searched_with_its_subfolders(model: RetrievalModel, photos: Path) -> None:
    assert find_photos(photos) == ["a.JPG", "b.png", "new/c.png", "new/d.webp", "new/e.bmp"]
    index = PhotoIndex.build(model, photos, progress=False)
    assert index.names == tuple(find_photos(photos))
    assert index.search(photos / "new/c.png", "color", k=1)[0].name == "new/c.png"


def test_a_folder_without_photos_is_refused(tmp_path: Path, model: RetrievalModel) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="no photo in this folder"):
        PhotoIndex.build(model, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        PhotoIndex.build(model, tmp_path / "nowhere")
    with pytest.raises(InputError, match="no photo to index"):
        PhotoIndex.build(model, PackedImages(pixels(1)[:0], []))


def test_unreadable_photos_are_counted_or_left_out(model: RetrievalModel, photos: Path) -> None:
    whole = PhotoIndex.build(model, photos, progress=False)
    for number in range(7):
        (photos / f"bad{number}.jpg").write_bytes(b"\xff\xd8 cut short")
    with pytest.raises(InputError, match=r"^7 of 12 photos cannot be read .*bad4") as error:
        PhotoIndex.build(model, photos, batch_size=3, progress=False)
    assert "bad5" not in str(error.value), "the first five are enough"
    index = PhotoIndex.build(model, photos, batch_size=3, skip_bad=True, progress=False)
    assert index.names == whole.names
    torch.testing.assert_close(index.embeddings, whole.embeddings, atol=1e-5, rtol=0)
    assert len(index.skipped) == 7
    assert "bad6.jpg" in index.skipped[6]


def test_nothing_readable_is_refused_either_way(model: RetrievalModel, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"^1 of 1 photos cannot be read"):
        PhotoIndex.build(model, tmp_path, skip_bad=True, progress=False)


def test_building_and_searching_leave_the_mode_of_the_model(store: PackedImages) -> None:
    model = new_model().train()
    before = fingerprint(model)
    PhotoIndex.build(model, store, progress=False).search(pixels(1)[0], "color")
    assert model.training
    assert fingerprint(model) == before, "no running mean has moved"


# --- searching ------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 40),
    k=st.integers(1, 50),
    attribute=st.integers(0, 1),
    half=st.booleans(),
    copies=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_search_equals_a_sort_of_all_scores(
    n: int, k: int, attribute: int, half: bool, copies: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.nn.functional.normalize(torch.randn(n, 2, 8, generator=random), dim=-1)
    if copies:
        embeddings = embeddings[torch.randint(n, (n,), generator=random)]
    if half:
        embeddings = embeddings.half()
    index = PhotoIndex(MODEL, embeddings, [f"{i}.png" for i in range(n)])
    query = embeddings[seed % n, attribute].float()
    hits = index.search_embedding(query, attribute, k)
    scores = (embeddings[:, attribute].double() * query.double()).sum(1).numpy()
    order = np.argsort(-scores, kind="stable")[:k]
    assert [hit.number for hit in hits] == order.tolist() or np.allclose(
        scores[[hit.number for hit in hits]], scores[order], atol=1e-6
    )
    assert len(hits) == min(n, k)
    assert [hit.name for hit in hits] == [f"{hit.number}.png" for hit in hits]
    np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=1e-5)


MODEL = new_model(name="csn")


@pytest.mark.parametrize("attribute", ["color", "sleeve_length", 0, 1])
def test_a_photo_finds_itself_first(
    index: PhotoIndex, store: PackedImages, attribute: str | int
) -> None:
    for number in range(len(store)):
        first = index.search(store.array[number], attribute, k=3)[0]
        assert first.number == number
        assert first.score == pytest.approx(1, abs=1e-4)


def test_a_photo_may_come_in_any_form(index: PhotoIndex, tmp_path: Path) -> None:
    array = pixels(1, size=128, seed=5)[0]
    Image.fromarray(array).save(tmp_path / "photo.png")
    forms = [
        tmp_path / "photo.png",
        str(tmp_path / "photo.png"),
        Image.fromarray(array),
        array,
        torch.from_numpy(array).permute(2, 0, 1),
    ]
    found = [index.search(form, "color", k=4) for form in forms]
    assert all(hits == found[0] for hits in found)
    assert isinstance(found[0][0], Hit)


def test_an_opened_photo_is_seen_as_the_file_would_be(index: PhotoIndex, tmp_path: Path) -> None:
    """Turned by its EXIF mark, and transparency laid on white."""
    turned = Image.fromarray(pixels(1, seed=6)[0])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    clear = Image.fromarray(pixels(1, seed=7)[0]).convert("RGBA")
    clear.putalpha(100)
    clear.save(tmp_path / "clear.png")
    for name in ("turned.png", "clear.png"):
        with Image.open(tmp_path / name) as opened:
            assert index.search(opened, 0) == index.search(tmp_path / name, 0)


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, 8),
        7,
    ],
)
def test_what_is_no_photo_is_refused(index: PhotoIndex, photo: object) -> None:
    with pytest.raises(InputError, match="A photo is a path"):
        index.search(photo, "color")  # type: ignore[arg-type]


def test_bad_questions_are_refused(index: PhotoIndex, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean sleeve_length"):
        index.search(pixels(1)[0], "sleeve_lenght")
    with pytest.raises(InputError, match="ids run from 0 to 1"):
        index.search(pixels(1)[0], 2)
    with pytest.raises(InputError, match="k must be"):
        index.search(pixels(1)[0], 0, k=0)
    with pytest.raises(InputError, match="no such image"):
        index.search(tmp_path / "none.png", 0)


def test_a_model_without_names_is_asked_by_id(store: PackedImages) -> None:
    model = new_model()
    model.schema = None
    index = PhotoIndex.build(model, store, progress=False)
    assert index.search(store.array[4], 1)[0].number == 4
    for key in ("color", 2, -1):
        with pytest.raises(InputError, match="ids 0 to 1"):
            index.search(store.array[4], key)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saved_and_loaded_it_answers_the_same(
    model: RetrievalModel, store: PackedImages, tmp_path: Path, dtype: torch.dtype
) -> None:
    built = PhotoIndex.build(model, store, dtype=dtype, progress=False)
    built.save(tmp_path / "shop.safetensors")
    model.save(tmp_path / "model.safetensors")
    loaded = PhotoIndex.load(
        tmp_path / "shop.safetensors", agman.load(tmp_path / "model.safetensors")
    )
    assert loaded.embeddings.dtype == dtype
    assert torch.equal(loaded.embeddings, built.embeddings)
    query = pixels(1, seed=9)[0]
    assert loaded.search(query, "color") == built.search(query, "color")


def test_half_precision_is_half_the_file_and_hardly_moves_a_score(
    index: PhotoIndex, model: RetrievalModel, store: PackedImages, tmp_path: Path
) -> None:
    half = PhotoIndex.build(model, store, dtype=torch.float16, progress=False)
    assert half.embeddings.nbytes * 2 == index.embeddings.nbytes
    query = pixels(1, seed=3)[0]
    ours = {hit.name: hit.score for hit in half.search(query, 0, k=23)}
    for hit in index.search(query, 0, k=23):
        assert ours[hit.name] == pytest.approx(hit.score, abs=1e-3)


def test_an_index_of_another_model_is_refused(index: PhotoIndex, tmp_path: Path) -> None:
    path = tmp_path / "shop.safetensors"
    index.save(path)
    for other in (new_model(seed=1), new_model(name="csn")):
        with pytest.raises(InputError, match="made with other weights"):
            PhotoIndex.load(path, other)
    resized = new_model()
    resized.preprocessing = type(resized.preprocessing)(64)
    with pytest.raises(InputError, match="made with other weights"):
        PhotoIndex.load(path, resized)
    assert len(PhotoIndex.load(path, new_model())) == 23, "equal weights are the same model"


def test_no_path_is_written_into_the_file(
    model: RetrievalModel, photos: Path, tmp_path: Path
) -> None:
    PhotoIndex.build(model, photos, progress=False).save(tmp_path / "i.safetensors")
    assert str(tmp_path).encode() not in (tmp_path / "i.safetensors").read_bytes()


def test_missing_damaged_and_foreign_files_are_refused(
    index: PhotoIndex, model: RetrievalModel, tmp_path: Path
) -> None:
    path = tmp_path / "shop.safetensors"
    with pytest.raises(InputError, match="There is no index"):
        PhotoIndex.load(path, model)
    index.save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"\0" * len(whole), b"not an index"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"shop\.safetensors"):
            PhotoIndex.load(path, model)
    model.save(path)
    with pytest.raises(InputError, match="is not an index"):
        PhotoIndex.load(path, model)
    metadata = {"kind": "agman photo index", "names": ["a"], "model": ""}
    metadata["fingerprint"] = fingerprint(model)
    write_tensors(path, {"embeddings": torch.zeros(2, 2, 4)}, metadata)
    with pytest.raises(InputError, match="damaged"):
        PhotoIndex.load(path, model)


def test_a_failed_save_keeps_the_older_file(
    index: PhotoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.safetensors"
    index.save(path)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agman.storage.save_file", full)
    with pytest.raises(InputError, match="No space left"):
        index.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- other engines --------------------------------------------------------------------------------


def many(model: RetrievalModel) -> PhotoIndex:
    """More embeddings than the lab could draw photos for."""
    random = torch.Generator().manual_seed(4)
    embeddings = torch.nn.functional.normalize(torch.randn(400, 2, 64, generator=random), dim=2)
    return PhotoIndex(model, embeddings, [f"{i}.png" for i in range(400)])


@pytest.mark.parametrize(
    ("engine", "settings"),
    [("exact", {}), ("flat", {}), ("ivf", {"n_probe": 40}), ("hnsw", {"ef_search": 400})],
)
def test_any_engine_gives_the_same_hits(
    engine: str, settings: dict[str, int], model: RetrievalModel
) -> None:
    pytest.importorskip("faiss")
    index = many(model)
    other = index.with_engine(engine, **settings)
    assert (other.engine, index.engine) == (engine, "exact"), "the index itself is not changed"
    assert other.settings.items() >= settings.items()
    for attribute, key in enumerate(("color", "sleeve_length")):
        query = index.embeddings[7, attribute]
        ours, wanted = other.search_embedding(query, key, 5), index.search_embedding(query, key, 5)
        assert [hit.name for hit in ours] == [hit.name for hit in wanted]
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in wanted], abs=1e-5)
        assert wanted[0].name == "7.png"
    photo = pixels(1)[0]
    assert other.search(photo, 0, 1)[0].name == index.search(photo, 0, 1)[0].name
    assert len(other.search_embedding(query, 0, 1000)) == 400, "what is not there is no hit"


def test_less_effort_finds_less(model: RetrievalModel) -> None:
    pytest.importorskip("faiss")
    index = many(model)
    some = index.with_engine("ivf", n_cells=40, n_probe=1)
    assert len(some.search_embedding(index.embeddings[7, 0], 0, 1000)) < 100


def test_an_engine_is_kept_beside_the_index(model: RetrievalModel, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    built = many(model).build_engine(tmp_path / "ivf", "ivf", n_cells=10, progress=False)
    many(model).save(tmp_path / "shop.safetensors")
    index = PhotoIndex.load(tmp_path / "shop.safetensors", model)
    opened = index.open_engine(tmp_path / "ivf", n_probe=10)
    query = index.embeddings[9, 1]
    assert opened.search_embedding(query, 1)[0].name == "9.png"
    assert built.settings == {"n_cells": 10, "n_probe": 10}
    others = PhotoIndex(model, index.embeddings, [f"x{i}.png" for i in range(400)])
    weights = PhotoIndex(new_model(seed=1), index.embeddings, index.names)
    for wrong in (others, weights):
        with pytest.raises(InputError, match="other photos or other weights"):
            wrong.open_engine(tmp_path / "ivf")


def test_unknown_engines_are_refused(index: PhotoIndex) -> None:
    with pytest.raises(InputError, match="choose among exact, flat"):
        index.with_engine("annoy")
    with pytest.raises(InputError, match="has no setting n_probe"):
        index.with_engine("flat", n_probe=3)
