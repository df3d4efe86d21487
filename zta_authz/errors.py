"""The root exception, faults in documents, and the closed list of reason codes.

Every decision has exactly one `Reason`. Tests, metrics, spans, the decision log and the denial's body use these codes,
so they are stable: add new ones, never rename one.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


_QUOTED = 4
_QUOTED_CHARACTERS = 80


class Reason(StrEnum):
    """Why a request was allowed or refused. The list is closed; values are stable and safe to show to callers."""

    __hash__ = str.__hash__  # Enum.__hash__ is a Python call, and every decision looks its reason up several times

    # decided by the rules
    ALLOW_POLICY = "allow_policy"
    ALLOW_DEFAULT = "allow_default"
    DENY_POLICY = "deny_policy"
    NO_MATCHING_POLICY = "no_matching_policy"
    STEP_UP_REQUIRED = "step_up_required"
    TRUST_TOO_LOW = "trust_too_low"
    GRANT_REQUIRED = "grant_required"

    # the request itself
    REQUEST_MALFORMED = "request_malformed"
    REQUEST_TOO_LARGE = "request_too_large"
    PATH_AMBIGUOUS = "path_ambiguous"
    PATH_TOO_LONG = "path_too_long"
    HOST_AMBIGUOUS = "host_ambiguous"
    METHOD_AMBIGUOUS = "method_ambiguous"

    # the peer's certificate (X.509-SVID), or the proxy's statement about it
    PEER_CERTIFICATE_MISSING = "peer_certificate_missing"
    PEER_CERTIFICATE_MALFORMED = "peer_certificate_malformed"
    PEER_CERTIFICATE_UNTRUSTED = "peer_certificate_untrusted"
    PEER_CERTIFICATE_EXPIRED = "peer_certificate_expired"
    PEER_CERTIFICATE_NOT_YET_VALID = "peer_certificate_not_yet_valid"
    PEER_CERTIFICATE_IS_CA = "peer_certificate_is_ca"
    PEER_CERTIFICATE_KEY_USAGE = "peer_certificate_key_usage"
    PEER_CERTIFICATE_WEAK = "peer_certificate_weak"
    PEER_CERTIFICATE_NAME_CONSTRAINT = "peer_certificate_name_constraint"
    PEER_CHAIN_TOO_LONG = "peer_chain_too_long"
    PEER_SAN_COUNT = "peer_san_count"
    PEER_SAN_MISMATCH = "peer_san_mismatch"
    PEER_SPIFFE_ID_INVALID = "peer_spiffe_id_invalid"
    PEER_TRUST_DOMAIN_UNKNOWN = "peer_trust_domain_unknown"
    PEER_REVOKED = "peer_revoked"
    DEVICE_REVOKED = "device_revoked"

    # the request's JWTs
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_TOO_LARGE = "token_too_large"
    TOKEN_ALGORITHM = "token_algorithm"
    TOKEN_HEADER = "token_header"
    TOKEN_KEY_UNKNOWN = "token_key_unknown"
    TOKEN_SIGNATURE = "token_signature"
    TOKEN_ISSUER_UNKNOWN = "token_issuer_unknown"
    TOKEN_AUDIENCE = "token_audience"
    TOKEN_CLAIM_INVALID = "token_claim_invalid"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    TOKEN_EXPIRY_MISSING = "token_expiry_missing"
    TOKEN_TOO_MANY = "token_too_many"
    TOKEN_MISSING = "token_missing"
    TOKEN_REVOKED = "token_revoked"
    TOKEN_BINDING = "token_binding"
    TOKEN_TOO_OLD = "token_too_old"

    # proof of possession of the token's key (DPoP)
    DPOP_MISSING = "dpop_missing"
    DPOP_INVALID = "dpop_invalid"
    DPOP_MISMATCH = "dpop_mismatch"
    DPOP_EXPIRED = "dpop_expired"
    DPOP_REPLAYED = "dpop_replayed"

    # the request's API key
    API_KEY_INVALID = "api_key_invalid"
    API_KEY_EXPIRED = "api_key_expired"

    # the service itself
    NOT_READY = "not_ready"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CALLER_NOT_ALLOWED = "caller_not_allowed"
    WORKLOAD_UNKNOWN = "workload_unknown"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    MINTING_UNAVAILABLE = "minting_unavailable"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class DenialResponse:
    """What the refused caller receives.

    `status` is the HTTP status, `bearer_error` the error code of RFC 6750 section 3.1 ("" for none), `scheme` the
    authentication scheme that a 401 asks for.
    """

    status: int
    title: str
    bearer_error: str = ""
    scheme: str = "Bearer"


_TOKEN = DenialResponse(401, "The access token is not valid", "invalid_token")
_TOKEN_SYNTAX = DenialResponse(401, "The access token is malformed", "invalid_token")
_PROOF = DenialResponse(401, "The DPoP proof is not valid", "invalid_dpop_proof", "DPoP")
_PEER = DenialResponse(403, "The peer's certificate was not accepted")
_FORBIDDEN = DenialResponse(403, "Access denied")
_UNAVAILABLE = DenialResponse(503, "The authorization service cannot decide now")

_DENIAL_RESPONSES: dict[Reason, DenialResponse] = {
    Reason.DENY_POLICY: _FORBIDDEN,
    Reason.NO_MATCHING_POLICY: _FORBIDDEN,
    Reason.STEP_UP_REQUIRED: DenialResponse(
        401, "A stronger or more recent login is required", "insufficient_user_authentication"
    ),
    Reason.TRUST_TOO_LOW: DenialResponse(403, "The request is not trusted enough"),
    Reason.GRANT_REQUIRED: DenialResponse(403, "Access has to be requested first"),
    Reason.DEVICE_REVOKED: _FORBIDDEN,
    Reason.REQUEST_MALFORMED: DenialResponse(400, "The request is malformed"),
    Reason.REQUEST_TOO_LARGE: DenialResponse(413, "The request is too large"),
    Reason.PATH_AMBIGUOUS: DenialResponse(400, "The request path is ambiguous"),
    Reason.PATH_TOO_LONG: DenialResponse(414, "The request path is too long"),
    Reason.HOST_AMBIGUOUS: DenialResponse(400, "The request's host is ambiguous"),
    Reason.METHOD_AMBIGUOUS: DenialResponse(400, "The request's method is ambiguous"),
    Reason.TOKEN_MALFORMED: _TOKEN_SYNTAX,
    Reason.TOKEN_TOO_LARGE: _TOKEN_SYNTAX,
    Reason.TOKEN_MISSING: DenialResponse(401, "An access token is required"),
    Reason.API_KEY_INVALID: DenialResponse(401, "The API key is not valid"),
    Reason.API_KEY_EXPIRED: DenialResponse(401, "The API key has expired"),
    Reason.NOT_READY: _UNAVAILABLE,
    Reason.OVERLOADED: _UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: _UNAVAILABLE,
    Reason.AUDIT_UNAVAILABLE: _UNAVAILABLE,
    Reason.MINTING_UNAVAILABLE: _UNAVAILABLE,
    Reason.CALLER_NOT_ALLOWED: _FORBIDDEN,
    Reason.WORKLOAD_UNKNOWN: _FORBIDDEN,
    Reason.INTERNAL_ERROR: DenialResponse(500, "The authorization service failed"),
}


def _response_to(reason: Reason) -> DenialResponse:
    if reason in _DENIAL_RESPONSES:
        return _DENIAL_RESPONSES[reason]
    if reason.startswith("dpop_"):
        return _PROOF
    return _TOKEN if reason.startswith("token_") else _PEER


DENIAL_RESPONSES: Mapping[Reason, DenialResponse] = MappingProxyType(
    {reason: _response_to(reason) for reason in Reason if reason not in (Reason.ALLOW_POLICY, Reason.ALLOW_DEFAULT)}
)
"""What the caller receives for each reason that refuses. Reasons that allow are not in the map."""


class ZtaError(Exception):
    """Root of every exception that this package raises on purpose."""


class Refused(ZtaError):
    """The request's evidence is not valid. `reason` goes to the caller, `detail` only to the decision log.

    `detail` says what is wrong; it never contains a token, key or certificate. `revocation` is the administrator's ID
    of the revocation that applies, "" without one.
    """

    def __init__(self, reason: Reason, detail: str = "", revocation: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
        self.revocation = revocation


def quoted(values: Iterable[object]) -> str:
    """Format the first few values for a detail text, each quoted, shortened and on one line."""
    texts = [str(value) for value in islice(values, _QUOTED + 1)]
    shown = [f"`{_one_line(text[:_QUOTED_CHARACTERS])}{'…' * (len(text) > _QUOTED_CHARACTERS)}`" for text in texts]
    return ", ".join((*shown[:_QUOTED], *("…" for _ in shown[_QUOTED:]))) or "none"


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One error in a document or a setting: where it is, what is wrong, and how to fix it.

    `line` and `column` count from 1; 0 means that the source has no lines (a missing directory, an environment
    variable).
    """

    source: str
    line: int
    column: int
    message: str
    hint: str = ""

    @property
    def place(self) -> str:
        """The location as `file:line:column`, or only the source if no line is known."""
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class FaultsError(ZtaError):
    """All faults found, in order of source and position."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(sorted(set(faults)))
        super().__init__("\n".join(str(fault) for fault in self.faults))


@contextmanager
def collect_faults(faults: list[Fault]) -> Iterator[None]:
    """Append faults raised in the `with` block to `faults`, so that the code after the block runs too."""
    try:
        yield
    except FaultsError as error:
        faults.extend(error.faults)


class DocumentErrors(FaultsError):
    """Policy documents that do not parse or validate. Nothing of the set is loaded."""


class SettingsErrors(FaultsError):
    """Settings that do not parse or validate. The process does not start."""
