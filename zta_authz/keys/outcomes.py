"""The closed list of ways a fetch can end, used in logs and as a metric label."""

from __future__ import annotations

from enum import StrEnum

from zta_authz.errors import ZtaError


class FetchOutcome(StrEnum):
    """The result of one fetch. Values are stable because they are metric labels."""

    TAKEN = "taken"
    REFUSED_URL = "refused_url"
    REFUSED_ADDRESS = "refused_address"
    REFUSED_REDIRECT = "refused_redirect"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    TIMEOUT = "timeout"
    STATUS = "status"
    TOO_LARGE = "too_large"
    WRONG_CONTENT = "wrong_content"
    WRONG_ISSUER = "wrong_issuer"
    FAILED = "failed"
    """An internal error. The log has its traceback."""


class FetchFailed(ZtaError):
    """A fetch failed. `detail` is for the log and contains no data from the server."""

    def __init__(self, outcome: FetchOutcome, detail: str) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = detail
