"""Write the lab wardrobe as picture files and as a prepared data set, like a downloaded one.

    python data_scripts/lab.py --out data

needs nothing but this package: it draws `data/images/lab/...png` (some 150 MB), and writes
`data/lab/*.txt`, `data/meta.json` and `data/lab/{train,valid,test}_96.npz` (300 MB), which
`agman train --data data/lab` reads. An interrupted run goes on where it stopped; a finished one
changes nothing. Run it once at a time.
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
from agman.datasets import PackedImages, lab, read_asen, read_image
from agman.datasets.prepared import SPLITS, finish, planned, tables
from agman.errors import InputError
from agman.storage import replacing

SIDE = 96  # as drawn


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


def drawings(data: RetrievalData) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of every image once."""
    for split in SPLITS:
        store = tables(data, split)[0].images
        if isinstance(store, PackedImages):
            yield from zip(store.names, store.array, strict=True)


def write_pictures(data: RetrievalData, folder: Path) -> int:
    """Write the pictures that are not there yet; how many that were."""
    missing = [(n, pixels) for n, pixels in drawings(data) if not (folder / n).exists()]
    for name, pixels in tqdm(missing, "writing", unit="image", disable=not missing):
        with replacing(folder / name) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
    return len(missing)


def check_pictures(data: RetrievalData, folder: Path) -> None:
    """Compare every picture with its drawing.

    Raises:
        InputError: one is missing, damaged or differs.
    """
    total = sum(len(tables(data, split)[0].images) for split in SPLITS)
    for name, pixels in tqdm(drawings(data), "checking", total, unit="image"):
        if not np.array_equal(np.asarray(read_image(folder / name)), pixels):
            raise InputError(f"{folder / name} differs from its drawing; delete it and run again.")


def numbers_written(out: Path) -> list[int]:
    """How many images the lists in the folder name, split by split."""
    written = read_asen(out, "lab", images=out, check_images=False)
    return [len(tables(written, split)[0].images) for split in SPLITS]


def run(options: argparse.Namespace) -> None:
    """All steps that were asked for."""
    out = options.out
    if options.dry_run:
        n = sum(options.n)
        print(f"Would draw {n:,} images of {SIDE} x {SIDE} pixels into {out / 'images'}.")
        print(planned("lab", n, out, SIDE))
        return
    numbers = numbers_written(out) if options.check else options.n
    data = with_file_names(lab(*numbers))
    if options.check:
        check_pictures(data, out / "images")
    else:
        print(f"{write_pictures(data, out / 'images'):,} pictures written")
    finish(data, out / "images", out, SIDE, check=options.check, dry=False)


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
        help="how many images (default: 8000 1000 2000; --check takes those written)",
    )
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
