"""The formats of trust bundles, and that no bundle is loaded partly."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.pki import Signer, pem, private_key, root
from zta_authz.authn.bundle_formats import (
    MAX_AUTHORITIES,
    read_bundle,
    read_der_authorities,
    read_pem_authorities,
    read_spiffe_bundle,
    read_spiffe_text,
    split_der,
)
from zta_authz.model.spiffe import TrustDomain

DOMAIN = TrustDomain("partner.example")
FIRST = root("first")
SECOND = root("second")
LEAF = FIRST.issue()


def der(certificate: Any) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def x509_key(certificate: Any = FIRST.certificate, **changed: Any) -> dict[str, Any]:
    """An `x509-svid` key as SPIRE publishes it; members besides `x5c` are ignored."""
    key = {"kty": "EC", "crv": "P-256", "use": "x509-svid", "x5c": [base64.b64encode(der(certificate)).decode()]}
    return {name: value for name, value in (key | changed).items() if value is not None}


def jwt_key(**changed: Any) -> dict[str, Any]:
    return Signer().jwk(use="jwt-svid", **changed)


def test_a_spiffe_bundle_gives_both_kinds_of_authorities_its_sequence_and_its_refresh_hint() -> None:
    document = {
        "keys": [x509_key(), x509_key(SECOND.certificate), jwt_key()],
        "spiffe_sequence": 7,
        "spiffe_refresh_hint": 600,
    }
    bundle, faults = read_spiffe_text(DOMAIN, json.dumps(document).encode())
    assert faults == ()
    assert bundle.authorities.trust_domain == DOMAIN
    assert bundle.authorities.anchors == (FIRST.certificate, SECOND.certificate)
    assert [key.kid for key in bundle.authorities.jwt_keys.keys] == ["k1"]
    assert (bundle.sequence, bundle.refresh_hint) == (7, 600)


def test_the_specifications_example_is_read_except_for_its_abridged_certificate() -> None:
    # SPIFFE Trust Domain and Bundle, appendix A: parameters and shape; the certificate there is cut with an ellipsis.
    document = {"spiffe_sequence": 1, "spiffe_refresh_hint": 2419200, "keys": [x509_key(kty="RSA", crv=None)]}
    bundle, faults = read_spiffe_bundle(TrustDomain("example.com"), document)
    assert (faults, bundle.sequence, bundle.refresh_hint) == ((), 1, 2419200)
    assert len(bundle.authorities.anchors) == 1


def test_keys_of_other_uses_are_ignored_as_the_specification_demands() -> None:
    bundle, faults = read_spiffe_bundle(DOMAIN, {"keys": [{"kty": "AKP", "use": "wit-svid"}, x509_key()]})
    assert faults == ()
    assert bundle.authorities.anchors == (FIRST.certificate,)
    assert bundle.authorities.jwt_keys.keys == ()


def test_a_spiffe_bundle_without_keys_withdraws_them() -> None:
    bundle, faults = read_spiffe_bundle(DOMAIN, {"keys": []})
    assert (bundle.authorities.anchors, faults) == ((), ())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keys": None}, "has no list `keys`"),
        ({"keys": {}}, "has no list `keys`"),
        ({"keys": ["x"]}, "key 1 of the SPIFFE bundle has no `use`"),
        ({"keys": [x509_key(use=None)]}, "key 1 of the SPIFFE bundle has no `use`"),
        ({"keys": [x509_key(use=1)]}, "key 1 of the SPIFFE bundle has no `use`"),
        ({"keys": [x509_key(x5c=None)]}, "no `x5c` with exactly one certificate"),
        ({"keys": [x509_key(x5c=[])]}, "no `x5c` with exactly one certificate"),
        ({"keys": [x509_key(x5c=x509_key()["x5c"] * 2)]}, "no `x5c` with exactly one certificate"),
        ({"keys": [x509_key(x5c="text")]}, "no `x5c` with exactly one certificate"),
        ({"keys": [x509_key(x5c=["!"])]}, "not base64"),
        ({"keys": [x509_key(x5c=["AAAA"])]}, "can't be read"),
        ({"keys": [x509_key(LEAF)]}, "is not a CA"),
        ({"keys": [x509_key(root("weak", key=private_key("RSA-1024")).certificate)]}, "an RSA key of 1024 bits"),
        ({"keys": [jwt_key(x="?")]}, "among its `jwt-svid` keys, key 1"),
        ({"keys": [x509_key()] * (MAX_AUTHORITIES + 1)}, f"more than {MAX_AUTHORITIES}"),
        ({"spiffe_sequence": "7"}, "`spiffe_sequence` is not a whole number"),
        ({"spiffe_sequence": True}, "`spiffe_sequence` is not a whole number"),
        ({"spiffe_refresh_hint": -1}, "`spiffe_refresh_hint` is not a whole number"),
        ({"spiffe_refresh_hint": 1.5}, "`spiffe_refresh_hint` is not a whole number"),
    ],
)
def test_errors_in_a_spiffe_bundle_are_reported(changed: dict[str, Any], message: str) -> None:
    sound = {"keys": [x509_key()], "spiffe_sequence": 1, "spiffe_refresh_hint": 60}
    assert read_spiffe_bundle(DOMAIN, sound)[1] == ()
    _, faults = read_spiffe_bundle(DOMAIN, sound | changed)
    assert len(faults) == 1
    assert message in faults[0].message


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"keys": [], "keys": []}', b"\xff"])
def test_a_spiffe_bundle_that_is_not_a_json_object_is_an_error(text: bytes) -> None:
    assert "not JSON" in read_spiffe_text(DOMAIN, text)[1][0].message


def test_a_file_is_pem_or_a_spiffe_bundle() -> None:
    text = json.dumps({"keys": [x509_key()]}).encode()
    for content in (pem(FIRST.certificate).encode(), b"\n " + text):
        bundle, faults = read_bundle(DOMAIN, content)
        assert (bundle.authorities.anchors, faults) == ((FIRST.certificate,), ())


def test_an_empty_file_is_not_a_bundle() -> None:
    assert "contains no certificate" in read_bundle(DOMAIN, b" \n")[1][0].message


def test_certificates_in_der_are_concatenated() -> None:
    both = der(FIRST.certificate) + der(SECOND.certificate)
    assert read_der_authorities(both, "it") == ((FIRST.certificate, SECOND.certificate), ())
    assert read_der_authorities(b"", "it") == ((), ())


@pytest.mark.parametrize(
    "garbage",
    [
        der(FIRST.certificate)[:-1],
        der(FIRST.certificate) + b"\x00",
        b"\x30",
        b"\x30\x80",
        b"\x30\x85\x00\x00\x00\x00\x01\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x31\x00",
        pem(FIRST.certificate).encode(),
    ],
)
def test_der_other_than_concatenated_sequences_is_an_error(garbage: bytes) -> None:
    certificates, faults = read_der_authorities(garbage, "it")
    assert certificates == ()
    assert "does not consist of certificates in DER" in faults[0].message


def test_a_sequence_that_is_not_a_certificate_is_an_error() -> None:
    assert "certificate 1 of it can't be read" in read_der_authorities(b"\x30\x00", "it")[1][0].message


def test_splitting_der_preserves_every_byte() -> None:
    blocks = [b"\x30\x03abc", b"\x30\x81\x80" + bytes(128), b"\x30\x82\x01\x00" + bytes(256)]
    assert split_der(b"".join(blocks)) == blocks


def test_a_private_key_in_a_bundle_is_reported_and_not_quoted() -> None:
    _, faults = read_pem_authorities(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "it")
    assert "contains a private key" in faults[0].message
    assert "c2VjcmV0" not in str(faults)


def test_unterminated_blocks_take_time_linear_in_their_length() -> None:
    begun = time.process_time()
    certificates, faults = read_pem_authorities(b"-----BEGIN CERTIFICATE-----\n" * 30_000, "it")
    assert (certificates, [fault.message for fault in faults]) == ((), ["it contains no certificate"])
    assert time.process_time() - begun < 1
