"""Prepare FashionAI: your two downloads become ASEN's index files and packed images.

    python data_scripts/fashionai.py --root FOLDER --out data

FOLDER holds what you downloaded from Tianchi: `fashionAI_attributes_train1.zip` and
`fashionAI_attributes_train2.zip`, or the two folders they unpack to. The script unpacks them
there, reads every `Annotations/label.csv`, splits by a hash of the file names (or takes ASEN's
published lists with `--splits`), and writes `data/FashionAI/*.txt`, `data/meta.json` and
`data/FashionAI/{train,valid,test}_256.npz`. Read the result with
`agman.datasets.read_asen("data", "FashionAI", images=FOLDER)`, or the packed images with
`agman.datasets.PackedImages.open`. An interrupted run goes on where it stopped; a finished one
changes nothing. Run it once at a time.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm.auto import tqdm

from agman.attributes import FASHIONAI, AttributeTable, QueryGallery, RetrievalData
from agman.datasets import (
    FolderImages,
    PackedImages,
    pack,
    read_asen,
    split_by_image,
    write_asen,
)
from agman.datasets.archives import list_files, unpack
from agman.errors import InputError

PARTS = ("fashionAI_attributes_train1", "fashionAI_attributes_train2")
WHERE = (
    "sign up at https://tianchi.aliyun.com/competition/entrance/231671, and put "
    "fashionAI_attributes_train1.zip (6 GB) and fashionAI_attributes_train2.zip (7 GB), or the "
    "folders of these names, into the folder that --root names"
)
SIDE = 256  # of the packed squares: the images' short side, the centre cut out
MAX_UNPACKED = 24 * 2**30  # bytes of one archive
PUBLISHED_TEST = {  # queries and candidates of ASEN's lists, counted
    "skirt_length": (422, 1703),
    "sleeve_length": (623, 2383),
    "coat_length": (535, 2088),
    "pant_length": (422, 1722),
    "collar_design": (341, 1401),
    "lapel_design": (289, 1269),
    "neckline_design": (703, 2734),
    "neck_design": (265, 1100),
}
HELD_OUT = 18_000 / 180_335  # published share of valid, and of test
QUERIES = 0.2  # 1 query to 4 candidates
SPLITS = ("train", "valid", "test")


@dataclass
class Labels:
    """The rows of all `label.csv` files: names relative to the root, in the order of the files."""

    names: list[str]
    attribute: list[int]
    value: list[int]
    maybe: int = 0  # rows with an m besides the y
    unlabelled: int = 0  # rows with ?, left out
    extra: int = 0  # rows whose fourth column was ignored


# ----------------------------------------------------------------------------- labels


def read_labels(root: Path) -> Labels:
    """Read `Annotations/label.csv` of both parts.

    Raises:
        InputError: a file is missing, or a line is wrong: the message names file and line.
    """
    labels = Labels([], [], [])
    for part in PARTS:
        path = root / part / "Annotations" / "label.csv"
        if not path.is_file():
            raise InputError(
                f"{path} is missing: unpack its archive by a run without --check, or {WHERE}."
            )
        read_label_file(path, part, labels)
    return labels


def read_label_file(path: Path, part: str, labels: Labels) -> None:
    """Add the rows of one file, whose image paths start from the folder `part`."""
    seen: dict[str, int] = {}
    for line, row in _rows(path):
        if len(row) not in (3, 4):
            raise InputError(
                f"{path}, line {line}: {len(row)} columns instead of 3 (image, attribute, "
                "letters); unpack the archive again."
            )
        labels.extra += len(row) == 4
        name, column, letters = row[:3]
        _refuse_path(path, line, name)
        if name in seen:
            raise InputError(
                f"{path}, line {line}: the image {name!r} already stands in line {seen[name]}; "
                "delete one of the two lines."
            )
        seen[name] = line
        if set(letters) == {"?"}:
            labels.unlabelled += 1
            continue
        attribute, value = _decode(path, line, column, letters)
        labels.maybe += "m" in letters
        labels.names.append(f"{part}/{name}")
        labels.attribute.append(attribute)
        labels.value.append(value)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not blank."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); unpack the archive again."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not in UTF-8; unpack the archive again.") from error
    for line, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            yield line, [cell.strip() for cell in row.split(",")]


def _refuse_path(path: Path, line: int, name: str) -> None:
    pure = PurePosixPath(name)
    strange = pure.is_absolute() or ".." in pure.parts or "\\" in name or not name.isprintable()
    if not name or strange:
        raise InputError(
            f"{path}, line {line}: {name!r} is no path inside the data set; do not use this file."
        )


def _decode(path: Path, line: int, column: str, letters: str) -> tuple[int, int]:
    """Attribute and value of a row."""
    name = column.removesuffix("_labels")
    if name == column or name not in FASHIONAI.names:
        raise InputError(
            f"{path}, line {line}: {column!r} is no attribute of FashionAI, such as "
            "'skirt_length_labels'; unpack the archive again."
        )
    attribute = FASHIONAI.attribute(name)
    n = FASHIONAI.n_values[attribute]
    if len(letters) != n or set(letters) - set("ymn") or letters.count("y") != 1:
        raise InputError(
            f"{path}, line {line}: {letters!r} is not {n} letters y, m or n with exactly one y, as "
            f"{name} has {n} values; correct the line."
        )
    return attribute, letters.index("y")


def to_table(labels: Labels, root: Path) -> AttributeTable:
    """The labels as a table over the images in the folder.

    Raises:
        InputError: there are no labels, or images are missing; the message counts them.
    """
    if not labels.names:
        raise InputError(f"{root}: the label.csv files have no labelled row; unpack them again.")
    store = FolderImages(root, labels.names)
    refuse_missing(store, "label.csv")
    rows = np.arange(len(labels.names))
    return AttributeTable(
        FASHIONAI,
        store,
        rows,
        np.array(labels.attribute),
        np.array(labels.value),
        source=str(root),
    )


def refuse_missing(store: FolderImages, source: str) -> None:
    """Raise an `InputError` that counts the images without a file and shows the first three."""
    missing = store.missing()
    if missing:
        first = ", ".join(store.names[i] for i in missing[:3])
        raise InputError(
            f"{source}: {len(missing):,} of {len(store):,} images are not in {store.root}, first "
            f"{first}; unpack both archives there completely."
        )


# ----------------------------------------------------------------------------- splits


def own_split(table: AttributeTable, seed: int) -> RetrievalData:
    """A split of the published proportions, from a hash of the seed and the file names."""
    groups = [PurePosixPath(name).name for name in table.images.names]
    shares = (1 - 2 * HELD_OUT, HELD_OUT, HELD_OUT)
    return split_by_image(table, seed=seed, fractions=shares, query_share=QUERIES, groups=groups)


def published_split(folder: Path, table: AttributeTable) -> RetrievalData:
    """ASEN's published lists as they are, once they fit the images.

    Raises:
        InputError: lists or images are missing, or a label differs from `label.csv`.
    """
    data = read_asen(folder, schema=FASHIONAI, images=_root(table), check_images=False)
    known = dict(zip(table.images.names, zip(table.attribute.tolist(), table.value.tolist())))
    for split in SPLITS:
        part = tables(data, split)
        store = part[0].images
        if not len(store):
            raise InputError(
                f"{folder}/filenames_{split}.txt: missing or empty; copy all 8 lists there "
                "(filenames, label or query and candidate, of train, valid and test)."
            )
        if isinstance(store, FolderImages):
            refuse_missing(store, f"{folder}/filenames_{split}.txt")
        for one in part:
            _refuse_other_labels(one, known)
    return data


def _refuse_other_labels(table: AttributeTable, known: dict[str, tuple[int, int]]) -> None:
    other = [(n, a, v) for n, a, v in rows(table) if known.get(n) != (a, v)]
    if other:
        name, attribute, value = other[0]
        right = "attribute {} value {}".format(*known[name]) if name in known else "no label"
        raise InputError(
            f"{table.source}: {len(other):,} of {len(table):,} rows differ from label.csv, first "
            f"{name} with attribute {attribute} value {value} instead of {right}; take lists made "
            "for this release."
        )


def _root(table: AttributeTable) -> Path:
    store = table.images
    if not isinstance(store, FolderImages):
        raise TypeError("images in a folder")
    return store.root


def tables(data: RetrievalData, split: str) -> list[AttributeTable]:
    """The one or two tables of a split."""
    part = getattr(data, split)
    return [part.queries, part.gallery] if isinstance(part, QueryGallery) else [part]


def rows(table: AttributeTable) -> list[tuple[str, int, int]]:
    """(file, attribute, value) of each row, whatever the numbering of the images."""
    names = table.images.names
    columns = zip(table.image.tolist(), table.attribute.tolist(), table.value.tolist(), strict=True)
    return [(names[i], a, v) for i, a, v in columns]


def report(data: RetrievalData, labels: Labels) -> str:
    """What was read, and a table of counts beside the published ones."""
    lines = [
        f"{len(labels.names):,} labelled images; {labels.maybe:,} with an m besides the y; "
        f"{labels.unlabelled:,} rows with ? left out; fourth column ignored in {labels.extra:,} "
        "rows.",
        "",
        f"{'':16} {'':>8} {'valid':>16} {'test':>16} {'published test':>16}",
        f"{'attribute':16} {'train':>8} " + " ".join([f"{'query':>7} {'gallery':>8}"] * 3),
    ]
    columns = [t for split in SPLITS for t in tables(data, split)]
    counts = [np.bincount(t.attribute, minlength=len(FASHIONAI)).tolist() for t in columns]
    published = [list(column) for column in zip(*PUBLISHED_TEST.values())]
    every = [*counts, *published]
    for name, *numbers in zip((*FASHIONAI.names, "all"), *[[*c, sum(c)] for c in every]):
        train, *pairs = (f"{number:,}" for number in numbers)
        text = [f"{q:>7} {g:>8}" for q, g in zip(pairs[::2], pairs[1::2])]
        lines.append(f"{name:16} {train:>8} " + " ".join(text))
    return "\n".join(lines)


# ----------------------------------------------------------------------------- steps


def unpacked_to(root: Path, part: str) -> tuple[Path, dict[str, int]] | None:
    """Where a part's archive has to be unpacked, and its files; None without an archive.

    Raises:
        InputError: the archive is damaged, or neither it nor the folder is there.
    """
    archive = root / f"{part}.zip"
    if not archive.is_file():
        if not (root / part / "Annotations" / "label.csv").is_file():
            raise InputError(f"{root / part}/Annotations/label.csv is missing: {WHERE}.")
        return None
    files = list_files(archive, max_bytes=MAX_UNPACKED)
    if f"{part}/Annotations/label.csv" in files:
        return root, files
    if "Annotations/label.csv" in files:
        return root / part, files
    raise InputError(
        f"{archive} holds neither Annotations/label.csv nor {part}/Annotations/label.csv; unpack "
        f"it by hand so that {root / part}/Annotations/label.csv is there, and move it away."
    )


def unpack_all(root: Path, dry: bool = False) -> bool:
    """Unpack what is not unpacked yet; whether all is (it may not be in a dry run)."""
    found = [(part, unpacked_to(root, part)) for part in PARTS]  # all are looked at first
    complete = True
    for part, place in found:
        if place is None:
            continue
        folder, files = place
        todo = {n: size for n, size in files.items() if not _is_there(folder / n, size)}
        complete &= not todo
        if dry:
            print(
                f"Would unpack {len(todo):,} of {len(files):,} files of {part}.zip "
                f"({gigabytes(sum(todo.values()))}) into {folder}; {gigabytes(free_bytes(folder))} "
                "are free."
            )
        elif todo:
            refuse_full_disk(folder, sum(todo.values()), f"unpacking {part}.zip")
            n = unpack(root / f"{part}.zip", folder, max_bytes=MAX_UNPACKED)
            print(f"{n:,} files of {part}.zip unpacked")
    return complete


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def gigabytes(n: int) -> str:
    """Bytes in words."""
    return f"{n / 1e9:.1f} GB" if n >= 5e7 else f"{n / 1e6:.1f} MB"


def packed_bytes(n: int) -> int:
    """Size of the packed form of n images."""
    return n * SIDE * SIDE * 3


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


def packed_path(out: Path, split: str) -> Path:
    """The file of packed images of a split."""
    return out / FASHIONAI.name / f"{split}_{SIDE}.npz"


def is_packed(path: Path, names: Sequence[str]) -> bool:
    """Whether a complete file holds just these images in this order."""
    if not path.is_file():
        return False
    try:
        store = PackedImages.open(path)
    except InputError:
        return False
    return list(store.names) == list(names) and store.array.shape[1:] == (SIDE, SIDE, 3)


def is_written(data: RetrievalData, out: Path) -> bool:
    """Whether the index files are there and say the same."""
    try:
        there = read_asen(out, FASHIONAI.name, check_images=False)
    except InputError:
        return False
    same = (
        rows(one) == rows(two)
        for split in SPLITS
        for one, two in zip(tables(there, split), tables(data, split))
    )
    return there.schema == data.schema and all(same)


def is_complete(data: RetrievalData, out: Path) -> bool:
    """Whether a run would change nothing."""
    if not is_written(data, out):
        return False
    written = read_asen(out, FASHIONAI.name, check_images=False)
    stores = {split: tables(written, split)[0].images for split in SPLITS}
    return all(is_packed(packed_path(out, split), store.names) for split, store in stores.items())


def prepare(data: RetrievalData, root: Path, out: Path) -> None:
    """Write index files and packed images that are not there yet."""
    if not is_written(data, out):
        print(f"index files written into {write_asen(data, out)}")
    written = read_asen(out, FASHIONAI.name, images=root)
    stores = {split: tables(written, split)[0].images for split in SPLITS}
    todo = {
        split: store
        for split, store in stores.items()
        if not is_packed(packed_path(out, split), store.names)
    }
    for split in todo:
        _remove_leftovers(packed_path(out, split))
    needed = packed_bytes(sum(len(store) for store in todo.values()))
    refuse_full_disk(out, needed, "packing the images")
    for split, store in todo.items():
        path = packed_path(out, split)
        pack(store, SIDE, path=path)
        print(f"{len(store):,} images packed into {path}")


def _remove_leftovers(path: Path) -> None:
    """What a killed run left beside a packed file; it may be as large as the file."""
    for left in path.parent.glob(f".{path.name}.*.part"):
        with suppress(OSError):
            left.unlink()


def check(data: RetrievalData, root: Path, out: Path, pixels: bool) -> None:
    """Compare what was written with the downloads; with `pixels` decode every image again.

    Raises:
        InputError: something is missing, damaged or differs.
    """
    folder = out / FASHIONAI.name
    written = read_asen(out, FASHIONAI.name, images=root)
    for split in SPLITS:
        for ours, theirs in zip(tables(written, split), tables(data, split)):
            if rows(ours) != rows(theirs):
                raise InputError(
                    f"{ours.source}: its rows are not those of the labels with this --seed or "
                    "--splits; run again without --check to replace them."
                )
        store = tables(written, split)[0].images
        packed = PackedImages.open(packed_path(out, split))
        if list(packed.names) != list(store.names):
            raise InputError(
                f"{packed_path(out, split)}: other images than filenames_{split}.txt; run again "
                "without --check."
            )
        if pixels:
            _compare(store, packed, packed_path(out, split))
    print(f"{folder} is right{', every image compared' if pixels else ''}.")


def _compare(store: object, packed: PackedImages, path: Path) -> None:
    if not isinstance(store, FolderImages):
        raise TypeError("images in a folder")
    for start in tqdm(range(0, len(store), 256), f"checking {path.name}", unit="block"):
        chosen = np.arange(start, min(start + 256, len(store)))
        same = (store.load(chosen, SIDE) == packed.load(chosen, SIDE)).flatten(1).all(1).numpy()
        if not same.all():
            name = store.names[int(chosen[~same][0])]
            raise InputError(f"{path}: {name} differs from its file; delete {path} and run again.")


def say(n: int, out: Path) -> None:
    """What a run would pack, and the room it takes."""
    print(
        f"Would write the lists into {out / FASHIONAI.name} and pack {n:,} images of {SIDE} x "
        f"{SIDE} pixels there ({gigabytes(packed_bytes(n))}; {gigabytes(free_bytes(out))} are "
        "free)."
    )


def count_pictures(root: Path) -> int:
    """How many images the two parts hold, in archives or folders, without reading labels."""
    n = 0
    for part in PARTS:
        place = unpacked_to(root, part)
        names = place[1] if place else [path.name for path in (root / part).rglob("*.jpg")]
        n += sum(name.endswith(".jpg") for name in names)
    return n


def run(options: argparse.Namespace) -> None:
    """All steps that were asked for."""
    root, out = options.root, options.out
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: {WHERE}.")
    if options.splits is not None and not options.splits.is_dir():
        raise InputError(f"There is no folder {options.splits}; name the one of ASEN's lists.")
    if not options.check and not unpack_all(root, options.dry_run) and options.dry_run:
        print("The labels can be read once the archives are unpacked.")
        say(count_pictures(root), out)
        return
    labels = read_labels(root)
    table = to_table(labels, root)
    if options.splits is None:
        data = own_split(table, options.seed)
    else:
        data = published_split(options.splits, table)
    print(report(data, labels))
    if options.dry_run:
        if is_complete(data, out):
            print(f"Nothing is left to do: {out / FASHIONAI.name} is complete.")
        else:
            say(sum(len(t) for split in SPLITS for t in tables(data, split)), out)
        return
    if not options.check:
        prepare(data, root, out)
    check(data, root, out, pixels=options.check)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, check, or say what would be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, help="folder of the downloads")
    parser.add_argument("--out", type=Path, default=Path("data"), help="default: data")
    parser.add_argument("--splits", type=Path, help="folder of ASEN's published lists")
    parser.add_argument("--seed", type=int, default=0, help="of our own split (default: 0)")
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
