"""Send the messages of a stream: one at a time, and only as fast as the client reads."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import grpc

from zta_authz.servers.grpcio.admitted_peers import shut_down

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

STALL_SECONDS: Final = 30.0
"""A client that reads nothing of a message for so long is cut off."""
_LOG = logging.getLogger(__name__)


async def send_all(
    messages: AsyncGenerator[bytes, None], context: Any, check: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Send all `messages` over the call of `context`, and call `check` before each one.

    gRPC holds one message that the client has not read, so a slow client costs no more memory. One that reads nothing
    for `STALL_SECONDS` loses its TCP connection. On a Unix socket the call ends when the client reads again or leaves.
    """
    async with aclosing(messages):
        async for message in messages:
            if check is not None:
                await check()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await context.write(message)
            except TimeoutError:
                _LOG.warning("a client of a stream does not read, and is cut off", extra={"peer": context.peer()})
                await asyncio.to_thread(shut_down, {context.peer()})
                with suppress(grpc.aio.InternalError):  # the connection is gone
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the messages were not read in time")
                return
