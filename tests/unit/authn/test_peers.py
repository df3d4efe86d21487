"""Hostile peer certificates and the reasons of their refusal; each has a valid twin that lacks only the one defect."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from msgspec import structs

from tests.support.pki import (
    BOTH_SIDES,
    CA_PROFILE,
    CERTIFIES,
    FRONTEND,
    HOUR,
    NOW,
    SIGNS,
    Authority,
    key_usage,
    long_exponent_key,
    pem,
    presented,
    private_key,
    root,
    with_negative_serial,
    with_sha1,
    xfcc,
)
from tests.unit.authn.support import ISTIO, STRICT, accept, bundle, refusal, request, verifier
from zta_authz.errors import Reason
from zta_authz.model.identity import CertificateNames, PeerTrust
from zta_authz.model.options import CertificateCheck, ChainSource, Options
from zta_authz.model.request import NO_EVIDENCE, Evidence

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.model.documents import TrustBundle

ROOT = root()
BUNDLE = bundle(ROOT.pem)
ANY = request()
OTHER = "spiffe://cluster.local/ns/default/sa/other"
NAMES_ALLOWED = x509.NameConstraints([x509.UniformResourceIdentifier("cluster.local")], None)
UNKNOWN_EXTENSION = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
IS_CA = x509.BasicConstraints(ca=True, path_length=None)


def evidence(*chain: x509.Certificate, principal: str = FRONTEND) -> Evidence:
    return Evidence(principal, presented(*chain))


def options(**changed: Any) -> Options:
    return replace(STRICT, **changed)


@dataclass(frozen=True)
class Case:
    """A leaf under `ROOT` with the fields `bad` is refused for `reason`; with `good` instead it is accepted."""

    reason: Reason
    bad: dict[str, Any]
    good: dict[str, Any]


LEAVES = {
    "two URI SANs": Case(Reason.PEER_SAN_COUNT, {"uris": (FRONTEND, OTHER)}, {"uris": (FRONTEND,)}),
    "no URI SAN": Case(Reason.PEER_SAN_COUNT, {"uris": (), "dns": ("a",)}, {"uris": (FRONTEND,), "dns": ("a",)}),
    "a URI that is no SPIFFE ID": Case(
        Reason.PEER_SPIFFE_ID_INVALID, {"uris": ("https://cluster.local/a",)}, {"uris": (FRONTEND,)}
    ),
    "upper case in the trust domain": Case(
        Reason.PEER_SPIFFE_ID_INVALID, {"uris": ("spiffe://Cluster.local/ns/default/sa/frontend",)}, {}
    ),
    "a trust domain without path": Case(
        Reason.PEER_SPIFFE_ID_INVALID, {"uris": ("spiffe://cluster.local",)}, {"uris": (FRONTEND,)}
    ),
    "a newline in the ID": Case(Reason.PEER_SPIFFE_ID_INVALID, {"uris": (FRONTEND + "\n",)}, {}),
    "a NUL in the ID": Case(Reason.PEER_SPIFFE_ID_INVALID, {"uris": (FRONTEND + "\x00.evil",)}, {}),
    "a foreign trust domain": Case(
        Reason.PEER_TRUST_DOMAIN_UNKNOWN, {"uris": ("spiffe://other.example/ns/default/sa/frontend",)}, {}
    ),
    "another name than the proxy says": Case(Reason.PEER_SAN_MISMATCH, {"uris": (OTHER,)}, {}),
    "a CA as leaf": Case(Reason.PEER_CERTIFICATE_IS_CA, {"basic": IS_CA}, {"basic": None}),
    "no key usage": Case(Reason.PEER_CERTIFICATE_KEY_USAGE, {"usage": None}, {"usage": SIGNS}),
    "no digital signature": Case(
        Reason.PEER_CERTIFICATE_KEY_USAGE, {"usage": key_usage(key_agreement=True)}, {"usage": SIGNS}
    ),
    "may sign certificates": Case(
        Reason.PEER_CERTIFICATE_KEY_USAGE, {"usage": key_usage(digital_signature=True, key_cert_sign=True)}, {}
    ),
    "may sign revocation lists": Case(
        Reason.PEER_CERTIFICATE_KEY_USAGE, {"usage": key_usage(digital_signature=True, crl_sign=True)}, {}
    ),
    "for servers only": Case(Reason.PEER_CERTIFICATE_KEY_USAGE, {"purposes": SERVER_ONLY}, {"purposes": BOTH_SIDES}),
    "expired": Case(Reason.PEER_CERTIFICATE_EXPIRED, {"not_after": NOW - 1}, {"not_after": NOW}),
    "not yet valid": Case(Reason.PEER_CERTIFICATE_NOT_YET_VALID, {"not_before": NOW + 1}, {"not_before": NOW}),
    "RSA of 1024 bits": Case(
        Reason.PEER_CERTIFICATE_WEAK, {"key": private_key("RSA-1024")}, {"key": private_key("RSA-2048")}
    ),
    "curve P-224": Case(Reason.PEER_CERTIFICATE_WEAK, {"key": private_key("P-224")}, {"key": private_key("P-384")}),
    "name constraints in the leaf": Case(
        Reason.PEER_CERTIFICATE_NAME_CONSTRAINT, {"extra": ((NAMES_ALLOWED, False),)}, {"key": private_key("Ed25519")}
    ),
    "an unknown critical extension": Case(
        Reason.PEER_CERTIFICATE_UNTRUSTED,
        {"extra": ((UNKNOWN_EXTENSION, True),)},
        {"extra": ((UNKNOWN_EXTENSION, False),)},
    ),
}


@pytest.mark.parametrize("case", LEAVES.values(), ids=LEAVES.keys())
def test_a_leaf_with_one_defect_is_refused_for_it_and_its_twin_is_accepted(case: Case) -> None:
    subject = verifier(bundles=(BUNDLE,))
    assert refusal(subject, ANY, evidence(ROOT.issue(**case.bad))) is case.reason
    peer = accept(subject, ANY, evidence(ROOT.issue(**case.good))).peer
    assert peer is not None
    assert peer.names == (FRONTEND,)
    assert peer.trust is PeerTrust.CERTIFICATE


@pytest.mark.parametrize("case", LEAVES.values(), ids=LEAVES.keys())
def test_the_second_answer_equals_the_first(case: Case) -> None:
    subject, bad = verifier(bundles=(BUNDLE,)), evidence(ROOT.issue(**case.bad))
    assert [refusal(subject, ANY, bad) for _ in range(3)] == [case.reason] * 3


@dataclass(frozen=True)
class Chain:
    """An intermediate whose profile has `bad` is refused for `reason`; with `good` it is accepted."""

    reason: Reason
    bad: dict[str, Any]
    good: dict[str, Any]


INTERMEDIATES = {
    "is no CA": Chain(
        Reason.PEER_CERTIFICATE_UNTRUSTED, {"basic": x509.BasicConstraints(ca=False, path_length=None)}, {}
    ),
    "has no basic constraints": Chain(Reason.PEER_CERTIFICATE_UNTRUSTED, {"basic": None}, {"basic": IS_CA}),
    "may not sign certificates": Chain(Reason.PEER_CERTIFICATE_KEY_USAGE, {"usage": SIGNS}, {"usage": CERTIFIES}),
    "expired": Chain(Reason.PEER_CERTIFICATE_EXPIRED, {"not_after": NOW - 1}, {"not_after": NOW}),
    "is not yet valid": Chain(Reason.PEER_CERTIFICATE_NOT_YET_VALID, {"not_before": NOW + 1}, {"not_before": NOW}),
    "has a weak key": Chain(
        Reason.PEER_CERTIFICATE_WEAK, {"key": private_key("RSA-1024")}, {"key": private_key("RSA-2048")}
    ),
    "has an exponent that is costly": Chain(
        Reason.PEER_CERTIFICATE_WEAK, {"key": long_exponent_key()}, {"key": private_key("RSA-3072")}
    ),
    "has name constraints": Chain(Reason.PEER_CERTIFICATE_NAME_CONSTRAINT, {"extra": ((NAMES_ALLOWED, True),)}, {}),
    "has an unknown critical extension": Chain(
        Reason.PEER_CERTIFICATE_UNTRUSTED, {"extra": ((UNKNOWN_EXTENSION, True),)}, {}
    ),
}


@pytest.mark.parametrize("case", INTERMEDIATES.values(), ids=INTERMEDIATES.keys())
def test_an_intermediate_with_one_defect_breaks_the_chain_and_its_twin_holds(case: Chain) -> None:
    subject = verifier(bundles=(BUNDLE,))

    def answer(changed: dict[str, Any]) -> Evidence:
        middle = ROOT.intermediate("middle", **changed)
        return evidence(middle.issue(), *middle.above)

    assert refusal(subject, ANY, answer(case.bad)) is case.reason
    assert accept(subject, ANY, answer(case.good)).principal == FRONTEND


def test_a_signature_with_sha1_is_refused_in_leaf_and_intermediate() -> None:
    rsa_root = root("rsa", key=private_key("RSA-2048"))
    subject = verifier(bundles=(bundle(rsa_root.pem),))
    leaf, middle = rsa_root.issue(), rsa_root.intermediate("middle")
    assert accept(subject, ANY, evidence(leaf)).principal == FRONTEND
    assert refusal(subject, ANY, evidence(with_sha1(leaf, rsa_root.key))) is Reason.PEER_CERTIFICATE_WEAK
    below = middle.issue()
    assert accept(subject, ANY, evidence(below, middle.certificate)).principal == FRONTEND
    weak = with_sha1(middle.certificate, rsa_root.key)
    assert refusal(subject, ANY, evidence(below, weak)) is Reason.PEER_CERTIFICATE_WEAK


def test_a_certificate_of_another_ca_with_the_same_names_is_untrusted() -> None:
    impostor = root(key=private_key("P-256", 99))
    subject = verifier(bundles=(BUNDLE,))
    assert refusal(subject, ANY, evidence(impostor.issue())) is Reason.PEER_CERTIFICATE_UNTRUSTED
    assert refusal(subject, ANY, evidence(impostor.issue(), impostor.certificate)) is Reason.PEER_CERTIFICATE_UNTRUSTED
    assert accept(subject, ANY, evidence(ROOT.issue())).principal == FRONTEND


def test_an_authority_is_trusted_for_its_own_trust_domain_only() -> None:
    partner = root("partner")
    subject = verifier(bundles=(BUNDLE, bundle(partner.pem, "partner.example")))
    spiffe_id = "spiffe://partner.example/ns/default/sa/frontend"
    assert accept(subject, ANY, evidence(partner.issue(uris=(spiffe_id,)), principal=spiffe_id)).principal == spiffe_id
    assert refusal(subject, ANY, evidence(partner.issue())) is Reason.PEER_CERTIFICATE_UNTRUSTED


def test_a_path_length_bounds_the_intermediates_below() -> None:
    short = root("short", basic=x509.BasicConstraints(ca=True, path_length=0))
    middle = short.intermediate("middle")
    subject = verifier(bundles=(bundle(short.pem),))
    assert accept(subject, ANY, evidence(short.issue())).principal == FRONTEND
    assert refusal(subject, ANY, evidence(middle.issue(), *middle.above)) is Reason.PEER_CERTIFICATE_UNTRUSTED


def deep(length: int) -> list[x509.Certificate]:
    """A leaf and the intermediates above it: `length` certificates below the root."""
    authority: Authority = ROOT
    for number in range(length - 1):
        authority = authority.intermediate(f"level {number}")
    return [authority.issue(), *authority.above]


def test_a_path_has_at_most_eight_certificates_with_its_authority() -> None:
    subject = verifier(bundles=(BUNDLE,))
    assert accept(subject, ANY, evidence(*deep(7))).principal == FRONTEND
    assert refusal(subject, ANY, evidence(*deep(8))) is Reason.PEER_CERTIFICATE_UNTRUSTED


def test_more_than_eight_certificates_or_64_kib_are_refused_unread() -> None:
    subject = verifier(bundles=(BUNDLE,))
    leaf = ROOT.issue()
    assert accept(subject, ANY, evidence(*[leaf] * 8)).principal == FRONTEND
    assert refusal(subject, ANY, evidence(*[leaf] * 9)) is Reason.PEER_CHAIN_TOO_LONG
    padded = presented(leaf) + "%0A" * 22_000
    assert refusal(subject, ANY, Evidence(FRONTEND, padded)) is Reason.PEER_CHAIN_TOO_LONG


def test_lookalike_intermediates_cannot_prolong_the_search() -> None:
    lookalikes = [root("middle", key=private_key("P-256", number)).certificate for number in range(6)]
    looped = [ROOT.intermediate("middle", key=private_key("P-256", number)) for number in range(6)]
    subject = verifier(bundles=(bundle(ROOT.pem, x509_intermediates=pem(*lookalikes * 20)),))
    reason = refusal(subject, ANY, evidence(looped[0].issue()))
    assert reason in {Reason.PEER_CHAIN_TOO_LONG, Reason.PEER_CERTIFICATE_UNTRUSTED}


MALFORMED = {
    "no PEM": "hello",
    "stray percent": "%",
    "bad escape": presented(ROOT.certificate) + "%zz",
    "not ASCII": "ä",
    "surrogate": "\udc80",
    "half a block": presented(ROOT.certificate)[:200],
    "garbage after": presented(ROOT.certificate) + "x",
    "a key": "-----BEGIN PRIVATE KEY-----%0AAAAA%0A-----END PRIVATE KEY-----",
    "a negative serial number": quote(ssl.DER_cert_to_PEM_cert(with_negative_serial(ROOT.issue()))),
    "empty block": "-----BEGIN CERTIFICATE-----%0AAAAA%0A-----END CERTIFICATE-----",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_text_that_is_not_a_certificate_is_refused_with_both_semantics(text: str, reading: Options) -> None:
    subject = verifier(bundles=(BUNDLE,), options=reading)
    assert refusal(subject, ANY, Evidence(FRONTEND, text)) is Reason.PEER_CERTIFICATE_MALFORMED


def test_plus_signs_need_no_escaping() -> None:
    text = presented(ROOT.issue()).replace("%2B", "+")
    assert accept(verifier(bundles=(BUNDLE,)), ANY, Evidence(FRONTEND, text)).principal == FRONTEND


def test_the_operator_chooses_the_sources_of_intermediates() -> None:
    middle = ROOT.intermediate("middle")
    leaf = middle.issue()
    bare = evidence(leaf)
    with_helpers = bundle(ROOT.pem, x509_intermediates=pem(*middle.above))
    forwarded = request(x_forwarded_client_cert=xfcc(leaf, *middle.above))
    sources: dict[ChainSource, tuple[Any, Evidence, TrustBundle]] = {
        ChainSource.CERTIFICATE: (ANY, evidence(leaf, *middle.above), BUNDLE),
        ChainSource.BUNDLE: (ANY, bare, with_helpers),
        ChainSource.XFCC: (forwarded, bare, BUNDLE),
    }
    for source, (asked, given, trusted) in sources.items():
        named = verifier(bundles=(trusted,), options=options(chain_from=(source,)))
        assert accept(named, asked, given).principal == FRONTEND, source
        others = tuple(other for other in ChainSource if other is not source)
        unnamed = verifier(bundles=(trusted,), options=options(chain_from=others))
        assert refusal(unnamed, asked, given) is Reason.PEER_CERTIFICATE_UNTRUSTED, source


def test_a_forwarded_chain_must_belong_to_the_presented_leaf() -> None:
    subject = verifier(bundles=(BUNDLE,), options=options(chain_from=(ChainSource.XFCC,)))
    asked = request(x_forwarded_client_cert=xfcc(ROOT.issue(uris=(OTHER,))))
    assert refusal(subject, asked, evidence(ROOT.issue())) is Reason.PEER_CERTIFICATE_MALFORMED
    huge = request(x_forwarded_client_cert='Chain="' + "A" * 200_000 + '"')
    assert refusal(subject, huge, evidence(ROOT.issue())) is Reason.PEER_CHAIN_TOO_LONG
    none = request(x_forwarded_client_cert=f"By=x;URI={FRONTEND}")
    assert accept(subject, none, evidence(ROOT.issue())).principal == FRONTEND


def test_time_and_name_are_checked_again_on_every_call() -> None:
    subject = verifier(bundles=(BUNDLE,))
    given = evidence(ROOT.issue())
    assert accept(subject, ANY, given).principal == FRONTEND
    assert refusal(subject, ANY, given, NOW + HOUR + 1) is Reason.PEER_CERTIFICATE_EXPIRED
    assert refusal(subject, ANY, given, NOW - HOUR - 1) is Reason.PEER_CERTIFICATE_NOT_YET_VALID
    assert refusal(subject, ANY, structs.replace(given, principal=OTHER)) is Reason.PEER_SAN_MISMATCH
    assert accept(subject, ANY, structs.replace(given, principal="")).principal == FRONTEND
    assert accept(subject, ANY, given, NOW + HOUR).principal == FRONTEND


def test_a_certificate_that_is_not_yet_valid_is_accepted_once_it_is() -> None:
    subject = verifier(bundles=(BUNDLE,))
    given = evidence(ROOT.issue(not_before=NOW + 10))
    assert refusal(subject, ANY, given) is Reason.PEER_CERTIFICATE_NOT_YET_VALID
    assert accept(subject, ANY, given, NOW + 10).principal == FRONTEND


def test_when_a_cached_path_expires_another_one_is_searched() -> None:
    old = ROOT.intermediate("middle", not_after=NOW + 10)
    new = ROOT.intermediate("middle", not_before=NOW + 10)
    subject = verifier(bundles=(BUNDLE,))
    given = evidence(old.issue(), *old.above, *new.above)
    for now in (NOW, NOW + 10, NOW + 11):
        assert accept(subject, ANY, given, now).principal == FRONTEND
    alone = evidence(old.issue(), *old.above)
    assert accept(subject, ANY, alone).principal == FRONTEND
    assert refusal(subject, ANY, alone, NOW + 11) is Reason.PEER_CERTIFICATE_EXPIRED


def test_an_expired_authority_verifies_nothing() -> None:
    old = root("old", not_after=NOW - 1)
    subject = verifier(bundles=(bundle(old.pem),))
    assert refusal(subject, ANY, evidence(old.issue())) is Reason.PEER_CERTIFICATE_EXPIRED
    both = verifier(bundles=(bundle(old.pem + ROOT.pem),))
    assert accept(both, ANY, evidence(ROOT.issue())).principal == FRONTEND
    assert both.bundle_expiry == {"cluster.local": NOW - 1}


def test_the_digest_is_that_of_the_leaf() -> None:
    leaf = ROOT.issue()
    peer = accept(verifier(bundles=(BUNDLE,)), ANY, evidence(leaf)).peer
    assert peer is not None
    assert peer.certificate_sha256 == leaf.fingerprint(hashes.SHA256())


def test_a_verified_peer_has_the_uris_the_issuer_and_the_serial_number_of_its_leaf() -> None:
    leaf = ROOT.issue()
    peer = accept(verifier(bundles=(BUNDLE,)), ANY, evidence(leaf)).peer
    assert peer is not None
    assert peer.certificate == CertificateNames((FRONTEND,), "CN=root", leaf.serial_number)
    several = ROOT.issue(uris=(FRONTEND, "urn:device:1"))
    peer = accept(verifier(options=ISTIO, bundles=(BUNDLE,)), ANY, evidence(several)).peer
    assert peer is not None
    assert peer.certificate is not None
    assert peer.certificate.uris == (FRONTEND, "urn:device:1")


def test_without_a_certificate_the_proxys_name_counts_only_if_the_operator_trusts_it() -> None:
    word = Evidence(FRONTEND)
    assert accept(verifier(), ANY, word).peer is None
    believing = verifier(options=options(trust_proxy=True))
    peer = accept(believing, ANY, word).peer
    assert peer is not None
    assert (peer.names, peer.trust, peer.certificate_sha256) == ((FRONTEND,), PeerTrust.PROXY, None)
    assert accept(believing, ANY, NO_EVIDENCE).peer is None
    for bad in ("CN=frontend", "spiffe://cluster.local", FRONTEND + "\n"):
        assert refusal(believing, ANY, Evidence(bad)) is Reason.PEER_SPIFFE_ID_INVALID


def test_a_required_certificate_must_be_present_even_if_the_proxy_is_trusted() -> None:
    for reading in (STRICT, ISTIO):
        required = replace(reading, verify_certificate=CertificateCheck.REQUIRED, trust_proxy=True)
        subject = verifier(bundles=(BUNDLE,), options=required)
        assert refusal(subject, ANY, Evidence(FRONTEND)) is Reason.PEER_CERTIFICATE_MISSING
        assert refusal(subject, ANY, NO_EVIDENCE) is Reason.PEER_CERTIFICATE_MISSING
        assert accept(subject, ANY, evidence(ROOT.issue())).principal == FRONTEND


def test_with_verification_never_the_certificate_is_not_trusted() -> None:
    never = options(verify_certificate=CertificateCheck.NEVER)
    given = evidence(root("impostor").issue())
    assert accept(verifier(bundles=(BUNDLE,), options=never), ANY, given).peer is None
    peer = accept(verifier(options=replace(never, trust_proxy=True)), ANY, given).peer
    assert peer is not None
    assert peer.trust is PeerTrust.PROXY


def test_a_certificate_without_any_bundle_is_of_an_unknown_trust_domain() -> None:
    assert refusal(verifier(), ANY, evidence(ROOT.issue())) is Reason.PEER_TRUST_DOMAIN_UNKNOWN
    empty = verifier(bundles=(bundle(""),))
    assert refusal(empty, ANY, evidence(ROOT.issue())) is Reason.PEER_TRUST_DOMAIN_UNKNOWN


def test_istio_uses_every_name_of_the_certificate_in_envoys_order() -> None:
    leaf = ROOT.issue(
        uris=("https://a.example/x", FRONTEND, OTHER), dns=("a.example", "b.example"), subject="front, end"
    )
    peer = accept(verifier(options=ISTIO), ANY, evidence(leaf)).peer
    assert peer is not None
    assert peer.names == ("https://a.example/x", FRONTEND, OTHER, "a.example", "b.example", r"CN=front\, end")
    assert str(peer.spiffe_id) == FRONTEND
    assert peer.trust is PeerTrust.PROXY
    assert peer.certificate_sha256 is None


def test_istio_distinguishes_a_peer_without_names_from_no_peer() -> None:
    subject = verifier(options=ISTIO)
    nameless = accept(subject, ANY, evidence(ROOT.issue(uris=()), principal="")).peer
    assert nameless is not None
    assert (nameless.names, nameless.spiffe_id, nameless.principal) == ((), None, "")
    assert accept(subject, ANY, NO_EVIDENCE).peer is None
    peer = accept(subject, ANY, Evidence("CN=told")).peer
    assert peer is not None
    assert (peer.names, peer.spiffe_id) == (("CN=told",), None)


def test_istio_verifies_the_chain_once_a_bundle_is_loaded() -> None:
    subject = verifier(bundles=(BUNDLE,), options=ISTIO)
    many = ROOT.issue(uris=(FRONTEND, OTHER), dns=("a.example",), usage=None)
    peer = accept(subject, ANY, evidence(many)).peer
    assert peer is not None
    assert peer.names == (FRONTEND, OTHER, "a.example")
    assert peer.trust is PeerTrust.CERTIFICATE
    impostor = root("impostor")
    assert refusal(subject, ANY, evidence(impostor.issue())) is Reason.PEER_CERTIFICATE_UNTRUSTED
    assert refusal(subject, ANY, evidence(many, principal="spiffe://x/y")) is Reason.PEER_SAN_MISMATCH
    mixed = ROOT.issue(uris=(FRONTEND, "spiffe://other.example/a"))
    assert refusal(subject, ANY, evidence(mixed)) is Reason.PEER_SAN_COUNT
    shouted = ROOT.issue(uris=(FRONTEND, "SPIFFE://other.example/a"))
    assert refusal(subject, ANY, evidence(shouted)) is Reason.PEER_SPIFFE_ID_INVALID
    by_subject = ROOT.issue(uris=(), subject="frontend")
    assert accept(subject, ANY, evidence(by_subject, principal="CN=frontend")).principal == "CN=frontend"
    never = replace(ISTIO, verify_certificate=CertificateCheck.NEVER)
    peer = accept(verifier(bundles=(BUNDLE,), options=never), ANY, evidence(impostor.issue())).peer
    assert peer is not None
    assert peer.trust is PeerTrust.PROXY


def test_a_subject_is_formatted_as_openssl_does() -> None:
    oid = x509.NameOID
    parts = [(oid.COUNTRY_NAME, "DE"), (oid.COMMON_NAME, "Jürgen+1"), (oid.EMAIL_ADDRESS, "a@b"), (oid.SURNAME, "J")]
    subject = x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])
    peer = accept(verifier(options=ISTIO), ANY, evidence(ROOT.issue(uris=(), subject=subject))).peer
    assert peer is not None
    assert peer.names == (r"SN=J,emailAddress=a@b,CN=J\C3\BCrgen\+1,C=DE",)


FAULTS = {
    "text that is no PEM": ("hello", "contains no certificate"),
    "half a block": (ROOT.pem + ROOT.pem[:100], "broken PEM block"),
    "a block of nonsense": ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "can't be read"),
    "an SVID": (pem(ROOT.issue()), "certificate 1 of `x509Authorities` is not a CA"),
    "a weak CA": (ROOT.pem + root("weak", key=private_key("RSA-1024")).pem, "certificate 2 of"),
    "a private key": ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "private key"),
}


@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_an_invalid_bundle_is_a_fault_at_its_position_with_a_hint(text: str, message: str) -> None:
    faults: list[Fault] = []
    verifier(bundles=(bundle(text),), faults=faults)
    [fault] = faults
    assert (fault.source, fault.line, fault.column) == ("test.yaml", 7, 3)
    assert message in fault.message
    assert fault.hint


def test_all_faults_of_all_bundles_are_reported() -> None:
    faults: list[Fault] = []
    subject = verifier(
        bundles=(bundle("x", x509_intermediates="y"), bundle(ROOT.pem, "b.example", jwt_authorities={"keys": 1})),
        faults=faults,
    )
    assert len(faults) == 3
    assert sorted(subject.bundle_slot.current) == ["b.example", "cluster.local"]


def test_several_bundles_of_one_domain_are_merged() -> None:
    second = root("second")
    subject = verifier(bundles=(BUNDLE, bundle(second.pem, jwt_authorities={"keys": []})))
    for authority in (ROOT, second):
        assert accept(subject, ANY, evidence(authority.issue())).principal == FRONTEND
    assert subject.bundle_expiry == {"cluster.local": CA_PROFILE.not_after}


def test_a_name_longer_than_any_spiffe_id_is_refused_with_both_semantics() -> None:
    long = f"spiffe://cluster.local/{'a' * 3000}"
    presented_long = Evidence("", presented(ROOT.issue(uris=(long,))))
    with_bundle = verifier(bundles=(bundle(ROOT.pem),), options=ISTIO)
    assert refusal(with_bundle, ANY, presented_long) is Reason.PEER_CERTIFICATE_MALFORMED
    assert refusal(verifier(options=ISTIO), ANY, presented_long) is Reason.PEER_CERTIFICATE_MALFORMED


def test_a_cached_mismatch_is_refused_again_without_verifying_again() -> None:
    subject = verifier(bundles=(BUNDLE,))
    given = evidence(ROOT.issue(), principal=OTHER)
    for _ in range(3):
        assert refusal(subject, ANY, given) is Reason.PEER_SAN_MISMATCH
    assert subject._peers.cache_lookups == (2, 1)
    assert accept(subject, ANY, structs.replace(given, principal=FRONTEND)).principal == FRONTEND


def test_refused_certificates_push_out_no_verified_peer() -> None:
    subject = verifier(bundles=(BUNDLE,))
    given, forger = evidence(ROOT.issue()), root("other")
    accept(subject, ANY, given)
    for _ in range(20):
        assert refusal(subject, ANY, evidence(forger.issue())) is Reason.PEER_CERTIFICATE_UNTRUSTED
    assert list(subject._peers._accepted) == [given]


def test_a_rotation_of_the_bundles_ends_what_was_accepted_and_what_was_refused() -> None:
    subject, other = verifier(bundles=(BUNDLE,)), verifier(bundles=(bundle(root("other").pem),))
    before, after = subject.bundle_slot.current, other.bundle_slot.current
    given = evidence(ROOT.issue())
    for _ in range(2):
        assert accept(subject, ANY, given).principal == FRONTEND
        subject.bundle_slot.current = after
        assert refusal(subject, ANY, given) is Reason.PEER_CERTIFICATE_UNTRUSTED
        assert refusal(subject, ANY, given) is Reason.PEER_CERTIFICATE_UNTRUSTED
        subject.bundle_slot.current = before


def test_the_same_leaf_with_another_forwarded_chain_is_verified_on_its_own() -> None:
    middle = ROOT.intermediate("middle")
    leaf = middle.issue()
    subject = verifier(bundles=(BUNDLE,), options=options(chain_from=(ChainSource.XFCC,)))
    complete = request(x_forwarded_client_cert=xfcc(leaf, *middle.above))
    for _ in range(2):
        assert accept(subject, complete, evidence(leaf)).principal == FRONTEND
        assert refusal(subject, ANY, evidence(leaf)) is Reason.PEER_CERTIFICATE_UNTRUSTED
