"""A SPIFFE Workload API on a Unix socket that speaks the real protocol, gives what a test says, and misbehaves on demand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from zta_authz._proto.workload_pb2 import X509SVID, JWTBundlesResponse, X509BundlesResponse, X509SVIDResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from cryptography import x509

    from tests.support.pki import PrivateKey

METHODS = ("FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles")


def der(*certificates: x509.Certificate) -> bytes:
    """The certificates in DER, one after the other."""
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def pkcs8(key: PrivateKey) -> bytes:
    """The private key in DER."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def svid_response(spiffe_id: str, key: PrivateKey, *chain: x509.Certificate) -> bytes:
    """An answer to FetchX509SVID with one SVID."""
    svid = X509SVID(spiffe_id=spiffe_id, x509_svid=der(*chain), x509_svid_key=pkcs8(key), bundle=der(chain[-1]))
    return X509SVIDResponse(svids=[svid]).SerializeToString()


def bundles_response(bundles: Mapping[str, bytes]) -> bytes:
    """An answer to FetchX509Bundles."""
    return X509BundlesResponse(bundles=bundles).SerializeToString()


def jwt_response(bundles: Mapping[str, bytes]) -> bytes:
    """An answer to FetchJWTBundles."""
    return JWTBundlesResponse(bundles=bundles).SerializeToString()


class FakeWorkloadApi:
    """Serves `socket` once started. `calls` counts the streams that were opened, by method."""

    def __init__(self, socket: Path) -> None:
        self.address = f"unix:{socket}"
        self.calls = dict.fromkeys(METHODS, 0)
        self._socket = socket
        self._answers: dict[str, bytes | grpc.StatusCode] = dict.fromkeys(METHODS, grpc.StatusCode.PERMISSION_DENIED)
        self._changed = {method: asyncio.Event() for method in METHODS}
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> FakeWorkloadApi:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, as an agent does after a restart."""
        self._socket.unlink(missing_ok=True)
        server = self._server = grpc.aio.server()
        handlers = {method: grpc.unary_stream_rpc_method_handler(self._handler(method)) for method in METHODS}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", handlers),))
        server.add_insecure_port(self.address)
        await server.start()

    async def stop(self) -> None:
        """Be gone, as an agent that dies: streams break, nobody listens."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    def say(self, method: str, answer: bytes | grpc.StatusCode) -> None:
        """From now on answer `method` with these bytes, at once on streams that are open; or end it with a status."""
        self._answers[method] = answer
        changed, self._changed[method] = self._changed[method], asyncio.Event()
        changed.set()

    def _handler(self, method: str) -> Any:
        async def stream(_request: bytes, context: Any) -> AsyncIterator[bytes]:  # gRPC asks for a generator function
            async for answer in self._stream(method, context):
                yield answer

        return stream

    async def _stream(self, method: str, context: Any) -> AsyncIterator[bytes]:
        self.calls[method] += 1
        if ("workload.spiffe.io", "true") not in tuple(context.invocation_metadata()):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        while True:
            changed, answer = self._changed[method], self._answers[method]
            if isinstance(answer, grpc.StatusCode):
                await context.abort(answer, "no identity issued")
            else:
                yield answer
            await changed.wait()
