"""Envoy's bootstrap and its parts, as typed messages (envoy-data-plane) and as mappings for YAML and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any as AnyValue, Final

from betterproto2 import Casing
from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources

from zta_authz.cli.envoy_config.clusters import authz_cluster, collector_cluster, envoy_address, upstream_cluster
from zta_authz.cli.envoy_config.listener import authz_filter, listener

if TYPE_CHECKING:
    from betterproto2 import Message

    from zta_authz.cli.envoy_config.envoy_options import EnvoyOptions

_PACKAGE: Final = "type.googleapis.com/envoy.extensions"
_EXPLICIT_DEFAULTS: Final[dict[str, dict[str, object]]] = {
    f"{_PACKAGE}.filters.http.ext_authz.v3.ExtAuthz": {"failure_mode_allow": False, "clear_route_cache": False},
    f"{_PACKAGE}.filters.network.http_connection_manager.v3.HttpConnectionManager": {
        "use_remote_address": False,
        "forward_client_cert_details": "SANITIZE",
        "merge_slashes": False,
    },
    f"{_PACKAGE}.transport_sockets.tls.v3.DownstreamTlsContext": {"require_client_certificate": False},
}
"""Security-relevant defaults that protobuf omits and that the output must show."""
_VERIFICATION: Final = "trust_chain_verification"


def bootstrap(options: EnvoyOptions) -> Bootstrap:
    """Return a bootstrap with one listener, the ext_authz filter and one upstream."""
    clusters = [authz_cluster(options.authz), upstream_cluster(options.upstream, http2=options.upstream_http2)]
    if options.tracing is not None:
        clusters.append(collector_cluster(options.tracing.collector))
    return Bootstrap(
        admin=None if options.admin is None else Admin(address=envoy_address(options.admin)),
        static_resources=BootstrapStaticResources(listeners=[listener(options)], clusters=clusters),
    )


def to_mapping(message: Message) -> dict[str, AnyValue]:
    """Convert a message to the mapping that Envoy reads, with security-relevant defaults written out."""
    mapping: dict[str, AnyValue] = message.to_dict(casing=Casing.SNAKE)
    _add_explicit_defaults(mapping)
    return mapping


def _add_explicit_defaults(value: AnyValue) -> None:
    if isinstance(value, dict):
        type_url = value.get("@type", "")
        for name, default in _EXPLICIT_DEFAULTS.get(type_url, {}).items():
            value.setdefault(name, default)
        if type_url.endswith(".DownstreamTlsContext"):
            value["common_tls_context"]["validation_context"].setdefault(_VERIFICATION, "VERIFY_TRUST_CHAIN")
        for item in value.values():
            _add_explicit_defaults(item)
    elif isinstance(value, list):
        for item in value:
            _add_explicit_defaults(item)


def parts(options: EnvoyOptions) -> dict[str, dict[str, AnyValue]]:
    """Return the parts that can be printed: `filter`, `cluster` (of zta-authz) and `bootstrap`."""
    return {
        "filter": to_mapping(authz_filter(options)),
        "cluster": to_mapping(authz_cluster(options.authz)),
        "bootstrap": to_mapping(bootstrap(options)),
    }
