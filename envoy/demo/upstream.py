"""The application behind Envoy: echoes each request as JSON, and writes one log line for each.

`python envoy/demo/upstream.py SOCKET` listens on a Unix socket until SIGTERM.
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
    """Echoes method, path and headers. `headers` is a list of pairs to show repeated headers."""

    protocol_version = "HTTP/1.1"

    def echo(self) -> None:
        """Respond 200 with the request as JSON."""
        self.rfile.read(min(int(self.headers.get("content-length") or 0), _MAX_BODY_BYTES))
        path = self.requestline.split(" ")[1]  # `self.path` lacks repeated slashes
        seen = {"method": self.command, "path": path, "headers": list(self.headers.items())}
        body = json.dumps(seen, indent=2).encode() + b"\n"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = echo  # noqa: N815 names required by the base class

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 name required by the base class
        """Write one line per request to stdout, without a client address, which Unix sockets do not have."""
        sys.stdout.write(f"{format % args}\n")
        sys.stdout.flush()


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Uses one thread per connection."""

    daemon_threads = True


def main(arguments: list[str]) -> int:
    """Serve on the socket that is given on the command line."""
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
