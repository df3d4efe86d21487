"""The Workload API's messages, encoded here by hand from the numbers in SPIFFE's specification (sections 5.1 and 6.1)."""

from __future__ import annotations

import json

import pytest

from tests.fakes.workload_api import bundles_response, der, jwt_response, pkcs8, svid_response
from tests.support.pki import Signer, private_key, root
from zta_authz._proto.workload_pb2 import X509SVIDResponse
from zta_authz.keys.workload_messages import (
    MAX_TRUST_DOMAINS,
    MalformedMessage,
    read_jwt_bundles,
    read_svid_response,
    read_x509_bundles,
)

US = "spiffe://cluster.local/ns/zta/sa/authz"
KEY = private_key("P-256", 77)
ROOT, OTHER = root("root"), root("other")
LEAF = ROOT.issue(uris=(US,), key=KEY)
JWKS = json.dumps({"keys": [Signer().jwk(use="jwt-svid")]}).encode()


def field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    length, encoded = len(value), b""
    while length >= 0x80:
        encoded += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([length]) + value


def entry(number: int, key: str, value: bytes) -> bytes:
    """An entry of a map."""
    return field(number, field(1, key.encode()) + field(2, value))


def test_an_svid_is_read_by_the_specifications_field_numbers() -> None:
    first = field(1, US.encode()) + field(2, der(LEAF)) + field(3, pkcs8(KEY)) + field(4, der(ROOT.certificate))
    hinted = field(5, b"internal")
    federated = entry(3, "spiffe://partner.example", der(OTHER.certificate))
    svid = read_svid_response(field(1, first + hinted) + field(2, b"a CRL") + federated + field(15, b"unknown"))
    assert str(svid.spiffe_id) == US


def test_x509_bundles_are_read_by_the_specifications_field_numbers() -> None:
    payload = entry(2, "spiffe://cluster.local", der(ROOT.certificate, OTHER.certificate))
    assert read_x509_bundles(payload).accepted == {"cluster.local": (ROOT.certificate, OTHER.certificate)}


def test_jwt_bundles_are_read_by_the_specifications_field_numbers() -> None:
    bundles = read_jwt_bundles(entry(1, "spiffe://cluster.local", JWKS))
    assert [key.kid for key in bundles.accepted["cluster.local"].keys.keys] == ["k1"]


def test_the_first_svid_is_used() -> None:
    second = private_key("P-256", 78)
    responses = [
        X509SVIDResponse.FromString(svid_response(US + suffix, key, ROOT.issue(uris=(US + suffix,), key=key)))
        for suffix, key in (("", KEY), ("-2", second))
    ]
    both = X509SVIDResponse(svids=[*responses[0].svids, *responses[1].svids]).SerializeToString()
    assert str(read_svid_response(both).spiffe_id) == US


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\xff", "not an X509SVIDResponse"),
        (b"", "a response without SVIDs"),
        (entry(3, "spiffe://partner.example", der(OTHER.certificate)), "a response without SVIDs"),
        (field(1, b""), "an invalid SVID: 0 certificates"),
        (svid_response(US + "2", KEY, LEAF), "another SPIFFE ID"),
        (svid_response(US, private_key("P-256", 79), LEAF), "the private key does not belong to the certificate"),
    ],
)
def test_an_unusable_svid_response_is_malformed(payload: bytes, message: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        read_svid_response(payload)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("bundles", "message"),
    [
        ({}, "a response without bundles"),
        ({"spiffe://Cluster.local": der(ROOT.certificate)}, "not the SPIFFE ID of a trust domain"),
        ({"spiffe://cluster.local/ns/a": der(ROOT.certificate)}, "not the SPIFFE ID of a trust domain"),
        ({"spiffe://cluster.local": der(ROOT.certificate)[:-1]}, "cut short"),
        ({"spiffe://cluster.local": der(LEAF)}, "is not a CA"),
        ({f"spiffe://d{i}": b"" for i in range(MAX_TRUST_DOMAINS + 1)}, f"more than {MAX_TRUST_DOMAINS}"),
    ],
)
def test_bundles_without_a_valid_one_are_malformed(bundles: dict[str, bytes], message: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        read_x509_bundles(bundles_response(bundles))
    assert message in str(caught.value)


def test_a_malformed_bundle_does_not_affect_the_others() -> None:
    bundles = read_x509_bundles(
        bundles_response({"spiffe://a.example": b"\x30", "spiffe://b.example": der(ROOT.certificate), "?": b""})
    )
    assert bundles.accepted == {"b.example": (ROOT.certificate,)}
    assert bundles.malformed == {"a.example"}
    assert len(bundles.faults) == 2


def test_a_bundle_without_certificates_is_accepted_as_withdrawn() -> None:
    assert read_x509_bundles(bundles_response({"spiffe://a.example": b""})).accepted == {"a.example": ()}


@pytest.mark.parametrize("text", [b"", b"[]", b'{"keys": 1}', b'{"keys": [{"kty": "EC", "crv": "P-256"}]}'])
def test_an_invalid_key_set_is_malformed(text: bytes) -> None:
    assert read_jwt_bundles(jwt_response({"spiffe://a.example": text, "b": JWKS})).malformed == {"a.example"}


@pytest.mark.parametrize("read", [read_x509_bundles, read_jwt_bundles])
def test_bytes_that_are_not_a_message_are_malformed(read: object) -> None:
    assert callable(read)
    with pytest.raises(MalformedMessage, match=r"not an? "):
        read(b"\xff\xff")
