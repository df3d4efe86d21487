"""How a fetch can end: one closed list, used for logs and as a metric's label."""

from __future__ import annotations

from enum import StrEnum

from zta_authz.errors import ZtaError


class Outcome(StrEnum):
    """What came of one fetch. Values are stable: they are labels of metrics."""

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
    """A bug of ours; the log has its traceback."""


class FetchFailed(ZtaError):
    """A fetch brought nothing. `detail` is for the log and holds nothing of what the other side sent."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = detail
