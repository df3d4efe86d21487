"""The verified caller: the peer of the connection, and the end user of the tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from zta_authz.errors import Refused
from zta_authz.model.claims import claim_at, claim_text, is_header_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.spiffe import SpiffeId


class PeerTrust(StrEnum):
    """Why a peer's name is believed."""

    CERTIFICATE = "certificate"  # its chain was verified here against a trust bundle
    PROXY = "proxy"  # the operator configured trust in the proxy


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """Identifiers of a verified leaf: its URI SANs, and its issuer (RFC 4514) with its serial number."""

    uris: tuple[str, ...]
    issuer: str
    serial: int


@dataclass(frozen=True, slots=True)
class Peer:
    """The verified mTLS peer.

    Rules compare their principals with `names`: one SPIFFE ID with strict semantics; all URI SANs, DNS SANs and the
    subject, in Envoy's order, with Istio semantics. `spiffe_id` is None only with Istio semantics.
    `certificate_sha256` is the digest of the leaf's DER (RFC 8705 `x5t#S256`), None without a certificate.
    `certificate` has other identifiers of the same leaf.
    """

    names: tuple[str, ...]
    spiffe_id: SpiffeId | None
    trust: PeerTrust
    certificate_sha256: bytes | None = None
    certificate: CertificateNames | None = None
    principal: str = field(init=False, compare=False)
    """The name to display: the SPIFFE ID, else the first name, else ""."""

    def __post_init__(self) -> None:
        shown = str(self.spiffe_id) if self.spiffe_id is not None else next(iter(self.names), "")
        object.__setattr__(self, "principal", shown)  # computed once: every record, span and response contains it


class Binding(StrEnum):
    """What binds a token to its presenter."""

    CERTIFICATE = "certificate"  # `cnf` `x5t#S256` is the peer's certificate (RFC 8705)
    DPOP = "dpop"  # `cnf` `jkt` is the key of the request's DPoP proof (RFC 9449)
    SPIFFE_ID = "spiffe_id"  # `sub` is the peer's SPIFFE ID


@dataclass(frozen=True, slots=True)
class Token:
    """A verified JWT. `claims` is its whole payload; `issuer` and `subject` are "" if absent."""

    issuer: str
    subject: str
    claims: Mapping[str, Any] = field(repr=False)
    policy: str = ""
    """The RequestAuthentication that verified it, as `namespace/name`."""
    space_delimited_claims: tuple[str, ...] = ()
    """Top-level claims that rules split on spaces into a list, besides `scope` and `permission`."""
    issued_at: float | None = None
    """`iat` in seconds since the epoch, None if absent."""
    names: tuple[str, str] | None = field(init=False, repr=False, compare=False)
    """`iss` and `sub` as rules read them, None unless both are strings; computed once for all requests."""
    _texts: dict[tuple[str, ...], str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def header_text(self, path: tuple[str, ...]) -> str:
        """The claim at `path` as a header's value, "" if it has none that can be sent (cached)."""
        text = self._texts.get(path)
        if text is None:
            text = claim_text(claim_at(self.claims, path))
            text = self._texts[path] = text if is_header_value(text) else ""
        return text

    def __post_init__(self) -> None:
        issuer, subject = self.claims.get("iss"), self.claims.get("sub")
        names = (issuer, subject) if isinstance(issuer, str) and isinstance(subject, str) else None
        object.__setattr__(self, "names", names)


@dataclass(frozen=True, slots=True)
class ApiClient:
    """A client program, authenticated by its API key."""

    name: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that authentication makes to the request before it goes to the upstream.

    `set_headers` are (name, value) pairs to overwrite; `remove_headers` and `remove_query` are names.
    """

    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()
    remove_query: tuple[str, ...] = ()
    derived: list[Any] = field(init=False, repr=False, compare=False, default_factory=list)
    """What the decision log derived from these changes and the last response; empty until then."""


NO_CHANGES = Changes()


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything verified about the caller; `peer` and `token` are None if none was presented.

    `token` is the one that rules read (`requestPrincipals`, `request.auth.*`); `tokens` are all verified tokens.
    `binding` is what binds `token` to the caller; None for a plain bearer token.
    """

    peer: Peer | None = None
    token: Token | None = None
    tokens: tuple[Token, ...] = ()
    changes: Changes = NO_CHANGES
    binding: Binding | None = None
    api_client: ApiClient | None = None

    @property
    def principal(self) -> str:
        """The peer's principal, "" without an authenticated peer."""
        return self.peer.principal if self.peer is not None else ""


ANONYMOUS = Identity()


@dataclass(frozen=True, slots=True)
class NamedToken:
    """The issuer and subject that a refused token names; `verified` if its signature is valid."""

    issuer: str
    subject: str
    verified: bool


class RefusedCaller(Refused):
    """`Refused`, with what is known about the caller: only for the decision log, never for a decision."""

    def __init__(
        self,
        refused: Refused,
        *,
        peer: Peer | None = None,
        token: NamedToken | None = None,
        api_client: ApiClient | None = None,
    ) -> None:
        """Wrap `refused`: its own facts about the caller win over the arguments."""
        super().__init__(refused.reason, refused.detail, refused.revocation)
        earlier = refused if isinstance(refused, RefusedCaller) else None
        self.peer: Peer | None = (earlier.peer if earlier is not None else None) or peer
        self.token: NamedToken | None = (earlier.token if earlier is not None else None) or token
        self.api_client: ApiClient | None = (earlier.api_client if earlier is not None else None) or api_client
