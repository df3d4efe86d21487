"""Reads what signals say about the caller of a request, and about its device.

The transmitter of a source reports changes only. So from a source that is heard, no event about a caller means the risk
LOW. A source that was not heard for too long is stale: nobody knows what it would report.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from zta_authz.model.documents import Revoked
from zta_authz.model.facts import ABSENT, Fact, SignalFacts, Unknown, known, steady_around
from zta_authz.model.signal_documents import RiskLevel
from zta_authz.model.signals import Compliance, SignalKind
from zta_authz.model.spiffe import SCHEME

if TYPE_CHECKING:
    from zta_authz.model.facts import DeviceFacts
    from zta_authz.model.identity import Identity, Token
    from zta_authz.model.signals import Signal, SignalView, SourceState
    from zta_authz.policy.rules.inputs import Inputs

COMPLIANT: Final = "compliant"
DEVICE_RISK: Final = "signaledRisk"
"""The fields of a device that signals give."""
_RISKS: Final = tuple(RiskLevel)
_ASCII_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_Key = tuple[Revoked, str, str]


def read_signals(inputs: Inputs, view: SignalView) -> SignalFacts:
    """What signals say about the token, its session and its subject, and about the workload that calls."""
    identity = inputs.identity
    keys = _keys_of(identity)
    risk_sources = _sources_of(view, SignalKind.RISK, identity)
    assurance_sources = _sources_of(view, SignalKind.ASSURANCE, identity)
    changes = [at for source in (*risk_sources, *assurance_sources) for at in view.stale_times(source, inputs.now)]
    since, until = steady_around(inputs.now, changes)
    return SignalFacts(
        _risk(view, risk_sources, keys, inputs.now),
        _assurance(view, assurance_sources, keys, inputs.now, verified=_is_email_verified(identity)),
        since=since,
        until=until,
    )


def device_signals(
    view: SignalView, inventory: str, device_id: str, compliant: Fact, max_age: float, now: float
) -> tuple[dict[str, Fact], list[float]]:
    """The fields of a device that signals give or change, and the times at which these may change.

    `compliant` is what the inventory says, and counts if it is newer than the signal. A signal that the device is
    compliant counts for `max_age` seconds, as the inventory's records do; one that it is not counts until a newer one.
    """
    fields: dict[str, Fact] = {}
    changes: list[float] = []
    risk_sources = view.sources(SignalKind.RISK, Revoked.DEVICE, inventory)
    if risk_sources:
        fields[DEVICE_RISK] = _risk(view, risk_sources, [(Revoked.DEVICE, inventory, device_id)], now)
    compliance_sources = view.sources(SignalKind.COMPLIANCE, Revoked.DEVICE, inventory)
    for source in (*risk_sources, *compliance_sources):
        changes += view.stale_times(source, now)
    worst: Fact | None = None
    for signal in view.find(SignalKind.COMPLIANCE, Revoked.DEVICE, inventory, device_id):
        source_of = {source.name: source for source in compliance_sources}.get(signal.source)
        if source_of is None or not _is_newer(signal, compliant):
            continue
        changes.append(signal.observed_at + max_age)
        fact = _compliance(signal, max_age, now, stale=view.is_stale(source_of, now))
        if worst is None or _badness(fact) > _badness(worst):
            worst = fact
    if worst is not None:
        fields[COMPLIANT] = worst
    return fields, changes


def signals_about_caller(view: SignalView, identity: Identity) -> tuple[Signal, ...]:
    """The signals that `read_signals` follows from."""
    signals: list[Signal] = []
    for what, issuer, subject in _keys_of(identity):
        signals += view.find(SignalKind.RISK, what, issuer, subject)
        signals += view.find(SignalKind.ASSURANCE, what, issuer, subject)
    return tuple(signals)


def signals_about_device(view: SignalView, device: DeviceFacts) -> tuple[Signal, ...]:
    """The signals that `device_signals` follows from."""
    if not device.device_id:
        return ()
    key = (Revoked.DEVICE, device.inventory, device.device_id)
    return (*view.find(SignalKind.RISK, *key), *view.find(SignalKind.COMPLIANCE, *key))


def event_against(signals: SignalFacts | None, device: DeviceFacts | None) -> str:
    """The `jti` of an event that speaks against the caller or its device, "" without one."""
    facts = () if signals is None else (signals.risk, signals.assurance)
    fields = None if device is None else device.fields
    if fields is not None:
        facts = (*facts[:1], fields.get(COMPLIANT, ABSENT), fields.get(DEVICE_RISK, ABSENT), *facts[1:])
    for fact in facts:
        if fact.event and fact.value is not True and fact.value != RiskLevel.LOW:
            return fact.event
    return ""


def _is_newer(signal: Signal, compliant: Fact) -> bool:
    """Whether a signal counts rather than the inventory's own field. Of the same time, the worse one counts."""
    if compliant.unknown is Unknown.CONFLICTING:
        return False
    recorded = -inf if compliant.observed_at is None else compliant.observed_at
    if signal.value == Compliance.COMPLIANT:
        return signal.observed_at > recorded
    return signal.observed_at >= recorded


def _compliance(signal: Signal, max_age: float, now: float, *, stale: bool) -> Fact:
    is_compliant = signal.value == Compliance.COMPLIANT
    if stale or (is_compliant and now > signal.observed_at + max_age):
        return Fact(None, Unknown.STALE, signal.observed_at, signal.source, signal.event)
    return Fact(is_compliant, None, signal.observed_at, signal.source, signal.event)


def _badness(fact: Fact) -> int:
    return 2 if fact.value is False else 1 if fact.unknown is not None else 0


def _keys_of(identity: Identity) -> list[_Key]:
    """The subjects of events that the caller is: those that revocations compare with the same credentials."""
    keys: list[_Key] = []
    if identity.token is not None:
        _add_token(keys, identity.token)
    peer = identity.peer
    if peer is not None and peer.spiffe_id is not None:
        keys.append((Revoked.SPIFFE_ID, "", peer.principal))
    return keys


def _add_token(keys: list[_Key], token: Token) -> None:
    issuer, claims = token.issuer, token.claims
    keys.append((Revoked.ISSUER, "", issuer))
    if token.subject:
        keys.append((Revoked.SUBJECT, issuer, token.subject))
        if token.subject.startswith(SCHEME):
            keys.append((Revoked.SPIFFE_ID, "", token.subject))
    session, token_id, email = claims.get("sid"), claims.get("jti"), claims.get("email")
    if isinstance(session, str):
        keys.append((Revoked.SESSION, issuer, session))
    if isinstance(token_id, str):
        keys.append((Revoked.TOKEN, issuer, token_id))
    if isinstance(email, str):
        keys.append((Revoked.EMAIL, issuer, email.translate(_ASCII_LOWER)))


def _sources_of(view: SignalView, kind: SignalKind, identity: Identity) -> tuple[SourceState, ...]:
    """The sources that report on the caller; none if no source reports on its token's issuer."""
    token, peer = identity.token, identity.peer
    sources: tuple[SourceState, ...] = ()
    if token is not None:
        sources = view.sources(kind, Revoked.ISSUER, token.issuer)
        if not sources:
            return ()
    if peer is not None and peer.spiffe_id is not None:
        more = view.sources(kind, Revoked.SPIFFE_ID, "")
        sources = tuple(dict.fromkeys((*sources, *more))) if sources and more else sources or more
    return sources


def _risk(view: SignalView, sources: tuple[SourceState, ...], keys: list[_Key], now: float) -> Fact:
    """The highest risk that any source reports. It is stale if a source that is not heard could report a higher one."""
    if not sources:
        return ABSENT
    highest: Signal | None = None
    stale: SourceState | None = None
    names = set()
    for source in sources:
        if view.is_stale(source, now):
            stale = source
        else:
            names.add(source.name)
    for what, issuer, subject in keys:
        for signal in view.find(SignalKind.RISK, what, issuer, subject):
            if signal.source in names and (highest is None or _rank(signal) > _rank(highest)):
                highest = signal
    if highest is not None and (stale is None or highest.value == RiskLevel.HIGH):
        return Fact(highest.value, None, highest.observed_at, highest.source, highest.event)
    if stale is not None:
        return Fact(None, Unknown.STALE, stale.heard_at or None, stale.name)
    return known(str(RiskLevel.LOW), source=sources[0].name)


def _rank(signal: Signal) -> tuple[int, float]:
    return _RISKS.index(RiskLevel(signal.value)), signal.observed_at


def _is_email_verified(identity: Identity) -> bool:
    """Whether the issuer has verified the address in the token. Otherwise it may be that of somebody else."""
    return identity.token is not None and identity.token.claims.get("email_verified") is True


def _assurance(
    view: SignalView, sources: tuple[SourceState, ...], keys: list[_Key], now: float, *, verified: bool
) -> Fact:
    """The assurance level of the newest event, `NAMESPACE/LEVEL`; "" without one. Sources may be conflicting.

    So is a level that comes by an address that is not `verified`.
    """
    if not sources:
        return ABSENT
    newest: dict[str, Signal] = {}
    for source in sources:
        if view.is_stale(source, now):
            return Fact(None, Unknown.STALE, source.heard_at or None, source.name)
    names = {source.name for source in sources}
    for what, issuer, subject in keys:
        for signal in view.find(SignalKind.ASSURANCE, what, issuer, subject):
            if what is Revoked.EMAIL and not verified and signal.source in names:
                return Fact(None, Unknown.CONFLICTING, signal.observed_at, signal.source, signal.event)
            before = newest.get(signal.source)
            if signal.source in names and (before is None or signal.observed_at > before.observed_at):
                newest[signal.source] = signal
    if not newest:
        return known("", source=sources[0].name)
    last = max(newest.values(), key=lambda signal: signal.observed_at)
    if len({signal.value for signal in newest.values()}) > 1:
        return Fact(None, Unknown.CONFLICTING, last.observed_at, last.source, last.event)
    return Fact(last.value, None, last.observed_at, last.source, last.event)
