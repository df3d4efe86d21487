"""What is done to rendered installations, and the check of `zta-authz compliance` that must notice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Break = Callable[[str], str]


def swap(old: str, new: str) -> Break:
    """Every `old` becomes `new`."""

    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new)

    return change


def cut(pattern: str) -> Break:
    """What `pattern` finds goes."""

    def change(text: str) -> str:
        changed = re.sub(pattern, "", text, flags=re.MULTILINE)
        assert changed != text, pattern
        return changed

    return change


def drop(kind: str, name: str = "") -> Break:
    """The objects of a kind (and name) go."""

    def change(text: str) -> str:
        documents = text.split("\n---\n")
        kept = [
            each
            for each in documents
            if not (
                re.search(rf"^kind: {kind}$", each, re.MULTILINE)
                and (not name or re.search(rf"^  name: {name}$", each, re.MULTILINE))
            )
        ]
        assert len(kept) < len(documents)
        return "\n---\n".join(kept)

    return change


def add(document: str) -> Break:
    """One more object."""
    return lambda text: f"{text}\n---\n{document}"


BINDING = """apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: far-too-much}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: zta-authz, namespace: zta-system}]
"""
WORKLOAD = """apiVersion: apps/v1
kind: Deployment
metadata: {name: other, namespace: hatshop}
spec: {template: {metadata: {labels: {app: other}}, spec: {containers: [{name: other, image: other}]}}}
"""
OPTED_OUT = """apiVersion: apps/v1
kind: Deployment
metadata: {name: other, namespace: hatshop}
spec:
  template:
    metadata: {labels: {app: other, sidecar.istio.io/inject: "false"}}
    spec: {containers: [{name: other, image: other}]}
"""
REMOVAL = """apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: other, namespace: hatshop}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {listener: {filterChain: {filter: {subFilter: {name: envoy.filters.http.ext_authz}}}}}
    patch: {operation: REMOVE}
"""
EXCEPTION = """apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: other, namespace: hatshop}
spec:
  configPatches:
  - applyTo: HTTP_ROUTE
    patch:
      operation: MERGE
      value:
        typed_per_filter_config:
          envoy.filters.http.ext_authz:
            "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
            disabled: true
"""
INSTEAD = """apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: other, namespace: hatshop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: hatshop}]
  cors: {allowOrigins: ["*"]}
"""
LISTENER = """      listeners:
        - name: unasked
          address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
          filter_chains:
            - filters:
                - name: envoy.filters.network.http_connection_manager
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                    route_config:
                      virtual_hosts: [{name: a, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: hatshop}}]}]
"""
EVERYBODY = """apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: far-too-much}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: Group, name: "system:serviceaccounts:zta-system"}]
"""
ROUTE = """apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: other, namespace: hatshop}
spec: {parentRefs: [{name: shop}]}
"""
FRONTEND = """      - from:
        - source:
            principals: ["cluster.local/ns/hatshop/sa/frontend"]
        to:
        - operation:
            methods: ["GET", "POST"]
            paths: ["/orders", "/orders/*", "/account", "/account/*"]
"""
AUDIT = "audit: {sink: stdout, on_full: deny}"
HEALTH = 'health: {listen: "[::]:9192"}'

BROKEN: dict[str, tuple[str, str, Break]] = {
    "no zta-authz": ("istio", "decisions-known", drop("Deployment")),
    "nobody asks": ("istio", "all-requests-asked", drop("AuthorizationPolicy", "ask-zta-authz")),
    "some paths": (
        "istio",
        "all-requests-asked",
        swap("  rules:\n  - {}", "  rules:\n  - to: [{operation: {paths: [/admin]}}]"),
    ),
    "one workload": (
        "istio",
        "all-requests-asked",
        swap("  rules:\n  - {}", "  selector: {matchLabels: {app: hatshop}}\n  rules:\n  - {}"),
    ),
    "a waypoint": (
        "istio",
        "all-requests-asked",
        swap("  rules:\n  - {}", "  targetRefs: [{kind: Gateway, name: waypoint}]\n  rules:\n  - {}"),
    ),
    "ambient": ("istio", "all-requests-asked", swap("istio-injection: enabled", "istio.io/dataplane-mode: ambient")),
    "a sidecar that nobody told": ("istio-sidecar", "all-requests-asked", add(WORKLOAD)),
    "a route that nobody named": ("envoy-gateway", "all-requests-asked", add(ROUTE)),
    "a pod without a sidecar": ("istio", "all-requests-asked", add(OPTED_OUT)),
    "a patch that takes the filter away": ("istio", "all-requests-asked", add(REMOVAL)),
    "a route that is left out": ("istio", "all-requests-asked", add(EXCEPTION)),
    "a share of the requests": (
        "istio-sidecar",
        "all-requests-asked",
        swap("failure_mode_allow: false", "failure_mode_allow: false\n          filter_enabled: {default_value: {}}"),
    ),
    "a listener that nobody guards": ("sidecar", "all-requests-asked", swap("      listeners:\n", LISTENER)),
    "a policy instead of the gateway's": (
        "envoy-gateway",
        "all-requests-asked",
        lambda text: add(INSTEAD)(
            swap("    kind: HTTPRoute\n    name: hatshop", "    kind: Gateway\n    name: shop")(text)
        ),
    ),
    "another authorizer at the gateway": (
        "envoy-gateway",
        "all-requests-asked",
        swap("        kind: Service\n        name: zta-authz", "        kind: Service\n        name: another"),
    ),
    "an Envoy without the filter": (
        "sidecar",
        "all-requests-asked",
        swap("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", "envoy.extensions.filters.http.buffer.v3.Buffer"),
    ),
    "Envoy fails open": ("sidecar", "fail-closed", swap("failure_mode_allow: false", "failure_mode_allow: true")),
    "a filter fails open": (
        "istio-sidecar",
        "fail-closed",
        swap("failure_mode_allow: false", "failure_mode_allow: true"),
    ),
    "a gateway fails open": ("envoy-gateway", "fail-closed", swap("failOpen: false", "failOpen: true")),
    "a patch fails open": (
        "envoy-gateway",
        "fail-closed",
        swap("path: /include_tls_session", "path: /failure_mode_allow"),
    ),
    "a patch of all fields fails open": (
        "envoy-gateway",
        "fail-closed",
        swap(
            "      path: /include_peer_certificate\n      value: true",
            "      path: ''\n      value: {failure_mode_allow: true}",
        ),
    ),
    "a gateway waits": ("envoy-gateway", "answer-in-time", swap("timeout: 200ms", "timeout: 10s")),
    "a gateway without a timeout": ("envoy-gateway", "answer-in-time", cut(r"^    timeout: 200ms\n")),
    "Envoy waits": (
        "sidecar",
        "answer-in-time",
        swap("timeout: 0.2s\n                            # If", "timeout: 60s\n                            # If"),
    ),
    "no certificate is sent": (
        "istio",
        "evidence-sent",
        swap("include_peer_certificate: true", "include_peer_certificate: false"),
    ),
    "no EnvoyFilter": ("istio", "evidence-sent", drop("EnvoyFilter")),
    "Envoy sends no certificate": ("sidecar", "evidence-sent", cut(r"^ +include_peer_certificate: true\n")),
    "no patch": ("envoy-gateway", "evidence-sent", drop("EnvoyPatchPolicy")),
    "slashes": (
        "istio",
        "same-request",
        swap("path_with_escaped_slashes_action: REJECT_REQUEST", "path_with_escaped_slashes_action: KEEP_UNCHANGED"),
    ),
    "underscores at the gateway": ("envoy-gateway", "same-request", cut(r"^    withUnderscoresAction: .*\n")),
    "ambiguous paths": ("istio", "same-request", swap(AUDIT, f"{AUDIT}\n    paths: {{ambiguous: accept}}")),
    "endless streams": ("istio", "sessions-bounded", cut(r"^ +max_stream_duration: 900s\n")),
    "endless streams in Envoy": ("sidecar", "sessions-bounded", cut(r"^ +max_stream_duration: 900s\n")),
    "endless streams at the gateway": (
        "envoy-gateway",
        "sessions-bounded",
        swap("/max_stream_duration", "/idle_timeout"),
    ),
    "very long streams": ("istio", "sessions-bounded", swap("max_stream_duration: 900s", "max_stream_duration: 24h")),
    "Istio's reading": ("istio", "default-deny", swap(AUDIT, f"{AUDIT}\n    semantics: istio")),
    "allow by default": ("istio", "default-deny", swap(AUDIT, f"{AUDIT}\n    default_action: allow")),
    "a rule for everything": ("istio", "no-allow-all", swap(FRONTEND, "      - {}\n")),
    "a rule for everybody's everything": (
        "istio",
        "no-allow-all",
        swap(FRONTEND, '      - from: [{source: {principals: ["*"]}}]\n        to: [{operation: {paths: ["/*"]}}]\n'),
    ),
    "a rule with one way for everything": (
        "istio",
        "no-allow-all",
        swap(FRONTEND, '      - to: [{operation: {paths: [/a]}}, {operation: {paths: ["*"], hosts: ["*"]}}]\n'),
    ),
    "a rule that only excludes": (
        "istio",
        "no-allow-all",
        swap(FRONTEND, "      - when: [{key: source.principal, notValues: [cluster.local/ns/x/sa/y]}]\n"),
    ),
    "unverified callers": (
        "istio",
        "callers-verified",
        swap("verify_certificate: required", "verify_certificate: when_present"),
    ),
    "the proxy's word": (
        "istio",
        "callers-verified",
        swap("verify_certificate: required", "verify_certificate: required\n      trust_proxy: true"),
    ),
    "any audience": ("istio", "tokens-for-us", cut(r'^ +audiences: \["hatshop"\]\n')),
    "keys without TLS": ("istio", "tokens-for-us", swap("jwksUri: https://", "jwksUri: http://")),
    "http allowed": ("istio", "tokens-for-us", swap(AUDIT, f"{AUDIT}\n    jwks: {{allow_http: true}}")),
    "old tokens": ("istio", "tokens-bounded", swap("maxTokenAge: 1h", "maxTokenAge: 48h")),
    "no revocations": (
        "istio",
        "revocation",
        cut(r"^ +- /etc/zta-authz/policies/revocations\n|, /etc/zta-authz/policies/revocations(?=\])"),
    ),
    "static rules": ("istio", "dynamic-policy", cut(r"^ +- /etc/zta-authz/policies/(?:hatshop|payments)\n")),
    "no reload": ("istio", "changes-effective", swap(AUDIT, f"{AUDIT}\n    reload: {{enabled: false}}")),
    "slow reload": ("istio", "changes-effective", swap(AUDIT, f"{AUDIT}\n    reload: {{poll_seconds: 3600}}")),
    "a subPath": (
        "istio",
        "changes-effective",
        swap(
            "name: policies-hatshop\n          readOnly: true",
            "name: policies-hatshop\n          subPath: x\n          readOnly: true",
        ),
    ),
    "permissive": ("istio", "clients-mtls", swap("mode: STRICT", "mode: PERMISSIVE")),
    "no PeerAuthentication": ("istio", "clients-mtls", drop("PeerAuthentication")),
    "a port left out": (
        "istio",
        "clients-mtls",
        swap("    mode: STRICT", "    mode: STRICT\n  portLevelMtls: {8080: {mode: DISABLE}}"),
    ),
    "clients without certificates": (
        "sidecar",
        "clients-mtls",
        swap("require_client_certificate: true", "require_client_certificate: false"),
    ),
    "untrusted certificates": ("sidecar", "clients-mtls", swap("VERIFY_TRUST_CHAIN", "ACCEPT_UNTRUSTED")),
    "old TLS": ("sidecar", "clients-mtls", swap("TLSv1_2", "TLSv1_1")),
    "optional certificates": ("envoy-gateway", "clients-mtls", swap("optional: false", "optional: true")),
    "plaintext at the gateway": ("envoy-gateway", "clients-mtls", swap("protocol: HTTPS", "protocol: HTTP")),
    "insecure": ("istio", "authorizer-mtls", swap(AUDIT, f"{AUDIT}\n    insecure: true")),
    "nobody's workload": ("istio", "callers-named", swap("    workloads:", "    x_workloads:")),
    "a gateway for everybody": ("envoy-gateway", "callers-named", swap("namespaces: [hatshop]", 'namespaces: ["*"]')),
    "a socket for everybody": ("istio-sidecar", "callers-named", swap('mode: "0660"', 'mode: "0666"')),
    "whoever answers": ("istio", "authorizer-verified", swap("mode: ISTIO_MUTUAL", "mode: SIMPLE")),
    "no DestinationRule": ("istio", "authorizer-verified", drop("DestinationRule")),
    "any name": ("envoy-gateway", "authorizer-verified", swap("subjectAltNames:", "wellKnownNames:")),
    "plaintext to zta-authz": (
        "sidecar",
        "authorizer-verified",
        swap("{pipe: {path: /run/zta-authz/authz.sock}}", "{socket_address: {address: 10.0.0.1, port_value: 9191}}"),
    ),
    "spans in plaintext": ("istio", "telemetry-encrypted", swap('endpoint: "https://otel', 'endpoint: "http://otel')),
    "no default deny": ("istio", "network-default-deny", drop("NetworkPolicy", "default-deny")),
    "no deny of egress": ("sidecar", "network-default-deny", swap("  - Ingress\n  - Egress\n", "  - Ingress\n")),
    "every port": ("istio", "network-least", cut(r"^    ports:\n    - port: 9191\n      protocol: TCP\n")),
    "the metadata service": ("istio", "network-least", cut(r"^ +- 169\.254\.0\.0/16\n")),
    "root": ("istio", "pods-restricted", swap("runAsNonRoot: true", "runAsNonRoot: false")),
    "a writable root": (
        "istio",
        "pods-restricted",
        swap("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ),
    "escalation": (
        "istio",
        "pods-restricted",
        swap("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
    ),
    "capabilities": ("istio", "pods-restricted", swap("- ALL\n", "- NET_RAW\n")),
    "no seccomp": ("istio", "pods-restricted", swap("type: RuntimeDefault", "type: Unconfined")),
    "the host's network": ("istio", "pods-restricted", swap("enableServiceLinks: false", "hostNetwork: true")),
    "the host's files": (
        "istio",
        "pods-restricted",
        swap(
            "      - configMap:\n          defaultMode: 288\n          name: istio-ca-root-cert",
            "      - hostPath: {path: /}",
        ),
    ),
    "a baseline namespace": (
        "istio",
        "namespaces-restricted",
        swap("pod-security.kubernetes.io/enforce: restricted", "pod-security.kubernetes.io/enforce: baseline"),
    ),
    "a tag": ("istio", "images-pinned", swap(f"@sha256:{'a1' * 32}", ":latest")),
    "a placeholder": ("istio", "images-pinned", swap("a1" * 32, "0" * 64)),
    "a token": (
        "istio",
        "no-api-rights",
        swap("automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    ),
    "rights of everybody": ("istio", "no-api-rights", add(EVERYBODY)),
    "a token in a volume": (
        "istio",
        "no-api-rights",
        swap(
            "      - emptyDir:\n          medium: Memory\n          sizeLimit: 16Mi",
            "      - projected: {sources: [{serviceAccountToken: {path: t}}]}",
        ),
    ),
    "rights": ("istio", "no-api-rights", add(BINDING)),
    "no decision log": ("istio", "decision-log", swap("sink: stdout", "sink: none")),
    "lost records": ("istio", "decision-log", swap("on_full: deny", "on_full: drop_and_count")),
    "sampled records": ("istio", "decision-log", swap("on_full: deny", "on_full: deny, sample_allows: 0.5")),
    "an unsigned log": ("istio", "log-tamper-evident", swap("sink: stdout", "sink: file, path: /tmp/decisions.jsonl")),
    "an administrator that decision points can act as": (
        "istio-administrator",
        "administrator-known",
        swap("sa/zta-authz-administrator]", "sa/zta-authz]"),
    ),
    "an access log without checkpoints": (
        "istio-administrator",
        "access-log",
        cut(r"^ +checkpoint: \{path: /var/lib.*\n"),
    ),
    "an access log that is lost with the pod": (
        "istio-administrator",
        "access-log",
        swap("path: /var/lib/zta-authz/access.jsonl", "path: /tmp/access.jsonl"),
    ),
    "a store that is lost with the pod": (
        "istio-administrator",
        "access-log",
        swap("sqlite:////var/lib/zta-authz", "sqlite:////tmp"),
    ),
    "two administrators with a file each": ("istio-administrator", "access-log", swap("replicas: 1", "replicas: 2")),
    "a store in plaintext": ("istio-spire-administrators", "access-log", swap("valkeys://", "valkey://")),
    "operators' tokens for anybody": (
        "istio-administrator",
        "tokens-for-us",
        swap('audiences: ["zta-admin"]', "forwardOriginalToken: true"),
    ),
    "no PodMonitor": ("istio", "metrics-read", drop("PodMonitor")),
    "a PodMonitor for others": (
        "istio",
        "metrics-read",
        swap(
            "  selector:\n    matchLabels:\n      app.kubernetes.io/name: zta-authz\n",
            "  selector: {matchLabels: {app: x}}\n",
        ),
    ),
    "no metrics": ("istio", "metrics-read", swap(HEALTH, "health: {listen: null}")),
    "no alerts": ("istio", "alerts", drop("PrometheusRule")),
    "no alert on emergencies": ("istio-administrator", "alerts", swap("zta_access_events_total", "zta_something_else")),
    "no alert on keys": ("istio", "alerts", swap("zta_keys_missing", "zta_something_else")),
    "no traces": ("istio", "traces", cut(r"^ +otlp: \{endpoint: .*\n")),
}
"""What is done to an overlay, and the check that must notice."""

IN_THE_MESH: dict[str, tuple[str, Break]] = {
    "the provider fails open": ("fail-closed", swap("failOpen: false", "failOpen: true")),
    "the provider waits": ("answer-in-time", swap("timeout: 200ms", "timeout: 600s")),
    "the provider without a timeout": ("answer-in-time", cut(r"^ +timeout: 200ms\n")),
}
