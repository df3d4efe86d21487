"""Snapshots compiled from texts, and a source of snapshots that tests can change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.model.options import Options, Workload
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

if TYPE_CHECKING:
    from zta_authz.model.options import CertificateCheck

FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"
HATSHOP = """
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: hatshop-policy}
spec:
  selector: {matchLabels: {app: hatshop}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/default/sa/frontend"]}}]
    to: [{operation: {methods: ["GET", "POST"]}}]
"""


def hatshop(text: str = HATSHOP, *, trust_proxy: bool = True, check: CertificateCheck | None = None) -> Snapshot:
    """Compile `text` for the hat shop; by default the proxy's name for the peer is trusted."""
    workload = Workload(labels={"app": "hatshop"})
    options = Options(workload=workload, trust_proxy=trust_proxy)
    if check is not None:
        options = Options(workload=workload, trust_proxy=trust_proxy, verify_certificate=check)
    return compile_snapshot([SourceText("hatshop.yaml", text)], options)


class FixedSnapshot:
    """A source that always returns `snapshot`."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
