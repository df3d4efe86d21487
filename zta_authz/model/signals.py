"""Signals: what security events say about users, sessions, workloads and devices.

The administrator verifies the events, and decision points receive what they say. Times are seconds since the epoch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from zta_authz.model.documents import Revoked


class SignalKind(StrEnum):
    """What a signal says about its subject."""

    RISK = "risk"  # a `RiskLevel`
    ASSURANCE = "assurance"  # the namespace, `/` and the level
    COMPLIANCE = "compliance"  # `compliant` or `not-compliant`


class Compliance(StrEnum):
    """The `current_status` of a device."""

    COMPLIANT = "compliant"
    NOT_COMPLIANT = "not-compliant"


class Signal(NamedTuple):
    """The newest event of one kind that a source sent about one subject.

    `what`, `issuer` and `subject` name the subject as a revocation does. `source` is `namespace/name` of the
    SignalSource, and `event` the `jti` of the event, which happened at `observed_at`.
    """

    id: str
    what: Revoked
    issuer: str
    subject: str
    kind: SignalKind
    value: str
    observed_at: float
    source: str
    event: str


class SourceState(NamedTuple):
    """One source of signals: when it was last heard, and what it reports.

    Its signals are stale if it sends nothing for more than `max_silence` seconds. It reports `kinds` about the tokens
    of `issuers`, the devices of `inventory` (`namespace/name`, "" for none) and, with `spiffe_ids`, workloads.
    """

    name: str
    heard_at: float
    max_silence: float
    issuers: frozenset[str] = frozenset()
    kinds: frozenset[SignalKind] = frozenset()
    inventory: str = ""
    spiffe_ids: bool = False


class SignalView(Protocol):
    """The signals in force, received before the request. Look-ups do no I/O."""

    @property
    def version(self) -> int:
        """Another number after each change of what the view says. It does not change when time passes."""
        ...

    @property
    def sources_version(self) -> int:
        """Another number after each change that is more than one signal: of the sources, or of the whole view."""
        ...

    def sources(self, kind: SignalKind, what: Revoked, name: str) -> tuple[SourceState, ...]:
        """The sources that report `kind` about tokens of an issuer, devices of an inventory, or SPIFFE IDs.

        `what` is `ISSUER`, `DEVICE` or `SPIFFE_ID`; `name` is the issuer or the inventory, "" for SPIFFE IDs.
        """
        ...

    def find(self, kind: SignalKind, what: Revoked, issuer: str, subject: str) -> tuple[Signal, ...]:
        """The signals of one subject: at most one of each source."""
        ...

    def is_stale(self, source: SourceState, now: float) -> bool:
        """Whether the source, or the administrator, was not heard for so long that its signals no longer count."""
        ...

    def stale_times(self, source: SourceState, now: float) -> tuple[float, ...]:
        """The times at which the result of `is_stale` changes if nothing else is heard.

        It is `now` if the source is stale: any sign of life ends that, and is no other version.
        """
        ...
