"""Settings of trust bundles and of our own certificate: consistency checks, and the sources made from them."""

from __future__ import annotations

import os.path
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault, FaultsError, SettingsErrors
from zta_authz.keys.bundle_endpoint import BundleEndpoint
from zta_authz.keys.bundle_files import BundleFile
from zta_authz.keys.http_client import trusted_authorities
from zta_authz.keys.trust import TrustSources
from zta_authz.model.spiffe import SpiffeId, TrustDomain
from zta_authz.settings.inconsistency import Inconsistency

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from zta_authz.settings.environment import Path
    from zta_authz.settings.model import BundleSettings, Settings

_FILES: Final = ("cert_file", "key_file", "client_ca_file")


def trust_inconsistencies(settings: Settings) -> Iterator[Inconsistency]:
    """Yield inconsistencies between these settings."""
    yield from _tls(settings)
    yield from _root_documents(settings)
    seen: set[str] = set()
    for index, bundle in enumerate(settings.bundles):
        yield from _bundle(bundle, ("bundles", index))
        if bundle.trust_domain in seen:
            path: Path = ("bundles", index, "trust_domain")
            yield Inconsistency(path, "two bundles for one trust domain", "remove one of the two", (("bundles",),))
        seen.add(bundle.trust_domain)


def _root_documents(settings: Settings) -> Iterator[Inconsistency]:
    """Check `root_documents.paths`. Paths are compared by name, so they must be plain and within `policies`."""
    policies = [os.path.normpath(path) for path in settings.policies]
    depends: tuple[Path, ...] = (("policies",), ("root_documents",))
    for index, path in enumerate(settings.root_documents.paths or ()):
        normal = os.path.normpath(path)
        if not any(normal == policy or normal.startswith(f"{policy}/") for policy in policies):
            message = "is not a path of `policies`"
            hint = "write the path as in `policies`, or a path below it"
            yield Inconsistency(("root_documents", "paths", index), message, hint, depends)
        elif ".." in "/".join((*settings.policies, path)).split("/"):
            message = "can't be compared with paths that contain `..`"
            hint = "write the paths of `policies` without `..`"
            yield Inconsistency(("root_documents", "paths", index), message, hint, depends)


def _tls(settings: Settings) -> Iterator[Inconsistency]:
    tls = settings.tls
    if tls is None:
        return
    for name in _FILES:
        is_set = getattr(tls, name) is not None
        if tls.source == "files" and not is_set:
            yield Inconsistency(
                ("tls", name), "this field is required", "add it, or `source: workload_api`", (("tls",),)
            )
        elif tls.source != "files" and is_set:
            hint = "remove it, or write `source: files`"
            yield Inconsistency(("tls", name), "is provided by the Workload API", hint, (("tls",),))
    if tls.source == "files":
        return
    depends: tuple[Path, ...] = (("tls",), ("workload_api",))
    if settings.workload_api.socket is None:
        yield Inconsistency(
            ("tls", "source"),
            "the Workload API's socket is not set",
            "set `workload_api.socket`, or the variable SPIFFE_ENDPOINT_SOCKET",
            depends,
        )


def _bundle(bundle: BundleSettings, path: Path) -> Iterator[Inconsistency]:
    depends: tuple[Path, ...] = (("bundles",),)
    if bundle.file is None and bundle.url is None:
        yield Inconsistency(path, "the bundle has no source", "add `file` or `url`", depends)
    if bundle.url is None and bundle.endpoint_spiffe_id is not None:
        hint = "add `url`, or remove it"
        yield Inconsistency((*path, "endpoint_spiffe_id"), "the bundle has no endpoint", hint, depends)
    if bundle.ca_file is not None and (bundle.url is None or bundle.endpoint_spiffe_id is not None):
        hint = "remove it: a trust bundle authenticates other endpoints"
        yield Inconsistency((*path, "ca_file"), "`ca_file` applies to https_web endpoints only", hint, depends)
    if bundle.endpoint_spiffe_id is not None and bundle.file is None:
        serves_itself = SpiffeId.parse(bundle.endpoint_spiffe_id).trust_domain.name == bundle.trust_domain
        if serves_itself:
            hint = "add `file` with an initial bundle, obtained from the trust domain by other means"
            yield Inconsistency(path, "there is no bundle to authenticate the endpoint with", hint, depends)


def trust_sources(settings: Settings) -> TrustSources:
    """Return the sources of bundles and of our SVID. Raises `SettingsErrors` for each unusable `ca_file`."""
    files: list[BundleFile] = []
    endpoints: list[tuple[BundleEndpoint, BundleFile | None]] = []
    faults: list[Fault] = []
    for bundle in settings.bundles:
        domain = TrustDomain(bundle.trust_domain)
        file = None if bundle.file is None else BundleFile(domain, bundle.file)
        if bundle.url is None:
            files += [] if file is None else [file]
            continue
        spiffe_id = None if bundle.endpoint_spiffe_id is None else SpiffeId.parse(bundle.endpoint_spiffe_id)
        endpoint = BundleEndpoint(domain, bundle.url, spiffe_id, _authorities(bundle.ca_file, faults))
        endpoints.append((endpoint, file))
    if faults:
        raise SettingsErrors(faults)
    agent = settings.workload_api.socket or ""
    return TrustSources(
        tuple(files), tuple(endpoints), agent, settings.takes_agent_bundles, bool(agent) and settings.takes_agent_svid
    )


def _authorities(ca_file: str | None, faults: list[Fault]) -> ssl.SSLContext | None:
    try:
        return None if ca_file is None else trusted_authorities(ca_file)
    except FaultsError as error:
        faults.extend(
            Fault(fault.source, 0, 0, fault.message, "correct `ca_file` in `bundles`") for fault in error.faults
        )
        return None
