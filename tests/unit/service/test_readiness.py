"""When nobody can be allowed: obstacles to readiness, and blanket denials."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.snapshots import HATSHOP
from tests.support.pki import HOUR, NOW, Authority, pem, root
from zta_authz.authn.chain import Authorities
from zta_authz.keys.bundle_store import BundleSource
from zta_authz.keys.trust import TrustRefresher, TrustSources
from zta_authz.model.options import CertificateCheck, Gateway, NamedWorkload, Options, Workload
from zta_authz.model.spiffe import TrustDomain
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.policy_sources.files import SnapshotHolder
from zta_authz.service.readiness import Outlook, ReadinessWatch
from zta_authz.settings.model import Settings, TlsSettings, WorkloadApiSettings

if TYPE_CHECKING:
    from pathlib import Path

PROXY = "spiffe://cluster.local/ns/default/sa/proxy"
HAT = Options(workload=Workload(labels={"app": "hatshop"}), bundles_from_elsewhere=True)
OVER = {"not_before": NOW - 3 * HOUR, "not_after": NOW - HOUR}
EARLY = {"not_before": NOW + HOUR, "not_after": NOW + 3 * HOUR}
VALID: dict[str, float] = {}


class Issuers:
    """A refresher whose issuers have no keys."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def missing_issuers(self) -> tuple[str, ...]:
        return self._names


def outlook(
    *bundles: tuple[str, Authority],
    settings: Settings | None = None,
    options: Options = HAT,
    policies: str = HATSHOP,
    missing: tuple[str, ...] = (),
) -> Outlook:
    trust = TrustRefresher(TrustSources())
    for name, authority in bundles:
        domain = TrustDomain(name)
        trust.store.put(BundleSource.FILE, Authorities(domain, (authority.certificate,)))
    snapshots = SnapshotHolder()
    snapshot = compile_snapshot([SourceText("p.yaml", policies)] if policies else [], options)
    snapshots.publish(snapshot)
    refresher: Any = Issuers(*missing)
    return Outlook(settings or Settings(), trust, snapshots, refresher, lambda: NOW)


def over_tls(tmp_path: Path, own: dict[str, float], authority: dict[str, float]) -> Settings:
    ca = root(**authority)
    (tmp_path / "cert.pem").write_text(pem(ca.issue(**own)))
    (tmp_path / "ca.pem").write_text(ca.pem)
    files = {"cert_file": str(tmp_path / "cert.pem"), "client_ca_file": str(tmp_path / "ca.pem")}
    return Settings(tls=TlsSettings(key_file="k", allowed_spiffe_ids=(PROXY,), **files))


FROM_AGENT = Settings(
    tls=TlsSettings(source="workload_api", allowed_spiffe_ids=(PROXY,)),
    workload_api=WorkloadApiSettings(socket="unix:/run/agent.sock"),
)


@pytest.mark.parametrize(
    ("own", "authority", "expected"),
    [
        (VALID, VALID, ()),
        (OVER, VALID, ("our certificate in `tls.cert_file` has expired",)),
        (EARLY, VALID, ("our certificate in `tls.cert_file` is not valid yet",)),
        (VALID, OVER, ("no authority in `tls.client_ca_file` is valid now",)),
        (VALID, EARLY, ("no authority in `tls.client_ca_file` is valid now",)),
    ],
)
def test_invalid_certificate_files_are_obstacles_until_they_are_replaced(
    tmp_path: Path, own: dict[str, float], authority: dict[str, float], expected: tuple[str, ...]
) -> None:
    current = outlook(settings=over_tls(tmp_path, own, authority))
    assert current.obstacles() == expected
    over_tls(tmp_path, VALID, VALID)
    assert current.obstacles() == ()


@pytest.mark.parametrize(
    ("bundles", "is_obstacle"),
    [
        ((), True),
        ((("other", root()),), True),
        ((("cluster.local", root(**OVER)),), True),
        ((("cluster.local", root(**EARLY)),), True),
        ((("cluster.local", root()),), False),
    ],
)
def test_an_svid_without_authorities_that_could_sign_a_proxy_is_an_obstacle(
    bundles: tuple[tuple[str, Authority], ...], is_obstacle: bool
) -> None:
    obstacles = outlook(*bundles, settings=FROM_AGENT).obstacles()
    assert any("`tls.allowed_spiffe_ids`" in obstacle for obstacle in obstacles) is is_obstacle


@pytest.mark.parametrize(
    ("bundles", "check", "is_obstacle"),
    [
        ((), CertificateCheck.REQUIRED, True),
        ((("a", root(**OVER)), ("b", root(**EARLY))), CertificateCheck.REQUIRED, True),
        ((("a", root(**OVER)), ("b", root())), CertificateCheck.REQUIRED, False),
        ((), CertificateCheck.WHEN_PRESENT, False),
    ],
)
def test_required_certificates_that_no_authority_can_verify_are_an_obstacle(
    bundles: tuple[tuple[str, Authority], ...], check: CertificateCheck, is_obstacle: bool
) -> None:
    obstacles = outlook(*bundles, options=dataclasses.replace(HAT, verify_certificate=check)).obstacles()
    assert any("`peer.verify_certificate`" in obstacle for obstacle in obstacles) is is_obstacle


def test_a_trust_domain_whose_authorities_expired_is_reported_and_is_not_an_obstacle() -> None:
    current = outlook(("a", root(**OVER)), ("b", root()))
    assert current.obstacles() == ()
    assert current.blanket_denials() == ("peers of trust domain `a`: its bundle has no authority that is valid now",)


def test_without_any_bundle_every_verified_certificate_is_denied() -> None:
    assert outlook().blanket_denials() == ("every peer with a certificate: there is no trust bundle",)
    never = dataclasses.replace(HAT, verify_certificate=CertificateCheck.NEVER)
    assert outlook(options=never).blanket_denials() == ()


ONE = ("b", root())
ELSEWHERE = Workload(labels={"app": "x"})


@pytest.mark.parametrize(
    ("policies", "options", "denied"),
    [
        (HATSHOP, HAT, 0),
        ("", HAT, 1),
        ("", dataclasses.replace(HAT, default_allow=True), 0),
        (HATSHOP, dataclasses.replace(HAT, workload=ELSEWHERE), 1),
        (HATSHOP, dataclasses.replace(HAT, workloads=(NamedWorkload(PROXY, HAT.workload),), workload=ELSEWHERE), 0),
        (HATSHOP, dataclasses.replace(HAT, workloads=(NamedWorkload(PROXY, ELSEWHERE),)), 1),
        ("", dataclasses.replace(HAT, gateways=(Gateway(PROXY, ("*",)),)), 0),
    ],
    ids=["some", "none", "allowed by default", "for others", "listed", "listed, for others", "named by requests"],
)
def test_a_workload_that_no_allow_rule_selects_is_reported(policies: str, options: Options, denied: int) -> None:
    current = outlook(ONE, policies=policies, options=options)
    denials = [denial for denial in current.blanket_denials() if "no ALLOW rule" in denial]
    assert len(denials) == denied
    assert current.obstacles() == ()


TOKENS = (
    HATSHOP
    + """
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: default}
spec:
  jwtRules:
  - {issuer: "https://one.example", jwksUri: "https://one.example/keys"}
  - {issuer: "https://two.example", jwksUri: "https://two.example/keys"}
"""
)


@pytest.mark.parametrize(
    ("missing", "reported"), [((), False), (("one",), False), (("one", "two"), True), (("one", "two", "three"), True)]
)
def test_denied_tokens_are_reported_when_no_issuer_has_keys(missing: tuple[str, ...], reported: bool) -> None:
    current = outlook(ONE, policies=TOKENS, missing=tuple(f"https://{name}.example" for name in missing))
    assert ("every token: the keys of no issuer are loaded" in current.blanket_denials()) is reported


async def test_each_change_is_reported_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("zta_authz.service.readiness.CHECK_SECONDS", 0.01)
    obstacles, denials, changes = [()], [()], list[tuple[str, ...]]()
    watch = ReadinessWatch(lambda: obstacles[0], lambda: denials[0], lambda: changes.append(obstacles[0]))
    watch.start()
    for now, denied in ((("x",), ()), (("x",), ("y",)), ((), ("y",)), ((), ())):
        obstacles[0], denials[0] = now, denied  # type: ignore[call-overload]  # tuples of any length
        await asyncio.sleep(0.05)
    await watch.close()
    assert changes == [("x",), ()]
    assert [record.getMessage() for record in caplog.records] == [
        "not ready",
        "blanket denials",
        "ready again",
        "blanket denials",
    ]
