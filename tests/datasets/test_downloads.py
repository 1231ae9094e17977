"""Downloads from a server on this machine that misbehaves in every way a real one may."""

import hashlib
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from agman.datasets import downloads
from agman.datasets.downloads import download
from agman.errors import InputError

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
SUM = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server does; a test changes it, also between two requests."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True  # else a Range header is ignored
    careless: bool = False  # an If-Range header is ignored
    stops: list[int] = field(default_factory=list)  # bytes sent before each cut, one a request
    answers: list[int] = field(default_factory=list)  # HTTP codes instead of the file
    kind: str = "application/zip"
    declared: int | None = None  # a wrong Content-Length
    shift: int = 0  # a wrong start of the partial answer
    chunked: bool = False
    pause: float = 0.0
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request
    sent: int = 0
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        site: Site = self.server.site
        self.close_connection = True
        if self.path in site.moved:
            self.send_response(302)
            self.send_header("Location", site.moved[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        site.asked.append(self.headers["Range"])
        if site.answers:
            self.send_error(site.answers.pop(0))
            return
        start, body = 0, site.content
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        condition = self.headers["If-Range"]
        weak = (condition or "").startswith("W/")  # never a match, says RFC 9110
        same = site.careless or (condition in (None, site.etag, site.modified) and not weak)
        if asked and site.ranges and same:
            start = int(asked[1])
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            first = start + site.shift
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            body = body[first:]
        else:
            self.send_response(200)
        for name, value in (("ETag", site.etag), ("Last-Modified", site.modified)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Type", site.kind)
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(site.declared or len(body)))
        self.end_headers()
        body = body[: site.stops.pop(0)] if site.stops else body
        whole = len(body) == len(site.content) - start
        for i in range(0, len(body), 100_000):
            piece = body[i : i + 100_000]
            site.sent += len(piece)  # before the client can have them, or it may look too soon
            try:
                head = b"%x\r\n" % len(piece) if site.chunked else b""
                self.wfile.write(head + piece + (b"\r\n" if site.chunked else b""))
            except OSError:  # the client was killed
                return
            time.sleep(site.pause)
        if site.chunked and whole:
            self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = Site(address=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "some.zip"


def get(site, path, **options):
    return download(f"{site.address}/some.zip", path, **{"progress": False} | options)


def refused(site, path, **options):
    """The one sentence of a download that fails; the file is not there afterwards."""
    with pytest.raises(InputError) as caught:
        get(site, path, **options)
    assert not path.exists()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def alone(path):
    """Whether nothing but the file is left."""
    return [p.name for p in path.parent.iterdir()] == [path.name]


# ------------------------------------------------------------------ what a right server gives


def test_the_file_comes_whole_and_says_so_beforehand(site, path, capsys):
    assert get(site, path, sha256=SUM.upper(), size=len(CONTENT), progress=True) == path
    assert path.read_bytes() == CONTENT
    assert alone(path)
    line = capsys.readouterr().out
    assert line.startswith(f"Downloading {site.address}/some.zip (3.0 MB) to {path}; ")
    assert line.rstrip().endswith("are free.")


def test_a_file_that_is_there_is_not_asked_for(site, path):
    get(site, path)
    before = path.stat().st_mtime_ns
    get(site, path, sha256=SUM, size=len(CONTENT))
    assert path.stat().st_mtime_ns == before
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 5}, "has 3,000,000 bytes instead of 5; delete it"),
        ({"sha256": "0" * 64}, f"has the checksum {SUM} instead of {'0' * 64}; delete it"),
    ],
)
def test_a_wrong_file_that_is_there_is_left_and_named(site, path, options, words):
    get(site, path)
    with pytest.raises(InputError) as caught:
        get(site, path, **options)
    assert words in str(caught.value)
    assert path.read_bytes() == CONTENT


def test_an_empty_file(site, path):
    site.content = b""
    assert get(site, path).read_bytes() == b""
    assert alone(path)


def test_a_redirect_is_followed_but_not_out_of_http(site, path):
    site.moved = {"/some.zip": "/else.zip"}
    assert get(site, path).read_bytes() == CONTENT
    path.unlink()
    for target in ("file:///etc/hostname", "ftp://127.0.0.1/x"):
        site.moved = {"/some.zip": target}
        refused(site, path)


def test_no_announced_length(site, path):
    site.chunked = True
    assert get(site, path).read_bytes() == CONTENT
    path.unlink()
    site.stops = [1_500_000]
    assert get(site, path).read_bytes() == CONTENT


# ------------------------------------------------------------------ cut and resumed


def test_a_cut_connection_is_resumed_in_the_same_call(site, path, capsys):
    site.stops = [1_234_567, 7, 0]
    get(site, path, sha256=SUM, progress=True)
    assert path.read_bytes() == CONTENT
    assert alone(path)
    assert site.asked == [None, "bytes=1234567-", "bytes=1234574-", "bytes=1234574-"]
    assert site.sent == len(CONTENT)
    out = capsys.readouterr().out
    assert "the connection was cut after 1,234,567 of 3,000,000 bytes; trying again in" in out
    assert "(3.0 MB, going on after 1.2 MB)" in out


def test_a_later_call_asks_only_for_the_rest(site, path, monkeypatch):
    site.stops = [1_000_000, 0, 0, 0, 0]
    message = refused(site, path)
    assert "the connection was cut after 1,000,000 of 3,000,000 bytes, 5 times in a row" in message
    part = path.with_name("some.zip.part")
    assert part.read_bytes() == CONTENT[:1_000_000]
    get(site, path)
    assert site.asked[-1] == "bytes=1000000-"
    assert site.sent == len(CONTENT)
    assert path.read_bytes() == CONTENT


def test_killed_in_the_middle_and_resumed_by_another_process(site, path):
    site.pause = 0.01
    code = (
        "import sys; from agman.datasets.downloads import download; "
        "download(sys.argv[1], sys.argv[2], progress=False)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, f"{site.address}/some.zip", str(path)])
    part = path.with_name("some.zip.part")
    for _ in range(2000):
        if part.exists() and part.stat().st_size > 0:
            break
        time.sleep(0.01)
    child.kill()
    child.wait()
    there = part.stat().st_size
    assert 0 < there < len(CONTENT)
    assert part.read_bytes() == CONTENT[:there]
    assert not path.exists()
    site.pause = 0
    get(site, path, sha256=SUM)
    assert site.asked == [None, f"bytes={there}-"]
    assert alone(path)


def test_many_cuts_are_outlasted_as_long_as_something_comes(site, path, monkeypatch):
    monkeypatch.setattr(downloads, "_BLOCK", 1000)
    site.content = CONTENT[:20_000]
    site.stops = [1500] * 13
    assert get(site, path).read_bytes() == CONTENT[:20_000]


def test_a_killed_run_that_had_everything_asks_for_nothing(site, path):
    site.stops = [0] * 5
    refused(site, path)
    asked = len(site.asked)
    path.with_name("some.zip.part").write_bytes(CONTENT)
    assert get(site, path, sha256=SUM).read_bytes() == CONTENT
    assert len(site.asked) == asked


def test_a_whole_part_of_another_address_is_not_taken(site, path):
    site.stops = [0] * 5
    refused(site, path)
    path.with_name("some.zip.part").write_bytes(bytes(len(CONTENT)))
    assert download(f"{site.address}/b", path, progress=False).read_bytes() == CONTENT


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.parametrize("other", ["etag", "modified", "length", "url"])
def test_another_version_is_started_again(site, path, other, careless):
    """Nothing of the old version is left, also where the server ignores If-Range."""
    site.careless = careless
    site.modified = "Mon, 01 Jan 2024 00:00:00 GMT"
    site.stops = [1_000_000, 0, 0, 0, 0]
    refused(site, path)
    new = bytes(len(CONTENT))
    if other == "etag":
        site.etag = '"two"'
    elif other == "modified":
        site.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
    elif other == "length":
        new += b"1"
    site.content = new
    address = f"{site.address}/{'other' if other == 'url' else 'some'}.zip"
    assert download(address, path, progress=False).read_bytes() == new


def test_a_version_that_cannot_be_recognised_is_started_again(site, path):
    site.etag = None
    site.stops = [1_000_000]
    assert get(site, path).read_bytes() == CONTENT
    assert site.asked == [None, None]


def test_a_weak_etag_is_compared_but_not_sent(site, path):
    site.etag = 'W/"one"'
    site.stops = [1_000_000]
    assert get(site, path).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=1000000-"]
    assert site.sent == len(CONTENT)


def test_a_server_without_ranges_starts_again(site, path):
    site.ranges = False
    site.stops = [1_000_000, 2_000_000]
    assert get(site, path).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=1000000-", "bytes=2000000-"]
    assert site.sent == len(CONTENT) + 3_000_000


def test_a_wrong_part_is_not_appended(site, path):
    site.stops = [1_000_000]
    site.shift = 3
    assert get(site, path, sha256=SUM).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=1000000-", None]


def test_a_file_that_became_shorter(site, path):
    site.stops = [1_000_000, 0, 0, 0, 0]
    refused(site, path)
    site.content = CONTENT[:500]
    assert get(site, path).read_bytes() == CONTENT[:500]


# ------------------------------------------------------------------ what cannot be mended


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_missing_or_forbidden_file(site, path, code):
    site.answers = [code]
    message = refused(site, path)
    assert f"the server answers {code} (" in message
    assert f"put the file at {path} by hand" in message
    assert len(site.asked) == 1


def test_a_busy_server_is_asked_again(site, path):
    site.answers = [500, 503, 429]
    assert get(site, path).read_bytes() == CONTENT
    path.unlink()
    site.answers = [500] * 5
    assert "the server answers 500 (Internal Server Error), 5 times in a row" in refused(site, path)
    assert site.answers == []


def test_the_pauses_grow(site, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(downloads.time, "sleep", pauses.append)
    monkeypatch.setattr(downloads, "PAUSE", 1.0)
    site.answers = [503] * 5
    refused(site, path)
    assert pauses == [1, 2, 4, 8]


def test_hosts_that_are_gone(path, monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    gone = Site(address="http://127.0.0.1:9")
    message = refused(gone, path)
    assert "its host refuses connections, 5 times in a row" in message
    assert f"or put the file at {path} by hand" in message
    assert "its host was not found" in refused(Site(address="http://nowhere.invalid"), path)


def test_a_server_that_does_not_answer(site, path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.05)
    site.pause = 0.3
    assert "no answer within 0.05 seconds" in refused(site, path)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text/html; charset=utf-8", b"sign in"),
        ("application/zip", b"\n <!DOCTYPE html><title>x"),
        ("application/octet-stream", b"<HTML><body>"),
    ],
)
def test_a_web_page_instead_of_the_file(site, path, kind, content):
    site.kind, site.content = kind, content
    message = refused(site, path)
    assert "a web page came instead of the file" in message
    assert f"put the file at {path} by hand" in message
    assert not list(path.parent.iterdir())


def test_a_web_page_that_was_asked_for(site, path):
    site.kind, site.content = "text/html", b"<html>"
    assert get(site, path.with_suffix(".html")).read_bytes() == b"<html>"


def test_another_size_is_refused_before_it_comes(site, path):
    message = refused(site, path, size=5)
    assert "offers 3,000,000 bytes instead of 5" in message
    assert not list(path.parent.iterdir())


def test_a_size_known_only_at_the_end(site, path):
    site.chunked = True
    assert "what came has 3,000,000 bytes instead of 5" in refused(site, path, size=5)
    assert not list(path.parent.iterdir())


def test_a_wrong_checksum(site, path):
    message = refused(site, path, sha256="0" * 64)
    assert f"the checksum {SUM} instead of {'0' * 64}, and was deleted" in message
    assert f"put the right file at {path} by hand" in message
    assert not list(path.parent.iterdir())


def test_a_length_that_is_a_lie(site, path):
    site.declared = 4_000_000
    assert "the connection was cut after 3,000,000 of 4,000,000 bytes" in refused(site, path)
    site.declared = 2_000_000
    path.with_name("some.zip.part").unlink()
    message = refused(site, path, sha256=SUM)
    assert "the checksum" in message


def test_a_disk_too_small_is_noticed_beforehand(site, path, monkeypatch):
    monkeypatch.setattr("agman.datasets.prepared.free_bytes", lambda _: 1_000_000)
    message = refused(site, path)
    assert "needs 3.0 MB and 1.0 MB are free" in message
    assert not list(path.parent.iterdir())


def test_a_disk_that_is_full_keeps_what_came(site, path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, block):
            if self.file.tell() > 2_000_000:
                raise OSError(28, "No space left on device")
            return self.file.write(block[:700_000])  # a short write, as raw files may

    opened = type(path).open

    def part_only(self, *args, **options):
        file = opened(self, *args, **options)
        return Full(file) if args[:1] == ("ab",) else file

    monkeypatch.setattr(type(path), "open", part_only)
    message = refused(site, path)
    assert "could not be written (No space left on device)" in message
    assert len(site.asked) == 1
    monkeypatch.undo()
    there = path.with_name("some.zip.part").stat().st_size
    assert there > 2_000_000
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    assert get(site, path, sha256=SUM).read_bytes() == CONTENT
    assert site.asked[-1] == f"bytes={there}-"


def test_a_folder_in_the_way(site, path):
    path.mkdir(parents=True)
    with pytest.raises(InputError, match="could not be written"):
        get(site, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "some.zip",
        "ftp://127.0.0.1/some.zip",
        "file:///etc/hostname",
        "http://",
        "http:///some.zip",
        "http://127.0.0.1:port/some.zip",
        "http://127.0.0.1/a b.zip",
        "http://127.0.0.1/a\nb.zip",
        f"http://{'a' * 70}.org/",
        "http://[1/",
    ],
)
def test_what_is_no_address(path, url):
    with pytest.raises(InputError, match=r"is no address that starts with http:// or https://"):
        download(url, path)
    assert not path.parent.exists()
