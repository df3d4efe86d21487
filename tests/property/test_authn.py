"""Laws of authentication: what is changed never verifies, what is hostile is refused and nothing else happens."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.pki import FRONTEND, NOW, Signer, presented, root
from tests.unit.authn.support import ISTIO, STRICT, bundle, request, rule, verifier
from zta_authz.authn.encoding import base64url_decode, base64url_encode
from zta_authz.errors import Refused
from zta_authz.model.documents import FromHeader
from zta_authz.model.request import NO_EVIDENCE, Evidence
from zta_authz.model.spiffe import SpiffeId

TOKEN = Signer().token()
ROOT = root()
CERTIFICATE = presented(ROOT.issue())
PLACES = rule(
    from_headers=(FromHeader("authorization", "Bearer "), FromHeader("x-a")), from_params=("t",), from_cookies=("c",)
)
VERIFIERS = [verifier(PLACES, bundles=(bundle(ROOT.pem),), options=options) for options in (STRICT, ISTIO)]
PLAIN = verifier(rule())
ANYTHING = st.text(st.characters(codec=None), max_size=60)
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
