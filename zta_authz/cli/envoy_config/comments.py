"""The comments in the YAML output: the reason for each option that is not obvious."""

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
    "Bootstrap.admin": "Anyone who can connect to this address can stop Envoy and read its configuration.",
    "Listener[ingress].per_connection_buffer_limit_bytes": (
        "A slow client uses a buffer of 32 KiB instead of Envoy's default of 1 MiB."
    ),
    "DownstreamTlsContext.require_client_certificate": (
        "Clients must present a certificate. zta-authz verifies it again, against its own trust bundles."
    ),
    "DownstreamTlsContext.common_tls_context.tls_certificates": (
        "CHANGE, or use --tls-dir: the certificate of this proxy."
    ),
    "DownstreamTlsContext.common_tls_context.validation_context": (
        "CHANGE, or use --tls-dir: the authorities that sign your clients' certificates."
    ),
    "DownstreamTlsContext.common_tls_context.validation_context.trust_chain_verification": (
        "Never use ACCEPT_UNTRUSTED with `peer.verify_certificate: never`: clients could claim any identity."
    ),
    f"{_MANAGER}.forward_client_cert_details": (
        "Remove X-Forwarded-Client-Cert of clients: an upstream that reads the header would trust a forged identity."
    ),
    f"{_MANAGER}.normalize_path": (
        "zta-authz must decide on the path that the application serves. Envoy rewrites `/a/../b` to `/b` and refuses "
        "%2F and %5C with 400. It keeps `//`, which applications treat differently; zta-authz refuses it as ambiguous."
    ),
    f"{_MANAGER}.common_http_protocol_options.headers_with_underscores_action": (
        "WSGI, CGI and others treat `x_zta_principal` as X-Zta-Principal. The same applies to your own headers."
    ),
    f"{_MANAGER}.common_http_protocol_options.max_stream_duration": (
        "A stream is checked once, when it opens. This limits how long an allow stays valid."
    ),
    f"{_MANAGER}.tracing": "Envoy's spans. With tracing, Envoy's checks carry a `traceparent` header.",
    f"{_MANAGER}.upgrade_configs": (
        "A WebSocket is checked once, as the GET that opens it. `max_stream_duration` applies to it, too."
    ),
    f"{_MANAGER}.http_filters": (
        "ext_authz is first: no filter may act on a request before it is allowed, and no later filter may change the "
        "path or headers that the decision is based on."
    ),
    "ExtAuthz.grpc_service.timeout": "Set explicitly because some control planes default to 600 s.",
    "ExtAuthz.grpc_service.retry_policy": (
        "If a process is down or draining, Envoy asks another one within the same timeout. A response is never "
        "retried, whatever its verdict."
    ),
    "ExtAuthz.grpc_service.retry_policy.retry_back_off": (
        "Envoy also uses `max_interval` as the timeout of each try; here it equals the total timeout."
    ),
    "ExtAuthz.failure_mode_allow": (
        "Deny if zta-authz does not answer. With `true`, every request is allowed while zta-authz is down."
    ),
    "ExtAuthz.status_on_error": (
        "Respond 503 in that case instead of Envoy's default 403, so that an outage does not look like a decision."
    ),
    "ExtAuthz.include_peer_certificate": (
        "zta-authz verifies the client's certificate and checks that tokens are bound to it."
    ),
    "ExtAuthz.include_tls_session": "Send the TLS server name, for `connection.sni`.",
    "ExtAuthz.encode_raw_headers": (
        "Send repeated headers separately. Joined by commas, `a: x` twice would look like `a: x,x`."
    ),
    "ExtAuthz.clear_route_cache": (
        "Keep the route that was chosen before the decision. A new choice could serve a different resource."
    ),
    "ExtAuthz.validate_mutations": "Treat a header that Envoy can't set as an error instead of ignoring it.",
    "ExtAuthz.with_request_body": (
        "Send the first bytes of the body, as bytes because text would be altered. No rule reads them. Envoy waits for "
        "them: streaming gRPC calls hang until the client has sent this much, or the whole body."
    ),
    f"{_AUTHZ}.typed_extension_protocol_options": (
        "The keepalive detects a connection whose peer disappeared without closing it."
    ),
    "UpstreamTlsContext.common_tls_context.tls_params": "zta-authz refuses older versions.",
    "UpstreamTlsContext.common_tls_context.alpn_protocols": (
        "zta-authz supports only HTTP/2, which Envoy's health checks do not offer by default."
    ),
    "UpstreamTlsContext.common_tls_context.validation_context.match_typed_subject_alt_names": (
        "Without this, any holder of a certificate of the same authority could impersonate zta-authz and allow "
        "everything."
    ),
    f"{_AUTHZ}.health_checks": (
        "A process that is starting, draining or without rules reports NOT_SERVING and gets no checks."
    ),
    f"{_AUTHZ}.circuit_breakers": (
        "All calls of a process that dies may be retried. Envoy's default is 3 concurrent retries."
    ),
    f"{_AUTHZ}.outlier_detection": (
        "A process that fails three times is ejected for a while; at most half of the processes at once, so that a "
        "short disturbance can't eject all of them."
    ),
    f"Cluster[{COLLECTOR_CLUSTER}]": "Receives Envoy's spans: OTLP over gRPC, without TLS.",
}


_CORS_FIRST: Final = (
    "CORS is first: a browser's preflight request has no credentials, so Envoy answers it by the policy above. Envoy "
    "checks all other requests with zta-authz. No filter after ext_authz may change the path or headers that the "
    "decision is based on."
)

_OPTIONAL_CERTIFICATE: Final = (
    "Clients without a certificate may use a token or an API key. A certificate that a client presents is verified. "
    "zta-authz needs rules for such callers: with `peer.verify_certificate: required` it denies them all."
)

_CORS_CERTIFICATE: Final = (
    "Clients must present a certificate. Use `--client-certificates optional` for browsers: they send preflights "
    "without a client certificate (Fetch standard). With `peer.verify_certificate: required`, zta-authz then denies "
    "all other requests without one."
)


def annotations_for(plan: Plan) -> Annotations:
    """Return the comments and the order of keys for the configuration of `plan`."""
    options, target = plan.options, plan.options.authz
    where = "your application, which accepts connections from this machine only"
    if not options.upstream.is_local:
        where = "your application, over plain HTTP: connections that bypass Envoy are not authorized"
    own = {
        f"{_MANAGER}.use_remote_address": _client_note(plan),
        f"{_AUTHZ}.load_assignment": _authz_note(plan),
        f"Cluster[{UPSTREAM_CLUSTER}]": where[0].upper() + where[1:] + ".",
    }
    if options.client_chain:
        own[f"{_MANAGER}.forward_client_cert_details"] = (
            "Replace X-Forwarded-Client-Cert of clients by the certificate that this connection's client presented."
        )
        own[f"{_MANAGER}.set_current_client_cert_details"] = (
            "zta-authz reads the intermediates of the client's certificate from this header (`peer.chain_from: xfcc`), "
            "because Envoy otherwise sends only the leaf. Your application receives this header, too."
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
        return f"The client is the peer of the connection; its X-Forwarded-For is not trusted. {hops}"
    return f"From the settings: another proxy is in front, and X-Forwarded-For has the client's address. {hops}"


def _authz_note(plan: Plan) -> str:
    if plan.options.authz.mtls:
        return "Each address is one process of zta-authz, or a DNS name for all. The workers of a process share a port."
    users = ", ".join(map(str, plan.peer_uids))
    who = f" Envoy must run as one of the users {users}: `socket.peer_uids`." if users else ""
    if plan.workers == 1:
        return f"The socket that zta-authz listens on, with `workers: 1`.{who}"
    return f"One endpoint for each worker of zta-authz: `workers: {plan.workers}`.{who}"


def _caller_note(plan: Plan) -> str:
    change = "CHANGE, or use --tls-dir: the SVID of this proxy. `tls.allowed_spiffe_ids` of zta-authz must list it"
    return f"{change}: {', '.join(plan.allowed)}." if plan.allowed else f"{change}."


def header(part: str, plan: Plan) -> str:
    """Return the comment above a part."""
    return {"bootstrap": _bootstrap_header, "filter": _filter_header, "cluster": _cluster_header}[part](plan)


def _made(plan: Plan) -> str:
    return f"Made by `zta-authz envoy-config --style {plan.style}`"


def _bootstrap_header(plan: Plan) -> str:
    options = plan.options
    link = "gRPC, mutual TLS 1.3" if options.authz.mtls else "gRPC, Unix socket"
    asked = ", ".join(map(str, options.authz.addresses))
    return (
        f"{_made(plan)}: Envoy checks every request with zta-authz.\n\n"
        f"  clients --mTLS--> Envoy {options.listen} --HTTP--> your application {options.upstream}\n"
        "                      |\n"
        f"                      +--{link}--> zta-authz {asked}\n"
    )


def _filter_header(plan: Plan) -> str:
    forwarding = "SANITIZE"
    if plan.options.client_chain:
        forwarding = "SANITIZE_SET, set_current_client_cert_details: {uri: true, cert: true, chain: true}"
    return (
        f"{_made(plan)}: the ext_authz filter. Put it first in `http_filters` of your HttpConnectionManager (in "
        f"an Istio EnvoyFilter: INSERT_FIRST), and add its cluster `{AUTHZ_CLUSTER}` (--part cluster). It relies on "
        "these settings of the connection manager, which --part bootstrap explains:\n"
        f"  forward_client_cert_details: {forwarding},\n"
        "  normalize_path: true, merge_slashes: false,\n"
        "  path_with_escaped_slashes_action: REJECT_REQUEST,\n"
        "  common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST, max_stream_duration: 900s}\n"
    )


def _cluster_header(plan: Plan) -> str:
    return f"{_made(plan)}: the cluster of zta-authz, for the filter (--part filter).\n"
