"""Prepare FashionAI: your two downloads become ASEN's index files and packed images.

    python data_scripts/fashionai.py --root FOLDER --out data

FOLDER holds what you downloaded from Tianchi: `fashionAI_attributes_train1.zip` and
`fashionAI_attributes_train2.zip` (13 GB together), or the two folders they unpack to. The script
unpacks them there, reads every `Annotations/label.csv`, splits by a hash of the file names (or
takes ASEN's published lists with `--splits`), and writes `data/FashionAI/*.txt`, `data/meta.json`
and `data/FashionAI/{train,valid,test}_256.npz`, which `agman train --data data/FashionAI` reads.
An interrupted run goes on where it stopped; a finished one changes nothing. Run it once at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from agman.attributes import FASHIONAI, AttributeTable, QueryGallery, RetrievalData
from agman.datasets import FolderImages, read_asen, split_by_image
from agman.datasets.archives import list_files
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
from agman.errors import InputError

PARTS = ("fashionAI_attributes_train1", "fashionAI_attributes_train2")
WHERE = (
    "sign up at https://tianchi.aliyun.com/competition/entrance/231671, and put "
    "fashionAI_attributes_train1.zip (6 GB) and fashionAI_attributes_train2.zip (7 GB), or the "
    "folders of these names, into the folder that --root names"
)
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
        refuse_unsafe_path(path, line, name)
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


# ----------------------------------------------------------------------------- splits


def own_split(table: AttributeTable, seed: int) -> RetrievalData:
    """A split of the published proportions, from a hash of the seed and the file names."""
    groups = [PurePosixPath(name).name for name in table.images.names]
    shares = (1 - 2 * HELD_OUT, HELD_OUT, HELD_OUT)
    return split_by_image(table, seed=seed, fractions=shares, query_share=QUERIES, groups=groups)


def published_split(folder: Path, table: AttributeTable, root: Path) -> RetrievalData:
    """ASEN's published lists, their images found in the two parts.

    The released lists name an image by its part; those of ASEN's `dev` branch name it
    `test/Images/<attribute>_labels/<file>`, and it is looked up by the last two words.

    Raises:
        InputError: lists are missing, or an image has no label or another one in `label.csv`.
    """
    data = read_asen(folder, schema=FASHIONAI, images=folder, check_images=False)
    labels = {name: (attribute, value) for name, attribute, value in rows(table)}
    place = {_tail(name): name for name in reversed(table.images.names)}
    parts: dict[str, Any] = {}
    for split in SPLITS:
        listed = tables(data, split)
        listing = folder / f"filenames_{split}.txt"
        found = [n if n in labels else place.get(_tail(n)) for n in listed[0].images.names]
        _refuse_unknown(listing, listed[0].images.names, found)
        store = FolderImages(root, [name for name in found if name])
        listed = [replace(one, images=store) for one in listed]
        for one in listed:
            _refuse_other_labels(one, labels)
        parts[split] = listed[0] if split == "train" else QueryGallery(*listed)
    return replace(data, **parts)


def _tail(name: str) -> str:
    """`<attribute>_labels/<file>` of a path."""
    return "/".join(PurePosixPath(name).parts[-2:])


def _refuse_unknown(listing: Path, names: Sequence[str], found: Sequence[str | None]) -> None:
    if not names:
        raise InputError(
            f"{listing}: missing or empty; copy all 8 lists there (filenames, label or query and "
            "candidate, of train, valid and test)."
        )
    unknown = [i for i, name in enumerate(found) if name is None]
    if unknown:
        raise InputError(
            f"{listing}, line {unknown[0] + 1}: neither part's label.csv labels "
            f"{names[unknown[0]]!r} ({len(unknown):,} of {len(names):,} images); take lists made "
            "for this release, or unpack both archives completely."
        )


def _refuse_other_labels(table: AttributeTable, labels: dict[str, tuple[int, int]]) -> None:
    other = [(n, a, v) for n, a, v in rows(table) if labels[n] != (a, v)]
    if other:
        name, attribute, value = other[0]
        right = "attribute {} value {}".format(*labels[name])
        raise InputError(
            f"{table.source}: {len(other):,} of {len(table):,} rows differ from label.csv, first "
            f"{name} with attribute {attribute} value {value} instead of {right}; take lists made "
            "for this release."
        )


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
        if place is not None:
            archive = root / f"{part}.zip"
            folder, files = place
            complete &= unpack_rest(archive, folder, max_bytes=MAX_UNPACKED, dry=dry, files=files)
    return complete


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
    side = None if options.no_pack else options.side
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: {WHERE}.")
    if options.splits is not None and not options.splits.is_dir():
        raise InputError(f"There is no folder {options.splits}; name the one of ASEN's lists.")
    if not options.check and not unpack_all(root, options.dry_run) and options.dry_run:
        print("The labels can be read once the archives are unpacked.")
        print(planned(FASHIONAI.name, count_pictures(root), out, side))
        return
    labels = read_labels(root)
    table = to_table(labels, root)
    print(
        f"{len(labels.names):,} labelled images; {labels.maybe:,} with an m besides the y; "
        f"{labels.unlabelled:,} rows with ? left out; fourth column ignored in {labels.extra:,} "
        "rows."
    )
    if options.splits is None:
        data = own_split(table, options.seed)
    else:
        data = published_split(options.splits, table, root)
    finish(
        data, root, out, side, check=options.check, dry=options.dry_run, published=PUBLISHED_TEST
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, check, or say what would be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, help="folder of the downloads")
    parser.add_argument("--out", type=Path, default=Path("data"), help="default: data")
    parser.add_argument("--splits", type=Path, help="folder of ASEN's published lists")
    parser.add_argument("--seed", type=int, default=0, help="of our own split (default: 0)")
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
