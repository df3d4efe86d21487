"""Bundles that change under a verifier: results with one set of bundles are not valid for the next."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.pki import FRONTEND, HERE, HOUR, NOW, Authority, presented, root
from tests.unit.authn.support import ISTIO, STRICT, accept, bundle, refusal, request, verifier
from zta_authz.authn.bundles import Bundles, compile_bundles
from zta_authz.authn.chain import Authorities
from zta_authz.authn.peers import PeerVerifier
from zta_authz.errors import Fault, Reason
from zta_authz.model.identity import PeerTrust
from zta_authz.model.options import CertificateCheck
from zta_authz.model.request import Evidence
from zta_authz.model.spiffe import TrustDomain

if TYPE_CHECKING:
    import pytest

OLD = root("old")
NEW = root("new")
PARTNER_ID = "spiffe://partner.example/ns/a/sa/b"
ANY = request()


def bundles(**domains: Authority) -> Bundles:
    """Authorities by trust domain; `_` in a name stands for `.`."""
    names = {name.replace("_", "."): authority for name, authority in domains.items()}
    return MappingProxyType({n: Authorities(TrustDomain(n), (a.certificate,)) for n, a in names.items()})


def evidence(authority: Authority, spiffe_id: str = FRONTEND) -> Evidence:
    return Evidence(spiffe_id, presented(authority.issue(uris=(spiffe_id,))))


def test_a_verified_certificate_is_denied_once_its_authority_is_removed() -> None:
    subject = verifier(options=STRICT)
    asked = evidence(OLD)
    subject.bundle_slot.current = bundles(cluster_local=OLD)
    assert accept(subject, ANY, asked).peer is not None
    subject.bundle_slot.current = bundles(cluster_local=NEW)
    assert refusal(subject, ANY, asked) is Reason.PEER_CERTIFICATE_UNTRUSTED
    subject.bundle_slot.current = bundles()
    assert refusal(subject, ANY, asked) is Reason.PEER_TRUST_DOMAIN_UNKNOWN


def test_a_refused_certificate_is_accepted_once_its_authority_is_loaded() -> None:
    subject = verifier(options=STRICT)
    asked = evidence(NEW)
    subject.bundle_slot.current = bundles(cluster_local=OLD)
    assert refusal(subject, ANY, asked) is Reason.PEER_CERTIFICATE_UNTRUSTED
    subject.bundle_slot.current = bundles(cluster_local=NEW)
    assert accept(subject, ANY, asked).peer is not None


def test_with_the_same_bundles_the_result_stays_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = verifier(options=STRICT)
    subject.bundle_slot.current = bundles(cluster_local=OLD)
    asked = evidence(OLD)
    accept(subject, ANY, asked)
    monkeypatch.setattr(PeerVerifier, "_read", None)  # a second parse would fail
    accept(subject, ANY, asked)
    subject.bundle_slot.current = bundles(cluster_local=OLD)
    assert refusal(subject, ANY, asked) is Reason.PEER_CERTIFICATE_MALFORMED


def test_an_authority_of_one_trust_domain_does_not_apply_to_another() -> None:
    subject = verifier(options=STRICT)
    subject.bundle_slot.current = bundles(cluster_local=OLD, partner_example=NEW)
    accept(subject, ANY, evidence(NEW, PARTNER_ID))
    assert refusal(subject, ANY, evidence(OLD, PARTNER_ID)) is Reason.PEER_CERTIFICATE_UNTRUSTED
    assert refusal(subject, ANY, evidence(NEW, FRONTEND)) is Reason.PEER_CERTIFICATE_UNTRUSTED


def test_status_reports_the_bundles_in_force() -> None:
    subject = verifier(bundles=(bundle(OLD.pem),))
    assert list(subject.bundle_slot.current) == ["cluster.local"]
    subject.bundle_slot.current = bundles(partner_example=NEW)
    assert subject.bundle_expiry == {"partner.example": NOW + 100 * HOUR}


def test_with_bundles_from_settings_no_certificate_is_accepted_before_they_are_loaded() -> None:
    asked = evidence(OLD)
    identity = accept(verifier(options=replace(ISTIO, verify_certificate=CertificateCheck.WHEN_PRESENT)), ANY, asked)
    assert identity.peer is not None
    assert identity.peer.trust is PeerTrust.PROXY
    waiting = replace(ISTIO, verify_certificate=CertificateCheck.WHEN_PRESENT, bundles_from_elsewhere=True)
    assert refusal(verifier(options=waiting), ANY, asked) is Reason.PEER_TRUST_DOMAIN_UNKNOWN


def test_a_document_may_hold_a_spiffe_bundle_as_text_or_mapping() -> None:
    x5c = base64.b64encode(OLD.certificate.public_bytes(Encoding.DER)).decode()
    document = {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [x5c]}]}
    for form in (document, json.dumps(document)):
        faults: list[Fault] = []
        compiled = compile_bundles([bundle("", spiffe_bundle=form)], faults)
        assert faults == []
        assert compiled["cluster.local"].anchors == (OLD.certificate,)


def test_an_error_in_a_spiffe_bundle_is_a_fault_at_its_position() -> None:
    faults: list[Fault] = []
    compile_bundles([bundle("", spiffe_bundle="{}", spiffe_bundle_position=HERE)], faults)
    assert [(fault.source, fault.line, fault.column) for fault in faults] == [(HERE.source, HERE.line, HERE.column)]
