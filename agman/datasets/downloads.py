"""Downloading one file over HTTP: resumed where it was cut off, and in place only when whole.

What has come so far lies beside the target as `<name>.part`, with a note of the version it belongs
to (`<name>.part.json`); both are gone once the file is there. Download one file by one process at
a time.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from agman.datasets.prepared import free_bytes, gigabytes, refuse_full_disk
from agman.errors import InputError
from agman.storage import read_json, write_json

TIMEOUT = 60.0
"""Seconds without an answer or a byte before a connection is given up."""

TRIES = 5
"""Attempts in a row that bring next to nothing before `download` gives up."""

PAUSE = 1.0
"""Seconds before the second of these attempts; doubled before each further one."""

_BLOCK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP answers worth another attempt
_NETWORK = (OSError, http.client.HTTPException)  # what the disk refuses is an InputError by then


class _CutError(ConnectionError):
    """A connection that ended early, or an answer that does not fit what is there already."""


@dataclass(frozen=True)
class _Version:
    """What a server says of a file: if any of it changes, it is another file."""

    url: str
    etag: str | None
    modified: str | None
    length: int | None


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    size: int | None = None,
    progress: bool = True,
) -> Path:
    """Download a file, unless it is there already.

    An interrupted download goes on where it stopped, in the same call or in a later one, if the
    server still has the same version of the file; otherwise it starts again.

    Args:
        url: an http or https address.
        path: the file to make, folders included.
        sha256: checksum in hexadecimal that the file must have.
        size: bytes that it must have.
        progress: say what comes from where and how large it is, and show a progress bar.

    Returns:
        `path`.

    Raises:
        InputError: the address, host or disk makes it impossible, a web page comes instead of a
            file, or size or checksum differ; the message says how to go on.
    """
    path = Path(path)
    if not _is_address(url):
        raise InputError(f"{url!r} is no address that starts with http:// or https://; correct it.")
    if path.is_file():
        wrong = _difference(path, sha256, size, progress)
        if wrong:
            raise InputError(
                f"{path} has {wrong}; delete it to download it again from {url}, or put the right "
                "file there."
            )
        return path
    part, note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _fetch_with_patience(_Download(url, path, part, note, size, progress))
    wrong = _difference(part, sha256, size, progress)
    with _writing(path):
        note.unlink(missing_ok=True)
        if wrong:
            part.unlink()
            raise InputError(
                f"{url}: what came has {wrong}, and was deleted; run again, or put the right file "
                f"at {path} by hand."
            )
        os.replace(part, path)
    return path


def _is_address(url: str) -> bool:
    """Whether there is a host to ask; urllib would raise errors of many kinds later."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return bool(
            parts.scheme in ("http", "https")
            and host.encode("idna")
            and (parts.port or 80) > 0  # asking for a port that is no number raises
            and re.fullmatch(r"[!-~]+", url)
        )
    except ValueError:
        return False


@dataclass(frozen=True)
class _Download:
    """One download: from where, to where, and what is known beforehand."""

    url: str
    path: Path
    part: Path
    note: Path
    size: int | None
    progress: bool

    def bytes_there(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def _fetch_with_patience(job: _Download) -> None:
    """Fetch until the part is whole; give up after `TRIES` attempts that bring next to nothing."""
    most, failures = job.bytes_there(), 0
    while True:
        try:
            _fetch(job)
            return
        except _NETWORK as error:
            reason = _reason(error)
            if isinstance(error, urllib.error.HTTPError) and error.code not in {*_PASSING, 416}:
                raise InputError(
                    f"{job.url}: {reason}; find its new address, or put the file at {job.path} by "
                    "hand."
                ) from error
            failures += 1
            if job.bytes_there() >= most + _BLOCK:
                most, failures = job.bytes_there(), 1
            if failures >= TRIES:
                raise InputError(
                    f"{job.url}: {reason}, {TRIES} times in a row; check the connection and run "
                    f"again to go on, or put the file at {job.path} by hand."
                ) from error
            pause = PAUSE * 2 ** (failures - 1)
            if job.progress:
                print(f"{job.url}: {reason}; trying again in {pause:g} s")
            time.sleep(pause)


def _fetch(job: _Download) -> None:
    """One attempt: get what is missing of the part.

    Raises:
        OSError, http.client.HTTPException: of the network alone.
        InputError: no further attempt can help.
    """
    known = _noted(job)
    there = job.bytes_there() if known else 0
    if known and known.length == there:
        return
    with _answer(job, known, there) as response:
        version = _version(job.url, response)
        if response.status == 206:
            _refuse_other_rest(job, known, there, version, response)
        else:
            there = 0
        if job.size is not None and version.length not in (None, job.size):
            raise InputError(
                f"{job.url}: the server offers {version.length:,} bytes instead of {job.size:,}, "
                f"another version; put the right file at {job.path} by hand."
            )
        blocks = _blocks(response)
        first = next(blocks, b"")
        if not there:
            _refuse_page(job, response, first)
        _say(job, version, there)
        refuse_full_disk(job.path.parent, (version.length or 0) - there, f"downloading {job.url}")
        if not there:
            with _writing(job.part):
                job.part.write_bytes(b"")
            write_json(job.note, asdict(version))
        _append(job, itertools.chain([first], blocks), there, version.length)


def _noted(job: _Download) -> _Version | None:
    """The version that the part belongs to, if it can be recognised on the server again."""
    try:
        version = _Version(**read_json(job.note))
    except (InputError, TypeError):
        return None
    texts = (version.etag, version.modified)
    if not all(isinstance(text, str | None) for text in texts):
        return None
    recognisable = version.etag or version.modified
    return version if version.url == job.url and recognisable and job.part.exists() else None


@contextmanager
def _answer(job: _Download, known: _Version | None, there: int) -> Iterator[Any]:
    """The server's answer to a request for all, or for the rest."""
    headers = {"User-Agent": "agman", "Accept-Encoding": "identity"}
    if known and there:
        headers["Range"] = f"bytes={there}-"
        strong = known.etag if known.etag and not known.etag.startswith("W/") else None
        if strong or known.modified:
            headers["If-Range"] = str(strong or known.modified)
    opener = urllib.request.OpenerDirector()  # without the handlers for files and FTP
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    try:
        with opener.open(urllib.request.Request(job.url, headers=headers), timeout=TIMEOUT) as got:
            yield got
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is shorter now: start again
            _forget(job)
        raise


def _version(url: str, response: Any) -> _Version:
    headers = response.headers
    length = headers.get("Content-Length", "")
    if response.status == 206:
        length = _range(response)[1]
    return _Version(
        url,
        headers.get("ETag"),
        headers.get("Last-Modified"),
        int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None,
    )


def _range(response: Any) -> tuple[int, str]:
    """First byte and total length of a partial answer; -1 if it does not say."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)", text.strip())
    return (int(match[1]), match[2]) if match else (-1, "")


def _refuse_other_rest(
    job: _Download, known: _Version | None, there: int, version: _Version, response: Any
) -> None:
    """Forget the part if the server's rest is not the rest of it."""
    if known is None or version != known or _range(response)[0] != there:
        _forget(job)
        raise _CutError("the server sent another part than the one asked for")


def _forget(job: _Download) -> None:
    """Let the next attempt start from the beginning."""
    with _writing(job.note):
        job.note.unlink(missing_ok=True)


def _refuse_page(job: _Download, response: Any, first: bytes) -> None:
    """Refuse a notice or a sign-in page that comes in place of the file."""
    page = response.headers.get_content_type() == "text/html" or re.match(
        rb"\s*<(!doctype\s+html|html)", first[:1000], re.IGNORECASE
    )
    if page and job.path.suffix.lower() not in (".html", ".htm"):
        raise InputError(
            f"{job.url}: a web page came instead of the file, such as a notice or a sign-in; open "
            f"the address in a browser, and put the file at {job.path} by hand."
        )


def _say(job: _Download, version: _Version, there: int) -> None:
    if job.progress:
        size = "of unknown size" if version.length is None else gigabytes(version.length)
        begun = f", going on after {gigabytes(there)}" if there else ""
        free = gigabytes(free_bytes(job.path.parent))
        print(f"Downloading {job.url} ({size}{begun}) to {job.path}; {free} are free.")


def _append(job: _Download, blocks: Iterable[bytes], there: int, length: int | None) -> None:
    """Write what comes to the end of the part.

    Raises:
        _CutError: less came than was announced.
    """
    with _writing(job.part):
        file = job.part.open("ab", buffering=0)
    with (
        file,
        tqdm(
            total=length,
            initial=there,
            desc=job.path.name,
            unit="B",
            unit_scale=True,
            disable=not job.progress,
        ) as bar,
    ):
        for block in blocks:
            rest = memoryview(block)
            with _writing(job.part):
                while rest:  # unbuffered, so that a kill loses nothing
                    rest = rest[file.write(rest) :]
            there += len(block)
            bar.update(len(block))
    if length is not None and there != length:
        raise _CutError(f"the connection was cut after {there:,} of {length:,} bytes")


def _blocks(response: Any) -> Iterator[bytes]:
    """What comes, block by block; an early end raises, but loses nothing that came before it."""
    while True:
        try:
            block = response.read(_BLOCK)
        except http.client.IncompleteRead as error:
            if error.partial:
                yield error.partial
            raise
        if not block:
            return
        yield block


def _difference(path: Path, sha256: str | None, size: int | None, progress: bool) -> str:
    """How a file differs from what is wanted, in words; empty if it does not."""
    there = path.stat().st_size
    if size is not None and there != size:
        return f"{there:,} bytes instead of {size:,}"
    if sha256 is None:
        return ""
    digest = hashlib.sha256()
    with (
        path.open("rb") as file,
        tqdm(total=there, desc="checksum", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        while block := file.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    found = digest.hexdigest()
    return "" if found == sha256.lower() else f"the checksum {found} instead of {sha256.lower()}"


def _reason(error: BaseException) -> str:
    """What went wrong on the network, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} ({error.reason})"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, socket.gaierror):
        return "its host was not found"
    if isinstance(error, ConnectionRefusedError):
        return "its host refuses connections"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    if isinstance(error, _CutError):
        return str(error)
    words = (str(error).strip().splitlines() or [""])[0][:120].rstrip(".")
    return f"the connection failed ({words or type(error).__name__})"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an `InputError`; what has come so far stays."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} could not be written ({error.strerror or error}); free some space or choose "
            "a folder you may write to, and run again to go on."
        ) from error
