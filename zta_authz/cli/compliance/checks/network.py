"""Check the network policies of namespaces with workloads."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied, Unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.installation import Installation
    from zta_authz.cli.compliance.values import Document, Value

_METADATA_SERVICE: Final = ipaddress.ip_address("169.254.169.254")
_DIRECTIONS: Final = (("Ingress", "ingress", "from"), ("Egress", "egress", "to"))


def _namespaces(installation: Installation) -> list[str]:
    return sorted(installation.workloads)


def _policies(installation: Installation, namespace: str) -> list[Document]:
    return installation.of_kind_in("NetworkPolicy", [namespace])


def nothing_is_reached_by_default(installation: Installation) -> Iterator[Finding]:
    """In each namespace with workloads, a NetworkPolicy selects all pods and lets nothing in or out."""
    with_pods = _namespaces(installation)
    for namespace in with_pods:
        policies = _policies(installation, namespace)
        for direction, field, _ in _DIRECTIONS:
            closing = [policy for policy in policies if _closes(policy, direction, field)]
            if closing:
                types = closing[0].root.get("spec", "policyTypes")
                yield Satisfied((types or closing[0].root).location, f"{direction} of namespace {namespace}")
            else:
                message = f"nothing denies {direction.lower()} in namespace `{namespace}` by default"
                yield Gap(message, f"add a NetworkPolicy with `podSelector: {{}}` and `policyTypes: [{direction}]`")
    for injected in installation.injected_namespaces:
        if injected.name not in installation.workloads and not _policies(installation, injected.name):
            message = f"the workloads and network policies of namespace {injected.name} are not among the files"
            yield Unseen(message, injected.root.location)


def _closes(policy: Document, direction: str, field: str) -> bool:
    selector = policy.root.get("spec", "podSelector")
    types = [kind.text() for kind in policy.root.items("spec", "policyTypes")] or ["Ingress"]
    everything = selector is not None and not selector.fields()
    return everything and direction in types and not policy.root.items("spec", field)


def only_what_is_needed_is_reached(installation: Installation) -> Iterator[Finding]:
    """Each allow names peers and ports; rules for the internet exclude the cloud's metadata service."""
    for namespace in _namespaces(installation):
        for policy in _policies(installation, namespace):
            gaps = [gap for _, field, peers in _DIRECTIONS for gap in _open_rules(policy, field, peers)]
            yield from gaps
            count = sum(len(policy.root.items("spec", field)) for _, field, _ in _DIRECTIONS)
            if count and not gaps:
                yield Satisfied(
                    policy.root.location, "names peers and ports" + (", from every namespace" if _wide(policy) else "")
                )


def _wide(policy: Document) -> bool:
    """Return whether all pods of all namespaces may connect."""
    peers = [peer for rule in policy.root.items("spec", "ingress") for peer in rule.items("from")]
    selectors = [peer.get("namespaceSelector") for peer in peers if peer.get("podSelector") is None]
    return any(selector is not None and not selector.fields() for selector in selectors)


def _open_rules(policy: Document, field: str, peers: str) -> Iterator[Gap]:
    for rule in policy.root.items("spec", field):
        if not rule.items(peers):
            yield Gap("all peers are allowed", f"name peers in `{peers}`", rule.location)
        if not rule.items("ports"):
            yield Gap("all ports are allowed", "name `ports`", rule.location)
        for peer in rule.items(peers):
            block = peer.get("ipBlock")
            if block is not None and _reaches_metadata(block):
                remedy = "put private and link-local networks into `except`"
                yield Gap("the cloud's metadata service can be reached", remedy, block.location)


def _reaches_metadata(block: Value) -> bool:
    """Return whether the block has the link-local address of the metadata service, which issues node credentials."""
    try:
        held = _METADATA_SERVICE in ipaddress.ip_network(block.text("cidr"), strict=False)
        excepted = [ipaddress.ip_network(network.text(), strict=False) for network in block.items("except")]
    except ValueError:
        return True
    return held and not any(_METADATA_SERVICE in network for network in excepted)
