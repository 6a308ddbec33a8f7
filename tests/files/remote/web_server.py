"""A web server on the loopback that answers as a test wants, and writes down what it was asked."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Asked:
    """A request, and how many bytes of a body were sent for it."""

    method: str
    path: str
    wanted: tuple[int, int] | None
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Served:
    """What a server gives: bytes or a file by each path, and faults.

    `faults` are answered one request each, before all else: a status; "cut", which sends half of
    the body; "short", which sends a byte less and says so; "hang", which sends nothing. `moved` has
    where paths lead, and `refused` the status of those that are never given.
    """

    files: dict[str, bytes | Path] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = '"1"'
    faults: list[int | str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    listing: bool = False
    length: bool = True
    asked: list[Asked] = field(default_factory=list)
    on_request: object = None
    url: str = ""

    @property
    def bodies(self) -> int:
        """Bytes that were sent."""
        return sum(each.sent for each in self.asked)


@contextmanager
def web_server(**options):
    served = Served(**options)
    released = threading.Event()
    handler = type("Handler", (_Handler,), {"served": served, "released": released})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Nothing: who asks may go at any time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served
    released: threading.Event

    def log_message(self, format, *args):  # noqa: A002
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        served = self.served
        path = self.path.partition("?")[0]
        fits = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        wanted = (int(fits[1]), int(fits[2]) + 1) if fits else None
        asked = Asked(self.command, self.path, wanted, dict(self.headers))
        served.asked.append(asked)
        if served.on_request:
            served.on_request(asked)
        fault = served.faults.pop(0) if served.faults else None
        if isinstance(fault, int):
            return self._status(asked, fault)
        if fault == "hang":
            self.released.wait(30)
            self.close_connection = True
            return None
        if path in served.refused:
            return self._status(asked, served.refused[path])
        if path in served.moved:
            return self._status(asked, 302, {"Location": served.moved[path]})
        if path not in served.files:
            if served.listing and path.endswith("/"):
                return self._listing(asked, path)
            return self._status(asked, 404)
        return self._file(asked, served.files[path], wanted, fault)

    def _listing(self, asked, folder):
        names = [name for name in self.served.files if name.startswith(folder)]
        page = "".join(f'<a href="{name}">{name}</a>' for name in names).encode()
        self._head(asked, 200, {"Content-Type": "text/html", "Content-Length": len(page)})
        self._send(asked, page)

    def _status(self, asked, status, headers=()):
        self._head(asked, status, {"Content-Length": 0, **dict(headers)})

    def _file(self, asked, content, wanted, fault):
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        headers = {} if self.served.etag is None else {"ETag": self.served.etag}
        start, stop, status = 0, size, 200
        if self.served.ranges and wanted:
            start, stop, status = wanted[0], min(wanted[1], size), 206
            if start >= size:
                return self._status(asked, 416, {"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        count = stop - start - (fault == "short")
        if self.served.length:
            headers["Content-Length"] = count
        else:
            headers["Connection"] = "close"
        self._head(asked, status, headers)
        if fault == "cut":
            count //= 2
            self.close_connection = True
        if isinstance(content, Path):
            with content.open("rb") as file:
                file.seek(start)
                while count:
                    piece = file.read(min(count, 1 << 20))
                    self._send(asked, piece)
                    count -= len(piece)
        else:
            self._send(asked, content[start : start + count])
        return None

    def _head(self, asked, status, headers):
        asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def _send(self, asked, data):
        if self.command != "HEAD":
            try:
                self.wfile.write(data)
                asked.sent += len(data)
            except OSError:  # who asked has gone
                self.close_connection = True
