"""Serve this folder over HTTP while a command runs, and say what the command asked for.

    python examples/remote/serve.py bncli inspect-checkpoint http://localhost:8000/net.pt

Unlike `python -m http.server` it answers range requests, but not with `--no-ranges`. Any free port
is used, and what is printed says 8000, so that a guide shows the same numbers every time.
"""

import os
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE = "http://localhost:8000"
asked = []


class Handler(SimpleHTTPRequestHandler):
    """Gives files, and parts of them."""

    protocol_version = "HTTP/1.1"
    ranges = True

    def do_GET(self):
        """Answer a request."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        size, status = len(data), 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and self.ranges:
            first, last = int(wanted[1]), min(int(wanted[2]), size - 1)
            data, status = data[first : last + 1], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        asked.append(len(data))
        self.wfile.write(data)

    def log_message(self, *_):
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server in which nothing is an error."""

    def handle_error(self, *_):
        """Let go who does not listen to the end."""


def main(*command):
    """Serve while the command runs; its exit code."""
    if command[0] == "--no-ranges":
        Handler.ranges, command = False, command[1:]
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run(  # noqa: S603  # the command of who calls this
            [word.replace(BASE, here) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "80"},
        )
        server.shutdown()
    sys.stdout.write(done.stdout.replace(here, BASE))
    if done.returncode < 2:
        print(f"[requests: {len(asked)}, bytes: {sum(asked):,}]")  # noqa: T201  # its purpose
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
