"""Header blocks: assembled from HEADERS and CONTINUATION frames, decoded and checked.

Proxies send the same block with every call. While the dynamic table does not change, an equal block means equal fields,
so parsed heads are cached by their block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.bounded_cache import BoundedCache
from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode, Status
from zta_authz.grpc_h2.hpack import Decoder
from zta_authz.grpc_h2.request import PROTOCOL_NAMES, GrpcFailure, Head, parse_head

if TYPE_CHECKING:
    from collections.abc import Container

    from zta_authz.grpc_h2.bounds import Bounds
    from zta_authz.grpc_h2.hpack import Field

_UNKNOWN: Final = GrpcFailure(Status.UNIMPLEMENTED, "Method not found!")
_CACHED_HEADS: Final = 16
_CACHED_BLOCK_BYTES: Final = 2048
_SMALLEST_FRAME_BYTES: Final = 4096
"""A block may use one frame for each so many bytes, in addition to `max_continuation_frames`."""


class HeaderReader:
    """One connection's header blocks. `since` is when the incomplete block began, None if there is none."""

    __slots__ = (
        "_bounds",
        "_decoder",
        "_frames",
        "_heads",
        "_parts",
        "_served",
        "flags",
        "since",
        "stream",
    )

    def __init__(self, bounds: Bounds, served: Container[str] | None = None) -> None:
        """`served` are the paths of the known methods; with None, the owner checks the path."""
        self._bounds = bounds
        self._served = served
        self._decoder = Decoder(bounds.header_table_bytes, bounds.max_header_list_bytes, PROTOCOL_NAMES)
        self._heads: BoundedCache[bytes, Head] = BoundedCache(_CACHED_HEADS)
        self._parts = bytearray()
        self._frames = 0
        self.stream = self.flags = 0
        self.since: float | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes of the incomplete block."""
        return len(self._parts)

    def begin(self, stream: int, flags: int, fragment: bytes, now: float) -> None:
        """Keep the first fragment of a block that CONTINUATION frames continue, and the flags of its HEADERS frame."""
        self.stream, self.flags, self.since = stream, flags, now
        self._parts = bytearray(fragment)
        self._frames = 0
        self._check()

    def add(self, fragment: bytes) -> None:
        """Keep the next fragment. Raises `ConnectionFault` above a limit: without the rest, HPACK's state is lost."""
        self._parts += fragment
        self._frames += 1
        self._check()

    def _check(self) -> None:
        if self._frames > self._bounds.max_continuation_frames + len(self._parts) // _SMALLEST_FRAME_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        if len(self._parts) > self._bounds.max_header_block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too large")

    def end(self) -> bytes:
        """Return the complete block."""
        block = bytes(self._parts)
        self._parts.clear()
        self.since = None
        return block

    def fields(self, block: bytes) -> list[Field]:
        """Decode the block, without fields above a limit. Raises `ConnectionFault` for a malformed or costly block."""
        before = self._decoder.version
        fields = self._decoder.decode(block)
        if self._decoder.version != before:
            self._heads.clear()
        return fields

    def head(self, block: bytes) -> Head:
        """Parse the block that begins a call. Raises as `fields`, and `StreamFault` for a malformed request."""
        short = len(block) <= _CACHED_BLOCK_BYTES
        cached = self._heads[block] if short else None
        if cached is not None:
            return cached
        before = self._decoder.version
        head = parse_head(self.fields(block))
        if self._served is not None and head.refusal is None and head.path not in self._served:
            head = Head(head.path, content_length=head.content_length, refusal=_UNKNOWN)
        if short and self._decoder.version == before:
            self._heads.put(block, head)
        return head


class UnreadHeaders:
    """Replaces a `HeaderReader` once the peer may not make calls: every new call fails.

    Nothing is decoded, so HPACK's state is lost: decoding can't resume.
    """

    __slots__ = ("_head",)

    def __init__(self, failure: GrpcFailure) -> None:
        self._head = Head("", refusal=failure)

    def head(self, _block: bytes) -> Head:
        """Return the head of a failed call."""
        return self._head

    def fields(self, _block: bytes) -> list[Field]:
        """Return no fields, as for empty trailers."""
        return []
