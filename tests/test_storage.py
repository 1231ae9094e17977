import os

import pytest
import torch

from agman import storage
from agman.errors import InputError
from agman.storage import read_json, read_tensors, replacing, write_json, write_tensors, write_text


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"x": 1})

    def fail():
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(file) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_and_a_file_in_the_way_are_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "file", "x")
    with pytest.raises(InputError, match="could not be written"):
        write_text(tmp_path / "file" / "below.txt", "y")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"No space left.*nothing was changed"):
        write_text(tmp_path / "b.txt", "y")
    assert os.listdir(tmp_path) == ["file"]


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.ones((), dtype=torch.int64)}
    write_tensors(tmp_path / "w.safetensors", tensors, {"model": "x", "n": [1, 2]})
    got, metadata = read_tensors(tmp_path / "w.safetensors")
    assert metadata == {"model": "x", "n": [1, 2]}
    assert all(torch.equal(got[k], tensors[k]) for k in tensors)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 7, b"\xff" * 64, b"{}" * 40])
def test_damaged_weights_are_refused(tmp_path, damage):
    file = tmp_path / "w.safetensors"
    file.write_bytes(damage)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_tensors(file)


def test_a_truncated_weights_file_is_refused(tmp_path):
    file = tmp_path / "w.safetensors"
    write_tensors(file, {"a": torch.zeros(100)}, {})
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"w\.safetensors"):
        read_tensors(file)
    with pytest.raises(InputError, match="no weights file"):
        read_tensors(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{\n1", "line 2: not JSON"), (b'"\xff"', "UTF-8"), (None, "There is no file")],
)
def test_json_errors_name_the_file(tmp_path, content, message):
    file = tmp_path / "x.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(file)


@pytest.mark.parametrize("locks", ["none", "refused"])
def test_where_files_cannot_be_locked_work_goes_on(tmp_path, monkeypatch, locks):
    """On Windows, and on network drives without locks."""

    class Refusing:
        LOCK_EX = LOCK_NB = 0

        def flock(*_):
            raise OSError(37, "No locks available")

    monkeypatch.setattr(storage, "fcntl", None if locks == "none" else Refusing)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".a.json.1.part").write_text("half")
    with storage.alone_in(tmp_path / "run"):
        assert os.listdir(tmp_path / "run") == []
        write_json(tmp_path / "run" / "a.json", {})
    assert read_json(tmp_path / "run" / "a.json") == {}
