"""Data sets: images, readers and writers of their formats, splits, and the lab wardrobe."""

from agman.datasets.asen import read_asen, write_asen
from agman.datasets.catalog import read_csv
from agman.datasets.csn import CSNTriplets, read_csn
from agman.datasets.images import FolderImages, ImageStore, PackedImages, pack, read_image
from agman.datasets.lab import lab, lab_categories
from agman.datasets.prepared import check_prepared, is_prepared, prepare
from agman.datasets.splits import split_by_image

__all__ = [
    "CSNTriplets",
    "FolderImages",
    "ImageStore",
    "PackedImages",
    "check_prepared",
    "is_prepared",
    "lab",
    "lab_categories",
    "pack",
    "prepare",
    "read_asen",
    "read_csn",
    "read_csv",
    "read_image",
    "split_by_image",
    "write_asen",
]
