"""Schemas of what rules say: `from`, `to`, `when`, `response`, times and selectors."""

from __future__ import annotations

from typing import Final

from zta_authz.cli.schema.building import (
    Schema,
    duration,
    exactly_one,
    fields,
    labels,
    listed,
    moment,
    not_both,
    number,
    shared,
    text,
    texts,
    whole,
    word,
)
from zta_authz.model.minting import MAX_LIFETIME, RESERVED_CLAIMS, SESSION_HEADER, TRANSACTION_HEADER, TokenKind
from zta_authz.model.spiffe import TRUST_DOMAIN
from zta_authz.policy.documents.authorization_policy import MAX_RULES, MAX_SERVICE_ACCOUNTS
from zta_authz.policy.rules.clause_factory import KNOWN_KEYS, OWN_KEYS
from zta_authz.policy.rules.fact_values import DEVICE_KEY
from zta_authz.policy.rules.response_mint import (
    MAX_AUDIENCE,
    MAX_CLAIM_NAME,
    MAX_CLAIM_VALUE,
    MAX_CLAIMS,
    MAX_SCOPE,
)
from zta_authz.policy.rules.response_template import (
    MAX_HEADER_VALUE,
    MAX_LOCATION,
    MAX_MESSAGE,
    REDIRECTS,
    TOKEN_DENIALS,
)
from zta_authz.policy.rules.schedule import CLOCK, DAYS
from zta_authz.policy.yaml.header_names import HEADER_NAME

SPIFFE_ID: Final = f"^spiffe://(?:{TRUST_DOMAIN.pattern})(?:/[A-Za-z0-9._-]+)*"
"""The begin of a pattern: a whole SPIFFE ID, without the end of the text."""
FORMS: Final = "Forms: exact, `prefix*`, `*suffix`, or `*` for any."
_PORT: Final = "^[0-9]{1,5}$"
_SERVICE_ACCOUNT: Final = "^[^/*]+(?:/[^/*]+)?$"
_KEYED: Final = r"^(?:request\.headers|request\.auth\.claims|experimental\.envoy\.filters\.[^\[\]]+)\[[\s\S]+\]$"

_SOURCES: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "principals": (f"SPIFFE IDs of peers, without `spiffe://`. {FORMS}", "", ("cluster.local/ns/shop/sa/frontend",)),
    "requestPrincipals": (f"`issuer/subject` of the verified token. {FORMS}", "", ("https://issuer.example/*",)),
    "namespaces": ("Namespaces of peers, taken from their SPIFFE IDs. `*` matches any text.", "", ("shop",)),
    "serviceAccounts": (
        "Service accounts of peers: `account` in the policy's namespace, or `namespace/account`.",
        _SERVICE_ACCOUNT,
        ("shop/frontend",),
    ),
    "trustDomains": (f"Trust domains of peers. {FORMS}", "", ("cluster.local",)),
    "ipBlocks": ("Addresses or CIDR blocks of the direct peer.", "", ("10.0.0.0/8",)),
    "remoteIpBlocks": ("Addresses or CIDR blocks of the client, behind trusted proxies.", "", ("203.0.113.0/24",)),
}
_OPERATIONS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "hosts": (f"Hosts of the request, compared without regard to case. {FORMS}", "", ("shop.example.com",)),
    "ports": ("Ports of the destination, as strings.", _PORT, ("8080",)),
    "methods": (f"HTTP methods, in upper case as clients send them. {FORMS}", "", ("GET",)),
    "paths": (
        f"Paths without the query. {FORMS} In a template `{{*}}` is one segment and `{{**}}` is any number of them.",
        "",
        ("/orders/*",),
    ),
}


def _with_negations(written: dict[str, tuple[str, str, tuple[str, ...]]]) -> dict[str, Schema]:
    properties: dict[str, Schema] = {}
    for name, (description, pattern, examples) in written.items():
        most = MAX_SERVICE_ACCOUNTS if name == "serviceAccounts" else None
        opposite = f"not{name[0].upper()}{name[1:]}"
        properties[name] = texts(description, pattern=pattern, most=most, examples=examples)
        negated = f"The opposite of `{name}`: none of the values matches."
        properties[opposite] = texts(negated, pattern=pattern, most=most, examples=examples)
    return properties


def _source() -> Schema:
    alone = "All fields of a source must match. A source without identity fields matches callers without identity."
    source = {**fields(alone, _with_negations(_SOURCES)), "minProperties": 1}
    accounts, others = (
        ("serviceAccounts", "notServiceAccounts"),
        ("principals", "notPrincipals", "namespaces", "notNamespaces"),
    )
    pairs = [(account, other) for account in accounts for other in others]
    entry = fields("One alternative.", {"source": not_both(source, *pairs)}, required=("source",))
    return listed("Callers that the rule matches: one of the entries must match.", entry)


def operations() -> Schema:
    """The schema of `to`."""
    operation = {**fields("All fields of an operation must match.", _with_negations(_OPERATIONS)), "minProperties": 1}
    entry = fields("One alternative.", {"operation": operation}, required=("operation",))
    return listed("Requests that the rule matches: one of the entries must match.", entry)


def conditions() -> Schema:
    """The schema of `when`."""
    plain = [name for name in (*KNOWN_KEYS, *OWN_KEYS) if "[" not in name and "FIELD" not in name]
    key: Schema = {
        "description": "The attribute that is compared, such as `request.headers[x-team]` or `source.ip`.",
        "anyOf": [
            {"enum": plain},
            {"type": "string", "pattern": _KEYED},
            {"type": "string", "pattern": whole(DEVICE_KEY)},
        ],
        "examples": ["request.auth.claims[groups]", "request.headers[x-team]", *plain],
    }
    properties = {
        "key": key,
        "values": texts(f"The attribute matches one of these. {FORMS}", examples=["staff"]),
        "notValues": texts("The attribute matches none of these.", examples=["guest"]),
    }
    entry = fields("A comparison of one attribute.", properties, required=("key",), one_of=("values", "notValues"))
    return listed("Comparisons that must all hold.", entry)


def rules(rule: Schema, description: str, *, least: int = 0) -> Schema:
    """A list of rules."""
    return {"description": description, "type": "array", "items": rule, "minItems": least, "maxItems": MAX_RULES}


def rule_sections() -> dict[str, Schema]:
    """The fields of a rule that Istio has too."""
    return {"from": shared("from"), "to": shared("to"), "when": shared("when")}


def times() -> dict[str, Schema]:
    """The fields that limit when a policy or rule is in force."""
    return {
        "effectiveFrom": moment("Not in force before this time."),
        "expiresAt": moment("Not in force from this time on; later than `effectiveFrom`."),
        "schedule": shared("schedule"),
    }


def _schedule() -> Schema:
    clock = {"type": "string", "pattern": whole(CLOCK), "examples": ["09:30"]}
    window = {
        "days": listed("Days on which the window begins. Every day if absent.", {"enum": list(DAYS)}),
        "from": {"description": "Begin of the window, as `HH:MM` in quotes.", **clock},
        "to": {"description": "End of the window. One that is not after `from` is on the next day.", **clock},
    }
    properties = {
        "timeZone": text("An IANA time zone.", examples=["Europe/Berlin", "UTC"]),
        "windows": listed("In force in any of these.", fields("A weekly window.", window, required=("from", "to"))),
    }
    return fields("Weekly windows in which it is in force.", properties, required=tuple(properties))


def selector() -> Schema:
    """The schema of `selector`."""
    names = {"pattern": "^[^*]+$"}
    match = {**labels("Labels that the workload must have."), "propertyNames": names}
    match["additionalProperties"] = {"type": "string", "pattern": "^[^*]*$"}
    return fields(
        "The workloads of the document's namespace that it applies to. All of them if absent; in the root namespace, "
        "those of every namespace.",
        {"matchLabels": match},
    )


def _mint() -> Schema:
    """`response.mint`."""
    claim = fields(
        "A claim. A claim that the caller's token does not have is left out.",
        {
            "name": text("The claim's name.", most=MAX_CLAIM_NAME, examples=["tenant"]),
            "value": text("A fixed value, in one line.", most=MAX_CLAIM_VALUE),
            "claim": _claim(
                "The claim of the caller's token that gives the value: its name, or those of a nested claim."
            ),
        },
        required=("name",),
    )
    claim["properties"]["name"]["not"] = {"enum": sorted(RESERVED_CLAIMS)}
    return fields(
        "A token that is minted for the application and sent to it with the request.",
        {
            "audience": text(
                "The application, as it knows itself: `aud`.", most=MAX_AUDIENCE, examples=["orders.shop"]
            ),
            "header": text(
                f"The header: by default `{SESSION_HEADER}` for sessions, `{TRANSACTION_HEADER}` for transactions.",
                pattern=whole(HEADER_NAME),
            ),
            "kind": word(
                "`session` tokens are reused for a caller, `transaction` tokens are for one request.",
                TokenKind,
                TokenKind.SESSION.value,
            ),
            "lifetime": duration("How long the token lives, at least 5 s.", MAX_LIFETIME, "60s", "60s"),
            "scope": text("Its `scope`, separated by spaces.", most=MAX_SCOPE, examples=["orders.read"]),
            "claims": listed("More claims.", exactly_one(claim, "value", "claim"), MAX_CLAIMS),
        },
        required=("audience",),
    )


def _claim(description: str) -> Schema:
    """The name or path of a claim."""
    return {
        "description": description,
        "anyOf": [
            {"type": "string", "minLength": 1},
            listed("Names from the outside in.", {"type": "string", "minLength": 1}),
        ],
        "examples": ["sub", ["address", "country"]],
    }


def _response() -> Schema:
    header = fields(
        "A header. A header whose claim has no text is removed.",
        {
            "name": text(
                "The header's name. Headers that frame a message, `host` and `x-zta-*` can't be changed.",
                pattern=whole(HEADER_NAME),
                examples=["x-user"],
            ),
            "value": text("A fixed value, in one line.", most=MAX_HEADER_VALUE),
            "claim": _claim("The claim of the token that gives the value: its name, or the names of a nested claim."),
        },
        required=("name",),
    )
    redirect = fields(
        "Answers a denial with a redirect, for example to a login page.",
        {
            "status": {"description": "The HTTP status.", "enum": list(REDIRECTS), "default": 302},
            "location": text(
                "A URL, or a path of the same host.",
                pattern="^(?:https?://|/(?!/))",
                most=MAX_LOCATION,
                examples=["https://login.example/"],
            ),
        },
        required=("location",),
    )
    headers = {
        "set": listed(
            "Headers to set: on the request that is forwarded, or on the denial.", exactly_one(header, "value", "claim")
        ),
        "remove": {
            **texts("Headers to remove from the request that is forwarded.", pattern=whole(HEADER_NAME)),
            "uniqueItems": True,
        },
    }
    properties = {
        "headers": {**fields("Headers to set or remove.", headers), "minProperties": 1},
        "mint": _mint(),
        "status": number("The HTTP status of a denial.", 400, 599),
        "redirect": redirect,
        "message": text("A text for the caller in the body of a denial, in one line.", most=MAX_MESSAGE),
        "tokenDenials": listed(
            "Also the response to requests that are denied for their token for these reasons. `*` is all.",
            {"enum": ["*", *sorted(TOKEN_DENIALS)]},
        ),
    }
    response = fields("How the response looks when this policy or rule decides.", properties)
    return not_both({**response, "minProperties": 1}, ("status", "redirect"))


def definitions() -> dict[str, Schema]:
    """The shared schemas of this module, by name."""
    return {
        "from": _source(),
        "to": operations(),
        "when": conditions(),
        "schedule": _schedule(),
        "selector": selector(),
        "response": _response(),
    }
