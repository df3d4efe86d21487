"""Writes small databases in MaxMind DB format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_mmdb(
    path: Path, records: Mapping[str, Mapping[str, Any]], *, built_at: float | None = None, ip_version: int = 6
) -> Path:
    """A database of `records` by network; `built_at` is its build epoch, now by default."""
    writer = MMDBWriter(ip_version=ip_version, database_type="Test", ipv4_compatible=ip_version == 6)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), dict(record))
    writer.to_db_file(str(path))
    if built_at is not None:
        _stamp(path, round(built_at))
    return path


def _stamp(path: Path, epoch: int) -> None:
    """Write another build epoch over the one in the metadata, a 64-bit number behind its name."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"build_epoch") + len(b"build_epoch")
    size = data[at] & 0x1F
    assert data[at + 1] == 2, "an unsigned 64-bit number"
    data[at + 2 : at + 2 + size] = epoch.to_bytes(size, "big")
    path.write_bytes(data)


def nested_mmdb(width: int, depth: int) -> bytes:
    """A small database for IPv4 with one record: lists of `width` pointers to the same list, `depth` times nested.

    Read naively, it has `width ** depth` elements. Source: MaxMind DB File Format Specification, version 2.0.
    """
    data, last = _text("x"), 0
    for _ in range(depth):
        data, last = data + _sized(11, width) + b"".join([_pointer(last)] * width), len(data)
    root = len(data)
    data += _sized(7, 2) + _text("country") + _text("DE") + _text("x") + _pointer(last)
    tree = (1 + 16 + root).to_bytes(3, "big") * 2
    numbers = {"binary_format_major_version": (5, 2), "build_epoch": (9, 1_800_000_000), "ip_version": (5, 4)}
    numbers |= {"node_count": (6, 1), "record_size": (5, 24), "binary_format_minor_version": (5, 0)}
    fields = [_text(name) + _number(*value) for name, value in numbers.items()]
    fields += [
        _text("database_type") + _text("T"),
        _text("languages") + _sized(11, 0),
        _text("description") + _sized(7, 0),
    ]
    metadata = _sized(7, len(fields)) + b"".join(fields)
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + metadata


def _sized(kind: int, size: int) -> bytes:
    """The control bytes of a value with a size up to 284."""
    short, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return (bytes([kind << 5 | short]) if kind < 8 else bytes([short, kind - 7])) + more


def _text(text: str) -> bytes:
    return _sized(2, len(text)) + text.encode()


def _number(kind: int, value: int) -> bytes:
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return _sized(kind, len(digits)) + digits


def _pointer(offset: int) -> bytes:
    return b"\x38" + offset.to_bytes(4, "big")
