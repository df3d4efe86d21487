"""Laws of what is kept about callers: whoever was seen before is judged exactly as by a verifier that knows nobody."""

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


def made(number: int, keys: int) -> IdentityVerifier:
    rules = (rule(audiences=(AUDIENCE,)), rule(audiences=("elsewhere",), policy="default/second"))
    subject = verifier(*rules, bundles=(bundle(ROOT.pem),), options=STRICT, **SETS[number])
    put(subject, keys)
    return subject


def put(subject: IdentityVerifier, keys: int) -> None:
    """The issuer's keys from now on."""
    current = KEY_SETS[keys]
    for slot in subject.key_slots:
        slot.current = current


KEY_SETS = tuple(verifier(rule(jwks=text)).key_slots[0].current for text in KEYS)


def outcome(subject: IdentityVerifier, asked: RequestAttributes, evidence: Evidence, now: float) -> Identity | Reason:
    try:
        return subject.verify(asked, evidence, now)
    except Refused as refused:
        return refused.reason


def asked_with(token: str, place: int) -> RequestAttributes:
    if place == 0:
        return bearer(token, path="/orders?expand=items")
    if place == 1:
        return request(path=f"/orders?access_token={token}")
    if place == 2:
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
def test_a_caller_that_is_known_is_judged_as_one_that_is_not(
    number: int, tokens: tuple[str, str], made_calls: list[tuple[int, int, Evidence, float, int]]
) -> None:
    warm = made(number, 0)
    for which, place, evidence, later, keys in made_calls:
        put(warm, keys)
        request = asked_with(tokens[which], place)
        wanted = outcome(made(number, keys), request, evidence, NOW + later)
        for _ in range(2):
            assert outcome(warm, request, evidence, NOW + later) == wanted


AUTHN = str(Path(authn.__path__[0]))
OTHER = "spiffe://cluster.local/ns/default/sa/orders"
STRANGER = Evidence(OTHER, presented(ROOT.issue(uris=(OTHER,))))


def verified_while(
    subject: IdentityVerifier, asked: RequestAttributes, evidence: Evidence, at: int
) -> tuple[str, bool]:
    """Who asked. Before the `at`th line of authentication, as another thread may, a stranger asks with the same token.

    Also whether there is such a line.
    """
    lines = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(AUTHN):
            return None
        if event == "line":
            lines += 1
            if lines == at + 1:
                subject.verify(asked, STRANGER, NOW, trial=True)  # not traced: a trace function is not while it runs
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = subject.verify(asked, evidence, NOW)
    finally:
        sys.settrace(before)
    return found.principal, lines > at


def test_whoever_is_explained_between_two_lines_lends_nobody_its_identity() -> None:
    subject, asked = made(0, 0), bearer(TOKENS[0])
    at, there_is_more = 0, True
    while there_is_more:
        subject.verify(asked, PEER, NOW)
        principal, there_is_more = verified_while(subject, asked, PEER, at)
        assert principal == FRONTEND, f"before line {at} of authentication"
        at += 1
    assert at > 10
