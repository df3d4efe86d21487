"""`require` of an AccessPolicy: requirements on the verified token itself.

`token.bound`: the token is bound to its presenter (see `authn.binding`). `token.maxAge`: the token was issued at most
that long ago. A rule whose requirement fails does not match, so `require` is a fault in a DENY policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.policy.rules.fact_clauses import read_require_device, read_require_network
from zta_authz.policy.rules.require_authentication import read_require_authentication
from zta_authz.policy.rules.require_grant import read_require_grant
from zta_authz.policy.rules.require_trust import read_require_trust
from zta_authz.policy.yaml.values import duration, flag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

LONGEST_AGE = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class BoundClause:
    """The verified token is bound to its presenter."""

    negated: bool = False
    label: str = "require.token.bound"
    cost: int = 1

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the token has a binding; false without a token."""
        del deny
        return inputs.identity.binding is not None

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """None: the index can't look up a binding."""
        return None

    def actual(self, inputs: Inputs) -> str:
        """The token's binding."""
        identity = inputs.identity
        if identity.token is None:
            return "no verified token"
        return f"`{identity.binding}`" if identity.binding is not None else "a bearer token, which anybody may present"

    @property
    def expected(self) -> str:
        """The accepted bindings."""
        return "a token bound to the peer's certificate, to a DPoP key, or to the peer's SPIFFE ID"


@dataclass(frozen=True, slots=True)
class MaxAgeClause:
    """The verified token was issued at most `seconds` ago."""

    seconds: float
    negated: bool = False
    label: str = "require.token.maxAge"
    cost: int = 1

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether `iat` is recent enough; false without a token or an `iat`."""
        del deny
        token = inputs.identity.token
        return token is not None and token.issued_at is not None and inputs.now - token.issued_at <= self.seconds

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """None: the index can't look up an age."""
        return None

    def actual(self, inputs: Inputs) -> str:
        """The token's age."""
        token = inputs.identity.token
        if token is None:
            return "no verified token"
        return "no `iat`" if token.issued_at is None else f"`{inputs.now - token.issued_at:.0f} s`"

    @property
    def expected(self) -> str:
        """The maximum age."""
        return f"at most `{self.seconds:g} s`"


def read_require(reader: Reader, node: Node) -> tuple[Clause, ...]:
    """Read `require` to clauses; errors become faults."""
    mapping = reader.mapping(node, "require", _SECTIONS)
    if mapping is None:
        return ()
    if not mapping.entries:
        reader.fault(mapping, "`require` is empty", f"add one of {', '.join(_SECTIONS)}")
    present = [(read, below) for name, read in _SECTIONS.items() if (below := mapping.get(name)) is not None]
    return tuple(clause for read, below in present for clause in read(reader, below))


def _read_token(reader: Reader, node: Node) -> tuple[Clause, ...]:
    token = reader.mapping(node, "require.token", ("bound", "maxAge"))
    if token is None:
        return ()
    clauses: list[Clause] = []
    bound = token.get("bound")
    if flag(reader, token, "bound"):
        clauses.append(BoundClause())
    elif bound is not None and getattr(bound, "value", "") == "false":
        reader.fault(bound, "`bound: false` has no effect", "write `true`, or remove it")
    if token.get("maxAge") is not None:
        clauses.append(MaxAgeClause(duration(reader, token, "maxAge", 0.0, LONGEST_AGE)))
    if not token.entries:
        reader.fault(token, "`require.token` is empty", "add `bound: true` or `maxAge: 15m`")
    return tuple(clauses)


_SECTIONS: Final[Mapping[str, Callable[[Reader, Node], tuple[Clause, ...]]]] = {
    "token": _read_token,
    "authentication": read_require_authentication,
    "device": read_require_device,
    "network": read_require_network,
    "trust": read_require_trust,
    "grant": read_require_grant,
}
"""What `require` may ask for, by name."""
