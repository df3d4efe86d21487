"""A small installation, written by hand, that needs no kustomize."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SETTINGS = """\
listen: ["0.0.0.0:9191"]
tls:
  cert_file: /tls/cert.pem
  key_file: /tls/key.pem
  client_ca_file: /tls/ca.pem
  allowed_spiffe_ids: ["spiffe://cluster.local/ns/shop/sa/shop"]
policies: [/etc/policies]
peer:
  verify_certificate: required
bundles: [{trust_domain: cluster.local, file: /tls/ca.pem}]
"""
POLICIES = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]
    to: [{operation: {paths: [/orders]}}]
---
apiVersion: zta.dev/v1
kind: RevocationList
metadata: {name: revoked}
spec: {spiffeIds: [{prefix: "spiffe://cluster.local/ns/old/"}]}
"""


def indented(text: str, by: int = 4) -> str:
    """As the content of a literal block."""
    return "".join(f"{' ' * by}{line}\n" if line else "\n" for line in text.splitlines())


def installation(settings: str = SETTINGS, policies: str = POLICIES) -> str:
    """One authorizer, its ConfigMaps, and a policy that sends requests to it."""
    return f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings, namespace: zta}}
data:
  config.yaml: |
{indented(settings)}---
apiVersion: v1
kind: ConfigMap
metadata: {{name: rules, namespace: zta}}
data:
  rules.yaml: |
{indented(policies)}---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: zta-authz, namespace: zta}}
spec:
  template:
    metadata: {{labels: {{app: zta-authz}}}}
    spec:
      containers:
      - name: zta-authz
        image: registry.example/zta-authz:1
        args: [serve, --config, /etc/zta/config.yaml]
        env:
        - {{name: ZTA_DRAIN_SECONDS, value: "5"}}
        - {{name: ZTA_WORKLOAD__NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}
        volumeMounts:
        - {{name: settings, mountPath: /etc/zta}}
        - {{name: rules, mountPath: /etc/policies}}
      volumes:
      - {{name: settings, configMap: {{name: settings}}}}
      - {{name: rules, configMap: {{name: rules}}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask, namespace: shop}}
spec: {{action: CUSTOM, provider: {{name: zta-authz}}, rules: [{{}}]}}
"""


def line_of(text: str, part: str) -> int:
    """Where `part` first stands, from 1."""
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def report(folder: Path, capsys: pytest.CaptureFixture[str], text: str, *arguments: str) -> dict[str, Any]:
    """The JSON that the command prints for one file."""
    (folder / "all.yaml").write_text(text)
    main(["compliance", str(folder / "all.yaml"), "--output", "json", *arguments])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def check_of(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """One check of a report."""
    check: dict[str, Any] = next(check for check in answer["checks"] if check["id"] == name)
    return check
