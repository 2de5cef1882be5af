"""Downloads against a server on this machine that breaks off in the middle."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tinylm.errors import UserError
from tinylm.system.download import CHUNK, fetch

CONTENT = bytes(range(256)) * 4000
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any path but /missing; the first `breaks` responses end half-way."""

    def __init__(self, breaks: int, ranges: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.ranges = breaks, ranges
        self.requested: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"


Start = Callable[..., Server]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:  # noqa: N802 - the base class calls it so
        requested = self.headers.get("Range")
        self.server.requested.append(requested)
        if self.path == "/missing":
            self.send_error(404)
            return
        start = (
            int(requested.removeprefix("bytes=").removesuffix("-")) if requested and self.server.ranges else 0
        )
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT)
        if len(self.server.requested) <= self.server.breaks:
            end = (start + len(CONTENT)) // 2
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    servers = []

    def start(breaks: int = 0, ranges: bool = True) -> Server:
        server = Server(breaks, ranges)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_resumes_where_the_connection_broke(serve: Start, tmp_path: Path) -> None:
    server = serve(breaks=1)
    path = fetch(server.url, CHECKSUM, "sub/file.bin")
    assert path == tmp_path / "sub" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert server.requested == [None, f"bytes={len(CONTENT) // 2 // CHUNK * CHUNK}-"]
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_resumes_in_a_later_call(serve: Start, tmp_path: Path) -> None:
    server = serve(breaks=3)
    with pytest.raises(UserError, match=r"file\.bin could not be downloaded.*put it at .*sub"):
        fetch(server.url, CHECKSUM, "sub/file.bin")
    assert not (tmp_path / "sub" / "file.bin").exists()
    assert fetch(server.url, CHECKSUM, "sub/file.bin").read_bytes() == CONTENT
    starts = [int(requested.strip("bytes=-")) for requested in server.requested if requested]
    assert len(CONTENT) / 3 < starts[0] < starts[1] < starts[2] < len(CONTENT)


def test_starts_again_without_ranges(serve: Start) -> None:
    assert fetch(serve(breaks=1, ranges=False).url, CHECKSUM, "file.bin").read_bytes() == CONTENT


def test_starts_again_behind_the_end(serve: Start, tmp_path: Path) -> None:
    (tmp_path / "file.bin.partial").write_bytes(CONTENT + b"more")
    assert fetch(serve().url, CHECKSUM, "file.bin").read_bytes() == CONTENT


def test_cached_file_needs_no_server(serve: Start) -> None:
    server = serve()
    path = fetch(server.url, CHECKSUM, "file.bin")
    assert fetch(server.url, CHECKSUM, "file.bin") == path
    assert fetch("http://127.0.0.1:9/file.bin", None, "file.bin") == path
    assert len(server.requested) == 1
    path.write_bytes(b"damaged")
    assert fetch(server.url, CHECKSUM, "file.bin").read_bytes() == CONTENT


def test_wrong_content_is_refused_and_not_kept(serve: Start, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"file\.bin could not be downloaded"):
        fetch(serve().url, "sha256:" + "0" * 64, "file.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/missing", "/missing"])
def test_no_server_and_no_file(serve: Start, url: str) -> None:
    if url.startswith("/"):
        url = serve().url.replace("/file.bin", url)
    with pytest.raises(UserError, match="missing could not be downloaded"):
        fetch(url, None, "missing")
