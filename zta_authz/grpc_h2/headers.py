"""Header blocks: gathered from HEADERS and CONTINUATION, decoded, and judged.

Proxies send the same block with every call. While the dynamic table stays as it is, an equal block means equal fields,
so the head that was made of it is kept and used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode, Status
from zta_authz.grpc_h2.hpack import Decoder
from zta_authz.grpc_h2.request import PROTOCOL_NAMES, Failed, Head, head_of

if TYPE_CHECKING:
    from collections.abc import Container

    from zta_authz.grpc_h2.bounds import Bounds
    from zta_authz.grpc_h2.hpack import Field

_UNKNOWN: Final = Failed(Status.UNIMPLEMENTED, "Method not found!")
_KEPT_HEADS: Final = 16
_KEPT_BLOCK_BYTES: Final = 2048
_SMALLEST_FRAME_BYTES: Final = 4096
"""A block may take as many frames of that size as it needs, besides those that it may take in any case."""


class HeaderReader:
    """One connection's header blocks. `since` is when the block that is being gathered began, None while none is."""

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
        """`served` are the paths of methods that there are; None: their owner knows."""
        self._bounds = bounds
        self._served = served
        self._decoder = Decoder(bounds.header_table_bytes, bounds.max_header_list_bytes, PROTOCOL_NAMES)
        self._heads: dict[bytes, Head] = {}
        self._parts = bytearray()
        self._frames = 0
        self.stream = self.flags = 0
        self.since: float | None = None

    @property
    def pending_bytes(self) -> int:
        """What came of a block that is not whole yet."""
        return len(self._parts)

    def begin(self, stream: int, flags: int, fragment: bytes, now: float) -> None:
        """Keep the first fragment of a block that CONTINUATION frames go on with, and the HEADERS frame's flags."""
        self.stream, self.flags, self.since = stream, flags, now
        self._parts = bytearray(fragment)
        self._frames = 0
        self._check()

    def add(self, fragment: bytes) -> None:
        """Keep the next fragment. Raises `ConnectionFault` past a bound: without the rest, HPACK's state is lost."""
        self._parts += fragment
        self._frames += 1
        self._check()

    def _check(self) -> None:
        if self._frames > self._bounds.max_continuation_frames + len(self._parts) // _SMALLEST_FRAME_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        if len(self._parts) > self._bounds.max_header_block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too large")

    def end(self) -> bytes:
        """The whole block."""
        block = bytes(self._parts)
        self._parts.clear()
        self.since = None
        return block

    def fields(self, block: bytes) -> list[Field]:
        """The block's fields, without those past a bound. Raises `ConnectionFault` for a malformed or costly block."""
        before = self._decoder.version
        fields = self._decoder.decode(block)
        if self._decoder.version != before:
            self._heads.clear()
        return fields

    def head(self, block: bytes) -> Head:
        """The call that the block begins. Raises as `fields`, and `StreamFault` for a malformed request."""
        short = len(block) <= _KEPT_BLOCK_BYTES
        known = self._heads.get(block) if short else None
        if known is not None:
            return known
        before = self._decoder.version
        head = head_of(self.fields(block))
        if self._served is not None and head.refusal is None and head.path not in self._served:
            head = Head(head.path, content_length=head.content_length, refusal=_UNKNOWN)
        if short and self._decoder.version == before:
            if len(self._heads) >= _KEPT_HEADS:
                self._heads.clear()
            self._heads[block] = head
        return head


class UnreadHeaders:
    """Stands in for a `HeaderReader` once the peer may not ask: whatever its blocks say, the call has failed.

    Nothing is decoded, so HPACK's state is lost: there is no way back.
    """

    __slots__ = ("_head",)

    def __init__(self, failed: Failed) -> None:
        self._head = Head("", refusal=failed)

    def head(self, _block: bytes) -> Head:
        """A call that has failed."""
        return self._head

    def fields(self, _block: bytes) -> list[Field]:
        """No fields: trailers that say nothing."""
        return []
