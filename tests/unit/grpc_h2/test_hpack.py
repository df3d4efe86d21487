"""HPACK with the examples of RFC 7541, appendix C. The property tests compare it with another decoder."""

from __future__ import annotations

import pytest
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from zta_authz.grpc_h2 import huffman
from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode
from zta_authz.grpc_h2.hpack import Decoder

FIRST = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]
SECOND = [*FIRST, ("cache-control", "no-cache")]
THIRD = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
]
WITHOUT_HUFFMAN = (
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
)
WITH_HUFFMAN = (
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
)


def decoder(table: int = 4096, fields: int = 65_536) -> Decoder:
    return Decoder(table, fields)


@pytest.mark.parametrize("blocks", [WITHOUT_HUFFMAN, WITH_HUFFMAN], ids=["C.3", "C.4"])
def test_the_rfcs_requests(blocks: tuple[str, ...]) -> None:
    subject = decoder()
    assert [subject.decode(bytes.fromhex(block)) for block in blocks] == [FIRST, SECOND, THIRD]


RESPONSES = (  # C.6, with a table of 256 bytes, so that entries are evicted
    (
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        [
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ],
    ),
    (
        "4883640effc1c0bf",
        [
            (":status", "307"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ],
    ),
    (
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        [
            (":status", "200"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
            ("location", "https://www.example.com"),
            ("content-encoding", "gzip"),
            ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
        ],
    ),
)


def test_the_rfcs_responses_with_eviction() -> None:
    subject = decoder()
    subject.decode(b"\x3f\xe1\x01")  # the encoder uses 256 of the allowed bytes
    for block, fields in RESPONSES:
        assert subject.decode(bytes.fromhex(block)) == fields


def test_a_literal_that_is_never_indexed_is_a_field_like_others() -> None:
    subject = decoder()
    assert subject.decode(bytes.fromhex("100870617373776f726406736563726574")) == [("password", "secret")]
    assert subject.version == 0


def test_an_entry_larger_than_the_table_empties_it() -> None:
    subject = decoder(table=4096)
    subject.decode(b"\x40\x01a\x011")
    subject.decode(b"\x40\x01a\x7f\x81\x1f" + b"x" * 4096)
    with pytest.raises(ConnectionFault, match="an index without an entry"):
        subject.decode(b"\xbe")


def test_the_version_changes_with_the_table() -> None:
    subject = decoder()
    subject.decode(b"\x82\x00\x01a\x01b")
    assert subject.version == 0
    subject.decode(b"\x40\x01a\x01b")
    assert subject.version == 1
    subject.decode(b"\x20")
    assert subject.version == 2


MALFORMED = {
    "index 0": b"\x80",
    "an index beyond the table": b"\xbe",
    "a name's index beyond the table": b"\x7e\x01a",
    "an integer without its end": b"\xff\xff",
    "an integer that is too long": b"\xff\xff\xff\xff\xff\xff\xff\x01",
    "a string without its end": b"\x00\x05abc",
    "a string without its length": b"\x00",
    "a field without its value": b"\x00\x01a",
    "a size update after a field": b"\x82\x20",
    "a size above our offer": b"\x3f\xe2\x1f",
    "three size updates": b"\x20\x20\x20",
    "a Huffman string with EOS": b"\x00\x84\xff\xff\xff\xff\x00",
    "a Huffman string with padding of zeros": b"\x00\x81\x00\x00",
    "a Huffman string with 8 bits of padding": b"\x00\x82\x1f\xff\x00",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_blocks_end_the_connection(name: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        decoder().decode(MALFORMED[name])
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_fields_above_the_list_limit_are_dropped_but_change_the_table() -> None:
    subject = decoder(fields=100)
    assert subject.decode(b"\x00\x01a\x64" + b"x" * 100 + b"\x40\x01b\x011") == []
    assert subject.decode(b"\xbe") == [("b", "1")]


def test_a_needed_name_is_kept_above_the_list_limit() -> None:
    subject = Decoder(4096, 50, ["te"])
    assert subject.decode(b"\x00\x01a\x14" + b"x" * 20 + b"\x00\x02te\x011" + b"\x00\x01b\x011") == [("te", "1")]


def coded(text: bytes) -> bytes:
    raw = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
    length = encode_integer(len(raw), 7)
    length[0] |= 0x80
    return bytes(length) + raw


@pytest.mark.parametrize("first", [b"\x00", b"\x40", b"\x10"])
@pytest.mark.parametrize("text", [b"0" * 4097, b"\xff" * 4097, b"0" * 60_000])
@pytest.mark.parametrize("as_name", [False, True])
def test_a_string_larger_than_the_table_is_dropped_and_empties_it(first: bytes, text: bytes, *, as_name: bool) -> None:
    subject = decoder()
    subject.decode(b"\x40\x01a\x011")
    data = first + (coded(text) + b"\x011" if as_name else b"\x01b" + coded(text)) + b"\x00\x01c\x011"
    assert subject.decode(data) == [("c", "1")]
    if first == b"\x40":
        with pytest.raises(ConnectionFault, match="an index without an entry"):
            subject.decode(b"\xbe")
    else:
        assert subject.decode(b"\xbe") == [("a", "1")]


@pytest.mark.parametrize("text", [b"0" * 4096, b"\xff" * 4000])
def test_a_string_that_may_fit_the_table_is_decoded(text: bytes) -> None:
    assert decoder(fields=10_000).decode(b"\x00\x01a" + coded(text)) == [("a", text.decode("latin-1"))]


def test_huffman_decoding_is_limited_for_each_block() -> None:
    subject = decoder(fields=1_000_000)
    field = b"\x00\x01a" + coded(b"0" * 4000)
    assert len(subject.decode(field * 50)) == 32 * 1024 // (4000 * 5 // 8)
    assert len(subject.decode(field)) == 1
    with pytest.raises(ConnectionFault, match="too much Huffman coding"):
        subject.decode((b"\x40" + field[1:]) * 50)


def test_a_block_of_very_many_fields_ends_the_connection() -> None:
    assert len(decoder(fields=1_000_000).decode(b"\x82" * 4096)) == 4096
    with pytest.raises(ConnectionFault, match="too many fields"):
        decoder().decode(b"\x82" * 4097)


def test_non_ascii_bytes_are_kept() -> None:
    assert decoder().decode(b"\x00\x01a\x02\xc3\xa9") == [("a", "\u00c3\u00a9")]


def test_an_empty_huffman_string_is_empty() -> None:
    assert huffman.decode(b"", 0) == b""
