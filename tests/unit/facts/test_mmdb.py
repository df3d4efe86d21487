"""The reader of MaxMind's format: each layout and type, damage of every kind, and bounds."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from random import Random
from typing import TYPE_CHECKING, Any

import maxminddb
import pytest

from tests.support.mmdb import database_of, key_of, nested_mmdb, number, pointer, sized, text, write_mmdb
from zta_authz.facts.mmdb import InvalidDatabaseError, Reader

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = ip_address("8.8.8.8")


def record(data: bytes, root: int = 0) -> Any:
    return Reader(database_of(data, root)).get(ADDRESS)


@pytest.mark.parametrize("record_size", [24, 28, 32])
@pytest.mark.parametrize("ip_version", [4, 6])
def test_it_reads_what_the_publisher_s_own_reader_reads(tmp_path: Path, record_size: int, ip_version: int) -> None:
    random = Random(f"{record_size} {ip_version}")
    bits = 32 if ip_version == 4 else 128
    records: dict[str, dict[str, Any]] = {}
    for n in range(300):
        size = random.choice((bits // 4, bits // 2, bits - 8, bits))
        network = ip_network((random.getrandbits(bits), size), strict=False)
        names = {language: f"{language} {n % 7}" * (n % 90) for language in ("en", "de")}
        records[str(network)] = {
            "country": {"iso_code": "DE", "names": names},
            "n": n,
            "list": [True, -n, 0.5, 2**63 + n],
        }
    path = write_mmdb(tmp_path / "a.mmdb", records, ip_version=ip_version, record_size=record_size)
    reader, other = Reader(path.read_bytes()), maxminddb.open_database(path, maxminddb.MODE_MEMORY)
    assert reader.metadata["record_size"] == record_size
    assert reader.build_epoch == other.metadata().build_epoch
    addresses = [ip_network(network).network_address for network in records]
    addresses += [ip_address(random.getrandbits(32)) for _ in range(300)]
    if ip_version == 6:
        addresses += [ip_network((random.getrandbits(128), 128)).network_address for _ in range(300)]
    for address in addresses:
        assert reader.get(address) == other.get(address), address


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (text("x"), "x"), (text("x" * 28), "x" * 28), (text("x" * 284), "x" * 284), (sized(7, 0), {}), (sized(11, 0), []),
        (key_of(text("a")) + number(6, 7), {"a": 7}), (number(5, 65535), 65535), (number(9, 2**64 - 1), 2**64 - 1),
        (number(10, 2**128 - 1), 2**128 - 1), (number(6, 0), 0), (sized(14, 1), True), (sized(14, 0), False), (sized(4, 2) + b"ab", b"ab"),
        (sized(8, 4) + struct.pack(">i", -5), -5), (sized(8, 1) + b"\xff", 255), (sized(3, 8) + struct.pack(">d", 0.25), 0.25),
        (sized(15, 4) + struct.pack(">f", 0.5), 0.5),
    ],
)  # fmt: skip
def test_a_value_of_each_type(data: bytes, value: object) -> None:
    found = record(data)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("length", "offset"), [(1, 0), (2, 2048), (3, 526_336), (4, 0)])
def test_pointers_of_each_length_have_their_own_base(length: int, offset: int) -> None:
    data = bytes(offset) + text("here")
    zero = bytes([1 << 5 | length - 1 << 3]) + bytes(length)
    assert record(data + sized(11, 1) + zero, len(data)) == ["here"]


@pytest.mark.parametrize(
    "data",
    [
        key_of(number(6, 7)) + text("x"), key_of(sized(11, 0)) + text("x"), key_of(sized(7, 0)) + text("x"), key_of(sized(4, 2) + b"ab") + text("x"),
        key_of(sized(14, 1)) + text("x"), bytes([0, 205 - 7]), bytes([0, 12 - 7]), bytes([0, 13 - 7]), bytes([0]), sized(14, 2), sized(3, 3) + b"abc",
        sized(15, 8) + bytes(8), number(5, 65536), sized(8, 5) + bytes(5), text("abc")[:-1], sized(7, 2) + text("a"), sized(11, 2) + text("a"),
        b"\x5f\xff\xff\xff", b"\xff\xff\xff\xff" + text("a") * 50, b"\x1f\x04\xff\xff\xff" + text("a") * 50, sized(2, 1) + b"\xff",
        key_of(sized(2, 1) + b"\xff") + text("x"), pointer(0), pointer(5) + pointer(0), pointer(1000), b"",
    ],
)  # fmt: skip
def test_a_damaged_record_is_an_error_each_time(data: bytes) -> None:
    reader = Reader(database_of(data, 0))
    for _ in range(2):
        with pytest.raises(InvalidDatabaseError):
            reader.get(ADDRESS)


@pytest.mark.parametrize(("width", "depth"), [(10, 5), (28, 14), (1, 900), (200, 3)])
def test_a_record_that_would_be_very_large_or_deep_is_an_error(width: int, depth: int) -> None:
    with pytest.raises(InvalidDatabaseError, match="too large or too deep"):
        Reader(nested_mmdb(width, depth)).get(ADDRESS)


def test_a_long_text_that_pointers_repeat_is_an_error() -> None:
    data = text("x" * 284)
    root = len(data)
    with pytest.raises(InvalidDatabaseError, match="too much text"):
        record(data + sized(11, 280) + pointer(0) * 280, root)
    assert len(record(data + sized(11, 100) + pointer(0) * 100, root)) == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("binary_format_major_version", number(5, 3)), ("record_size", number(5, 20)), ("record_size", text("24")), ("ip_version", number(5, 5)),
        ("node_count", number(6, 1000)), ("node_count", number(9, 2**63)), ("node_count", sized(14, 1)), ("build_epoch", text("x")),
        ("build_epoch", number(10, 2**100)), ("ip_version", sized(7, 0)),
    ],
)  # fmt: skip
def test_metadata_that_do_not_fit_are_an_error(name: str, value: bytes) -> None:
    with pytest.raises(InvalidDatabaseError):
        _ = Reader(database_of(text("x"), 0, **{name: value})).build_epoch


def test_a_tree_that_never_ends_is_an_error() -> None:
    content = database_of(text("x"), 0)
    with pytest.raises(InvalidDatabaseError, match="deeper"):
        Reader(bytes(6) + content[6:]).get(ADDRESS)


def test_a_record_in_the_separator_is_an_error() -> None:
    with pytest.raises(InvalidDatabaseError, match="separator"):
        Reader((5).to_bytes(3, "big") * 2 + database_of(text("x"), 0)[6:]).get(ADDRESS)


def test_records_are_kept_so_that_they_are_decoded_once() -> None:
    reader = Reader(database_of(key_of(text("a")) + text("x"), 0))
    assert reader.get(ADDRESS) is reader.get(ip_address("9.9.9.9"))
