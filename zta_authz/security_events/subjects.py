"""Find the tokens, sessions and devices that an event's subject names.

A member of a complex subject that can't be evaluated is dropped, so that the event is about more than its transmitter
meant. This is safe for an event that takes access away. An event that restores trust counts only if `exact`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from zta_authz.model.documents import Revoked
from zta_authz.model.signal_documents import EventKind, OpaqueAs
from zta_authz.model.spiffe import SCHEME, SpiffeId
from zta_authz.security_events.subject_ids import IdFormat

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from zta_authz.model.signal_documents import SignalSource
    from zta_authz.security_events.set_verifier import SecurityEvent
    from zta_authz.security_events.subject_ids import Aliases, SubjectId

ALL_SESSIONS: Final = "ALL"
"""The identifier of every session of the user, as Keycloak writes it. Compared with `sid`, it would revoke nothing."""
_SESSION_KINDS: Final = frozenset(
    (EventKind.SESSION_REVOKED, EventKind.SESSION_ESTABLISHED, EventKind.SESSION_PRESENTED)
)
_ASCII_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """One subject that decisions can be compared with, named as a revocation names it."""

    what: Revoked
    issuer: str = ""
    value: str = ""


class Unmatched(StrEnum):
    """Why an event is about nobody here."""

    UNKNOWN_SUBJECT = "unknown_subject"  # the subject joins to no token, session or device
    OTHER_TENANT = "other_tenant"  # the tenant is another one
    CRITICAL_MEMBER = "critical_member"  # a critical member of the subject can't be evaluated


@dataclass(frozen=True, slots=True)
class SubjectMatch:
    """The subjects of an event. `keys` are alternatives for one principal; () exactly if `unmatched` is set.

    `exact` is false if the event names less than the keys do.
    """

    keys: tuple[SubjectKey, ...] = ()
    exact: bool = False
    unmatched: Unmatched | None = None


_Keys = tuple[SubjectKey, ...]
"""The keys of one member. () means that it names nobody here."""


def normal_email(address: str) -> str:
    """Lower the ASCII letters of an email address. Other characters stay: their case mappings join distinct ones."""
    return address.translate(_ASCII_LOWER)


def match_subject(event: SecurityEvent, source: SignalSource, critical: Collection[str] = ()) -> SubjectMatch:
    """Find what `event` of `source` is about.

    `critical` is the transmitter's `critical_subject_members`: an event with such a member that can't be evaluated is
    unmatched (SSF 1.0, Receiver Subject Processing).
    """
    members = event.subject.members
    if members is None:
        members = {_simple_member(event, source): event.subject.simple}
    evaluated = {name: keys for name, ids in members.items() if (keys := _evaluate(name, ids, source)) is not None}
    if not set(critical).intersection(members).issubset(evaluated):
        return SubjectMatch(unmatched=Unmatched.CRITICAL_MEMBER)
    if "tenant" in evaluated and not evaluated["tenant"]:
        return SubjectMatch(unmatched=Unmatched.OTHER_TENANT)
    if any(not keys for name, keys in evaluated.items() if not _is_wildcard(name, members)):
        return SubjectMatch(unmatched=Unmatched.UNKNOWN_SUBJECT)
    return _choose(event, members, evaluated)


def _choose(event: SecurityEvent, members: Mapping[str, Aliases], evaluated: Mapping[str, _Keys]) -> SubjectMatch:
    """Choose the member that names the fewest: session, user, device. Everyone only if no other member is named."""
    principal = _principal(event)
    if evaluated.get(principal):
        return SubjectMatch(evaluated[principal], exact=True)
    if event.kind is EventKind.DEVICE_COMPLIANCE_CHANGE:
        return SubjectMatch(unmatched=Unmatched.UNKNOWN_SUBJECT)
    narrowing = {name for name in members if name != "tenant" and not _is_wildcard(name, members)}
    for name in ("session", "user", "device"):
        if evaluated.get(name):
            implied = {"session": {"session", "user", "device"}}.get(name, {name})
            return SubjectMatch(evaluated[name], exact=narrowing <= implied)
    if evaluated.get("tenant") and not narrowing:
        return SubjectMatch(evaluated["tenant"], exact=True)
    return SubjectMatch(unmatched=Unmatched.UNKNOWN_SUBJECT)


def _principal(event: SecurityEvent) -> str:
    """The member that the event itself names as its principal, "" if none."""
    if event.kind is EventKind.DEVICE_COMPLIANCE_CHANGE:
        return "device"
    named = event.values.get("principal") if event.kind is EventKind.RISK_LEVEL_CHANGE else None
    return named.lower() if isinstance(named, str) else ""


def _simple_member(event: SecurityEvent, source: SignalSource) -> str:
    """Which member of a complex subject a simple subject stands for."""
    principal = _principal(event)
    if principal:
        return principal
    kind = event.subject.simple[0].format if event.subject.simple else None
    if kind is IdFormat.JWT_ID:
        return "session"
    if kind is IdFormat.OPAQUE:
        default = OpaqueAs.SESSION if event.kind in _SESSION_KINDS else OpaqueAs.SUBJECT
        return "session" if (source.subjects.opaque or default) is OpaqueAs.SESSION else "user"
    return "user"


def _is_wildcard(name: str, members: Mapping[str, Aliases]) -> bool:
    return name == "session" and any(
        identifier.format is IdFormat.OPAQUE and identifier.value == ALL_SESSIONS for identifier in members[name]
    )


def _evaluate(name: str, identifiers: Aliases, source: SignalSource) -> _Keys | None:
    """The keys of one member, None if it can't be evaluated. A session `ALL` has no keys, and is a wildcard."""
    evaluate = _EVALUATORS.get(name)
    if evaluate is None:
        return None
    results = [keys for identifier in identifiers if (keys := evaluate(identifier, source)) is not None]
    return tuple(dict.fromkeys(key for keys in results for key in keys)) if results else None


def _user(identifier: SubjectId, source: SignalSource) -> _Keys | None:
    mapping = source.subjects
    match identifier.format:
        case IdFormat.ISS_SUB:
            return _of_issuers(Revoked.SUBJECT, _issuers(identifier.issuer, source), identifier.value)
        case IdFormat.EMAIL if mapping.email_claim:
            return _of_issuers(Revoked.EMAIL, mapping.token_issuers, normal_email(identifier.value))
        case IdFormat.OPAQUE if mapping.opaque is OpaqueAs.SUBJECT:
            return _of_issuers(Revoked.SUBJECT, mapping.token_issuers, identifier.value)
        case IdFormat.URI if mapping.spiffe_ids and identifier.value.startswith(SCHEME):
            return (SubjectKey(Revoked.SPIFFE_ID, value=identifier.value),) if _is_spiffe_id(identifier.value) else ()
    return None


def _session(identifier: SubjectId, source: SignalSource) -> _Keys | None:
    mapping = source.subjects
    if identifier.format is IdFormat.JWT_ID:
        return _of_issuers(Revoked.TOKEN, _issuers(identifier.issuer, source), identifier.value)
    if identifier.format is not IdFormat.OPAQUE:
        return None
    if identifier.value == ALL_SESSIONS:
        return ()
    return _of_issuers(Revoked.SESSION, mapping.token_issuers, identifier.value) if mapping.session_claim else None


def _device(identifier: SubjectId, source: SignalSource) -> _Keys | None:
    inventory = source.subjects.device_inventory
    if not inventory or identifier.format not in (IdFormat.OPAQUE, IdFormat.ISS_SUB):
        return None
    return (SubjectKey(Revoked.DEVICE, inventory, identifier.value),)


def _tenant(identifier: SubjectId, source: SignalSource) -> _Keys | None:
    if not source.tenant:
        return None
    if identifier.value != source.tenant:
        return ()
    return tuple(SubjectKey(Revoked.ISSUER, value=issuer) for issuer in source.subjects.token_issuers)


_EVALUATORS: Final = {"user": _user, "session": _session, "device": _device, "tenant": _tenant}
"""How the members of a complex subject are evaluated. The others can't be."""


def _issuers(named: str, source: SignalSource) -> tuple[str, ...]:
    """The issuers of the tokens that an identifier of issuer `named` is about.

    A transmitter speaks for the issuers in its document only. Its own `iss` stands for all of them.
    """
    if named in source.subjects.token_issuers:
        return (named,)
    return source.subjects.token_issuers if named == source.issuer else ()


def _of_issuers(what: Revoked, issuers: tuple[str, ...], value: str) -> _Keys:
    return tuple(SubjectKey(what, issuer, value) for issuer in issuers)


def _is_spiffe_id(text: str) -> bool:
    try:
        SpiffeId.parse(text)
    except ValueError:
        return False
    return True
