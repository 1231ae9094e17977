"""Prepared data sets: what the scripts in `data_scripts/` write and `agman train --data` reads.

::

    <out>/meta.json, <out>/<name>/*.txt the index files of ASEN
    <out>/<name>/<split>_<side>.npz     the images of a split as squares, in the order of its list

Everything is written whole or not at all, split by split, so that an interrupted run goes on where
it stopped and a finished one changes nothing. A second process at the same data set is refused.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm.auto import tqdm

from agman.attributes import AttributeTable, QueryGallery, RetrievalData
from agman.datasets.archives import list_files, unpack
from agman.datasets.asen import read_asen, write_asen
from agman.datasets.images import FolderImages, ImageStore, PackedImages, pack
from agman.errors import InputError
from agman.storage import alone_in, remove_leftovers

SPLITS = ("train", "valid", "test")

_BLOCK = 256  # images compared between two steps of the progress bar


# ----------------------------------------------------------------------------- what is in a set


def tables(data: RetrievalData, split: str) -> list[AttributeTable]:
    """The tables of a split: one of train, queries and gallery of valid and of test."""
    part = getattr(data, split)
    return [part.queries, part.gallery] if isinstance(part, QueryGallery) else [part]


def rows(table: AttributeTable) -> list[tuple[str, int, int]]:
    """(file, attribute, value) of each row in the table's order, however images are numbered."""
    names = table.images.names
    columns = zip(table.image.tolist(), table.attribute.tolist(), table.value.tolist(), strict=True)
    return [(names[i], a, v) for i, a, v in columns]


def count_table(data: RetrievalData, published: Mapping[str, tuple[int, int]] | None = None) -> str:
    """Rows of each attribute in each split, as lines of text.

    Args:
        data: the data set.
        published: queries and gallery images of each attribute's test split to show beside ours.
    """
    columns = [table for split in SPLITS for table in tables(data, split)]
    counts = [np.bincount(t.attribute, minlength=len(data.schema)).tolist() for t in columns]
    above = ["valid", "test"]
    if published is not None:
        counts += [list(column) for column in zip(*(published[n] for n in data.schema.names))]
        above.append("published test")
    lines = [
        f"{'':16} {'':>9} " + " ".join(f"{name:>17}" for name in above),
        f"{'attribute':16} {'train':>9} " + " ".join([f"{'query':>8} {'gallery':>8}"] * len(above)),
    ]
    for name, *numbers in zip((*data.schema.names, "all"), *[[*c, sum(c)] for c in counts]):
        train, *rest = (f"{number:,}" for number in numbers)
        lines.append(f"{name:16} {train:>9} " + " ".join(f"{number:>8}" for number in rest))
    return "\n".join(lines)


def refuse_missing(store: FolderImages, source: str) -> None:
    """Raise an `InputError` that counts the images without a file and shows the first three."""
    missing = store.missing()
    if missing:
        first = ", ".join(store.names[i] for i in missing[:3])
        raise InputError(
            f"{source}: {len(missing):,} of {len(store):,} images are not in {store.root}, first "
            f"{first}; unpack the download there completely."
        )


def refuse_unsafe_path(source: Path, line: int, name: str) -> None:
    """Raise an `InputError` if a path that stands in a downloaded list leaves its folder."""
    pure = PurePosixPath(name)
    strange = pure.is_absolute() or ".." in pure.parts or "\\" in name or not name.isprintable()
    if not name or strange:
        raise InputError(
            f"{source}, line {line}: {name!r} is no path inside the data set; do not use this file."
        )


# ----------------------------------------------------------------------------- room on the disk


def gigabytes(n: int) -> str:
    """Bytes in words."""
    return f"{n / 1e9:,.1f} GB" if n >= 5e7 else f"{n / 1e6:.1f} MB"


def _refuse_side(side: int | None) -> None:
    if side is not None and side < 1:
        raise InputError(f"Packed images have a side of at least 1 pixel, not {side}.")


def packed_bytes(n: int, side: int) -> int:
    """Size of the packed form of n images."""
    return n * side * side * 3


def free_bytes(folder: Path) -> int:
    """Free space where a folder is or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def refuse_full_disk(folder: Path, needed: int, what: str) -> None:
    """Raise an `InputError` before hours of work that cannot end well."""
    free = free_bytes(folder)
    if needed > free:
        raise InputError(
            f"{folder}: {what} needs {gigabytes(needed)} and {gigabytes(free)} are free; make room "
            "or choose another folder."
        )


def unpack_rest(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int,
    dry: bool = False,
    files: Mapping[str, int] | None = None,
) -> bool:
    """Unpack the files of an archive that are not there yet, or with `dry` say what would be.

    Args:
        archive, folder, max_bytes: as for `archives.unpack`.
        dry: only say it.
        files: what `archives.list_files` said of it, where that was asked for already.

    Returns:
        Whether all of its files are there now.

    Raises:
        InputError: the archive is damaged or unsafe, or the disk is too small.
    """
    files = list_files(archive, max_bytes=max_bytes) if files is None else files
    todo = {name: n for name, n in files.items() if not _has_size(folder / name, n)}
    if todo and dry:
        print(
            f"Would unpack {len(todo):,} of {len(files):,} files of {archive.name} "
            f"({gigabytes(sum(todo.values()))}) into {folder}; {gigabytes(free_bytes(folder))} "
            "are free."
        )
    elif todo:
        refuse_full_disk(folder, sum(todo.values()), f"unpacking {archive.name}")
        print(f"{unpack(archive, folder, max_bytes=max_bytes):,} files of {archive.name} unpacked")
    return not (todo and dry)


def _has_size(path: Path, size: int) -> bool:
    return os.path.isfile(path) and path.stat().st_size == size


def planned(name: str, n: int, out: Path, side: int | None) -> str:
    """What `prepare` would do for n images, and the room it takes.

    Raises:
        InputError: the side is no number of pixels.
    """
    _refuse_side(side)
    if side is None:
        return f"Would write the lists of {n:,} images into {out / name}, and pack none."
    return (
        f"Would write the lists into {out / name} and pack {n:,} images of {side} x {side} pixels "
        f"there ({gigabytes(packed_bytes(n, side))}; {gigabytes(free_bytes(out))} are free)."
    )


# ----------------------------------------------------------------------------- writing


def packed_path(out: Path, name: str, split: str, side: int) -> Path:
    """The file of packed images of a split."""
    return out / name / f"{split}_{side}.npz"


def prepare(
    data: RetrievalData, images: Path, out: Path, side: int | None, *, progress: bool = True
) -> None:
    """Write index files and packed images that are not there yet or differ.

    Args:
        data: the data set; the names of its images are paths below `images`.
        images: the folder of the image files.
        out: where the folder of the data set's name is made.
        side: of the packed squares in pixels; None writes the index files alone.
        progress: show a bar for each split.

    Raises:
        InputError: an image is missing or unreadable, the disk is too small, or another process is
            at it. What was complete stays, and nothing half-written does.
    """
    _refuse_side(side)
    with alone_in(out / data.name):
        remove_leftovers(out, "meta.json")
        if not _lists_say(data, out):
            write_asen(data, out)
        stores = _stores(_written(data, out, images))
        if side is None:
            return
        todo = {
            packed_path(out, data.name, split, side): store
            for split, store in stores.items()
            if not holds(packed_path(out, data.name, split, side), store, side)
        }
        needed = packed_bytes(sum(len(store) for store in todo.values()), side)
        refuse_full_disk(out, needed, "packing the images")
        for path, store in todo.items():
            pack(store, side, path=path, progress=progress)


def is_prepared(data: RetrievalData, out: Path, side: int | None) -> bool:
    """Whether `prepare` would change nothing."""
    if not _lists_say(data, out):
        return False
    return side is None or all(
        holds(packed_path(out, data.name, split, side), store, side)
        for split, store in _stores(_written(data, out)).items()
    )


def _written(data: RetrievalData, out: Path, images: Path | None = None) -> RetrievalData:
    """What the index files say, over image files that must exist if `images` is given."""
    return read_asen(out, data.name, images=images or out, check_images=images is not None)


def _stores(data: RetrievalData) -> dict[str, ImageStore]:
    """The images of each split that has any."""
    stores = {split: tables(data, split)[0].images for split in SPLITS}
    return {split: store for split, store in stores.items() if len(store)}


def _lists_say(data: RetrievalData, out: Path) -> bool:
    """Whether the index files are there and say the same as the data."""
    try:
        written = _written(data, out)
    except InputError:
        return False
    same = (
        rows(one) == rows(two)
        for split in SPLITS
        for one, two in zip(tables(written, split), tables(data, split), strict=True)
    )
    return _same_schema(written, data) and all(same)


def _same_schema(one: RetrievalData, two: RetrievalData) -> bool:
    """Whether attributes and values are the same; the index files name a schema by the data."""
    return (one.schema.names, one.schema.values) == (two.schema.names, two.schema.values)


def holds(path: Path, store: ImageStore, side: int) -> bool:
    """Whether a complete file holds just these images in this order and size."""
    try:
        packed = PackedImages.open(path)
    except InputError:
        return False
    return packed.names == store.names and packed.array.shape[1:] == (side, side, 3)


# ----------------------------------------------------------------------------- checking


def check_prepared(
    data: RetrievalData, images: Path, out: Path, side: int | None, *, pixels: bool
) -> None:
    """Compare what was written with its source.

    Args:
        data, images, out, side: as for `prepare`.
        pixels: decode every image again, and compare it with its packed form.

    Raises:
        InputError: something is missing, damaged or differs; the message is on the first.
    """
    written = _written(data, out, images)
    for split in SPLITS:
        for ours, theirs in zip(tables(written, split), tables(data, split), strict=True):
            if rows(ours) != rows(theirs) or not _same_schema(written, data):
                raise InputError(
                    f"{ours.source}: its rows are not those of the labels with these options; run "
                    "again without --check to replace them."
                )
    for split, store in _stores(written).items():
        packed = None
        path = out / data.name / f"filenames_{split}.txt"
        if side is not None:
            path = packed_path(out, data.name, split, side)
            packed = PackedImages.open(path)
            if not holds(path, store, side):
                raise InputError(
                    f"{path}: other images than filenames_{split}.txt; run again without --check."
                )
        if pixels:
            decode_all(store, packed, path)


def decode_all(store: ImageStore, packed: PackedImages | None, path: Path) -> None:
    """Read every image file, and refuse one that differs from its packed form."""
    side = 32 if packed is None else packed.array.shape[1]
    for start in tqdm(range(0, len(store), _BLOCK), f"checking {path.name}", unit="block"):
        chosen = np.arange(start, min(start + _BLOCK, len(store)))
        decoded = store.load(chosen, side)
        if packed is None:
            continue
        same = (decoded == packed.load(chosen, side)).flatten(1).all(1).numpy()
        if not same.all():
            name = store.names[int(chosen[~same][0])]
            raise InputError(f"{path}: {name} differs from its file; delete {path} and run again.")


# ----------------------------------------------------------------------------- the whole


def finish(
    data: RetrievalData,
    images: Path,
    out: Path,
    side: int | None,
    *,
    check: bool,
    dry: bool,
    published: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """What every script does once it knows its data: prepare and check, then count aloud.

    Args:
        data, images, out, side: as for `prepare`.
        check: write nothing, and compare every image.
        dry: write nothing, and say what would be done.
        published: see `count_table`.
    """
    folder = out / data.name
    if dry and is_prepared(data, out, side):
        print(f"Nothing is left to do: {folder} is complete.")
    elif dry:
        print(planned(data.name, _count_images(data), out, side))
    else:
        if not check:
            prepare(data, images, out, side)
        check_prepared(data, images, out, side, pixels=check)
        print(f"{folder} is right{', every image compared' if check else ''}.")
    print(f"\n{count_table(data, published)}\n")
    if not dry:
        words = ["--data", str(folder), *([] if side else ["--images", str(images)])]
        print(f"Next: agman train {shlex.join(words)} --run runs/{data.name.lower()}")


def _count_images(data: RetrievalData) -> int:
    """How many images the splits list, each split for itself."""
    return sum(
        len({one.images.names[i] for one in tables(data, split) for i in np.unique(one.image)})
        for split in SPLITS
    )
