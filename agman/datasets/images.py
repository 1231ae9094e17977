"""Where images come from: a folder of photographs, or one packed array.

Both are an `ImageStore`, so a table, a sampler and the evaluator never ask which it is.
One rule fits an image to a square everywhere: the short side becomes `size` (antialiased,
bilinear), then the centre `size` x `size` is cut out.
"""

from __future__ import annotations

import functools
import json
import math
import os
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError

from agman.errors import InputError
from agman.storage import replacing

MAX_PIXELS = 89_478_485
"""Larger images are refused unread; Pillow's own limit, about 9,500 x 9,500."""

# Named one by one because some of Pillow's other formats start foreign programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_PIXELS = "images.npy"
_NAMES = "names.json"
_CHUNK = 256  # images decoded between two steps of the progress bar

Result = TypeVar("Result")


class ImageStore(Protocol):
    """Anything that holds named images and gives them as square tensors."""

    @property
    def names(self) -> Sequence[str]:
        """One name per image."""

    def __len__(self) -> int: ...

    def load(self, indices: Any, size: int) -> torch.Tensor:
        """Images as a uint8 tensor (len(indices), 3, size, size)."""


class PackedImages:
    """Images of one size in one uint8 array, in memory or memory-mapped.

    Args:
        array: (N, H, W, 3) uint8, RGB.
        names: N names.

    Raises:
        InputError: the array has another shape or type, or the number of names differs.

    >>> store = PackedImages(np.zeros((2, 8, 8, 3), np.uint8), ["a.jpg", "b.jpg"])
    >>> store.load([1], size=8).shape
    torch.Size([1, 3, 8, 8])
    """

    def __init__(self, array: np.ndarray, names: Sequence[str]) -> None:
        if (
            array.dtype != np.uint8
            or array.ndim != 4
            or array.shape[3] != 3
            or 0 in array.shape[1:]
        ):
            raise InputError(
                f"Packed images are a uint8 array (N, H, W, 3), not {array.dtype} {array.shape}."
            )
        if len(names) != len(array):
            raise InputError(f"{len(array)} packed images came with {len(names)} names.")
        self.array = array
        self.names: Sequence[str] = tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"PackedImages({len(self)} images, {self.array.shape[1]} x {self.array.shape[2]})"

    def load(self, indices: Any, size: int) -> torch.Tensor:
        """Images as a uint8 tensor (len(indices), 3, size, size); a mere copy at their own size.

        Raises:
            InputError: an index or the size is out of range.
        """
        chosen = _checked(indices, len(self), size)
        pixels = torch.from_numpy(np.asarray(self.array[chosen]))  # (B, H, W, 3)
        return _fit(pixels.permute(0, 3, 1, 2), size).contiguous()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, which appears only when complete.

        It is a plain `.npz` that `numpy.load` opens too: pixels and names, uncompressed.

        Raises:
            InputError: the file cannot be written.
        """
        blocks = (self.array[i : i + _CHUNK] for i in range(0, len(self), _CHUNK))
        _write_packed(Path(path), self.array.shape, blocks, self.names)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PackedImages:
        """Memory-map what `save` or `pack` wrote; takes no time and hardly any memory.

        Raises:
            InputError: the file is missing, cut short, or of another kind.
        """
        path = Path(path)
        if not os.path.isfile(path):
            raise InputError(f"{path}: there is no such file of packed images; pack them first.")
        try:
            array, names = _map_packed(path)
            return cls(array, names)
        except Exception as error:  # a foreign or damaged file can break zip, npy or json alike
            raise InputError(
                f"{path}: not a complete file of packed images ({_first_line(error)}); delete it "
                "and pack the images again."
            ) from error


class FolderImages:
    """Image files below a folder, decoded when asked for.

    Args:
        root: the folder.
        names: paths relative to it; they are not looked at before `load`.
        threads: how many files are decoded at once; default one per processor, at most 8.
    """

    def __init__(
        self, root: str | os.PathLike[str], names: Sequence[str], threads: int | None = None
    ) -> None:
        self.root = Path(root)
        self.names: Sequence[str] = tuple(names)
        self.threads = threads or min(8, os.cpu_count() or 1)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"FolderImages({str(self.root)!r}, {len(self)} images)"

    def path(self, index: int) -> Path:
        """The file of one image."""
        return self.root / self.names[index]

    def missing(self) -> list[int]:
        """The images whose file is not there, without opening any."""
        return [i for i, name in enumerate(self.names) if not os.path.isfile(self.root / name)]

    def load(self, indices: Any, size: int) -> torch.Tensor:
        """Images as a uint8 tensor (len(indices), 3, size, size).

        Raises:
            InputError: an index or the size is out of range, or files cannot be read: one message
                counts them and names the first five.
        """
        chosen = _checked(indices, len(self), size)
        images = torch.empty(len(chosen), 3, size, size, dtype=torch.uint8)
        room = _Room()

        def decode(row: int) -> str | None:
            try:
                images[row] = _load_image(self.path(int(chosen[row])), size, room)
            except InputError as error:
                return str(error)
            return None

        problems = [found for found in self._each(decode, len(chosen)) if found]
        if problems:
            raise _bad_images(problems, len(chosen))
        return images

    def _each(self, work: Callable[[int], str | None], n: int) -> list[str | None]:
        if n < 2 or self.threads < 2:
            return [work(i) for i in range(n)]
        with ThreadPoolExecutor(self.threads) as pool:  # Pillow and torch release the GIL
            return list(pool.map(work, range(n)))


class ChosenImages:
    """Some images of another store, in an order of their own.

    Args:
        store: the store that holds them.
        indices: (N,) which of its images.
    """

    def __init__(self, store: ImageStore, indices: Sequence[int]) -> None:
        self.store = store
        self.indices = np.asarray(indices, dtype=np.int64)
        self.names: Sequence[str] = tuple(store.names[i] for i in indices)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"ChosenImages({len(self)} of {self.store!r})"

    def load(self, indices: Any, size: int) -> torch.Tensor:
        """Images as a uint8 tensor (len(indices), 3, size, size).

        Raises:
            InputError: see the store's own `load`.
        """
        return self.store.load(self.indices[_checked(indices, len(self), size)], size)


class _BadImages(InputError):
    """Several files that cannot be read; keeps each sentence so that `pack` can add them up."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


def _bad_images(problems: Sequence[str], total: int) -> _BadImages:
    if len(problems) == 1:
        return _BadImages(problems[0], problems)
    shown = " | ".join(problem.rstrip(".") for problem in problems[:5])
    first = "" if len(problems) <= 5 else ", the first 5"
    message = f"{len(problems)} of {total} images cannot be read{first}: {shown}."
    return _BadImages(message, problems)


def pack(
    store: ImageStore,
    size: int,
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> PackedImages:
    """Decode and resize every image of a store once.

    Args:
        store: the images.
        size: side of the packed squares in pixels.
        path: file to write and memory-map (for sets larger than memory); None keeps all in memory.
        progress: show a progress bar.

    Raises:
        InputError: some images cannot be read (all are tried, one message counts them), or the
            file cannot be written; nothing half-written stays behind.
    """
    shape = (len(store), size, size, 3)
    blocks = _blocks(store, size, progress)
    if path is not None:
        _write_packed(Path(path), shape, blocks, store.names)
        return PackedImages.open(path)
    array = np.empty(shape, dtype=np.uint8)
    start = 0
    for block in blocks:
        array[start : start + len(block)] = block
        start += len(block)
    return PackedImages(array, store.names)


def _blocks(store: ImageStore, size: int, progress: bool) -> Iterator[np.ndarray]:
    """Blocks (b, size, size, 3) of all images; raises at the end if some could not be read."""
    from tqdm.auto import tqdm  # slow to import, and only this function needs it

    problems: list[str] = []
    with tqdm(total=len(store), desc="packing", unit="image", disable=not progress) as bar:
        for start in range(0, len(store), _CHUNK):
            chosen = np.arange(start, min(start + _CHUNK, len(store)))
            try:
                images = store.load(chosen, size)
            except _BadImages as error:
                problems += error.problems
            else:
                yield images.permute(0, 2, 3, 1).numpy()
            bar.update(len(chosen))
    if problems:
        raise _bad_images(problems, len(store))


class _Room:
    """At most `MAX_PIXELS` pixels decoded at once, however many threads decode.

    A file of ten kilobytes can hold an image of a gigabyte.
    """

    def __init__(self) -> None:
        self.free = MAX_PIXELS
        self.changed = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for so many, and keep it as long as the block lasts."""
        with self.changed:
            self.changed.wait_for(lambda: pixels <= self.free)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


def load_image(path: str | os.PathLike[str], size: int) -> torch.Tensor:
    """One image file as a uint8 tensor (3, size, size).

    Args:
        path: the file.
        size: side of the square.

    Raises:
        InputError: see `read_image`.
    """
    return _load_image(path, size, _Room())


def _load_image(path: str | os.PathLike[str], size: int, room: _Room) -> torch.Tensor:
    def fitted(image: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(to_rgb(image)))  # (H, W, 3)
        return _fit(pixels.permute(2, 0, 1)[None], size)[0]

    return _decode(Path(path), fitted, room)


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Decode one image file to RGB, the way it is meant to be seen.

    A camera's rotation mark (EXIF) is applied, transparency is laid on white, 16-bit gray is
    reduced to 8, CMYK and palettes are converted, and an animation gives its first frame.

    Raises:
        InputError: the file is missing, empty, cut short, larger than `MAX_PIXELS`, or no image.
    """
    return _decode(Path(path), to_rgb, _Room())


def _decode(path: Path, use: Callable[[Image.Image], Result], room: _Room) -> Result:
    """Decode an image file and use it, while there is room for it."""
    try:
        _refuse_non_file(path)
        with Image.open(path, formats=_formats()) as image:
            _refuse_extreme_size(path, image)
            with room.of(image.width * image.height):
                image.load()
                return use(image)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: not an image of a known kind; save it as JPEG or PNG, or leave it out."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(_too_large(path)) from error
    except Exception as error:  # damaged files make Pillow raise errors of a dozen kinds
        raise InputError(
            f"{path}: damaged or cut short ({_first_line(error)}); copy it again or leave it out."
        ) from error


def _refuse_non_file(path: Path) -> None:
    if not os.path.exists(path):  # False too for a name that no file can have
        raise InputError(f"{path}: there is no such image; check the name and the image folder.")
    if not path.is_file():
        raise InputError(f"{path}: not a file; name an image file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy it again or leave it out.")


def _refuse_extreme_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(_too_large(path))
    if min(image.size) < 1:
        raise InputError(f"{path}: the image has no pixels; leave it out.")


def _too_large(path: Path) -> str:
    return f"{path}: more than {MAX_PIXELS:,} pixels; make the image smaller or leave it out."


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats of `_FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """An image as `read_image` gives it: upright, 8 bits, red, green and blue, on white."""
    image = _upright(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode == "I" or image.mode.startswith("I;16"):
        deep = np.clip(np.asarray(image), 0, 65535)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def _fit(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (B, 3, H, W) to (B, 3, size, size): short side to `size`, then the centre."""
    height, width = images.shape[2:]
    if (height, width) == (size, size):
        return images
    short = min(height, width)
    if max(height, width) > 3 * short:  # else a long strip could be enlarged beyond all memory
        images = _centre(images, min(height, 3 * short), min(width, 3 * short))
        height, width = images.shape[2:]
    target = (int(size * height / short), int(size * width / short))
    images = F.interpolate(images, target, mode="bilinear", antialias=True, align_corners=False)
    return _centre(images, size, size)


def _centre(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    top = round((images.shape[2] - height) / 2)
    left = round((images.shape[3] - width) / 2)
    return images[:, :, top : top + height, left : left + width]


def _checked(indices: Any, n: int, size: int) -> np.ndarray:
    chosen = np.atleast_1d(np.asarray(indices))
    if not chosen.size:
        chosen = chosen.astype(np.int64)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError("Images are chosen by a list of whole numbers.")
    if size < 1:
        raise InputError(f"An image size is at least 1 pixel, not {size}.")
    bad = chosen[(chosen < 0) | (chosen >= n)]
    if len(bad):
        raise InputError(f"There is no image {bad[0]}; the store holds images 0 to {n - 1}.")
    return chosen


def _write_packed(
    path: Path, shape: tuple[int, ...], blocks: Iterator[np.ndarray], names: Sequence[str]
) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open(zipfile.ZipInfo(_PIXELS), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for block in blocks:
                member.write(np.ascontiguousarray(block).data)
        archive.writestr(zipfile.ZipInfo(_NAMES), json.dumps(list(names)))


def _map_packed(path: Path) -> tuple[np.ndarray, list[str]]:
    """The pixels as a read-only map and the names; any oddity raises some error."""
    with zipfile.ZipFile(path) as archive:
        pixels, listing = archive.getinfo(_PIXELS), archive.getinfo(_NAMES)
        if (
            pixels.compress_type != zipfile.ZIP_STORED
            or listing.compress_type != pixels.compress_type
        ):
            raise ValueError("compressed")
        names = json.loads(archive.read(listing))
        with archive.open(pixels) as member:
            np.lib.format.read_magic(member)
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
            header = member.tell()
    if fortran_order or dtype != np.uint8 or math.prod(shape) != pixels.file_size - header:
        raise ValueError("pixels of another form")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names of another form")
    if not names:  # an empty file cannot be mapped
        return np.empty(shape, np.uint8), names
    # A member's data follow its local header: 30 bytes, its name, and an extra field.
    with path.open("rb") as file:
        file.seek(pixels.header_offset + 26)
        lengths = struct.unpack("<HH", file.read(4))
    offset = pixels.header_offset + 30 + sum(lengths) + header
    return np.memmap(path, np.uint8, "r", offset, shape), names


def _first_line(error: BaseException) -> str:
    """An error in a few words, to be put in brackets."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")
