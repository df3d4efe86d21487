"""The bootstrap of an Envoy that enforces many policy sets at once: one listener, on an address of its own, per set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.differential.credentials import ca_pem, certificate_pem, key_pem
from tests.differential.jwt_authn import jwt_filters
from tests.differential.rbac import rbac_filters, selected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.differential.case import PolicySet, Proxy

from tests.differential.case import Peer

Json = dict[str, Any]
PORTS = (47080, 47443)
"""Both are listened on by every listener, in the clear and with TLS alike."""

METADATA_NAMESPACE = "envoy.filters.http.facts"
"""Dynamic metadata set from the request: `x-fact` to key `fact` (text), `x-facts` to key `facts` (base64 of a Value)."""

_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
_SERVER = Peer(dns=("differential.test",), subject=(("CN", "differential server"),))


def bootstrap(sets: Sequence[PolicySet], addresses: Sequence[str], recorder: Path) -> Json:
    """The bootstrap for `sets`, each at its address; CheckRequests go to the gRPC server at Unix socket `recorder`."""
    tls = _transport_socket()
    listeners = [_listener(*item, tls) for item in zip(sets, addresses, strict=True)]
    cluster = {
        "name": "recorder",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "recorder",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(recorder)}}}}]}],
        },
    }
    return {"static_resources": {"listeners": listeners, "clusters": [cluster]}}


def _listener(policies: PolicySet, address: str, tls: Json) -> Json:
    first, *others = ({"socket_address": {"address": address, "port_value": port}} for port in PORTS)
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(policies)}
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    return {
        "name": address,
        "address": first,
        "additional_addresses": [{"address": other} for other in others],
        "enable_reuse_port": False,
        "listener_filters": [{"name": "tls_inspector", "typed_config": {"@type": inspector}}],
        "filter_chains": [
            {"filter_chain_match": {"transport_protocol": "tls"}, "transport_socket": tls, "filters": [manager]},
            {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [manager]},
        ],
    }


def _transport_socket() -> Json:
    """TLS with an optional client certificate, verified against the test's authority."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": False,
            "common_tls_context": {
                "tls_certificates": [
                    {
                        "certificate_chain": {"inline_string": certificate_pem(_SERVER)},
                        "private_key": {"inline_string": key_pem()},
                    }
                ],
                "validation_context": {"trusted_ca": {"inline_string": ca_pem()}},
            },
        },
    }


def _manager(policies: PolicySet) -> Json:
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router"}}
    route = {
        "match": {"prefix": ""},
        "direct_response": {"status": 200, "body": {"inline_string": "allowed"}},
        "response_headers_to_add": [
            {"header": {"key": SEEN_PREFIX + name, "value": f"%REQ({name})%"}}
            for name in (*output_headers(policies), *TOKEN_HEADERS)
        ],
    }
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "differential",
        "preserve_external_request_id": True,
        **_proxy(policies.proxy),
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            _facts_filter(),
            _ext_authz_filter(),
            *jwt_filters(policies),
            *rbac_filters(policies),
            router,
        ],
    }


def _proxy(proxy: Proxy) -> Json:
    return {
        "use_remote_address": proxy.use_remote_address,
        "xff_num_trusted_hops": proxy.xff_num_trusted_hops,
        "normalize_path": proxy.normalize_path,
        "merge_slashes": proxy.merge_slashes,
    }


def _facts_filter() -> Json:
    def rule(name: str, key: str, more: Json) -> Json:
        pair = {"metadata_namespace": METADATA_NAMESPACE, "key": key, **more}
        return {"header": name, "on_header_present": pair, "remove": False}

    rules = [
        rule("x-fact", "fact", {"type": "STRING"}),
        rule("x-facts", "facts", {"type": "PROTOBUF_VALUE", "encode": "BASE64"}),
    ]
    config = {"@type": f"{_HTTP}.header_to_metadata.v3.Config", "request_rules": rules}
    return {"name": "envoy.filters.http.header_to_metadata", "typed_config": config}


def _ext_authz_filter() -> Json:
    """As the shipped configuration has it, but for the answer: the recorder lets everything through."""
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{_HTTP}.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "recorder"}, "timeout": "20s"},
            "include_peer_certificate": True,
            "include_tls_session": True,
            "encode_raw_headers": True,
            "failure_mode_allow": False,
            "status_on_error": {"code": "ServiceUnavailable"},
            "metadata_context_namespaces": [METADATA_NAMESPACE],
        },
    }


def output_headers(policies: PolicySet) -> list[str]:
    """The headers, in lower case, that the set's JWT rules may set."""
    rules = [
        rule
        for document in selected(policies, "RequestAuthentication")
        for rule in (document.get("spec") or {}).get("jwtRules") or []
    ]
    names = {entry["header"].lower() for rule in rules for entry in rule.get("outputClaimToHeaders", ())}
    names |= {rule["outputPayloadToHeader"].lower() for rule in rules if "outputPayloadToHeader" in rule}
    return sorted(names)


def metadata_key(key: str) -> str:
    """The `when` key that reads one fact."""
    return f"experimental.{METADATA_NAMESPACE}[{key}]"


SEEN_PREFIX = "seen-"
"""Before a request header's name: the response header that says what the upstream would have seen in it."""

TOKEN_HEADERS = ("authorization", "x-token")
"""Headers that tokens stand in, and are taken out of unless they are to go on."""

IDENTIFIER = re.compile(rb"differential-\d{12}")
"""What the runner puts into `x-request-id` to find the CheckRequest of a request again."""
