"""Read `zta.dev/v1` SignalSource: a transmitter of security events, its subjects, and what each event does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.model.signal_documents import (
    CHANGE_TYPES,
    DEFAULT_ACTIONS,
    Delivery,
    EventKind,
    OpaqueAs,
    SignalAction,
    SignalSource,
    SubjectMapping,
    permitted_actions,
)
from zta_authz.policy.yaml.fields import entries
from zta_authz.policy.yaml.nodes import Mapping, Sequence
from zta_authz.policy.yaml.values import duration, optional_text, texts, whole_number, word

if TYPE_CHECKING:
    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

_SPEC_FIELDS: Final = (
    "issuer", "jwksUri", "discovery", "audience", "delivery", "endpoint", "tokenIssuers", "subjects", "act",
    "maxSilence", "maxSubjects", "maxTokenLife", "tenant",
)  # fmt: skip
_SUBJECT_FIELDS: Final = ("iss_sub", "email", "session", "device", "opaque", "spiffeId")
ADDRESS: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?(?:[/?][!-~]*)?")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
JOINED_CLAIMS: Final = {"session": "sid", "email": "email"}
"""The claims that subjects can join to: those that revocations and signals are compared with."""
_EVENTS: Final = {str(kind): kind for kind in DEFAULT_ACTIONS}
"""The events that `act` may name: those that do something unless they are ignored."""
_DIRECT: Final = "direct"
_NO_CLAIM: Final = "none"
MAX_TOKEN_ISSUERS: Final = 10
MAX_AUDIENCES: Final = 10
_MAX_SILENCE: Final = 600.0
_MAX_TOKEN_LIFE: Final = 30 * 86400.0
LONGEST: Final = 400 * 86400.0
_MAX_SUBJECTS: Final = 1000
MOST_SUBJECTS: Final = 1_000_000


def read_signal_source(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the source to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "SignalSource.spec", _SPEC_FIELDS)
    node = reader.required(spec, "issuer", "SignalSource.spec")
    issuer = None if node is None else reader.string(node, "issuer")
    jwks_uri, discovery, endpoint = (_address(reader, spec, name) for name in ("jwksUri", "discovery", "endpoint"))
    audiences = _audiences(reader, spec)
    delivery = Delivery(word(reader, spec, "delivery", Delivery, Delivery.POLL))
    _check_stream(reader, spec, issuer or "", delivery)
    actions, change_types = _actions(reader, spec)
    for part in (header.name, header.namespace):
        if not _NAME.fullmatch(part):
            reader.fault(header.document, f"`{part[:80]}` is not a Kubernetes name", "use a-z, 0-9, `-` and `.`")
    if node is None or issuer is None:
        return
    for earlier in documents.signal_sources:
        if earlier.issuer == issuer:
            message = f"SignalSource `{earlier.full_name}` is for the same issuer"
            reader.fault(node, message, "remove one of the two: one stream carries all events")
    documents.signal_sources.append(
        SignalSource(
            name=header.name,
            namespace=header.namespace,
            position=reader.position(header.document),
            issuer=issuer,
            subjects=_subjects(reader, spec, issuer, header.namespace),
            actions=actions,
            audiences=audiences,
            jwks_uri=jwks_uri,
            discovery=discovery,
            delivery=delivery,
            endpoint=endpoint,
            change_types=change_types,
            max_silence=duration(reader, spec, "maxSilence", _MAX_SILENCE, LONGEST),
            max_token_life=duration(reader, spec, "maxTokenLife", _MAX_TOKEN_LIFE, LONGEST),
            max_subjects=whole_number(reader, spec, "maxSubjects", _MAX_SUBJECTS, 1, MOST_SUBJECTS),
            tenant=optional_text(reader, spec, "tenant") or "",
        )
    )


def check_signal_sources(documents: DocumentSet, faults: list[Fault], warnings: list[Fault]) -> None:
    """Report sources that name a DeviceInventory that does not exist, and warn of issuers that no JWT rule names."""
    inventories = {inventory.full_name for inventory in documents.inventories}
    issuers = {rule.issuer for document in documents.authentications for rule in document.rules}
    for source in documents.signal_sources:
        at, name = source.position, f"SignalSource `{source.full_name}`"
        inventory = source.subjects.device_inventory
        if inventory and inventory not in inventories:
            message = f"{name} is about the devices of DeviceInventory `{inventory}`, which does not exist"
            faults.append(Fault(at.source, at.line, at.column, message, "add it, or correct `subjects.device`"))
        for issuer in () if "" in issuers else source.subjects.token_issuers:
            if issuer not in issuers:
                message = f"{name} is about the tokens of `{issuer}`, which no RequestAuthentication names"
                hint = "correct `tokenIssuers`; its default is the transmitter's own `issuer`"
                warnings.append(Fault(at.source, at.line, at.column, message, hint))


def _address(reader: Reader, spec: Mapping, field: str) -> str:
    text = optional_text(reader, spec, field)
    if text is not None and not ADDRESS.fullmatch(text):
        node = spec.get(field) or spec
        reader.fault(node, f"`{field}` is not an HTTP or HTTPS URL", "write it like https://idp.example.com/path")
    return text or ""


def _audiences(reader: Reader, spec: Mapping) -> tuple[str, ...]:
    """`audience`: one string or a list of them."""
    node = spec.get("audience")
    if not isinstance(node, Sequence):
        text = optional_text(reader, spec, "audience")
        return () if text is None else (text,)
    _limit(reader, node, "audience", MAX_AUDIENCES)
    return texts(reader, spec, "audience")


def _limit(reader: Reader, node: Node, field: str, most: int) -> None:
    if isinstance(node, Sequence) and len(node.items) > most:
        reader.fault(node, f"`{field}` has {len(node.items)} entries, more than {most}", "leave out those not in use")


def _check_stream(reader: Reader, spec: Mapping, issuer: str, delivery: Delivery) -> None:
    """Report a stream whose keys, address or audience could not be known."""
    endpoint = spec.get("endpoint")
    if endpoint is not None and delivery is Delivery.PUSH:
        hint = "remove it: the setting `signals.listen` has the address that the transmitter posts to"
        reader.fault(endpoint, "`endpoint` has no effect with `delivery: push`", hint)
    elif endpoint is not None and spec.get("audience") is None:
        reader.fault(spec, "`endpoint` names an existing stream, so its `audience` must be known", "add `audience`")
    if issuer and spec.get("discovery") is None and not ADDRESS.fullmatch(issuer):
        known = spec.get("jwksUri") is not None and (endpoint is not None or delivery is Delivery.PUSH)
        if not known:
            hint = "add `discovery`, or `jwksUri` and `endpoint`"
            reader.fault(spec, "`issuer` is not a URL, so the transmitter's metadata can't be found", hint)


def _subjects(reader: Reader, spec: Mapping, issuer: str, namespace: str) -> SubjectMapping:
    issuers_node = spec.get("tokenIssuers")
    if issuers_node is not None:
        _limit(reader, issuers_node, "tokenIssuers", MAX_TOKEN_ISSUERS)
    issuers = tuple(dict.fromkeys(texts(reader, spec, "tokenIssuers"))) or (issuer,)
    node = spec.get("subjects")
    written = None if node is None else reader.mapping(node, "subjects", _SUBJECT_FIELDS)
    if written is None:
        return SubjectMapping(issuers)
    _only(reader, written, "iss_sub", _DIRECT)
    opaque = word(reader, written, "opaque", OpaqueAs, "")
    session = _part(reader, written, "session", "claim")
    return SubjectMapping(
        issuers,
        email_claim=_claim(reader, written, "email") or "",
        session_claim="" if session == _NO_CLAIM else _claim(reader, written, "session") or JOINED_CLAIMS["session"],
        device_inventory=_inventory(reader, written, namespace),
        opaque=OpaqueAs(opaque) if opaque else None,
        spiffe_ids=_only(reader, written, "spiffeId", _DIRECT),
    )


def _only(reader: Reader, node: Mapping, field: str, value: str) -> bool:
    """Whether `field` is present. Its only value is `value`."""
    text = optional_text(reader, node, field)
    if text is not None and text != value:
        reader.fault(node.get(field) or node, f"`{text[:80]}` is not a `{field}`", f"write `{value}`")
    return text is not None


def _part(reader: Reader, node: Mapping, field: str, part: str) -> str | None:
    """The text `part` of the mapping `field`; None if absent. `session: none` has the text itself."""
    value = node.get(field)
    if value is None:
        return None
    if field == "session" and not isinstance(value, Mapping):
        _only(reader, node, field, _NO_CLAIM)
        return _NO_CLAIM
    inner = reader.mapping(value, field, (part,))
    written = None if inner is None else reader.required(inner, part, f"`{field}`")
    return None if written is None else reader.string(written, part)


def _claim(reader: Reader, node: Mapping, field: str) -> str | None:
    """The claim that a subject joins to. Decision points compare one claim for each kind of subject, and no other."""
    text = _part(reader, node, field, "claim")
    if text is not None and text != JOINED_CLAIMS[field]:
        message = f"decision points do not compare the claim `{text[:80]}` with events, so nothing would be revoked"
        reader.fault(node.get(field) or node, message, f"write `{JOINED_CLAIMS[field]}`, or leave `{field}` out")
    return text


def _inventory(reader: Reader, node: Mapping, namespace: str) -> str:
    """`namespace/name` of the DeviceInventory that knows the source's devices."""
    name = _part(reader, node, "device", "inventory")
    if name is None:
        return ""
    if name.count("/") > 1 or not all(name.split("/")):
        reader.fault(node.get("device") or node, f"`{name[:80]}` is not a name", "write NAME or NAMESPACE/NAME")
    return name if "/" in name else f"{namespace}/{name}"


def _actions(reader: Reader, spec: Mapping) -> tuple[dict[EventKind, SignalAction], frozenset[str]]:
    """The action of each kind of event, with the defaults, and the change types for which a credential counts."""
    actions = dict(DEFAULT_ACTIONS)
    change_types = frozenset(CHANGE_TYPES) - {"create"}
    node = spec.get("act")
    written = None if node is None else reader.mapping(node, "act", tuple(_EVENTS))
    for name, value in [] if written is None else list(entries(written)):
        kind = _EVENTS.get(name)
        if kind is None:
            continue
        if kind is EventKind.CREDENTIAL_CHANGE and isinstance(value, Mapping):
            change_types = _change_types(reader, value)
            continue
        text = reader.string(value, name)
        permitted = permitted_actions(kind)
        if text is not None and text not in permitted:
            reader.fault(value, f"`{text[:80]}` is not an action of `{name}`", f"one of {', '.join(permitted)}")
        elif text is not None:
            actions[kind] = SignalAction(text)
    return actions, change_types


def _change_types(reader: Reader, node: Mapping) -> frozenset[str]:
    inner = reader.mapping(node, "credential-change", (SignalAction.REVOKE,))
    listed = None if inner is None else reader.required(inner, SignalAction.REVOKE, "`credential-change`")
    types = [] if listed is None else reader.strings(listed, SignalAction.REVOKE)
    for item in types:
        if item.value not in CHANGE_TYPES:
            hint = f"one of {', '.join(CHANGE_TYPES)}"
            reader.fault(item, f"`{item.value[:80]}` is not a change type of a credential", hint)
    return frozenset(item.value for item in types)
