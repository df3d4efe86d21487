"""Why each option that is not obvious is there, as comments in the YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.envoy_config.envoy_options import AUTHZ_CLUSTER, COLLECTOR_CLUSTER, UPSTREAM_CLUSTER
from zta_authz.cli.envoy_config.yaml_text import Annotations

if TYPE_CHECKING:
    from zta_authz.cli.envoy_config.plan import Plan

_AUTHZ: Final = f"Cluster[{AUTHZ_CLUSTER}]"
_MANAGER: Final = "HttpConnectionManager"

ORDER: Final[dict[str, tuple[str, ...]]] = {
    "Bootstrap": ("admin", "static_resources"),
    "Listener[ingress]": ("address", "per_connection_buffer_limit_bytes"),
    "Listener[ingress].filter_chains[]": ("transport_socket", "filters"),
    "DownstreamTlsContext": ("require_client_certificate",),
    "DownstreamTlsContext.common_tls_context": ("tls_params", "alpn_protocols"),
    "UpstreamTlsContext.common_tls_context": ("tls_params", "alpn_protocols"),
    _MANAGER: (
        "stat_prefix",
        "use_remote_address",
        "xff_num_trusted_hops",
        "forward_client_cert_details",
        "set_current_client_cert_details",
        "normalize_path",
        "merge_slashes",
        "path_with_escaped_slashes_action",
        "common_http_protocol_options",
        "http2_protocol_options",
        "request_headers_timeout",
        "tracing",
        "route_config",
        "http_filters",
    ),
    f"{_MANAGER}.common_http_protocol_options": ("headers_with_underscores_action", "idle_timeout"),
    "ExtAuthz": (
        "transport_api_version",
        "grpc_service",
        "failure_mode_allow",
        "status_on_error",
        "include_peer_certificate",
        "include_tls_session",
        "encode_raw_headers",
        "clear_route_cache",
        "validate_mutations",
        "with_request_body",
    ),
    "ExtAuthz.grpc_service.retry_policy": ("retry_on", "num_retries", "retry_back_off"),
    _AUTHZ: (
        "type",
        "connect_timeout",
        "typed_extension_protocol_options",
        "load_assignment",
        "transport_socket",
        "health_checks",
        "circuit_breakers",
        "outlier_detection",
    ),
    f"{_AUTHZ}.health_checks[]": ("timeout", "interval", "no_traffic_interval"),
}

_NOTES: Final[dict[str, str]] = {
    "Bootstrap.admin": "Whoever reaches this can stop Envoy and read its configuration.",
    "Listener[ingress].per_connection_buffer_limit_bytes": (
        "A slow client costs 32 KiB of buffer, not Envoy's default megabyte."
    ),
    "DownstreamTlsContext.require_client_certificate": (
        "No certificate, no connection. zta-authz verifies the chain once more, against its own trust bundles."
    ),
    "DownstreamTlsContext.common_tls_context.tls_certificates": "CHANGE, or --tls-dir: this proxy's certificate.",
    "DownstreamTlsContext.common_tls_context.validation_context": "CHANGE, or --tls-dir: who signs your clients.",
    "DownstreamTlsContext.common_tls_context.validation_context.trust_chain_verification": (
        "Never ACCEPT_UNTRUSTED with `peer.verify_certificate: never`: anybody could then name himself."
    ),
    f"{_MANAGER}.forward_client_cert_details": (
        "X-Forwarded-Client-Cert from outside is removed: an upstream that reads it would believe a stranger."
    ),
    f"{_MANAGER}.normalize_path": (
        "What is decided on must be what the application serves: `/a/../b` becomes `/b` first; `//` stays as it is, "
        "for applications differ on it, and zta-authz refuses it as ambiguous; %2F and %5C end here with 400."
    ),
    f"{_MANAGER}.common_http_protocol_options.headers_with_underscores_action": (
        "WSGI, CGI and others fold `x_zta_principal` into X-Zta-Principal; so it is with each of your own headers."
    ),
    f"{_MANAGER}.common_http_protocol_options.max_stream_duration": (
        "A stream is asked about once, when it opens. This bounds how long an allow can outlive its reasons."
    ),
    f"{_MANAGER}.tracing": "Envoy's spans; with them on, its questions to zta-authz carry a `traceparent`.",
    f"{_MANAGER}.upgrade_configs": (
        "A WebSocket is asked about once, as the GET that opens it; `max_stream_duration` ends it too."
    ),
    f"{_MANAGER}.http_filters": (
        "Asking comes first: nothing may act on a request before it is allowed, and nothing after it may change the "
        "path or the headers that were decided on."
    ),
    "ExtAuthz.grpc_service.timeout": "Written down because some control planes default to 600 s.",
    "ExtAuthz.grpc_service.retry_policy": (
        "Where a process died, drains or was never there, another one is asked, within the same timeout. An answer, "
        "whatever it says, is final."
    ),
    "ExtAuthz.grpc_service.retry_policy.retry_back_off": (
        "`max_interval` is also how long Envoy lets one try take: as long as all of them together."
    ),
    "ExtAuthz.failure_mode_allow": "No answer is a denial. `true` would let everybody in whenever zta-authz is down.",
    "ExtAuthz.status_on_error": "And it is a 503, not Envoy's 403: an outage must not look like a decision.",
    "ExtAuthz.include_peer_certificate": "So that zta-authz can verify the client's certificate and bind tokens to it.",
    "ExtAuthz.include_tls_session": "The server name, for `connection.sni`.",
    "ExtAuthz.encode_raw_headers": (
        "Repeated headers arrive apart. Joined by commas, `a: x` twice could not be told from `a: x,x`."
    ),
    "ExtAuthz.clear_route_cache": (
        "The route was chosen before the decision; choosing again after it could serve something else."
    ),
    "ExtAuthz.validate_mutations": "A header that Envoy could not write is an error, not skipped.",
    "ExtAuthz.with_request_body": (
        "The first bytes of the body, as bytes (text would be mangled). No rule reads them, and Envoy waits for them: "
        "streaming gRPC calls hang until the client has sent so much or all."
    ),
    f"{_AUTHZ}.typed_extension_protocol_options": "The keepalive finds a peer that is gone without a word.",
    "UpstreamTlsContext.common_tls_context.tls_params": "zta-authz refuses anything older.",
    "UpstreamTlsContext.common_tls_context.alpn_protocols": (
        "Envoy's health checks offer no HTTP/2 of their own accord, and zta-authz speaks nothing else."
    ),
    "UpstreamTlsContext.common_tls_context.validation_context.match_typed_subject_alt_names": (
        "Without this any certificate of the same authority could answer for zta-authz, and allow everything."
    ),
    f"{_AUTHZ}.health_checks": (
        "A process that is starting, draining or has no rules says NOT_SERVING and is not asked."
    ),
    f"{_AUTHZ}.circuit_breakers": (
        "All that a dying process had in work may be asked again; Envoy's default is 3 at a time."
    ),
    f"{_AUTHZ}.outlier_detection": (
        "A process that died is left alone after three failures; at most half of them at once, so that a bad minute "
        "can't take the last one out."
    ),
    f"Cluster[{COLLECTOR_CLUSTER}]": "Takes Envoy's spans: OTLP over gRPC, without TLS.",
}


_CORS_FIRST: Final = (
    "CORS comes first: a browser's preflight carries no credentials, so Envoy answers it from the policy above. All "
    "but preflights of these origins are asked about. Nothing after asking may change the path or the headers that "
    "were decided on."
)

_OPTIONAL_CERTIFICATE: Final = (
    "A client may show no certificate and have a token or an API key instead; one that is shown is verified. zta-authz "
    "needs rules for such callers: with `peer.verify_certificate: required` it denies them all."
)

_CORS_CERTIFICATE: Final = (
    "No certificate, no connection. Say `--client-certificates optional` for browsers: they send preflights without a "
    "client certificate (Fetch standard). zta-authz then denies all other requests without one, with "
    "`peer.verify_certificate: required`."
)


def annotations_for(plan: Plan) -> Annotations:
    """Comments and order for what is built from `plan`."""
    options, target = plan.options, plan.options.authz
    where = "your application, reachable from nowhere but here"
    if not options.upstream.is_local:
        where = "your application, over plain HTTP: whoever reaches it without Envoy is asked by nobody"
    own = {
        f"{_MANAGER}.use_remote_address": _client_note(plan),
        f"{_AUTHZ}.load_assignment": _authz_note(plan),
        f"Cluster[{UPSTREAM_CLUSTER}]": where[0].upper() + where[1:] + ".",
    }
    if options.client_chain:
        own[f"{_MANAGER}.forward_client_cert_details"] = (
            "X-Forwarded-Client-Cert from outside is replaced by what this connection's client showed."
        )
        own[f"{_MANAGER}.set_current_client_cert_details"] = (
            "zta-authz finds the intermediates above the client's certificate there (`peer.chain_from: xfcc`): "
            "besides, Envoy sends only the leaf. Your application sees this header, too."
        )
    if options.cors_origins:
        own[f"{_MANAGER}.http_filters"] = _CORS_FIRST
        own["DownstreamTlsContext.require_client_certificate"] = _CORS_CERTIFICATE
    if options.clients_may_be_anonymous:
        own["DownstreamTlsContext.require_client_certificate"] = _OPTIONAL_CERTIFICATE
    if target.mtls:
        own["UpstreamTlsContext.common_tls_context.tls_certificates"] = _caller_note(plan)
    return Annotations({**_NOTES, **own}, ORDER)


def _client_note(plan: Plan) -> str:
    hops = f"zta-authz's `client_address.xff_num_trusted_hops` must be {plan.options.xff_num_trusted_hops}, too."
    if plan.options.use_remote_address:
        return f"The client is who opened the connection; what it writes into X-Forwarded-For is not believed. {hops}"
    return f"As the settings have it: X-Forwarded-For says who the client is, for another proxy is in front. {hops}"


def _authz_note(plan: Plan) -> str:
    if plan.options.authz.mtls:
        return "Each address is one process of zta-authz, or a name that leads to all; its workers share one port."
    users = ", ".join(map(str, plan.peer_uids))
    who = f" Envoy must run as one of the users {users}: `socket.peer_uids`." if users else ""
    if plan.workers == 1:
        return f"The socket that zta-authz listens on, with `workers: 1`.{who}"
    return f"One endpoint for each of zta-authz's workers: `workers: {plan.workers}`.{who}"


def _caller_note(plan: Plan) -> str:
    change = "CHANGE, or --tls-dir: this proxy's own SVID. zta-authz answers whom `tls.allowed_spiffe_ids` lists"
    return f"{change}: {', '.join(plan.allowed)}." if plan.allowed else f"{change}."


def header(part: str, plan: Plan) -> str:
    """What stands above a part."""
    return {"bootstrap": _bootstrap_header, "filter": _filter_header, "cluster": _cluster_header}[part](plan)


def _made(plan: Plan) -> str:
    return f"Made by `zta-authz envoy-config --style {plan.style}`"


def _bootstrap_header(plan: Plan) -> str:
    options = plan.options
    link = "gRPC, mutual TLS 1.3" if options.authz.mtls else "gRPC, Unix socket"
    asked = ", ".join(map(str, options.authz.addresses))
    return (
        f"{_made(plan)}: Envoy asks zta-authz about every request.\n\n"
        f"  clients --mTLS--> Envoy {options.listen} --HTTP--> your application {options.upstream}\n"
        "                      |\n"
        f"                      +--{link}--> zta-authz {asked}\n"
    )


def _filter_header(plan: Plan) -> str:
    forwarding = "SANITIZE"
    if plan.options.client_chain:
        forwarding = "SANITIZE_SET, set_current_client_cert_details: {uri: true, cert: true, chain: true}"
    return (
        f"{_made(plan)}: the HTTP filter that asks. Put it first in `http_filters` of your HttpConnectionManager (in "
        f"an Istio EnvoyFilter: INSERT_FIRST), and its cluster `{AUTHZ_CLUSTER}` (--part cluster) beside your own. It "
        "relies on what its connection manager does; --part bootstrap says why:\n"
        f"  forward_client_cert_details: {forwarding},\n"
        "  normalize_path: true, merge_slashes: false,\n"
        "  path_with_escaped_slashes_action: REJECT_REQUEST,\n"
        "  common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST, max_stream_duration: 900s}\n"
    )


def _cluster_header(plan: Plan) -> str:
    return f"{_made(plan)}: the cluster through which the filter (--part filter) asks.\n"
