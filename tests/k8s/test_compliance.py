"""`zta-authz compliance` on what is rendered from k8s/, as it is and with each thing broken that a check must notice."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.k8s.manifests import K8S, OVERLAYS, kustomize
from zta_authz.cli.compliance.catalogue import CHECKS, REQUIREMENTS
from zta_authz.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Break = Callable[[str], str]

MESH = K8S / "istio" / "meshconfig.values.yaml"
AT = "2026-11-21T12:00:00Z"


@dataclass(frozen=True)
class Report:
    """What the command said."""

    status: int
    fields: dict[str, Any]

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        return {each["id"]: each for each in self.fields["checks"]}

    def those(self, status: str) -> set[str]:
        return {name for name, each in self.checks.items() if each["status"] == status}


class Reporter:
    """Runs the command on overlays, whole or broken, with images that have been built."""

    def __init__(self, kubectl: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._kubectl = kubectl
        self._folder = folder
        self._capsys = capsys

    def render(self, overlay: str) -> str:
        return _rendered(self._kubectl, overlay).replace("0" * 64, "a1" * 32)

    def report(self, text: str, mesh: str = MESH.read_text(encoding="utf-8"), at: str = AT) -> Report:
        (self._folder / "rendered.yaml").write_text(text)
        (self._folder / "mesh.yaml").write_text(mesh)
        self._capsys.readouterr()
        status = main(["compliance", str(self._folder), "--output", "json", "--at", at])
        return Report(status, json.loads(self._capsys.readouterr().out))


_CACHE: dict[str, str] = {}


def _rendered(kubectl: Path, overlay: str) -> str:
    if overlay not in _CACHE:
        _CACHE[overlay] = kustomize(kubectl, K8S / "overlays" / overlay)
    return _CACHE[overlay]


@pytest.fixture
def reporter(kubectl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Reporter:
    return Reporter(kubectl, tmp_path, capsys)


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
HEALTH = 'health: {listen: "0.0.0.0:9192"}'

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
    "a gateway waits": ("envoy-gateway", "answer-in-time", swap("timeout: 200ms", "timeout: 10s")),
    "a gateway without a timeout": ("envoy-gateway", "answer-in-time", cut(r"^    timeout: 200ms\n")),
    "Envoy waits": (
        "sidecar",
        "answer-in-time",
        swap("timeout: 0.2s\n                            # W", "timeout: 60s\n                            # W"),
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
    "no revocations": ("istio", "revocation", cut(r"^ +- /etc/zta-authz/policies/revocations\n")),
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
    "spans in plaintext": ("istio", "telemetry-encrypted", swap("otlp_endpoint: https://", "otlp_endpoint: http://")),
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
    "rights": ("istio", "no-api-rights", add(BINDING)),
    "no decision log": ("istio", "decision-log", swap("sink: stdout", "sink: none")),
    "lost records": ("istio", "decision-log", swap("on_full: deny", "on_full: drop_and_count")),
    "sampled records": ("istio", "decision-log", swap("on_full: deny", "on_full: deny, sample_allows: 0.5")),
    "an unsigned log": ("istio", "log-tamper-evident", swap("sink: stdout", "sink: file, path: /tmp/decisions.jsonl")),
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
    "no alert on keys": ("istio", "alerts", swap("zta_keys_missing", "zta_something_else")),
    "no traces": ("istio", "traces", cut(r"^ +otlp_endpoint: .*\n")),
}
"""What is done to an overlay, and the check that must notice."""

IN_THE_MESH: dict[str, tuple[str, Break]] = {
    "the provider fails open": ("fail-closed", swap("failOpen: false", "failOpen: true")),
    "the provider waits": ("answer-in-time", swap("timeout: 200ms", "timeout: 600s")),
    "the provider without a timeout": ("answer-in-time", cut(r"^ +timeout: 200ms\n")),
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_missing_in_what_is_shipped_but_the_image(reporter: Reporter, overlay: str) -> None:
    whole = reporter.report(reporter.render(overlay))
    assert (whole.status, whole.those("missing")) == (0, set())
    shipped = reporter.report(reporter.render(overlay).replace("a1" * 32, "0" * 64))
    assert (shipped.status, shipped.those("missing")) == (1, {"images-pinned"})


def test_what_the_istio_overlay_cannot_show_is_said_and_not_claimed(reporter: Reporter) -> None:
    report = reporter.report(reporter.render("istio"))
    assert report.those("cannot be seen here") == {"trust-anchored", "network-default-deny", "log-tamper-evident"}
    assert all(each["notShownByManifests"] for each in report.fields["requirements"])
    assert "not a certification" in report.fields["notice"]


def test_each_requirement_has_evidence_in_the_istio_overlay(reporter: Reporter) -> None:
    report = reporter.report(reporter.render("istio"))
    assert {each["id"]: each["status"] for each in report.fields["requirements"]} == {
        each.id: "satisfied" for each in REQUIREMENTS
    }


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_missed_by_the_check_for_it(reporter: Reporter, name: str) -> None:
    overlay, check, break_it = BROKEN[name]
    text = break_it(reporter.render(overlay))
    if name == "nobody's workload":
        text = re.sub(r"^    x_workloads:\n(?:      .*\n)+", "", text, flags=re.MULTILINE)
    report = reporter.report(text)
    assert check in report.those("missing")
    assert report.status == 1
    gap = report.checks[check]["missing"][0]
    assert gap["message"]
    assert gap["mend"]


@pytest.mark.parametrize("name", IN_THE_MESH)
def test_what_is_broken_in_the_mesh_configuration_is_missed(reporter: Reporter, name: str) -> None:
    check, break_it = IN_THE_MESH[name]
    mesh = MESH.read_text(encoding="utf-8")
    report = reporter.report(reporter.render("istio"), break_it(mesh))
    assert report.those("missing") == {check}
    assert report.checks[check]["missing"][0]["source"].endswith("mesh.yaml")


def test_an_authority_that_ends_soon_or_has_ended_is_missed(reporter: Reporter) -> None:
    certificate = (K8S / "overlays" / "envoy-gateway" / "ca.crt").read_text(encoding="utf-8")
    root = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio-ca-root-cert", "namespace": "hatshop"},
        "data": {"root-cert.pem": certificate},
    }
    text = reporter.render("istio-sidecar") + "\n---\n" + json.dumps(root)
    statuses = {}
    for at in ("2055-01-01T00:00:00Z", "2055-12-20T00:00:00Z", "2056-02-01T00:00:00Z"):
        statuses[at[:7]] = reporter.report(text, at=at).checks["trust-anchored"]["status"]
    assert statuses == {"2055-01": "satisfied", "2055-12": "missing", "2056-02": "missing"}


def test_every_check_is_broken_at_least_once() -> None:
    noticed = {check for _, check, _ in BROKEN.values()} | {check for check, _ in IN_THE_MESH.values()}
    assert noticed | {"trust-anchored"} == {each.id for each in CHECKS}


def test_without_the_mesh_configuration_its_provider_is_not_judged(reporter: Reporter) -> None:
    report = reporter.report(reporter.render("istio"), mesh="meshConfig: {}\n")
    assert {"fail-closed", "answer-in-time"} <= report.those("cannot be seen here")


def test_evidence_stands_in_the_line_that_is_named(reporter: Reporter) -> None:
    text = reporter.render("istio")
    lines = text.split("\n")
    report = reporter.report(text)
    places = [
        (found["field"], found["line"], found["value"])
        for check in report.fields["checks"]
        for found in check["satisfied"]
        if found["line"] and (found["source"] or "").endswith("rendered.yaml")
    ]
    assert len(places) > 30
    exact = [each for each in places if each[2] in lines[each[1] - 1]]
    assert {"false", "true", "ISTIO_MUTUAL", "required", "restricted"} <= {value.split()[0] for _, _, value in exact}
    (rule,) = [line for field, line, _ in places if field.startswith("IssuerPolicy hatshop/login")]
    assert "zta.dev/v1" in lines[rule - 1]


def test_the_plain_tree_is_refused_with_the_command_that_renders_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compliance", str(K8S)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"`kubectl kustomize \S+/overlays/[a-z-]+ \| zta-authz compliance -`", said.err)
