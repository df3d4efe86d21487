"""Writes small databases in MaxMind DB format."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import maxminddb
from mmdb_writer import MMDBWriter
from netaddr import IPSet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_mmdb(
    path: Path,
    records: Mapping[str, Mapping[str, Any]],
    *,
    built_at: float | None = None,
    ip_version: int = 6,
    record_size: int = 24,
) -> Path:
    """A database of `records` by network; `built_at` is its build epoch, now by default."""
    writer = MMDBWriter(ip_version=ip_version, database_type="Test", ipv4_compatible=ip_version == 6)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), dict(record))
    writer.to_db_file(str(path))
    if built_at is not None:
        _stamp(path, round(built_at))
    if record_size != 24:
        path.write_bytes(_with_record_size(path.read_bytes(), record_size))
    return path


def _with_record_size(content: bytes, bits: int) -> bytes:
    """The database with 28 or 32 bits for each record of its tree instead of 24."""
    name = b"record_size"
    at = content.rindex(name) + len(name) + 1
    content = content[:at] + bytes([bits]) + content[at + 1 :]
    nodes = maxminddb.open_database(io.BytesIO(content), maxminddb.MODE_FD).metadata().node_count
    tree = b""
    for place in range(0, nodes * 6, 6):
        left, right = content[place : place + 3], content[place + 3 : place + 6]
        tree += left + b"\0" + right if bits == 28 else b"\0" + left + b"\0" + right
    return tree + content[nodes * 6 :]


def _stamp(path: Path, epoch: int) -> None:
    """Write another build epoch over the one in the metadata, a 64-bit number behind its name."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"build_epoch") + len(b"build_epoch")
    size = data[at] & 0x1F
    assert data[at + 1] == 2, "an unsigned 64-bit number"
    data[at + 2 : at + 2 + size] = epoch.to_bytes(size, "big")
    path.write_bytes(data)


# --- by hand, for values that no writer writes ---


def database_of(data: bytes, root: int, **metadata: bytes) -> bytes:
    """A database for IPv4 with this data section, where every address has the record at `root`.

    `metadata` are values (encoded) instead of good ones.
    """
    tree = (1 + 16 + root).to_bytes(3, "big") * 2
    good = {
        "binary_format_major_version": number(5, 2), "binary_format_minor_version": number(5, 0), "ip_version": number(5, 4),
        "build_epoch": number(9, 1_800_000_000), "node_count": number(6, 1), "record_size": number(5, 24),
        "database_type": text("T"), "languages": sized(11, 0), "description": sized(7, 0),
    }  # fmt: skip
    fields = [text(name) + value for name, value in (good | metadata).items()]
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + sized(7, len(fields)) + b"".join(fields)


def nested_mmdb(width: int, depth: int) -> bytes:
    """A small database whose record has lists of `width` pointers to the same list, `depth` times nested.

    Read naively, it has `width ** depth` elements. Source: MaxMind DB File Format Specification, version 2.0.
    """
    data, last = text("x"), 0
    for _ in range(depth):
        data, last = data + sized(11, width) + pointer(last) * width, len(data)
    root = len(data)
    return database_of(data + sized(7, 2) + text("country") + text("DE") + text("x") + pointer(last), root)


def key_of(key: bytes) -> bytes:
    """A map with one member whose key is this value; its value is to follow."""
    return sized(7, 1) + key


def sized(kind: int, size: int) -> bytes:
    """The control bytes of a value with a size up to 284."""
    short, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return (bytes([kind << 5 | short]) if kind < 8 else bytes([short, kind - 7])) + more


def text(value: str) -> bytes:
    """A text of at most 284 bytes."""
    return sized(2, len(value)) + value.encode()


def number(kind: int, value: int) -> bytes:
    """An unsigned number of one of the types for them."""
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return sized(kind, len(digits)) + digits


def pointer(offset: int) -> bytes:
    """A pointer of 32 bits."""
    return b"\x38" + offset.to_bytes(4, "big")
