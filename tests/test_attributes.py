import numpy as np
import pytest

from agman.attributes import DEEPFASHION, FASHIONAI, ZAPPOS50K, AttributeSchema, AttributeTable
from agman.errors import InputError
from tests import tiny


def test_published_schemas_have_the_published_sizes():
    assert FASHIONAI.n_values == (6, 9, 8, 6, 5, 5, 10, 5)
    assert {values[0] for values in FASHIONAI.values} == {"Invisible"}
    assert DEEPFASHION.n_values == (156, 218, 180, 216, 230)
    assert ZAPPOS50K.names == ("class", "closure", "gender", "heel")


def test_names_are_found_whatever_their_case_and_close_ones_offered():
    assert FASHIONAI.attribute("Skirt_Length") == 0
    assert FASHIONAI.value("skirt_length", "midi") == 3
    with pytest.raises(InputError, match="did you mean sleeve_length"):
        FASHIONAI.attribute("sleve_length")
    with pytest.raises(InputError, match="ids run from 0 to 7"):
        FASHIONAI.attribute(8)


def test_schema_survives_json_and_refuses_other_things():
    assert AttributeSchema.from_dict(FASHIONAI.to_dict()) == FASHIONAI
    for wrong in ({}, {"name": "x", "attributes": [1]}, {"name": "x", "attributes": {"a": 3}}):
        with pytest.raises(InputError):
            AttributeSchema.from_dict(wrong)


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (("a", "a"), (("x",), ("y",)), "'a' stands twice"),
        (("a",), (("x", "x"),), "'x' stands twice"),
        (("a", "b"), (("x",),), "2 attributes but lists values for 1"),
    ],
)
def test_a_contradictory_schema_is_refused(names, values, message):
    with pytest.raises(InputError, match=message):
        AttributeSchema(names, values)


@pytest.mark.parametrize(
    ("column", "bad", "message"),
    [
        ("image", 99, "1 of 4 rows name a missing image, first row 2 with id 99"),
        ("attribute", -1, "1 of 4 rows name a missing attribute, first row 2 with id -1"),
        ("value", 2, "missing value, first row 2 with id 2 where ids end at 1"),
    ],
)
def test_ids_out_of_range_are_counted_and_shown(column, bad, message):
    rows = tiny.table(4)
    columns = {
        "image": np.array([0, 1, 2, 3]),
        "attribute": np.array([0, 1, 1, 0]),
        "value": np.array([2, 1, 0, 0]),
    }
    columns[column][2] = bad
    with pytest.raises(InputError, match=message):
        AttributeTable(rows.schema, rows.images, **columns)


def test_columns_of_different_length_or_kind_are_refused():
    rows = tiny.table(4)
    with pytest.raises(InputError, match="different lengths"):
        AttributeTable(rows.schema, rows.images, rows.image[:-1], rows.attribute, rows.value)
    with pytest.raises(InputError, match="must hold integers"):
        AttributeTable(rows.schema, rows.images, rows.image + 0.5, rows.attribute, rows.value)


def test_parts_of_a_table():
    rows = tiny.table(10)
    color = rows.of("color")
    assert len(color) == 10
    assert set(color.attribute) == {0}
    assert len(rows.select([])) == 0
    assert rows.select(np.array([3])).value[0] == rows.value[3]
    assert sum(rows.counts()[0]) == 10
    assert "20 rows, 10 images, 2 attributes" in str(rows)


def test_labelled_marks_rows_only():
    rows = tiny.table(3)
    some = rows.select(np.array([0, 3]))  # colour of image 0, place of image 1
    np.testing.assert_array_equal(some.labelled(), [[1, 0], [0, 1], [0, 0]])


def test_regions_go_with_their_rows():
    rows = tiny.table(3)
    boxes = np.arange(24).reshape(6, 4)
    table = AttributeTable(
        rows.schema, rows.images, rows.image, rows.attribute, rows.value, regions=boxes
    )
    np.testing.assert_array_equal(table.of("place").regions, boxes[1::2])
