"""The form of a token exchange (RFC 8693, section 2.1): what is read, and why a request is refused (RFC 6749)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from zta_authz.errors import ZtaError
from zta_authz.model.minting import TokenKind

if TYPE_CHECKING:
    from collections.abc import Mapping

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_TYPES: Final = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN: Final = f"{_TYPES}access_token"
JWT: Final = f"{_TYPES}jwt"
TRANSACTION_TOKEN: Final = f"{_TYPES}txn_token"
"""draft-ietf-oauth-transaction-tokens."""
MAX_TARGET: Final = 256
MAX_SCOPE: Final = 1024
_UNSUPPORTED: Final = ("resource", "actor_token", "actor_token_type")
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_VISIBLE: Final = re.compile(r"[!-~]+")  # one field of a header
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")  # RFC 6749 section 3.3


class ExchangeError(StrEnum):
    """The codes of RFC 6749 section 5.2 and RFC 8693 section 2.2.2."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    INVALID_TARGET = "invalid_target"
    INVALID_SCOPE = "invalid_scope"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    UNAVAILABLE = "temporarily_unavailable"


class ExchangeRefused(ZtaError):
    """The exchange is refused. The message is for the caller, in the characters of `error_description`."""

    def __init__(self, error: ExchangeError, message: str) -> None:
        super().__init__(message)
        self.error = error


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """What a workload asks for: a token for `audience`, for the subject of `subject_token`.

    `scope` is None if it asks for all that the rule gives. `kind` is None if it takes either.
    """

    subject_token: str = field(repr=False)
    audience: str
    scope: str | None = None
    kind: TokenKind | None = None


def read_exchange(form: Mapping[str, str]) -> ExchangeRequest:
    """Read the fields of a form. Unknown ones are ignored (RFC 6749 section 3.2). Raises `ExchangeRefused`."""
    if form.get("grant_type") != GRANT_TYPE:
        message = f"grant_type is not {GRANT_TYPE}"
        raise ExchangeRefused(ExchangeError.UNSUPPORTED_GRANT_TYPE, message)
    for name in _UNSUPPORTED:
        if name in form:
            raise _invalid(f"{name} is not supported: the actor is the workload that calls")
    token = form.get("subject_token", "")
    if not _COMPACT.fullmatch(token):
        raise _invalid("subject_token is not a JWT")
    if form.get("subject_token_type") not in (ACCESS_TOKEN, JWT):
        raise _invalid(f"subject_token_type is neither {ACCESS_TOKEN} nor {JWT}")
    audience = form.get("audience", "")
    if not _VISIBLE.fullmatch(audience) or len(audience) > MAX_TARGET:
        raise _invalid("audience is missing, or is not one name")
    scope = form.get("scope")
    if scope is not None and (len(scope) > MAX_SCOPE or not _SCOPE.fullmatch(scope)):
        raise ExchangeRefused(ExchangeError.INVALID_SCOPE, "scope is not a list of values")
    return ExchangeRequest(token, audience, scope, _kind(form.get("requested_token_type")))


def _kind(requested: str | None) -> TokenKind | None:
    if requested is None:
        return None
    if requested in (ACCESS_TOKEN, JWT):
        return TokenKind.SESSION
    if requested == TRANSACTION_TOKEN:
        return TokenKind.TRANSACTION
    raise _invalid("requested_token_type is not supported")


def _invalid(message: str) -> ExchangeRefused:
    return ExchangeRefused(ExchangeError.INVALID_REQUEST, message)
