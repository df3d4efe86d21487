"""Whether anybody can be allowed: what makes the service not ready, and what is denied whatever it carries."""

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
def test_certificates_in_files_that_do_not_hold_now_are_obstacles_until_they_are_replaced(
    tmp_path: Path, own: dict[str, float], authority: dict[str, float], expected: tuple[str, ...]
) -> None:
    looking = outlook(settings=over_tls(tmp_path, own, authority))
    assert looking.obstacles() == expected
    over_tls(tmp_path, VALID, VALID)
    assert looking.obstacles() == ()


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
    found = outlook(*bundles, settings=FROM_AGENT).obstacles()
    assert any("`tls.allowed_spiffe_ids`" in each for each in found) is is_obstacle


@pytest.mark.parametrize(
    ("bundles", "check", "is_obstacle"),
    [
        ((), CertificateCheck.REQUIRED, True),
        ((("a", root(**OVER)), ("b", root(**EARLY))), CertificateCheck.REQUIRED, True),
        ((("a", root(**OVER)), ("b", root())), CertificateCheck.REQUIRED, False),
        ((), CertificateCheck.WHEN_PRESENT, False),
    ],
)
def test_required_certificates_that_nothing_can_verify_are_an_obstacle(
    bundles: tuple[tuple[str, Authority], ...], check: CertificateCheck, is_obstacle: bool
) -> None:
    found = outlook(*bundles, options=dataclasses.replace(HAT, verify_certificate=check)).obstacles()
    assert any("`peer.verify_certificate`" in each for each in found) is is_obstacle


def test_a_trust_domain_whose_authorities_are_over_is_told_of_and_no_obstacle() -> None:
    looking = outlook(("a", root(**OVER)), ("b", root()))
    assert looking.obstacles() == ()
    assert looking.blanket_denials() == ("peers of trust domain `a`: its bundle has no authority that is valid now",)


def test_no_bundle_at_all_denies_every_certificate_that_is_verified() -> None:
    told = "every peer with a certificate: there is no trust bundle"
    assert outlook().blanket_denials() == (told,)
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
def test_a_workload_that_no_allow_rule_selects_is_told_of(policies: str, options: Options, denied: int) -> None:
    looking = outlook(ONE, policies=policies, options=options)
    found = [each for each in looking.blanket_denials() if "no ALLOW rule" in each]
    assert len(found) == denied
    assert looking.obstacles() == ()


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
    ("missing", "told"), [((), False), (("one",), False), (("one", "two"), True), (("one", "two", "three"), True)]
)
def test_tokens_are_told_of_when_no_issuer_has_keys(missing: tuple[str, ...], told: bool) -> None:
    looking = outlook(ONE, policies=TOKENS, missing=tuple(f"https://{name}.example" for name in missing))
    assert ("every token: no issuer's keys are there" in looking.blanket_denials()) is told


async def test_changes_are_told_once_each(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("zta_authz.service.readiness.LOOK_SECONDS", 0.01)
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
