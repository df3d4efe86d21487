"""Who is calling, verified: the peer behind the connection and the end user behind the tokens."""

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
    PROXY = "proxy"  # the operator said to take the proxy's word


@dataclass(frozen=True, slots=True)
class Peer:
    """The verified mTLS peer.

    `names` are what principals in rules are compared with, in Envoy's order: one SPIFFE ID in strict reading, all URI
    SANs, DNS SANs and the subject in Istio's. `spiffe_id` is None only in Istio's reading.
    `certificate_sha256` is the digest of the leaf's DER (RFC 8705 `x5t#S256`), None without a certificate.
    """

    names: tuple[str, ...]
    spiffe_id: SpiffeId | None
    trust: PeerTrust
    certificate_sha256: bytes | None = None
    principal: str = field(init=False, compare=False)
    """The one name to show: the SPIFFE ID, else the first name, else ""."""

    def __post_init__(self) -> None:
        shown = str(self.spiffe_id) if self.spiffe_id is not None else next(iter(self.names), "")
        object.__setattr__(self, "principal", shown)  # made once: every record, span and answer shows it


class Binding(StrEnum):
    """What ties a token to whoever presents it."""

    CERTIFICATE = "certificate"  # `cnf` `x5t#S256` is the peer's certificate (RFC 8705)
    DPOP = "dpop"  # `cnf` `jkt` is the key of the request's DPoP proof (RFC 9449)
    SPIFFE_ID = "spiffe_id"  # `sub` is the peer's SPIFFE ID


@dataclass(frozen=True, slots=True)
class Token:
    """A verified JWT. `claims` is its whole payload; `issuer` and `subject` are "" where absent."""

    issuer: str
    subject: str
    claims: Mapping[str, Any] = field(repr=False)
    policy: str = ""
    """Which RequestAuthentication verified it, as `namespace/name`."""
    space_delimited_claims: tuple[str, ...] = ()
    """Top-level claims whose text rules read as a list, split on spaces, beside `scope` and `permission`."""
    issued_at: float | None = None
    """`iat` in seconds since the epoch, None where the token does not say."""
    names: tuple[str, str] | None = field(init=False, repr=False, compare=False)
    """`iss` and `sub` as rules read them, None where one of them is no text; made once, as each request asks."""
    _texts: dict[tuple[str, ...], str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def header_text(self, path: tuple[str, ...]) -> str:
        """The claim at `path` as a header's value, "" where it has none that can be sent.

        Made once: policies ask with each request.
        """
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
    """A client program, known by its API key."""

    name: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What authentication asks of the request that goes on to the upstream.

    `set_headers` are (name, value) pairs to overwrite; `remove_headers` and `remove_query` are names.
    """

    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()
    remove_query: tuple[str, ...] = ()


NO_CHANGES = Changes()


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything verified about the caller; `peer` and `token` are None where nothing was presented.

    `token` is the one that rules read (`requestPrincipals`, `request.auth.*`); `tokens` are all that verified.
    `binding` is what ties `token` to the caller; None where whoever holds it may present it.
    """

    peer: Peer | None = None
    token: Token | None = None
    tokens: tuple[Token, ...] = ()
    changes: Changes = NO_CHANGES
    binding: Binding | None = None
    api_client: ApiClient | None = None

    @property
    def principal(self) -> str:
        """The peer's principal, "" where there is no authenticated peer."""
        return self.peer.principal if self.peer is not None else ""


ANONYMOUS = Identity()


@dataclass(frozen=True, slots=True)
class NamedToken:
    """Whom a token that was refused names; `verified` where its signature held, so that its issuer said it."""

    issuer: str
    subject: str
    verified: bool


class RefusedCaller(Refused):
    """`Refused`, with what is known of the caller all the same: for the decision log, never for a decision."""

    def __init__(
        self,
        refused: Refused,
        *,
        peer: Peer | None = None,
        token: NamedToken | None = None,
        api_client: ApiClient | None = None,
    ) -> None:
        """What `refused` says already of the caller stays; the rest is added."""
        super().__init__(refused.reason, refused.detail)
        said = refused if isinstance(refused, RefusedCaller) else None
        self.peer: Peer | None = (said.peer if said is not None else None) or peer
        self.token: NamedToken | None = (said.token if said is not None else None) or token
        self.api_client: ApiClient | None = (said.api_client if said is not None else None) or api_client
