"""Stands in for zta-authz: keeps the bytes of every Check call, waits if told to, and allows.

`python tests/e2e/recorder.py SOCKET DIRECTORY [SECONDS]` serves until it is told to stop. It allows everything, so it
is for tests only.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # it ships no types

SERVICE = "envoy.service.auth.v3.Authorization"
ALLOW = b"\x0a\x00\x1a\x00"  # CheckResponse: `status` 1 with code 0, `ok_response` 3, both empty


def check_handler(directory: Path, seconds: float) -> grpc.GenericRpcHandler:
    """Answers Check after `seconds`, each request's bytes in `directory` as 0000.bin, 0001.bin, ..."""
    numbers = itertools.count()

    def check(request: bytes, _context: grpc.ServicerContext) -> bytes:
        (directory / f"{next(numbers):04}.bin").write_bytes(request)
        time.sleep(seconds)
        return ALLOW

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(check)
    return grpc.method_handlers_generic_handler(SERVICE, {"Check": method})


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM."""
    socket, directory = arguments[0], Path(arguments[1])
    seconds = float(arguments[2]) if len(arguments) > 2 else 0.0
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((check_handler(directory, seconds),))
    health_service = health.HealthServicer()
    health_service.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    server.add_insecure_port(f"unix:{socket}")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    stop.wait()
    server.stop(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
