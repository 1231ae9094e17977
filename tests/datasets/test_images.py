"""Decoding, fitting to a square, packing: what goes in comes out, and bad files are named."""

import contextlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from agman.datasets.images import (
    MAX_PIXELS,
    ChosenImages,
    FolderImages,
    PackedImages,
    load_image,
    pack,
    read_image,
)
from agman.errors import InputError

SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg_bytes(size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(size[1], size[0])).save(buffer, "JPEG")
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with hardly any data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.fixture
def folder(tmp_path: Path) -> FolderImages:
    """Seven images of different shapes, losslessly stored."""
    names = []
    for i in range(7):
        names.append(f"sub/{i}.png" if i % 2 else f"{i}.png")
        path = tmp_path / "photos" / names[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(20 + 5 * i, 40 - 3 * i, i)).save(path)
    return FolderImages(tmp_path / "photos", names)


class TestReadImage:
    def test_plain_rgb_is_unchanged(self, tmp_path):
        pixels = noise(5, 7)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png")
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)

    @pytest.mark.parametrize(
        ("orientation", "undo"),
        [
            (1, lambda a: a),
            (2, np.fliplr),
            (3, lambda a: np.rot90(a, 2)),
            (4, np.flipud),
            (5, lambda a: np.transpose(a, (1, 0, 2))),
            (6, lambda a: np.rot90(a, -1)),
            (7, lambda a: np.transpose(np.rot90(a, 2), (1, 0, 2))),
            (8, np.rot90),
        ],
    )
    def test_exif_orientation_is_applied(self, tmp_path, orientation, undo):
        pixels = noise(4, 6)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), undo(pixels))

    @pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow mentions it
    def test_broken_exif_leaves_the_picture(self, tmp_path):
        pixels = noise(4, 6)
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
        assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), pixels)

    def test_cmyk(self, tmp_path):
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")  # prints as red
        red, green, blue = np.asarray(read_image(tmp_path / "a.jpg"))[4, 4].astype(int)
        assert red > 220
        assert max(green, blue) < 40

    def test_sixteen_bit_gray_keeps_its_brightness(self, tmp_path):
        deep = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
        Image.fromarray(deep).save(tmp_path / "a.png")
        pixels = np.asarray(read_image(tmp_path / "a.png"))
        assert pixels[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]

    def test_gray_and_black_and_white(self, tmp_path):
        Image.new("L", (3, 3), 77).save(tmp_path / "gray.png")
        Image.new("1", (3, 3), 1).save(tmp_path / "bit.png")
        assert read_image(tmp_path / "gray.png").getpixel((0, 0)) == (77, 77, 77)
        assert read_image(tmp_path / "bit.png").getpixel((0, 0)) == (255, 255, 255)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_transparency_is_laid_on_white(self, tmp_path, mode):
        image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
        image.putpixel((1, 0), (0, 0, 0, 255))
        image.convert(mode).save(tmp_path / "a.png")
        seen = read_image(tmp_path / "a.png")
        assert (seen.getpixel((0, 0)), seen.getpixel((1, 0))) == ((255,) * 3, (0,) * 3)

    def test_half_transparent(self, tmp_path):
        Image.new("RGBA", (1, 1), (255, 0, 0, 128)).save(tmp_path / "a.png")
        red, green, blue = read_image(tmp_path / "a.png").getpixel((0, 0))
        assert red == 255
        assert green == blue
        assert abs(green - 127) <= 1

    def test_transparent_color_of_an_rgb_png(self, tmp_path):
        Image.new("RGB", (2, 2), (0, 255, 0)).save(tmp_path / "a.png", transparency=(0, 255, 0))
        assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)

    def test_palette(self, tmp_path):
        Image.new("RGB", (4, 4), (200, 30, 40)).quantize(4).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").getpixel((1, 1)) == (200, 30, 40)

    def test_animation_gives_its_first_frame(self, tmp_path):
        frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert read_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)

    @pytest.mark.parametrize("kind", ["webp", "bmp", "tiff", "ppm"])
    def test_other_formats(self, tmp_path, kind):
        Image.new("RGB", (9, 5), (10, 200, 30)).save(tmp_path / f"a.{kind}")
        assert read_image(tmp_path / f"a.{kind}").size == (9, 5)


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "data", "said"),
        [
            ("empty.jpg", b"", "the file is empty"),
            ("text.jpg", b"file,color\na.jpg,red\n", "not an image of a known kind"),
            ("cut.jpg", jpeg_bytes()[:600], "damaged or cut short"),
            ("cut.png", png_claiming(30, 30), "damaged or cut short"),
            ("bomb.png", png_claiming(50_000, 50_000), f"more than {MAX_PIXELS:,} pixels"),
            ("large.png", png_claiming(10_000, 9_000), f"more than {MAX_PIXELS:,} pixels"),
            ("flat.png", png_claiming(0, 5), "."),
            ("flat.ppm", b"P6 0 5 255\n", "."),
            ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known kind"),
        ],
    )
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_one_sentence_names_the_file(self, tmp_path, name, data, said):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_image(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert said in message
        assert message.endswith(".")
        assert "\n" not in message

    def test_missing_folder_and_zero_byte(self, tmp_path):
        for name in ("none.jpg", "none/a.jpg", "a\0b.jpg", "a" * 300):
            path = tmp_path / name
            with pytest.raises(InputError, match="there is no such image"):
                read_image(path)
        with pytest.raises(InputError, match="not a file"):
            read_image(tmp_path)

    def test_floating_point_pixels(self, tmp_path):
        Image.new("F", (3, 3), 0.5).save(tmp_path / "a.tiff")
        with pytest.raises(InputError, match="floating-point pixels"):
            read_image(tmp_path / "a.tiff")

    @pytest.mark.filterwarnings("ignore")  # Pillow mentions odd tags and sizes
    @SETTINGS
    @given(data=st.data())
    def test_damaged_bytes_raise_only_our_error(self, tmp_path, data):
        kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]))
        buffer = io.BytesIO()
        Image.fromarray(noise(12, 9)).save(buffer, kind)
        damaged = bytearray(buffer.getvalue())
        for _ in range(data.draw(st.integers(1, 8))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        del damaged[data.draw(st.integers(1, len(damaged))) :]
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert read_image(path).mode == "RGB"


class TestFit:
    @SETTINGS
    @given(
        height=st.integers(1, 90),
        width=st.integers(1, 90),
        size=st.integers(1, 70),
        seed=st.integers(0, 99),
    )
    def test_equals_torchvision_resize_and_centre_crop(self, height, width, size, seed):
        if max(height, width) > 3 * min(height, width):
            return  # such strips are cut first, see below
        pixels = noise(height, width, seed)[None]
        got = PackedImages(pixels, ["a"]).load([0], size)[0]
        image = torch.from_numpy(pixels[0]).permute(2, 0, 1)
        expected = tv.center_crop(tv.resize(image, [size], antialias=True), [size])
        assert got.shape == (3, size, size)
        assert (got.int() - expected.int()).abs().max() <= 1

    @pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3, 400)])
    def test_a_long_strip_stays_small(self, shape):
        """Enlarged to short side 64, the first would be 64 x 320,000 pixels."""
        store = PackedImages(np.full((1, *shape, 3), 9, np.uint8), ["a"])
        assert store.load([0], 64).unique().tolist() == [9]

    def test_constant_images_stay_constant_and_the_centre_is_kept(self):
        pixels = np.zeros((1, 30, 90, 3), np.uint8)
        pixels[:, :, 30:60] = 255
        got = PackedImages(pixels, ["a"]).load([0], 10)
        assert got[..., 1:-1].min() == 255


class TestPackedImages:
    def test_own_size_is_a_mere_copy(self):
        pixels = np.stack([noise(16, 16, i) for i in range(5)])
        store = PackedImages(pixels, list("abcde"))
        got = store.load([3, 0, 3], 16)
        assert got.dtype == torch.uint8
        assert np.array_equal(got.permute(0, 2, 3, 1).numpy(), pixels[[3, 0, 3]])
        got.zero_()  # a copy: the store does not change
        assert np.array_equal(store.array, pixels)

    def test_indices_of_any_kind(self):
        store = PackedImages(np.zeros((3, 4, 4, 3), np.uint8), list("abc"))
        for indices in ([1, 2], np.array([1, 2]), torch.tensor([1, 2]), range(1, 3)):
            assert store.load(indices, 4).shape == (2, 3, 4, 4)
        assert store.load([], 4).shape == (0, 3, 4, 4)

    @pytest.mark.parametrize(
        ("indices", "size", "said"),
        [
            ([3], 4, "There is no image 3; the store holds images 0 to 2."),
            ([-1], 4, "There is no image -1"),
            ([0.5], 4, "whole numbers"),
            ([True, False, True], 4, "whole numbers"),
            ([0], 0, "at least 1 pixel"),
        ],
    )
    def test_refuses(self, indices, size, said):
        store = PackedImages(np.zeros((3, 4, 4, 3), np.uint8), list("abc"))
        with pytest.raises(InputError, match=said):
            store.load(indices, size)

    def test_refuses_other_arrays(self):
        with pytest.raises(InputError, match="float32"):
            PackedImages(np.zeros((1, 4, 4, 3), np.float32), ["a"])
        with pytest.raises(InputError, match=r"\(1, 3, 4, 4\)"):
            PackedImages(np.zeros((1, 3, 4, 4), np.uint8), ["a"])
        with pytest.raises(InputError, match="1 packed images came with 2 names"):
            PackedImages(np.zeros((1, 4, 4, 3), np.uint8), ["a", "b"])

    @SETTINGS
    @given(
        names=st.lists(st.text(max_size=20), max_size=6),
        height=st.integers(1, 9),
        width=st.integers(1, 9),
    )
    def test_save_and_open(self, tmp_path, names, height, width):
        pixels = np.random.default_rng(0).integers(
            0, 256, (len(names), height, width, 3), dtype=np.uint8
        )
        PackedImages(pixels, names).save(tmp_path / "a.npz")
        store = PackedImages.open(tmp_path / "a.npz")
        assert list(store.names) == names
        assert np.array_equal(store.array, pixels)
        assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]

    def test_open_maps_read_only_and_numpy_reads_it_too(self, tmp_path):
        pixels = np.stack([noise(8, 8, i) for i in range(3)])
        PackedImages(pixels, list("abc")).save(tmp_path / "a.npz")
        store = PackedImages.open(tmp_path / "a.npz")
        assert isinstance(store.array, np.memmap)
        assert not store.array.flags.writeable
        with np.load(tmp_path / "a.npz") as plain:
            assert np.array_equal(plain["images"], pixels)
            assert json.loads(plain["names.json"]) == ["a", "b", "c"]

    def test_the_same_images_give_the_same_bytes(self, tmp_path):
        store = PackedImages(noise(6, 6)[None], ["a"])
        store.save(tmp_path / "a.npz")
        store.save(tmp_path / "b.npz")
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def test_every_cut_is_noticed(self, tmp_path):
        PackedImages(np.stack([noise(4, 4)] * 2), ["a", "b"]).save(tmp_path / "a.npz")
        whole = (tmp_path / "a.npz").read_bytes()
        for end in range(0, len(whole), 7):
            (tmp_path / "cut.npz").write_bytes(whole[:end])
            with pytest.raises(InputError, match=r"cut\.npz: not a complete file of packed images"):
                PackedImages.open(tmp_path / "cut.npz")

    @SETTINGS
    @given(data=st.data())
    def test_damaged_headers_raise_only_our_error(self, tmp_path, data):
        PackedImages(np.stack([noise(3, 3)] * 2), ["a", "b"]).save(tmp_path / "a.npz")
        damaged = bytearray((tmp_path / "a.npz").read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        (tmp_path / "b.npz").write_bytes(damaged)
        try:
            store = PackedImages.open(tmp_path / "b.npz")
        except InputError:
            return
        assert store.array.shape == (len(store), *store.array.shape[1:3], 3)
        store.load(range(len(store)), 3)

    @pytest.mark.parametrize("fault", ["compressed", "turned", "names"])
    def test_a_file_packed_by_something_else(self, tmp_path, fault):
        """An archive that numpy could read, and that could not be mapped or would be misread."""
        pixels, names = np.stack([noise(3, 3)] * 2), ["a", "b"]
        buffer = io.BytesIO()
        np.save(buffer, np.asfortranarray(pixels) if fault == "turned" else pixels)
        kind = zipfile.ZIP_DEFLATED if fault == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(tmp_path / "a.npz", "w", kind) as archive:
            archive.writestr("images.npy", buffer.getvalue())
            archive.writestr("names.json", json.dumps(["a", 2] if fault == "names" else names))
        with pytest.raises(InputError, match=r"a\.npz.*not a complete file of packed images"):
            PackedImages.open(tmp_path / "a.npz")

    def test_mismatched_names_and_foreign_files(self, tmp_path):
        np.savez(tmp_path / "foreign.npz", images=np.zeros((1, 2, 2, 3), np.uint8))
        PackedImages(noise(2, 2)[None], ["a"]).save(tmp_path / "good.npz")
        with (
            zipfile.ZipFile(tmp_path / "good.npz") as good,
            zipfile.ZipFile(tmp_path / "names.npz", "w") as bad,
        ):
            bad.writestr("images.npy", good.read("images.npy"))
            bad.writestr("names.json", '["a", "b"]')
        for name in ("foreign.npz", "names.npz"):
            with pytest.raises(InputError, match="not a complete file of packed images"):
                PackedImages.open(tmp_path / name)
        with pytest.raises(InputError, match="there is no such file"):
            PackedImages.open(tmp_path / "none.npz")

    def test_cannot_be_written(self, tmp_path):
        (tmp_path / "taken").mkdir()
        with pytest.raises(InputError, match="taken"):
            PackedImages(noise(2, 2)[None], ["a"]).save(tmp_path / "taken")
        assert [path.name for path in tmp_path.iterdir()] == ["taken"]


class TestFolderAndPack:
    def test_any_number_of_threads_gives_the_same(self, folder):
        one = FolderImages(folder.root, folder.names, threads=1).load(range(7), 24)
        many = FolderImages(folder.root, folder.names, threads=5).load(range(7), 24)
        assert torch.equal(one, many)
        assert torch.equal(one[3], load_image(folder.path(3), 24))

    def test_is_lazy_and_finds_missing_files(self, folder):
        store = FolderImages(folder.root, [*folder.names, "gone.png", "a\0b"])
        assert store.missing() == [7, 8]
        assert store.load([0], 8).shape == (1, 3, 8, 8)

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_pack_equals_load(self, folder, tmp_path, on_disk):
        path = tmp_path / "new" / "packed.npz" if on_disk else None
        packed = pack(folder, 24, path, progress=False)
        assert packed.names == folder.names
        assert torch.equal(packed.load(range(7), 24), folder.load(range(7), 24))

    def test_pack_again_from_packed(self, folder):
        packed = pack(pack(folder, 24, progress=False), 12, progress=False)
        assert packed.array.shape == (7, 12, 12, 3)

    def test_all_bad_files_are_counted_in_one_error(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr("agman.datasets.images._CHUNK", 3)
        for i in (0, 4, 6):
            (folder.root / folder.names[i]).write_bytes(b"")
        with pytest.raises(InputError, match=r"^3 of 7 images cannot be read: ") as caught:
            pack(folder, 8, tmp_path / "packed.npz", progress=False)
        for i in (0, 4, 6):
            assert str(folder.path(i)) in str(caught.value)
        assert not list(tmp_path.glob("*packed*"))  # nothing half-written

    def test_many_bad_files_show_five(self, tmp_path):
        store = FolderImages(tmp_path, [f"{i}.jpg" for i in range(600)])
        with pytest.raises(InputError, match="600 of 600 images cannot be read, the first 5") as e:
            pack(store, 8, progress=False)
        assert str(e.value).count("there is no such image") == 5
        with pytest.raises(InputError, match=r"^\S*0\.jpg: there is no such image"):
            store.load([0], 8)

    def test_progress_bar(self, folder, capsys):
        pack(folder, 8, progress=True)
        assert "7/7" in capsys.readouterr().err

    def test_empty_store(self, tmp_path):
        packed = pack(FolderImages(tmp_path, []), 8, tmp_path / "a.npz", progress=False)
        assert (len(packed), packed.array.shape) == (0, (0, 8, 8, 3))

    def test_real_photos(self, realdata):
        names = sorted(p.name for p in (realdata / "clothing-cc0" / "images").glob("*.jpg"))[:40]
        packed = pack(FolderImages(realdata / "clothing-cc0" / "images", names), 64, progress=False)
        assert packed.array.shape == (40, 64, 64, 3)
        assert packed.array.std(axis=(1, 2, 3)).min() > 5  # every one shows something


class TestChosenImages:
    def test_some_images_in_an_order_of_their_own(self):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
        store = PackedImages(pixels, ["a", "b", "c", "d", "e"])
        chosen = ChosenImages(store, [4, 0, 2])
        assert (len(chosen), chosen.names) == (3, ("e", "a", "c"))
        assert torch.equal(chosen.load([2, 0, 2], 4), store.load([2, 4, 2], 4))
        assert chosen.load([], 4).shape == (0, 3, 4, 4)
        for wrong in (3, -1):
            with pytest.raises(InputError, match="the store holds images 0 to 2"):
                chosen.load([wrong], 4)

    def test_a_store_says_what_it_holds(self, folder):
        packed = PackedImages(np.zeros((3, 4, 5, 3), np.uint8), list("abc"))
        assert repr(packed) == "PackedImages(3 images, 4 x 5)"
        assert repr(ChosenImages(packed, [2])) == f"ChosenImages(1 of {packed!r})"
        assert repr(folder) == f"FolderImages({str(folder.root)!r}, 7 images)"
