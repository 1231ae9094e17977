"""Any shop's catalogue: a CSV (`file, attribute, attribute, ...`) and a folder of images."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agman.attributes import AttributeSchema, AttributeTable
from agman.datasets.images import FolderImages, ImageStore
from agman.errors import InputError
from agman.storage import read_bytes

_FEW = 20  # a column with fewer filled cells is never taken for a serial number


def read_csv(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str] | ImageStore | None = None,
    *,
    file_column: str | None = None,
    attributes: Sequence[str] | None = None,
    schema: AttributeSchema | None = None,
) -> AttributeTable:
    """Read a catalogue: one line per image, one column per attribute.

    An empty cell means "unknown" and gives no row. An image may come on several lines as long as
    they do not contradict each other. Columns without a name are left out.

    Args:
        path: a CSV file in UTF-8, with a header line.
        images: the folder of the images, or a store whose names are the file names. Default: the
            folder of the CSV, or its subfolder `images` if the files are there.
        file_column: the column that names the image; default `file`, else the first.
        attributes: the columns to use; default all others (those the schema names, if given).
        schema: attributes and values to expect; default: the values found, sorted by name.

    Returns:
        A table with the images in the order of the file.

    Raises:
        InputError: a column is missing, an image is missing, a line has the wrong number of
            cells, two lines contradict each other, a value is not in the schema, a column looks
            like a serial number and was not asked for, or the file is not a CSV in UTF-8.
    """
    path = Path(path)
    header, records = _read_lines(path)
    key = _file_column(path, header, file_column)
    columns = _attribute_columns(path, header, key, attributes, schema)
    catalog = _merge(path, header, records, key, columns)
    if attributes is None and schema is None:
        _refuse_serial_numbers(path, catalog)
    if schema is None:
        schema = _found_schema(path, catalog)
    store, index = _store(path, images, catalog)
    image, attribute, value = _rows(path, catalog, schema)
    return AttributeTable(schema, store, index[image], attribute, value, source=str(path))


@dataclass(frozen=True)
class _Catalog:
    """The images of a catalogue and their cells, an empty text for unknown."""

    columns: list[str]
    names: list[str]
    lines: list[int]  # where each image was first named
    cells: list[list[str]]  # one list of len(columns) per image


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and (line number, cells) of every other line that is not blank."""
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    lines = []
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            if any(cells):  # spreadsheets leave lines of bare commas at the end
                lines.append((reader.line_num, cells))
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not valid CSV ({error}); look for a lone quotation "
            "mark there."
        ) from error
    if len(lines) < 2:
        raise InputError(f"{path}: a catalogue has a header and at least one line of data.")
    header = lines[0][1]
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise InputError(f"{path}: the columns are not separated by commas; save it with commas.")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells under a header of {len(header)}; put "
                "a cell that holds a comma into quotation marks."
            )
    return header, lines[1:]


def _read_text(path: Path) -> str:
    data = read_bytes(path)
    try:
        text, wrong = data.decode("utf-8-sig"), data.find(b"\0")  # as in UTF-16 without a mark
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        raise InputError(
            f"{path}, line {line}: not in UTF-8; save the file as 'CSV UTF-8' and try again."
        )
    return text


def _file_column(path: Path, header: list[str], wanted: str | None) -> int:
    named = [name for name in header if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise InputError(f"{path}: the column {twice[0]!r} stands twice; rename one.")
    if not named:
        raise InputError(f"{path}: the first line names no column; add a header.")
    if wanted is None:
        wanted = "file" if "file" in named else named[0]
    return _column(path, header, wanted)


def _column(path: Path, header: list[str], wanted: str) -> int:
    if wanted and wanted in header:
        return header.index(wanted)
    named = [name for name in header if name]
    close = difflib.get_close_matches(wanted, named, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "name one of them."
    raise InputError(f"{path}: there is no column {wanted!r} among {', '.join(named[:30])}; {hint}")


def _attribute_columns(
    path: Path,
    header: list[str],
    key: int,
    attributes: Sequence[str] | None,
    schema: AttributeSchema | None,
) -> list[int]:
    if attributes is not None:
        if isinstance(attributes, str):
            attributes = [attributes]
        columns = [_column(path, header, name) for name in attributes]
        if schema is not None:
            for name in attributes:
                schema.attribute(name)
    else:
        columns = [
            i
            for i, name in enumerate(header)
            if i != key and name and (schema is None or name in schema.names)
        ]
    if key in columns or len(set(columns)) < len(columns):
        raise InputError(
            f"{path}: name each attribute once, and not the column of the file names "
            f"({header[key]!r})."
        )
    if not columns:
        known = f" that the schema names ({', '.join(schema.names)})" if schema else ""
        raise InputError(f"{path}: there is no attribute column{known} beside {header[key]!r}.")
    return columns


def _merge(
    path: Path,
    header: list[str],
    records: list[tuple[int, list[str]]],
    key: int,
    columns: list[int],
) -> _Catalog:
    """One entry per image; lines on the same image add up."""
    catalog = _Catalog([header[i] for i in columns], [], [], [])
    place: dict[str, int] = {}
    for line, record in records:
        name, cells = record[key], [record[i] for i in columns]
        if not name:
            raise InputError(f"{path}, line {line}: the cell {header[key]!r} names no image.")
        if name not in place:
            place[name] = len(catalog.names)
            catalog.names.append(name)
            catalog.lines.append(line)
            catalog.cells.append(cells)
            continue
        first = catalog.cells[place[name]]
        for i, (old, new) in enumerate(zip(first, cells, strict=True)):
            if old and new and old != new:
                raise InputError(
                    f"{path}, line {line}: {catalog.columns[i]} of {name!r} is {new!r} here but "
                    f"{old!r} on line {catalog.lines[place[name]]}; correct one of them."
                )
            first[i] = old or new
    return catalog


def _refuse_serial_numbers(path: Path, catalog: _Catalog) -> None:
    """Refuse a column whose cells nearly all differ: nothing could be retrieved by it."""
    suspects = []
    for i, name in enumerate(catalog.columns):
        filled = [cells[i] for cells in catalog.cells if cells[i]]
        if len(filled) >= _FEW and len(set(filled)) > len(filled) / 2:
            suspects.append((name, len(set(filled)), len(filled)))
    if suspects:
        name, distinct, filled_cells = suspects[0]
        serial = {name for name, _, _ in suspects}
        keep = [column for column in catalog.columns if column not in serial]
        raise InputError(
            f"{path}: column {name!r} has {distinct} different values in {filled_cells} cells, so "
            "it looks like a number or a text for each image rather than an attribute; choose the "
            f"columns with attributes={keep or catalog.columns[:1]}."
        )


def _found_schema(path: Path, catalog: _Catalog) -> AttributeSchema:
    found = zip(*catalog.cells, strict=True)
    values = tuple(tuple(sorted(set(column) - {""})) for column in found)
    return AttributeSchema(tuple(catalog.columns), values, path.stem)


def _rows(
    path: Path, catalog: _Catalog, schema: AttributeSchema
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns image, attribute, value: image by image, attributes in the order of the schema."""
    ids = [schema.attribute(name) for name in catalog.columns]
    known = [{name: v for v, name in enumerate(schema.values[a])} for a in ids]
    rows: list[tuple[int, int, int]] = []
    order = sorted(range(len(ids)), key=ids.__getitem__)
    for i, cells in enumerate(catalog.cells):
        for column in order:
            cell = cells[column]
            if not cell:
                continue
            value = known[column].get(cell)
            if value is None:
                value = _look_up_value(path, catalog.lines[i], schema, ids[column], cell)
                known[column][cell] = value
            rows.append((i, ids[column], value))
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _look_up_value(
    path: Path, line: int, schema: AttributeSchema, attribute: int, cell: str
) -> int:
    try:
        return schema.value(attribute, cell)
    except InputError as error:
        raise InputError(f"{path}, line {line}: {error}") from error


def _store(
    path: Path, images: str | os.PathLike[str] | ImageStore | None, catalog: _Catalog
) -> tuple[ImageStore, np.ndarray]:
    """The images, and the index in them of each image of the catalogue."""
    if images is None or isinstance(images, (str, os.PathLike)):
        root = _image_folder(path, images, catalog)
        return FolderImages(root, catalog.names), np.arange(len(catalog.names))
    place = {name: i for i, name in enumerate(images.names)}
    missing = [i for i, name in enumerate(catalog.names) if name not in place]
    if missing:
        raise _missing(path, catalog, missing, "the given images", "pass the store that holds them")
    return images, np.array([place[name] for name in catalog.names], dtype=np.int64)


def _image_folder(path: Path, images: str | os.PathLike[str] | None, catalog: _Catalog) -> Path:
    folders = [path.parent, path.parent / "images"] if images is None else [Path(images)]
    missing: dict[Path, list[int]] = {}
    for folder in folders:
        missing[folder] = FolderImages(folder, catalog.names).missing()
        if not missing[folder]:
            return folder
    best = min(folders, key=lambda folder: len(missing[folder]))
    remedy = "name the folder that holds them with images=..."
    raise _missing(path, catalog, missing[best], str(best), remedy)


def _missing(
    path: Path, catalog: _Catalog, missing: list[int], where: str, remedy: str
) -> InputError:
    first = missing[0]
    return InputError(
        f"{path}, line {catalog.lines[first]}: there is no image {catalog.names[first]!r} in "
        f"{where} ({len(missing)} of {len(catalog.names)} images are missing); {remedy}, or take "
        "these lines out."
    )
