"""`require.grant`: the caller holds a grant of an entitlement, and is eligible for it at this very request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.model.access import Subject
from zta_authz.model.spiffe import SCHEME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.model.access import Grant
    from zta_authz.model.documents import Position
    from zta_authz.model.identity import Identity
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

ENTITLEMENT_NAME: Final = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
)


class Entitlement(Protocol):
    """A compiled `AccessEntitlement`."""

    @property
    def name(self) -> str:
        """`namespace/name`."""
        ...

    def permits_use(self, inputs: Inputs) -> bool:
        """Whether the caller is eligible now, and the request is one that the entitlement is for."""
        ...

    def may_obtain(self, inputs: Inputs) -> bool:
        """Whether the caller could get a grant, by asking or in an emergency."""
        ...

    def document_grants(self, subjects: Sequence[Subject]) -> Sequence[Grant]:
        """The grants of `AccessGrant` documents to any of `subjects`."""
        ...


def is_entitlement_name(name: str) -> bool:
    """Whether `name` is `name` or `namespace/name`, each as Kubernetes names objects."""
    return ENTITLEMENT_NAME.fullmatch(name) is not None


def subjects_of(identity: Identity) -> tuple[Subject, ...]:
    """Who the caller is to grants: the subject of its token, and the SPIFFE ID of its certificate."""
    token, peer = identity.token, identity.peer
    subjects = () if token is None or token.names is None else (Subject(*token.names),)
    if peer is not None and peer.principal.startswith(SCHEME):
        subjects = (*subjects, Subject(spiffe_id=peer.principal))
    return subjects


@dataclass(frozen=True, slots=True)
class GrantClause:
    """The caller has an active grant of `written`, the entitlement's name as the policy has it.

    `entitlement` is set when all documents are known; without it nothing matches.
    """

    written: str
    position: Position
    entitlement: Entitlement | None = field(default=None, compare=False)
    negated: bool = False
    label: str = "require.grant"
    cost: int = 60

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether there is such a grant, and the entitlement permits this use of it."""
        del deny
        entitlement = self.entitlement
        if entitlement is None:
            return False
        held = entitlement.name in inputs.facts.assumed_grants or self.grant_of(inputs) is not None
        return held and entitlement.permits_use(inputs)

    def grant_of(self, inputs: Inputs) -> Grant | None:
        """The caller's active grant that ends last; None without one. Grants of a stale view don't count."""
        subjects = subjects_of(inputs.identity)
        if self.entitlement is None or not subjects:
            return None
        now = inputs.now
        grants = [grant for grant in self.entitlement.document_grants(subjects) if grant.is_active(now)]
        view = inputs.facts.grants
        received = None if view is None or view.is_stale(now) else view.find(self.entitlement.name, subjects, now)
        if received is not None:
            grants.append(received)
        return max(grants, key=lambda grant: grant.until, default=None)

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """None: the index can't look up grants."""
        return None

    def actual(self, inputs: Inputs) -> str:
        """Which grant there is, or was."""
        subjects, view = subjects_of(inputs.identity), inputs.facts.grants
        if self.entitlement is None or not subjects:
            return "a caller without a token's subject and without a SPIFFE ID"
        if self.grant_of(inputs) is not None:
            return "a grant, but the entitlement's `who` or `to` does not match this request"
        if view is not None and view.is_stale(inputs.now):
            return "no grant that counts: the administrator has not been heard of for too long"
        formers = [*self.entitlement.document_grants(subjects)]
        received = None if view is None else view.latest(self.entitlement.name, subjects)
        if received is not None:
            formers.append(received)
        former = max(formers, key=lambda grant: grant.until, default=None)
        if former is not None and inputs.now < former.start < former.until:
            return f"a grant that begins in {former.start - inputs.now:.0f} s"
        if former is not None:
            return f"a grant that ended {max(0.0, inputs.now - former.until):.0f} s ago"
        return "no grant"

    @property
    def expected(self) -> str:
        """The entitlement."""
        return f"an active grant of `{self.written if self.entitlement is None else self.entitlement.name}`"


def read_require_grant(reader: Reader, node: Node) -> tuple[Clause, ...]:
    """Read `require.grant` to its clause; errors become faults."""
    name = reader.string(node, "require.grant")
    if name is None:
        return ()
    if not is_entitlement_name(name):
        hint = "write its `metadata.name`, or `namespace/name` for one of another namespace"
        reader.fault(node, f"`{name[:80]}` is not the name of an AccessEntitlement", hint)
        return ()
    return (GrantClause(name, reader.position(node)),)
