"""Dividing one table of labelled images into train, valid and test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from agman.attributes import AttributeTable, QueryGallery, RetrievalData
from agman.errors import InputError


def split_by_image(
    table: AttributeTable,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.5, 0.17, 0.33),
    query_share: float = 0.2,
    groups: Sequence[object] | np.ndarray | None = None,
) -> RetrievalData:
    """Divide a table by image, so that all rows of an image stay together.

    The order is that of a hash of the seed and the image's name (or its group): the same names
    give the same split on every machine and in any order of rows. Values that no training image
    has may occur in valid and test. All tables keep the same image store.

    Args:
        table: the labelled images; images without a row are left out.
        seed: another seed, another split.
        fractions: shares of train, valid and test, adding up to 1; valid or test may be 0.
        query_share: share of the images of valid and of test that are queries; the rest is their
            gallery.
        groups: (len(table.images),) what must not be torn apart, such as who took the photo; a
            group lies in one of train, valid and test. Queries and gallery may share a group.

    Raises:
        InputError: shares that make no sense, `groups` of another length, or too few images.
    """
    _check_shares(fractions, query_share)
    names = table.images.names
    images = np.unique(table.image)
    if groups is None:
        keys = [names[i] for i in images]
    elif len(groups) == len(names):
        keys = [str(groups[i]) for i in images]
    else:
        raise InputError(
            f"{table.source}: {len(groups)} groups were given for {len(names)} images; give one "
            "for each image."
        )
    parts = _divide(images, keys, fractions, seed)
    _check_sizes(
        table.source, parts, fractions, len(set(keys)), "images" if groups is None else "groups"
    )
    valid, test = (queries_and_gallery(table, part, query_share, seed) for part in parts[1:])
    train = _rows_of(table, parts[0])
    return RetrievalData(table.schema.name, table.schema, train, valid, test)


def _check_shares(fractions: Sequence[float], query_share: float) -> None:
    sensible = len(fractions) == 3 and all(0 <= share <= 1 for share in fractions)
    if not sensible or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise InputError(
            f"fractions are the shares of train, valid and test and add up to 1, not {fractions}."
        )
    if not 0 < query_share < 1:
        raise InputError(f"query_share lies between 0 and 1, not at {query_share}.")


def _divide(
    images: np.ndarray, keys: Sequence[str], fractions: Sequence[float], seed: int
) -> list[np.ndarray]:
    """Lay the groups end to end in hashed order; the middle of each says which part it joins."""
    bounds = np.cumsum(fractions)[:2] * len(images)
    parts: list[list[int]] = [[], [], []]
    before = 0
    for group in _hashed_groups(images, keys, f"split {seed}"):
        middle = before + len(group) / 2
        parts[int(np.searchsorted(bounds, middle))] += group
        before += len(group)
    return [np.array(sorted(part), dtype=np.int64) for part in parts]


def _hashed_groups(images: np.ndarray, keys: Sequence[str], salt: str) -> list[list[int]]:
    """The images that share a key, key by key in the order of a hash."""
    members: dict[str, list[int]] = {}
    for image, key in zip(images, keys, strict=True):
        members.setdefault(key, []).append(int(image))

    def digest(key: str) -> bytes:
        return hashlib.sha256(f"{salt}\0{key}".encode(errors="surrogatepass")).digest()

    return [members[key] for key in sorted(members, key=digest)]


def _check_sizes(
    source: str, parts: Sequence[np.ndarray], fractions: Sequence[float], n: int, what: str
) -> None:
    for part, share, least, name in zip(
        parts, fractions, (1, 2, 2), ("train", "valid", "test"), strict=True
    ):
        if share and len(part) < least:
            raise InputError(
                f"{source}: {n} labelled {what} are too few to split by {tuple(fractions)}, "
                f"{name} would get {len(part)} images; label more or change the fractions."
            )


def queries_and_gallery(
    table: AttributeTable, images: np.ndarray, query_share: float, seed: int
) -> QueryGallery:
    """Some images of a table, the first of them by a hash of seed and name as queries.

    Args:
        table: the labelled images.
        images: (n,) which of its images to divide.
        query_share: share of these that are queries; the rest is their gallery.
        seed: another seed, other queries.
    """
    keys = [table.images.names[i] for i in images]
    order = [i for group in _hashed_groups(images, keys, f"query {seed}") for i in group]
    n = min(max(round(query_share * len(order)), 1), max(len(order) - 1, 0))
    queries, gallery = order[:n], order[n:]
    return QueryGallery(_rows_of(table, queries), _rows_of(table, gallery))


def _rows_of(table: AttributeTable, images: Sequence[int] | np.ndarray) -> AttributeTable:
    member = np.zeros(len(table.images), dtype=bool)
    member[np.asarray(images, dtype=np.int64)] = True
    return table.select(member[table.image])
