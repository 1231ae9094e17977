"""Prepare real product photos: an open catalogue of the Hugging Face hub, no sign-up needed.

    python data_scripts/product_photos.py --root FOLDER --out data

takes the first 8,000 photos (`--n`, 0 for all) of a catalogue of 44,072 from the hub: by default
`benitomartin/fashion-product-images-small-384x512`, photos of 384 x 512 pixels in five files of
some 400 MB, one of which has enough for 8,000. `--hub-id ashraq/fashion-product-images-small` is
the same catalogue at 60 x 80 pixels (two files of 136 MB; add `--side 64`). Both stem from the
Kaggle set "Fashion Product Images", which others say is MIT-licensed; their own pages named no
licence that could be read. The photos are a shop's: learn with them, do not publish them. Names,
sizes and columns are as public pages and code state them; neither set could be downloaded where
this was written.

The hub's own cache keeps the files and resumes them. From them the script writes FOLDER/labels.csv
and FOLDER/images; if FOLDER holds these already, or parquet files, it uses them and asks for
nothing. Values with few photos are left out, photos that look the same are kept on one side of the
split, and `data/products` gets ASEN's index files and packed photos. An interrupted run goes on
where it stopped; a finished one changes nothing. Run it once at a time.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from agman.attributes import AttributeSchema, AttributeTable
from agman.datasets import FolderImages, read_csv, read_image, split_by_image
from agman.datasets.prepared import finish, gigabytes, planned, refuse_full_disk
from agman.errors import InputError
from agman.storage import read_json, replacing, write_json, write_text

NAME = "products"
HUB_ID = "benitomartin/fashion-product-images-small-384x512"
ATTRIBUTES = ("articleType", "baseColour", "gender", "season", "usage")
SHARES = (0.7, 0.1, 0.2)  # of train, valid and test
UNKNOWN = {"", "na", "nan", "none", "null"}  # cells that say nothing
IDENTIFIERS = ("id", "item_ID")  # columns that number the photos

MOST_BITS = 24  # of 127 that may differ between photos that look the same
MOST_DIFFERENCE = 16.0  # of 255, between their colors anywhere
BRIGHTER = 1.2  # how many times brighter a copy may be, anywhere
BLOCK = 256  # photos compared with all others at once


# ----------------------------------------------------------------------------- where from


class Shelf(Protocol):
    """Where parquet files with photos come from."""

    name: str  # of the data set
    how: str  # they come, in words

    def files(self, revision: str | None) -> tuple[str, dict[str, int]]:
        """The exact revision of the data set, and name and size of each file."""

    def fetch(self, revision: str, file: str) -> Path:
        """One file, downloaded if need be."""


class Folder:
    """Parquet files that are there already."""

    how = "which are there already"

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, str(root)

    def files(self, revision: str | None) -> tuple[str, dict[str, int]]:
        paths = sorted(path for path in self.root.rglob("*.parquet") if path.is_file())
        sizes = {path.relative_to(self.root).as_posix(): path.stat().st_size for path in paths}
        return "", sizes

    def fetch(self, revision: str, file: str) -> Path:
        return self.root / file


class HuggingFace:
    """A data set of the Hugging Face hub, through its own library, which resumes and caches.

    Raises:
        InputError: the library is missing, or the hub does not give what is asked for.
    """

    def __init__(self, hub_id: str) -> None:
        self._hub = imported("huggingface_hub")
        self.name = hub_id
        self.how = f"downloaded from the Hugging Face hub to {self._hub.constants.HF_HUB_CACHE}"

    def files(self, revision: str | None) -> tuple[str, dict[str, int]]:
        with self._asking():
            api = self._hub.HfApi()
            info = api.dataset_info(self.name, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings}
        return str(info.sha), {file: sizes[file] for file in sorted(sizes) if is_parquet(file)}

    def fetch(self, revision: str, file: str) -> Path:
        with self._asking():
            path = self._hub.hf_hub_download(
                self.name, file, repo_type="dataset", revision=revision
            )
        return Path(path)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn the errors of the library, which are of many kinds, into one sentence."""
        try:
            yield
        except Exception as error:
            raise InputError(
                f"{self.name}: the Hugging Face hub did not give it ({in_short(error)}); check "
                "the connection and the name, run again to go on, or choose another --hub-id such "
                "as ashraq/fashion-product-images-small."
            ) from error


def is_parquet(file: str) -> bool:
    return file.endswith(".parquet")


def in_short(error: Exception) -> str:
    """The first line of an error, to be put in brackets."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:150].rstrip(".")


def imported(name: str) -> Any:
    """A package that only this script needs.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f'The package {name.split(".")[0]} is missing; run: pip install "agman[hub]".'
        ) from error


# ----------------------------------------------------------------------------- from parquet


def extract(root: Path, shelf: Shelf, revision: str, sizes: dict[str, int], n: int) -> None:
    """Write the first n photos (0: all) and their labels into the root; photos there stay.

    `labels.csv` is written last: where it lies, all its photos do.

    Raises:
        InputError: a file cannot be had or read, a row is wrong, or the disk is too small.
    """
    catalogue: list[dict[str, str]] = []
    without = 0
    seen: set[str] = set()
    with tqdm(desc="photos", total=n or None, unit="photo") as bar:
        for where, row in rows_of(root, shelf, revision, sizes):
            photo = picture_in(row)
            if not photo:
                without += 1
                continue
            name = f"{stem_of(row, where, len(catalogue), seen)}.{ending(photo)}"
            write_photo(root / "images" / name, photo)
            catalogue.append({"file": name, **labels_in(row)})
            bar.update()
            if len(catalogue) == n:
                break
    if not catalogue:
        raise InputError(f"{shelf.name}: there is no photo in its {len(sizes)} parquet files.")
    write_text(root / "labels.csv", as_csv(catalogue))
    print(f"{len(catalogue):,} photos in {root / 'images'}; {without:,} rows have none.")


def rows_of(
    root: Path, shelf: Shelf, revision: str, sizes: dict[str, int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row is, and the row; a file is fetched when its first row is wanted."""
    for file, size in sizes.items():
        print(f"Reading {file} of {shelf.name} ({gigabytes(size)}), {shelf.how}.")
        path = shelf.fetch(revision, file)
        refuse_full_disk(root, size, f"unpacking {file}")
        for number, row in enumerate(parquet_rows(path)):
            yield f"{path}, row {number}", row


def write_photo(path: Path, photo: bytes) -> None:
    """Write a photo whole, unless it is there."""
    if not path.is_file() or path.stat().st_size != len(photo):
        with replacing(path) as temporary:
            temporary.write_bytes(photo)


def ending(photo: bytes) -> str:
    """The usual ending of a file that begins like this."""
    return {b"\x89P": "png", b"RI": "webp"}.get(photo[:2], "jpg")


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file.

    Raises:
        InputError: it is damaged, or has no column `image`.
    """
    parquet = imported("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        columns = file.schema_arrow.names
        batches = file.iter_batches(batch_size=64)
    except Exception as error:  # pyarrow's errors have several bases
        raise damaged(path, error) from error
    if "image" not in columns:
        raise InputError(
            f"{path}: there is no column 'image' among {', '.join(columns)[:200]}; choose another "
            "data set."
        )
    while True:
        try:
            rows = next(batches).to_pylist()
        except StopIteration:
            return
        except Exception as error:
            raise damaged(path, error) from error
        yield from rows


def damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: damaged, cut short or no parquet file ({in_short(error)}); delete it and run "
        "again."
    )


def picture_in(row: dict[str, Any]) -> bytes:
    """The bytes of a row's photo; empty where there is none."""
    cell = row["image"]
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return bytes(data) if isinstance(data, bytes) else b""


def stem_of(row: dict[str, Any], where: str, number: int, seen: set[str]) -> str:
    """How a photo's file is called: by its own number, else by its place.

    Raises:
        InputError: the number stands twice or cannot be a file name.
    """
    own = [str(row[column]) for column in IDENTIFIERS if row.get(column) is not None]
    stem = own[0] if own else f"{number:06}"
    if stem in seen or not re.fullmatch(r"[\w-]{1,100}", stem):
        reason = "stands twice" if stem in seen else "cannot be a file name"
        raise InputError(f"{where}: the number {stem!r} {reason}; choose another data set.")
    seen.add(stem)
    return stem


def labels_in(row: dict[str, Any]) -> dict[str, str]:
    """The cells of a row that are words or numbers, empty where unknown."""
    cells = {name: cell for name, cell in row.items() if name not in ("image", "file")}
    words = {
        name: " ".join(str(cell).split())
        for name, cell in cells.items()
        if cell is None or isinstance(cell, (str, int, float))
    }
    return {name: "" if word.lower() in UNKNOWN else word for name, word in words.items()}


def as_csv(rows: Sequence[dict[str, str]]) -> str:
    """A catalogue: one line a photo, one column an attribute."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# ----------------------------------------------------------------------------- the catalogue


def obtain(options: argparse.Namespace) -> bool:
    """See that the root holds a catalogue of enough photos; whether it does.

    Raises:
        InputError: it does not and cannot be made to, or holds another data set.
    """
    root, n = options.root, options.n
    catalogue, record = root / "labels.csv", root / "source.json"
    known = recorded(record)
    if known.get("hub_id") and known["hub_id"] != options.hub_id:
        raise InputError(
            f"{root} holds photos of {known['hub_id']}; choose another folder with --root for "
            f"{options.hub_id}, or name the other with --hub-id."
        )
    if catalogue.is_file() and (not known.get("n") or 0 < n <= known["n"]):
        return True
    if options.check:
        raise InputError(f"{catalogue}: missing, or of fewer photos; run without --check first.")
    imported("pyarrow.parquet")  # before a long download
    local = any(root.rglob("*.parquet"))
    shelf: Shelf = Folder(root) if local else HuggingFace(options.hub_id)
    revision, sizes = shelf.files(known.get("revision"))
    if not sizes:
        raise InputError(f"{shelf.name}: there is no parquet file; choose another --hub-id.")
    if options.dry_run:
        few = f"as many of {len(sizes)} files as {n:,} photos need" if n else "all files"
        print(
            f"Would read {few} of {shelf.name} ({gigabytes(sum(sizes.values()))} together), "
            f"{shelf.how}, and write the photos into {root / 'images'}."
        )
        return False
    if catalogue.is_file():
        catalogue.unlink()  # of fewer photos; written again once all are there
    write_json(record, {"hub_id": "" if local else shelf.name, "revision": revision, "n": n})
    extract(root, shelf, revision, sizes, n)
    return True


def recorded(record: Path) -> dict[str, Any]:
    """Which data set the photos in the root are from, and how many; empty for one's own."""
    known = read_json(record) if record.is_file() else {}
    if not isinstance(known, dict) or not isinstance(known.get("n", 0), int):
        raise InputError(f"{record}: not as this script writes it; delete it, and run again.")
    return known


def read_catalogue(options: argparse.Namespace) -> tuple[AttributeTable, Path]:
    """The wanted labels of the first n photos, and the folder of the photos.

    Raises:
        InputError: the catalogue is wrong, or no attribute is left to compare photos by.
    """
    table = read_csv(options.root / "labels.csv", attributes=options.attributes)
    images = folder_of(table)
    if options.n:
        table = table.select(table.image < options.n)
    return without_rare_values(table, options.min_photos), images.root


def folder_of(table: AttributeTable) -> FolderImages:
    """The images of a table that was read from a folder."""
    if not isinstance(table.images, FolderImages):
        raise TypeError("images in a folder")
    return table.images


def without_rare_values(table: AttributeTable, least: int) -> AttributeTable:
    """Leave out values with fewer than `least` photos, then attributes with fewer than two values.

    Raises:
        InputError: nothing is left.
    """
    kept = [np.flatnonzero(count >= max(least, 1)) for count in table.counts()]
    for name, values, count in zip(table.schema.names, kept, table.counts()):
        rare = np.delete(count, values)
        few = f"; {(rare > 0).sum()} more have fewer than {least} photos, together {rare.sum():,}"
        lone = "" if len(values) > 1 else "; left out, as there is nothing to tell apart"
        print(f"{name}: {len(values)} values{few if rare.any() else ''}{lone}")
    attributes = [a for a, values in enumerate(kept) if len(values) > 1]
    if not attributes:
        raise InputError(
            f"{table.source}: no attribute has two values with {least} photos each; take more "
            "photos with --n, or lower --min-photos."
        )
    schema = AttributeSchema(
        tuple(table.schema.names[a] for a in attributes),
        tuple(tuple(table.schema.values[a][v] for v in kept[a]) for a in attributes),
        NAME,
    )
    place = {(a, int(v)): (i, j) for i, a in enumerate(attributes) for j, v in enumerate(kept[a])}
    rows = [
        (image, *place[a, v])
        for image, a, v in zip(
            table.image.tolist(), table.attribute.tolist(), table.value.tolist(), strict=True
        )
        if (a, v) in place
    ]
    image, attribute, value = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return AttributeTable(schema, table.images, image, attribute, value, source=table.source)


# ----------------------------------------------------------------------------- alike


def thumbnails(images: FolderImages, chosen: np.ndarray) -> np.ndarray:
    """(len(chosen), 32, 36, 3) uint8, the whole photo squeezed.

    Raises:
        InputError: a photo cannot be read.
    """

    def squeezed(index: int) -> np.ndarray:
        photo = read_image(images.path(index))
        return np.asarray(photo.resize((36, 32), Image.Resampling.BILINEAR))

    result = np.empty((len(chosen), 32, 36, 3), dtype=np.uint8)
    with ThreadPoolExecutor(images.threads) as pool:
        found = pool.map(squeezed, chosen.tolist())
        for i, thumbnail in enumerate(tqdm(found, "looking for copies", len(chosen), unit="photo")):
            result[i] = thumbnail
    return result


def alike(small: np.ndarray) -> np.ndarray:
    """For each thumbnail the first one of its group: those that look the same, in a chain.

    All pairs are compared: first by their difference hashes (which neighbouring cells are darker),
    then by the colors of their cells, from large to small: where large ones differ, so do some of
    the small ones in them, which spares most of the work.

    Args:
        small: (N, 32, 36, 3) uint8.

    Returns:
        (N,) index of the first of the group.
    """
    signs = difference_hash(cells_of(small, 8, 9))
    levels = [cells_of(small, rows, columns) for rows, columns in ((2, 2), (8, 9), (16, 18))]
    least = signs.shape[1] - 2 * MOST_BITS
    first = np.arange(len(small))
    for start in tqdm(range(0, len(small), BLOCK), "comparing", unit="block"):
        one, two = np.nonzero(signs[start : start + BLOCK] @ signs[start:].T >= least)
        one, two = one[one < two] + start, two[one < two] + start
        for part in range(0, len(one), 1 << 17):
            i, j = one[part : part + (1 << 17)], two[part : part + (1 << 17)]
            for cells in levels:
                same = color_difference(cells[i], cells[j]) <= MOST_DIFFERENCE
                i, j = i[same], j[same]
            for a, b in zip(i.tolist(), j.tolist()):
                a, b = root_of(first, a), root_of(first, b)
                first[max(a, b)] = min(a, b)
    return np.array([root_of(first, i) for i in range(len(first))], dtype=np.int64)


def cells_of(small: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(N, rows, columns, 3) mean colors of equal rectangles."""
    n, height, width, _ = small.shape
    cut = small.reshape(n, rows, height // rows, columns, width // columns, 3)
    return cut.mean(axis=(2, 4), dtype=np.float32)


def root_of(first: np.ndarray, i: int) -> int:
    """The end of a chain, which is made shorter on the way."""
    while first[i] != i:
        first[i] = first[first[i]]
        i = int(first[i])
    return i


def difference_hash(cells: np.ndarray) -> np.ndarray:
    """(N, 127) +1 where a cell is clearly brighter than its right or lower neighbour, else -1.

    Clearly, so that the noise of a white background has no say.

    Args:
        cells: (N, 8, 9, 3) mean colors.
    """
    gray = cells @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    across = gray[:, :, :-1] - gray[:, :, 1:] > 2
    down = gray[:, :-1] - gray[:, 1:] > 2
    bits = np.concatenate([across.reshape(len(cells), -1), down.reshape(len(cells), -1)], axis=1)
    return np.where(bits, np.float32(1), np.float32(-1))


def color_difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(N,) largest difference of any color that is not explained by one photo being brighter.

    A copy may be up to `BRIGHTER` times brighter, and in each place less than that, as white stays
    white.

    Args:
        one, two: (N, ...) mean colors of cells, 0 to 255.
    """
    n = math.prod(one.shape[1:])
    one, two = one.reshape(-1, n), two.reshape(-1, n)

    def unexplained(dark: np.ndarray, bright: np.ndarray) -> np.ndarray:
        return np.maximum(bright - BRIGHTER * dark, dark - bright).max(axis=1)

    return np.maximum(np.minimum(unexplained(one, two), unexplained(two, one)), 0)


def groups_of(table: AttributeTable) -> list[str]:
    """For each image of the table's store the name of the first photo that looks the same."""
    names = table.images.names
    chosen = np.unique(table.image)
    chosen = chosen[np.argsort([names[i] for i in chosen])]  # not the order of the lines
    first = alike(thumbnails(folder_of(table), chosen))
    sizes = [count for count in Counter(first.tolist()).values() if count > 1]
    print(
        f"{len(chosen):,} photos; {len(sizes):,} groups of look-alikes with {sum(sizes):,} photos, "
        f"at most {max(sizes, default=1)} in one, each kept in one of train, valid and test."
    )
    groups = list(names)
    for i, head in zip(chosen.tolist(), first.tolist()):
        groups[i] = names[int(chosen[head])]
    return groups


# ----------------------------------------------------------------------------- steps


def run(options: argparse.Namespace) -> None:
    """All steps that were asked for."""
    if not obtain(options):
        if options.n:
            print(planned(NAME, options.n, options.out, None if options.no_pack else options.side))
        return
    table, folder = read_catalogue(options)
    data = split_by_image(
        table, seed=options.seed, fractions=SHARES, query_share=0.2, groups=groups_of(table)
    )
    side = None if options.no_pack else options.side
    finish(data, folder, options.out, side, check=options.check, dry=options.dry_run)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, check, or say what would be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, help="folder of the photos and labels")
    parser.add_argument("--out", type=Path, default=Path("data"), help="default: data")
    parser.add_argument("--hub-id", default=HUB_ID, help=f"data set of the hub (default: {HUB_ID})")
    parser.add_argument(
        "--n", type=int, default=8000, help="most photos, 0 for all (default: 8000)"
    )
    parser.add_argument("--attributes", nargs="+", default=ATTRIBUTES, metavar="COLUMN")
    parser.add_argument(
        "--min-photos", type=int, default=20, help="of a value, else it is left out (default: 20)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--side", type=int, default=224, help="of packed photos (default: 224)")
    parser.add_argument("--no-pack", action="store_true", help="write the lists alone")
    parser.add_argument("--check", action="store_true", help="only check what was written")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    try:
        options = parser.parse_args(argv)
        if options.n < 0:
            raise InputError(f"--n is a number of photos, or 0 for all, not {options.n}.")
        run(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
