"""Revoked credentials are refused on the next call; an entry that differs in one field does not apply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes

from tests.support.pki import (
    FRONTEND,
    HERE,
    HOUR,
    ISSUER,
    NOW,
    Signer,
    jwks,
    presented,
    private_key,
    root,
    twin,
    with_unused_bits,
)
from tests.unit.authn.support import ISTIO, STRICT, accept, bearer, bundle, refusal, request, rule, verifier
from zta_authz.authn.certificates import read_presented
from zta_authz.authn.encoding import base64url_decode, base64url_encode
from zta_authz.errors import Reason, Refused
from zta_authz.model.documents import Revocation, RevocationList, Revoked
from zta_authz.model.identity import Binding
from zta_authz.model.options import CertificateCheck
from zta_authz.model.request import NO_EVIDENCE, Evidence

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.errors import Fault
    from zta_authz.model.documents import JwtRule

ROOT = root()
MIDDLE = ROOT.intermediate("middle")
LEAF = MIDDLE.issue()
PEER = Evidence(FRONTEND, presented(LEAF, *MIDDLE.above))
SIGNER = Signer()
TOKEN = SIGNER.token(jti="t1", sub="alice")
WORKLOAD_TOKEN = SIGNER.token(sub=FRONTEND)
UNDATED = SIGNER.token(iat=None)
ISSUED = NOW - 60


def listed(*entries: Revocation) -> RevocationList:
    return RevocationList("incident", "shop", HERE, entries)


def subject(*entries: Revocation, **changed: Any) -> IdentityVerifier:
    return verifier(rule(), bundles=(bundle(ROOT.pem),), revocations=(listed(*entries),), **changed)


def sha256(certificate: Any) -> str:
    return str(certificate.fingerprint(hashes.SHA256()).hex())


def entry(what: Revoked, value: str, **more: Any) -> Revocation:
    return Revocation(what, value, **more)


@dataclass(frozen=True)
class Case:
    """With the list `bad` the credential is refused, with `good` it is accepted."""

    bad: Revocation
    good: Revocation
    token: str = TOKEN


T, K, S, ID, PREFIX = Revoked.TOKEN, Revoked.KEY, Revoked.SUBJECT, Revoked.SPIFFE_ID, Revoked.SPIFFE_PREFIX
TOKENS = {
    "its id, of its issuer": Case(entry(T, "t1", issuer=ISSUER), entry(T, "t1", issuer=ISSUER + "/")),
    "its id, of any issuer": Case(entry(T, "t1"), entry(T, "t2")),
    "its id, from now on": Case(entry(T, "t1", effective_from=NOW), entry(T, "t1", effective_from=NOW + 1)),
    "its key": Case(entry(K, "k1", issuer=ISSUER), entry(K, "k1", issuer="https://other.example")),
    "its key, for what was issued before": Case(
        entry(K, "k1", issuer=ISSUER, before=ISSUED + 1), entry(K, "k1", issuer=ISSUER, before=ISSUED)
    ),
    "its subject": Case(entry(S, "alice", issuer=ISSUER), entry(S, "Alice", issuer=ISSUER)),
    "its subject, for what was issued before": Case(
        entry(S, "alice", issuer=ISSUER, before=ISSUED + 1), entry(S, "alice", issuer=ISSUER, before=ISSUED)
    ),
    "its subject, with no time of issue": Case(
        entry(S, "alice", issuer=ISSUER, before=1.0), entry(S, "bob", issuer=ISSUER, before=1.0), UNDATED
    ),
    "the SPIFFE ID that is its subject": Case(entry(ID, FRONTEND), entry(ID, FRONTEND[:-1]), WORKLOAD_TOKEN),
    "a prefix of it": Case(
        entry(PREFIX, "spiffe://cluster.local/ns/default/"),
        entry(PREFIX, "spiffe://cluster.local/ns/def/"),
        WORKLOAD_TOKEN,
    ),
}
PEERS = {
    "its serial number": (
        entry(Revoked.SERIAL, str(LEAF.serial_number)),
        entry(Revoked.SERIAL, str(LEAF.serial_number + 1)),
    ),
    "its digest": (entry(Revoked.SHA256, sha256(LEAF)), entry(Revoked.SHA256, sha256(MIDDLE.issue()))),
    "its intermediate": (
        entry(Revoked.SHA256, sha256(MIDDLE.certificate)),
        entry(Revoked.SHA256, sha256(ROOT.intermediate("other").certificate)),
    ),
    "its authority": (
        entry(Revoked.SERIAL, str(ROOT.certificate.serial_number)),
        entry(Revoked.SERIAL, str(root("other").certificate.serial_number)),
    ),
    "its SPIFFE ID": (entry(ID, FRONTEND), entry(ID, FRONTEND + "/x")),
    "its SPIFFE ID, for what was issued before": (
        entry(ID, FRONTEND, before=NOW - HOUR + 1),
        entry(ID, FRONTEND, before=NOW - HOUR),
    ),
    "its SPIFFE ID, from now on": (
        entry(ID, FRONTEND, effective_from=NOW),
        entry(ID, FRONTEND, effective_from=NOW + 1),
    ),
    "its trust domain": (entry(PREFIX, "spiffe://cluster.local/"), entry(PREFIX, "spiffe://cluster.loca/")),
}


@pytest.mark.parametrize("case", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_token_is_refused_if_any_part_of_it_is_revoked(case: Case, reading: Any) -> None:
    assert refusal(subject(case.bad, options=reading), bearer(case.token)) is Reason.TOKEN_REVOKED
    assert accept(subject(case.good, options=reading), bearer(case.token)).token is not None


@pytest.mark.parametrize(("bad", "good"), PEERS.values(), ids=PEERS.keys())
@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_peer_is_refused_if_any_part_of_its_chain_is_revoked(bad: Revocation, good: Revocation, reading: Any) -> None:
    assert refusal(subject(bad, options=reading), request(), PEER) is Reason.PEER_REVOKED
    assert accept(subject(good, options=reading), request(), PEER).principal == FRONTEND


def test_a_revocation_applies_to_a_cached_credential() -> None:
    soon = subject(entry(T, "t1", effective_from=NOW + 10), entry(ID, FRONTEND, effective_from=NOW + 20))
    asked = bearer(TOKEN)
    for now in (NOW, NOW + 9):
        assert accept(soon, asked, PEER, now).token is not None
    assert refusal(soon, asked, PEER, NOW + 10) is Reason.TOKEN_REVOKED
    assert accept(soon, request(), PEER, NOW + 19).principal == FRONTEND
    assert refusal(soon, request(), PEER, NOW + 20) is Reason.PEER_REVOKED


def test_two_entries_for_one_credential_both_apply() -> None:
    late, early = entry(T, "t1", effective_from=NOW + 9), entry(T, "t1", before=1.0)
    assert accept(subject(late, early), bearer(TOKEN)).token is not None
    assert refusal(subject(late, early, entry(T, "t1")), bearer(TOKEN)) is Reason.TOKEN_REVOKED


def test_a_name_from_the_proxy_alone_can_be_revoked() -> None:
    believing = replace(STRICT, trust_proxy=True)
    assert (
        refusal(subject(entry(ID, FRONTEND), options=believing), request(), Evidence(FRONTEND)) is Reason.PEER_REVOKED
    )
    dated = subject(entry(ID, FRONTEND, before=1.0), options=believing)
    assert refusal(dated, request(), Evidence(FRONTEND)) is Reason.PEER_REVOKED, "nobody can tell when it was issued"


def test_an_unverified_certificate_can_be_revoked() -> None:
    unverified = replace(ISTIO, verify_certificate=CertificateCheck.NEVER)
    for bad, good in (PEERS["its serial number"], PEERS["its SPIFFE ID, for what was issued before"]):
        assert refusal(subject(bad, options=unverified), request(), PEER) is Reason.PEER_REVOKED
        assert accept(subject(good, options=unverified), request(), PEER).principal == FRONTEND


def test_the_detail_names_the_list_and_its_comment_and_not_the_token() -> None:
    with pytest.raises(Refused) as caught:
        subject(entry(T, "t1", comment="stolen")).verify(bearer(TOKEN), NO_EVIDENCE, NOW)
    assert caught.value.detail == "token revoked by `shop/incident`: stolen"


def test_a_name_from_the_proxy_alone_is_checked_on_every_call() -> None:
    revoked = entry(Revoked.SPIFFE_ID, FRONTEND, effective_from=NOW + 10)
    believing = subject(revoked, options=replace(STRICT, trust_proxy=True))
    word = Evidence(FRONTEND)
    for _ in range(2):
        assert accept(believing, request(), word, now=NOW).peer == accept(believing, request(), word, now=NOW + 9).peer
        assert refusal(believing, request(), word, now=NOW + 10) is Reason.PEER_REVOKED
        assert refusal(believing, request(), Evidence("spiffe://Bad"), now=NOW) is Reason.PEER_SPIFFE_ID_INVALID


READINGS = {
    "strict": STRICT,
    "istio": ISTIO,
    "istio, unverified": replace(ISTIO, verify_certificate=CertificateCheck.NEVER),
    "the proxy's word": replace(STRICT, verify_certificate=CertificateCheck.NEVER, trust_proxy=True),
}


def twins() -> dict[str, tuple[Any, Evidence]]:
    """The revoked certificate, and a chain with its other encoding."""
    chain = {
        "the leaf's twin": (LEAF, (twin(LEAF), *MIDDLE.above)),
        "the leaf of a twin": (twin(LEAF), (LEAF, *MIDDLE.above)),
        "an intermediate's twin": (MIDDLE.certificate, (LEAF, twin(MIDDLE.certificate))),
        "the intermediate of a twin": (twin(MIDDLE.certificate), (LEAF, MIDDLE.certificate)),
    }
    return {name: (revoked, Evidence(FRONTEND, presented(*shown))) for name, (revoked, shown) in chain.items()}


@pytest.mark.parametrize(("revoked", "evidence"), twins().values(), ids=twins().keys())
@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS.keys())
def test_a_fingerprint_revokes_every_encoding_of_a_certificate(revoked: Any, evidence: Evidence, reading: Any) -> None:
    spelt = subject(entry(Revoked.SHA256, sha256(revoked)), options=reading)
    other = subject(entry(Revoked.SHA256, sha256(MIDDLE.issue())), options=reading)
    assert accept(other, request(), evidence).principal == FRONTEND, "the control: nothing of the chain is revoked"
    assert refusal(spelt, request(), evidence) is Reason.PEER_REVOKED


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "RSA-2048", "Ed25519"])
def test_the_first_fingerprint_is_that_of_the_presented_encoding(kind: str) -> None:
    authority = root(kind, key=private_key(kind))
    evidence, bundles = Evidence(FRONTEND, presented(authority.issue())), (bundle(authority.pem),)
    leaf = read_presented(evidence.certificate)[0]
    revoking = verifier(bundles=bundles, revocations=(listed(entry(Revoked.SHA256, sha256(leaf))),))
    assert refusal(revoking, request(), evidence) is Reason.PEER_REVOKED
    assert accept(verifier(bundles=bundles), request(), evidence).principal == FRONTEND


@pytest.mark.parametrize(
    "digest", [hashes.SHA256(), hashes.SHA512(), hashes.SHA3_256()], ids=lambda digest: digest.name
)
def test_the_other_encoding_is_revoked_whatever_hash_was_signed(digest: Any) -> None:
    leaf = MIDDLE.issue(digest=digest)
    evidence = Evidence(FRONTEND, presented(twin(leaf), *MIDDLE.above))
    assert accept(subject(), request(), evidence).principal == FRONTEND, "the control: it is as valid"
    assert refusal(subject(entry(Revoked.SHA256, sha256(leaf))), request(), evidence) is Reason.PEER_REVOKED


def test_a_signature_with_unused_bits_is_refused_in_leaf_and_intermediate() -> None:
    """Otherwise each number of unused bits would be another fingerprint."""
    leaf = next(issued for issued in iter(MIDDLE.issue, None) if issued.signature[-1] % 2 == 0)
    middle = next(issued for issued in iter(lambda: ROOT.intermediate("even"), None) if _even(issued.certificate))
    below = middle.issue()
    for good, bad in (
        ((leaf, *MIDDLE.above), (with_unused_bits(leaf), *MIDDLE.above)),
        ((below, middle.certificate), (below, with_unused_bits(middle.certificate))),
    ):
        assert accept(subject(), request(), Evidence(FRONTEND, presented(*good))).principal == FRONTEND
        assert refusal(subject(), request(), Evidence(FRONTEND, presented(*bad))) is Reason.PEER_CERTIFICATE_MALFORMED


def _even(certificate: Any) -> bool:
    return bool(certificate.signature[-1] % 2 == 0)


def test_a_token_bound_to_a_certificate_is_not_bound_to_its_other_encoding() -> None:
    """Equality of bytes suffices: the presenter of the other encoding also has the certificate, and gains nothing."""
    digest = base64url_encode(LEAF.fingerprint(hashes.SHA256()))
    asked = bearer(SIGNER.token(cnf={"x5t#S256": digest}))
    assert accept(subject(), asked, PEER).binding is Binding.CERTIFICATE
    evidence = Evidence(FRONTEND, presented(twin(LEAF), *MIDDLE.above))
    assert refusal(subject(), asked, evidence) is Reason.TOKEN_BINDING


def test_a_token_is_revoked_with_any_signature_that_verifies() -> None:
    head, body, tail = TOKEN.split(".")
    signature = base64url_decode(tail)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    turned = f"{head}.{body}.{base64url_encode(r.to_bytes(32, 'big') + (order - s).to_bytes(32, 'big'))}"
    assert accept(subject(), bearer(turned)).token is not None, "the control: it is as valid"
    assert refusal(subject(entry(T, "t1")), bearer(turned)) is Reason.TOKEN_REVOKED


def test_a_key_without_kid_is_revoked_by_the_kid_in_its_tokens() -> None:
    """Envoy tries a key without `kid` for a token that has one."""
    nameless = rule(jwks=jwks((Signer(kid=""),)))
    revoked = (listed(entry(K, "k1", issuer=ISSUER)),)
    assert refusal(verifier(nameless, options=ISTIO, revocations=revoked), bearer(TOKEN)) is Reason.TOKEN_REVOKED
    assert accept(verifier(nameless, options=ISTIO), bearer(TOKEN)).token is not None


def test_a_list_for_an_issuer_without_a_rule_revokes_nothing_and_causes_a_warning() -> None:
    def warned(*entries: Revocation, rules: JwtRule | None = None) -> list[str]:
        warnings: list[Fault] = []
        verifier(rules or rule(), revocations=(listed(*entries),), warnings=warnings)
        return [warning.message for warning in warnings]

    unknown_issuer = entry(S, "alice", issuer=ISSUER + "/")
    assert warned(unknown_issuer, unknown_issuer) == [
        f"RevocationList `shop/incident` is for `{ISSUER}/`, which no RequestAuthentication names"
    ]
    assert warned(entry(S, "alice", issuer=ISSUER), entry(T, "t1"), entry(ID, FRONTEND)) == []
    assert warned(entry(S, FRONTEND, issuer="spiffe://cluster.local")) == []
