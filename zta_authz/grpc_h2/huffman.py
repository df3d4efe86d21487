"""Huffman-coded strings of HPACK (RFC 7541, section 5.2 and appendix B), read byte by byte.

The code is a binary tree of 256 inner nodes. What one byte does at one node (where it leads, which symbols it
completes) is worked out when it is first met and kept: at most 256 x 256 steps in a process, in practice a few hundred.
A string that turns out longer than its reader takes is not read to its end.
"""

from __future__ import annotations

from typing import Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode

_EOS: Final = 256
MOST_CODED: Final = 4
"""A coded string has fewer bytes than that many times the string's: the longest code has 30 bits."""
_PART_BYTES: Final = 256
"""What is read between two looks at the length."""
_Node = list[int]  # [child at 0, child at 1]: an inner node's number, or ~symbol


def _build() -> tuple[list[_Node], frozenset[int]]:
    """The tree, and the nodes where a string may end: less than 8 bits of padding, all ones."""
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
"""By node and byte: the next node, and the symbols on the way."""


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
    made = _STEPS[begin][byte] = (at, bytes(symbols))
    return made


def _malformed() -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a malformed Huffman string")


def decode(data: bytes, limit: int) -> bytes | None:
    """The string; None if it has more than `limit` bytes, and its rest was not looked at.

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
