"""`zta-authz check` warns of trust that would deny every request, unless it can't know."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.snapshots import HATSHOP
from tests.support.pki import HOUR, NOW, Authority, pem, root
from zta_authz.cli.trust_warnings import outlook_warnings
from zta_authz.model.options import CertificateCheck, ChainSource, Options, Workload
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.settings.model import BundleSettings, Settings, TlsSettings, WorkloadApiSettings

if TYPE_CHECKING:
    from pathlib import Path

HAT = Options(workload=Workload(labels={"app": "hatshop"}))
REQUIRED = dataclasses.replace(HAT, verify_certificate=CertificateCheck.REQUIRED)
OVER = root(not_before=NOW - 3 * HOUR, not_after=NOW - HOUR)


def document(authority: Authority, **more: str) -> str:
    def field(name: str, text: str) -> str:
        return f"  {name}: |\n" + "".join(f"    {line}\n" for line in text.splitlines())

    spec = field("x509Authorities", authority.pem) + "".join(field(*extra) for extra in more.items())
    head = "apiVersion: zta.dev/v1\nkind: TrustBundle\nmetadata: {name: b}\nspec:\n  trustDomain: cluster.local\n"
    return f"\n---\n{head}{spec}"


def warned(
    policies: str = HATSHOP, settings: Settings | None = None, options: Options = HAT, *, whole: bool = True
) -> list[str]:
    """Where the warnings are."""
    snapshot = compile_snapshot([SourceText("p.yaml", policies)] if policies else [], options)
    return [fault.source for fault in outlook_warnings(settings or Settings(), snapshot, NOW, whole=whole)]


def files(tmp_path: Path, bundle: str) -> Settings:
    (tmp_path / "bundle.pem").write_text(bundle)
    return Settings(bundles=(BundleSettings(trust_domain="cluster.local", file=str(tmp_path / "bundle.pem")),))


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        (HATSHOP, []),
        (HATSHOP + document(root()), []),
        (HATSHOP + document(OVER), ["trust bundle"]),
    ],
)
def test_expired_authorities_of_a_document_are_warned_of(policies: str, expected: list[str]) -> None:
    assert warned(policies) == expected


def test_expired_authorities_of_a_file_are_warned_of_and_a_missing_file_is_not(tmp_path: Path) -> None:
    assert warned(settings=files(tmp_path, OVER.pem)) == ["trust bundle"]
    settings = files(tmp_path, root().pem)
    assert warned(settings=settings, options=REQUIRED) == []
    (tmp_path / "bundle.pem").unlink()
    assert warned(settings=settings, options=REQUIRED) == []


@pytest.mark.parametrize(
    ("settings", "policies", "expected"),
    [
        (Settings(), HATSHOP, ["peer.verify_certificate"]),
        (Settings(), HATSHOP + document(root()), []),
        (Settings(), HATSHOP + document(OVER), ["trust bundle", "peer.verify_certificate"]),
        (Settings(workload_api=WorkloadApiSettings(socket="unix:/run/a.sock")), HATSHOP, []),
        (Settings(bundles=(BundleSettings(trust_domain="a", url="https://a.example/b"),)), HATSHOP, []),
    ],
)
def test_required_certificates_without_trust_bundles_are_warned_of(
    settings: Settings, policies: str, expected: list[str]
) -> None:
    assert warned(policies, settings, REQUIRED) == expected
    assert "peer.verify_certificate" not in warned(policies, settings, REQUIRED, whole=False)


def test_an_expired_server_certificate_is_warned_of(tmp_path: Path) -> None:
    ca = root()
    names: dict[str, Any] = {"cert_file": str(tmp_path / "c.pem"), "client_ca_file": str(tmp_path / "ca.pem")}
    settings = Settings(tls=TlsSettings(key_file="k", **names))
    assert warned(settings=settings) == []
    (tmp_path / "ca.pem").write_text(ca.pem)
    (tmp_path / "c.pem").write_text(pem(ca.issue(not_before=NOW - 2 * HOUR, not_after=NOW - HOUR)))
    assert warned(settings=settings) == ["tls"]
    (tmp_path / "c.pem").write_text(pem(ca.issue()))
    assert warned(settings=settings) == []


def test_a_workload_without_allow_rules_is_warned_of_if_all_policies_are_checked() -> None:
    other = dataclasses.replace(HAT, workload=Workload(labels={"app": "other"}))
    assert warned(options=other) == ["workload"]
    assert warned("") == ["workload"]
    assert warned(options=other, whole=False) == []


def test_bundles_with_intermediates_get_a_hint_to_forward_the_chain() -> None:
    middle = root().intermediate("middle")
    policies = HATSHOP + document(root(), x509Intermediates=middle.pem)
    assert warned(policies) == ["peer.chain_from"]
    by_header = dataclasses.replace(HAT, chain_from=(ChainSource.CERTIFICATE, ChainSource.XFCC))
    assert warned(policies, options=by_header) == []
