"""Prepare Zappos50k: UT-Zap50K's photos and labels with the triplets of CSN.

    python data_scripts/zappos50k.py --root FOLDER --out data

downloads into FOLDER what is not there yet: `ut-zap50k-images.zip` (about 290 MB) and
`ut-zap50k-data.zip` (about 3 MB) from vision.cs.utexas.edu, and `csn_zappos_triplets.zip` from
vision.cornell.edu. The data are for academic, non-commercial use. None of the three addresses
could be reached when this was written: if one has moved, name the new one with `--images-url`,
`--data-url` or `--triplets-url`, or put the file into FOLDER by hand; what lies there, packed or
unpacked, is used and not downloaded.

It writes into `data/Zappos50k` the triplets as CSN has them (`filenames.json`, `tripletlists/`,
for `agman.datasets.read_csn`), ASEN's index files (for `agman train` and for MAP), and all photos
in one file, `images_112.npz`. An interrupted run goes on where it stopped; a finished one changes
nothing. Run it once at a time.

The labels come from `meta-data.csv`, found by the number in a photo's file name: class is
`Category` (shoes, boots, sandals, slippers; CSN speaks of the type of shoe, and `SubCategory`
would split these further), closure is `Closure`, gender is `Gender`, and heel is `HeelHeight`.
A cell of several values gives several rows. The report says how many triplets these labels bear
out; it cannot be all, as heels are measured in inches and the labels are ranges.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from agman.attributes import ZAPPOS50K, AttributeSchema, AttributeTable, RetrievalData
from agman.datasets import FolderImages, PackedImages, check_prepared, is_prepared, pack, prepare
from agman.datasets.archives import list_files
from agman.datasets.asen import read_names
from agman.datasets.csn import list_names, read_triplets
from agman.datasets.downloads import download
from agman.datasets.prepared import (
    SPLITS,
    count_table,
    decode_all,
    holds,
    packed_bytes,
    packed_path,
    planned,
    refuse_full_disk,
    refuse_unsafe_path,
    unpack_rest,
)
from agman.datasets.splits import queries_and_gallery
from agman.errors import InputError
from agman.storage import replacing

NAME = ZAPPOS50K.name
COLUMNS = {"class": "Category", "closure": "Closure", "gender": "Gender", "heel": "HeelHeight"}
KEY = "CID"
QUERIES = 0.2  # 1 query to 4 gallery images
MAX_UNPACKED = 4 * 2**30  # bytes of one archive
EXPECTED = 50_025  # photos, as the data set's page says


@dataclass(frozen=True)
class Source:
    """One download: its file and folder in the root, where it is, how large, and what is in it."""

    folder: str
    url: str
    size: str
    member: str = ""  # a file by which it is recognised unpacked, if its folder does not do

    @property
    def file(self) -> str:
        return f"{self.folder}.zip"


UTEXAS = "https://vision.cs.utexas.edu/projects/finegrained/utzap50k"
IMAGES = Source("ut-zap50k-images", f"{UTEXAS}/ut-zap50k-images.zip", "about 290 MB")
DATA = Source("ut-zap50k-data", f"{UTEXAS}/ut-zap50k-data.zip", "about 3 MB", "meta-data.csv")
TRIPLETS = Source(
    "csn_zappos_triplets",
    "https://vision.cornell.edu/se3/wp-content/uploads/2019/05/csn_zappos_triplets.zip",
    "size not known",
    "filenames.json",
)


@dataclass(frozen=True)
class Zappos:
    """What the three downloads say together."""

    images: Path  # the folder of the photos
    names: list[str]  # of the photos in it, in CSN's order
    lists: Path  # the folder of the twelve triplet lists
    triplets: dict[str, np.ndarray]  # split to (T, 4): attribute, anchor, positive, negative
    data: RetrievalData


# ----------------------------------------------------------------------------- downloads


def obtain(root: Path, sources: Sequence[Source], allowed: bool, dry: bool) -> bool:
    """Download what is not there; whether all is (it may not be in a dry run).

    Raises:
        InputError: something is missing and may not or cannot be downloaded.
    """
    missing = [source for source in sources if not is_there(root, source)]
    for source in missing:
        if not allowed:
            raise InputError(
                f"{root / source.file}: neither this file nor its content is there; download it "
                f"from {source.url} ({source.size}), or run without --check and --no-download."
            )
        if dry:
            print(f"Would download {source.url} ({source.size}) to {root / source.file}.")
        else:
            download(source.url, root / source.file)
    return not (missing and dry)


def is_there(root: Path, source: Source) -> bool:
    """Whether a download lies in the root, packed or unpacked."""
    if (root / source.file).is_file():
        return True
    if source.member:
        return bool(places(root, source, source.member))
    return (root / source.folder).is_dir()


def unpack_all(root: Path, sources: Sequence[Source], dry: bool) -> bool:
    """Unpack what is not unpacked yet; whether all is (it may not be in a dry run).

    Raises:
        InputError: an archive is damaged or unsafe; all are looked at first.
    """
    archives = {
        root / source.file: unpacked_to(root, source)
        for source in sources
        if (root / source.file).is_file()
    }
    complete = True
    for archive, folder in archives.items():
        complete &= unpack_rest(archive, folder, max_bytes=MAX_UNPACKED, dry=dry)
    return complete


def unpacked_to(root: Path, source: Source) -> Path:
    """Where an archive belongs, with or without a folder of its own name inside."""
    files = list_files(root / source.file, max_bytes=MAX_UNPACKED)
    inside = any(name.startswith(f"{source.folder}/") for name in files)
    return root if inside else root / source.folder


def places(root: Path, source: Source, member: str) -> list[Path]:
    """Where a file of a download lies: in its folder, at any depth, or where CSN's code puts it."""
    beside = [*root.glob(member), *root.glob(f"tripletlists/{member}")]
    return beside or sorted((root / source.folder).rglob(member))


def find(root: Path, source: Source, member: str) -> Path:
    """The one place of a file.

    Raises:
        InputError: it is missing, or lies in several places.
    """
    found = places(root, source, member)
    if len(found) != 1:
        what = f"lies in {len(found)} places" if found else "is missing"
        raise InputError(
            f"{root / source.folder}: {member} {what}; unpack {source.file} there again, from "
            f"{source.url}, and nothing else."
        )
    return found[0]


# ----------------------------------------------------------------------------- photos


def read_photos(listing: Path, folder: Path) -> tuple[list[str], int]:
    """The photos that CSN lists, as paths that exist, and how many are spelled otherwise there.

    Some brands' folders are spelled otherwise in the archive than in the lists made for it
    (`Levi's` and `Levi's&#174;`), so a path that does not exist is looked up by the file's name,
    which is the product's number.

    Raises:
        InputError: a path is unsafe or stands twice, or photos are missing; they are counted.
    """
    names = read_names(listing)
    for line, name in enumerate(names, start=1):
        refuse_unsafe_path(listing, line, name)
    there: dict[str, str] = {}
    files: set[str] = set()
    for path, _, members in os.walk(folder):
        inside = Path(path).relative_to(folder)
        for member in members:
            name = (inside / member).as_posix()
            files.add(name)
            there[member] = "" if member in there else name  # empty where it is not clear which
    found = [n if n in files else there.get(PurePosixPath(n).name, "") for n in names]
    missing = [name for name, real in zip(names, found) if not real]
    if missing:
        raise InputError(
            f"{listing}: {len(missing):,} of {len(names):,} photos are not in {folder}, first "
            f"{', '.join(missing[:3])}; unpack {IMAGES.file} completely."
        )
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        lines = [line for line, name in enumerate(found, start=1) if name == twice[0]]
        raise InputError(
            f"{listing}, line {lines[1]}: {twice[0]!r} already stands in line {lines[0]} "
            f"({len(twice):,} such photos); take the list of CSN's archive."
        )
    return found, sum(name != real for name, real in zip(names, found))


def number_of(name: str) -> str | None:
    """The CID of a photo: `7965307.5291.jpg` is product `7965307-5291`."""
    match = re.fullmatch(r"([0-9]+)\.([0-9]+)\.jpg", PurePosixPath(name).name)
    return f"{match[1]}-{match[2]}" if match else None


# ----------------------------------------------------------------------------- labels


def read_metadata(path: Path) -> dict[str, list[list[str]]]:
    """For each product the values of class, closure, gender and heel.

    Raises:
        InputError: a column is missing, a line has another number of cells, or a product stands
            twice; the message names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text in UTF-8; unpack it again.") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not valid CSV ({error}); unpack {DATA.file} again."
        ) from error
    lacking = [column for column in (KEY, *COLUMNS.values()) if column not in header]
    if lacking:
        raise InputError(
            f"{path}, line 1: there is no column {lacking[0]!r} among {', '.join(header)[:200]}; "
            f"unpack {DATA.file} again."
        )
    products: dict[str, list[list[str]]] = {}
    lines: dict[str, int] = {}
    twice: list[tuple[str, int]] = []
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(row)} cells under a header of "
                f"{len(header)}; unpack {DATA.file} again."
            )
        cells = dict(zip(header, row))
        product = cells[KEY].strip()
        if product in lines:
            twice.append((product, line))
        lines.setdefault(product, line)
        products[product] = [values_of(cells[column]) for column in COLUMNS.values()]
    if twice:
        product, line = twice[0]
        raise InputError(
            f"{path}, line {line}: the product {product!r} already stands in line "
            f"{lines[product]} ({len(twice):,} such lines); take the file of one release."
        )
    return products


def values_of(cell: str) -> list[str]:
    """The values of a cell, each once: `Women;Girls`."""
    return list(dict.fromkeys(word for part in cell.split(";") if (word := part.strip())))


def to_table(
    names: list[str], folder: Path, products: dict[str, list[list[str]]]
) -> AttributeTable:
    """The labels of the listed photos; the values are those that occur, sorted by name.

    Raises:
        InputError: photos belong to no product; they are counted.
    """
    keys = [number_of(name) for name in names]
    unknown = [name for name, key in zip(names, keys) if key is None or key not in products]
    if unknown:
        raise InputError(
            f"{folder}: {len(unknown):,} of {len(names):,} photos have no line in "
            f"{DATA.member}, first {', '.join(unknown[:3])}; take photos and labels of one release."
        )
    shared = [key for key, count in Counter(keys).items() if count > 1]
    if shared:
        alike = [name for name, key in zip(names, keys) if key == shared[0]]
        raise InputError(
            f"{folder}: {len(shared):,} products have several photos, first {', '.join(alike)}; "
            "take the photos of one release."
        )
    labels = [products[key] for key in keys if key]
    found = [sorted({value for cells in labels for value in cells[a]}) for a in range(len(COLUMNS))]
    schema = AttributeSchema(ZAPPOS50K.names, tuple(map(tuple, found)), NAME)
    place = [{value: i for i, value in enumerate(values)} for values in found]
    rows = [
        (image, a, place[a][value])
        for image, cells in enumerate(labels)
        for a, values in enumerate(cells)
        for value in values
    ]
    image, attribute, value = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    store = FolderImages(folder, names)
    return AttributeTable(schema, store, image, attribute, value, source=str(folder))


def divide(table: AttributeTable, triplets: dict[str, np.ndarray]) -> tuple[RetrievalData, int]:
    """Each photo to the split of its triplets, and how many photos occur in several.

    A photo of test triplets is a test photo whatever else it is, one of valid triplets is not
    trained on, and one without triplets is.
    """
    part = np.zeros(len(table.images), dtype=np.int64)
    occurs = np.zeros((len(SPLITS), len(table.images)), dtype=bool)
    for number, split in enumerate(SPLITS):
        occurs[number, triplets[split][:, 1:]] = True
        part[occurs[number]] = number
    valid, test = (
        queries_and_gallery(table, np.flatnonzero(part == number), QUERIES, seed=0)
        for number in (1, 2)
    )
    train = table.select(part[table.image] == 0)
    data = RetrievalData(NAME, table.schema, train, valid, test)
    return data, int((occurs.sum(axis=0) > 1).sum())


def borne_out(table: AttributeTable, triplets: np.ndarray) -> np.ndarray:
    """(T,) True where anchor and positive share a value, and anchor and negative share none."""
    result = np.zeros(len(triplets), dtype=bool)
    for a, n in enumerate(table.schema.n_values):
        rows = table.attribute == a
        has = np.zeros((len(table.images), n), dtype=bool)
        has[table.image[rows], table.value[rows]] = True
        of = triplets[:, 0] == a
        anchor, positive, negative = (has[triplets[of, i]] for i in (1, 2, 3))
        result[of] = (anchor & positive).any(axis=1) & ~(anchor & negative).any(axis=1)
    return result


# ----------------------------------------------------------------------------- steps


def read(root: Path) -> Zappos:
    """Read and compare all three downloads, and say what was found.

    Raises:
        InputError: they are damaged or do not belong together.
    """
    listing, folder = find(root, TRIPLETS, "filenames.json"), root / IMAGES.folder
    names, respelled = read_photos(listing, folder)
    lists = {find(root, TRIPLETS, name).parent for name in list_names()}
    if len(lists) > 1:
        raise InputError(
            f"{root}: the triplet lists lie in {len(lists)} folders; unpack them again."
        )
    triplets = read_triplets(min(lists), listing, len(names))
    products = read_metadata(find(root, DATA, DATA.member))
    table = to_table(names, folder, products)
    data, several = divide(table, triplets)
    print(
        f"{len(names):,} photos, {respelled:,} of them in folders spelled otherwise than listed; "
        f"{len(products) - len(names):,} products without a listed photo; {several:,} photos are "
        "in triplets of several splits and go to test rather than valid, to valid rather than "
        "train."
    )
    print(triplet_table(table, triplets))
    return Zappos(folder, names, min(lists), triplets, data)


def triplet_table(table: AttributeTable, triplets: dict[str, np.ndarray]) -> str:
    """How many triplets each split has for each attribute, and how many the labels bear out."""
    lines = ["", f"{'triplets':16} " + " ".join(f"{split:>18}" for split in SPLITS)]
    right = {split: borne_out(table, triplets[split]) for split in SPLITS}
    for a, name in enumerate(table.schema.names):
        cells = []
        for split in SPLITS:
            of = triplets[split][:, 0] == a
            share = f"({right[split][of].mean():.1%})" if of.any() else ""
            cells.append(f"{of.sum():>9,} {share:>8}")
        lines.append(f"{name:16} " + " ".join(cells))
    return "\n".join([*lines, "In brackets: the share that the labels bear out."])


def write(zappos: Zappos, out: Path, side: int | None) -> None:
    """Write what is not there yet or differs; each file whole or not at all."""
    prepare(zappos.data, zappos.images, out, None)
    folder = out / NAME
    for name, content in texts(zappos):
        if not says(folder / name, content):
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
    store = FolderImages(zappos.images, zappos.names)
    if side is not None and not holds(packed_path(out, NAME, "images", side), store, side):
        refuse_full_disk(out, packed_bytes(len(store), side), "packing the images")
        pack(store, side, path=packed_path(out, NAME, "images", side))


def texts(zappos: Zappos) -> list[tuple[str, bytes]]:
    """The text files beside ASEN's: path in the folder, and content."""
    listing = "".join(f"{name}\n" for name in zappos.names).encode()
    lists = [(f"tripletlists/{n}", (zappos.lists / n).read_bytes()) for n in list_names()]
    return [("filenames.json", listing), *lists]


def says(path: Path, content: bytes) -> bool:
    """Whether a file is there with this content."""
    return path.is_file() and path.read_bytes() == content


def is_complete(zappos: Zappos, out: Path, side: int | None) -> bool:
    """Whether `write` would change nothing."""
    store = FolderImages(zappos.images, zappos.names)
    return (
        is_prepared(zappos.data, out, None)
        and all(says(out / NAME / name, content) for name, content in texts(zappos))
        and (side is None or holds(packed_path(out, NAME, "images", side), store, side))
    )


def check(zappos: Zappos, out: Path, side: int | None, pixels: bool) -> None:
    """Compare what was written with the downloads; with `pixels` every photo too.

    Raises:
        InputError: something is missing or differs.
    """
    check_prepared(zappos.data, zappos.images, out, None, pixels=False)
    for name, content in texts(zappos):
        if not says(out / NAME / name, content):
            raise InputError(
                f"{out / NAME / name}: missing, or not what the downloads say; run again without "
                "--check."
            )
    store = FolderImages(zappos.images, zappos.names)
    packed, path = None, out / NAME / "filenames.json"
    if side is not None:
        path = packed_path(out, NAME, "images", side)
        packed = PackedImages.open(path)
        if not holds(path, store, side):
            raise InputError(f"{path}: other photos than filenames.json; run without --check.")
    if pixels:
        decode_all(store, packed, path)
    print(f"\n{out / NAME} is right{', every photo compared' if pixels else ''}.")


def run(options: argparse.Namespace) -> None:
    """All steps that were asked for."""
    root, out = options.root, options.out
    side = None if options.no_pack else options.side
    sources = [
        replace(IMAGES, url=options.images_url),
        replace(DATA, url=options.data_url),
        replace(TRIPLETS, url=options.triplets_url),
    ]
    dry = options.dry_run
    complete = obtain(root, sources, not (options.no_download or options.check), dry)
    if not options.check:
        complete &= unpack_all(root, sources, dry)
    if not complete:
        print("The rest can be said once all is unpacked.")
        print(planned(NAME, EXPECTED, out, side))
        return
    zappos = read(root)
    if dry:
        if is_complete(zappos, out, side):
            print(f"Nothing is left to do: {out / NAME} is complete.")
        else:
            print(planned(NAME, len(zappos.names), out, side))
        return
    if not options.check:
        write(zappos, out, side)
    check(zappos, out, side, pixels=options.check)
    print(f"\n{count_table(zappos.data)}\n")
    words = "" if side is not None else f" --images {zappos.images}"
    print(f"Next: agman train --data {out / NAME}{words} --run runs/{NAME.lower()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, check, or say what would be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, help="folder of the downloads")
    parser.add_argument("--out", type=Path, default=Path("data"), help="default: data")
    parser.add_argument("--side", type=int, default=112, help="of packed photos (default: 112)")
    parser.add_argument("--no-pack", action="store_true", help="write the lists alone")
    parser.add_argument("--no-download", action="store_true", help="use only what --root holds")
    parser.add_argument("--images-url", default=IMAGES.url, help=f"of {IMAGES.file}")
    parser.add_argument("--data-url", default=DATA.url, help=f"of {DATA.file}")
    parser.add_argument("--triplets-url", default=TRIPLETS.url, help=f"of {TRIPLETS.file}")
    parser.add_argument("--check", action="store_true", help="only check what was written")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    try:
        run(parser.parse_args(argv))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
