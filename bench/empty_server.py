"""The baseline: a `grpc.aio` server whose Check handler returns a constant.

Usage: `python -m bench.empty_server SOCKET`. It uses the event loop and raw bytes like the service, so the difference
is the cost of the decision.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import uvloop

from zta_authz._proto.ext_authz_pb2 import CheckResponse


async def serve(socket: str) -> None:
    message = CheckResponse()
    message.status.SetInParent()
    message.ok_response.SetInParent()
    answer = message.SerializeToString()

    async def check(_payload: bytes, _context: Any) -> bytes:
        return answer

    handlers: dict[str, Any] = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", handlers),)
    )
    server.add_insecure_port(f"unix:{socket}")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
