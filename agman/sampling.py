"""What one training step looks at: triplets conditioned on an attribute, or batches of images.

Every epoch is a pure function of (seed, epoch number): a resumed run, and every process of a
distributed one, sees the same samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from agman.attributes import AttributeTable
from agman.errors import InputError


class Triplets(NamedTuple):
    """Triplets by image number: anchor and positive share the attribute's value.

    Args:
        attributes: (T,) id of the attribute that the triplet is about.
        anchors: (T,) image numbers; `positives` and `negatives` likewise.
    """

    attributes: np.ndarray
    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Triplets:
        """Some of the triplets."""
        return Triplets(*(column[rows] for column in self))


class TripletSource(Protocol):
    """Anything that gives the triplets of an epoch."""

    def epoch(self, number: int) -> Triplets:
        """The triplets of epoch `number`, the same on every call."""
        ...


def generator(seed: int, epoch: int, purpose: int = 0) -> np.random.Generator:
    """Random numbers that depend only on seed, epoch and purpose."""
    return np.random.default_rng([seed, epoch, purpose])


class TripletSampler:
    """Draws triplets: an attribute, then a value of it, then images, each uniformly.

    The anchor and the positive are two different images of the value; the negative is an image
    that is labelled for the attribute and does not have the value. Values with fewer than two
    images, and attributes with fewer than two values, are never drawn.

    Args:
        table: rows to draw from.
        n_triplets: how many an epoch has.
        seed: of the random numbers.

    Raises:
        InputError: no attribute of the table admits a triplet.

    Source: ASEN's and AG-MAN's sampling, without their endless rejection loop.
    """

    def __init__(self, table: AttributeTable, n_triplets: int, seed: int = 0) -> None:
        self.n_triplets, self.seed = n_triplets, seed
        rows = np.unique(np.stack([table.attribute, table.value, table.image]), axis=1)
        self._attribute, self._value, self._image = rows
        self._keys = self._key(*rows)
        self._index_groups(len(table.schema))
        if not len(self._groups):
            raise InputError(
                f"{table.source}: no triplet can be drawn; at least one attribute needs a value "
                "with two images, and an image with another value."
            )

    def _key(self, attribute: np.ndarray, value: np.ndarray, image: np.ndarray) -> np.ndarray:
        """One sortable number per row."""
        n_values, n_images = (
            int(self._value.max(initial=0)) + 1,
            int(self._image.max(initial=0)) + 1,
        )
        return (attribute * n_values + value) * n_images + image

    def _index_groups(self, n_attributes: int) -> None:
        """Where each (attribute, value) starts and ends among the sorted rows."""
        change = np.diff(self._attribute, prepend=-1) | np.diff(self._value, prepend=-1)
        start = np.flatnonzero(change)
        size = np.diff(np.append(start, len(self._image)))
        attribute = self._attribute[start]
        ids = np.arange(n_attributes)
        self._attribute_start = np.searchsorted(self._attribute, ids, side="left")
        self._attribute_end = np.searchsorted(self._attribute, ids, side="right")
        n_images = np.bincount(self._distinct_images_by_attribute(), minlength=n_attributes)
        usable = (size >= 2) & (n_images[attribute] > size)
        self._groups = np.stack([attribute, start, size], axis=1)[usable]
        self._usable, self._first_group, self._n_groups = np.unique(
            self._groups[:, 0], return_index=True, return_counts=True
        )

    def _distinct_images_by_attribute(self) -> np.ndarray:
        return np.unique(np.stack([self._attribute, self._image]), axis=1)[0]

    def epoch(self, number: int) -> Triplets:
        """The triplets of epoch `number`."""
        random = generator(self.seed, number)
        which = random.integers(len(self._usable), size=self.n_triplets)
        group = self._first_group[which] + random.integers(self._n_groups[which])
        attribute, start, size = self._groups[group].T
        first = random.integers(size)
        second = (first + random.integers(1, size)) % size  # another image of the same value
        negative = self._draw_negatives(random, attribute, start, size)
        return Triplets(
            attribute, self._image[start + first], self._image[start + second], negative
        )

    def _draw_negatives(
        self,
        random: np.random.Generator,
        attribute: np.ndarray,
        start: np.ndarray,
        size: np.ndarray,
    ) -> np.ndarray:
        """Images of the attribute's other values, redrawn where they also have this value.

        After some rounds, the few that are left choose among all that are possible.
        """
        images = np.empty(len(start), dtype=np.int64)
        open_rows = np.arange(len(start))
        for _ in range(20):
            a, s, n = attribute[open_rows], start[open_rows], size[open_rows]
            begin, end = self._attribute_start[a], self._attribute_end[a]
            drawn = begin + random.integers(end - begin - n)
            drawn += np.where(drawn >= s, n, 0)  # step over the value's own rows
            images[open_rows] = self._image[drawn]
            open_rows = open_rows[self._has(a, self._value[s], images[open_rows])]
            if not len(open_rows):
                return images
        for row in open_rows:
            images[row] = random.choice(self._possible_negatives(attribute[row], start[row]))
        return images

    def _has(self, attribute: np.ndarray, value: np.ndarray, image: np.ndarray) -> np.ndarray:
        keys = self._key(attribute, value, image)
        place = np.searchsorted(self._keys, keys)
        return self._keys[np.minimum(place, len(self._keys) - 1)] == keys

    def _possible_negatives(self, attribute: int, start: int) -> np.ndarray:
        rows = slice(self._attribute_start[attribute], self._attribute_end[attribute])
        images, values = self._image[rows], self._value[rows]
        return np.setdiff1d(images, images[values == self._value[start]])


@dataclass(frozen=True)
class FixedTriplets:
    """Triplets from a published list, in a new order each epoch.

    Args:
        triplets: all of them.
        seed: of the order.
        most: triplets in an epoch, each epoch others; None for all.
    """

    triplets: Triplets
    seed: int = 0
    most: int | None = None

    def epoch(self, number: int) -> Triplets:
        """The triplets in the order of epoch `number`."""
        order = generator(self.seed, number).permutation(len(self.triplets.attributes))
        return self.triplets.take(order[: self.most])


class ImageSampler:
    """Draws batches of images, each with its value of every attribute.

    Args:
        table: rows to draw from.
        seed: of the order.

    Raises:
        InputError: the table is empty.
    """

    def __init__(self, table: AttributeTable, seed: int = 0) -> None:
        if not len(table):
            raise InputError(f"{table.source}: there is no labelled image to train on.")
        self.seed = seed
        self._images = np.unique(table.image)
        self._table = table

    def epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Every labelled image once, in the order of epoch `number`.

        Returns:
            (N,) image numbers, and (N, attributes) value ids, -1 where unknown. Where an image
            has several values of an attribute, the epoch picks one at random.
        """
        random = generator(self.seed, number)
        table, order = self._table, random.permutation(len(self._table))
        values = np.full((len(table.images), len(table.schema)), -1, dtype=np.int64)
        values[table.image[order], table.attribute[order]] = table.value[order]
        images = random.permutation(self._images)
        return images, values[images]


def share(batch_size: int, rank: int, world_size: int) -> slice:
    """The part of a batch that one of several processes works on; sizes differ by at most one.

    Raises:
        InputError: there are more processes than rows.

    >>> [share(8, rank, 3) for rank in range(3)]
    [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
    """
    if batch_size < world_size:
        raise InputError(
            f"A batch of {batch_size} cannot be shared by {world_size} processes; choose a larger "
            "batch, or fewer processes."
        )
    return slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
