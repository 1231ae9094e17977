"""A small catalogue in the form of the hub's "Fashion Product Images": drawn garments.

    python -m tests.data_scripts.products_tree FOLDER

makes FOLDER/labels.csv and FOLDER/images, as `data_scripts/product_photos.py` leaves them. What is
in it is made up; how it is written is what the real set has: labels that are unknown, values with
a single photo, and the same photo twice, smaller, compressed again and brightened.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from agman.datasets.lab import draw, lab_outfit

GENDERS = ("Men", "Women", "Unisex")
SEASONS = ("Fall", "Summer", "Winter")
USAGES = ("Casual", "Ethnic", None, "Sports")
COLORS = {
    "Black": (40, 40, 40),
    "Blue": (60, 80, 160),
    "Brown": (130, 90, 60),
    "Grey": (140, 140, 140),
    "Red": (180, 60, 60),
    "White": (230, 230, 230),
}


def products(n: int = 120, copies: int = 12) -> list[dict[str, Any]]:
    """The rows of the hub's table: n drawn photos, then copies of some of them.

    Returns:
        Dictionaries with the columns of the real set; `image` holds the bytes of a JPEG.
    """
    rows = [_product(i) for i in range(n)]
    for i in range(copies):
        original = rows[i * n // copies]
        photo = Image.open(io.BytesIO(original["image"]["bytes"]))
        rows.append({**original, "id": 90_000 + i, "image": _jpeg(_changed(photo, i))})
    return rows


def _product(i: int) -> dict[str, Any]:
    outfit = lab_outfit("train", i)
    picture, _ = draw(outfit, 64)
    picture = picture.crop((8, 0, 56, 64))
    middle = np.asarray(picture.resize((3, 3), Image.Resampling.BOX))[1, 1].astype(int)
    color = min(COLORS, key=lambda name: int(np.abs(middle - COLORS[name]).sum()))
    return {
        "id": 10_000 + i,
        "gender": GENDERS[i % 3],
        "masterCategory": "Apparel",
        "subCategory": outfit.category.title(),
        "articleType": f"{outfit.category.title()}s" if i != 1 else "Vouchers",
        "baseColour": color,
        "season": SEASONS[i % 7 % 3],
        "year": 2011.0 + i % 4,
        "usage": USAGES[i % 4],
        "productDisplayName": f'Drawn, "{color}" {outfit.category}\nno. {i}',
        "image": _jpeg(picture),
    }


def _changed(photo: Image.Image, i: int) -> Image.Image:
    """The same photo as another shop may show it."""
    if i % 3 == 0:
        return photo.resize((photo.width * 9 // 10, photo.height * 9 // 10))
    return ImageEnhance.Brightness(photo).enhance((0.85, 1.08)[i % 3 - 1])


def _jpeg(picture: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=80)
    return {"bytes": file.getvalue(), "path": None}


def products_tree(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as `labels.csv` and `images`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    columns = [name for name in rows[0] if name not in ("id", "image")]
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *columns])
        for row in rows:
            (folder / "images" / f"{row['id']}.jpg").write_bytes(row["image"]["bytes"])
            writer.writerow([f"{row['id']}.jpg", *(row[name] for name in columns)])
    return folder


def write_stand_in(rows: list[dict[str, Any]], path: Path) -> None:
    """The rows in one file that `StandIn` reads, where pyarrow is not installed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, default=lambda data: base64.b64encode(data).decode()))


class StandIn:
    """In place of `pyarrow.parquet.ParquetFile`, as far as the script uses it."""

    def __init__(self, path: Path) -> None:
        self.rows = json.loads(path.read_text())
        names = list(self.rows[0]) if self.rows else []
        self.schema_arrow = type("Schema", (), {"names": names})

    def iter_batches(self, batch_size: int) -> Any:
        for start in range(0, len(self.rows), batch_size):
            rows = [_decoded(row) for row in self.rows[start : start + batch_size]]
            yield type("Batch", (), {"to_pylist": lambda _, rows=rows: rows})()


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    cell = row.get("image")
    if not cell or not cell["bytes"]:
        return row
    return {**row, "image": {**cell, "bytes": base64.b64decode(cell["bytes"])}}


if __name__ == "__main__":
    products_tree(Path(sys.argv[1]), products())
