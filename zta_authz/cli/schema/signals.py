"""Schema of SignalSource."""

from __future__ import annotations

from zta_authz.cli.schema.building import Schema, duration, fields, listed, number, text, texts, whole, word
from zta_authz.model.signal_documents import (
    CHANGE_TYPES,
    DEFAULT_ACTIONS,
    Delivery,
    EventKind,
    OpaqueAs,
    SignalAction,
    permitted_actions,
)
from zta_authz.policy.documents.signal_source import (
    ADDRESS,
    JOINED_CLAIMS,
    LONGEST,
    MAX_AUDIENCES,
    MAX_TOKEN_ISSUERS,
    MOST_SUBJECTS,
)


def signal_source() -> Schema:
    """The schema of a SignalSource's `spec`."""
    audiences = texts("The audiences.", most=MAX_AUDIENCES)
    events = {str(kind): _action(kind) for kind in DEFAULT_ACTIONS}
    return fields(
        "A transmitter of security events, and what its events do.",
        {
            "issuer": text("The transmitter, as in the claim `iss` of its events.", examples=["https://idp.example"]),
            "jwksUri": _address("Where its keys are. From its metadata if absent."),
            "discovery": _address("Where its metadata is. Below `issuer` if absent."),
            "audience": {
                "description": "The audience of its events: one, or a list.",
                "anyOf": [{"type": "string", "minLength": 1}, audiences],
            },
            "delivery": word("How events arrive.", Delivery, Delivery.POLL),
            "endpoint": _address("Where events of an existing stream are polled. Needs `audience`."),
            "tokenIssuers": texts("The issuers of the tokens that events are about.", most=MAX_TOKEN_ISSUERS),
            "subjects": _subjects(),
            "act": fields("What each event does, where that is not the default.", events),
            "maxSilence": duration("The longest time without an event or an answer.", LONGEST, "10m"),
            "maxSubjects": number("The most subjects that it may change within an hour.", 1, MOST_SUBJECTS, 1000),
            "maxTokenLife": duration("The longest life of the tokens that events are about.", LONGEST, "720h"),
            "tenant": text("The tenant whose subjects the events are about."),
        },
        required=("issuer",),
    )


def _address(description: str) -> Schema:
    return text(description, pattern=whole(ADDRESS), examples=["https://idp.example/path"])


def _part(description: str, part: str, inner: Schema) -> Schema:
    return fields(description, {part: inner}, required=(part,))


def _claim(description: str, field: str) -> Schema:
    return _part(description, "claim", word("The claim's name.", (JOINED_CLAIMS[field],)))


def _subjects() -> Schema:
    session = _claim("The claim of tokens that has the session.", "session")
    inventory = text("`name` in the document's namespace, or `namespace/name`.", pattern="^[^/]+(?:/[^/]+)?$")
    return fields(
        "Which subjects of events are known, and what of a token they are compared with.",
        {
            "iss_sub": word("Issuer and subject of a token. Always known.", ("direct",)),
            "email": _claim("The claim of tokens that has the email address.", "email"),
            "session": {
                "description": "The claim with the session, `sid` if absent; `none` if tokens have no such claim.",
                "anyOf": [{"const": "none"}, session],
            },
            "device": _part("The DeviceInventory with the devices that events name.", "inventory", inventory),
            "opaque": word("What an opaque subject is.", OpaqueAs),
            "spiffeId": word("Events may be about SPIFFE IDs.", ("direct",)),
        },
    )


def _action(kind: EventKind) -> Schema:
    schema = word(f"What `{kind}` does.", permitted_actions(kind), DEFAULT_ACTIONS[kind])
    if kind is not EventKind.CREDENTIAL_CHANGE:
        return schema
    types = listed("For these changes only.", {"enum": list(CHANGE_TYPES)})
    some = _part("Only some changes of credentials.", SignalAction.REVOKE, types)
    return {"description": schema["description"], "anyOf": [{"enum": schema["enum"]}, some]}
