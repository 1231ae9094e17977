"""Write the lab wardrobe as picture files with ASEN's index files, like a downloaded data set.

    python data_scripts/lab.py --out data

makes `data/images/lab/...png` and `data/lab/*.txt` with `data/meta.json`; read it back with
`agman.datasets.read_asen("data", "lab", images="data/images")`. An interrupted run goes on where
it stopped; a finished one changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from agman.attributes import AttributeTable, QueryGallery, RetrievalData
from agman.datasets import PackedImages, lab, pack, read_asen, write_asen
from agman.errors import InputError
from agman.storage import replacing


def with_file_names(data: RetrievalData) -> RetrievalData:
    """The same rows, each image named as the file it is written to."""

    def named(table: AttributeTable) -> AttributeTable:
        store = table.images
        if not isinstance(store, PackedImages):
            raise TypeError("the lab is packed")
        return replace(table, images=PackedImages(store.array, [f"{n}.png" for n in store.names]))

    def both(part: QueryGallery) -> QueryGallery:
        return QueryGallery(named(part.queries), named(part.gallery))

    return replace(data, train=named(data.train), valid=both(data.valid), test=both(data.test))


def pictures(data: RetrievalData) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of every image once."""
    for table in (data.train, data.valid.queries, data.test.queries):
        store = table.images
        if isinstance(store, PackedImages):
            yield from zip(store.names, store.array, strict=True)


def write_pictures(data: RetrievalData, folder: Path) -> int:
    """Write the pictures that are not there yet; how many that were."""
    missing = [(n, pixels) for n, pixels in pictures(data) if not (folder / n).exists()]
    for name, pixels in tqdm(missing, "writing", unit="image", disable=not missing):
        with replacing(folder / name) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
    return len(missing)


def check(out: Path) -> None:
    """Read everything back and compare it with the drawing.

    Raises:
        InputError: something is missing, damaged or differs.
    """
    written = read_asen(out, "lab", images=out / "images")
    n = [len(t.images) for t in (written.train, written.valid.queries, written.test.queries)]
    drawn = with_file_names(lab(*n))
    for name in ("train", "valid", "test"):
        one, two = getattr(written, name), getattr(drawn, name)
        for ours, theirs in zip(_tables(one), _tables(two), strict=True):
            if rows(ours) != rows(theirs):
                raise InputError(f"{out}/lab: the rows of {name} differ from the drawing's.")
    drawing = dict(pictures(drawn))
    for table in (written.train, written.valid.queries, written.test.queries):
        store = pack(table.images, 96)
        for name, pixels in zip(store.names, store.array, strict=True):
            if not np.array_equal(pixels, drawing[name]):
                raise InputError(f"{out}/images/{name} differs from the drawing; delete it.")
    print(f"{out} is right: {n[0]} train, {n[1]} valid, {n[2]} test images.")


def _tables(part: AttributeTable | QueryGallery) -> list[AttributeTable]:
    return [part] if isinstance(part, AttributeTable) else [part.queries, part.gallery]


def rows(table: AttributeTable) -> list[tuple[str, int, int]]:
    """Sorted (file, attribute, value), whatever the numbering of the images."""
    names = table.images.names
    columns = zip(table.image.tolist(), table.attribute.tolist(), table.value.tolist(), strict=True)
    return sorted((names[i], a, v) for i, a, v in columns)


def main(argv: Sequence[str] | None = None) -> int:
    """Write, check, or say what would be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("data"), help="default: data")
    parser.add_argument(
        "--n",
        type=int,
        nargs=3,
        default=(8000, 1000, 2000),
        metavar=("TRAIN", "VALID", "TEST"),
        help="how many images (default: 8000 1000 2000)",
    )
    parser.add_argument("--check", action="store_true", help="only check what was written")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be written")
    options = parser.parse_args(argv)
    try:
        if options.dry_run:
            print(
                f"Would draw {sum(options.n):,} images of 96 x 96 pixels into "
                f"{options.out}/images, and write their lists into {options.out}/lab."
            )
            return 0
        if not options.check:
            data = with_file_names(lab(*options.n))
            print(f"{write_pictures(data, options.out / 'images'):,} pictures written")
            write_asen(data, options.out)
        check(options.out)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
