"""Invariants of authentication: a changed credential never verifies, and hostile input is refused without an error."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from tests.differential.vocabulary import HEADER_MEMBERS, JSON_MEMBERS
from tests.support.pki import FRONTEND, HERE, NOW, Signer, default_claims, presented, root
from tests.unit.authn.support import ISTIO, STRICT, bundle, request, rule, verifier
from zta_authz.authn.dpop import normal_target
from zta_authz.authn.encoding import base64url_decode, base64url_encode
from zta_authz.authn.keys import key_thumbprint
from zta_authz.errors import Refused
from zta_authz.model.documents import ApiKey, ApiKeyClient, ApiKeySet, FromHeader, Selector
from zta_authz.model.request import NO_EVIDENCE, Evidence
from zta_authz.model.spiffe import SpiffeId

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier

TOKEN = Signer().token()
ROOT = root()
CERTIFICATE = presented(ROOT.issue())
LOCATIONS_RULE = rule(
    from_headers=(FromHeader("authorization", "Bearer "), FromHeader("x-a")), from_params=("t",), from_cookies=("c",)
)
VERIFIERS = [verifier(LOCATIONS_RULE, bundles=(bundle(ROOT.pem),), options=options) for options in (STRICT, ISTIO)]
PLAIN = verifier(rule())
ANYTHING = st.text(st.characters(codec=None), max_size=60)
ANY_ENCODABLE = st.text(max_size=20)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=30)
SEGMENTS = st.text("abcXYZ019._-", min_size=1, max_size=10).filter(lambda segment: segment not in (".", ".."))


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="utf-8"))
def test_a_token_changed_in_any_character_never_verifies(position: int, character: str) -> None:
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    PLAIN.verify(request(authorization=f"Bearer {TOKEN}"), NO_EVIDENCE, NOW)  # the cache knows the real one
    if changed == TOKEN:
        return
    with pytest.raises(Refused):
        PLAIN.verify(request(x=("1",), authorization=f"Bearer {changed}"), NO_EVIDENCE, NOW)


@settings(max_examples=50)
@given(st.integers(0, len(TOKEN) - 1))
def test_a_truncated_or_lengthened_token_never_verifies(length: int) -> None:
    for changed in (TOKEN[:length], TOKEN + TOKEN[:length] + "A"):
        with pytest.raises(Refused):
            PLAIN.verify(request(authorization=f"Bearer {changed}"), NO_EVIDENCE, NOW)


STRICT_AND_ISTIO = [verifier(rule(), options=options) for options in (STRICT, ISTIO)]


@given(st.lists(st.sampled_from(JSON_MEMBERS), max_size=3), st.lists(st.sampled_from(HEADER_MEMBERS), max_size=2))
def test_strict_accepts_no_signed_json_that_istio_refuses(claims: list[str], members: list[str]) -> None:
    payload = ",".join((json.dumps(default_claims())[:-1], *claims)) + "}"
    header = ",".join(('{"alg":"ES256"', *members)) + "}"
    token = Signer().compact(header.encode("latin-1"), payload.encode("latin-1"))
    strict, istio = (is_accepted(subject, token) for subject in STRICT_AND_ISTIO)
    assert istio or not strict
    if not claims and not members:
        assert strict


def is_accepted(subject: IdentityVerifier, token: str) -> bool:
    try:
        subject.verify(request(authorization=f"Bearer {token}"), NO_EVIDENCE, NOW)
    except Refused:
        return False
    return True


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_any_text_at_token_locations_raises_only_refusals(header: str, custom: str, query: str, cookie: str) -> None:
    asked = request(path=f"/?{query}&t={query}", authorization=header, x_a=custom, cookie=f"{cookie};c={cookie}")
    for subject in VERIFIERS:
        with contextlib.suppress(Refused):
            assert subject.verify(asked, NO_EVIDENCE, NOW).tokens == ()


@given(ANYTHING, ANYTHING)
def test_any_evidence_of_a_peer_raises_only_refusals(principal: str, certificate: str) -> None:
    for subject in VERIFIERS:
        with contextlib.suppress(Refused):
            peer = subject.verify(request(), Evidence(principal, certificate), NOW).peer
            assert peer is None or peer.certificate_sha256 is None


@settings(max_examples=200)
@given(st.integers(0, len(CERTIFICATE) - 1), st.sampled_from("ABCabc019+/=%\n -"))
def test_a_changed_certificate_is_refused_or_still_the_same_one(position: int, character: str) -> None:
    changed = CERTIFICATE[:position] + character + CERTIFICATE[position + 1 :]
    with contextlib.suppress(Refused):
        peer = VERIFIERS[0].verify(request(), Evidence(FRONTEND, changed), NOW).peer
        real = VERIFIERS[0].verify(request(), Evidence(FRONTEND, CERTIFICATE), NOW).peer
        assert peer == real


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_ENCODABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_ENCODABLE, inner, max_size=3),
    max_leaves=6,
)
CLIENT = Signer(kid="", number=77)
BOUND = Signer().token(cnf={"jkt": key_thumbprint(CLIENT.jwk())})
FULL = verifier(
    rule(),
    bundles=(bundle(ROOT.pem, jwt_authorities={"keys": [Signer().jwk()]}, jwt_svid_audiences=("here",)),),
    api_keys=[ApiKeySet("k", "n", HERE, Selector("default", {}), (ApiKeyClient("c", (), (ApiKey(bytes(32), HERE),)),))],
)


@given(ANYTHING, ANYTHING, ANYTHING, st.sampled_from(["Bearer ", "DPoP ", "dpop", "", "Bearer DPoP "]))
def test_any_text_as_proof_or_key_raises_only_refusals(token: str, proof: str, key: str, scheme: str) -> None:
    for text in (token, BOUND):
        for asked in (
            request(authorization=scheme + text, dpop=proof),
            request(authorization=scheme + text, dpop=(proof, proof), x_api_key=key),
            request(x_api_key=key),
        ):
            with contextlib.suppress(Refused):
                identity = FULL.verify(asked, NO_EVIDENCE, NOW)
                assert (identity.token, identity.api_client) == (None, None)


@given(JSON, JSON)
def test_a_token_with_any_confirmation_is_accepted_only_from_its_own_peer(cnf: object, sub: object) -> None:
    signed = Signer().compact('{"alg":"ES256","kid":"k1"}', json.dumps(default_claims() | {"cnf": cnf, "sub": sub}))
    with contextlib.suppress(Refused):
        FULL.verify(request(authorization=f"Bearer {signed}"), Evidence(FRONTEND, CERTIFICATE), NOW)
        raise AssertionError(cnf)


@given(JSON, st.dictionaries(st.sampled_from(["typ", "alg", "jwk", "crit", "b64", "kid"]), JSON))
def test_any_content_of_a_proof_raises_only_refusals(body: object, changed: dict[str, object]) -> None:
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": CLIENT.jwk()} | changed
    proof = CLIENT.compact(json.dumps(header), json.dumps(body))
    with pytest.raises(Refused):
        FULL.verify(request(authorization=f"DPoP {BOUND}", dpop=proof), NO_EVIDENCE, NOW)


@given(ANYTHING)
def test_normalising_an_address_is_idempotent(text: str) -> None:
    for target in (text, f"https://a.example/{text}"):
        normalised = normal_target(target)
        assert normalised is None or normal_target(normalised) == normalised


@given(NAMES, st.lists(SEGMENTS, max_size=6))
def test_a_spiffe_id_is_formatted_as_it_was_parsed(domain: str, segments: list[str]) -> None:
    text = "/".join((f"spiffe://{domain}", *segments))
    spiffe_id = SpiffeId.parse(text)
    assert str(spiffe_id) == text
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


@given(
    st.one_of(ANYTHING, ANYTHING.map(lambda rest: f"spiffe://a/{rest}"), ANYTHING.map(lambda rest: f"spiffe://{rest}"))
)
def test_an_accepted_spiffe_id_is_formatted_as_the_same_text(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert str(SpiffeId.parse(text)) == text


@given(st.binary(max_size=40), st.text("ABab01-_+/=\n ", max_size=40))
def test_base64url_has_one_encoding_for_each_value(data: bytes, text: str) -> None:
    assert base64url_decode(base64url_encode(data)) == data
    with contextlib.suppress(ValueError):
        assert base64url_encode(base64url_decode(text)) == text
