"""Unpacking zip and tar archives that somebody else made.

Nothing is written before the whole list of members has been looked at, and nothing ever lands
outside the folder: paths that escape, links, device files, passwords and sizes beyond a bound are
refused. Each file appears complete or not at all, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from agman.errors import InputError
from agman.storage import replacing

MAX_BYTES = 64 * 2**30
"""Most bytes an archive may unpack to, unless the caller says otherwise."""

MAX_MEMBERS = 1_000_000
"""Most members an archive may list."""

_BLOCK = 1 << 20
_TAIL = 1 << 16
_LONGEST = 255  # bytes in the name of a file, on any usual disk
_TEXT_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True)
class _Member:
    """A regular file of an archive: its cleaned path, its declared size, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    progress: bool = True,
) -> int:
    """Unpack a zip or tar archive (also gzip, bzip2, xz) into a folder.

    Files that are there with the declared size are left alone. Times, owners and permissions of
    the archive are not taken over, and folders without files are not made.

    Args:
        archive: the archive; its first bytes say of which kind it is, not its name.
        folder: where the files go; made if need be.
        max_bytes: most bytes that all files together may have, by declaration and as written.
        max_members: most members, folders included.
        progress: show a progress bar.

    Returns:
        How many files were written.

    Raises:
        InputError: the archive is missing, damaged, encrypted or too large, a member is no plain
            file inside the folder, or a file cannot be written. What was unpacked before stays.
    """
    from tqdm.auto import tqdm  # slow to import, and only this function needs it

    archive, folder = Path(archive), Path(folder)
    with _opened(archive, max_bytes, max_members) as members:
        wanted = [member for member in members if not _is_there(folder / member.name, member.size)]
        total = sum(member.size for member in wanted)
        left = max_bytes
        with tqdm(
            total=total,
            desc=f"unpacking {archive.name}",
            unit="B",
            unit_scale=True,
            disable=not progress or not wanted,
        ) as bar:
            for member in wanted:
                with replacing(folder / member.name) as temporary:
                    left -= _copy(archive, member, temporary, left)
                bar.update(member.size)
    return len(wanted)


def list_files(
    archive: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
) -> dict[str, int]:
    """Path and declared size of every file of an archive, after the checks of `unpack`.

    Raises:
        InputError: see `unpack`.
    """
    with _opened(Path(archive), max_bytes, max_members) as members:
        return {member.name: member.size for member in members}


@contextmanager
def _opened(archive: Path, max_bytes: int, max_members: int) -> Iterator[list[_Member]]:
    """The checked members; they can be opened as long as the block lasts."""
    if not os.path.isfile(archive):
        raise InputError(f"{archive}: there is no such archive; check the path.")
    with _reading(archive):
        with archive.open("rb") as file:
            zipped = file.read(2) == b"PK"
        source: Any = zipfile.ZipFile(archive) if zipped else _open_tar(archive)
    with closing(source):
        with _reading(archive):
            found = _zip_members(archive, source) if zipped else _tar_members(archive, source)
            members = _bounded(archive, found, max_bytes, max_members)
        yield members


@contextmanager
def _reading(archive: Path, member: str | None = None) -> Iterator[None]:
    """Turn whatever a foreign file makes the standard library raise into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zip, tar, zlib, lzma, struct and OS errors alike
        where = f"{archive}, member {member!r}" if member else f"{archive}"
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")
        raise InputError(
            f"{where}: damaged, cut short or no zip or tar archive ({words}); download it again."
        ) from error


def _zip_members(archive: Path, source: zipfile.ZipFile) -> Iterator[_Member | None]:
    for info in source.infolist():
        name = _checked_name(archive, info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _not_plain(archive, info.filename)
        if info.is_dir():
            yield None
            continue
        if info.flag_bits & 0x1:
            raise InputError(
                f"{archive}, member {info.filename!r}: encrypted; unpack the archive by hand with "
                "its password."
            )
        yield _Member(name, info.file_size, functools.partial(source.open, info))


class _Header(tarfile.TarInfo):
    """Refuses the headers that `tarfile` would read into memory whole, if they are huge."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _TEXT_HEADERS and header.size > _TAIL:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:  # has a list of any length behind it
            raise tarfile.ReadError("a file with holes")
        return header

    def _proc_gnusparse_10(self, *_: object) -> None:
        """The newer form of the same."""
        raise tarfile.ReadError("a file with holes")


def _open_tar(archive: Path) -> tarfile.TarFile:
    return tarfile.open(archive, tarinfo=_Header)


def _tar_members(archive: Path, source: tarfile.TarFile) -> Iterator[_Member | None]:
    for info in source:
        name = _checked_name(archive, info.name)
        if info.isdir():
            yield None
            continue
        if not info.isreg():
            raise _not_plain(archive, info.name)
        yield _Member(name, info.size, functools.partial(_open_in_tar, source, info))
    _require_end(source)


def _require_end(source: tarfile.TarFile) -> None:
    """A tar ends in a block of zeros, which `tarfile` does not miss when it was cut off.

    Reading the usual rest also makes gzip and xz compare their checksums.
    """
    if source.fileobj is None:
        raise tarfile.ReadError("closed")
    source.fileobj.seek(source.offset)
    if not source.fileobj.read(_TAIL).startswith(bytes(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("no end mark")


def _open_in_tar(source: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = source.extractfile(info)
    if file is None:
        raise tarfile.ReadError("no content")
    return file


def _not_plain(archive: Path, name: str) -> InputError:
    return InputError(
        f"{archive}, member {name!r}: a link or device, not a plain file; do not use this archive."
    )


def _checked_name(archive: Path, name: str) -> str:
    """A member's path with forward slashes, certain to stay inside the folder."""
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    outside = path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", path)
    unusable = any(ord(letter) < 32 for letter in path) or any(
        len(os.fsencode(part)) > _LONGEST for part in parts
    )
    if outside or unusable:
        raise InputError(
            f"{archive}, member {name!r}: its path leaves the folder or cannot be a file name; do "
            "not use this archive."
        )
    return "/".join(parts)


def _bounded(
    archive: Path, members: Iterable[_Member | None], max_bytes: int, max_members: int
) -> list[_Member]:
    """The files among the members; stops at the first that breaks a bound."""
    files: dict[str, _Member] = {}
    total = 0
    for count, member in enumerate(members, start=1):
        if count > max_members:
            raise InputError(
                f"{archive}: more than {max_members:,} members; do not use this archive, or raise "
                "max_members."
            )
        if member is None:
            continue
        if not member.name or member.name in files:
            raise InputError(
                f"{archive}, member {member.name!r}: stands twice or has no name; download the "
                "archive again."
            )
        total += member.size
        if total > max_bytes:
            raise InputError(
                f"{archive}, member {member.name!r}: the files up to here declare {total:,} bytes, "
                f"more than the {max_bytes:,} allowed; do not use this archive, or raise max_bytes."
            )
        files[member.name] = member
    return list(files.values())


def _is_there(path: Path, size: int) -> bool:
    return os.path.isfile(path) and path.stat().st_size == size


def _copy(archive: Path, member: _Member, target: Path, left: int) -> int:
    """Write one member; how many bytes it had."""
    written = 0
    with _reading(archive, member.name):
        source = member.open()
    with closing(source), target.open("wb") as file:
        while True:
            with _reading(archive, member.name):
                block = source.read(_BLOCK)
            if not block:
                break
            written += len(block)
            if written > min(member.size, left):
                raise InputError(
                    f"{archive}, member {member.name!r}: larger than it declares "
                    f"({member.size:,} bytes); do not use this archive."
                )
            file.write(block)
    if written != member.size:
        raise InputError(
            f"{archive}, member {member.name!r}: {written:,} bytes where {member.size:,} were "
            "declared; download the archive again."
        )
    return written
