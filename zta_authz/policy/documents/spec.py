"""Authorization policies as written: their shape is checked, their values are not compiled. Nodes keep positions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zta_authz.policy.yaml.nodes import Mapping

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.model.access import EntitlementTerms, GrantDocument
    from zta_authz.model.device_documents import DeviceInventory
    from zta_authz.model.documents import (
        ApiKeySet,
        IssuerPolicy,
        Position,
        RequestAuthentication,
        RevocationList,
        Selector,
        TrustBundle,
    )
    from zta_authz.model.signal_documents import SignalSource
    from zta_authz.model.trust import TrustDemand
    from zta_authz.model.trust_documents import TrustModelSpec
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.response_template import ResponseTemplate
    from zta_authz.policy.rules.schedule import TimeWindow
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node, Scalar

ISTIO_VERSIONS = ("security.istio.io/v1", "security.istio.io/v1beta1")
ZTA_VERSION = "zta.dev/v1"
DRY_RUN_ANNOTATION = "istio.io/dry-run"


@dataclass(slots=True)
class FieldSpec:
    """A field of a source or operation with its values; `name` is without `not`, which sets `negated`."""

    name: str
    negated: bool
    values: list[Scalar]


@dataclass(slots=True)
class WhenSpec:
    """An entry of `when`; `values` and `not_values` are both empty only after a fault."""

    key: Scalar
    values: list[Scalar]
    not_values: list[Scalar]


@dataclass(slots=True)
class Extras:
    """The fields of an AccessPolicy, or of one of its rules, that Istio does not have."""

    condition: Scalar | None = None
    times: TimeWindow | None = None
    response: ResponseTemplate | None = None
    name: str = ""
    require: tuple[Clause, ...] = ()


@dataclass(slots=True)
class RuleSpec:
    """A rule; an absent section is an empty list."""

    node: Node
    sources: list[list[FieldSpec]] = field(default_factory=list)
    operations: list[list[FieldSpec]] = field(default_factory=list)
    when: list[WhenSpec] = field(default_factory=list)
    extras: Extras | None = None


@dataclass(slots=True)
class PolicySpec:
    """An authorization policy. `rules` is None if the field is absent (`spec: {}`)."""

    kind: str
    name: str
    namespace: str
    action: str
    selector: Selector
    rules: list[RuleSpec] | None
    dry_run: bool
    node: Node
    reader: Reader
    extras: Extras | None = None

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ClassRule:
    """What the rule of the same number in the policy gives: a class of `CLASSES`, and the cost of one operation."""

    class_name: str
    cost: int = 1


@dataclass(slots=True)
class ClassificationSpec:
    """One document. `policy` has its rules, as an ALLOW policy's; `given` says what each of them gives."""

    policy: PolicySpec
    given: list[ClassRule]
    default: str
    demands: dict[str, TrustDemand] = field(default_factory=dict)

    @property
    def selector(self) -> Selector:
        """Which workloads it is for."""
        return self.policy.selector

    @property
    def position(self) -> Position:
        """Where it is."""
        return self.policy.reader.position(self.policy.node)

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return self.policy.full_name


@dataclass(slots=True)
class EntitlementSpec:
    """One `AccessEntitlement`: its terms, and whom its parts match, each as the one rule of an ALLOW policy.

    `use` has `who` and `to`, `who` only the callers. `approvers` are in the order of `terms.approvals`. `digest`
    (SHA-256, hex) changes with every change of the document's `spec`.
    """

    terms: EntitlementTerms
    who: PolicySpec
    use: PolicySpec
    approvers: list[PolicySpec] = field(default_factory=list)
    break_glass: PolicySpec | None = None
    digest: str = ""

    @property
    def position(self) -> Position:
        """Where it is."""
        return self.who.reader.position(self.who.node)

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return self.who.full_name


@dataclass(slots=True)
class DocumentSet:
    """The documents of all sources."""

    policies: list[PolicySpec] = field(default_factory=list)
    authentications: list[RequestAuthentication] = field(default_factory=list)
    bundles: list[TrustBundle] = field(default_factory=list)
    revocations: list[RevocationList] = field(default_factory=list)
    issuer_policies: list[IssuerPolicy] = field(default_factory=list)
    api_keys: list[ApiKeySet] = field(default_factory=list)
    trust_models: list[TrustModelSpec] = field(default_factory=list)
    inventories: list[DeviceInventory] = field(default_factory=list)
    classifications: list[ClassificationSpec] = field(default_factory=list)
    entitlements: list[EntitlementSpec] = field(default_factory=list)
    grants: list[GrantDocument] = field(default_factory=list)
    signal_sources: list[SignalSource] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    """Documents that are skipped, and why."""


@dataclass(frozen=True, slots=True)
class DocumentHeader:
    """The common part of every document: kind, name and nodes."""

    version: str
    kind: str
    name: str
    namespace: str
    annotations: dict[str, str]
    document: Mapping
    spec: Mapping
    reader: Reader

    def annotation(self, name: str) -> Node:
        """The node of an annotation's value, or its nearest existing parent."""
        node: Node = self.document
        for key in ("metadata", "annotations", name):
            below = node.get(key) if isinstance(node, Mapping) else None
            if below is None:
                break
            node = below
        return node
