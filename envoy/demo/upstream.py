"""The shop behind Envoy: answers each request with what reached it, as JSON, and writes a line for each.

`python envoy/demo/upstream.py SOCKET` listens on a Unix socket until it is told to stop.
"""

from __future__ import annotations

import json
import signal
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

_MAX_BODY_BYTES = 1 << 20


class EchoHandler(BaseHTTPRequestHandler):
    """Echoes method, path and headers; `headers` is a list of pairs, so that repeats stay visible."""

    protocol_version = "HTTP/1.1"

    def echo(self) -> None:
        """Answer 200 with the request."""
        self.rfile.read(min(int(self.headers.get("content-length") or 0), _MAX_BODY_BYTES))
        path = self.requestline.split(" ")[1]  # `self.path` has lost repeated slashes
        seen = {"method": self.command, "path": path, "headers": list(self.headers.items())}
        body = json.dumps(seen, indent=2).encode() + b"\n"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = echo  # noqa: N815 the base class looks for these

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class names it so
        """One line a request, to stdout; a Unix socket has no client address to show."""
        sys.stdout.write(f"{format % args}\n")
        sys.stdout.flush()


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """One thread a connection."""

    daemon_threads = True


def main(arguments: list[str]) -> int:
    """Serve on the socket that is named on the command line."""
    if len(arguments) != 1:
        sys.stderr.write("usage: upstream.py SOCKET\n")
        return 2
    Path(arguments[0]).unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with UnixServer(arguments[0], EchoHandler) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
