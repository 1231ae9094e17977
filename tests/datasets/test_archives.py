import io
import os
import tarfile
import zipfile

import pytest

from agman import storage
from agman.datasets import archives
from agman.datasets.archives import list_files, unpack
from agman.errors import InputError

FILES = {"top/a.jpg": b"a" * 3000, "top/deep/b.jpg": bytes(range(256)) * 20, "c.txt": b""}


def zipped(path, files=FILES, **info):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("top/empty")
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(entry, key, value)
            archive.writestr(entry, content)
    return path


def tarred(path, files=FILES, mode="w:gz", **info):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for key, value in info.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(content))
    return path


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(params=["zip", "tar", "tar.gz", "tar.xz"])
def archive(request, tmp_path):
    path = tmp_path / f"some.{request.param}"
    if request.param == "zip":
        return zipped(path)
    return tarred(path, mode={"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[request.param])


def test_everything_comes_out(archive, tmp_path):
    out = tmp_path / "out"
    assert unpack(archive, out, progress=False) == 3
    assert contents(out) == FILES
    assert list_files(archive) == {name: len(content) for name, content in FILES.items()}


def test_folders_that_a_tar_names_are_no_files(tmp_path):
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("photos", "photos/empty"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        info = tarfile.TarInfo("photos/a.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    unpack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {"photos/a.txt": b"abc"}


def test_the_name_of_the_archive_does_not_matter(archive, tmp_path):
    other = archive.rename(tmp_path / "download")
    assert unpack(other, tmp_path / "out", progress=False) == 3


def test_a_second_time_changes_nothing_and_a_wrong_size_is_made_again(archive, tmp_path):
    out = tmp_path / "out"
    unpack(archive, out, progress=False)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert unpack(archive, out, progress=False) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    (out / "top/a.jpg").write_bytes(b"a" * 2999)
    (out / "c.txt").unlink()
    assert unpack(archive, out, progress=False) == 2
    assert contents(out) == FILES


def test_an_interrupted_run_goes_on_and_leaves_no_half_file(archive, tmp_path, monkeypatch):
    out = tmp_path / "out"
    copy, done = archives._copy, []

    def killed(*words):
        if done:
            words[2].write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(1)
        return copy(*words)

    monkeypatch.setattr(archives, "_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, out, progress=False)
    assert contents(out) == {"top/a.jpg": FILES["top/a.jpg"]}
    monkeypatch.undo()
    assert unpack(archive, out, progress=False) == 2
    assert contents(out) == FILES


def test_a_full_disk_is_said_in_one_sentence(archive, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "replace", full)
    with pytest.raises(InputError, match=r"a\.jpg could not be written \(No space left"):
        unpack(archive, tmp_path / "out", progress=False)
    assert contents(tmp_path / "out") == {}


ESCAPES = [
    "../out.jpg",
    "top/../../out.jpg",
    "/etc/out.jpg",
    "..\\out.jpg",
    "C:\\out.jpg",
    "C:out.jpg",
    "a\nb.jpg",
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_path_that_escapes_is_refused_before_anything_is_written(make, name, tmp_path):
    path = make(tmp_path / "x", {"good.jpg": b"1", name: b"2"})
    with pytest.raises(InputError, match="its path leaves the folder") as caught:
        unpack(path, tmp_path / "deep" / "out", progress=False)
    assert str(path) in str(caught.value)
    assert repr(name) in str(caught.value)
    assert set(os.listdir(tmp_path)) == {"x"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(kind, tmp_path):
    path = tarred(tmp_path / "x.tar", {"link": b""}, "w", type=kind, linkname="/etc/passwd")
    with pytest.raises(InputError, match="member 'link': a link or device"):
        unpack(path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [0o120777, 0o020666, 0o010666])
def test_links_and_devices_in_a_zip_are_refused(kind, tmp_path):
    path = zipped(tmp_path / "x.zip", {"link": b"/etc/passwd"}, external_attr=kind << 16)
    with pytest.raises(InputError, match="member 'link': a link or device"):
        unpack(path, tmp_path / "out", progress=False)


def test_a_bomb_is_refused_by_what_it_declares(archive, tmp_path):
    size = sum(map(len, FILES.values()))
    with pytest.raises(InputError, match=rf"deep/b\.jpg.*declare {size:,} bytes"):
        unpack(archive, tmp_path / "out", max_bytes=size - 1, progress=False)
    assert not (tmp_path / "out").exists()
    assert unpack(archive, tmp_path / "out", max_bytes=size, progress=False) == 3


def test_too_many_members_are_refused(archive, tmp_path):
    with pytest.raises(InputError, match="more than 2 members"):
        unpack(archive, tmp_path / "out", max_members=2, progress=False)


def test_a_zip_that_holds_more_than_it_declares_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", {"bomb": b"0" * 100_000})
    data = path.read_bytes()
    assert data.count((100_000).to_bytes(4, "little")) == 2
    path.write_bytes(data.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(InputError, match="member 'bomb'"):
        unpack(path, tmp_path / "out", max_bytes=50, progress=False)
    assert contents(tmp_path / "out") == {}


def test_the_bytes_written_are_bounded_whatever_a_reader_gives(tmp_path):
    endless = archives._Member("bomb", 10, lambda: io.BytesIO(b"0" * 100_000))
    with pytest.raises(InputError, match="larger than it declares"):
        archives._copy(tmp_path / "x.zip", endless, tmp_path / "y", 10**9)
    assert (tmp_path / "y").stat().st_size == 0


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("before", [{}, {"a.jpg": b"1"}])
def test_a_tar_header_that_would_fill_the_memory_is_refused(kind, before, tmp_path):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in before.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo("huge")
        entry.type, entry.size = kind, 200_000
        archive.addfile(entry, io.BytesIO(bytes(200_000)))
    with pytest.raises(InputError, match=r"a header of 200,000 bytes|could not be opened"):
        unpack(path, tmp_path / "out", progress=False)


def test_long_names_are_no_matter(tmp_path):
    name = "/".join(["long" * 20] * 8)
    path = tarred(tmp_path / "x.tar.gz", {name: b"1"})
    assert unpack(path, tmp_path / "out", progress=False) == 1
    assert contents(tmp_path / "out") == {name: b"1"}


def test_an_encrypted_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", {"secret.jpg": b"1" * 50})
    data = bytearray(path.read_bytes())
    local, central = data.index(b"PK\x03\x04", 4), data.rindex(b"PK\x01\x02")
    data[local + 6] |= 1
    data[central + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.zip, member 'secret\.jpg': encrypted"):
        unpack(path, tmp_path / "out", progress=False)


def test_two_members_of_one_name_are_refused(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    with pytest.raises(InputError, match="'a': stands twice"):
        unpack(path, tmp_path / "out", progress=False)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.97])
def test_a_truncated_archive_never_passes(archive, share, tmp_path):
    data = archive.read_bytes()
    # All that a plain tar needs: headers, contents in blocks of 512, and one block of zeros.
    end = 3 * 512 + 3072 + 5120 + 512 if archive.suffix == ".tar" else len(data)
    archive.write_bytes(data[: int(end * share)])
    with pytest.raises(InputError) as caught:
        unpack(archive, tmp_path / "out", progress=False)
    assert str(archive) in str(caught.value)
    written = contents(tmp_path / "out")
    assert all(FILES[name] == content for name, content in written.items())


def test_a_flipped_byte_in_a_zip_names_the_member(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.jpg": os.urandom(5000)})
    data = bytearray(path.read_bytes())
    data[2500] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"member 'a\.jpg': damaged"):
        unpack(path, tmp_path / "out", progress=False)
    assert contents(tmp_path / "out") == {}


def test_other_files_are_no_archives(tmp_path):
    with pytest.raises(InputError, match="there is no such archive"):
        unpack(tmp_path / "none.zip", tmp_path, progress=False)
    (tmp_path / "page.zip").write_text("<html>Please sign in</html>")
    with pytest.raises(InputError, match="no zip or tar archive"):
        unpack(tmp_path / "page.zip", tmp_path, progress=False)
