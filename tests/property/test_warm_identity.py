"""Invariants of cached identities: a verifier with warm caches decides exactly like a new one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings, strategies as st

from tests.support.pki import AUDIENCE, FRONTEND, HERE, HOUR, ISSUER, NOW, Signer, b64, jwks, presented, root
from tests.unit.authn.support import STRICT, bearer, bundle, request, rule, verifier
from zta_authz import authn
from zta_authz.errors import Reason, Refused
from zta_authz.model.documents import IssuerPolicy, Revocation, RevocationList, Revoked
from zta_authz.model.request import NO_EVIDENCE, Evidence, RequestAttributes

if TYPE_CHECKING:
    from types import FrameType

    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.identity import Identity

ROOT = root()
LEAF, OTHER_LEAF = ROOT.issue(), ROOT.issue()
PEER, OTHER_PEER = Evidence(FRONTEND, presented(LEAF)), Evidence(FRONTEND, presented(OTHER_LEAF))
SIGNER = Signer()
KEYS = (jwks(), jwks([Signer(number=2000)]), jwks([Signer(), Signer(kid="k9", number=9)]))
POLICY = IssuerPolicy("p", "default", HERE, ISSUER, max_token_age=HOUR / 2)
REVOKED = RevocationList(
    "incident",
    "shop",
    HERE,
    (Revocation(Revoked.TOKEN, "t1", effective_from=NOW + 20), Revocation(Revoked.SUBJECT, "bob", issuer=ISSUER)),
)
TOKENS = (
    SIGNER.token(),
    SIGNER.token(nbf=NOW, exp=NOW + 10),
    SIGNER.token(aud="elsewhere"),
    SIGNER.token(sub=FRONTEND),
    SIGNER.token(jti="t1"),
    SIGNER.token(sub="bob"),
    SIGNER.token(iat=NOW + 25),
    SIGNER.token(exp=None),
    SIGNER.token(cnf={"x5t#S256": b64(LEAF.fingerprint(hashes.SHA256()))}),
    SIGNER.token()[:-2] + "AA",
)
SETS: tuple[dict[str, Any], ...] = (
    {},
    {"issuer_policies": [POLICY]},
    {"revocations": (REVOKED,)},
)


def new_verifier(number: int, keys: int) -> IdentityVerifier:
    rules = (rule(audiences=(AUDIENCE,)), rule(audiences=("elsewhere",), policy="default/second"))
    subject = verifier(*rules, bundles=(bundle(ROOT.pem),), options=STRICT, **SETS[number])
    publish_keys(subject, keys)
    return subject


def publish_keys(subject: IdentityVerifier, keys: int) -> None:
    """Publish the issuer's keys."""
    current = KEY_SETS[keys]
    for slot in subject.key_slots:
        slot.current = current


KEY_SETS = tuple(verifier(rule(jwks=text)).key_slots[0].current for text in KEYS)


def outcome(subject: IdentityVerifier, asked: RequestAttributes, evidence: Evidence, now: float) -> Identity | Reason:
    try:
        return subject.verify(asked, evidence, now)
    except Refused as refused:
        return refused.reason


def asked_with(token: str, location: int) -> RequestAttributes:
    if location == 0:
        return bearer(token, path="/orders?expand=items")
    if location == 1:
        return request(path=f"/orders?access_token={token}")
    if location == 2:
        return request(authorization=f"bearer  {token} ")
    return bearer(token, path=f"/orders?a=b&access_token={token}")


calls = st.tuples(
    st.integers(0, 1),
    st.sampled_from([0, 0, 0, 1, 2, 3]),
    st.sampled_from([PEER, OTHER_PEER, NO_EVIDENCE]),
    st.sampled_from([0.0, 0.0, 0.0, 10.0, 25.0, 40.0, 41.0, -6.0, -31.0, HOUR / 2, HOUR + 29, HOUR + 31]),
    st.sampled_from([0, 0, 0, 1, 2]),
)


@given(
    number=st.sampled_from([0, 0, 1, 2]),
    tokens=st.tuples(st.sampled_from(TOKENS), st.sampled_from(TOKENS)),
    made_calls=st.lists(calls, min_size=4, max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_a_cached_caller_is_decided_like_a_new_one(
    number: int, tokens: tuple[str, str], made_calls: list[tuple[int, int, Evidence, float, int]]
) -> None:
    warm = new_verifier(number, 0)
    for which, location, evidence, later, keys in made_calls:
        publish_keys(warm, keys)
        request = asked_with(tokens[which], location)
        expected = outcome(new_verifier(number, keys), request, evidence, NOW + later)
        for _ in range(2):
            assert outcome(warm, request, evidence, NOW + later) == expected


AUTHN = str(Path(authn.__path__[0]))
OTHER = "spiffe://cluster.local/ns/default/sa/orders"
OTHER_CALLER = Evidence(OTHER, presented(ROOT.issue(uris=(OTHER,))))


def verified_while(
    subject: IdentityVerifier, asked: RequestAttributes, evidence: Evidence, line: int
) -> tuple[str, bool]:
    """Verify a request while another caller is verified with the same token before the given line, as in a thread.

    Return the caller's principal, and whether authentication has such a line.
    """
    lines = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(AUTHN):
            return None
        if event == "line":
            lines += 1
            if lines == line + 1:
                subject.verify(asked, OTHER_CALLER, NOW, trial=True)  # not traced, as it runs in a trace function
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        identity = subject.verify(asked, evidence, NOW)
    finally:
        sys.settrace(before)
    return identity.principal, lines > line


def test_an_explanation_between_two_lines_never_leaks_its_identity() -> None:
    subject, asked = new_verifier(0, 0), bearer(TOKENS[0])
    line, more_lines = 0, True
    while more_lines:
        subject.verify(asked, PEER, NOW)
        principal, more_lines = verified_while(subject, asked, PEER, line)
        assert principal == FRONTEND, f"before line {line} of authentication"
        line += 1
    assert line > 10
