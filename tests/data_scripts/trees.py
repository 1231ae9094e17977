"""Small trees in the true formats of the downloads: drawn garments under the real file names.

    python -m tests.data_scripts.trees fashionai FOLDER

What is in them is made up, and so small that a script takes seconds; how it is written is what
the scripts in `data_scripts/` meet in the real downloads, with every oddity those have.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

from agman.attributes import FASHIONAI
from agman.datasets.lab import Outfit, draw, lab_outfit

PARTS = ("fashionAI_attributes_train1", "fashionAI_attributes_train2")

# ----------------------------------------------------------------------------- FashionAI


def fashionai_tree(folder: Path, per_attribute: int = 15) -> Path:
    """FashionAI's two parts as they unpack, each image labelled for one attribute.

    Some rows have an m (maybe) beside their y, and nothing is labelled with sleeve_length's first
    value, as in the real rows that are known.

    Args:
        folder: where the two parts go.
        per_attribute: images of each attribute, half of them in each part.

    Returns:
        The folder.
    """
    lines: dict[str, list[str]] = {part: [] for part in PARTS}
    for attribute, i, outfit, value in _garments(per_attribute):
        name, part = FASHIONAI.names[attribute], PARTS[i % 2]
        letters = ["n"] * FASHIONAI.n_values[attribute]
        letters[value] = "y"
        if i % 7 == 3:
            letters[(value + 1) % len(letters)] = "m"
        stem = hashlib.md5(f"{attribute} {i}".encode()).hexdigest()
        path = f"Images/{name}_labels/{stem}.jpg"
        _photograph(outfit, folder / part / path)
        lines[part].append(f"{path},{name}_labels,{''.join(letters)}")
    for part, rows in lines.items():
        _write(folder / part / "Annotations" / "label.csv", sorted(rows))
    return folder


def _garments(per_attribute: int) -> Iterator[tuple[int, int, Outfit, int]]:
    """(attribute, number within it, outfit, value), as many of each attribute as wanted."""
    found = [0] * len(FASHIONAI)
    for i in count():
        outfit = lab_outfit("train", i)
        for name, label in outfit.labels().items():
            attribute, value = FASHIONAI.attribute(name), FASHIONAI.value(name, label)
            if found[attribute] < per_attribute and (name, value) != ("sleeve_length", 0):
                yield attribute, found[attribute], outfit, value
                found[attribute] += 1
                break
        if min(found) == per_attribute:
            return


def _photograph(outfit: Outfit, path: Path, width: int = 48, height: int = 64) -> None:
    """The drawing of an outfit as an upright JPEG."""
    picture, _ = draw(outfit, height)
    left = (height - width) // 2
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.crop((left, 0, left + width, height)).save(path, "JPEG")


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# ----------------------------------------------------------------------------- DeepFashion

COARSE = (  # name, type; in one alphabet over all types, as in the real list
    ("a-line", 3),
    ("abstract chevron print", 1),
    ("beach party", 5),
    ("classic", 5),
    ("cotton", 2),
    ("denim", 2),
    ("floral", 1),
    ("knit", 2),
    ("long-sleeved", 4),
    ("maxi skirt", 3),
    ("mini", 3),
    ("night out", 5),
    ("polka dot", 1),
    ("scoop neckline", 4),
    ("striped", 1),
    ("v-neck", 4),
)

FINE = (
    *((name, 1) for name in ("floral", "graphic", "striped", "embroidered", "pleated")),
    *((name, 1) for name in ("solid", "lattice")),
    *((name, 2) for name in ("long_sleeve", "short_sleeve", "sleeveless")),
    *((name, 3) for name in ("maxi_length", "mini_length", "no_dress")),
    *((name, 4) for name in ("crew_neckline", "v_neckline", "square_neckline", "no_neckline")),
    *((name, 5) for name in ("denim", "chiffon", "cotton", "leather", "faux", "knit")),
    *((name, 6) for name in ("tight", "loose", "conventional")),
)


def deepfashion_tree(folder: Path, n: int = 60, fine_columns: str = "flags") -> Path:
    """DeepFashion's Category and Attribute Prediction benchmark with few attributes and images.

    File names repeat from item to item, some images have no attribute and some several of one
    type, one cell in a while is 0 (unknown), and columns are padded with blanks.

    Args:
        folder: where `Anno_coarse`, `Anno_fine`, `Eval` and `Img` go.
        n: number of images.
        fine_columns: form of `Anno_fine/split/*_attr.txt`: "flags" for one column of 0 and 1 for
            each attribute, "indices" for one number for each type.

    Returns:
        The folder.
    """
    outfits = [lab_outfit("train", i) for i in range(n)]
    names = _item_names(outfits)
    for name, outfit in zip(names, outfits):
        _photograph(outfit, folder / "Img" / name)
    cells = [[_coarse_cell(outfit, attribute) for attribute, _ in COARSE] for outfit in outfits]
    for row in cells[::9]:
        row[COARSE.index(("knit", 2))] = 0
    coarse = folder / "Anno_coarse"
    _write_counted(coarse / "list_attr_cloth.txt", "attribute_name  attribute_type", COARSE, 28)
    texts = [" ".join(f"{cell:2d}" for cell in row) for row in cells]
    _write_counted(
        coarse / "list_attr_img.txt", "image_name  attribute_labels", zip(names, texts), 60
    )
    status = [("train", "train", "train", "val", "test")[i % 5] for i in range(n)]
    _write_counted(
        folder / "Eval" / "list_eval_partition.txt",
        "image_name  evaluation_status",
        zip(names, status),
        60,
    )
    _write_fine(folder / "Anno_fine", outfits, names, status, fine_columns)
    return folder


def _item_names(outfits: list[Outfit]) -> list[str]:
    """Two photographs of each item in a row, counted anew for every item."""
    return [
        f"img/Made-Up_{outfits[i - i % 2].category.title()}_{i // 2}/img_{i % 2 + 1:08d}.jpg"
        for i in range(len(outfits))
    ]


def _coarse_cell(outfit: Outfit, attribute: str) -> int:
    """1 if the outfit has an attribute of `COARSE`, else -1."""
    has: dict[str, bool] = {
        "a-line": outfit.skirt_length is not None and outfit.skirt_cut == "a-line",
        "abstract chevron print": outfit.top_pattern in ("blocks", "gradient"),
        "beach party": outfit.sleeve_length in ("Sleeveless", "Cup"),
        "classic": outfit.category in ("blazer", "shirt"),
        "cotton": outfit.category in ("shirt", "top"),
        "denim": outfit.category == "trousers",
        "floral": outfit.bottom_pattern == "checks",
        "knit": outfit.category == "sweater",
        "long-sleeved": outfit.sleeve_length in ("Wrist", "Long", "Extra Long"),
        "maxi skirt": outfit.skirt_length in ("Ankle", "Floor"),
        "mini": outfit.skirt_length == "Short",
        "night out": outfit.category == "dress",
        "polka dot": outfit.top_pattern == "dots",
        "scoop neckline": outfit.neckline_design == "Round",
        "striped": outfit.top_pattern == "stripes",
        "v-neck": outfit.neckline_design in ("V", "Deep V"),
    }
    return 1 if has[attribute] else -1


def _fine_values(outfit: Outfit) -> tuple[str, ...]:
    """One attribute of each type of `FINE`."""
    texture = {"stripes": "striped", "checks": "lattice", "dots": "graphic"}
    sleeve = {"Sleeveless": "sleeveless", "Cup": "sleeveless", "Short": "short_sleeve"}
    length = {"Short": "mini_length", "Floor": "maxi_length"}
    neckline = {"Round": "crew_neckline", "V": "v_neckline", "Square": "square_neckline"}
    return (
        texture.get(outfit.top_pattern, "solid"),
        sleeve.get(outfit.sleeve_length or "", "long_sleeve"),
        length.get(outfit.skirt_length or "", "no_dress"),
        neckline.get(outfit.neckline_design or "", "no_neckline"),
        "knit" if outfit.category == "sweater" else "cotton",
        "tight" if outfit.looseness < 0 else "loose",
    )


def _write_fine(
    folder: Path, outfits: list[Outfit], names: list[str], status: list[str], columns: str
) -> None:
    _write_counted(
        folder / "list_attr_cloth.txt", "attribute_name   attribute_type", FINE, 20, after="26 "
    )
    order = [name for name, _ in FINE]
    first = [[t for _, t in FINE].index(kind) for kind in range(1, 7)]
    for split in ("train", "val", "test"):
        members = [i for i, where in enumerate(status) if where == split]
        rows = []
        for i in members:
            places = [
                order.index(value, start) for value, start in zip(_fine_values(outfits[i]), first)
            ]
            if columns == "indices":
                rows.append([place - start for place, start in zip(places, first)])
            else:
                rows.append([int(place in places) for place in range(len(FINE))])
        _write(folder / "split" / f"{split}.txt", [names[i] for i in members])
        _write(folder / "split" / f"{split}_attr.txt", [" ".join(map(str, row)) for row in rows])


def _write_counted(
    path: Path,
    header: str,
    rows: Iterable[tuple[str, object]],
    width: int,
    after: str | None = None,
) -> None:
    """A file of the benchmark: the count (or `after`), the column names, two padded columns."""
    lines = [f"{name:<{width}} {value}" for name, value in rows]
    _write(path, [after or str(len(lines)), header, *lines])


MAKERS: dict[str, Callable[[Path], Path]] = {
    "fashionai": fashionai_tree,
    "deepfashion": deepfashion_tree,
}

if __name__ == "__main__":
    MAKERS[sys.argv[1]](Path(sys.argv[2]))
