"""A decoder for HPACK's Huffman-coded strings (RFC 7541, section 5.2 and appendix B), byte by byte.

The code is a binary tree of 256 inner nodes. The effect of a byte at a node (the next node and the completed symbols)
is computed at its first use and cached: at most 256 x 256 steps in a process, in practice a few hundred. Decoding stops
early if the string exceeds the caller's limit.
"""

from __future__ import annotations

from typing import Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode

_EOS: Final = 256
MAX_EXPANSION: Final = 4
"""A coded string is shorter than this many times the decoded one: the longest code has 30 bits."""
_PART_BYTES: Final = 256
"""Bytes decoded between two checks of the length."""
_Node = list[int]  # [child for 0, child for 1]: an inner node's number, or ~symbol


def _build() -> tuple[list[_Node], frozenset[int]]:
    """Build the tree and the set of nodes where a string may end: after less than 8 bits of padding, all ones."""
    nodes: list[_Node] = [[0, 0]]
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        at = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if nodes[at][bit] == 0:
                nodes.append([0, 0])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][code & 1] = ~symbol
    ends, at = {0}, 0
    for _ in range(7):
        at = nodes[at][1]
        ends.add(at)
    return nodes, frozenset(ends)


_NODES, _ENDS = _build()
_STEPS: Final[list[list[tuple[int, bytes] | None]]] = [[None] * 256 for _ in _NODES]
"""The cache: by node and byte, the next node and the completed symbols."""


def _step(begin: int, byte: int) -> tuple[int, bytes]:
    at = begin
    symbols = bytearray()
    for shift in range(7, -1, -1):
        at = _NODES[at][byte >> shift & 1]
        if at < 0:
            if ~at == _EOS:
                raise _malformed()
            symbols.append(~at)
            at = 0
    step = _STEPS[begin][byte] = (at, bytes(symbols))
    return step


def _malformed() -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a malformed Huffman string")


def decode(data: bytes, limit: int) -> bytes | None:
    """Decode a string. Return None, without decoding the rest, if it has more than `limit` bytes.

    Raises `ConnectionFault` for an EOS symbol or wrong padding.
    """
    at, steps = 0, _STEPS
    decoded = bytearray()
    for begin in range(0, len(data), _PART_BYTES):
        pieces = []
        for byte in data[begin : begin + _PART_BYTES]:
            at, symbols = steps[at][byte] or _step(at, byte)
            pieces.append(symbols)
        decoded += b"".join(pieces)
        if len(decoded) > limit:
            return None
    if at not in _ENDS:
        raise _malformed()
    return bytes(decoded)
