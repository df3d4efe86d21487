"""Warnings of `zta-authz check` about trust that would deny every request: bundles, certificates, missing ALLOW rules.

Only local files are examined. Bundles that are fetched or streamed are unknown here, and a file that is missing here
may exist on the machine that serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.authn.certificates import ValidityPeriod
from zta_authz.errors import Fault, FaultsError
from zta_authz.keys.bundle_files import BundleFile, read_bundle_file
from zta_authz.model.options import CertificateCheck, ChainSource
from zta_authz.model.spiffe import TrustDomain
from zta_authz.servers.own_certificate import CertificateFiles
from zta_authz.service.readiness import without_allow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.authn.chain import Authorities
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.settings import Settings


def outlook_warnings(settings: Settings, snapshot: Snapshot, now: float, *, whole: bool) -> list[Fault]:
    """Return warnings about trust and certificates. `whole`: `snapshot` has all policies of the service."""
    faults = [*_certificates(settings, now), *_bundles(settings, snapshot, now, whole=whole)]
    for workload in without_allow(snapshot) if whole else ():
        labels = ", ".join(f"{key}: {value}" for key, value in sorted(workload.labels.items())) or "no labels"
        named = f"the workload in namespace `{workload.namespace}` with {labels}"
        message = f"no ALLOW rule selects {named}: every request is denied"
        faults.append(
            Fault("workload", 0, 0, message, "compare `workload` in the settings with the selectors of the policies")
        )
    return faults


def _certificates(settings: Settings, now: float) -> Iterator[Fault]:
    tls = settings.tls
    if tls is None or tls.cert_file is None or tls.client_ca_file is None:
        return
    for message in CertificateFiles(tls.cert_file, tls.client_ca_file).problems(now):
        yield Fault("tls", 0, 0, f"{message}: no proxy can connect", "renew the certificate")


def _bundles(settings: Settings, snapshot: Snapshot, now: float, *, whole: bool) -> Iterator[Fault]:
    known = dict(snapshot.verifier.bundle_slot.documents)
    for bundle in settings.bundles:
        if bundle.file is not None and bundle.trust_domain not in known:
            try:
                read = read_bundle_file(BundleFile(TrustDomain(bundle.trust_domain), bundle.file))
            except FaultsError:
                continue  # `serve` reports the fault; here the file may simply not exist
            known[bundle.trust_domain] = read.authorities
    lasting = {bundle.trust_domain for bundle in settings.bundles if bundle.url is None} | set(
        snapshot.verifier.bundle_slot.documents
    )
    over = {name for name, authorities in known.items() if not _is_valid(authorities, now)}
    for name in sorted(over & lasting):
        message = f"no authority in the trust bundle of `{name}` is valid now: its peers are denied"
        yield Fault("trust bundle", 0, 0, message, "renew the bundle")
    may_come = settings.takes_agent_bundles or bool({bundle.trust_domain for bundle in settings.bundles} - over)
    required = snapshot.options.verify_certificate is CertificateCheck.REQUIRED
    if whole and required and not may_come and not known.keys() - over:
        message = "the value is `required`, but no trust bundle has a valid authority: every caller is denied"
        hint = "add a TrustBundle to the policies, or set `bundles` or `workload_api` in the settings"
        yield Fault("peer.verify_certificate", 0, 0, message, hint)
    yield from _intermediates(snapshot, known)


def _intermediates(snapshot: Snapshot, known: dict[str, Authorities]) -> Iterator[Fault]:
    """Warn if a bundle has intermediates: they sign SVIDs and change, and Envoy does not send them by default."""
    options = snapshot.options
    if options.verify_certificate is CertificateCheck.NEVER or ChainSource.XFCC in options.chain_from:
        return
    for name in sorted(name for name, authorities in known.items() if authorities.intermediates):
        message = (
            f"intermediates sign the SVIDs of `{name}`: a peer whose intermediate is not yet in the bundle is denied, "
            "because `source.certificate` contains only the leaf"
        )
        hint = "add `xfcc` to `peer.chain_from`, and configure Envoy as `zta-authz envoy-config` then prints"
        yield Fault("peer.chain_from", 0, 0, message, hint)


def _is_valid(authorities: Authorities, now: float) -> bool:
    return any(window.not_before <= now <= window.not_after for window in map(ValidityPeriod.of, authorities.anchors))
