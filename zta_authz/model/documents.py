"""Operators' documents after parsing and validation, before compilation: one frozen type for each kind.

`Position` records where a value is written, so that the compiler can report faults at their location.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.spiffe import TrustDomain


@dataclass(frozen=True, slots=True)
class Position:
    """A location in a source; `line` and `column` count from 1."""

    source: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Selector:
    """The workloads that a document applies to: a namespace (the root namespace means all) and labels to match."""

    namespace: str
    labels: Mapping[str, str]

    def selects(self, namespace: str, labels: Mapping[str, str], root_namespace: str) -> bool:
        """Apply Istio's rule: the namespaces are equal or it is the root namespace, and all labels match."""
        if self.namespace not in (namespace, root_namespace):
            return False
        return all(labels.get(key) == value for key, value in self.labels.items())


@dataclass(frozen=True, slots=True)
class FromHeader:
    """A token location: the header `name` (lower case), after `prefix` (may be "")."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ClaimToHeader:
    """`outputClaimToHeaders`: set `header` (lower case) from the claim at the dotted path `claim`."""

    header: str
    claim: str


@dataclass(frozen=True, slots=True)
class JwtRule:
    """One entry of `RequestAuthentication.spec.jwtRules`.

    `issuer` "" accepts any `iss`. `jwks` is the text of the inline key set, None if the keys come from `jwks_uri` or
    discovery. `jwks_position` locates the key set; `policy` is `namespace/name`. `required` is `presence: REQUIRED`:
    every request needs a token that this rule accepts.
    """

    policy: str
    position: Position
    issuer: str
    audiences: tuple[str, ...] = ()
    jwks: str | None = field(default=None, repr=False)
    jwks_uri: str | None = None
    jwks_position: Position | None = None
    from_headers: tuple[FromHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    output_payload_to_header: str = ""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    forward_original_token: bool = False
    space_delimited_claims: tuple[str, ...] = ()
    timeout_seconds: float = 5.0
    required: bool = False


@dataclass(frozen=True, slots=True)
class RequestAuthentication:
    """`security.istio.io` RequestAuthentication."""

    name: str
    namespace: str
    position: Position
    selector: Selector
    rules: tuple[JwtRule, ...]


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """`zta.dev/v1` TrustBundle: the authorities of one trust domain. PEM texts contain one or more certificates.

    `spiffe_bundle` is a SPIFFE bundle, as JSON text or parsed. The domain's JWT-SVIDs are accepted if they are for one
    of `jwt_svid_audiences`.
    """

    name: str
    namespace: str
    position: Position
    trust_domain: TrustDomain
    x509_authorities: str = ""
    x509_authorities_position: Position | None = None
    x509_intermediates: str = ""
    x509_intermediates_position: Position | None = None
    jwt_authorities: Mapping[str, Any] | None = None
    jwt_authorities_position: Position | None = None
    spiffe_bundle: Mapping[str, Any] | str | None = None
    spiffe_bundle_position: Position | None = None
    jwt_svid_audiences: tuple[str, ...] = ()


class Revoked(StrEnum):
    """What a revocation refuses. The last four come only from the administrator."""

    TOKEN = "token"  # noqa: S105 - the `jti` of a token
    KEY = "key"  # the `kid` of an issuer's key
    SUBJECT = "subject"  # the `sub` of an issuer's tokens
    SERIAL = "serial"  # a certificate's serial number, in decimal
    SHA256 = "sha256"  # the SHA-256 of a certificate's DER, in lower-case hex
    SPIFFE_ID = "spiffe id"
    SPIFFE_PREFIX = "spiffe prefix"  # every SPIFFE ID that starts with it; ends with "/"
    SESSION = "session"  # the `sid` of an issuer's tokens
    EMAIL = "email"  # the `email` of an issuer's tokens, with ASCII letters in lower case
    ISSUER = "issuer"  # every token of an issuer; the value is the issuer
    DEVICE = "device"  # a device of an inventory; the issuer is the inventory, "" for any


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry: revokes the `what` named `value`, only of `issuer` unless that is "".

    The entry applies from `effective_from` on, and only to credentials issued before `before`; both are seconds since
    the epoch.
    """

    what: Revoked
    value: str
    issuer: str = ""
    before: float = float("inf")
    effective_from: float = float("-inf")
    comment: str = ""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """`zta.dev/v1` RevocationList."""

    name: str
    namespace: str
    position: Position
    entries: tuple[Revocation, ...]


@dataclass(frozen=True, slots=True)
class IssuerPolicy:
    """`zta.dev/v1` IssuerPolicy: limits on one issuer's tokens. () allows any; `max_token_age` is in seconds.

    `acr_levels` are pairs of an `acr` and its level, which rules compare.
    """

    name: str
    namespace: str
    position: Position
    issuer: str
    max_token_age: float = float("inf")
    allow_missing_exp: bool = False
    require_bound: bool = False
    require_kid: bool = False
    algorithms: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    acr_levels: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client's key by its digest (SHA-256 or SHA-512), valid from `not_before` until before `expires`, in seconds."""

    digest: bytes = field(repr=False)
    position: Position
    not_before: float = float("-inf")
    expires: float = float("inf")


@dataclass(frozen=True, slots=True)
class ApiKeyClient:
    """A client program and its keys; it has several during a rotation."""

    name: str
    scopes: tuple[str, ...]
    keys: tuple[ApiKey, ...]


@dataclass(frozen=True, slots=True)
class ApiKeySet:
    """`zta.dev/v1` ApiKeySet: keys sent in `header` (lower case), which is forwarded upstream if `forward`."""

    name: str
    namespace: str
    position: Position
    selector: Selector
    clients: tuple[ApiKeyClient, ...]
    header: str = "x-api-key"
    forward: bool = False
