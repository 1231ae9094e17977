"""A small tree in the true format of UT-Zap50K and of CSN's triplets: drawn shoes.

    python -m tests.data_scripts.zappos_tree FOLDER

What is in it is made up; how it is written is what `data_scripts/zappos50k.py` meets in the real
downloads: several values in a cell, empty cells, a brand whose folder is spelled otherwise than
listed, a product without a listed photo, photos without a triplet and in several splits.
"""

from __future__ import annotations

import random
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

IMAGES, DATA, TRIPLETS = "ut-zap50k-images", "ut-zap50k-data", "csn_zappos_triplets"
HEADER = "CID,Category,SubCategory,HeelHeight,Insole,Closure,Gender,Material,ToeStyle"
ATTRIBUTES = ("class", "closure", "gender", "heel")
SUBCATEGORIES = {
    "Boots": ("Ankle", "Mid-Calf"),
    "Sandals": ("Flat", "Heel"),
    "Shoes": ("Heels", "Oxfords", "Sneakers and Athletic Shoes"),
    "Slippers": ("Boot", "Slipper Flats"),
}
BRANDS = ("Aquatalia by Marvin K", "Dr. Martens", "Levi's", "adidas")
RESPELLED = {"Levi's": "Levi's&#174;"}  # how the archive spells a folder that CSN's list names
HEELS = ("", "Under 1in", "1in - 1 3/4in", "2in - 2 3/4in", "5in & over")
CLOSURES = ("", "Buckle", "Hook and Loop", "Lace up", "Slip-On", "Lace up;Zipper")
GENDERS = ("Men", "Women", "Boys", "Girls", "Boys;Girls", "")
SPLITS = ("train", "train", "train", "train", "train", "train", "val", "val", "test", "test")


@dataclass(frozen=True)
class Shoe:
    """One product: its number and the cells of its line."""

    number: int
    category: str
    subcategory: str
    brand: str
    heel: str
    closure: str
    gender: str

    @property
    def path(self) -> str:
        """As CSN's list names the photo."""
        folder = f"{self.category}/{self.subcategory}/{self.brand}"
        return f"{folder}/{7_000_000 + self.number}.{self.number % 300}.jpg"

    @property
    def line(self) -> str:
        product = f"{7_000_000 + self.number}-{self.number % 300}"
        cells = (product, self.category, self.subcategory, self.heel, "", self.closure, self.gender)
        return ",".join((*cells, "Leather", ""))

    def values(self, attribute: str) -> set[str]:
        cell = {
            "class": self.category,
            "closure": self.closure,
            "gender": self.gender,
            "heel": self.heel,
        }[attribute]
        return set(cell.split(";")) - {""}


def zappos_tree(folder: Path, n: int = 120, triplets: int = 30) -> Path:
    """The three downloads as they unpack.

    Args:
        folder: where they go.
        n: listed photos; the last two are in no triplet, and one more product has no photo.
        triplets: of each attribute in each split.

    Returns:
        The folder.
    """
    draw = random.Random(0)
    shoes = [_shoe(i, draw) for i in range(n + 1)]
    for shoe in shoes[:n]:
        _photograph(shoe, folder / IMAGES / real_path(shoe.path))
    _write(folder / DATA / "meta-data.csv", [HEADER, *(shoe.line for shoe in reversed(shoes))])
    _write(folder / DATA / "readme.txt", ["for academic, non-commercial use"])
    lists = folder / TRIPLETS / "tripletlists"
    _write(folder / TRIPLETS / "filenames.json", [shoe.path for shoe in shoes[:n]])
    for split in ("train", "val", "test"):
        # the first photo is in all splits
        mine = [i for i in range(n - 2) if i == 0 or SPLITS[i % len(SPLITS)] == split]
        for attribute in ATTRIBUTES:
            lines = [_triplet(shoes, mine, attribute, draw) for _ in range(triplets)]
            _write(lists / f"{attribute}_tripletlist_{split}.txt", [_triplet_of_all(mine), *lines])
    return folder


def real_path(path: str) -> str:
    """Where the archive has the photo that the list calls `path`."""
    category, subcategory, brand, file = path.split("/")
    return f"{category}/{subcategory}/{RESPELLED.get(brand, brand)}/{file}"


def zappos_archives(tree: Path, folder: Path) -> Path:
    """The same as three zip files; that of the triplets has no folder of its own name inside."""
    folder.mkdir(parents=True)
    for name, start in ((IMAGES, tree), (DATA, tree), (TRIPLETS, tree / TRIPLETS)):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((tree / name).rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(start).as_posix())
    return folder


def _shoe(i: int, draw: random.Random) -> Shoe:
    category = draw.choice(sorted(SUBCATEGORIES))
    return Shoe(
        number=i,
        category=category,
        subcategory=draw.choice(SUBCATEGORIES[category]),
        brand=draw.choice(BRANDS),
        heel=draw.choice(HEELS),
        closure=draw.choice(CLOSURES),
        gender=draw.choice(GENDERS),
    )


def _triplet(shoes: list[Shoe], mine: list[int], attribute: str, draw: random.Random) -> str:
    """`anchor far close`: the third photo shares a value with the first, the second does not."""
    while True:
        anchor, far, close = draw.sample(mine, 3)
        of = [shoes[i].values(attribute) for i in (anchor, far, close)]
        if of[0] and of[1] and not of[0] & of[1] and of[0] & of[2]:
            return f"{anchor} {far} {close}"


def _triplet_of_all(mine: list[int]) -> str:
    """A triplet with the first photo, whatever it shows, so that it occurs in every split."""
    return f"{mine[0]} {mine[1]} {mine[2]}"


def _photograph(shoe: Shoe, path: Path) -> None:
    """A drawing of the shoe from the side, 136 x 102 on white."""
    draw = random.Random(shoe.number)
    color = tuple(draw.randrange(30, 200) for _ in range(3))
    heel = 6 * HEELS.index(shoe.heel)
    top = {"Boots": 18, "Sandals": 62, "Shoes": 45, "Slippers": 52}[shoe.category]
    picture = Image.new("RGB", (136, 102), "white")
    pen = ImageDraw.Draw(picture)
    ground, sole = 92, 92 - heel
    pen.polygon([(20, sole), (24, top), (58, top), (68, 62), (112, 72), (122, 90), (70, 90)], color)
    pen.line([(20, sole), (70, 91), (122, 91)], "black", 3)
    pen.rectangle([20, sole, 32, ground], "black")
    for i in range(CLOSURES.index(shoe.closure)):
        pen.line([(60 + 8 * i, 60 + i), (72 + 8 * i, 56 + i)], "white", 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "JPEG", quality=90)


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    zappos_tree(Path(sys.argv[1]))
