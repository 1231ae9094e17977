"""Attributes, their values, and tables of labelled images.

An *attribute* is what is compared (skirt length), a *value* is what it can be (mini).
Everything downstream works with ids; the schema turns ids into names and back.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agman.errors import InputError

if TYPE_CHECKING:
    from agman.datasets.images import ImageStore

NO_REGION = (-1, -1, -1, -1)


@dataclass(frozen=True)
class AttributeSchema:
    """Names of the attributes of a data set and of the values each can take.

    Args:
        names: one name per attribute, all different.
        values: for each attribute the names of its values, all different.
        name: name of the data set.

    Raises:
        InputError: a name is repeated, or the two lists differ in length.

    >>> FASHIONAI.attribute("coat_length"), FASHIONAI.value("coat_length", "Midi")
    (2, 6)
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise InputError(
                f"Schema {self.name!r} names {len(self.names)} attributes but lists values for "
                f"{len(self.values)}; give one list of values for each attribute."
            )
        _refuse_repeats(self.names, f"schema {self.name!r}", "attribute")
        for attribute, values in zip(self.names, self.values, strict=True):
            _refuse_repeats(values, f"attribute {attribute!r}", "value")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_values(self) -> tuple[int, ...]:
        """Number of values of each attribute."""
        return tuple(len(values) for values in self.values)

    def attribute(self, key: str | int) -> int:
        """The id of an attribute given by name or id.

        Raises:
            InputError: there is no such attribute; the message offers close names.
        """
        return _look_up(key, self.names, f"attribute of {self.name}")

    def value(self, attribute: str | int, key: str | int) -> int:
        """The id of a value of an attribute, both given by name or id.

        Raises:
            InputError: there is no such attribute or value.
        """
        a = self.attribute(attribute)
        return _look_up(key, self.values[a], f"value of {self.names[a]}")

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold; `from_dict` reads it back."""
        values = dict(zip(self.names, map(list, self.values), strict=True))
        return {"name": self.name, "attributes": values}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AttributeSchema:
        """The schema that `to_dict` wrote.

        Raises:
            InputError: the data has another form.
        """
        try:
            attributes = {str(k): tuple(map(str, v)) for k, v in data["attributes"].items()}
            return cls(tuple(attributes), tuple(attributes.values()), str(data["name"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                "A schema is a dictionary with 'name' and 'attributes' (attribute to list of "
                f"values), which this is not: {str(data)[:80]!r}."
            ) from error


def _refuse_repeats(names: Sequence[str], where: str, what: str) -> None:
    if len(set(names)) == len(names):
        return
    repeated = next(name for name, count in Counter(names).items() if count > 1)
    raise InputError(f"In {where} the {what} {repeated!r} stands twice; rename one.")


def _look_up(key: str | int, names: Sequence[str], what: str) -> int:
    if isinstance(key, str):
        if key in names:
            return names.index(key)
        folded = [name.casefold() for name in names]
        if key.casefold() in folded:
            return folded.index(key.casefold())
        close = difflib.get_close_matches(key.casefold(), folded, n=3, cutoff=0.5)
        offer = [names[folded.index(name)] for name in close] or list(names[:12])
        raise InputError(f"There is no {what} named {key!r}; did you mean {', '.join(offer)}?")
    if not 0 <= int(key) < len(names):
        raise InputError(f"There is no {what} with id {key}; ids run from 0 to {len(names) - 1}.")
    return int(key)


@dataclass(frozen=True, eq=False)
class AttributeTable:
    """Labelled images: each row says that an image has a value of an attribute.

    An image may have rows for several attributes, and several values of one attribute.
    A missing row means "unknown", never "no".

    Args:
        schema: names of attributes and values.
        images: the store that `image` indexes.
        image: (R,) index of the image in `images`.
        attribute: (R,) id of the attribute.
        value: (R,) id of the value.
        regions: (R, 4) true region as x0, y0, x1, y1 in pixels of the stored image, or -1 four
            times where nothing can be seen; None where regions are not known at all.
        source: file or name that messages mention.

    Raises:
        InputError: columns of different length, or an id outside its range; the message counts
            the bad rows and shows the first.
    """

    schema: AttributeSchema
    images: ImageStore
    image: np.ndarray
    attribute: np.ndarray
    value: np.ndarray
    regions: np.ndarray | None = None
    source: str = "table"

    def __post_init__(self) -> None:
        for column in ("image", "attribute", "value"):
            array = np.asarray(getattr(self, column))
            if array.size and not np.issubdtype(array.dtype, np.integer):
                raise InputError(f"{self.source}: column {column!r} must hold integers.")
            object.__setattr__(self, column, array.astype(np.int64).reshape(-1))
        lengths = {len(self.image), len(self.attribute), len(self.value)}
        if self.regions is not None:
            lengths.add(len(self.regions))
        if len(lengths) > 1:
            raise InputError(f"{self.source}: columns have different lengths {sorted(lengths)}.")
        self._refuse(self.image, len(self.images), "image")
        self._refuse(self.attribute, len(self.schema), "attribute")
        limits = np.asarray((*self.schema.n_values, 0), dtype=np.int64)[self.attribute]
        self._refuse(self.value, limits, "value")

    def _refuse(self, column: np.ndarray, limit: int | np.ndarray, what: str) -> None:
        bad = np.flatnonzero((column < 0) | (column >= limit))
        if not len(bad):
            return
        row = int(bad[0])
        end = int(np.broadcast_to(limit, column.shape)[row]) - 1
        raise InputError(
            f"{self.source}: {len(bad)} of {len(column)} rows name a missing {what}, first row "
            f"{row} with id {column[row]} where ids end at {end}; correct the rows or the schema."
        )

    def __len__(self) -> int:
        return len(self.image)

    def select(self, rows: np.ndarray | Sequence[int]) -> AttributeTable:
        """The same images with only some rows, given as a mask or as row numbers."""
        rows = np.asarray(rows)
        if not rows.size:
            rows = rows.astype(np.int64)
        regions = None if self.regions is None else self.regions[rows]
        image, attribute, value = self.image[rows], self.attribute[rows], self.value[rows]
        return AttributeTable(
            self.schema, self.images, image, attribute, value, regions, self.source
        )

    def of(self, attribute: str | int) -> AttributeTable:
        """The rows of one attribute."""
        return self.select(self.attribute == self.schema.attribute(attribute))

    def labelled(self) -> np.ndarray:
        """(images, attributes) True where an image has at least one row for an attribute."""
        known = np.zeros((len(self.images), len(self.schema)), dtype=bool)
        known[self.image, self.attribute] = True
        return known

    def counts(self) -> list[np.ndarray]:
        """For each attribute the number of rows with each value."""
        return [
            np.bincount(self.value[self.attribute == a], minlength=n)
            for a, n in enumerate(self.schema.n_values)
        ]

    def __str__(self) -> str:
        used = len(np.unique(self.image))
        lines = [f"{self.source}: {len(self)} rows, {used} images, {len(self.schema)} attributes"]
        for name, values, counts in zip(
            self.schema.names, self.schema.values, self.counts(), strict=True
        ):
            order = np.argsort(-counts, kind="stable")
            shown = ", ".join(f"{values[v]} {counts[v]}" for v in order[:8])
            more = f", and {len(values) - 8} more" if len(values) > 8 else ""
            lines.append(f"  {name}: {shown}{more}")
        return "\n".join(lines)


@dataclass(frozen=True)
class QueryGallery:
    """Queries and the gallery they are ranked against, attribute by attribute."""

    queries: AttributeTable
    gallery: AttributeTable


@dataclass(frozen=True)
class RetrievalData:
    """One data set: rows to train on, and queries with galleries to validate and to test on."""

    name: str
    schema: AttributeSchema
    train: AttributeTable
    valid: QueryGallery
    test: QueryGallery


FASHIONAI = AttributeSchema(
    name="FashionAI",
    names=(
        "skirt_length",
        "sleeve_length",
        "coat_length",
        "pant_length",
        "collar_design",
        "lapel_design",
        "neckline_design",
        "neck_design",
    ),
    values=(
        ("Invisible", "Short", "Knee", "Midi", "Ankle", "Floor"),
        (
            "Invisible",
            "Sleeveless",
            "Cup",
            "Short",
            "Elbow",
            "3/4",
            "Wrist",
            "Long",
            "Extra Long",
        ),
        (
            "Invisible",
            "High Waist",
            "Regular",
            "Long",
            "Micro",
            "Knee",
            "Midi",
            "Ankle & Floor",
        ),
        ("Invisible", "Short", "Mid", "3/4", "Cropped", "Full"),
        ("Invisible", "Shirt", "Peter Pan", "Puritan", "Rib"),
        ("Invisible", "Notched", "Collarless", "Shawl", "Plus Size Shawl"),
        (
            "Invisible",
            "Strapless",
            "Deep V",
            "Straight",
            "V",
            "Square",
            "Off Shoulder",
            "Round",
            "Sweetheart",
            "One Shoulder",
        ),
        ("Invisible", "Turtle", "Ruffle Semi-High", "Low Turtle", "Draped"),
    ),
)
"""FashionAI: 8 attributes, 54 values; value 0 is always "Invisible"."""


def numbered_schema(name: str, n_values: dict[str, int]) -> AttributeSchema:
    """A schema whose values are known only by number, as in ASEN's meta.json.

    >>> numbered_schema("shop", {"color": 2}).values
    (('0', '1'),)
    """
    values = tuple(tuple(str(i) for i in range(n)) for n in n_values.values())
    return AttributeSchema(tuple(n_values), values, name)


DEEPFASHION = numbered_schema(
    "DeepFashion", {"texture": 156, "fabric": 218, "shape": 180, "part": 216, "style": 230}
)
"""DeepFashion Category and Attribute Prediction: 5 groups, 1,000 values."""

ZAPPOS50K = AttributeSchema(("class", "closure", "gender", "heel"), ((), (), (), ()), "Zappos50k")
"""Zappos50k as CSN uses it: 4 attributes; its triplets name no values."""
