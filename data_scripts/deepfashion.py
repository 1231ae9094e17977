"""Prepare DeepFashion: your download becomes ASEN's index files and packed images.

    python data_scripts/deepfashion.py --root FOLDER --out data

FOLDER holds the Category and Attribute Prediction benchmark: the folders `Anno_coarse` (or
`Anno`), `Anno_fine`, `Eval` and `Img`, or zip archives of them such as `Img/img.zip`, which are
unpacked there. The page of DeepFashion, http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html
(MMLAB of the Chinese University of Hong Kong), leads to an agreement and the download from a
drive: a few GB, for non-commercial research only. The script takes the official partition (or
ASEN's published lists with `--splits`) and writes `data/DeepFashion/*.txt`, `data/meta.json` and
`data/DeepFashion/{train,valid,test}_256.npz`, which `agman train --data data/DeepFashion` reads.
Packed like this, the 289,222 images take 57 GB; `--side 128` takes a quarter of that, and
`--no-pack` leaves them the JPEG files they are. `--labels fine` takes the 26 attributes of
`Anno_fine` instead of the 1,000 and writes `data/DeepFashion_fine`. An interrupted run goes on
where it stopped; a finished one changes nothing. Run it once at a time.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from agman.attributes import (
    DEEPFASHION,
    AttributeSchema,
    AttributeTable,
    RetrievalData,
    numbered_schema,
)
from agman.datasets import FolderImages, read_asen
from agman.datasets.archives import list_files
from agman.datasets.asen import read_names
from agman.datasets.prepared import (
    SPLITS,
    finish,
    planned,
    refuse_missing,
    refuse_unsafe_path,
    rows,
    tables,
    unpack_rest,
)
from agman.datasets.splits import queries_and_gallery
from agman.errors import InputError

WHERE = (
    "agree to the terms (non-commercial research only) that "
    "http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html leads to, download the Category and "
    "Attribute Prediction benchmark from its drive, and put its folders or zip archives into the "
    "folder that --root names"
)
TYPES = {  # the attributes, in the order of the type numbers in list_attr_cloth.txt
    "coarse": ("texture", "fabric", "shape", "part", "style"),
    "fine": ("texture", "sleeve", "length", "neckline", "fabric", "fit"),
}
NAMES = {"coarse": "DeepFashion", "fine": "DeepFashion_fine"}
ANNOTATIONS = {
    "coarse": ("Anno_coarse", "Anno"),
    "fine": ("Anno_fine", "Anno_fine/split", "split"),
}
IMAGES = ("Img/img/", "img/")
LABELS = "list_attr_img.txt"
PARTITION = "Eval/list_eval_partition.txt"
STATUS = ("train", "val", "test")
FOREIGN = ("*.7z", "*.7z.*", "*.rar", "*.zip.*", "*.z01", "*.zip")  # to be unpacked by hand
MAX_UNPACKED = 64 * 2**30  # bytes of one archive
QUERIES = 0.2  # 1 query to 4 candidates


@dataclass(frozen=True)
class Labels:
    """What the annotation files say: one row for each attribute that an image has."""

    schema: AttributeSchema
    names: list[str]  # of all images, relative to the folder of `img`
    image: np.ndarray  # (R,)
    attribute: np.ndarray  # (R,)
    value: np.ndarray  # (R,)
    unknown: int  # cells that are neither yes nor no

    def __str__(self) -> str:
        pairs, counts = np.unique(
            self.image * len(self.schema) + self.attribute, return_counts=True
        )
        several = len(np.unique(pairs[counts > 1] // len(self.schema)))
        bare = len(self.names) - len(np.unique(self.image))
        return (
            f"{len(self.names):,} images with {len(self.image):,} labels of "
            f"{sum(self.schema.n_values):,} values; {several:,} images have several values of one "
            f"attribute; {bare:,} have no label and are left out; {self.unknown:,} cells are "
            "unknown."
        )


# ----------------------------------------------------------------------------- files


def places_of(file: str, labels: str) -> list[str]:
    """Where an annotation file may lie below the root."""
    return [f"{folder}/{file}" for folder in ANNOTATIONS[labels]]


def located(root: Path, *places: str) -> Path:
    """The first of some paths below the root that exists.

    Raises:
        InputError: none does; the message says where to get it, or what to unpack by hand.
    """
    for place in places:
        if (root / place).exists():
            return root / place
    raise InputError(f"{root / places[0]} is missing: {WHERE}{_by_hand(root)}.")


def _by_hand(root: Path) -> str:
    """What to do with archives that this script cannot unpack."""
    known = {archive for labels in TYPES for archive, _, _ in archives(root, labels)}
    kinds = [f"{folder}{kind}" for folder in ("", "Img/") for kind in FOREIGN]
    foreign = [path for kind in kinds for path in root.glob(kind) if path not in known]
    if not foreign:
        return ""
    return (
        f"; if it is in {foreign[0]}, unpack that by hand (7-Zip can), as this script knows only "
        "zip archives with Anno_coarse, Anno_fine, Eval or img at their top"
    )


def archives(root: Path, labels: str) -> list[tuple[Path, Path, dict[str, int]]]:
    """(archive, folder to unpack it in, its files) of each zip that holds what is needed."""
    found = []
    zips = sorted([*root.glob("*.zip"), *root.glob("Img/*.zip")])
    for archive in tqdm(zips, "reading lists", unit="archive", disable=not zips):
        files = list_files(archive, max_bytes=MAX_UNPACKED)
        folder = _unpacked_to(archive, root, files, labels)
        if folder is not None:
            found.append((archive, folder, files))
    return found


def _unpacked_to(archive: Path, root: Path, files: dict[str, int], labels: str) -> Path | None:
    """The folder in which an archive's files get the paths that are looked for; None if none."""
    fitting = []
    for folder in (archive.parent, root, archive.parent / archive.stem):
        inside = folder.relative_to(root).as_posix()
        for name in files:
            if _is_needed(name if inside == "." else f"{inside}/{name}", labels):
                fitting.append((folder, name))
                break
    for folder, name in fitting:
        if (folder / name).exists():
            return folder
    return fitting[0][0] if fitting else None


def _is_needed(path: str, labels: str) -> bool:
    if path.startswith(IMAGES):
        return path.endswith(".jpg")
    folder, _, file = path.rpartition("/")
    return path == PARTITION or (folder in ANNOTATIONS[labels] and file.endswith(".txt"))


def unpack_all(root: Path, labels: str, dry: bool) -> tuple[bool, int]:
    """Unpack what is not unpacked yet.

    Returns:
        Whether all is (it may not be in a dry run), and how many images the archives hold.
    """
    complete, images = True, 0
    for archive, folder, files in archives(root, labels):
        complete &= unpack_rest(archive, folder, max_bytes=MAX_UNPACKED, dry=dry, files=files)
        images += sum(name.endswith(".jpg") for name in files)
    return complete, images


# ----------------------------------------------------------------------------- reading


def counted_rows(path: Path, column: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each row of a file that begins with a count and column names.

    Raises:
        InputError: another form; the message names the line.
    """
    n = 0
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); unpack the file again."
        ) from error
    with file:
        size = path.stat().st_size
        count, header = (_text(path, line, file.readline()) for line in (1, 2))
        if not count.isdecimal():
            raise InputError(f"{path}, line 1: {count[:40]!r} is no count; unpack the file again.")
        if not header.startswith(column):
            raise InputError(
                f"{path}, line 2: {header[:40]!r} instead of the column names, {column} first; "
                "unpack the file again."
            )
        with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=size < 1e7) as bar:
            for line, data in enumerate(file, start=3):
                bar.update(len(data))
                text = _text(path, line, data)
                if text:
                    n += 1
                    yield line, text
    if n != int(count):
        raise InputError(
            f"{path}: {n:,} rows where line 1 says {int(count):,}; unpack the file again."
        )


def _text(path: Path, line: int, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {line}: not in UTF-8; unpack the file again.") from error


def read_columns(path: Path, labels: str) -> tuple[AttributeSchema, np.ndarray, np.ndarray]:
    """Schema, and attribute and value of each label column, from `list_attr_cloth.txt`.

    A type is an attribute; its values are its rows in the order of the file.

    Raises:
        InputError: a line is wrong, or 1,000 rows do not divide into the benchmark's types.
    """
    types = TYPES[labels]
    values: list[list[str]] = [[] for _ in types]
    columns: list[tuple[int, int]] = []
    for line, text in counted_rows(path, "attribute_name"):
        *name, kind = text.rsplit(maxsplit=1)
        if not name or kind not in map(str, range(1, len(types) + 1)):
            raise InputError(
                f"{path}, line {line}: {text[:60]!r} does not end in a type from 1 to "
                f"{len(types)}; unpack the file again."
            )
        known = values[int(kind) - 1]
        columns.append((int(kind) - 1, len(known)))
        known.append(f"{name[0]} ({len(known)})" if name[0] in known else name[0])
    schema = AttributeSchema(types, tuple(map(tuple, values)), NAMES[labels])
    if len(columns) == sum(DEEPFASHION.n_values) and schema.n_values != DEEPFASHION.n_values:
        raise InputError(
            f"{path}: its types have {schema.n_values} values instead of {DEEPFASHION.n_values}; "
            "download the file again."
        )
    attribute, value = np.array(columns, dtype=np.int64).reshape(-1, 2).T
    return schema, attribute, value


def read_coarse(root: Path) -> Labels:
    """The labels of `list_attr_img.txt`: 1 yes, -1 no, 0 unknown for each image and attribute.

    Raises:
        InputError: a file is missing, or a line is wrong.
    """
    schema, attribute, value = read_columns(
        located(root, *places_of("list_attr_cloth.txt", "coarse")), "coarse"
    )
    path = located(root, *places_of(LABELS, "coarse"))
    places: dict[str, str] = {}
    has: list[np.ndarray] = []  # of each image the columns with a 1
    unknown = 0
    for line, text in counted_rows(path, "image_name"):
        name, rest = _first_word(text)
        _add_name(path, line, name, places)
        cells = _numbers(rest)
        if cells is None or len(cells) != len(attribute) or _beyond_one(cells):
            raise InputError(
                f"{path}, line {line}: expected {len(attribute)} labels 1, -1 or 0 after the "
                "image; unpack the file again."
            )
        has.append(np.flatnonzero(cells == 1))
        unknown += int(np.count_nonzero(cells == 0))
    image, column = _flat(has)
    return Labels(schema, list(places), image, attribute[column], value[column], unknown)


def read_fine(root: Path) -> tuple[Labels, np.ndarray]:
    """The labels of `{train,val,test}_attr.txt`, and the part of each image as `read_partition`.

    The files come in two forms, told apart by the number of columns: 0 or 1 for each attribute,
    or for each type the number of one of its attributes.

    Raises:
        InputError: a file is missing, or a line is wrong.
    """
    schema, attribute, value = read_columns(
        located(root, *places_of("list_attr_cloth.txt", "fine")), "fine"
    )
    columns = [np.flatnonzero(attribute == a) for a in range(len(schema))]
    places: dict[str, str] = {}
    has: list[np.ndarray] = []
    part: list[int] = []
    for number, split in enumerate(STATUS):
        listing = located(root, *places_of(f"{split}.txt", "fine"))
        names = [name.strip() for name in read_names(listing)]
        for line, name in enumerate(names, start=1):
            _add_name(listing, line, name, places)
        path = located(root, *places_of(f"{split}_attr.txt", "fine"))
        texts = read_names(path)
        if len(texts) != len(names):
            raise InputError(
                f"{path}: {len(texts):,} lines beside the {len(names):,} of {listing.name}; take "
                "both files from one release."
            )
        width = len(texts[0].split()) if texts else 0  # a cut line is not the other form
        for line, text in enumerate(texts, start=1):
            has.append(_fine_columns(path, line, text, columns, width))
        part += [number] * len(names)
    image, column = _flat(has)
    labels = Labels(schema, list(places), image, attribute[column], value[column], 0)
    return labels, np.array(part)


def _fine_columns(
    path: Path, line: int, text: str, columns: Sequence[np.ndarray], width: int
) -> np.ndarray:
    """The columns of `list_attr_cloth.txt` that a line of either form names."""
    cells = _numbers(text)
    n = sum(map(len, columns))
    if cells is not None and len(cells) == width:
        if width == n and not _beyond_one(cells):
            return np.flatnonzero(cells == 1)
        if width == len(columns) and all(0 <= c < len(own) for c, own in zip(cells, columns)):
            return np.array([own[c] for c, own in zip(cells, columns)])
    raise InputError(
        f"{path}, line {line}: expected {n} labels 0 or 1, or in the whole file {len(columns)} "
        "numbers of an attribute within its type, counted from 0; unpack the file again."
    )


def _first_word(text: str) -> tuple[str, str]:
    """The first word of a row and the rest, which any run of blanks divides."""
    word, *rest = text.split(maxsplit=1)
    return word, "".join(rest)


def _add_name(path: Path, line: int, name: str, places: dict[str, str]) -> None:
    """Note where an image stands, unless it already stands somewhere."""
    refuse_unsafe_path(path, line, name)
    if name in places:
        raise InputError(
            f"{path}, line {line}: the image {name!r} already stands in {places[name]}; delete one "
            "of the two lines."
        )
    places[name] = f"{path.name}, line {line}"


def _numbers(text: str) -> np.ndarray | None:
    """The whole numbers of a text; None if it has anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # older NumPy stops at a bad number with a warning
            return np.fromstring(text, np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None


def _beyond_one(cells: np.ndarray) -> bool:
    return bool((np.abs(cells) > 1).any())


def _flat(has: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(R,) image and (R,) number from the numbers of each image."""
    image = np.repeat(np.arange(len(has)), [len(numbers) for numbers in has])
    return image, np.concatenate([np.empty(0, np.int64), *has])


def read_partition(root: Path, names: Sequence[str]) -> np.ndarray:
    """(images,) 0 for train, 1 for val, 2 for test, from `list_eval_partition.txt`.

    Raises:
        InputError: it does not list the same images, or a line is wrong.
    """
    path = located(root, PARTITION)
    place = {name: i for i, name in enumerate(names)}
    part = np.full(len(names), -1)
    places: dict[str, str] = {}
    for line, text in counted_rows(path, "image_name"):
        name, status = _first_word(text)
        _add_name(path, line, name, places)
        if status not in STATUS:
            raise InputError(
                f"{path}, line {line}: {status!r} is not train, val or test; unpack the file again."
            )
        if name not in place:
            raise InputError(
                f"{path}, line {line}: {name!r} is not in {LABELS}; take both files from "
                "one release."
            )
        part[place[name]] = STATUS.index(status)
    lost = np.flatnonzero(part < 0)
    if len(lost):
        raise InputError(
            f"{path}: {len(lost):,} images of {LABELS} are not in it, first "
            f"{names[lost[0]]!r}; take both files from one release."
        )
    return part


# ----------------------------------------------------------------------------- splits


def official_split(labels: Labels, part: np.ndarray, images: Path, seed: int) -> RetrievalData:
    """The official partition; val and test divide into queries and gallery by a hash of the names.

    Raises:
        InputError: images are missing, or no image to train on has a label.
    """
    store = FolderImages(images, labels.names)
    refuse_missing(store, "The annotation files")
    table = AttributeTable(labels.schema, store, labels.image, labels.attribute, labels.value)
    used = np.unique(table.image)
    valid, test = (
        queries_and_gallery(table, used[part[used] == number], QUERIES, seed) for number in (1, 2)
    )
    train = table.select(part[table.image] == 0)
    if not len(train):
        raise InputError(f"{images}: no image to train on has a label; unpack the files again.")
    return RetrievalData(labels.schema.name, labels.schema, train, valid, test)


def published_split(folder: Path, images: Path, labels: Labels | None) -> RetrievalData:
    """ASEN's published lists as they are.

    Their values are numbers; they get the names of `list_attr_cloth.txt` if `labels` are given
    and have every row of the lists.

    Raises:
        InputError: lists or images are missing.
    """
    numbered = DEEPFASHION if labels is None else _numbered(labels.schema)
    data = read_asen(folder, schema=numbered, images=images, check_images=False)
    for split in SPLITS:
        store = tables(data, split)[0].images
        listing = folder / f"filenames_{split}.txt"
        if not isinstance(store, FolderImages) or not len(store):
            raise InputError(
                f"{listing}: missing or empty; copy all 8 lists there (filenames, label or query "
                "and candidate, of train, valid and test)."
            )
        for line, name in enumerate(store.names, start=1):
            refuse_unsafe_path(listing, line, name)
        refuse_missing(store, str(listing))
    if labels is None:
        return data
    columns = zip(labels.image.tolist(), labels.attribute.tolist(), labels.value.tolist())
    known = {(labels.names[i], a, v) for i, a, v in columns}
    listed = [row for split in SPLITS for table in tables(data, split) for row in rows(table)]
    same = sum(row in known for row in listed)
    print(f"{same:,} of {len(listed):,} rows of {folder} stand in {LABELS}.")
    if same < len(listed):
        return data
    return read_asen(folder, schema=labels.schema, images=images, check_images=False)


def _numbered(schema: AttributeSchema) -> AttributeSchema:
    return numbered_schema(schema.name, dict(zip(schema.names, schema.n_values)))


def read_data(options: argparse.Namespace, images: Path) -> RetrievalData:
    """The data set that the options ask for."""
    if options.labels == "fine":
        labels, part = read_fine(options.root)
        print(labels)
        return official_split(labels, part, images, options.seed)
    if options.splits is None:
        labels = read_coarse(options.root)
        print(labels)
        part = read_partition(options.root, labels.names)
        return official_split(labels, part, images, options.seed)
    lists_alone = not any((options.root / p).is_file() for p in places_of(LABELS, "coarse"))
    return published_split(
        options.splits, images, None if lists_alone else read_coarse(options.root)
    )


def run(options: argparse.Namespace) -> None:
    """All steps that were asked for."""
    root, out = options.root, options.out
    side = None if options.no_pack else options.side
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: {WHERE}.")
    if options.splits is not None and options.labels == "fine":
        raise InputError("ASEN's lists are of the coarse labels; leave out --labels or --splits.")
    if options.splits is not None and not options.splits.is_dir():
        raise InputError(f"There is no folder {options.splits}; name the one of ASEN's lists.")
    if not options.check:
        complete, n = unpack_all(root, options.labels, options.dry_run)
        if not complete:
            print("The labels can be read once the archives are unpacked.")
            print(planned(NAMES[options.labels], n, out, side))
            return
    images = located(root, *IMAGES).parent
    data = read_data(options, images)
    finish(data, images, out, side, check=options.check, dry=options.dry_run)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, check, or say what would be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, help="folder of the download")
    parser.add_argument("--out", type=Path, default=Path("data"), help="default: data")
    parser.add_argument("--labels", choices=list(TYPES), default="coarse", help="default: coarse")
    parser.add_argument("--splits", type=Path, help="folder of ASEN's published lists")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of queries (default: 0)")
    parser.add_argument("--side", type=int, default=256, help="of packed images (default: 256)")
    parser.add_argument("--no-pack", action="store_true", help="write the lists alone")
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
