"""Check the security of connections: clients to proxies, proxies to zta-authz, zta-authz to collectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied
from zta_authz.cli.compliance.ext_authz_clients import custom_policies, security_policies, service_names
from zta_authz.cli.compliance.installation import DOWNSTREAM_TLS, EXT_AUTHZ, SDS_RESOURCE, Installation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.authorizers import Authorizer
    from zta_authz.cli.compliance.values import Value

_OLD_VERSIONS: Final = ("TLSv1_0", "TLSv1_1", "1.0", "1.1")
_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_MTLS_MODES: Final = ("ISTIO_MUTUAL", "MUTUAL")


def clients_use_mutual_tls(installation: Installation) -> Iterator[Finding]:
    """Protected workloads can be reached only over mutual TLS."""
    scopes = {space.name for space in installation.injected_namespaces}
    scopes |= {policy.namespace for policy in custom_policies(installation)} - installation.root_namespaces
    policies = installation.of_kind("PeerAuthentication")
    for policy in policies:
        mode = policy.root.get("spec", "mtls", "mode")
        if mode is not None and mode.text() not in ("STRICT", "UNSET"):
            yield Gap(f"mutual TLS is {mode.text()}", "write `mode: STRICT`", mode.location)
        for port, value in policy.root.fields("spec", "portLevelMtls").items():
            if value.text("mode") != "STRICT":
                yield Gap(f"mutual TLS is not required on port {port}", "write `mode: STRICT`", value.location)
    for namespace in sorted(scopes):
        strict = [
            mode
            for policy in installation.of_kind_in("PeerAuthentication", {namespace, *installation.root_namespaces})
            if policy.root.get("spec", "selector") is None
            and (mode := policy.root.get("spec", "mtls", "mode")) is not None
            and mode.text() == "STRICT"
        ]
        if strict:
            yield Satisfied(strict[0].location, f"STRICT in namespace {namespace}")
        else:
            remedy = "add a PeerAuthentication with `mtls: {mode: STRICT}` and no selector"
            yield Gap(f"no PeerAuthentication requires mutual TLS in namespace {namespace}", remedy)
    yield from _gateway_clients(installation)
    for tls in installation.messages(DOWNSTREAM_TLS):
        yield from _downstream(tls.value)
    for secret in installation.messages(SDS_RESOURCE):
        yield from _verification(secret.value.get("validation_context"))
    yield from _plain_listeners(installation)


def _gateway_clients(installation: Installation) -> Iterator[Finding]:
    if not security_policies(installation):
        return
    policies = installation.of_kind("ClientTrafficPolicy")
    for policy in policies:
        validation = policy.root.get("spec", "tls", "clientValidation")
        if validation is None or validation.flag("optional"):
            yield Gap(
                "clients need no certificate", "add `clientValidation` with `optional: false`", policy.root.location
            )
        else:
            yield Satisfied(validation.location, "clients need a certificate")
        yield from _version(policy.root.get("spec", "tls", "minVersion"))
    if not policies:
        yield Gap("clients need no certificate", "add a ClientTrafficPolicy with `clientValidation`")
    for gateway in installation.of_kind("Gateway"):
        for listener in gateway.root.items("spec", "listeners"):
            if listener.text("protocol") in ("HTTP", "TCP"):
                yield Gap("the listener accepts plaintext", "write `protocol: HTTPS`", listener.location)


def _version(value: Value | None) -> Iterator[Finding]:
    if value is not None:
        if value.text() in _OLD_VERSIONS:
            yield Gap(f"TLS {value.text()} is accepted", "write 1.2 or 1.3", value.location)
        else:
            yield Satisfied(value.location, value.text())


def _downstream(tls: Value) -> Iterator[Finding]:
    required = tls.get("require_client_certificate")
    if required is None or required.flag() is not True:
        yield Gap("clients need no certificate", "write `require_client_certificate: true`", (required or tls).location)
    else:
        yield Satisfied(required.location, "true")
    for path in (("validation_context",), ("combined_validation_context", "default_validation_context")):
        yield from _verification(tls.get("common_tls_context", *path))
    yield from _version(tls.get("common_tls_context", "tls_params", "tls_minimum_protocol_version"))


def _verification(context: Value | None) -> Iterator[Finding]:
    trust = None if context is None else context.get("trust_chain_verification")
    if trust is not None and trust.text() == "ACCEPT_UNTRUSTED":
        yield Gap("any client certificate is accepted", "write `VERIFY_TRUST_CHAIN`", trust.location)


def _plain_listeners(installation: Installation) -> Iterator[Finding]:
    """Report listeners of Envoy configurations that call zta-authz but accept plaintext."""
    for _, config in installation.envoy:
        for listener in config.items("static_resources", "listeners"):
            for chain in listener.items("filter_chains"):
                asks = any(node.text("@type") == EXT_AUTHZ for node in chain.below())
                if asks and chain.get("transport_socket") is None:
                    yield Gap("the listener accepts plaintext", "add a DownstreamTlsContext", chain.location)


def authorizer_listens_securely(installation: Installation) -> Iterator[Finding]:
    """zta-authz answers on Unix sockets or over mutual TLS 1.3, never in plaintext to other machines."""
    for authorizer in installation.authorizers:
        settings = authorizer.settings
        if settings.insecure:
            yield Gap("plaintext to other machines is allowed", "remove `insecure`", authorizer.setting("insecure"))
        for number, endpoint in enumerate(settings.endpoints()):
            at = authorizer.setting("listen", number)
            if endpoint.is_unix:
                yield Satisfied(at, f"a Unix socket, mode {settings.socket.mode}")
            elif settings.tls is not None:
                yield Satisfied(at, "mutual TLS 1.3")
            elif endpoint.is_local:
                yield Satisfied(at, "reachable from this pod only")
            else:
                yield Gap("any client may send checks, in plaintext", "set `tls` with `allowed_spiffe_ids`", at)


def callers_are_named(installation: Installation) -> Iterator[Finding]:
    """The proxies that may ask are listed, and each may ask only about its own workloads."""
    for authorizer in installation.authorizers:
        if any(endpoint.is_unix for endpoint in authorizer.settings.endpoints()):
            yield from _socket(authorizer)
        if authorizer.settings.tls is None:
            continue
        names = authorizer.settings.tls.allowed_spiffe_ids
        at = authorizer.setting("tls", "allowed_spiffe_ids")
        yield Satisfied(at, ", ".join(names))
        if len(names) > 1 and not authorizer.settings.options().shared:
            message = "checks of all callers are decided for the same workload"
            yield Gap(message, "list `workloads`, or `gateways` with their namespaces", at)
        for number, gateway in enumerate(authorizer.settings.gateways):
            at = authorizer.setting("gateways", number)
            if "*" in gateway.namespaces:
                yield Gap("the gateway may send checks for every namespace", "list the namespaces of its workloads", at)
            else:
                yield Satisfied(at, f"{gateway.spiffe_id} may send checks for {', '.join(gateway.namespaces)}")
        if authorizer.settings.workloads:
            yield Satisfied(
                authorizer.setting("workloads"),
                f"{len(authorizer.settings.workloads)} workloads, each for its own proxy",
            )


def _socket(authorizer: Authorizer) -> Iterator[Finding]:
    settings = authorizer.settings.socket
    at = authorizer.setting("socket", "mode")
    if int(settings.mode, 8) & 0o002:
        yield Gap("every user of the machine may send checks", 'write `mode: "0660"`', at)
    elif settings.peer_uids:
        yield Satisfied(authorizer.setting("socket", "peer_uids"), f"users {', '.join(map(str, settings.peer_uids))}")
    else:
        yield Satisfied(at, settings.mode)


def proxies_know_who_answers(installation: Installation) -> Iterator[Finding]:
    """Proxies verify that zta-authz answers them: any other server could allow everything."""
    listeners = [endpoint for authorizer in installation.authorizers for endpoint in authorizer.settings.endpoints()]
    over_tcp = not listeners or any(not endpoint.is_unix for endpoint in listeners)
    if custom_policies(installation) and over_tcp:
        yield from _destination_rules(installation)
    if security_policies(installation):
        yield from _backend_policies(installation)
    for _, config in installation.envoy:
        for message in config.below():
            if message.text("@type") == EXT_AUTHZ:
                yield _cluster(config, message.text("grpc_service", "envoy_grpc", "cluster_name"), message)
    for ext_authz in installation.messages(EXT_AUTHZ):
        if ext_authz.holder.kind == "EnvoyFilter" and not ext_authz.merged:
            patches = [
                config_patch.get("patch", "value")
                for config_patch in ext_authz.holder.root.items("spec", "configPatches")
            ]
            clusters = {cluster.text("name"): cluster for cluster in patches if cluster is not None}
            name = ext_authz.value.text("grpc_service", "envoy_grpc", "cluster_name")
            if name in clusters:
                yield _reached(clusters[name])


def _destination_rules(installation: Installation) -> Iterator[Finding]:
    rules = [
        rule
        for rule in installation.of_kind("DestinationRule")
        if rule.root.text("spec", "host").partition(".")[0] in service_names(installation)
    ]
    for rule in rules:
        mode = rule.root.get("spec", "trafficPolicy", "tls", "mode")
        if mode is not None and mode.text() in _MTLS_MODES:
            yield Satisfied(mode.location, mode.text())
        else:
            remedy = "write `tls: {mode: ISTIO_MUTUAL}`"
            yield Gap("proxies do not verify the identity of zta-authz", remedy, (mode or rule.root).location)
    if not rules:
        remedy = "add a DestinationRule for zta-authz's Service with `tls: {mode: ISTIO_MUTUAL}`"
        yield Gap("proxies do not verify the identity of zta-authz", remedy)


def _backend_policies(installation: Installation) -> Iterator[Finding]:
    policies = installation.of_kind("BackendTLSPolicy")
    for policy in policies:
        names = policy.root.get("spec", "validation", "subjectAltNames")
        if names is None:
            message = "any holder of a certificate of the same authority can impersonate zta-authz"
            yield Gap(message, "list zta-authz's SPIFFE ID in `subjectAltNames`", policy.root.location)
        else:
            yield Satisfied(names.location, names.shown)
    if not policies:
        yield Gap("proxies do not verify the identity of zta-authz", "add a BackendTLSPolicy for zta-authz's Service")


def _cluster(config: Value, name: str, message: Value) -> Finding:
    clusters = config.items("static_resources", "clusters")
    cluster = next((cluster for cluster in clusters if cluster.text("name") == name), None)
    if cluster is None:
        return Gap(f"there is no cluster `{name}`", "add it with a pipe, or with TLS", message.location)
    return _reached(cluster)


def _reached(cluster: Value) -> Finding:
    endpoints = [node.get("address") for node in cluster.below() if node.get("address") is not None]
    addresses = [endpoint for endpoint in endpoints if endpoint is not None]
    if addresses and all(address.get("pipe") is not None for address in addresses):
        return Satisfied(addresses[0].location, addresses[0].text("pipe", "path"))
    names = [node for node in cluster.below() if node.get("match_typed_subject_alt_names") is not None]
    if cluster.get("transport_socket") is not None and names:
        return Satisfied(names[0].location, "TLS; the SPIFFE ID of zta-authz is verified")
    remedy = "add an UpstreamTlsContext with `match_typed_subject_alt_names`, or use a pipe"
    return Gap("proxies do not verify the identity of zta-authz", remedy, cluster.location)


def telemetry_is_encrypted(installation: Installation) -> Iterator[Finding]:
    """Data for collectors (who called what) is sent over TLS unless the collector is in the same pod."""
    for authorizer in installation.authorizers:
        for path, url in _collectors(authorizer.settings.model_dump(), ()):
            at = authorizer.setting(*path)
            host = urlsplit(url).hostname or ""
            if url.startswith("https://") or host in _LOCAL_HOSTS:
                yield Satisfied(at, url)
            else:
                yield Gap("telemetry is sent in plaintext", "write an https endpoint, or use a local agent", at)


def _collectors(section: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the collector endpoints in the settings, with their paths."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _collectors(value, (*path, name))
        elif name in ("endpoint", "otlp_endpoint") and isinstance(value, str):
            yield (*path, name), value
