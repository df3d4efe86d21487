"""Schemas of AccessEntitlement and AccessGrant."""

from __future__ import annotations

from typing import Final

from zta_authz.cli.schema.building import Schema, duration, fields, listed, moment, number, shared, text, whole
from zta_authz.cli.schema.rules import SPIFFE_ID
from zta_authz.policy.cel.pattern import MAX_CHARACTERS
from zta_authz.policy.documents.access_entitlement import (
    LONGEST_BREAK_GLASS,
    LONGEST_GRANT,
    LONGEST_PENDING,
    MAX_APPROVER_GROUPS,
    MAX_APPROVERS,
    MAX_OPEN,
)
from zta_authz.policy.rules.require_grant import ENTITLEMENT_NAME

_NAMED: Final = "`name` in the document's namespace, or `namespace/name`."


def grant_requirement() -> Schema:
    """The schema of `require.grant`."""
    described = f"The caller holds an active grant of this AccessEntitlement: {_NAMED}"
    return text(described, pattern=whole(ENTITLEMENT_NAME), examples=["payments-db"])


def access_entitlement() -> Schema:
    """The schema of an AccessEntitlement's `spec`."""
    reason = fields(
        "The reason that a request for access must give.",
        {
            "required": {"description": "Whether a reason is required.", "type": "boolean", "default": True},
            "pattern": text("A regular expression (RE2) that the whole reason must match.", most=MAX_CHARACTERS),
        },
    )
    group = fields(
        "A group of approvers.",
        {
            "from": shared("from"),
            "when": shared("when"),
            "count": number("How many of the group must approve.", 1, MAX_APPROVERS, 1),
        },
        required=("from",),
    )
    emergency = fields(
        "Who may have access at once in an emergency.",
        {
            "who": shared("from"),
            "when": shared("when"),
            "maxDuration": duration("How long such access lasts.", LONGEST_BREAK_GLASS, "30m"),
            "reviewWithin": duration("How soon it must be reviewed.", LONGEST_PENDING, "24h"),
        },
        required=("who",),
    )
    return fields(
        "Who may have access for a while, to what, and who approves.",
        {
            "who": shared("from"),
            "when": shared("when"),
            "to": shared("to"),
            "maxDuration": duration("The longest that a grant lasts.", LONGEST_GRANT, example="4h"),
            "pendingFor": duration("How long a request waits for a decision.", LONGEST_PENDING, "24h"),
            "reason": reason,
            "approvers": listed("All groups must approve.", group, MAX_APPROVER_GROUPS),
            "breakGlass": emergency,
            "maxOpen": number("The most undecided requests and active grants of one person.", 1, MAX_OPEN, 10),
        },
        required=("who", "maxDuration"),
        one_of=("approvers", "breakGlass"),
    )


def access_grant() -> Schema:
    """The schema of an AccessGrant's `spec`."""
    subject = fields(
        "Who holds the grant: the subject of a token, or a SPIFFE ID.",
        {
            "issuer": text("The issuer, as in the claim `iss`.", examples=["https://issuer.example"]),
            "subject": text("The subject, as in the claim `sub`.", examples=["ann"]),
            "spiffeId": text("The SPIFFE ID of the peer.", pattern=f"{SPIFFE_ID}$"),
        },
    )
    subject["oneOf"] = [
        {"required": ["issuer", "subject"], "properties": {"spiffeId": False}},
        {"required": ["spiffeId"], "properties": {"issuer": False, "subject": False}},
    ]
    return fields(
        "A grant of an entitlement that comes as a document.",
        {
            "entitlement": text(f"The AccessEntitlement: {_NAMED}", examples=["payments-db"]),
            "subject": subject,
            "from": moment("The begin of the grant. At once if absent."),
            "until": moment("The end of the grant; later than `from`."),
            "reason": text("Why, for readers of the document."),
        },
        required=("entitlement", "subject", "until"),
    )
