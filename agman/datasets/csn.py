"""The triplet lists of Conditional Similarity Networks for Zappos50k.

::

    <root>/filenames.json                                     plain text, one path per line
    <root>/tripletlists/<attribute>_tripletlist_<split>.txt   anchor far close
    <root>/ut-zap50k-images/...                               the images
    <root>/images_<side>.npz                                  our addition: or the packed images

The files put the far image (the negative) second; here the order is anchor, positive, negative.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agman.attributes import ZAPPOS50K, AttributeSchema
from agman.datasets.asen import (
    packed_images,
    read_integers,
    read_names,
    refuse_missing_images,
)
from agman.datasets.images import FolderImages, ImageStore
from agman.errors import InputError

RELEASED_LIMITS = {"train": 200_000, "valid": 80_000, "test": 160_000}
"""How many triplets of each split AG-MAN's released code uses, over all four attributes."""

_SUFFIX = {"train": "train", "valid": "val", "test": "test"}


@dataclass(frozen=True, eq=False)
class CSNTriplets:
    """Triplets for training and for triplet accuracy; values of attributes are not known.

    Each split is an int64 array (T, 4) with columns attribute, anchor, positive, negative; the
    last three index `images`.
    """

    schema: AttributeSchema
    images: ImageStore
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def read_csn(
    root: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    limits: Mapping[str, int] | None = None,
    seed: int = 0,
    check_images: bool = True,
) -> CSNTriplets:
    """Read the triplet lists for class, closure, gender and heel.

    Args:
        root: the folder of `filenames.json`; the lists lie in its subfolder `tripletlists` or
            beside it.
        images: the folder of the images; default `ut-zap50k-images` in `root`, or if there is
            none the packed images beside `filenames.json`.
        limits: for each of train, valid and test the most triplets to keep over all attributes,
            drawn at random, such as `RELEASED_LIMITS`; default all, attribute by attribute.
        seed: of that draw.
        check_images: see that every image file exists.

    Raises:
        InputError: files are missing (a split may be absent altogether), or a line is wrong.
    """
    root = Path(root)
    listing = root / "filenames.json"
    store = _images(listing, root / "ut-zap50k-images", images, check_images)
    unknown = sorted(set(limits or {}) - set(_SUFFIX))
    if unknown:
        raise InputError(f"limits are for train, valid and test, not for {unknown[0]!r}.")
    folder = root / "tripletlists" if (root / "tripletlists").is_dir() else root
    splits = {
        split: _draw(triplets, (limits or {}).get(split), seed)
        for split, triplets in read_triplets(folder, listing, len(store)).items()
    }
    return CSNTriplets(ZAPPOS50K, store, **splits)


def _images(
    listing: Path, default: Path, images: str | os.PathLike[str] | None, check: bool
) -> ImageStore:
    names = read_names(listing)
    if images is None and not default.is_dir():
        packed = packed_images(listing.parent, "images", listing, names)
        if packed is not None:
            return packed
    store = FolderImages(default if images is None else images, names)
    if check:
        refuse_missing_images(listing, store)
    return store


def read_triplets(folder: Path, listing: Path, n_images: int) -> dict[str, np.ndarray]:
    """The lists in a folder, for each of train, valid and test.

    Args:
        folder: where `<attribute>_tripletlist_<split>.txt` lie.
        listing: the `filenames.json` they belong to, for messages.
        n_images: how many images it has.

    Returns:
        (T, 4) attribute, anchor, positive, negative; empty if no list of the split is there.

    Raises:
        InputError: a list is missing beside its like, or all are, or a line is wrong.
    """
    splits = {split: _read_split(folder, split, listing, n_images) for split in _SUFFIX}
    if not any(map(len, splits.values())):
        raise InputError(
            f"{folder}: there are no triplet lists such as class_tripletlist_train.txt."
        )
    return splits


def list_names() -> list[str]:
    """The file names of all twelve lists."""
    return [_list_name(name, split) for split in _SUFFIX for name in ZAPPOS50K.names]


def _list_name(attribute: str, split: str) -> str:
    return f"{attribute}_tripletlist_{_SUFFIX[split]}.txt"


def _read_split(folder: Path, split: str, listing: Path, n_images: int) -> np.ndarray:
    """(T, 4) attribute, anchor, positive, negative; empty if no file of the split is there."""
    paths = [folder / _list_name(name, split) for name in ZAPPOS50K.names]
    absent = [path for path in paths if not path.exists()]
    if len(absent) == len(paths):
        return np.empty((0, 4), dtype=np.int64)
    if absent:
        raise InputError(f"{absent[0]}: the file is missing beside its like; copy it there.")
    parts = []
    for attribute, path in enumerate(paths):
        anchor, far, close = _read_triplets(path, listing, n_images).T
        parts.append(np.stack([np.full_like(anchor, attribute), anchor, close, far], axis=1))
    return np.concatenate(parts)


def _read_triplets(path: Path, listing: Path, n_images: int) -> np.ndarray:
    """(T, 3) anchor, far, close as in the file."""
    numbers, lines, _ = read_integers(path)
    triplets = numbers.reshape(-1, 3)
    bad = np.flatnonzero((triplets >= n_images).any(axis=1))
    if len(bad):
        raise InputError(
            f"{path}, line {lines[bad[0]]}: image {triplets[bad[0]].max()} is not among the "
            f"{n_images} of {listing.name}, counted from 0 ({len(bad)} such lines); take the files "
            "of one release together."
        )
    return triplets


def _draw(triplets: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    if limit is None or limit >= len(triplets):
        return triplets
    if limit < 0:
        raise InputError(f"A limit of triplets is at least 0, not {limit}.")
    return triplets[np.random.default_rng(seed).permutation(len(triplets))[:limit]]
