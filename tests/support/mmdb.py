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
