"""Readers of catalogues, ASEN index files and CSN triplets, and splits by image."""

import contextlib
import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agman.attributes import (
    FASHIONAI,
    AttributeSchema,
    AttributeTable,
    QueryGallery,
    RetrievalData,
)
from agman.datasets import (
    FolderImages,
    PackedImages,
    lab,
    read_asen,
    read_csn,
    read_csv,
    split_by_image,
    write_asen,
)
from agman.datasets.csn import RELEASED_LIMITS
from agman.errors import InputError

SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


def refuses(said: str, read, *args, **kwargs) -> str:
    """Call a reader that must raise one sentence holding `said`; returns the message."""
    with pytest.raises(InputError) as caught:
        read(*args, **kwargs)
    message = str(caught.value)
    assert said in message
    assert message.endswith((".", "?"))
    assert "\n" not in message
    return message


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def rows(table: AttributeTable) -> list[tuple[str, str, str]]:
    """The table in words: image name, attribute name, value name."""
    schema, names = table.schema, table.images.names
    return [
        (names[i], schema.names[a], schema.values[a][v])
        for i, a, v in zip(table.image, table.attribute, table.value)
    ]


# --- CSV ---------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    touch(tmp_path, "a.jpg", "b.jpg", "c, large.jpg")
    path = tmp_path / "shop.csv"
    path.write_text('file,color,length\na.jpg,red,mini\nb.jpg,,midi\n"c, large.jpg",blue,\n')
    return path


class TestCsv:
    def test_rows_values_and_unknown_cells(self, shop):
        table = read_csv(shop)
        assert rows(table) == [
            ("a.jpg", "color", "red"),
            ("a.jpg", "length", "mini"),
            ("b.jpg", "length", "midi"),
            ("c, large.jpg", "color", "blue"),
        ]
        assert table.schema == AttributeSchema(
            ("color", "length"), (("blue", "red"), ("midi", "mini")), "shop"
        )
        assert table.source == str(shop)
        assert table.images.path(2) == shop.parent / "c, large.jpg"

    def test_chosen_columns_and_file_column(self, tmp_path):
        touch(tmp_path, "a.jpg")
        (tmp_path / "t.csv").write_text("color,photo,size\nred,a.jpg,L\n")
        for attributes in (["size"], "size"):
            table = read_csv(tmp_path / "t.csv", file_column="photo", attributes=attributes)
            assert rows(table) == [("a.jpg", "size", "L")]

    def test_first_column_is_the_file_when_none_is_called_so(self, tmp_path):
        touch(tmp_path, "a.jpg")
        (tmp_path / "t.csv").write_text("photo,color\na.jpg,red\n")
        assert rows(read_csv(tmp_path / "t.csv")) == [("a.jpg", "color", "red")]

    def test_images_in_the_subfolder_or_elsewhere_or_packed(self, tmp_path):
        (tmp_path / "t.csv").write_text("file,color\na.jpg,red\nb.jpg,blue\n")
        touch(tmp_path, "images/a.jpg", "images/b.jpg", "other/a.jpg", "other/b.jpg")
        assert read_csv(tmp_path / "t.csv").images.root == tmp_path / "images"
        assert read_csv(tmp_path / "t.csv", tmp_path / "other").images.root == tmp_path / "other"
        store = PackedImages(np.zeros((3, 2, 2, 3), np.uint8), ["b.jpg", "x.jpg", "a.jpg"])
        table = read_csv(tmp_path / "t.csv", store)
        assert table.images is store
        assert rows(table) == [("a.jpg", "color", "red"), ("b.jpg", "color", "blue")]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
    def test_byte_order_mark_and_line_ends(self, tmp_path, encoding, newline):
        touch(tmp_path, "é.jpg")
        text = newline.join(["file,color", "é.jpg,ōker", "", ",", ""])
        (tmp_path / "t.csv").write_bytes(text.encode(encoding))
        assert rows(read_csv(tmp_path / "t.csv")) == [("é.jpg", "color", "ōker")]

    def test_lines_of_one_image_add_up(self, tmp_path):
        touch(tmp_path, "a.jpg")
        (tmp_path / "t.csv").write_text("file,x,y\na.jpg,1,\na.jpg,,2\na.jpg,1,2\n")
        assert rows(read_csv(tmp_path / "t.csv")) == [("a.jpg", "x", "1"), ("a.jpg", "y", "2")]

    def test_columns_without_a_name_are_left_out(self, tmp_path):
        """As pandas writes its index."""
        touch(tmp_path, "a.jpg")
        (tmp_path / "t.csv").write_text(",file,color\n0,a.jpg,red\n")
        assert rows(read_csv(tmp_path / "t.csv")) == [("a.jpg", "color", "red")]

    def test_a_schema_gives_the_ids(self, tmp_path):
        touch(tmp_path, "a.jpg", "b.jpg")
        text = "file,neck_design,price,skirt_length\na.jpg,Turtle,9,floor\nb.jpg,,8,Invisible\n"
        (tmp_path / "t.csv").write_text(text)
        table = read_csv(tmp_path / "t.csv", schema=FASHIONAI)
        assert table.schema is FASHIONAI
        assert list(zip(table.image, table.attribute, table.value)) == [
            (0, 0, 5),
            (0, 7, 1),
            (1, 0, 0),
        ]
        only = read_csv(tmp_path / "t.csv", schema=FASHIONAI, attributes=["neck_design"])
        assert rows(only) == [("a.jpg", "neck_design", "Turtle")]

    def test_one_value_only_is_allowed(self, tmp_path):
        touch(tmp_path, "a.jpg")
        (tmp_path / "t.csv").write_text("file,color,empty\na.jpg,red,\n")
        assert read_csv(tmp_path / "t.csv").schema.n_values == (1, 0)

    @SETTINGS
    @given(data=st.data())
    def test_round_trip(self, tmp_path, data):
        """Any texts (commas, quotation marks, line ends within a cell) come back as written."""
        cell = st.text(
            st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/\\"), max_size=8
        ).map(str.strip)
        columns = data.draw(st.lists(cell.filter(bool), min_size=1, max_size=3, unique=True))
        assume("file" not in columns)
        names = data.draw(st.lists(cell.filter(bool), min_size=1, max_size=6, unique=True))
        cells = data.draw(
            st.lists(
                st.lists(cell, min_size=len(columns), max_size=len(columns)),
                min_size=len(names),
                max_size=len(names),
            )
        )
        with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *columns])
            writer.writerows([name, *row] for name, row in zip(names, cells))
        store = PackedImages(np.zeros((len(names), 1, 1, 3), np.uint8), names[::-1])
        table = read_csv(tmp_path / "t.csv", store, attributes=columns)
        expected = [
            (name, column, value)
            for name, row in zip(names, cells)
            for column, value in zip(columns, row)
            if value
        ]
        assert rows(table) == expected


class TestCsvFaults:
    def csv_refuses(self, tmp_path, text: str | bytes, said: str, **kwargs) -> str:
        touch(tmp_path, "a.jpg", "b.jpg")
        path = tmp_path / "t.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        message = refuses(said, read_csv, path, **kwargs)
        assert str(path) in message
        return message

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "has a header and at least one line"),
            ("file,color\n", "has a header and at least one line"),
            ("file;color\na.jpg;red\n", "not separated by commas"),
            ("file\tcolor\na.jpg\tred\n", "not separated by commas"),
            ("file,color\na.jpg,red\nb.jpg,red,blue\n", "line 3: 3 cells under a header of 2"),
            ("file,color\na.jpg\n", "line 2: 1 cells under a header of 2"),
            ('file,color\na.jpg,"red\nb.jpg,blue\n', "not valid CSV"),
            ('file,color\na.jpg,"red"x\n', "line 2: not valid CSV"),
            ("file,color\na.jpg," + "x" * 200_000 + "\n", "line 2: not valid CSV"),
            ("file,color\n,red\n", "line 2: the cell 'file' names no image"),
            ("file,color,color\na.jpg,red,red\n", "the column 'color' stands twice"),
            (",\na.jpg,red\n", "has a header and at least one line"),
            ("file\na.jpg\n", "no attribute column beside 'file'"),
            ("file,color\na.jpg,red\na.jpg,blue\n", "line 3: color of 'a.jpg' is 'blue' here but"),
            ("file,color\na.jpg,red\nz.jpg,red\n", "line 3: there is no image 'z.jpg'"),
            ("file,color\na.jpg,red\nz.jpg,red\ny.jpg,red\n", "2 of 3 images are missing"),
            ("file,color\na.jpg,red\na\0b.jpg,red\n", "line 3: not in UTF-8"),
            ("file,color\na.jpg,red\nb.jpg,é\n".encode("latin-1"), "line 3: not in UTF-8"),
            ("file,color\na.jpg,red\n".encode("utf-16"), "line 1: not in UTF-8"),
            ("file,color\na.jpg,red\n".encode("utf-16-le"), "line 1: not in UTF-8"),
            ("file,color\na.jpg,red\n".encode("utf-16-be"), "line 1: not in UTF-8"),
        ],
    )
    def test_says_what_and_where(self, tmp_path, text, said):
        self.csv_refuses(tmp_path, text, said)

    def test_missing_columns_offer_close_names(self, tmp_path):
        text = "file,colour,size\na.jpg,red,L\n"
        said = "no column 'color' among file, colour, size; did you mean 'colour'?"
        self.csv_refuses(tmp_path, text, said, attributes=["size", "color"])
        self.csv_refuses(tmp_path, text, "no column 'photograph'", file_column="photograph")
        self.csv_refuses(tmp_path, text, "not the column of the file", attributes=["file"])
        self.csv_refuses(tmp_path, text, "each attribute once", attributes=["size", "size"])

    def test_unknown_value_and_attribute_of_a_schema(self, tmp_path):
        text = "file,skirt_length,hat\na.jpg,Midi,x\nb.jpg,Flor,x\n"
        said = "line 3: There is no value of skirt_length named 'Flor'; did you mean Floor?"
        self.csv_refuses(tmp_path, text, said, schema=FASHIONAI)
        with pytest.raises(InputError, match="no attribute of FashionAI named 'hat'"):
            read_csv(tmp_path / "t.csv", schema=FASHIONAI, attributes=["hat"])
        self.csv_refuses(
            tmp_path, "file,x\na.jpg,1\n", "no attribute column that the schema", schema=FASHIONAI
        )

    def test_serial_numbers_are_refused_unless_asked_for(self, tmp_path):
        names = [f"{i}.jpg" for i in range(30)]
        touch(tmp_path, *names)
        lines = [f"{name},{i % 3},{1000 + i}" for i, name in enumerate(names)]
        text = "\n".join(["file,color,price", *lines])
        said = "column 'price' has 30 different values in 30 cells"
        message = self.csv_refuses(tmp_path, text, said)
        assert "attributes=['color']" in message
        table = read_csv(tmp_path / "t.csv", attributes=["color", "price"])
        assert table.schema.n_values == (3, 30)

    def test_missing_file_folder_and_store(self, tmp_path, shop):
        refuses("cannot be read", read_csv, tmp_path / "none.csv")
        refuses("cannot be read", read_csv, tmp_path)
        refuses("3 of 3 images are missing", read_csv, shop, tmp_path / "nowhere")
        store = PackedImages(np.zeros((1, 2, 2, 3), np.uint8), ["a.jpg"])
        refuses("line 3: there is no image 'b.jpg' in the given images", read_csv, shop, store)

    @SETTINGS
    @given(data=st.one_of(st.binary(max_size=60), st.text('file,a.jpg\n\r" ;', max_size=60)))
    def test_any_bytes_raise_only_our_error(self, tmp_path, data):
        (tmp_path / "t.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
        with contextlib.suppress(InputError):
            read_csv(tmp_path / "t.csv")


# --- ASEN --------------------------------------------------------------------------------------

SHOP = AttributeSchema(("color", "length"), (("red", "blue", "ōker"), ("mini", "midi")), "shop")


def table_of(schema: AttributeSchema, images, triples: list[tuple[int, int, int]]):
    image, attribute, value = np.array(triples, dtype=np.int64).reshape(-1, 3).T
    return AttributeTable(schema, images, image, attribute, value)


@pytest.fixture
def asen(tmp_path: Path) -> Path:
    """A small data set in ASEN's layout, written by hand."""
    numbers = {"ATTRIBUTES": ["color", "length"], "ATTRIBUTES_NUM": {"color": 3, "length": 2}}
    (tmp_path / "meta.json").write_text(json.dumps({"shop": numbers, "DARN": numbers}))
    folder = tmp_path / "shop"
    files = {
        "filenames_train.txt": "t/0.jpg\nt/1.jpg\nt/2.jpg\n",
        "label_train.txt": "0 0 2\n2 0 0 0 1 1 1\n1 1 0\n",
        "filenames_valid.txt": "v/0.jpg\nv/1.jpg\n",
        "query_valid.txt": "1 1 1\n",
        "candidate_valid.txt": "0 1 0\n",
        "filenames_test.txt": "v/2.jpg\nv/3.jpg\nv/4.jpg",
        "query_test.txt": "2 0 1",
        "candidate_test.txt": "0 0 1\n1 0 2\n",
    }
    for name, text in files.items():
        touch(folder, name, *(line for line in text.split() if line.endswith(".jpg")))
        (folder / name).write_text(text)
    return tmp_path


class TestAsen:
    def test_reads_every_file(self, asen):
        data = read_asen(asen)
        assert data.name == data.schema.name == "shop"
        assert data.schema.values == (("0", "1", "2"), ("0", "1"))
        assert rows(data.train) == [
            ("t/0.jpg", "color", "2"),
            ("t/2.jpg", "color", "0"),
            ("t/2.jpg", "color", "1"),
            ("t/2.jpg", "length", "1"),
            ("t/1.jpg", "length", "0"),
        ]
        assert rows(data.valid.queries) == [("v/1.jpg", "length", "1")]
        assert rows(data.test.gallery) == [("v/2.jpg", "color", "1"), ("v/3.jpg", "color", "2")]
        assert data.test.queries.images is data.test.gallery.images
        assert data.train.images.path(2) == asen / "shop" / "t" / "2.jpg"

    def test_own_folder_named_data_set_and_image_folder(self, asen, tmp_path_factory):
        own = read_asen(asen / "shop")
        assert rows(own.train) == rows(read_asen(asen, "shop").train)
        elsewhere = tmp_path_factory.mktemp("photos")
        touch(elsewhere, *(f"t/{i}.jpg" for i in range(3)), *(f"v/{i}.jpg" for i in range(5)))
        assert read_asen(asen, images=elsewhere).train.images.root == elsewhere

    def test_split_without_files_is_empty_and_a_schema_replaces_meta(self, asen):
        (asen / "meta.json").unlink()
        for split in ("train", "valid"):
            for path in (asen / "shop").glob(f"*_{split}.txt"):
                path.unlink()
        data = read_asen(asen / "shop", schema=SHOP)
        assert data.schema is SHOP
        assert [len(t) for t in (data.train, data.valid.queries, data.test.queries)] == [0, 0, 1]
        assert rows(data.test.queries) == [("v/4.jpg", "color", "blue")]
        assert rows(read_asen(asen, "shop", schema=SHOP).test.queries) == rows(data.test.queries)

    def test_known_data_sets_get_their_value_names(self, asen):
        numbers = dict(zip(FASHIONAI.names, FASHIONAI.n_values))
        meta = {"FashionAI": {"ATTRIBUTES": list(numbers), "ATTRIBUTES_NUM": numbers}}
        (asen / "meta.json").write_text(json.dumps(meta))
        (asen / "shop").rename(asen / "FashionAI")
        assert read_asen(asen).schema is FASHIONAI

    def test_blank_lines_byte_order_mark_and_line_ends(self, asen):
        path = asen / "shop" / "query_test.txt"
        path.write_bytes(b"\xef\xbb\xbf2 0 1\r\n\r\n 1\t0  2 \r\n")
        names = asen / "shop" / "filenames_test.txt"
        names.write_bytes(
            b"\xef\xbb\xbf" + names.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n"
        )
        assert rows(read_asen(asen).test.queries) == [
            ("v/4.jpg", "color", "1"),
            ("v/3.jpg", "color", "2"),
        ]

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("query_test.txt", "0 0 1\n3 0 1\n", "line 2: 3 is no image; filenames_test.txt has 3"),
            ("query_test.txt", "\n0 2 1\n", "line 2: 2 is no attribute; shop has 2"),
            ("candidate_test.txt", "0 0 1\n1 1 2\n", "line 2: 2 is no value of its attribute"),
            ("candidate_test.txt", "0 0\n", "line 1: expected three whole numbers, found '0 0'"),
            ("candidate_test.txt", "0 0 1 1\n", "line 1: expected three whole numbers"),
            ("query_valid.txt", "0 0 1\n0 -1 1\n", "line 2: expected three whole numbers"),
            ("query_valid.txt", "0 0 1.0\n", "line 1: expected three whole numbers"),
            ("query_valid.txt", "0 0 1_0\n", "line 1: expected three whole numbers"),
            ("query_valid.txt", "0 0 " + "9" * 30, "line 1: expected three whole numbers"),
            ("query_valid.txt", b"0 0 1\n0 0 \xff\n", "line 2: expected three whole numbers"),
            ("label_train.txt", "0 0 1\n1 0 1 1\n", "line 2: expected an image and one or more"),
            ("label_train.txt", "0\n", "line 1: expected an image and one or more pairs"),
            ("label_train.txt", "0 0 1\n\n0 0 1 1 5\n", "line 3: 5 is no value"),
            ("filenames_test.txt", "v/2.jpg\n\nv/3.jpg\n", "line 2: an empty line"),
            ("filenames_test.txt", b"v/2.jpg\n\xe9.jpg\n", "line 2: not in UTF-8"),
            (
                "filenames_train.txt",
                "t/0.jpg\nt/9.jpg\nt/8.jpg\n",
                "line 2: there is no image 't/9",
            ),
        ],
    )
    def test_says_which_line(self, asen, name, text, said):
        path = asen / "shop" / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert str(path) in refuses(said, read_asen, asen)

    def test_counts_all_bad_rows(self, asen):
        path = asen / "shop" / "query_test.txt"
        path.write_text("7 0 1\n0 0 1\n8 0 1\n")
        refuses("(2 such rows)", read_asen, asen)

    def test_image_files_may_be_absent_when_only_labels_are_wanted(self, asen):
        (asen / "shop" / "t" / "1.jpg").unlink()
        message = refuses("(1 of 3 are missing)", read_asen, asen)
        assert "check_images=False" in message
        assert len(read_asen(asen, check_images=False).train) == 5

    @pytest.mark.parametrize("kind", ["filenames", "query", "candidate"])
    def test_a_split_with_one_file_missing_is_refused(self, asen, kind):
        (asen / "shop" / f"{kind}_valid.txt").unlink()
        refuses(f"{kind}_valid.txt: the file is missing", read_asen, asen)

    def test_folders_and_meta(self, asen):
        refuses("there is no such folder", read_asen, asen / "none")
        refuses("knows no data set 'shoes', only shop, DARN", read_asen, asen, "shoes")
        (asen / "DARN").mkdir()
        refuses("it holds 2 of the data sets shop, DARN", read_asen, asen)
        refuses("there are no index files", read_asen, asen, "DARN")
        (asen / "meta.json").unlink()
        refuses("there is no meta.json", read_asen, asen, "shop")

    @pytest.mark.parametrize(
        "meta",
        [
            "",
            "[1]",
            '{"shop": 3}',
            '{"shop": {"ATTRIBUTES": ["a"]}}',
            '{"shop": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": [2]}}',
            '{"shop": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": {"a": -1}}}',
            '{"shop": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": {"a": Infinity}}}',
            '{"shop": {"ATTRIBUTES": ["a", "a"], "ATTRIBUTES_NUM": {"a": 2}}}',
            '{"shop": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": {"a": 1e99}}}',
            '{"shop": {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": {"a": 2},'
            ' "ATTRIBUTES_VALUES": {"a": ["x"]}}}',
            "[" * 100_000,
        ],
    )
    def test_meta_of_another_form(self, asen, meta):
        (asen / "meta.json").write_text(meta)
        assert "meta.json" in refuses("not ASEN's form", read_asen, asen)

    def test_repeated_value_names_name_the_file(self, asen):
        entry = {"ATTRIBUTES": ["a"], "ATTRIBUTES_NUM": {"a": 2}, "ATTRIBUTES_VALUES": {"a": "xx"}}
        (asen / "meta.json").write_text(json.dumps({"shop": entry}))
        assert str(asen / "meta.json") in refuses("'x' stands twice", read_asen, asen)

    @SETTINGS
    @given(text=st.one_of(st.binary(max_size=40), st.text("0123 \n\r-", max_size=40)))
    @pytest.mark.parametrize("name", ["label_train.txt", "query_test.txt", "filenames_test.txt"])
    def test_any_bytes_raise_only_our_error(self, asen, name, text):
        (asen / "shop" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with contextlib.suppress(InputError):
            read_asen(asen, check_images=False)


NAMES = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r\ufeff"), min_size=1
)
TRIPLES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 3), st.just(0), st.integers(0, 2)),
        st.tuples(st.integers(0, 3), st.just(1), st.integers(0, 1)),
    ),
    max_size=8,
)


class TestWriteAsen:
    @SETTINGS
    @given(
        names=st.lists(NAMES, min_size=4, max_size=4, unique=True),
        triples=st.lists(TRIPLES, min_size=5, max_size=5),
    )
    def test_round_trip(self, tmp_path, names, triples):
        assume(any(triples))
        store = FolderImages(tmp_path, names)
        tables = [table_of(SHOP, store, part) for part in triples]
        data = RetrievalData(
            "shop", SHOP, tables[0], QueryGallery(*tables[1:3]), QueryGallery(*tables[3:])
        )
        write_asen(data, tmp_path)
        back = read_asen(tmp_path, images=tmp_path, check_images=False)
        assert back.schema == SHOP
        again = [back.train, back.valid.queries, back.valid.gallery]
        again += [back.test.queries, back.test.gallery]
        assert [rows(table) for table in again] == [rows(table) for table in tables]

    def test_read_and_written_again_is_the_same_but_for_value_names(self, asen, tmp_path_factory):
        root = tmp_path_factory.mktemp("copy")
        folder = write_asen(read_asen(asen), root)
        assert folder == root / "shop"
        for name in ("label_train.txt", "candidate_test.txt", "filenames_train.txt"):
            assert (folder / name).read_text() == (asen / "shop" / name).read_text()
        first = {path.name: path.read_bytes() for path in folder.iterdir()}
        write_asen(read_asen(root, images=asen / "shop"), root)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == first

    def test_the_lab_in_asens_layout(self, tmp_path):
        data = lab(12, 10, 10, size=32, cache=tmp_path / "cache", progress=False)
        write_asen(data, tmp_path)
        back = read_asen(tmp_path, check_images=False)
        assert back.schema.values == FASHIONAI.values
        assert [rows(part) for part in parts(back)] == [rows(part) for part in parts(data)]

    def test_other_data_sets_and_images_stay(self, asen):
        data = read_asen(asen)
        write_asen(data, asen)
        assert set(json.loads((asen / "meta.json").read_text())) == {"shop", "DARN"}
        assert rows(read_asen(asen).train) == rows(data.train)

    def test_stores_of_one_split_are_joined_by_name(self, tmp_path):
        one = table_of(SHOP, FolderImages(tmp_path, ["a", "b"]), [(1, 0, 0)])
        two = table_of(SHOP, FolderImages(tmp_path, ["c", "b"]), [(1, 1, 0), (0, 0, 1)])
        data = RetrievalData("shop", SHOP, one, QueryGallery(one, two), QueryGallery(two, one))
        folder = write_asen(data, tmp_path)
        assert (folder / "filenames_valid.txt").read_text() == "b\nc\n"
        back = read_asen(tmp_path, check_images=False)
        assert rows(back.valid.gallery) == rows(two)

    def test_a_writing_cut_off_anywhere_is_noticed(self, asen, monkeypatch):
        """Killed before any of its files, what lies there is refused or is the old set."""
        import agman.datasets.asen as module

        data = read_asen(asen)
        swapped = RetrievalData("shop", data.schema, data.train, data.test, data.valid)
        real = module.write_text
        for allowed in range(9):
            write_asen(data, asen)
            left = [allowed]

            def stop(path, text, left=left, real=real):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                real(path, text)

            with monkeypatch.context() as patch:
                patch.setattr(module, "write_text", stop)
                patch.setattr(module, "write_json", lambda p, d, s=stop: s(p, json.dumps(d)))
                with pytest.raises(KeyboardInterrupt):
                    write_asen(swapped, asen)
            with pytest.raises(InputError):
                read_asen(asen)
        write_asen(swapped, asen)
        assert rows(read_asen(asen).valid.queries) == rows(data.test.queries)

    @pytest.mark.parametrize("name", ["", "a\nb", "a\r", "\ufeffa", "\ud800"])
    def test_names_that_cannot_stand_on_a_line(self, tmp_path, name):
        table = table_of(SHOP, FolderImages(tmp_path, [name]), [(0, 0, 0)])
        data = RetrievalData(
            "shop", SHOP, table, QueryGallery(table, table), QueryGallery(table, table)
        )
        refuses("cannot stand on a line", write_asen, data, tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["", "..", "a/b", "/etc"])
    def test_data_set_names_that_are_no_folder(self, tmp_path, name):
        table = table_of(SHOP, FolderImages(tmp_path, ["a"]), [(0, 0, 0)])
        data = RetrievalData(
            name, SHOP, table, QueryGallery(table, table), QueryGallery(table, table)
        )
        refuses("cannot be a folder", write_asen, data, tmp_path)


# --- CSN ---------------------------------------------------------------------------------------


@pytest.fixture
def csn(tmp_path: Path) -> Path:
    names = [f"Shoes/Flats/x/{i}.{i}.jpg" for i in range(9)]
    touch(tmp_path / "ut-zap50k-images", *names)
    (tmp_path / "filenames.json").write_text("\n".join(names) + "\n")
    (tmp_path / "tripletlists").mkdir()
    for a, name in enumerate(("class", "closure", "gender", "heel")):
        for split, n in (("train", 6), ("val", 2), ("test", 3)):
            text = "".join(f"{a} {4 + i % 5} {i % 4}\n" for i in range(n))
            (tmp_path / "tripletlists" / f"{name}_tripletlist_{split}.txt").write_text(text)
    return tmp_path


class TestCsn:
    def test_far_comes_second_in_the_file_and_last_here(self, csn):
        triplets = read_csn(csn)
        assert triplets.schema.names == ("class", "closure", "gender", "heel")
        # file: anchor 1, far 6, close 2 on the third line of the second attribute
        assert triplets.train[6 + 2].tolist() == [1, 1, 2, 6]
        assert [len(part) for part in (triplets.train, triplets.valid, triplets.test)] == [
            24,
            8,
            12,
        ]
        assert triplets.images.path(3).name == "3.3.jpg"

    def test_limits_draw_without_repeats_and_repeatably(self, csn):
        every = read_csn(csn)
        some = read_csn(csn, limits={"train": 7, "test": 100}, seed=3)
        assert len(some.train) == 7
        assert not Counter(map(tuple, some.train)) - Counter(map(tuple, every.train))
        assert np.array_equal(some.test, every.test)
        assert np.array_equal(some.train, read_csn(csn, limits={"train": 7}, seed=3).train)
        assert not np.array_equal(some.train, read_csn(csn, limits={"train": 7}, seed=4).train)
        assert len(read_csn(csn, limits=RELEASED_LIMITS).train) == 24

    def test_lists_beside_filenames_and_absent_split(self, csn):
        for path in (csn / "tripletlists").iterdir():
            path.rename(csn / path.name)
        (csn / "tripletlists").rmdir()
        for path in csn.glob("*_val.txt"):
            path.unlink()
        triplets = read_csn(csn)
        assert (triplets.valid.shape, triplets.test.shape) == ((0, 4), (12, 4))

    def test_faults(self, csn):
        lists = csn / "tripletlists"
        path = lists / "gender_tripletlist_test.txt"
        good = path.read_text()
        path.write_text("0 1 2\n0 9 1\n")
        refuses(f"{path}, line 2: image 9 is not among the 9", read_csn, csn)
        path.write_text("0 1\n")
        refuses(f"{path}, line 1: expected three whole numbers", read_csn, csn)
        path.unlink()
        refuses(f"{path}: the file is missing beside its like", read_csn, csn)
        path.write_text(good)
        refuses("not for 'val'", read_csn, csn, limits={"val": 3})
        refuses("at least 0, not -1", read_csn, csn, limits={"train": -1})
        (csn / "ut-zap50k-images" / "Shoes/Flats/x/4.4.jpg").unlink()
        refuses("line 5: there is no image", read_csn, csn)
        assert len(read_csn(csn, check_images=False).train) == 24
        for file in lists.iterdir():
            file.unlink()
        refuses("there are no triplet lists", read_csn, csn, check_images=False)
        (csn / "filenames.json").unlink()
        refuses("filenames.json: cannot be read", read_csn, csn)


# --- Splits ------------------------------------------------------------------------------------


def labelled(names: list[str], seed: int = 0) -> AttributeTable:
    """A table in which about four images in five have a color and half a length."""
    rng = np.random.default_rng(seed)
    store = PackedImages(np.zeros((len(names), 1, 1, 3), np.uint8), names)
    triples = [(i, 0, int(rng.integers(3))) for i in range(len(names)) if rng.random() < 0.8]
    triples += [(i, 1, int(rng.integers(2))) for i in range(len(names)) if rng.random() < 0.5]
    return table_of(SHOP, store, triples)


EXPECTED = [
    [0, 2, 3, 5, 6, 7, 9, 13, 15, 17],
    [1],
    [8, 10],
    [19],
    [4, 11, 12, 14, 16, 18],
]


def parts(data: RetrievalData) -> list[AttributeTable]:
    return [
        data.train,
        data.valid.queries,
        data.valid.gallery,
        data.test.queries,
        data.test.gallery,
    ]


class TestSplit:
    @SETTINGS
    @given(n=st.integers(20, 200), seed=st.integers(0, 5))
    def test_every_row_once_every_image_in_one_part(self, n, seed):
        table = labelled([f"{i}.jpg" for i in range(n)], seed)
        data = split_by_image(table, seed=seed)
        assert Counter(row for part in parts(data) for row in rows(part)) == Counter(rows(table))
        owners = [set(part.image.tolist()) for part in parts(data)]
        assert sum(map(len, owners)) == len(set().union(*owners)) == len(set(table.image.tolist()))
        assert all(owners)

    def test_shares(self):
        table = labelled([f"{i}.jpg" for i in range(1000)])
        used = len(np.unique(table.image))
        sizes = [len(np.unique(part.image)) for part in parts(split_by_image(table))]
        expected = [0.5, 0.17 * 0.2, 0.17 * 0.8, 0.33 * 0.2, 0.33 * 0.8]
        assert np.allclose(np.array(sizes) / used, expected, atol=0.002)

    def test_depends_on_names_and_seed_only(self):
        names = [f"{i}.jpg" for i in range(60)]
        table = labelled(names)
        shuffled = table.select(np.random.default_rng(1).permutation(len(table)))
        first = [set(rows(part)) for part in parts(split_by_image(table))]
        assert [set(rows(part)) for part in parts(split_by_image(shuffled))] == first
        assert [set(rows(part)) for part in parts(split_by_image(table, seed=1))] != first

    def test_is_the_very_same_on_every_machine(self):
        names = [f"{i}.jpg" for i in range(20)]
        store = PackedImages(np.zeros((20, 1, 1, 3), np.uint8), names)
        data = split_by_image(table_of(SHOP, store, [(i, 0, 0) for i in range(20)]))
        assert [sorted(part.image.tolist()) for part in parts(data)] == EXPECTED

    @SETTINGS
    @given(n_groups=st.integers(12, 40), seed=st.integers(0, 5))
    def test_groups_stay_whole(self, n_groups, seed):
        names = [f"{i}.jpg" for i in range(200)]
        groups = np.random.default_rng(seed).integers(n_groups, size=200)
        data = split_by_image(labelled(names), seed=seed, groups=groups)
        train, valid, test = (
            {int(groups[i]) for part in some for i in part.image}
            for some in (parts(data)[:1], parts(data)[1:3], parts(data)[3:])
        )
        assert len(train | valid | test) == len(train) + len(valid) + len(test)
        assert 0.3 < len(np.unique(data.train.image)) / 200 < 0.7

    def test_no_validation(self):
        table = labelled([f"{i}.jpg" for i in range(40)])
        data = split_by_image(table, fractions=(0.5, 0, 0.5))
        assert len(data.valid.queries) == len(data.valid.gallery) == 0
        assert len(data.train) + len(data.test.queries) + len(data.test.gallery) == len(table)
        data = split_by_image(table, fractions=(1, 0, 0))
        assert len(data.train) == len(table)

    @pytest.mark.parametrize("n", [*range(10), *range(12, 30)])
    def test_small_tables_split_or_say_so(self, n):
        store = PackedImages(np.zeros((n, 1, 1, 3), np.uint8), [str(i) for i in range(n)])
        table = table_of(SHOP, store, [(i, 0, 0) for i in range(n)])
        if n < 10:
            with pytest.raises(InputError, match=f"{n} labelled images are too few .* label more"):
                split_by_image(table)
        else:
            assert all(len(part) for part in parts(split_by_image(table)))

    @pytest.mark.parametrize(
        ("kwargs", "said"),
        [
            ({"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
            ({"fractions": (0.5, 0.5)}, "add up to 1"),
            ({"fractions": (1.5, -0.5, 0)}, "add up to 1"),
            ({"fractions": (0, 0.5, 0.5)}, "add up to 1"),
            ({"fractions": (float("nan"), 0.5, 0.5)}, "add up to 1"),
            ({"query_share": 0}, "between 0 and 1"),
            ({"query_share": 1}, "between 0 and 1"),
            ({"groups": [1, 2]}, "2 groups were given for 40 images"),
            ({"groups": [1] * 40}, "1 labelled groups are too few"),
        ],
    )
    def test_refuses(self, kwargs, said):
        with pytest.raises(InputError, match=said):
            split_by_image(labelled([f"{i}.jpg" for i in range(40)]), **kwargs)


# --- Real files --------------------------------------------------------------------------------


def counts_in_readme(readme: Path) -> dict[str, dict[str, int]]:
    """The tables 'attribute | values | images' of a README; a count table may end in '...'."""
    found = {}
    for line in readme.read_text().splitlines():
        if match := re.fullmatch(r"\| (\w+)[^|]* \| \d+ \| (.*) \|", line):
            cells = match[2].replace("most: ", "").removesuffix(" ...")
            pairs = [re.fullmatch(r"(.+) (\d+)", cell) for cell in cells.split(", ")]
            found[match[1]] = {pair[1]: int(pair[2]) for pair in pairs if pair}
    return found


class TestRealFiles:
    @pytest.mark.parametrize(("name", "n"), [("product-photos-224", 3448), ("clothing-cc0", 1511)])
    def test_catalogue_counts_equal_the_readme(self, realdata, name, n):
        table = read_csv(realdata / name / "labels.csv")
        assert len(table.images) == n
        expected = counts_in_readme(realdata / name / "README.md")
        assert set(expected) == set(table.schema.names)
        for values, count, attribute in zip(
            table.schema.values, table.counts(), table.schema.names
        ):
            assert expected[attribute].items() <= dict(zip(values, count.tolist())).items()

    def test_fashionai_test_split(self, realdata):
        data = read_asen(realdata / "fashionai-split", schema=FASHIONAI, check_images=False)
        queries, gallery = data.test.queries, data.test.gallery
        assert len(data.train) == len(data.valid.queries) == 0
        assert [len(queries.of(a)) for a in range(8)] == [422, 623, 535, 422, 341, 289, 703, 265]
        assert [len(gallery.of(a)) for a in range(8)] == [
            1703,
            2383,
            2088,
            1722,
            1401,
            1269,
            2734,
            1100,
        ]
        with (realdata / "fashionai-split" / "label_test.csv").open() as file:
            letters = [(line[1].removesuffix("_labels"), line[2]) for line in csv.reader(file)]
        for table in (queries, gallery):
            for i, a, v in zip(table.image, table.attribute, table.value):
                assert letters[i][0] == FASHIONAI.names[a]
                assert letters[i][1][v] == "y"
