"""A collector of spans (OTLP over HTTP) that dies and returns on the same port."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Collector:
    """Running from the start; `toggle` ends it, and starts it again."""

    def __init__(self) -> None:
        self.received = 0
        self.deaths = 0
        first = self._start(0)
        self._port = first.server_port
        self._server: ThreadingHTTPServer | None = first

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _start(self, port: int) -> ThreadingHTTPServer:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", "0")))
                collector.received += 1
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
                """Silence."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def toggle(self) -> None:
        if self._server is None:
            self._server = self._start(self._port)
        else:
            self.stop()
            self.deaths += 1

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
