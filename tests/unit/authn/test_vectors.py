"""Published vectors with their sources: valid ones are accepted, and ones with a changed bit are refused."""

from __future__ import annotations

import base64
import json
import string
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.support.pki import b64
from tests.unit.authn.support import ISTIO, accept, bearer, refusal, rule, verifier
from zta_authz.authn.binding import check_binding, read_confirmation
from zta_authz.authn.dpop import verify_proof
from zta_authz.authn.encoding import base64url_decode, json_object
from zta_authz.authn.keys import key_thumbprint, read_jwks
from zta_authz.authn.token import Confirmation
from zta_authz.errors import Reason, Refused
from zta_authz.model.identity import Binding, Peer, PeerTrust
from zta_authz.model.request import Headers, RequestAttributes
from zta_authz.model.spiffe import SpiffeId, TrustDomain

VECTORS: dict[str, Any] = json.loads(Path(__file__, "../../../vectors/credentials.json").resolve().read_text("utf-8"))
JOE_EXPIRES = 1300819380.0


def by_source(vector: dict[str, Any]) -> str:
    return str(vector["source"])


@pytest.mark.parametrize("vector", VECTORS["signatures"], ids=by_source)
def test_a_published_signature_verifies_with_its_key_and_no_changed_one_does(vector: dict[str, Any]) -> None:
    keys, wrong = read_jwks({"keys": [vector["jwk"]]})
    assert wrong == ()
    head, body, tail = vector["token"].split(".")
    header, signature = json_object(base64url_decode(head)), base64url_decode(tail)
    [key] = keys.choose_strictly(header["alg"], header.get("kid", ""))
    assert key.verifies(header["alg"], f"{head}.{body}".encode(), signature)
    assert not key.verifies(header["alg"], f"{head}.{body}x".encode(), signature)
    for place in (0, len(signature) // 2, len(signature) - 1):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert not key.verifies(header["alg"], f"{head}.{body}".encode(), bytes(changed))


JWTS = [
    vector
    for vector in VECTORS["signatures"]
    if vector["source"].endswith(("A.1 (and RFC 7519 section 3.1)", "A.2", "A.3"))
]


@pytest.mark.parametrize("vector", JWTS, ids=by_source)
def test_a_published_jwt_is_a_token_of_its_issuer_until_it_expires(vector: dict[str, Any]) -> None:
    one = verifier(rule(issuer="joe", jwks=json.dumps({"keys": [vector["jwk"]]})))
    token = accept(one, bearer(vector["token"]), now=JOE_EXPIRES).token
    assert token is not None
    assert token.claims == {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
    assert refusal(one, bearer(vector["token"]), now=JOE_EXPIRES + 31) is Reason.TOKEN_EXPIRED


def test_the_published_unsecured_jwt_is_refused_with_both_semantics() -> None:
    """RFC 7519 section 6.1; RFC 8725 section 3.2 says not to accept it."""
    for vector in JWTS:
        joe = rule(issuer="joe", jwks=json.dumps({"keys": [vector["jwk"]]}))
        unsecured = bearer(VECTORS["unsecured"]["token"])
        assert refusal(verifier(joe), unsecured, now=JOE_EXPIRES) is Reason.TOKEN_ALGORITHM
        assert refusal(verifier(joe, options=ISTIO), unsecured, now=JOE_EXPIRES) is Reason.TOKEN_MALFORMED


def test_one_issuers_published_jwt_does_not_verify_with_anothers_key() -> None:
    for vector in JWTS:
        for other in JWTS:
            if other is not vector:
                one = verifier(rule(issuer="joe", jwks=json.dumps({"keys": [other["jwk"]]})))
                assert refusal(one, bearer(vector["token"]), now=JOE_EXPIRES) is Reason.TOKEN_ALGORITHM


@pytest.mark.parametrize("vector", VECTORS["thumbprints"], ids=by_source)
def test_a_published_thumbprint_is_its_keys(vector: dict[str, Any]) -> None:
    assert key_thumbprint(vector["jwk"]) == vector["thumbprint"]


def test_the_published_certificate_has_the_published_thumbprint_and_binds_its_token() -> None:
    """RFC 8705 appendix A."""
    published = VECTORS["certificate"]
    certificate = x509.load_der_x509_certificate(base64.b64decode(published["certificate"]))
    digest = certificate.fingerprint(hashes.SHA256())
    assert b64(digest) == published["x5t#S256"]
    confirmation = read_confirmation({"cnf": {"x5t#S256": published["x5t#S256"]}})
    assert confirmation == Confirmation(digest)

    class Bound:
        subject = ""

        def __init__(self) -> None:
            self.confirmation = confirmation

    def presented_by(sha256: bytes) -> Binding | None:
        peer = Peer((), None, PeerTrust.CERTIFICATE, sha256)
        return check_binding(Bound(), peer, "", strict=False)  # type: ignore[arg-type]

    assert presented_by(digest) is Binding.CERTIFICATE
    assert presented_by(bytes(32)) is None


def test_the_example_of_a_certificate_bound_token_is_read() -> None:
    """RFC 8705 section 3.1, figure 2."""
    claims = {"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}
    confirmation = read_confirmation(claims)
    assert confirmation is not None
    assert len(confirmation.certificate_sha256) == 32


def asked_by(vector: dict[str, Any]) -> RequestAttributes:
    headers = Headers({"dpop": (vector["proof"],)}, exact=True)
    return RequestAttributes(vector["method"], vector["path"], vector["host"], "https", headers=headers)


def test_the_published_proof_for_a_resource_is_valid_for_it_and_for_nothing_else() -> None:
    """RFC 9449 section 7.1, figures 13 and 14."""
    vector = VECTORS["proofs"][1]
    token, now = vector["access_token"], float(vector["now"])
    key = VECTORS["thumbprints"][2]["thumbprint"]
    proof = verify_proof(asked_by(vector), token, key, now)
    assert (proof.thumbprint, proof.identifier) == (key, "e1j3V_bKic8-LAEB")
    for changed in ({"method": "POST"}, {"path": "/other"}, {"host": "other.example.org"}):
        with pytest.raises(Refused) as caught:
            verify_proof(asked_by(vector | changed), token, key, now)
        assert caught.value.reason is Reason.DPOP_MISMATCH
    with pytest.raises(Refused):
        verify_proof(asked_by(vector), token + "x", key, now)
    with pytest.raises(Refused):
        verify_proof(asked_by(vector), token, key, now + 61)


def test_the_published_proof_for_the_token_endpoint_is_valid_for_no_token() -> None:
    """RFC 9449 section 4.1, figure 2: it has no `ath`."""
    vector = VECTORS["proofs"][0]
    token, key = VECTORS["proofs"][1]["access_token"], VECTORS["thumbprints"][2]["thumbprint"]
    with pytest.raises(Refused) as caught:
        verify_proof(asked_by(vector), token, key, float(vector["now"]))
    assert (caught.value.reason, caught.value.detail) == (Reason.DPOP_MISMATCH, "`ath` is not the token's digest")


SPIFFE_EXAMPLES = [  # SPIFFE-ID specification, section 2
    "spiffe://staging.example.com/payments/mysql",
    "spiffe://staging.example.com/payments/web-fe",
    "spiffe://k8s-west.example.com/ns/staging/sa/default",
    "spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
]


@pytest.mark.parametrize("text", SPIFFE_EXAMPLES)
def test_the_specifications_examples_are_spiffe_ids(text: str) -> None:
    assert str(SpiffeId.parse(text)) == text


def test_the_alphabets_are_those_of_the_specification() -> None:
    """SPIFFE-ID specification, sections 2.1 and 2.2, character by character; and no other character anywhere."""
    in_domain = set(string.ascii_lowercase + string.digits + ".-_")
    in_path = set(string.ascii_letters + string.digits + ".-_")
    for number in [*range(0x180), 0x2028, 0xFF0F, 0x1F600]:
        character = chr(number)
        assert _is(TrustDomain.parse, f"a{character}b") is (character in in_domain), number
        assert _is(SpiffeId.parse, f"spiffe://td/a{character}b") is (character in in_path or character == "/"), number


def _is(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
