"""Laws of authentication: what is changed never verifies, what is hostile is refused and nothing else happens."""

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
PLACES = rule(
    from_headers=(FromHeader("authorization", "Bearer "), FromHeader("x-a")), from_params=("t",), from_cookies=("c",)
)
VERIFIERS = [verifier(PLACES, bundles=(bundle(ROOT.pem),), options=options) for options in (STRICT, ISTIO)]
PLAIN = verifier(rule())
ANYTHING = st.text(st.characters(codec=None), max_size=60)
ANYTHING_SOUND = st.text(max_size=20)
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
def test_a_token_cut_off_or_lengthened_never_verifies(length: int) -> None:
    for changed in (TOKEN[:length], TOKEN + TOKEN[:length] + "A"):
        with pytest.raises(Refused):
            PLAIN.verify(request(authorization=f"Bearer {changed}"), NO_EVIDENCE, NOW)


READINGS = [verifier(rule(), options=options) for options in (STRICT, ISTIO)]


@given(st.lists(st.sampled_from(JSON_MEMBERS), max_size=3), st.lists(st.sampled_from(HEADER_MEMBERS), max_size=2))
def test_whatever_json_is_signed_strict_reading_takes_none_that_istios_refuses(
    claims: list[str], members: list[str]
) -> None:
    payload = ",".join((json.dumps(default_claims())[:-1], *claims)) + "}"
    header = ",".join(('{"alg":"ES256"', *members)) + "}"
    token = Signer().compact(header.encode("latin-1"), payload.encode("latin-1"))
    strict, istio = (is_taken(subject, token) for subject in READINGS)
    assert istio or not strict
    if not claims and not members:
        assert strict


def is_taken(subject: IdentityVerifier, token: str) -> bool:
    try:
        subject.verify(request(authorization=f"Bearer {token}"), NO_EVIDENCE, NOW)
    except Refused:
        return False
    return True


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_whatever_stands_where_tokens_may_stand_nothing_but_a_refusal_is_raised(
    header: str, custom: str, query: str, cookie: str
) -> None:
    asked = request(path=f"/?{query}&t={query}", authorization=header, x_a=custom, cookie=f"{cookie};c={cookie}")
    for subject in VERIFIERS:
        with contextlib.suppress(Refused):
            assert subject.verify(asked, NO_EVIDENCE, NOW).tokens == ()


@given(ANYTHING, ANYTHING)
def test_whatever_is_said_of_the_peer_nothing_but_a_refusal_is_raised(principal: str, certificate: str) -> None:
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
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANYTHING_SOUND,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANYTHING_SOUND, inner, max_size=3),
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
def test_whatever_stands_for_a_proof_or_key_nothing_but_a_refusal_is_raised(
    token: str, proof: str, key: str, scheme: str
) -> None:
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
def test_whatever_a_token_is_said_to_be_bound_to_nothing_but_its_own_peer_may_present_it(
    cnf: object, sub: object
) -> None:
    signed = Signer().compact('{"alg":"ES256","kid":"k1"}', json.dumps(default_claims() | {"cnf": cnf, "sub": sub}))
    with contextlib.suppress(Refused):
        FULL.verify(request(authorization=f"Bearer {signed}"), Evidence(FRONTEND, CERTIFICATE), NOW)
        raise AssertionError(cnf)


@given(JSON, st.dictionaries(st.sampled_from(["typ", "alg", "jwk", "crit", "b64", "kid"]), JSON))
def test_whatever_a_proof_says_nothing_but_a_refusal_is_raised(body: object, changed: dict[str, object]) -> None:
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": CLIENT.jwk()} | changed
    proof = CLIENT.compact(json.dumps(header), json.dumps(body))
    with pytest.raises(Refused):
        FULL.verify(request(authorization=f"DPoP {BOUND}", dpop=proof), NO_EVIDENCE, NOW)


@given(ANYTHING)
def test_an_address_in_one_spelling_is_spelt_so_already(text: str) -> None:
    for target in (text, f"https://a.example/{text}"):
        spelt = normal_target(target)
        assert spelt is None or normal_target(spelt) == spelt


@given(NAMES, st.lists(SEGMENTS, max_size=6))
def test_a_spiffe_id_reads_back_as_it_was_written(domain: str, segments: list[str]) -> None:
    text = "/".join((f"spiffe://{domain}", *segments))
    spiffe_id = SpiffeId.parse(text)
    assert str(spiffe_id) == text
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


@given(
    st.one_of(ANYTHING, ANYTHING.map(lambda rest: f"spiffe://a/{rest}"), ANYTHING.map(lambda rest: f"spiffe://{rest}"))
)
def test_a_text_that_is_taken_for_a_spiffe_id_is_that_very_text(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert str(SpiffeId.parse(text)) == text


@given(st.binary(max_size=40), st.text("ABab01-_+/=\n ", max_size=40))
def test_base64url_has_one_spelling_for_each_value(data: bytes, text: str) -> None:
    assert base64url_decode(base64url_encode(data)) == data
    with contextlib.suppress(ValueError):
        assert base64url_encode(base64url_decode(text)) == text
