"""Recorded requests and responses are parsed alike by our messages and by Envoy's messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from envoy_data_plane.envoy.service.auth.v3 import CheckRequest as TheirRequest
from google.protobuf.json_format import MessageToDict

from tests.e2e.record import RECORDED, SAMPLES, record
from zta_authz._proto.ext_authz_pb2 import CheckRequest as OurRequest

if TYPE_CHECKING:
    from pathlib import Path

FORBIDDEN = re.compile(rb"PRIVATE KEY|eyJ[A-Za-z0-9_-]{10,}\.|(?<![A-Za-z])/(?:tmp|home|var)/")


def _ours(payload: bytes) -> dict[str, Any]:
    value: dict[str, Any] = MessageToDict(OurRequest.FromString(payload))
    return value


def _theirs(payload: bytes) -> dict[str, Any]:
    value: dict[str, Any] = TheirRequest.parse(payload).to_dict()
    return value


def _without_empty(value: Any) -> Any:
    """The value without empty messages: whether one that holds nothing is shown is a printer's taste."""
    if isinstance(value, dict):
        inner = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in inner.items() if item != {}}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _assert_read_equally(payload: bytes) -> None:
    parsed = _without_empty(_ours(payload))
    assert parsed == _without_empty(_theirs(payload))
    assert parsed["attributes"]["request"]["http"]["headerMap"]["headers"]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_recorded_request_is_read_equally_by_our_messages_and_envoys(name: str) -> None:
    _assert_read_equally((RECORDED / f"{name}.bin").read_bytes())


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_of_a_recorded_request_is_lost_when_it_is_written_again(name: str) -> None:
    payload = (RECORDED / f"{name}.bin").read_bytes()
    again = OurRequest.FromString(payload).SerializeToString()
    assert TheirRequest.parse(again) == TheirRequest.parse(payload)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_request_encoded_by_envoys_messages_is_read_equally_by_ours(name: str) -> None:
    encoded = bytes(TheirRequest.parse((RECORDED / f"{name}.bin").read_bytes()))
    assert _without_empty(_ours(encoded)) == _without_empty(_theirs(encoded))


def test_there_is_a_sample_for_each_name_and_no_other_and_none_holds_a_secret() -> None:
    assert {path.stem for path in RECORDED.iterdir()} == set(SAMPLES)
    for path in RECORDED.iterdir():
        assert not FORBIDDEN.search(path.read_bytes()), path.name


def test_the_samples_hold_what_decisions_need() -> None:
    http = _theirs((RECORDED / "get-mtls.bin").read_bytes())["attributes"]
    assert http["source"]["principal"] == "spiffe://cluster.local/ns/default/sa/frontend"
    assert http["source"]["certificate"].startswith("-----BEGIN%20CERTIFICATE")
    assert http["request"]["http"]["path"] == "/orders?next=%2Fhome&x=1"
    assert http["tlsSession"]["sni"] == "localhost"
    without = _theirs((RECORDED / "get-no-certificate.bin").read_bytes())["attributes"]["source"]
    assert "principal" not in without
    assert "certificate" not in without


def test_repeated_headers_arrive_apart_and_bytes_as_they_are() -> None:
    repeated = OurRequest.FromString((RECORDED / "get-repeated-headers.bin").read_bytes())
    headers = repeated.attributes.request.http.header_map.headers
    assert [header.raw_value for header in headers if header.key == "x-colour"] == [b"red", b"blue"]
    odd = OurRequest.FromString((RECORDED / "get-not-utf8.bin").read_bytes())
    assert b"\xff\xfe\x80" in [header.raw_value for header in odd.attributes.request.http.header_map.headers]


def test_the_envoy_at_hand_sends_what_was_recorded(envoy_binary: Path, tmp_path: Path) -> None:
    for name, payload in record(tmp_path, envoy_binary).items():
        _assert_read_equally(payload)
        old = OurRequest.FromString((RECORDED / f"{name}.bin").read_bytes()).attributes
        new = OurRequest.FromString(payload).attributes
        assert new.source.principal == old.source.principal
        assert bool(new.source.certificate) == bool(old.source.certificate)
        for field in ("method", "path", "scheme", "protocol", "size", "raw_body"):
            assert getattr(new.request.http, field) == getattr(old.request.http, field), (name, field)
        names = [[header.key for header in call.request.http.header_map.headers] for call in (new, old)]
        assert names[0] == names[1], name
