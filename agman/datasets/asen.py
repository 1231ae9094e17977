"""The index files of ASEN, the interchange format of attribute-specific retrieval.

::

    <root>/meta.json                        names of attributes and how many values each has
    <root>/<data set>/filenames_<split>.txt one image path per line; the line number is the id
    <root>/<data set>/label_train.txt       image attribute value [attribute value ...]
    <root>/<data set>/query_<split>.txt     image attribute value
    <root>/<data set>/candidate_<split>.txt image attribute value
    <root>/<data set>/<split>_<side>.npz    our addition: the packed images of filenames_<split>.txt
    <root>/<data set>/images_<side>.npz     or of all splits in one file

Numbers count from 0; the splits are train (with labels), valid and test (with queries and
candidates). `meta.json` written here also lists the names of the values, which other readers of
the format pass over.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agman.attributes import (
    DEEPFASHION,
    FASHIONAI,
    AttributeSchema,
    AttributeTable,
    QueryGallery,
    RetrievalData,
    numbered_schema,
)
from agman.datasets.images import ChosenImages, FolderImages, ImageStore, PackedImages
from agman.errors import InputError
from agman.storage import read_bytes, write_json, write_text

_VALUE_NAMES = "ATTRIBUTES_VALUES"  # our addition to meta.json
_MOST_VALUES = 100_000
_KNOWN = {schema.name: schema for schema in (FASHIONAI, DEEPFASHION)}


def read_asen(
    root: str | os.PathLike[str],
    dataset: str | None = None,
    images: str | os.PathLike[str] | None = None,
    *,
    schema: AttributeSchema | None = None,
    check_images: bool = True,
) -> RetrievalData:
    """Read a data set from ASEN's index files.

    A split none of whose files is there becomes empty tables; one with only some of them is
    refused.

    Args:
        root: the folder of `meta.json`, or the data set's own folder.
        dataset: its name; may be left out where there is only one.
        images: the folder that the paths in `filenames_*.txt` start from; default the packed
            images beside the lists (the largest that fit them), else the data set's folder.
        schema: attributes and values, instead of `meta.json`.
        check_images: see that every image file exists; turn off to work with the labels alone.

    Raises:
        InputError: files are missing, or a line is wrong: the message names file and line.
    """
    root = Path(root)
    folder, schema = _locate(root, dataset, schema)
    pairs = {}
    for split in ("train", "valid", "test"):
        store = _read_images(folder, split, images, check_images)
        kinds = ("label",) if split == "train" else ("query", "candidate")
        pairs[split] = [_read_labels(folder, kind, split, store, schema) for kind in kinds]
    if not any(len(table.images) for tables in pairs.values() for table in tables):
        raise InputError(f"{folder}: there are no index files such as filenames_test.txt.")
    (train,), valid, test = pairs["train"], pairs["valid"], pairs["test"]
    name = dataset or schema.name
    return RetrievalData(name, schema, train, QueryGallery(*valid), QueryGallery(*test))


def _locate(
    root: Path, dataset: str | None, schema: AttributeSchema | None
) -> tuple[Path, AttributeSchema]:
    """The data set's folder and its schema."""
    if not os.path.isdir(root):
        raise InputError(f"{root}: there is no such folder; name the one that holds meta.json.")
    own = any((root / f"filenames_{split}.txt").is_file() for split in ("train", "valid", "test"))
    if own:
        meta = root / "meta.json" if (root / "meta.json").is_file() else root.parent / "meta.json"
    else:
        meta = root / "meta.json"
    if schema is not None:
        return root if own else root / (dataset or schema.name), schema
    if not meta.is_file():
        raise InputError(
            f"{root}: there is no meta.json; put it there, or pass schema= such as "
            "agman.attributes.FASHIONAI."
        )
    described = _read_meta(meta)
    if own:
        alone = len(described) == 1 and meta.parent == root
        wanted = dataset or (next(iter(described)) if alone else root.resolve().name)
    else:
        present = [name for name in described if os.path.isdir(root / name)]
        if dataset is None and len(present) != 1:
            raise InputError(
                f"{root}: it holds {len(present)} of the data sets {', '.join(described)}; "
                "name one with dataset=."
            )
        wanted = dataset or present[0]
    if wanted not in described:
        raise InputError(f"{meta}: it knows no data set {wanted!r}, only {', '.join(described)}.")
    return root if own else root / wanted, described[wanted]


def _read_meta(path: Path) -> dict[str, AttributeSchema]:
    data = read_bytes(path)
    try:
        meta = json.loads(data.decode("utf-8-sig"))
        return {str(name): _schema_of(str(name), entry) for name, entry in meta.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # JSON of any other form
        raise InputError(
            f"{path}: not ASEN's form, a JSON object with ATTRIBUTES (names) and ATTRIBUTES_NUM "
            "(name to number of values) for each data set; take the published file."
        ) from error


def _schema_of(name: str, entry: dict[str, Any]) -> AttributeSchema:
    numbers = {str(a): int(entry["ATTRIBUTES_NUM"][a]) for a in entry["ATTRIBUTES"]}
    if len(numbers) != len(entry["ATTRIBUTES"]):
        raise ValueError("an attribute stands twice")
    if any(not 0 <= number <= _MOST_VALUES for number in numbers.values()):
        raise ValueError("number of values")
    if _VALUE_NAMES in entry:
        values = tuple(tuple(map(str, entry[_VALUE_NAMES][a])) for a in numbers)
        schema = AttributeSchema(tuple(numbers), values, name)
        if schema.n_values != tuple(numbers.values()):
            raise ValueError("number of values")
        return schema
    known = _KNOWN.get(name)
    if known and (known.names, known.n_values) == (tuple(numbers), tuple(numbers.values())):
        return known
    return numbered_schema(name, numbers)


def _read_images(
    folder: Path, split: str, images: str | os.PathLike[str] | None, check: bool
) -> ImageStore:
    path = folder / f"filenames_{split}.txt"
    names = read_names(path) if path.exists() else []
    for stem in (split, "images") if images is None and names else ():
        packed = packed_images(folder, stem, path, names)
        if packed is not None:
            return packed
    store = FolderImages(folder if images is None else images, names)
    if check:
        refuse_missing_images(path, store)
    return store


def packed_images(
    folder: Path, stem: str, listing: Path, names: Sequence[str]
) -> ImageStore | None:
    """The largest packed images `<stem>_<side>.npz` that hold those of a list, in its order.

    Returns:
        None if no such file lies in the folder.

    Raises:
        InputError: there are such files, but none holds all images of the list.
    """
    found = {
        int(match[1]): path
        for path in folder.glob(f"{stem}_*.npz")
        if (match := re.fullmatch(rf"{stem}_([0-9]{{1,5}})\.npz", path.name))
    }
    for _, path in sorted(found.items(), reverse=True):
        packed = PackedImages.open(path)
        if packed.names == tuple(names):
            return packed
        place = {name: i for i, name in enumerate(packed.names)}
        if all(name in place for name in names):
            return ChosenImages(packed, [place[name] for name in names])
    if found:
        raise InputError(
            f"{found[max(found)]}: other images than {listing.name}; prepare the data set again, "
            "or name the folder of the image files with images=...."
        )
    return None


def read_names(path: Path) -> list[str]:
    """The lines of a list of image paths.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or has an empty line in the middle.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not in UTF-8; save the file as UTF-8.") from error
    names = [line.rstrip("\r") for line in text.split("\n")]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        line = names.index("") + 1
        raise InputError(
            f"{path}, line {line}: an empty line, though each line is an image; name the image."
        )
    return names


def refuse_missing_images(listing: Path, store: FolderImages) -> None:
    """Raise an `InputError` that counts the images of `listing` without a file."""
    missing = store.missing()
    if missing:
        raise InputError(
            f"{listing}, line {missing[0] + 1}: there is no image "
            f"{store.names[missing[0]]!r} in {store.root} ({len(missing)} of {len(store)} are "
            "missing); name their folder with images=..., or pass check_images=False to use the "
            "labels alone."
        )


def _read_labels(
    folder: Path, kind: str, split: str, store: ImageStore, schema: AttributeSchema
) -> AttributeTable:
    path = folder / f"{kind}_{split}.txt"
    listing = folder / f"filenames_{split}.txt"
    if listing.exists() != path.exists():
        absent, other = (path, listing) if listing.exists() else (listing, path)
        raise InputError(f"{absent}: the file is missing beside {other.name}; copy it there.")
    if not path.exists():
        empty = np.empty(0, dtype=np.int64)
        return AttributeTable(schema, store, empty, empty, empty, source=str(path))
    numbers, line, count = read_integers(path, pairs=kind == "label")
    first = np.cumsum(count) - count  # where each line begins
    pairs = (count - 1) // 2
    image, line = np.repeat(numbers[first], pairs), np.repeat(line, pairs)
    attribute, value = np.delete(numbers, first).reshape(-1, 2).T
    _refuse_ids(path, line, image, len(store), f"image; {listing.name} has {len(store)} lines")
    known = f"attribute; {schema.name} has {len(schema)}"
    _refuse_ids(path, line, attribute, len(schema), known)
    limits = np.array(schema.n_values, dtype=np.int64)[attribute]
    _refuse_ids(path, line, value, limits, f"value of its attribute in {schema.name}")
    return AttributeTable(schema, store, image, attribute, value, source=str(path))


def read_integers(path: Path, pairs: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All numbers of a file of three whole numbers a line (or, with `pairs`, 3, 5, 7 ...).

    Returns:
        The numbers in one row; for each line that is not blank its number, counted from 1; and
        how many numbers are on it.

    Raises:
        InputError: the file cannot be read, or a line has another form.
    """
    data = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    records = [record.split() for record in data.split(b"\n")]
    count = np.fromiter(map(len, records), dtype=np.int64, count=len(records))
    right = (count % 2 == 1) & (count > 1) if pairs else count == 3
    right |= count == 0
    texts = list(itertools.chain.from_iterable(records))
    longest = max(map(len, texts), default=0)
    if not right.all() or longest > 18 or not re.fullmatch(rb"[0-9\s]*", data):
        raise _wrong_line(path, records, right, pairs)
    filled = np.flatnonzero(count)
    numbers = np.array(list(map(int, texts)), dtype=np.int64)
    return numbers, filled + 1, count[filled]


def _wrong_line(
    path: Path, records: Sequence[Sequence[bytes]], right: np.ndarray, pairs: bool
) -> InputError:
    """What to say of the first line of another form; looks at them one by one."""
    line = next(
        i
        for i, record in enumerate(records)
        if not (right[i] and all(re.fullmatch(rb"[0-9]{1,18}", number) for number in record))
    )
    form = "an image and one or more pairs 'attribute value'" if pairs else "three whole numbers"
    text = b" ".join(records[line])[:60].decode("utf-8", "replace")
    return InputError(
        f"{path}, line {line + 1}: expected {form}, found {text!r}; correct the line."
    )


def _refuse_ids(
    path: Path, line: np.ndarray, ids: np.ndarray, limit: int | np.ndarray, what: str
) -> None:
    bad = np.flatnonzero(ids >= limit)
    if len(bad):
        raise InputError(
            f"{path}, line {line[bad[0]]}: {ids[bad[0]]} is no {what}, counted from 0 ({len(bad)} "
            "such rows); take the files of one release together."
        )


def write_asen(data: RetrievalData, root: str | os.PathLike[str]) -> Path:
    """Write a data set as ASEN's index files, below `root` in a folder of its name.

    The images stay where they are: pass their folder as `images` to `read_asen`. Each split
    lists the images that its rows use; regions are not part of the format. An older set of the
    same name is replaced, other data sets in `meta.json` are kept. Every file appears complete;
    a writing that was cut off leaves a set that `read_asen` refuses.

    Returns:
        The data set's folder.

    Raises:
        InputError: the name cannot be a folder, a file name cannot stand on a line, or nothing
            can be written there.
    """
    root = Path(root)
    name = data.name
    if not name or name != Path(name).name or name in (".", ".."):
        raise InputError(f"A data set named {name!r} cannot be a folder; give it another name.")
    files: dict[str, str] = {}
    for split, tables in (
        ("train", {"label": data.train}),
        ("valid", {"query": data.valid.queries, "candidate": data.valid.gallery}),
        ("test", {"query": data.test.queries, "candidate": data.test.gallery}),
    ):
        if any(len(table) for table in tables.values()):
            files |= _split_files(split, tables)
    meta = _merged_meta(root / "meta.json", name, data.schema)
    folder = root / name
    _remove_index_files(folder)
    for file in files:
        if file.startswith("filenames"):
            write_text(folder / file, files[file])
    write_json(root / "meta.json", meta)
    for file in files:  # last: without them the set is refused as incomplete
        if not file.startswith("filenames"):
            write_text(folder / file, files[file])
    return folder


def _split_files(split: str, tables: dict[str, AttributeTable]) -> dict[str, str]:
    """File name to content of one split."""
    names: dict[str, int] = {}
    place = [_number_images(table, tables.values(), names) for table in tables.values()]
    files = {f"filenames_{split}.txt": "".join(f"{name}\n" for name in names)}
    for (kind, table), new in zip(tables.items(), place, strict=True):
        image = new[table.image]
        rows = zip(image.tolist(), table.attribute.tolist(), table.value.tolist(), strict=True)
        if kind == "label":  # neighbouring rows of one image share a line
            lines = [
                f"{i} " + " ".join(f"{a} {v}" for _, a, v in group)
                for i, group in itertools.groupby(rows, key=lambda row: row[0])
            ]
        else:
            lines = [f"{i} {a} {v}" for i, a, v in rows]
        files[f"{kind}_{split}.txt"] = "".join(f"{line}\n" for line in lines)
    return files


def _number_images(
    table: AttributeTable, split: Iterable[AttributeTable], names: dict[str, int]
) -> np.ndarray:
    """Give each used image of a table's store the next free number, in the order of the store.

    Returns:
        (images,) old index to new.
    """
    used = np.unique(np.concatenate([t.image for t in split if t.images is table.images]))
    new = np.full(len(table.images), -1, dtype=np.int64)
    for i in used.tolist():
        name = str(table.images.names[i])
        if not _fits_a_line(name):
            raise InputError(f"{table.source}: the image name {name!r} cannot stand on a line.")
        new[i] = names.setdefault(name, len(names))
    return new


def _fits_a_line(name: str) -> bool:
    """Whether a name survives being written and read; a byte order mark or a line end does not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name) and "\n" not in name and name[-1] != "\r" and name[0] != "\ufeff"


def _merged_meta(path: Path, name: str, schema: AttributeSchema) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if path.exists():
        _read_meta(path)
        meta = json.loads(read_bytes(path).decode("utf-8-sig"))
    meta[name] = {
        "ATTRIBUTES": list(schema.names),
        "ATTRIBUTES_NUM": dict(zip(schema.names, schema.n_values, strict=True)),
        _VALUE_NAMES: dict(zip(schema.names, map(list, schema.values), strict=True)),
    }
    return meta


def _remove_index_files(folder: Path) -> None:
    """Labels first, so that what is left of an older set is never mistaken for a whole one."""
    try:
        for kind in ("label", "query", "candidate", "filenames"):
            for split in ("train", "valid", "test"):
                (folder / f"{kind}_{split}.txt").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: older files cannot be replaced ({error.strerror}); choose another folder."
        ) from error
